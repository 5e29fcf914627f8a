//! A track is a value: what its migrations are, and what everything else asks of it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::adoption::{Recognised, Unknown};
use crate::catalog::Catalog;
use crate::choice::Choice;
use crate::context::Context;
use crate::golden::Golden;
use crate::ledger::Ledger;
use crate::ledger::target::Versions;
use crate::migration::Migration;

/// A table's name and a column's.
pub type TableColumn = (&'static str, &'static str);

/// A question about the rows: its name, and a query that finds a row where the answer is yes, or none where the schema says
/// no.
pub type Ask = (&'static str, fn(&Catalog) -> Option<String>);

/// One independent lineage of migrations over one upstream's tables. Compared and written by its name.
#[derive(Clone, Copy)]
pub struct Track(&'static Definition);

/// What a track is.
pub struct Definition {
    /// Its word on the command line.
    pub name: &'static str,
    /// The product whose tables these are.
    pub gateway: &'static str,
    /// The table in which that product records its own migrations.
    pub ledger_table: &'static str,
    /// Which of its versions there are, and what each step waits for.
    pub versions: &'static Versions,
    /// The advisory key that the product takes before it migrates, in its own source; `None` where it takes none.
    pub gateway_lock: Option<i64>,
    /// Its migrations, oldest first.
    pub migrations: &'static [&'static Migration],
    /// The canonical schema behind each of them.
    pub goldens: &'static [Golden],
    /// The tables that show a database carries this track.
    pub marker_tables: &'static [&'static str],
    /// The tables that show in which schema the track is, where its marker tables do not: other products have those too.
    pub signs: Option<&'static [&'static str]>,
    /// Tables of others that the migrations look into where they exist.
    pub reads: &'static [&'static str],
    /// Those of its tables whose names other products use too.
    pub common_names: &'static [&'static str],
    /// Whether a table of that name with those columns is another product's.
    pub is_foreign_table: fn(&str, &[&str]) -> bool,
    /// Recognises a database without history.
    pub recognise: fn(&Context) -> Result<Recognised, Unknown>,
    /// Signs that the database is past what this track knows: objects by table.
    pub newer_than_supported: fn(&Context) -> Vec<(&'static str, &'static str)>,
    /// Objects of the canonical schema whose type follows that of another column.
    pub inherited_types: &'static [(&'static str, TableColumn)],
    /// Whether a difference from the golden schema is the work of a later upstream.
    pub is_later_upstream: fn(&str, &str, bool) -> bool,
    /// Questions about the rows that its migrations ask before they plan.
    pub asks: &'static [Ask],
    /// What an operator may decide where rows stand in the way.
    pub choices: &'static [Choice],
}

impl Definition {
    /// A track of a program's own tables, which follows no gateway; to be completed by what it has.
    pub const fn named(name: &'static str) -> Self {
        Self {
            name,
            gateway: "the program",
            ledger_table: "",
            versions: &Versions::NONE,
            gateway_lock: None,
            migrations: &[],
            goldens: &[],
            marker_tables: &[],
            signs: None,
            reads: &[],
            common_names: &[],
            is_foreign_table: |_, _| false,
            recognise: |_| {
                Err(Unknown {
                    nearest: "the first of its migrations",
                    differences: vec!["the track recognises no database".to_owned()],
                })
            },
            newer_than_supported: |_| Vec::new(),
            inherited_types: &[],
            is_later_upstream: |_, _, _| false,
            asks: &[],
            choices: &[],
        }
    }
}

impl Track {
    /// The track that is so defined.
    pub const fn new(definition: &'static Definition) -> Self {
        Self(definition)
    }

    /// The track's word on the command line.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The product whose tables these are.
    pub fn gateway(self) -> &'static str {
        self.0.gateway
    }

    /// The table in which that product records its own migrations.
    pub fn ledger_table(self) -> &'static str {
        self.0.ledger_table
    }

    /// Which of its gateway's versions there are.
    pub fn versions(self) -> &'static Versions {
        self.0.versions
    }

    /// The advisory key that the product takes before it migrates; `None` where it takes none.
    pub fn gateway_lock(self) -> Option<i64> {
        self.0.gateway_lock
    }

    /// What its gateway's ledger says, in the gateway's own words.
    pub fn words(self, ledger: &Ledger) -> Option<String> {
        (self.0.versions.said)(ledger)
    }

    /// Its migrations, oldest first.
    pub fn migrations(self) -> &'static [&'static Migration] {
        self.0.migrations
    }

    /// The canonical schema behind each of them.
    pub fn goldens(self) -> &'static [Golden] {
        self.0.goldens
    }

    /// Questions about the rows that its migrations ask before they plan.
    pub fn asks(self) -> &'static [Ask] {
        self.0.asks
    }

    /// What an operator may decide where rows stand in the way.
    pub fn choices(self) -> &'static [Choice] {
        self.0.choices
    }

    /// The table that records which of them are applied.
    pub fn history_table(self) -> String {
        format!("tollgate_{}_migrations", self.name())
    }

    /// The tables that show a database carries this track.
    pub fn marker_tables(self) -> &'static [&'static str] {
        self.0.marker_tables
    }

    /// Those of its tables whose names other products use too.
    pub fn common_names(self) -> &'static [&'static str] {
        self.0.common_names
    }

    /// Whether a table of that name with those columns is another product's: several have one called `workspaces`.
    pub fn is_foreign_table<'a>(self, table: &str, columns: impl Iterator<Item = &'a str>) -> bool {
        (self.0.is_foreign_table)(table, &columns.collect::<Vec<_>>())
    }

    /// Recognises a database without history.
    ///
    /// # Errors
    /// [`Unknown`] with every difference from the nearest version.
    pub fn recognise(self, context: &Context) -> Result<Recognised, Unknown> {
        (self.0.recognise)(context)
    }

    /// Signs that the database is past what this track knows: objects by table.
    pub fn newer_than_supported(self, context: &Context) -> Vec<(&'static str, &'static str)> {
        (self.0.newer_than_supported)(context)
    }

    /// The column whose type an object of the canonical schema follows.
    pub fn type_inherited_from(self, object: &str) -> Option<TableColumn> {
        self.0
            .inherited_types
            .iter()
            .find(|(known, _)| *known == object)
            .map(|(_, column)| *column)
    }

    /// Whether a difference from the golden schema is the work of a later upstream.
    pub fn is_later_upstream(self, object: &str, definition: &str, expected: bool) -> bool {
        (self.0.is_later_upstream)(object, definition, expected)
    }

    /// The tables that show in which schema the track is.
    pub fn signs(self) -> &'static [&'static str] {
        self.0.signs.unwrap_or(self.0.marker_tables)
    }

    /// Tables of others that the track's migrations look into where they exist.
    pub fn reads(self) -> &'static [&'static str] {
        self.0.reads
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

/// In the order of [`Track::all`]; a track that is not listed there comes behind, by its name.
impl Ord for Track {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |track: &Self| {
            let place = Self::all()
                .iter()
                .position(|known| known.name() == track.name());
            (place.unwrap_or(usize::MAX), track.name())
        };
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Track {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Track {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Track {}

impl Hash for Track {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Serialize for Track {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Track {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Track {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Track").field(&self.name()).finish()
    }
}

impl fmt::Display for Track {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no track.
#[derive(Debug, thiserror::Error)]
#[error("there is no track {0:?}; the tracks are {names}", names = Track::names())]
pub struct UnknownTrack(String);

impl FromStr for Track {
    type Err = UnknownTrack;

    fn from_str(word: &str) -> Result<Self, UnknownTrack> {
        Self::all()
            .iter()
            .copied()
            .find(|track| track.name() == word)
            .ok_or_else(|| UnknownTrack(word.to_owned()))
    }
}
