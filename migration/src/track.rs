//! The tracks, and the list of each one's migrations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::governance;
use crate::migration::Migration;

/// One independent lineage of migrations over one upstream's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// Bifrost's budgets, virtual keys and their owners.
    Governance,
}

impl Track {
    /// Every track.
    pub const ALL: [Self; 1] = [Self::Governance];

    /// The track's word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "governance",
        }
    }

    /// Its migrations, oldest first.
    pub fn migrations(self) -> &'static [&'static Migration] {
        match self {
            Self::Governance => governance::MIGRATIONS,
        }
    }

    /// The table that records which of them are applied.
    pub fn history_table(self) -> String {
        format!("tollgate_{}_migrations", self.name())
    }

    /// The tables that show a database carries this track.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Governance => &[
                governance::BUDGETS,
                governance::VIRTUAL_KEYS,
                governance::PROVIDER_CONFIGS,
            ],
        }
    }

    /// Whether the database has any of the track's tables.
    pub fn is_carried_by(self, catalog: &Catalog) -> bool {
        self.marks().iter().any(|table| catalog.has_table(table))
    }

    /// The migration of that version or slug.
    pub fn find(self, name: &str) -> Option<&'static Migration> {
        self.migrations()
            .iter()
            .copied()
            .find(|migration| migration.version == name || migration.slug() == name)
    }
}

impl fmt::Display for Track {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no track.
#[derive(Debug, thiserror::Error)]
#[error("there is no track {0:?}; the tracks are {names}", names = Track::ALL.map(Track::name).join(", "))]
pub struct UnknownTrack(String);

impl FromStr for Track {
    type Err = UnknownTrack;

    fn from_str(word: &str) -> Result<Self, UnknownTrack> {
        Self::ALL
            .into_iter()
            .find(|track| track.name() == word)
            .ok_or_else(|| UnknownTrack(word.to_owned()))
    }
}
