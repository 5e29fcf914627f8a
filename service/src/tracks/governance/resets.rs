//! `reconcile resets`: windows of budgets and rate limits that are over reset (`docs/upstream/bifrost.md` §3.3).
//!
//! Reads durations, last resets and the flags of who owns them; closes `current_usage` and `last_reset` of budgets and of
//! rate limits, and drops request ids that were recorded long ago. What is due is found by one statement per kind and
//! closed in pages, each of which asks again whether the window is over: who has recorded usage into a new window
//! meanwhile has begun it, and is left alone.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps usage in memory, and writes it
//! back on its next tick.

mod due;

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::reconcile::part::Part;
use crate::reconcile::{Options, Routine, SAMPLES, count, run};
use crate::report::{Change, Outcome, Report};
use crate::retry::{self, in_turns};
use crate::rows;
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;
use crate::tracks::governance::budget::schema::Schema;
use crate::tracks::governance::budget::{REQUESTS, count_requests, forget_requests, unnoticed};
use crate::tracks::governance::shape;
use due::{Counter, KINDS, ids};

/// Rows of one transaction.
const PAGE: usize = 5000;
/// Rows that are in memory at a time, some 200 bytes each; everything is looked through once for so many.
const LISTED: usize = 200_000;
/// What is due, for as long as the connection lives.
const FOUND: &str = "tollgate_due_resets";

struct Resets<'a> {
    part: Part,
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
        shape::refuse_anchored_windows("resetting windows", |table, column| {
            schema.has(table, column)
        })?;
        let mut found = Vec::new();
        for kind in &KINDS {
            let counters = kind.here(&schema);
            let (words, findings) = kind.words(connection, &counters).await?;
            report.findings.extend(findings);
            if let Some(due) = kind.due(&schema, &counters, &words, &self.part, self.now) {
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

    /// Closes what is due of one kind. Nothing lasts from one transaction to the next: behind a pooler they are different
    /// sessions'.
    async fn apply_listed(
        &self,
        connection: &Connection,
        found: &Found,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let mut behind: Option<String> = None;
        loop {
            let mut listed: Vec<Listed> = rows::all(connection, list(found, behind.as_deref()))
                .await
                .map_err(db_context())?;
            for page in listed.chunks(PAGE) {
                self.stop.check()?;
                let done = in_turns(connection, || write_page(connection, found, page))
                    .await
                    .map_err(db_context())?;
                report_page(changes, found.table, done);
            }
            if listed.len() < LISTED {
                return Ok(());
            }
            behind = listed.pop().map(|last| last.id);
        }
    }

    /// The same on SQLite, where a connection keeps what it has found.
    async fn apply_staged(
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
        let temporary = format!("temp.{FOUND}");
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
            let done = in_turns(connection, || page(connection, found, behind))
                .await
                .map_err(db_context())?;
            report_page(changes, found.table, done);
            behind += PAGE as u64;
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
            let rows = in_turns(connection, || {
                forget_requests(connection, dialect, before, PAGE as u64)
            })
            .await
            .map_err(db_context())?;
            count(changes, REQUESTS, "delete", rows, None);
            if rows < PAGE as u64 {
                return Ok(());
            }
        }
    }
}

fn report_page(changes: &mut Vec<Change>, table: &str, done: [Vec<String>; 2]) {
    for (action, ids) in ACTIONS.iter().zip(done) {
        count(changes, table, action, ids.len() as u64, ids);
    }
}

/// What is set, from a relation of what is due.
fn sets(found: &Found, due: &str) -> String {
    let sets: Vec<String> = found
        .counters
        .iter()
        .enumerate()
        .map(|(number, counter)| {
            let (usage, last) = (counter.usage, counter.last);
            format!(
                "{usage} = CASE WHEN {due}.action_{number} = 'reset' THEN 0 ELSE b.{usage} END, \
                 {last} = CASE WHEN {due}.action_{number} IS NULL THEN b.{last} ELSE {due}.start_{number} END"
            )
        })
        .collect();
    sets.join(", ")
}

/// A row that is due: its id, and all that is written or asked again of it as a JSON array.
#[derive(FromQueryResult)]
struct Listed {
    id: String,
    entry: String,
}

/// What is listed of a counter, each with its type.
fn listed_columns(found: &Found) -> impl Iterator<Item = (String, &'static str)> {
    (0..found.counters.len()).flat_map(|number| {
        [
            ("action", "text"),
            ("last", "timestamptz"),
            ("start", "timestamptz"),
            ("word", "text"),
        ]
        .map(|(column, kind)| (format!("{column}_{number}"), kind))
    })
}

/// The next rows that are due, in the order of their ids.
fn list(found: &Found, behind: Option<&str>) -> Statement {
    let (rest, values) = match behind {
        None => ("", Vec::new()),
        Some(id) => (" WHERE d.id > $1", vec![id.into()]),
    };
    let columns: Vec<String> = listed_columns(found)
        .map(|(column, _)| format!(", d.{column}"))
        .collect();
    let sql = format!(
        "SELECT d.id AS id, CAST(json_build_array(d.id, d.action{}) AS text) AS entry FROM ({}) d{rest} \
         ORDER BY d.id LIMIT {LISTED}",
        columns.concat(),
        found.due,
    );
    Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, values)
}

/// One page of them: those that were reset, and those that were aligned.
///
/// Who records into a row begins its window itself, so one that somebody has in hand is passed over rather than waited for,
/// and one whose window or duration is not what was found any more is left alone.
async fn write_page(
    connection: &Connection,
    found: &Found,
    page: &[Listed],
) -> std::result::Result<[Vec<String>; 2], DbErr> {
    let table = found.table;
    let entries: Vec<&str> = page.iter().map(|listed| listed.entry.as_str()).collect();
    let columns: Vec<String> = listed_columns(found)
        .enumerate()
        .map(|(place, (column, kind))| {
            format!(", CAST(entry ->> {} AS {kind}) AS {column}", place + 2)
        })
        .collect();
    let unchanged: Vec<String> = found
        .counters
        .iter()
        .enumerate()
        .map(|(number, counter)| {
            format!(
                " AND (t.action_{number} IS NULL OR b.{} IS NOT DISTINCT FROM t.last_{number} AND b.{} = t.word_{number})",
                counter.last, counter.word
            )
        })
        .collect();
    let unchanged = unchanged.concat();
    // The row as it is when it is locked is what the condition is asked of.
    let sql = format!(
        "WITH listed AS MATERIALIZED (SELECT place, entry ->> 0 AS id, entry ->> 1 AS action{} \
         FROM json_array_elements(CAST($1 AS json)) WITH ORDINALITY entries(entry, place)), \
         locked AS MATERIALIZED (SELECT b.ctid AS at, t.* FROM listed t JOIN {table} b ON b.id = t.id \
         WHERE true{unchanged} ORDER BY t.place FOR NO KEY UPDATE OF b SKIP LOCKED) \
         UPDATE {table} b SET {} FROM locked t WHERE b.ctid = t.at{unchanged} RETURNING b.id AS id, t.action AS action",
        columns.concat(),
        sets(found, "t"),
    );
    let entries = format!("[{}]", entries.join(","));
    let write = Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, [entries.into()]);
    let transaction = retry::begin(connection).await?;
    let written: Vec<Reset> = rows::all(&transaction, write).await?;
    transaction.commit().await?;
    let mut done: [Vec<String>; 2] = Default::default();
    for Reset { id, action } in written {
        done[usize::from(action == ACTIONS[1])].push(id);
    }
    for ids in &mut done {
        ids.sort_unstable();
    }
    Ok(done)
}

/// The same of what was staged, on SQLite: a window that is still the one that was found.
async fn page(
    connection: &Connection,
    found: &Found,
    behind: u64,
) -> std::result::Result<[Vec<String>; 2], DbErr> {
    let table = found.table;
    let places = format!("d.place > {behind} AND d.place <= {}", behind + PAGE as u64);
    // Who has begun the window meanwhile has recorded into it.
    let unchanged: Vec<String> = found
        .counters
        .iter()
        .enumerate()
        .map(|(number, counter)| {
            format!(
                "(d.action_{number} IS NULL OR b.{} IS d.last_{number})",
                counter.last
            )
        })
        .collect();
    let ask = |sql: String| Statement::from_string(Dialect::Sqlite.backend(), sql);
    let transaction = retry::begin(connection).await?;
    // What is returned is columns of the written table alone.
    let aligned: Vec<String> = rows::column(
        &transaction,
        ask(format!(
            "SELECT d.id AS id FROM {FOUND} d WHERE {places} AND d.action = '{}'",
            ACTIONS[1]
        )),
    )
    .await?;
    let aligned: BTreeSet<String> = aligned.into_iter().collect();
    let reset: Vec<String> = rows::column(
        &transaction,
        ask(format!(
            "UPDATE {table} AS b SET {} FROM {FOUND} d WHERE b.id = d.id AND {places} AND {} RETURNING id AS id",
            sets(found, "d"),
            unchanged.join(" AND ")
        )),
    )
    .await?;
    transaction.commit().await?;
    let mut done: [Vec<String>; 2] = Default::default();
    for id in reset {
        done[usize::from(aligned.contains(&id))].push(id);
    }
    for ids in &mut done {
        ids.sort_unstable();
    }
    Ok(done)
}

impl Routine for Resets<'_> {
    fn over(&self, part: &Part) -> Option<Self> {
        Some(Self {
            part: part.clone(),
            ..*self
        })
    }

    fn conclude(&self, report: &mut Report) {
        remind(report);
    }

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
            let changes = &mut report.changes;
            let closed = match connection.dialect() {
                Dialect::Postgres => self.apply_listed(connection, &found, changes).await,
                Dialect::Sqlite => self.apply_staged(connection, &found, changes).await,
            };
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

/// A row that was written, and what was done to it.
#[derive(FromQueryResult)]
struct Reset {
    id: String,
    action: String,
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
        part: Part::default(),
        retention,
        now,
        stop,
    };
    run(session, options, now, stop, &routine).await
}
