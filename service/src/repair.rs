//! `schema repair`: foreign keys that name a table which does not exist, as a rebuild by rename leaves them on SQLite; and
//! lost indexes, a column that a boot drops, and tables that were made too early.
//!
//! SQLite documents editing the stored text for changes of constraints, which no row depends on. The edit is one transaction
//! with a check of the whole file before it is kept.

pub(crate) mod kind;
mod objects;

pub use kind::Repair;

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::{Catalog, Dialect, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::{Gateway, Lock};
use crate::report::{Change, Outcome, Report};
use crate::runner::{Session, context, idle, prove_writable};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;

/// A table whose text is to be corrected.
struct Mending {
    table: String,
    sql: String,
    keys: Vec<String>,
}

/// Repairs what it can, under the lock of every track the database carries; with `dry_run` says what it would do.
///
/// The outcome's error is [`Error::Refused`] for keys whose table cannot be guessed, which are left.
pub async fn repair(session: &Session, dry_run: bool, stop: &ShutdownSignal) -> Outcome {
    let mut report = Report::default();
    let error = run(session, dry_run, stop, &mut report).await.err();
    Outcome { report, error }
}

async fn run(
    session: &Session,
    dry_run: bool,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let started = session.clock.now();
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let mut tracks: Vec<Track> = Vec::new();
    for (track, exists) in session.tracks(&connection).await? {
        environment::refuse_unknown(&connection, track).await?;
        let history = session.history(&connection, track, exists).await?;
        report.tracks.push(idle(track, &history));
        tracks.push(track);
    }
    let catalog = read(&connection).await?;
    let mendings = mendings(&catalog, &tracks);
    let seen = load(session, &connection, &tracks).await?;
    if mendings.is_empty() && seen.iter().all(|seen| seen.repairs.is_empty()) || dry_run {
        add_changes(report, &mendings);
        for seen in &seen {
            report.changes.extend(objects::changes(&seen.repairs));
        }
        return leftovers(&catalog, &tracks, &mendings, &seen);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(session, connection, &tracks, Gateway::Boots, stop).await?;
    let catalog = read(&connection).await?;
    let mendings = self::mendings(&catalog, &tracks);
    if !mendings.is_empty() {
        mend(&connection, &mendings)
            .await
            .map_err(Error::database("repair foreign keys"))?;
    }
    add_changes(report, &mendings);
    let seen = load(session, &connection, &tracks).await?;
    for seen in &seen {
        objects::apply(&connection, seen.track, &seen.repairs, &seen.history)
            .await
            .map_err(Error::database("repair the schema"))?;
        report.changes.extend(objects::changes(&seen.repairs));
    }
    session
        .record_run(
            &connection,
            "schema repair",
            started,
            RunOutcome::Done,
            report,
        )
        .await;
    lock.release().await;
    leftovers(&catalog, &tracks, &mendings, &seen)
}

/// What a look at one track found.
struct Seen {
    track: Track,
    history: History,
    repairs: Vec<Repair>,
    left: Vec<String>,
}

async fn load(session: &Session, connection: &Connection, tracks: &[Track]) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for &track in tracks {
        let history = History::read(connection, session.dialect(), track)
            .await
            .map_err(Error::database("read the history"))?;
        let live = context(connection, &history).await?;
        let (repairs, left) = objects::find(connection, track, &live, &history)
            .await
            .map_err(Error::database("look for what can be repaired"))?;
        seen.push(Seen {
            track,
            history,
            repairs,
            left,
        });
    }
    Ok(seen)
}

async fn read(connection: &Connection) -> Result<Catalog> {
    Catalog::read(connection)
        .await
        .map_err(Error::database("read the catalog"))
}

/// What can be repaired: the tracks' tables.
fn mendings(catalog: &Catalog, tracks: &[Track]) -> Vec<Mending> {
    let names: std::collections::BTreeSet<String> = tracks
        .iter()
        .flat_map(|&track| environment::tables(track, catalog.dialect))
        .collect();
    names
        .into_iter()
        .filter_map(|table| {
            Some(Mending {
                sql: catalog.mended(&table)?,
                keys: catalog
                    .lost_parents(&table)
                    .into_iter()
                    .filter_map(|(missing, meant)| Some(format!("{missing} -> {}", meant?)))
                    .collect(),
                table,
            })
        })
        .collect()
}

fn add_changes(report: &mut Report, mendings: &[Mending]) {
    report.changes.extend(mendings.iter().map(|mending| Change {
        table: mending.table.clone(),
        action: "repair key".to_owned(),
        rows: mending.keys.len() as u64,
        sample_ids: mending.keys.clone(),
    }));
}

/// The refusal for keys that are left.
fn leftovers(
    catalog: &Catalog,
    tracks: &[Track],
    mendings: &[Mending],
    seen: &[Seen],
) -> Result<()> {
    let mut findings: Vec<_> = tracks
        .iter()
        .flat_map(|&track| environment::lost_parents(track, catalog))
        .filter(|found| {
            let lost = catalog.lost_parents(&found.table);
            lost.iter().any(|(_, meant)| meant.is_none())
                || !mendings.iter().any(|mending| mending.table == found.table)
        })
        .collect();
    let left: Vec<String> = seen.iter().flat_map(|seen| seen.left.clone()).collect();
    if !left.is_empty() {
        let mut found = environment::finding("E008", "", left);
        found.title = "objects are left that cannot be repaired without a loss".to_owned();
        found.effect = "nothing was done to them".to_owned();
        found.resolve = "see to each by hand, then run the command again".to_owned();
        findings.push(found);
    }
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Refused {
        code: "unrepaired",
        message: "something is left that cannot be repaired".to_owned(),
        hint: "create the table that they name, or rebuild theirs; delete no row".to_owned(),
        findings,
    })
}

async fn mend(connection: &Connection, mendings: &[Mending]) -> std::result::Result<(), DbErr> {
    let dialect = Dialect::Sqlite;
    let transaction = connection.begin().await?;
    let version: i64 = transaction
        .query_one_raw(Statement::from_string(
            dialect.backend(),
            "SELECT schema_version AS version FROM pragma_schema_version",
        ))
        .await?
        .map_or(Ok(0), |row| row.try_get("", "version"))?;
    transaction
        .execute_unprepared("PRAGMA writable_schema = ON")
        .await?;
    // As many statements as tables with a lost key: a handful.
    for mending in mendings {
        transaction
            .execute_raw(Statement::from_sql_and_values(
                dialect.backend(),
                "UPDATE sqlite_schema SET sql = ?1 WHERE type = 'table' AND name = ?2",
                [mending.sql.clone().into(), mending.table.clone().into()],
            ))
            .await?;
    }
    transaction
        .execute_unprepared(&format!(
            "PRAGMA schema_version = {}; PRAGMA writable_schema = OFF",
            version + 1
        ))
        .await?;
    let broken = transaction
        .query_one_raw(Statement::from_string(
            dialect.backend(),
            "SELECT quick_check AS what FROM pragma_quick_check WHERE quick_check <> 'ok' LIMIT 1",
        ))
        .await?;
    if let Some(row) = broken {
        let what: String = row.try_get("", "what")?;
        transaction.rollback().await?;
        return Err(DbErr::Custom(format!(
            "the file does not pass its check with the corrected text ({what}); nothing was changed"
        )));
    }
    transaction.commit().await
}
