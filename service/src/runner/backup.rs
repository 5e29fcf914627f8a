//! `up --backup FILE`: a copy of a SQLite database before anything changes.

use std::path::Path;

use crate::connection::Connection;
use sea_orm::ConnectionTrait;
use tollgate_migration::Dialect;

use super::Session;
use crate::error::{Error, Result};

/// Says no before anything is locked or written.
pub(super) fn check(session: &Session, path: &Path) -> Result<()> {
    if session.dialect() == Dialect::Postgres {
        return Err(Error::usage(
            "--backup copies a SQLite file, and this is PostgreSQL",
            "use pg_dump, or a snapshot of the server",
        ));
    }
    if path.exists() {
        return Err(Error::refused(
            "backup_exists",
            format!("{} exists already", path.display()),
            "name another file; nothing was changed",
        ));
    }
    Ok(())
}

/// Writes the copy, readable by its owner only: it holds the gateway's keys.
pub(super) async fn write(connection: &Connection, path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::File {
            path: path.display().to_string(),
            source,
        })?;
    let target = Dialect::Sqlite.text(&path.display().to_string());
    let copied = connection
        .execute_unprepared(&format!("VACUUM INTO {target}"))
        .await;
    if let Err(source) = copied {
        // Half a copy is worse than none.
        let _ = std::fs::remove_file(path);
        return Err(Error::Database {
            db_context: format!("copy the database to {}", path.display()),
            source,
        });
    }
    tracing::info!(backup = %path.display(), "the database was copied");
    Ok(())
}
