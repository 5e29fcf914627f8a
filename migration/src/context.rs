//! What a migration may know when it makes its plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Catalog;
use crate::choice::{Choice, Choices};
use crate::ledger::Ledger;
use crate::plan::Created;

/// When a migration was applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedStep {
    /// In seconds since 1970.
    pub at: i64,
    /// Whether it was recognised rather than run: what it makes may be older.
    pub is_adopted: bool,
}

/// What a migration may know when it makes its plan.
#[derive(Clone, Debug)]
pub struct Context {
    /// The live schema.
    pub catalog: Catalog,
    /// Ids in upstream's own `migrations` table; empty where there is none.
    pub upstream: Vec<String>,
    /// What each track's gateway has recorded, by the track's name.
    pub ledgers: BTreeMap<&'static str, Ledger>,
    /// What the track's applied migrations created here, by version.
    pub history: BTreeMap<String, Created>,
    /// What the operator chose.
    pub choices: Choices,
    /// When they were applied, by version.
    pub applied: BTreeMap<String, AppliedStep>,
    /// When each kind of run last began, in seconds since 1970; read only where a track asks for it.
    pub last_runs: BTreeMap<String, i64>,
    /// The names of the tracks' questions about the rows whose answer is yes ([`crate::track::Track::asks`]).
    pub answers: BTreeSet<&'static str>,
}

/// The part of a version behind its date and number.
pub fn slug_of(version: &str) -> &str {
    version.splitn(3, '_').nth(2).unwrap_or(version)
}

impl Context {
    /// Whether the operator chose that.
    pub fn chose(&self, choice: &Choice) -> bool {
        self.choices.has(choice)
    }

    /// When one of the track's migrations was applied here.
    pub fn applied(&self, slug: &str) -> Option<AppliedStep> {
        self.applied
            .iter()
            .find(|(version, _)| slug_of(version) == slug)
            .map(|(_, step)| *step)
    }

    /// Whether upstream has recorded one of its own migrations.
    pub fn upstream_ran(&self, id: &str) -> bool {
        self.upstream.iter().any(|found| found == id)
    }

    /// What one of the track's migrations created here; `None` while it is pending.
    pub fn created(&self, slug: &str) -> Option<&Created> {
        self.history
            .iter()
            .find(|(version, _)| slug_of(version) == slug)
            .map(|(_, created)| created)
    }
}
