//! `snapshot`: what a database holds, as digests that `verify` holds the database against after a migration.

pub(crate) mod cell;
mod copy;
pub(crate) mod fact;
pub(crate) mod file;
pub(crate) mod ledger;
pub(crate) mod scan;
pub(crate) mod sketch;

use std::path::Path;

use sea_orm::ConnectionTrait;
use tollgate_migration::schema::canonical;
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::environment;
pub(crate) use crate::drift::tables_of as tables;
use crate::error::{Error, Result};
use crate::history::History;
use crate::module::Module;
use crate::observer::{Event, Observer};
use crate::report::result::{SnapshotResult, SnapshotTable};
use crate::report::{CommandResult, Report};
use crate::runner::{Session, adopt, context, idle};
use crate::shutdown::ShutdownSignal;
use crate::verify::invariants;
use file::{Broken, Section, Snapshot, TrackSnapshot};
use sketch::Salted;

/// Takes a snapshot of every track into a file, read-only.
///
/// The rows are read as one view: on PostgreSQL a repeatable-read transaction, on SQLite a read transaction, in which
/// writers wait unless the database is in WAL mode.
///
/// # Errors
/// What connecting and reading may answer; [`Error::File`] where the file cannot be written.
pub async fn snapshot(
    session: &Session,
    path: &Path,
    taken_at: chrono::DateTime<chrono::Utc>,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let salt = salt();
    let mut taken = Snapshot::new(
        &session.location.display,
        session.dialect().name(),
        taken_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        &salt,
    );
    let salted = taken.salted()?;
    let mut report = Report::default();
    let mut shown = Vec::new();
    view(&connection, session.dialect()).await?;
    for (track, exists) in session.tracks(&connection).await? {
        environment::refuse_hidden(&connection, track).await?;
        let (live, history) = live(session, &connection, track, exists).await?;
        if history.entries.is_empty() {
            continue;
        }
        let part =
            track_snapshot(&connection, track, &live, &history, &salted, observer, stop).await?;
        for (name, section) in &part.tables {
            shown.push(SnapshotTable {
                track,
                table: name.clone(),
                rows: section.rows,
                sums: section.sums.clone(),
                digest: section.digest.clone(),
            });
        }
        report.tracks.push(idle(track, &history));
        taken.tracks.push(part);
    }
    taken.write(path)?;
    report.result = Some(CommandResult::Snapshot(SnapshotResult {
        file: path.display().to_string(),
        bytes: std::fs::metadata(path)
            .map(|meta| meta.len())
            .unwrap_or_default(),
        tables: shown,
    }));
    Ok(report)
}

/// 32 random bytes: two version 4 UUIDs have 244 random bits.
fn salt() -> [u8; 32] {
    let mut salt = [0; 32];
    salt[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    salt[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    salt
}

/// One view of all tables. PostgreSQL's read-only connections have it from the start.
pub(crate) async fn view(connection: &Connection, dialect: Dialect) -> Result<()> {
    if dialect == Dialect::Sqlite {
        connection
            .execute_unprepared("BEGIN")
            .await
            .map_err(Error::database("open a read transaction"))?;
    }
    Ok(())
}

/// The live context of a track and its history; a database without one is taken as `migrate adopt` would take it.
pub(crate) async fn live(
    session: &Session,
    connection: &Connection,
    track: Track,
    exists: bool,
) -> Result<(Context, History)> {
    let mut history = session.history(connection, track, exists).await?;
    let mut live = context(connection, &history).await?;
    if history.entries.is_empty() && track.is_carried_by(&live.catalog) {
        history = adopt::recognised_history(session.clock.now(), track, &live)?;
        live.history = history.created();
    }
    session.aim(track, &live, &mut history)?;
    Ok((live, history))
}

async fn track_snapshot(
    connection: &Connection,
    track: Track,
    live: &Context,
    history: &History,
    salted: &Salted,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Result<TrackSnapshot> {
    let names = tables(track, live);
    let broken = invariants::examine(connection, track, live, history)
        .await?
        .into_iter()
        .map(|finding| Broken {
            code: finding.code,
            table: finding.table,
            column: finding.column,
            rows: finding.rows,
        })
        .collect();
    let mut part = TrackSnapshot {
        track,
        at: history.current(track),
        schema: canonical(&live.catalog, names.iter().map(String::as_str)),
        broken,
        tables: Default::default(),
        facts: Default::default(),
        copies: (Module::of(track).count_copies)(connection, live).await?,
        ledger: ledger::entries(live.ledger(track)),
    };
    let module = Module::of(track);
    for name in (module.sections)(names) {
        let Some(walk) = module.section(live, &name) else {
            continue;
        };
        observer.note(Event::Step(format!("read {name}")));
        let walked = walk_or_stop(connection, &walk, salted, stop, &name).await?;
        part.tables.insert(name, Section::of(&walked));
    }
    for fact in (module.facts)(live) {
        observer.note(Event::Step(format!("read {}", fact.name)));
        let walked =
            walk_or_stop(connection, &scan::fact(&fact.sql), salted, stop, fact.name).await?;
        part.facts
            .insert(fact.name.to_owned(), Section::of(&walked));
    }
    Ok(part)
}

/// Walks, and says the signal where one came.
pub(crate) async fn walk_or_stop(
    connection: &Connection,
    walk: &scan::Walk,
    salted: &Salted,
    stop: &ShutdownSignal,
    what: &str,
) -> Result<scan::Walked> {
    let walked = scan::walk(connection, walk, salted, stop).await;
    stop.check()?;
    walked.map_err(Error::database(format!("read {what}")))
}
