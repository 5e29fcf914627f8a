//! One repair, and how it is done.

/// One repair.
#[derive(Debug)]
pub struct Repair {
    /// The table.
    pub table: String,
    /// What is done, as the report says it.
    pub action: &'static str,
    /// To which of its objects.
    pub object: String,
    pub(super) statements: Vec<String>,
    pub(super) how: How,
}

impl Repair {
    /// Statements of one transaction, with nothing to be seen to besides.
    pub fn plain(table: &str, action: &'static str, object: &str, statements: Vec<String>) -> Self {
        Self {
            table: table.to_owned(),
            action,
            object: object.to_owned(),
            statements,
            how: How::Plain,
        }
    }
}

/// What has to be seen to besides its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing.
    Plain,
    /// A table goes, and is taken out of the record of who made it.
    Drops,
    /// PostgreSQL refuses it in a transaction.
    NonTransactional,
}
