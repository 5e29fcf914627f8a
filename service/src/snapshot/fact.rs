//! What rows say, wherever it stands.

/// Something that rows say, in whichever schema.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its name in the file.
    pub name: &'static str,
    /// The table that says it in the new schema.
    pub table: &'static str,
    /// A query of one text column `fact`, one row for each time it is true: the row's id, the column that says it in the
    /// new schema, and what it says, separated by [`SEPARATOR`].
    pub sql: String,
}

/// Separates the parts of a fact; a character that no id has.
pub const SEPARATOR: char = '\u{1f}';
