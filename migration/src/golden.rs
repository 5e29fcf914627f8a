//! The golden schemas: the canonical form of a fresh database after each migration, kept in `schema/`.
//!
//! They are generated from live databases (`just golden`), and a test fails where they differ from what the migrations
//! make.

use std::collections::BTreeSet;

use crate::dialect::Dialect;
use crate::schema::{self, Schema};
use crate::track::Track;

/// The canonical schema behind one migration, as text for each backend.
#[derive(Clone, Copy, Debug)]
pub struct Golden {
    /// The migration.
    pub version: &'static str,
    /// On PostgreSQL.
    pub postgres: &'static str,
    /// On SQLite.
    pub sqlite: &'static str,
}

/// The golden schemas of a track, out of a folder of its crate that holds `postgres/VERSION.txt` and `sqlite/VERSION.txt`.
#[macro_export]
macro_rules! goldens {
    ($folder:literal: $($version:literal),* $(,)?) => {
        &[$(
            $crate::golden::Golden {
                version: $version,
                postgres: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder, "/postgres/", $version, ".txt")),
                sqlite: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder, "/sqlite/", $version, ".txt")),
            },
        )*]
    };
}

/// The schema of a fresh database after that migration; `None` for a version without a golden file.
pub fn golden(dialect: Dialect, version: &str) -> Option<Schema> {
    Track::all()
        .iter()
        .flat_map(|track| track.goldens())
        .find(|golden| golden.version == version)
        .map(|golden| {
            schema::parse(match dialect {
                Dialect::Postgres => golden.postgres,
                Dialect::Sqlite => golden.sqlite,
            })
        })
}

/// The tables that a canonical schema names.
pub fn tables(schema: &Schema) -> impl Iterator<Item = &str> {
    schema
        .keys()
        .filter_map(|object| object.strip_suffix(" table"))
}

/// The tables that a fresh database has after any of a track's migrations.
pub fn tables_of(dialect: Dialect, track: Track) -> BTreeSet<String> {
    track
        .migrations()
        .iter()
        .filter_map(|migration| golden(dialect, migration.version))
        .flat_map(|golden| tables(&golden).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_has_a_golden_schema_on_both_backends() {
        for migration in Track::all().iter().flat_map(|track| track.migrations()) {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let golden = golden(dialect, migration.version);
                assert!(
                    golden.is_some_and(|golden| golden.len() > 10),
                    "{}",
                    migration.version
                );
            }
        }
    }
}
