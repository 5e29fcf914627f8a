//! `migrate pause` and `migrate resume`: whoever works holds between two batches until he is let go on.
//!
//! A pause is a row, so that it is said from another terminal or host, outlasts the run that heeds it, and is read by the next.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::{Dialect, Track};

use super::{Session, idle};
use crate::connection::Connection;
use crate::database::{Access, existing};
use crate::error::{Error, Result};
use crate::report::result::{Pause, PauseResult};
use crate::report::{CommandResult, Report};
use crate::rows;

/// The table of pauses.
pub(crate) const TABLE: &str = "tollgate_pauses";

/// A row of it.
#[derive(FromQueryResult)]
struct Paused {
    track: String,
    since: String,
    paused_by: String,
}

/// The pauses of the tracks.
pub(crate) async fn of<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    tracks: &[Track],
) -> std::result::Result<Vec<Pause>, DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT track, since, paused_by FROM {TABLE} WHERE track IN ({}) ORDER BY track",
        names(dialect, tracks)
    );
    let paused: Vec<Paused> =
        rows::all(connection, Statement::from_string(dialect.backend(), sql)).await?;
    Ok(paused
        .into_iter()
        .filter_map(|row| {
            let track = tracks.iter().find(|track| track.to_string() == row.track)?;
            Some(Pause {
                track: *track,
                since: row.since,
                by: row.paused_by,
            })
        })
        .collect())
}

fn names(dialect: Dialect, tracks: &[Track]) -> String {
    let names: Vec<String> = tracks
        .iter()
        .map(|track| dialect.text(&track.to_string()))
        .collect();
    names.join(", ")
}

/// Makes runs of the session's tracks hold between two batches, and new ones before their first write. A track that is paused
/// already keeps its pause.
///
/// # Errors
/// What connecting and writing may answer.
pub async fn pause(session: &Session, now: DateTime<Utc>) -> Result<Report> {
    let failed = || Error::database("write down the pause");
    let connection = session.connect_at_once(Access::Write).await?;
    let found = session.tracks(&connection).await?;
    let tracks: Vec<Track> = found.iter().map(|(track, _)| *track).collect();
    let dialect = session.dialect();
    let there = existing(&connection, dialect, &[TABLE.to_owned()])
        .await
        .map_err(failed())?;
    let transaction = connection.begin().await.map_err(failed())?;
    if there.is_empty() {
        transaction
            .execute_unprepared(&format!(
                "CREATE TABLE IF NOT EXISTS {TABLE} (track varchar(64) PRIMARY KEY, since varchar(64) NOT NULL, \
                 paused_by varchar(255) NOT NULL)"
            ))
            .await
            .map_err(failed())?;
        if dialect == Dialect::Postgres {
            // Who pauses is often another role than the one that migrates, and that one has to see it.
            transaction
                .execute_unprepared(&format!("GRANT SELECT ON {TABLE} TO PUBLIC"))
                .await
                .map_err(failed())?;
        }
    }
    let since = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let entries: Vec<String> = tracks
        .iter()
        .map(|track| {
            format!(
                "({}, {}, {})",
                dialect.text(&track.to_string()),
                dialect.text(&since),
                dialect.text(&crate::process::applied_by())
            )
        })
        .collect();
    transaction
        .execute_unprepared(&format!(
            "INSERT INTO {TABLE} (track, since, paused_by) VALUES {} ON CONFLICT (track) DO NOTHING",
            entries.join(", ")
        ))
        .await
        .map_err(failed())?;
    transaction.commit().await.map_err(failed())?;
    let mut report = histories(session, &connection, found).await?;
    report.result = Some(CommandResult::Paused(PauseResult {
        paused: of(&connection, dialect, &tracks).await.map_err(failed())?,
        resumed: Vec::new(),
    }));
    Ok(report)
}

/// Lets runs of the session's tracks go on.
///
/// # Errors
/// What connecting and writing may answer.
pub async fn resume(session: &Session) -> Result<Report> {
    let failed = || Error::database("take the pause back");
    let connection = session.connect_at_once(Access::Write).await?;
    let found = session.tracks(&connection).await?;
    let tracks: Vec<Track> = found.iter().map(|(track, _)| *track).collect();
    let dialect = session.dialect();
    let resumed = of(&connection, dialect, &tracks).await.map_err(failed())?;
    if !resumed.is_empty() {
        connection
            .execute_unprepared(&format!(
                "DELETE FROM {TABLE} WHERE track IN ({})",
                names(dialect, &tracks)
            ))
            .await
            .map_err(failed())?;
    }
    let mut report = histories(session, &connection, found).await?;
    report.result = Some(CommandResult::Paused(PauseResult {
        paused: Vec::new(),
        resumed,
    }));
    Ok(report)
}

async fn histories(
    session: &Session,
    connection: &Connection,
    found: Vec<(Track, bool)>,
) -> Result<Report> {
    let mut report = Report::default();
    for (track, exists) in found {
        let history = session.history(connection, track, exists).await?;
        report.tracks.push(idle(track, &history));
    }
    Ok(report)
}
