//! Reconciliation: a routine computes the difference between what rows say and what they should say, and closes it in a
//! transaction. Plan and application use the same predicate, so they cannot disagree.

pub mod billing;

/// How a routine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Say what would change and change nothing.
    pub dry_run: bool,
    /// The brake: a run that wants to change more rows stops before its first write.
    pub max_changes: Option<u64>,
}
