//! `migrate adopt`: recognises a database that a gateway created, and marks what it already stands behind.

use std::collections::BTreeMap;

use crate::connection::Connection;
use crate::runs::RunOutcome;
use chrono::{DateTime, Utc};
use sea_orm::ConnectionTrait;
use tollgate_migration::adoption;
use tollgate_migration::plan::Blocks;
use tollgate_migration::{Catalog, Context, Created, Track};

use super::target::gateway;
use super::{Session, context, idle, prove_writable};
use crate::database::Access;
use crate::doctor::refusal::{refusal, schema_finding};
use crate::drift;
use crate::error::{Error, Result};
use crate::history::{self, Entry, History, Origin};
use crate::lock::{Gateway, Lock};
use crate::report::result::{AdoptResult, Recognition};
use crate::report::{Applied, CommandResult, Finding, Report, Severity, TrackReport};
use crate::shutdown::ShutdownSignal;

/// Adopts every track that the database carries and that has no history yet. With `dry_run` it only says what it
/// would do, and opens the database read-only.
///
/// # Errors
/// [`Error::Refused`] with every difference from the nearest known version; [`Error::Locked`].
pub async fn adopt(session: &Session, dry_run: bool, stop: &ShutdownSignal) -> Result<Report> {
    let started = session.clock.now();
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let mut report = Report::default();
    let mut recognised = Vec::new();
    let mut new = Vec::new();
    let mut gateways = Vec::new();
    for (track, exists) in session.tracks(&connection).await? {
        crate::doctor::environment::refuse_hidden(&connection, track).await?;
        let history = session.history(&connection, track, exists).await?;
        if !history.entries.is_empty() {
            report.tracks.push(idle(track, &history));
            continue;
        }
        let context = context(&connection, &history).await?;
        let shape = recognise(track, &context)?;
        recognised.push(Recognition {
            track,
            shape: shape.shape,
            applied: versions(track, &shape.applied),
        });
        let mut recognised = marked(session.clock.now(), track, &shape, &context);
        session.aim(track, &context, &mut recognised)?;
        gateways.extend(gateway(track, &context, &recognised));
        // The gateway's own tables are as its version makes them.
        if !context.ledger(track).owns() {
            report.findings.extend(tolerated(&recognised));
        }
        if dry_run {
            report.tracks.push(mark_report(track, &recognised));
        } else {
            new.push(track);
        }
    }
    report.result = Some(CommandResult::Adopted(AdoptResult {
        dry_run,
        recognised,
        gateways,
    }));
    if !new.is_empty() {
        prove_writable(session, &connection).await?;
        let (lock, connection) =
            Lock::take(session, connection, &new, Gateway::Boots, stop).await?;
        for track in new {
            report.tracks.push(mark(session, &connection, track).await?);
        }
        report.tracks.sort_by_key(|track| track.track);
        session
            .record_run(
                &connection,
                "migrate adopt",
                started,
                RunOutcome::Done,
                &report,
            )
            .await;
        lock.release().await;
    }
    Ok(report)
}

fn versions(track: Track, slugs: &[&str]) -> Vec<&'static str> {
    slugs
        .iter()
        .filter_map(|slug| track.find(slug))
        .map(|migration| migration.version)
        .collect()
}

/// What the database is.
pub(super) fn recognise(track: Track, context: &Context) -> Result<adoption::Recognised> {
    if !track.is_carried_by(&context.catalog) {
        return Err(Error::refused(
            "nothing_to_adopt",
            format!("the database has none of the tables of track {track}"),
            format!("`tollgate migrate up --track {track}` creates them"),
        ));
    }
    let past = track.newer_than_supported(context);
    if !past.is_empty() {
        return Err(refusal(
            past.into_iter()
                .map(|(table, sign)| schema_finding("G016", table, sign))
                .collect(),
        ));
    }
    track.recognise(context).map_err(|unknown| {
        Error::refused(
            "unknown_schema",
            format!(
                "the {track} tables are at no version that is known; nearest is {}, from which they differ: {}",
                unknown.nearest,
                unknown.differences.join("; ")
            ),
            "bring the schema to a known version, or finish the upgrade that was begun; nothing was changed",
        )
    })
}

/// The history that adopting would write.
pub(crate) fn recognised_history(
    now: DateTime<Utc>,
    track: Track,
    context: &Context,
) -> Result<History> {
    Ok(marked(now, track, &recognise(track, context)?, context))
}

/// The history after adopting: each version the database stands behind, and with the last one how it differs.
fn marked(
    now: DateTime<Utc>,
    track: Track,
    shape: &adoption::Recognised,
    context: &Context,
) -> History {
    let mut history = History {
        exists: true,
        entries: versions(track, &shape.applied)
            .into_iter()
            .map(|version| (version.to_owned(), entry(now, version)))
            .collect(),
        in_progress: None,
        target: None,
    };
    let current = history.current(track);
    if let Some(entry) = current.and_then(|version| history.entries.get_mut(&version)) {
        *entry = recognised_entry(now, &entry.version, &context.catalog);
    }
    if let Some((slug, created)) = &shape.created
        && let Some(migration) = track.find(slug)
        && let Some(entry) = history.entries.get_mut(migration.version)
    {
        entry.created.merge(created);
    }
    for entry in history.entries.values_mut() {
        entry.created.ledger = context.ledger(track).newest();
    }
    history
}

/// What is tolerated, as info: one finding per table.
fn tolerated(history: &History) -> Vec<Finding> {
    let mut by_table: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (object, live) in history
        .entries
        .values()
        .flat_map(|entry| &entry.created.tolerated)
    {
        let table = object.split(' ').next().unwrap_or_default();
        let line = match live {
            None => format!("no {object}"),
            Some(live) if live.is_empty() => object.clone(),
            Some(live) => format!("{object}: {live}"),
        };
        by_table.entry(table).or_default().push(line);
    }
    by_table
        .into_iter()
        .map(|(table, lines)| Finding {
            code: "tolerated".to_owned(),
            severity: Severity::Info,
            title: "differs from a fresh install of this version".to_owned(),
            table: table.to_owned(),
            column: None,
            rows: lines.len() as u64,
            sample_ids: lines,
            effect: "left as it is; not reported as drift afterwards".to_owned(),
            resolve: "nothing to do".to_owned(),
        })
        .collect()
}

fn mark_report(track: Track, marked: &History) -> TrackReport {
    let mut report = idle(track, marked);
    report.from = None;
    report.applied = track
        .migrations()
        .iter()
        .filter(|migration| marked.entries.contains_key(migration.version))
        .map(|migration| Applied {
            version: migration.version.to_owned(),
            phase: migration.phase,
            duration_ms: 0,
            rows: 0,
            left: 0,
            longest_lock_ms: 0,
            blocks: Blocks::Nothing,
        })
        .collect();
    report
}

/// A step that is taken as it is: what its schema lacks or has beyond a fresh one is no drift afterwards.
pub(super) fn recognised_entry(now: DateTime<Utc>, version: &str, catalog: &Catalog) -> Entry {
    let mut entry = entry(now, version);
    entry.created.tolerated = drift::against(catalog, version)
        .into_iter()
        .map(|difference| (difference.object, difference.live))
        .collect();
    entry
}

fn entry(now: DateTime<Utc>, version: &str) -> Entry {
    Entry {
        version: version.to_owned(),
        applied_at: now.timestamp(),
        origin: Origin::Adopted,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        created: Created::default(),
        duration_ms: 0,
        rows: 0,
    }
}

/// Marks a track under its lock. Somebody may have done so while the lock was waited for.
pub(super) async fn mark(
    session: &Session,
    connection: &Connection,
    track: Track,
) -> Result<TrackReport> {
    let history = History::read(connection, session.dialect(), track)
        .await
        .map_err(Error::database("read the history"))?;
    if !history.entries.is_empty() {
        return Ok(idle(track, &history));
    }
    let context = context(connection, &history).await?;
    let shape = recognise(track, &context)?;
    let db_context = || Error::database(format!("mark {track} as adopted"));
    let transaction = connection.begin().await.map_err(db_context())?;
    ensure_history(&transaction, &context, track)
        .await
        .map_err(db_context())?;
    let mut recognised = marked(session.clock.now(), track, &shape, &context);
    session.aim(track, &context, &mut recognised)?;
    for entry in recognised.entries.values() {
        history::record(&transaction, track, entry)
            .await
            .map_err(db_context())?;
    }
    transaction.commit().await.map_err(db_context())?;
    Ok(mark_report(track, &recognised))
}

/// Creates the history table, or adds Tollgate's columns to one that sea-orm's own tools created.
pub(super) async fn ensure_history<C: ConnectionTrait>(
    connection: &C,
    context: &Context,
    track: Track,
) -> std::result::Result<(), sea_orm::DbErr> {
    let columns: Option<Vec<String>> = context.catalog.table(&track.history_table()).map(|table| {
        table
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect()
    });
    for statement in history::ensure(context.catalog.dialect, track, columns.as_deref()) {
        connection.execute_unprepared(&statement).await?;
    }
    Ok(())
}
