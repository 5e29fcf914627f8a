//! `migrate resolve`: sets the record of a step where neither `up` nor `down` can, after showing what the catalog says.

use tollgate_migration::schema::Difference;
use tollgate_migration::{Catalog, Context, Migration, Track};

use super::adopt::{ensure_history, recognised_entry};
use super::up::read_again;
use super::{Session, checkpoint, context, find, idle, prove_writable};
use crate::connection::Connection;
use crate::database::Access;
use crate::drift;
use crate::error::{Error, Result};
use crate::history::{self, History};
use crate::lock::{Gateway, Lock};
use crate::report::result::ResolveResult;
use crate::report::{CommandResult, Report};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;

/// What the record is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The step stands; it was somebody's work, and never goes down.
    Applied,
    /// The step is not there; the next `up` does it.
    Pending,
}

impl Settled {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
        }
    }
}

/// Sets the record of one step under its track's lock, and forgets how far it had come; with `dry_run` says what it would
/// write. The schema and the gateway's rows stay as they are.
///
/// # Errors
/// [`Error::Usage`] for an unknown step; [`Error::Refused`] where the history would have a hole; [`Error::Locked`].
pub async fn resolve(
    session: &Session,
    step: &str,
    settled: Settled,
    dry_run: bool,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let started = session.clock.now();
    let all = if session.tracks.is_empty() {
        Track::all()
    } else {
        session.tracks.as_slice()
    };
    let (track, migration) = find(all, step)?;
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let mut report = Report::default();
    if dry_run {
        let (history, _) =
            load(session, &connection, track, migration, settled, &mut report).await?;
        report.tracks.push(idle(track, &history));
        return Ok(report);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) =
        Lock::take(session, connection, &[track], Gateway::Waits, stop).await?;
    let (_, live) = load(session, &connection, track, migration, settled, &mut report).await?;
    let failed = || Error::database(format!("settle {}", migration.version));
    let transaction = connection.begin().await.map_err(failed())?;
    let dialect = session.dialect();
    ensure_history(&transaction, &live, track)
        .await
        .map_err(failed())?;
    history::forget(&transaction, track, migration.version)
        .await
        .map_err(failed())?;
    if settled == Settled::Applied {
        let entry = recognised_entry(started, migration.version, &live.catalog);
        history::record(&transaction, track, &entry)
            .await
            .map_err(failed())?;
    }
    checkpoint::clear(&transaction, dialect, migration.version)
        .await
        .map_err(failed())?;
    transaction.commit().await.map_err(failed())?;
    report
        .tracks
        .push(idle(track, &read_again(session, &connection, track).await?));
    session
        .record_run(
            &connection,
            "migrate resolve",
            started,
            RunOutcome::Done,
            &report,
        )
        .await;
    lock.release().await;
    Ok(report)
}

/// Reads history and schema, refuses a hole, and says what the catalog says.
async fn load(
    session: &Session,
    connection: &Connection,
    track: Track,
    migration: &Migration,
    settled: Settled,
    report: &mut Report,
) -> Result<(History, Context)> {
    let history = read_again(session, connection, track).await?;
    let live = context(connection, &history).await?;
    check_order(track, migration, settled, &history)?;
    show(report, &live.catalog, track, migration, settled, &history);
    Ok((history, live))
}

/// A history is a beginning of the track: everything before an applied step is applied, nothing behind a pending one.
fn check_order(
    track: Track,
    migration: &Migration,
    settled: Settled,
    history: &History,
) -> Result<()> {
    let position = |known: &&&Migration| match settled {
        Settled::Applied => known.version < migration.version,
        Settled::Pending => known.version > migration.version,
    };
    let wrong = |known: &&&Migration| {
        history.entries.contains_key(known.version) == (settled == Settled::Pending)
    };
    let Some(hole) = track.migrations().iter().filter(position).find(wrong) else {
        return Ok(());
    };
    let (is, what) = match settled {
        Settled::Applied => ("pending", "before it"),
        Settled::Pending => ("applied", "behind it"),
    };
    Err(Error::refused(
        "history_hole",
        format!(
            "{} cannot be {}: {} {what} is {is}",
            migration.version,
            settled.word(),
            hole.version
        ),
        "settle that one first; nothing was changed",
    ))
}

/// What the catalog says for and against.
fn show(
    report: &mut Report,
    catalog: &Catalog,
    track: Track,
    migration: &Migration,
    settled: Settled,
    history: &History,
) {
    let lines = |version: Option<&str>| -> Vec<String> {
        version.map_or_else(Vec::new, |version| {
            drift::against(catalog, version)
                .iter()
                .map(Difference::line)
                .collect()
        })
    };
    let before = track
        .migrations()
        .iter()
        .take_while(|known| known.version != migration.version)
        .last()
        .map(|known| known.version);
    let was = match (
        history.entries.contains_key(migration.version),
        history
            .in_progress
            .as_ref()
            .filter(|step| step.version == migration.version),
    ) {
        (_, Some(step)) => format!("half done ({})", step.direction.word()),
        (true, None) => "applied".to_owned(),
        (false, None) => "pending".to_owned(),
    };
    report.result = Some(CommandResult::Resolved(ResolveResult {
        track,
        version: migration.version.to_owned(),
        was,
        is: settled.word(),
        against_applied: lines(Some(migration.version)),
        against_pending: lines(before),
    }));
}
