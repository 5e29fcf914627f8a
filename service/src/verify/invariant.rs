//! Something that must hold, and what is said where it does not.

/// Something that must hold.
pub struct Invariant {
    /// The code of a finding that it does not.
    pub code: &'static str,
    /// What is wrong then, as one line.
    pub title: &'static str,
    /// What comes of it.
    pub effect: &'static str,
    /// What to do.
    pub resolve: &'static str,
}

pub(crate) const RESTORE: &str = "compare with the backup, and correct the rows or restore it";

/// What must hold of every track; a track's own are its module's.
pub(super) const INVARIANTS: &[Invariant] = &[
    Invariant {
        code: "V001",
        title: "the schema is not what the applied migrations make",
        effect: "what relies on it fails or is not enforced",
        resolve: "undo the change by hand; `tollgate schema diff` lists all of them",
    },
    Invariant {
        code: "V002",
        title: "an index is INVALID",
        effect: "it is kept up to date and never used, and a unique one may hold duplicates",
        resolve: "drop it, and build it again with CREATE INDEX CONCURRENTLY",
    },
    Invariant {
        code: "V003",
        title: "a constraint is NOT VALID",
        effect: "rows from before it may break it",
        resolve: "ALTER TABLE … VALIDATE CONSTRAINT …",
    },
    Invariant {
        code: "V004",
        title: "a row violates its foreign key",
        effect: "the row refers to one that is not there; its next write fails",
        resolve: "create the parent, or delete the row",
    },
    Invariant {
        code: "V006",
        title: "a row's parent is not there",
        effect: "nothing reaches the row, and no foreign key keeps it from piling up",
        resolve: "create the parent, or delete the row",
    },
    Invariant {
        code: "V007",
        title: "a legacy column or table is still there",
        effect: "old code would write to what nothing reads",
        resolve: "drop it, or find out which program created it again",
    },
    Invariant {
        code: "V101",
        title: "something of the schema that the snapshot has is gone or changed",
        effect: "it was there before and no migration removes it",
        resolve: "create it again",
    },
    Invariant {
        code: "V102",
        title: "rows of the snapshot are gone",
        effect: "no migration deletes them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V103",
        title: "there are rows that the snapshot has not",
        effect: "no migration inserts them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V104",
        title: "values differ from the snapshot",
        effect: "no migration changes them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V105",
        title: "what the snapshot says has lost its place",
        effect: "it should have exactly one in the new schema",
        resolve: RESTORE,
    },
    Invariant {
        code: "V106",
        title: "something holds now that the snapshot does not say",
        effect: "no migration makes it true",
        resolve: RESTORE,
    },
];

/// A row that may not be there.
pub struct Question {
    /// The finding's code.
    pub code: &'static str,
    /// The table of the row.
    pub table: String,
    /// The column that is wrong.
    pub column: Option<String>,
    /// Names the offending rows in a column `id`.
    pub sql: String,
}
