//! Who works on the tracks now, asked without taking anything away.

use std::fs::{File, TryLockError};
use std::io::Read;

use sea_orm::{DbErr, FromQueryResult};
use tollgate_migration::{Dialect, Track};

use super::gateway::{HOLDER, HOLDING, query};
use super::postgres::{LOCK, key, unsigned};
use crate::connection::Connection;
use crate::database::canonical;
use crate::error::{Error, Result};
use crate::file::beside;
use crate::report::result::RunningRun;
use crate::rows;
use crate::session::Session;

#[derive(FromQueryResult)]
struct Holder {
    key: i64,
    holder: String,
}

/// The runs that hold a lock of the tracks.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn running(
    session: &Session,
    connection: &Connection,
    tracks: &[Track],
) -> Result<Vec<RunningRun>> {
    match session.dialect() {
        Dialect::Postgres => on_postgres(connection, tracks)
            .await
            .map_err(Error::database("ask who holds the locks")),
        Dialect::Sqlite => Ok(on_sqlite(session, tracks)),
    }
}

async fn on_postgres(
    connection: &Connection,
    tracks: &[Track],
) -> std::result::Result<Vec<RunningRun>, DbErr> {
    let schema: Option<String> = rows::scalar(
        connection,
        query("SELECT COALESCE(current_schema(), '')::text AS name"),
    )
    .await?;
    let schema = schema.unwrap_or_default();
    let holders: Vec<Holder> = rows::all(
        connection,
        query(format!(
            "SELECT DISTINCT l.objid::bigint AS key, {HOLDER} FROM {HOLDING} AND l.objsubid = 2 AND l.classid::bigint = {} ORDER BY 1, 2",
            unsigned(LOCK)
        )),
    )
    .await?;
    Ok(holders
        .into_iter()
        .filter_map(|held| {
            let track = tracks
                .iter()
                .copied()
                .find(|&track| unsigned(key(&schema, track)) == held.key)?;
            Some(RunningRun {
                track,
                holder: held.holder,
            })
        })
        .collect())
}

/// One lock serves every track. A file that is not there was never locked, and is not made.
fn on_sqlite(session: &Session, tracks: &[Track]) -> Vec<RunningRun> {
    let database = session
        .location
        .file()
        .map(|path| canonical(&path))
        .unwrap_or_default();
    let path = beside(&database, ".lock");
    // Anything but a plain file is nobody's lock, and opening it may wait for ever.
    if !std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return Vec::new();
    }
    let Ok(mut file) = File::open(path) else {
        return Vec::new();
    };
    let Err(TryLockError::WouldBlock) = file.try_lock_shared() else {
        return Vec::new();
    };
    let mut holder = String::new();
    // Who it is stands there; that somebody is, the lock says.
    let _ = file.read_to_string(&mut holder);
    tracks
        .iter()
        .map(|&track| RunningRun {
            track,
            holder: holder.clone(),
        })
        .collect()
}
