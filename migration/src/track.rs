//! The tracks, and the list of each one's migrations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::adoption::{Recognised, Unknown};
use crate::catalog::Catalog;
use crate::migration::{Context, Migration};
use crate::{billing, governance, ledger, providers};

/// One independent lineage of migrations over one upstream's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// Bifrost's budgets, virtual keys and their owners.
    Governance,
    /// Coder's AI providers and the keys to them.
    Providers,
    /// Molecule's workspaces and how they pay for their models.
    Billing,
}

impl Track {
    /// Every track.
    pub const ALL: [Self; 3] = [Self::Governance, Self::Providers, Self::Billing];

    /// The track's word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Providers => "providers",
            Self::Billing => "billing",
        }
    }

    /// The product whose tables these are.
    pub fn gateway(self) -> &'static str {
        match self {
            Self::Governance => "Bifrost",
            Self::Providers => "Coder",
            Self::Billing => "Molecule",
        }
    }

    /// The table in which that product records its own migrations.
    pub fn ledger_table(self) -> &'static str {
        match self {
            Self::Governance => ledger::MIGRATIONS,
            Self::Providers | Self::Billing => ledger::SCHEMA_MIGRATIONS,
        }
    }

    /// Its migrations, oldest first.
    pub fn migrations(self) -> &'static [&'static Migration] {
        match self {
            Self::Governance => governance::MIGRATIONS,
            Self::Providers => providers::MIGRATIONS,
            Self::Billing => billing::MIGRATIONS,
        }
    }

    /// The table that records which of them are applied.
    pub fn history_table(self) -> String {
        format!("tollgate_{}_migrations", self.name())
    }

    /// The tables that show a database carries this track.
    pub fn marker_tables(self) -> &'static [&'static str] {
        match self {
            Self::Governance => &[
                governance::BUDGETS,
                governance::VIRTUAL_KEYS,
                governance::PROVIDER_CONFIGS,
            ],
            Self::Providers => &[
                providers::CHAT_PROVIDERS,
                providers::CHAT_USER_KEYS,
                providers::PROVIDERS,
            ],
            Self::Billing => &[billing::WORKSPACES],
        }
    }

    /// Whether a table of that name with those columns is another product's: several have one called `workspaces`.
    pub fn is_foreign_table<'a>(self, table: &str, columns: impl Iterator<Item = &'a str>) -> bool {
        self == Self::Billing
            && table == billing::WORKSPACES
            && billing::adoption::is_foreign_table(columns)
    }

    /// Recognises a database without history.
    ///
    /// # Errors
    /// [`Unknown`] with every difference from the nearest version.
    pub fn recognise(self, context: &Context) -> Result<Recognised, Unknown> {
        match self {
            Self::Governance => governance::adoption::recognise(context),
            Self::Providers => providers::adoption::recognise(context),
            Self::Billing => billing::adoption::recognise(context),
        }
    }

    /// Signs that the database is past what this track knows: objects by table.
    pub fn newer_than_supported(self, catalog: &Catalog) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Governance => governance::adoption::newer_than_supported(catalog),
            Self::Providers | Self::Billing => Vec::new(),
        }
    }

    /// The column whose type an object of the canonical schema follows.
    pub fn type_inherited_from(self, object: &str) -> Option<(&'static str, &'static str)> {
        match (self, object) {
            (Self::Governance, "governance_budgets column virtual_key_id") => {
                Some((governance::VIRTUAL_KEYS, "id"))
            }
            (Self::Governance, "governance_budgets column provider_config_id") => {
                Some((governance::PROVIDER_CONFIGS, "id"))
            }
            _ => None,
        }
    }

    /// Whether a difference from the golden schema is the work of a later upstream.
    pub fn is_later_upstream(self, object: &str, definition: &str, expected: bool) -> bool {
        match self {
            Self::Governance => {
                governance::adoption::is_later_upstream(object, definition, expected)
            }
            Self::Providers => providers::adoption::is_later_upstream(object, definition, expected),
            Self::Billing => false,
        }
    }

    /// Tables of others that the track's migrations look into where they exist.
    pub fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Governance => governance::READS,
            Self::Providers | Self::Billing => &[],
        }
    }

    /// Whether the database has any of the track's tables.
    pub fn is_carried_by(self, catalog: &Catalog) -> bool {
        self.marker_tables()
            .iter()
            .any(|table| catalog.has_table(table))
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
