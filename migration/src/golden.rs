//! The golden schemas: the canonical form of a fresh database after each migration, kept in `schema/`.
//!
//! They are generated from live databases (`just golden`), and a test fails where they differ from what the migrations
//! make.

use crate::schema::Schema;

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

/// The tables that a canonical schema names.
pub fn tables(schema: &Schema) -> impl Iterator<Item = &str> {
    schema
        .keys()
        .filter_map(|object| object.strip_suffix(" table"))
}
