//! How a routine runs.

use super::part::Shard;

/// How a routine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Say what would change and change nothing.
    pub dry_run: bool,
    /// The change limit: a run that wants to change more rows stops before its first write.
    pub max_changes: Option<u64>,
    /// Only this shard of the sweep's rows; others run at the same time, in processes of their own.
    pub shard: Option<Shard>,
    /// On how many connections a sweep works at once (PostgreSQL); 0 is one.
    pub parallel: u8,
}

impl Options {
    /// Say what would change and change nothing.
    pub fn dry_run() -> Self {
        Self {
            dry_run: true,
            ..Self::default()
        }
    }
}
