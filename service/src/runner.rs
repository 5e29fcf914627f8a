//! The migration runner: status, plan, up, down and adopt.
//!
//! Every command reads first. What writes takes the track's lock, reads again, runs the hazard checks, and stops before its
//! first statement when something stands in the way.

pub(crate) mod abandoned;
pub mod adopt;
mod apply;
mod backup;
pub mod checkpoint;
pub mod down;
mod engine;
mod lock_timer;
mod moved;
mod options;
mod pace;
mod paged;
mod patience;
pub mod pauses;
mod place;
pub mod plan;
pub mod resolve;
pub mod status;
mod strong;
pub mod target;
pub mod up;

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::context::AppliedStep;
use tollgate_migration::{Context, Dialect, Migration, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::poll::Poll;
use crate::report::{Pending, TrackReport};
use crate::retry::is_transient;
use crate::runs;
pub use crate::session::Session;
use crate::tracks;

/// The live context of a track: schema, upstream's record, and what was created here.
pub(crate) async fn context<C: ConnectionTrait>(
    connection: &C,
    history: &History,
) -> Result<Context> {
    let mut context = Context::read(connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    context.history = history.created();
    context.applied = history
        .entries
        .values()
        .map(|entry| {
            let step = AppliedStep {
                at: entry.applied_at,
                is_adopted: entry.is_adopted(),
            };
            (entry.version.clone(), step)
        })
        .collect();
    let asks_for_runs = tracks::all().iter().any(|module| {
        module
            .asks_for_runs_since
            .is_some_and(|slug| context.applied(slug).is_some())
    });
    if asks_for_runs {
        context.last_runs = runs::last_starts(connection, context.catalog.dialect)
            .await
            .map_err(Error::database("read the runs"))?;
    }
    Ok(context)
}

/// The track's migrations that are not applied, in order.
pub(crate) fn pending(track: Track, history: &History) -> Vec<&'static Migration> {
    track
        .migrations()
        .iter()
        .copied()
        .filter(|migration| !history.entries.contains_key(migration.version))
        .filter(|migration| {
            history
                .target
                .as_ref()
                .is_none_or(|target| target.reaches(track, migration.slug()))
        })
        .collect()
}

pub(crate) fn pending_report(migrations: &[&'static Migration]) -> Vec<Pending> {
    migrations
        .iter()
        .map(|migration| Pending {
            version: migration.version.to_owned(),
            phase: migration.phase,
            summary: migration.summary.to_owned(),
        })
        .collect()
}

/// A report of a track on which nothing happened.
pub(crate) fn idle(track: Track, history: &History) -> TrackReport {
    let current = history.current(track);
    TrackReport {
        track,
        from: current.clone(),
        to: current,
        applied: Vec::new(),
        pending: pending_report(&pending(track, history)),
    }
}

/// The migration of that version or slug in any of the tracks.
///
/// # Errors
/// [`Error::Usage`] naming the nearest one.
pub(crate) fn find(tracks: &[Track], name: &str) -> Result<(Track, &'static Migration)> {
    for &track in tracks {
        if let Some(migration) = track.find(name) {
            return Ok((track, migration));
        }
    }
    let mut known: Vec<&str> = tracks
        .iter()
        .flat_map(|track| track.migrations())
        .map(|migration| migration.slug())
        .collect();
    known.sort_by_key(|slug| crate::nearest::distance(slug, name));
    let nearest = known.first().copied().unwrap_or_default();
    Err(Error::usage(
        format!("there is no migration {name:?}"),
        format!("did you mean {nearest}? `tollgate migrate status` lists all"),
    ))
}

/// Proves that the database takes writes, without writing.
///
/// # Errors
/// [`Error::ReadOnly`].
pub(crate) async fn prove_writable(session: &Session, connection: &Connection) -> Result<()> {
    let read_only = |reason: String| Error::ReadOnly {
        place: session.location.display.clone(),
        reason,
    };
    match session.dialect() {
        Dialect::Postgres => {
            let row = connection
                .query_one_raw(Statement::from_string(
                    Dialect::Postgres.backend(),
                    "SELECT current_setting('transaction_read_only') AS setting",
                ))
                .await
                .map_err(Error::database("ask whether the server takes writes"))?;
            let setting: Option<String> = row.and_then(|row| row.try_get("", "setting").ok());
            if setting.as_deref() == Some("on") {
                return Err(read_only("transactions are read-only".to_owned()));
            }
            Ok(())
        }
        Dialect::Sqlite => {
            if let Some(path) = session.location.file()
                && std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().readonly())
            {
                // The superuser could write it all the same; whoever took the permission away meant it.
                return Err(read_only(
                    "the file's permissions forbid writing".to_owned(),
                ));
            }
            let stop = &session.location.stop;
            let mut poll = Poll::new(session.wait_lock);
            let transaction = loop {
                // The driver's thread waits in the file; a signal does not wait for it.
                let begun = tokio::select! {
                    begun = connection.begin() => begun,
                    signal = stop.requested() => return Err(Error::Stopped { signal }),
                };
                match begun {
                    Ok(transaction) => break transaction,
                    Err(error) if error.to_string().contains("readonly") => {
                        return Err(read_only(error.to_string()));
                    }
                    Err(error) if is_transient(&error) && poll.again(stop).await? => {}
                    Err(error) => return Err(Error::database("open a write transaction")(error)),
                }
            };
            // BEGIN IMMEDIATE takes the lock but writes nothing: setting the version it has makes SQLite try.
            let version = transaction
                .query_one_raw(Statement::from_string(
                    Dialect::Sqlite.backend(),
                    "SELECT user_version AS version FROM pragma_user_version",
                ))
                .await
                .and_then(|row| row.map_or(Ok(0i32), |row| row.try_get("", "version")))
                .map_err(Error::database("read the file"))?;
            let written = transaction
                .execute_unprepared(&format!("PRAGMA user_version = {version}"))
                .await;
            let undone = transaction.rollback().await;
            written
                .map_err(|error| read_only(error.to_string()))
                .and_then(|_| undone.map_err(Error::database("undo the test write")))
        }
    }
}
