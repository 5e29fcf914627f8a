//! `reconcile resets`: windows of budgets and rate limits that are over begin anew (`reference/bifrost.md` §3.3).
//!
//! Reads durations, last resets and the flags of who owns them; closes `current_usage` and `last_reset` of budgets and of
//! rate limits, and drops request ids that were recorded long ago. What is due is found by one statement per kind and
//! closed in pages, each one statement that repeats that the window is still the one that was found: who has recorded
//! usage into a new window meanwhile has begun it, and is left alone.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps usage in memory, and writes it
//! back on its next tick.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::{Dialect, Track};

use super::{Options, Routine, SAMPLES, count, run};
use crate::budget::schema::{RATE_LIMITS, Schema};
use crate::budget::window::Window;
use crate::budget::{REQUESTS, forget_requests};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::instant;
use crate::report::{Change, Finding, Outcome, Report, Severity};
use crate::retry::{backoff, is_transient};
use crate::runner::Session;
use crate::stop::Stop;

/// Rows of one transaction.
const PAGE: u64 = 5000;
/// What is due, for as long as the connection lives.
const FOUND: &str = "tollgate_due_resets";

/// A counter with its window.
struct Kind {
    table: &'static str,
    usage: &'static str,
    last: &'static str,
    word: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        table: BUDGETS,
        usage: "current_usage",
        last: "last_reset",
        word: "reset_duration",
    },
    Kind {
        table: RATE_LIMITS,
        usage: "token_current_usage",
        last: "token_last_reset",
        word: "token_reset_duration",
    },
    Kind {
        table: RATE_LIMITS,
        usage: "request_current_usage",
        last: "request_last_reset",
        word: "request_reset_duration",
    },
];

struct Resets<'a> {
    retention: Duration,
    now: DateTime<Utc>,
    stop: &'a Stop,
}

fn doing() -> impl FnOnce(DbErr) -> Error {
    Error::database("reset budgets and rate limits")
}

fn time(dialect: Dialect, at: DateTime<Utc>) -> String {
    let text = dialect.text(&instant::text(at));
    match dialect {
        Dialect::Postgres => format!("CAST({text} AS timestamptz)"),
        Dialect::Sqlite => text,
    }
}

impl Kind {
    fn is_there(&self, schema: &Schema) -> bool {
        ["id", self.usage, self.last, self.word]
            .iter()
            .all(|column| schema.has(self.table, column))
    }

    /// Time as it is compared: SQLite's are texts of many spellings.
    fn compared(&self, dialect: Dialect, expression: &str) -> String {
        match dialect {
            Dialect::Postgres => expression.to_owned(),
            Dialect::Sqlite => format!("julianday({expression})"),
        }
    }

    /// The window of `b` began with a unit of the calendar, that of `w`.
    fn on_boundary(&self, dialect: Dialect) -> String {
        let last = format!("b.{}", self.last);
        match dialect {
            Dialect::Postgres => {
                format!("date_trunc(w.unit, {last} AT TIME ZONE 'UTC') = {last} AT TIME ZONE 'UTC'")
            }
            Dialect::Sqlite => format!(
                "(strftime('%H:%M:%f', {last}) = '00:00:00.000' AND CASE w.unit WHEN 'day' THEN 1 \
                 WHEN 'week' THEN strftime('%w', {last}) = '1' WHEN 'month' THEN strftime('%d', {last}) = '01' \
                 ELSE strftime('%m-%d', {last}) = '01-01' END)"
            ),
        }
    }

    /// A query of what is due: `id`, `action`, `last` (as it was found) and `start` (of the window that is open now).
    /// `None` where no duration can be read.
    fn due(
        &self,
        schema: &Schema,
        words: &[(String, Window)],
        now: DateTime<Utc>,
    ) -> Option<String> {
        if words.is_empty() {
            return None;
        }
        let dialect = schema.dialect;
        let rows: Vec<String> = words
            .iter()
            .map(|(word, window)| {
                let (start, unit) = match window.unit() {
                    Some(unit) => (time(dialect, unit.start(now)), dialect.text(unit.name())),
                    None => match dialect {
                        Dialect::Postgres => (
                            "CAST(NULL AS timestamptz)".to_owned(),
                            "CAST(NULL AS text)".to_owned(),
                        ),
                        Dialect::Sqlite => ("NULL".to_owned(), "NULL".to_owned()),
                    },
                };
                format!(
                    "({}, {}, {start}, {unit})",
                    dialect.text(word),
                    time(dialect, window.cutoff(now))
                )
            })
            .collect();
        let aligned = if self.table == BUDGETS {
            schema.is_aligned_budget()
        } else {
            schema.is_aligned_rate_limit()
        };
        let last = format!("b.{}", self.last);
        let compared = self.compared(dialect, &last);
        let cutoff = self.compared(dialect, "w.cutoff");
        let start = self.compared(dialect, "w.start");
        // A time that cannot be read is never taken for past.
        let readable = match dialect {
            Dialect::Postgres => "1 = 1".to_owned(),
            Dialect::Sqlite => format!("({last} IS NULL OR {compared} IS NOT NULL)"),
        };
        Some(format!(
            "SELECT r.id, r.action, r.last, r.start FROM (SELECT b.id AS id, {last} AS last, \
             CASE WHEN w.start IS NOT NULL AND {aligned} THEN w.start ELSE {now} END AS start, \
             CASE WHEN {last} IS NULL THEN 'reset' \
             WHEN w.start IS NOT NULL AND {aligned} THEN CASE WHEN {compared} >= {start} THEN NULL \
             WHEN {boundary} OR {compared} <= {cutoff} OR COALESCE(b.{usage}, 0) = 0 THEN 'reset' ELSE 'align' END \
             WHEN {compared} <= {cutoff} THEN 'reset' END AS action \
             FROM {table} b JOIN (VALUES {rows}) w (word, cutoff, start, unit) ON w.word = b.{word} WHERE {readable}) r \
             WHERE r.action IS NOT NULL",
            now = time(dialect, now),
            boundary = self.on_boundary(dialect),
            usage = self.usage,
            table = self.table,
            word = self.word,
            rows = rows.join(", "),
        ))
        .map(|sql| match dialect {
            Dialect::Postgres => sql,
            // SQLite gives the columns of VALUES names of its own.
            Dialect::Sqlite => sql.replace(
                &format!("(VALUES {}) w (word, cutoff, start, unit)", rows.join(", ")),
                &format!(
                    "(SELECT column1 AS word, column2 AS cutoff, column3 AS start, column4 AS unit FROM (VALUES {})) w",
                    rows.join(", ")
                ),
            ),
        })
    }

    /// The durations that are stored; those that cannot be read are findings.
    async fn words(
        &self,
        connection: &Connection,
        dialect: Dialect,
    ) -> Result<(Vec<(String, Window)>, Vec<Finding>)> {
        let mut words = Vec::new();
        let mut unknown = Vec::new();
        for row in connection
            .query_all_raw(Statement::from_string(
                dialect.backend(),
                format!(
                    "SELECT DISTINCT {word} AS word FROM {} WHERE {word} IS NOT NULL ORDER BY 1",
                    self.table,
                    word = self.word
                ),
            ))
            .await
            .map_err(doing())?
        {
            let word: String = row.try_get("", "word").map_err(doing())?;
            match Window::parse(&word) {
                Some(window) => words.push((word, window)),
                None => unknown.push(dialect.text(&word)),
            }
        }
        let mut findings = Vec::new();
        if !unknown.is_empty() {
            findings.extend(
                self.finding(
                    connection,
                    dialect,
                    &format!("{} IN ({})", self.word, unknown.join(", ")),
                    "R002",
                    self.word,
                    "a reset duration that cannot be read or is not above zero",
                    "nobody can say when its window is over; it is never reset",
                    "correct the duration: 1d, 1w, 1M, 1Y, 12h or 1h30m",
                )
                .await?,
            );
        }
        if dialect == Dialect::Sqlite {
            findings.extend(
                self.finding(
                    connection,
                    dialect,
                    &format!(
                        "{last} IS NOT NULL AND julianday({last}) IS NULL",
                        last = self.last
                    ),
                    "R001",
                    self.last,
                    "a time that cannot be read",
                    "nobody can say whether the window is over; it is not reset",
                    "write it as 2026-03-29 10:11:12+00:00",
                )
                .await?,
            );
        }
        Ok((words, findings))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a finding has as many parts, and they are said where they belong"
    )]
    async fn finding(
        &self,
        connection: &Connection,
        dialect: Dialect,
        condition: &str,
        code: &str,
        column: &str,
        title: &str,
        effect: &str,
        resolve: &str,
    ) -> Result<Option<Finding>> {
        let sql = format!(
            "SELECT id AS id, count(*) OVER () AS number FROM {} WHERE {condition} ORDER BY id LIMIT {SAMPLES}",
            self.table
        );
        let (rows, sample_ids) = ids(connection, dialect, &sql).await.map_err(doing())?;
        Ok((rows > 0).then(|| Finding {
            code: code.to_owned(),
            severity: Severity::Warning,
            title: title.to_owned(),
            table: self.table.to_owned(),
            column: Some(column.to_owned()),
            rows,
            sample_ids,
            effect: effect.to_owned(),
            resolve: resolve.to_owned(),
        }))
    }
}

/// How many rows a query has, by its column `number`, and their ids.
async fn ids(
    connection: &Connection,
    dialect: Dialect,
    sql: &str,
) -> std::result::Result<(u64, Vec<String>), DbErr> {
    let rows = connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql.to_owned()))
        .await?;
    let number: i64 = rows
        .first()
        .map_or(Ok(0), |row| row.try_get("", "number"))?;
    let ids = rows
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<std::result::Result<_, DbErr>>()?;
    Ok((number.unsigned_abs(), ids))
}

/// One of the two things that are done to rows.
const ACTIONS: [&str; 2] = ["reset", "align"];

impl Resets<'_> {
    /// The kinds that are there, with what is due of each.
    async fn look(
        &self,
        connection: &Connection,
        report: &mut Report,
    ) -> Result<Vec<(&'static Kind, String)>> {
        let dialect = connection.dialect();
        let schema = Schema::look(connection, dialect).await.map_err(doing())?;
        if !KINDS[0].is_there(&schema) {
            return Err(Error::NotFound {
                what: format!("{BUDGETS} with usage and last reset here"),
            });
        }
        let mut found = Vec::new();
        for kind in KINDS.iter().filter(|kind| kind.is_there(&schema)) {
            let (words, findings) = kind.words(connection, dialect).await?;
            report.findings.extend(findings);
            found.extend(kind.due(&schema, &words, self.now).map(|due| (kind, due)));
        }
        Ok(found)
    }

    fn oldest_request(&self) -> Option<DateTime<Utc>> {
        chrono::Duration::from_std(self.retention)
            .ok()
            .and_then(|retention| self.now.checked_sub_signed(retention))
    }

    /// Closes what is due of one kind.
    async fn close(
        &self,
        connection: &Connection,
        kind: &Kind,
        due: &str,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let dialect = connection.dialect();
        let run = |sql: String| async move {
            connection
                .execute_unprepared(&sql)
                .await
                .map_err(doing())
                .map(|_| ())
        };
        let temporary = match dialect {
            Dialect::Postgres => format!("pg_temp.{FOUND}"),
            Dialect::Sqlite => format!("temp.{FOUND}"),
        };
        run(format!("DROP TABLE IF EXISTS {temporary}")).await?;
        run(format!(
            "CREATE TEMPORARY TABLE {FOUND} AS SELECT d.*, row_number() OVER (ORDER BY d.id) AS place FROM ({due}) d"
        ))
        .await?;
        run(format!("CREATE INDEX {FOUND}_place ON {FOUND} (place)")).await?;
        let total = ids(
            connection,
            dialect,
            &format!("SELECT '' AS id, count(*) AS number FROM {FOUND}"),
        )
        .await
        .map_err(doing())?
        .0;
        let mut behind = 0;
        while behind < total {
            self.stop.check()?;
            let done = (|| page(connection, kind, behind))
                .retry(backoff())
                .when(is_transient)
                .await
                .map_err(doing())?;
            for (action, ids) in ACTIONS.iter().zip(done) {
                let rows = u64::try_from(ids.len()).unwrap_or(u64::MAX);
                count(changes, kind.table, action, rows, ids);
            }
            behind += PAGE;
        }
        run(format!("DROP TABLE {temporary}")).await
    }
}

/// One page: the ids that were reset, and those that were aligned.
async fn page(
    connection: &Connection,
    kind: &Kind,
    behind: u64,
) -> std::result::Result<[Vec<String>; 2], DbErr> {
    let dialect = connection.dialect();
    let (table, usage, last) = (kind.table, kind.usage, kind.last);
    let upto = behind + PAGE;
    let places = format!("d.place > {behind} AND d.place <= {upto}");
    let transaction = connection.begin().await?;
    let sql = match dialect {
        Dialect::Postgres => {
            // Rows are few and reached by their key; who records into one of them begins its window anew itself, so it is
            // passed over rather than waited for.
            for sql in [
                "SET LOCAL lock_timeout = '500ms'",
                "SET LOCAL enable_hashjoin = off",
                "SET LOCAL enable_mergejoin = off",
            ] {
                transaction.execute_unprepared(sql).await?;
            }
            format!(
                "WITH taken AS MATERIALIZED (SELECT b.id, d.action, d.start FROM {FOUND} d JOIN {table} b ON b.id = d.id \
                 WHERE {places} AND b.{last} IS NOT DISTINCT FROM d.last ORDER BY b.id FOR NO KEY UPDATE OF b SKIP LOCKED) \
                 UPDATE {table} b SET {usage} = CASE WHEN t.action = 'reset' THEN 0 ELSE b.{usage} END, {last} = t.start \
                 FROM taken t WHERE b.id = t.id RETURNING b.id AS id, t.action AS action"
            )
        }
        Dialect::Sqlite => format!(
            "UPDATE {table} AS b SET {usage} = CASE WHEN d.action = 'reset' THEN 0 ELSE b.{usage} END, {last} = d.start \
             FROM {FOUND} d WHERE b.id = d.id AND {places} AND b.{last} IS d.last RETURNING id AS id, NULL AS action"
        ),
    };
    // SQLite returns columns of the written table alone.
    let mut aligned = BTreeSet::new();
    if dialect == Dialect::Sqlite {
        let sql = format!(
            "SELECT d.id AS id FROM {FOUND} d WHERE {places} AND d.action = '{}'",
            ACTIONS[1]
        );
        for row in transaction
            .query_all_raw(Statement::from_string(dialect.backend(), sql))
            .await?
        {
            aligned.insert(row.try_get::<String>("", "id")?);
        }
    }
    let mut done: [Vec<String>; 2] = Default::default();
    for row in transaction
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?
    {
        let id: String = row.try_get("", "id")?;
        let action: Option<String> = row.try_get("", "action")?;
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
        Track::Governance
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let mut report = Report::default();
        let dialect = connection.dialect();
        for (kind, due) in self.look(connection, &mut report).await? {
            for action in ACTIONS {
                let sql = format!(
                    "SELECT d.id AS id, count(*) OVER () AS number FROM ({due}) d WHERE d.action = '{action}' \
                     ORDER BY d.id LIMIT {SAMPLES}"
                );
                let (rows, ids) = ids(connection, dialect, &sql).await.map_err(doing())?;
                count(&mut report.changes, kind.table, action, rows, ids);
            }
        }
        if let Some(before) = self.oldest_request() {
            let rows = forget_requests(connection, dialect, before, true)
                .await
                .map_err(doing())?;
            count(&mut report.changes, REQUESTS, "delete", rows, None);
        }
        remind(&mut report);
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        for (kind, due) in self.look(connection, report).await? {
            let closed = self
                .close(connection, kind, &due, &mut report.changes)
                .await;
            remind(report);
            closed?;
        }
        if let Some(before) = self.oldest_request() {
            let rows = forget_requests(connection, connection.dialect(), before, false)
                .await
                .map_err(doing())?;
            count(&mut report.changes, REQUESTS, "delete", rows, None);
        }
        Ok(())
    }
}

/// Says once who does not notice.
pub(super) fn remind(report: &mut Report) {
    let rows = report
        .changes
        .iter()
        .filter(|change| change.table != REQUESTS)
        .map(|change| change.rows)
        .sum();
    report.findings.retain(|finding| finding.code != "R003");
    if rows > 0 {
        report.findings.push(Finding {
            code: "R003".to_owned(),
            severity: Severity::Info,
            title: "a Bifrost that runs does not notice".to_owned(),
            table: BUDGETS.to_owned(),
            column: None,
            rows,
            sample_ids: Vec::new(),
            effect: "it keeps keys and usage in memory, and writes usage back on its next tick"
                .to_owned(),
            resolve:
                "nothing to do for a gateway that embeds tollgate-service, or one that is stopped"
                    .to_owned(),
        });
    }
}

/// Runs the routine. The outcome's error is [`Error::NotFound`] where there are no budgets, [`Error::Refused`] when the
/// brake holds.
pub async fn resets(
    session: &Session,
    retention: Duration,
    options: Options,
    now: DateTime<Utc>,
    stop: &Stop,
) -> Outcome {
    let routine = Resets {
        retention,
        now,
        stop,
    };
    run(session, options, now, stop, &routine).await
}
