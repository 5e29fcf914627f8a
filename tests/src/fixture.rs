//! Hand-written databases in the upstream's own dialect of DDL.

use tollgate_migration::Track;

use crate::database::{Backend, TestDatabase};

/// A legacy Bifrost schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every table, column, index and foreign key of `docs/upstream/bifrost.md` §1.
    Full,
    /// Only what the migrations read or write.
    Required,
}

/// Whether budgets have the calendar flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// v1.5.0-prerelease1.
    Flag,
    /// v1.4.x.
    None,
}

/// The DDL of a shape.
pub fn schema(backend: Backend, shape: Shape, calendar: Calendar) -> String {
    let text = match (backend, shape) {
        (Backend::Sqlite, Shape::Full) => include_str!("../fixtures/bifrost/full.sqlite.sql"),
        (Backend::Postgres, Shape::Full) => include_str!("../fixtures/bifrost/full.postgres.sql"),
        (Backend::Sqlite, Shape::Required) => {
            include_str!("../fixtures/bifrost/required.sqlite.sql")
        }
        (Backend::Postgres, Shape::Required) => {
            include_str!("../fixtures/bifrost/required.postgres.sql")
        }
    };
    marked(text, calendar)
}

/// The rows of a shape; the same text on both backends.
pub fn rows(shape: Shape, calendar: Calendar) -> String {
    let text = match shape {
        Shape::Full => include_str!("../fixtures/bifrost/full.rows.sql"),
        Shape::Required => include_str!("../fixtures/bifrost/required.rows.sql"),
    };
    marked(text, calendar)
}

/// Takes the lines that are marked `-- calendar` out where there is no flag.
fn marked(text: &str, calendar: Calendar) -> String {
    text.lines()
        .filter(|line| calendar == Calendar::Flag || !line.ends_with("-- calendar"))
        .map(|line| line.trim_end_matches("-- calendar"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A database of that shape with its rows.
pub async fn legacy(backend: Backend, shape: Shape, calendar: Calendar) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    database.execute(&schema(backend, shape, calendar)).await;
    database.execute(&rows(shape, calendar)).await;
    database
}

/// The same without the gateway's ledger: an embedding program's own database, on which Tollgate makes everything.
pub async fn own(backend: Backend, shape: Shape, calendar: Calendar) -> TestDatabase {
    let database = legacy(backend, shape, calendar).await;
    database.execute("DROP TABLE migrations").await;
    database
}

/// Tollgate's own tracks, and the one of the examples: what holds of one track holds of each.
pub fn every_track() -> impl Iterator<Item = Track> {
    Track::all().iter().copied().chain([seats::TRACK])
}

/// A database as the track's upstream left it before the track's first own migration, every table filled.
pub async fn populated(backend: Backend, track: Track) -> TestDatabase {
    if track == Track::GOVERNANCE {
        return with_credentials(backend, SilentKeys::There).await;
    }
    if track == Track::PROVIDERS {
        return coder(backend).await;
    }
    let database = TestDatabase::new(backend).await;
    if track == seats::TRACK {
        database
            .execute(include_str!("../fixtures/seats/full.sql"))
            .await;
        return database;
    }
    let schema = match backend {
        Backend::Sqlite => include_str!("../fixtures/molecule/full.sqlite.sql"),
        Backend::Postgres => include_str!("../fixtures/molecule/full.postgres.sql"),
    };
    database.execute(schema).await;
    database
        .execute(include_str!("../fixtures/molecule/full.rows.sql"))
        .await;
    database
}

/// Whether the tables of per-user credentials have the foreign keys that some versions made unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilentKeys {
    /// They refer to clients and virtual keys, without action.
    There,
    /// They refer to nothing.
    Absent,
}

/// The DDL of the tables of per-user MCP credentials, for a database of the full legacy shape.
pub fn credentials_schema(backend: Backend, keys: SilentKeys) -> String {
    match backend {
        Backend::Sqlite => include_str!("../fixtures/bifrost/mcp.sqlite.sql"),
        Backend::Postgres => include_str!("../fixtures/bifrost/mcp.postgres.sql"),
    }
    .lines()
    .filter(|line| keys == SilentKeys::There || !line.ends_with("-- silent key"))
    .map(|line| line.trim_end_matches("-- silent key"))
    .collect::<Vec<_>>()
    .join("\n")
}

/// The full legacy shape with the tables of per-user MCP credentials and their rows.
pub async fn with_credentials(backend: Backend, keys: SilentKeys) -> TestDatabase {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    database.execute(&credentials_schema(backend, keys)).await;
    database
        .execute(include_str!("../fixtures/bifrost/mcp.rows.sql"))
        .await;
    database
}

/// A Coder before the provider-key cutover, with its rows; nothing in it stands in the way.
pub async fn coder(backend: Backend) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    let schema = match backend {
        Backend::Sqlite => include_str!("../fixtures/coder/full.sqlite.sql"),
        Backend::Postgres => include_str!("../fixtures/coder/full.postgres.sql"),
    };
    database.execute(schema).await;
    database
        .execute(include_str!("../fixtures/coder/full.rows.sql"))
        .await;
    database
}

/// What Coder's own migrations up to 502 have besides the legacy tables, as far as the cutover touches it: the tables of AI
/// providers with the eight labels, one provider that is nobody's copy, and the ledger. PostgreSQL.
pub async fn coder_at_502() -> TestDatabase {
    let database = coder(Backend::Postgres).await;
    database
        .execute(include_str!("../fixtures/coder/at-502.postgres.sql"))
        .await;
    database
}

/// Adds entries to a Bifrost's ledger.
pub async fn recorded(database: &TestDatabase, ids: &[&str]) {
    for id in ids {
        database
            .execute(&format!("INSERT INTO migrations (id) VALUES ('{id}')"))
            .await;
    }
}
