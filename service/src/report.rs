//! Results as values. Printing them is the command line's business; the field names are a contract.

pub mod result;

use serde::Serialize;
use tollgate_migration::plan::Blocks;
use tollgate_migration::{Phase, Track};

pub use result::CommandResult;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `migrate up` refuses.
    Blocking,
    /// Behaviour changes, or something is dropped.
    Warning,
    /// Good to know.
    Info,
}

/// A hazard or a broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Its stable code.
    pub code: String,
    /// How much it weighs.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// The table.
    pub table: String,
    /// The column, where the finding is about one.
    pub column: Option<String>,
    /// How many rows.
    pub rows: u64,
    /// The first of their ids.
    pub sample_ids: Vec<String>,
    /// What would happen.
    pub effect: String,
    /// The flag or command that resolves it.
    pub resolve: String,
}

/// One table × one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The table.
    pub table: String,
    /// What was done to the rows.
    pub action: String,
    /// How many rows.
    pub rows: u64,
    /// The first of their ids.
    pub sample_ids: Vec<String>,
}

impl Finding {
    /// A finding about a table, of one row that has no id; the fields say the rest.
    pub fn new(
        code: impl Into<String>,
        severity: Severity,
        title: impl Into<String>,
        table: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            severity,
            title: title.into(),
            table: table.into(),
            column: None,
            rows: 1,
            sample_ids: Vec::new(),
            effect: String::new(),
            resolve: String::new(),
        }
    }
}

impl Change {
    /// So many rows of a table; the fields say the rest.
    pub fn new(table: impl Into<String>, action: impl Into<String>, rows: u64) -> Self {
        Self {
            table: table.into(),
            action: action.into(),
            rows,
            sample_ids: Vec::new(),
        }
    }
}

/// A migration that was applied or undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Applied {
    /// The migration.
    pub version: String,
    /// Its phase.
    pub phase: Phase,
    /// How long it took.
    pub duration_ms: u64,
    /// How many rows it changed.
    pub rows: u64,
    /// Rows that were locked or new to the end and are left to contract's catch-up.
    pub left: u64,
    /// How long the longest of its transactions and statements lasted that made anybody wait, in milliseconds.
    pub longest_lock_ms: u64,
    /// Whom that one made wait.
    pub blocks: Blocks,
}

/// A migration that is still to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pending {
    /// The migration.
    pub version: String,
    /// Its phase.
    pub phase: Phase,
    /// What it does.
    pub summary: String,
}

/// What happened to one track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrackReport {
    /// The track.
    pub track: Track,
    /// The last migration that was applied before the run.
    pub from: Option<String>,
    /// The last migration that is applied now.
    pub to: Option<String>,
    /// What the run applied or undid; for `status`, all that is applied.
    pub applied: Vec<Applied>,
    /// What is still to be applied.
    pub pending: Vec<Pending>,
}

/// What a command found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// One entry per track.
    pub tracks: Vec<TrackReport>,
    /// What was changed besides.
    pub changes: Vec<Change>,
    /// Hazards and broken invariants.
    pub findings: Vec<Finding>,
    /// The command's own result.
    pub result: Option<CommandResult>,
}

impl Report {
    /// A report that has nothing but a result.
    pub fn answering(result: CommandResult) -> Self {
        Self {
            result: Some(result),
            ..Self::default()
        }
    }

    /// Whether a finding forbids the migration.
    pub fn is_blocked(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Blocking)
    }

    /// The rows of all changes.
    pub fn rows(&self) -> u64 {
        self.changes.iter().map(|change| change.rows).sum()
    }

    /// Whether migrations are still to be applied.
    pub fn is_pending(&self) -> bool {
        self.tracks.iter().any(|track| !track.pending.is_empty())
    }
}

/// What a command that may fail half-way came to: what it did stands in the report either way.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// What was found and done.
    pub report: Report,
    /// What stopped it.
    pub error: Option<crate::Error>,
}

impl Outcome {
    /// What was found and done, and what stopped it.
    pub fn new(report: Report, error: Option<crate::Error>) -> Self {
        Self { report, error }
    }
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        Self::new(report, None)
    }
}

impl From<crate::Result<Report>> for Outcome {
    fn from(result: crate::Result<Report>) -> Self {
        match result {
            Ok(report) => Self {
                report,
                error: None,
            },
            Err(error) => Self {
                report: Report::default(),
                error: Some(error),
            },
        }
    }
}
