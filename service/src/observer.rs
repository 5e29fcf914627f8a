//! What a run tells whoever watches it, while it goes on.

use std::time::Duration;

/// How far a backfill has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// What the pass is for.
    pub purpose: String,
    /// How much of the table was walked, in the units of its physical order.
    pub position: u64,
    /// Where the pass ends.
    pub bound: u64,
    /// Rows changed so far.
    pub rows: u64,
    /// Time since the pass began.
    pub elapsed: Duration,
}

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A migration begins.
    Migration {
        /// The migration.
        version: String,
        /// What it does.
        summary: String,
    },
    /// A statement or transaction begins.
    Step(String),
    /// A backfill goes on.
    Backfill(Progress),
    /// A pass of a backfill ended.
    BackfillDone(Progress),
    /// The run holds between two batches, and why.
    Holds(String),
    /// It goes on.
    GoesOn,
    /// A migration ended.
    Applied {
        /// The migration.
        version: String,
        /// How long it took.
        duration: Duration,
        /// How many rows it changed.
        rows: u64,
    },
}

/// Told what happens.
pub trait Observer: Send + Sync {
    /// Takes note of an event. Must not block: batches wait for it.
    fn note(&self, event: Event);
}

/// Nobody watches.
pub struct Silent;

impl Observer for Silent {
    fn note(&self, _event: Event) {}
}
