//! `reconcile resets`: windows of budgets and rate limits that are over reset (`docs/upstream/bifrost.md` §3.3).
//!
//! Reads durations, last resets and the flags of who owns them; closes `current_usage` and `last_reset` of budgets and of
//! rate limits, and drops request ids that were recorded long ago. What is due is found by one statement per kind and
//! closed in pages, each one statement that repeats that the window is still the one that was found: who has recorded
//! usage into a new window meanwhile has begun it, and is left alone.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps usage in memory, and writes it
//! back on its next tick.

mod due;

use std::collections::BTreeSet;
use std::time::Duration;

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::{Dialect, Track};

use super::{Options, Routine, SAMPLES, count, run};
use crate::budget::schema::Schema;
use crate::budget::{REQUESTS, count_requests, forget_requests, unnoticed};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::{Change, Outcome, Report};
use crate::retry::{self, Turns, backoff};
use crate::rows;
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;
use due::{Counter, KINDS, ids};

/// Rows of one transaction.
const PAGE: u64 = 5000;
/// What is due, for as long as the connection lives.
const FOUND: &str = "tollgate_due_resets";
struct Resets<'a> {
    retention: Duration,
    now: DateTime<Utc>,
    stop: &'a ShutdownSignal,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("reset budgets and rate limits")
}

/// One of the two things that are done to rows.
const ACTIONS: [&str; 2] = ["reset", "align"];

/// A kind that is there, with what is due of it.
struct Found {
    table: &'static str,
    counters: Vec<&'static Counter>,
    due: String,
}

impl Resets<'_> {
    /// The kinds that are there, with what is due of each.
    async fn load(&self, connection: &Connection, report: &mut Report) -> Result<Vec<Found>> {
        let dialect = connection.dialect();
        let schema = Schema::load(connection, dialect)
            .await
            .map_err(db_context())?;
        if KINDS[0].here(&schema).is_empty() {
            return Err(Error::MissingSchema {
                what: format!("{BUDGETS} with usage and last reset here"),
            });
        }
        let mut found = Vec::new();
        for kind in &KINDS {
            let counters = kind.here(&schema);
            let (words, findings) = kind.words(connection, &counters).await?;
            report.findings.extend(findings);
            if let Some(due) = kind.due(&schema, &counters, &words, self.now) {
                found.push(Found {
                    table: kind.table,
                    counters,
                    due,
                });
            }
        }
        Ok(found)
    }

    fn oldest_request(&self) -> Option<DateTime<Utc>> {
        chrono::Duration::from_std(self.retention)
            .ok()
            .and_then(|retention| self.now.checked_sub_signed(retention))
    }

    /// Closes what is due of one kind.
    async fn apply_found(
        &self,
        connection: &Connection,
        found: &Found,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let dialect = connection.dialect();
        let run = |sql: String| async move {
            connection
                .execute_unprepared(&sql)
                .await
                .map_err(db_context())
                .map(|_| ())
        };
        let temporary = match dialect {
            Dialect::Postgres => format!("pg_temp.{FOUND}"),
            Dialect::Sqlite => format!("temp.{FOUND}"),
        };
        run(format!("DROP TABLE IF EXISTS {temporary}")).await?;
        run(format!(
            "CREATE TEMPORARY TABLE {FOUND} AS SELECT d.*, row_number() OVER (ORDER BY d.id) AS place FROM ({}) d",
            found.due
        ))
        .await?;
        run(format!("CREATE INDEX {FOUND}_place ON {FOUND} (place)")).await?;
        let total = ids(
            connection,
            Statement::from_string(
                dialect.backend(),
                format!("SELECT '' AS id, count(*) AS number FROM {FOUND}"),
            ),
        )
        .await
        .map_err(db_context())?
        .0;
        let mut behind = 0;
        while behind < total {
            self.stop.check()?;
            let turns = Turns::of(connection);
            let done = (|| page(connection, found, behind))
                .retry(backoff())
                .when(|error| turns.again(error))
                .await
                .map_err(db_context())?;
            for (action, ids) in ACTIONS.iter().zip(done) {
                let rows = u64::try_from(ids.len()).unwrap_or(u64::MAX);
                count(changes, found.table, action, rows, ids);
            }
            behind += PAGE;
        }
        run(format!("DROP TABLE {temporary}")).await
    }

    /// Forgets requests that were recorded long ago, in pages.
    async fn forget(&self, connection: &Connection, changes: &mut Vec<Change>) -> Result<()> {
        let Some(before) = self.oldest_request() else {
            return Ok(());
        };
        let dialect = connection.dialect();
        if count_requests(connection, dialect, before)
            .await
            .map_err(db_context())?
            == 0
        {
            return Ok(());
        }
        loop {
            self.stop.check()?;
            let turns = Turns::of(connection);
            let rows = (|| forget_requests(connection, dialect, before, PAGE))
                .retry(backoff())
                .when(|error| turns.again(error))
                .await
                .map_err(db_context())?;
            count(changes, REQUESTS, "delete", rows, None);
            if rows < PAGE {
                return Ok(());
            }
        }
    }
}

/// One page: the ids that were reset, and those that were aligned.
async fn page(
    connection: &Connection,
    found: &Found,
    behind: u64,
) -> std::result::Result<[Vec<String>; 2], DbErr> {
    let dialect = connection.dialect();
    let table = found.table;
    let upto = behind + PAGE;
    let places = format!("d.place > {behind} AND d.place <= {upto}");
    let same = match dialect {
        Dialect::Postgres => "IS NOT DISTINCT FROM",
        Dialect::Sqlite => "IS",
    };
    let due = match dialect {
        Dialect::Postgres => "t",
        Dialect::Sqlite => "d",
    };
    let mut sets = Vec::new();
    let mut unchanged = Vec::new();
    for (number, counter) in found.counters.iter().enumerate() {
        let (usage, last) = (counter.usage, counter.last);
        sets.push(format!(
            "{usage} = CASE WHEN {due}.action_{number} = 'reset' THEN 0 ELSE b.{usage} END, \
             {last} = CASE WHEN {due}.action_{number} IS NULL THEN b.{last} ELSE {due}.start_{number} END"
        ));
        // Who has begun the window meanwhile has recorded into it.
        unchanged.push(format!(
            "(d.action_{number} IS NULL OR b.{last} {same} d.last_{number})"
        ));
    }
    let (sets, unchanged) = (sets.join(", "), unchanged.join(" AND "));
    let transaction = retry::begin(connection).await?;
    let sql = match dialect {
        Dialect::Postgres => {
            // Rows are few and reached by their key; who records into one of them begins its window anew itself, so it is
            // passed over rather than waited for.
            for sql in [
                "SET LOCAL enable_hashjoin = off",
                "SET LOCAL enable_mergejoin = off",
            ] {
                transaction.execute_unprepared(sql).await?;
            }
            format!(
                "WITH t AS MATERIALIZED (SELECT d.* FROM {FOUND} d JOIN {table} b ON b.id = d.id \
                 WHERE {places} AND {unchanged} ORDER BY b.id FOR NO KEY UPDATE OF b SKIP LOCKED) \
                 UPDATE {table} b SET {sets} FROM t WHERE b.id = t.id RETURNING b.id AS id, t.action AS action"
            )
        }
        Dialect::Sqlite => format!(
            "UPDATE {table} AS b SET {sets} FROM {FOUND} d WHERE b.id = d.id AND {places} AND {unchanged} \
             RETURNING id AS id, NULL AS action"
        ),
    };
    // SQLite returns columns of the written table alone.
    let mut aligned = BTreeSet::new();
    if dialect == Dialect::Sqlite {
        let sql = format!(
            "SELECT d.id AS id FROM {FOUND} d WHERE {places} AND d.action = '{}'",
            ACTIONS[1]
        );
        let ids: Vec<String> =
            rows::column(&transaction, Statement::from_string(dialect.backend(), sql)).await?;
        aligned.extend(ids);
    }
    let mut done: [Vec<String>; 2] = Default::default();
    let reset: Vec<Reset> =
        rows::all(&transaction, Statement::from_string(dialect.backend(), sql)).await?;
    for Reset { id, action } in reset {
        let align = action.as_deref() == Some(ACTIONS[1]) || aligned.contains(&id);
        done[usize::from(align)].push(id);
    }
    transaction.commit().await?;
    for ids in &mut done {
        ids.sort_unstable();
    }
    Ok(done)
}

impl Routine for Resets<'_> {
    fn name(&self) -> &'static str {
        "resets"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let mut report = Report::default();
        let dialect = connection.dialect();
        for found in self.load(connection, &mut report).await? {
            for action in ACTIONS {
                let sql = format!(
                    "SELECT d.id AS id, count(*) OVER () AS number FROM ({}) d WHERE d.action = '{action}' \
                     ORDER BY d.id LIMIT {SAMPLES}",
                    found.due
                );
                let due = Statement::from_string(connection.dialect().backend(), sql);
                let (rows, ids) = ids(connection, due).await.map_err(db_context())?;
                count(&mut report.changes, found.table, action, rows, ids);
            }
        }
        if let Some(before) = self.oldest_request() {
            let rows = count_requests(connection, dialect, before)
                .await
                .map_err(db_context())?;
            count(&mut report.changes, REQUESTS, "delete", rows, None);
        }
        remind(&mut report);
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        for found in self.load(connection, report).await? {
            let closed = self
                .apply_found(connection, &found, &mut report.changes)
                .await;
            remind(report);
            closed?;
        }
        self.forget(connection, &mut report.changes).await
    }
}

/// Says once who does not notice: for budgets, or else for the first table that changes.
pub(super) fn remind(report: &mut Report) {
    report.findings.retain(|finding| finding.code != "R003");
    let changed = |table: &str| -> u64 {
        report
            .changes
            .iter()
            .filter(|change| change.table == table)
            .map(|change| change.rows)
            .sum()
    };
    let tables = report.changes.iter().map(|change| change.table.as_str());
    let finding = std::iter::once(BUDGETS)
        .chain(tables.filter(|table| *table != REQUESTS))
        .map(|table| (table, changed(table)))
        .find(|(_, rows)| *rows > 0)
        .map(|(table, rows)| unnoticed(table, rows));
    report.findings.extend(finding);
}

/// How long `reconcile all` keeps request ids.
pub const REQUEST_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// A budget that was reset, and whether it was aligned besides.
#[derive(FromQueryResult)]
struct Reset {
    id: String,
    action: Option<String>,
}

/// Runs the routine. The outcome's error is [`Error::NotFound`] where there are no budgets, [`Error::Refused`] when the
/// change limit holds.
pub async fn resets(
    session: &Session,
    retention: Duration,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let routine = Resets {
        retention,
        now,
        stop,
    };
    run(session, options, now, stop, &routine).await
}
