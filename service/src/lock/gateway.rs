//! A gateway's own advisory key, and whether somebody holds it.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement};
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::rows;

/// The keys of the gateways of tracks.
pub(super) fn gateways(tracks: &[Track]) -> Vec<(Track, i64)> {
    tracks
        .iter()
        .filter_map(|&track| Some((track, track.gateway_lock()?)))
        .collect()
}

pub(super) fn query(sql: impl Into<String>) -> Statement {
    Statement::from_string(Dialect::Postgres.backend(), sql.into())
}

/// A session `a`, in words.
pub(super) const HOLDER: &str = "format('server pid %s, application %s, client %s, for %s s', a.pid, \
    COALESCE(NULLIF(a.application_name, ''), 'unknown'), COALESCE(host(a.client_addr), 'local'), \
    COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.xact_start)::int, 0)) AS holder";

/// Where sessions `a` are found by an advisory lock `l` of this database that they hold.
pub(super) const HOLDING: &str = "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A session that is migrating.
#[derive(Default, FromQueryResult)]
struct Migrating {
    application: Option<String>,
    holder: Option<String>,
}

/// A gateway that is migrating the database: whose, and who it is. The keys are tried in the shared form and let go at once.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn migrating(connection: &Connection) -> Result<Option<(Track, String)>> {
    let db_context = || Error::database("ask whether a gateway is migrating");
    connection
        .execute_unprepared("SAVEPOINT gateway")
        .await
        .map_err(db_context())?;
    let mut found = None;
    for (track, key) in gateways(Track::all()) {
        let name = track.gateway();
        let free: Option<bool> = rows::scalar(
            connection,
            query(format!(
                "SELECT pg_try_advisory_xact_lock_shared({key}) AS held"
            )),
        )
        .await
        .map_err(db_context())?;
        if free.unwrap_or(true) {
            continue;
        }
        let migrating: Option<Migrating> = rows::one(
            connection,
            query(format!(
                "SELECT a.application_name AS application, {HOLDER} FROM {HOLDING} AND l.mode = 'ExclusiveLock' AND l.objsubid = 1 \
                 AND l.classid::bigint = {} AND l.objid::bigint = {} LIMIT 1",
                key >> 32,
                key & 0xffff_ffff
            )),
        )
        .await
        .map_err(db_context())?;
        // It may have ended between the two questions; the next look says.
        let Migrating {
            application,
            holder,
        } = migrating.unwrap_or_default();
        if application.as_deref().is_some_and(crate::process::is_ours) {
            tracing::info!(
                holder = holder.as_deref(),
                "a run of Tollgate's is migrating; reading past it"
            );
            continue;
        }
        found = Some((
            track,
            format!(
                "a {name} that is migrating the database itself ({})",
                holder.unwrap_or_else(|| "it has just ended".to_owned())
            ),
        ));
        break;
    }
    connection
        .execute_unprepared("ROLLBACK TO SAVEPOINT gateway; RELEASE SAVEPOINT gateway")
        .await
        .map_err(db_context())?;
    Ok(found)
}
