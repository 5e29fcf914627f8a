//! One row for each command that changed something.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::Dialect;

use crate::database::{Access, existing};
use crate::error::{Error, Result};
use crate::instant::of_text;
use crate::report::result::{HistoryResult, RecordedRun};
use crate::report::{CommandResult, Report};
use crate::rows;
use crate::runner::Session;

/// The table of runs.
pub const TABLE: &str = "tollgate_runs";

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Everything that it was to do.
    Done,
    /// It refused to go on.
    Refused,
    /// A signal stopped it.
    Stopped,
    /// It failed.
    Failed,
}

impl RunOutcome {
    /// What a result comes to.
    pub fn of<T>(result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(Error::Refused { .. }) => Self::Refused,
            Err(Error::Stopped { .. }) => Self::Stopped,
            Err(_) => Self::Failed,
        }
    }

    /// Its word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// A run to be recorded.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command, `migrate up`.
    pub kind: String,
    /// The routine, for `reconcile`.
    pub routine: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// What it came to.
    pub outcome: RunOutcome,
    /// The report, as JSON.
    pub report: String,
}

/// Who runs this process: user, host and process id, as far as the environment says.
pub fn applied_by() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{} (pid {})", host(), std::process::id())
}

/// What this process calls itself on a server.
pub(crate) fn application_name() -> String {
    format!("tollgate (pid {})", std::process::id())
}

/// Whether a session of that name is a run of Tollgate's.
pub(crate) fn is_ours(application: &str) -> bool {
    application.starts_with("tollgate (pid ")
}

fn host() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// When a kind of run last began.
#[derive(FromQueryResult)]
struct Start {
    kind: String,
    at: i64,
}

/// A row of the table.
#[derive(FromQueryResult)]
struct Row {
    id: i64,
    kind: String,
    started_at: String,
    finished_at: String,
    outcome: String,
    tool_version: String,
    host: String,
    report: Option<String>,
}

/// When the last run of each command that was done began, in seconds since 1970.
pub(crate) async fn last_starts<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<BTreeMap<String, i64>, DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(BTreeMap::new());
    }
    let seconds = match dialect {
        Dialect::Postgres => "CAST(floor(extract(epoch FROM started_at)) AS bigint)",
        Dialect::Sqlite => "CAST(strftime('%s', started_at) AS bigint)",
    };
    let starts: Vec<Start> = rows::all(
        connection,
        Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT kind, max({seconds}) AS at FROM {TABLE} WHERE outcome = 'done' AND {seconds} IS NOT NULL GROUP BY kind"
            ),
        ),
    )
    .await?;
    Ok(starts.into_iter().map(|row| (row.kind, row.at)).collect())
}

/// Records a run, creating the table on first need.
pub(crate) async fn record<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    run: &Run,
) -> std::result::Result<(), DbErr> {
    let (key, time) = match dialect {
        Dialect::Postgres => ("bigserial PRIMARY KEY", "timestamptz"),
        Dialect::Sqlite => ("integer PRIMARY KEY AUTOINCREMENT", "datetime"),
    };
    // No CREATE is sent where the table is there: it needs a right of its own, exist the table or not.
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        connection
            .execute_unprepared(&format!(
                "CREATE TABLE {TABLE} (id {key}, kind text NOT NULL, routine text, started_at {time} NOT NULL, \
             finished_at {time} NOT NULL, outcome text NOT NULL, tool_version text NOT NULL, host text NOT NULL, report text NOT NULL)"
            ))
            .await?;
    }
    let p = |n| dialect.parameter(n);
    let [started, finished] = [3, 4].map(|n| of_text(dialect, &p(n)));
    let sql = format!(
        "INSERT INTO {TABLE} (kind, routine, started_at, finished_at, outcome, tool_version, host, report) \
         VALUES ({}, {}, {started}, {finished}, {}, {}, {}, {})",
        p(1),
        p(2),
        p(5),
        p(6),
        p(7),
        p(8)
    );
    let values: Vec<Value> = vec![
        run.kind.clone().into(),
        run.routine.clone().into(),
        instant(run.started_at).into(),
        instant(run.finished_at).into(),
        run.outcome.word().into(),
        env!("CARGO_PKG_VERSION").into(),
        host().into(),
        run.report.clone().into(),
    ];
    connection
        .execute_raw(Statement::from_sql_and_values(
            dialect.backend(),
            sql,
            values,
        ))
        .await?;
    Ok(())
}

/// Whether a run of that kind ended after that time.
pub(crate) async fn any_since<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kind: &str,
    since: DateTime<Utc>,
) -> std::result::Result<bool, DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(false);
    }
    // On SQLite texts are compared, which this file wrote in one spelling.
    let since = of_text(dialect, &dialect.text(&instant(since)));
    let sql = format!(
        "SELECT id FROM {TABLE} WHERE kind = {} AND finished_at >= {since} LIMIT 1",
        dialect.text(kind)
    );
    let row = connection
        .query_one_raw(Statement::from_string(dialect.backend(), sql))
        .await?;
    Ok(row.is_some())
}

fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string()
}

/// `history`: the last runs that changed something, the newest first; or one of them with its report in full.
///
/// # Errors
/// [`Error::NotFound`] for a number that no run has; what connecting and reading may answer.
pub async fn history(session: &Session, run: Option<i64>, limit: u32) -> Result<Report> {
    let connection = session.connect_at_once(Access::Read).await?;
    let db_context = || Error::database(format!("read {TABLE}"));
    let dialect = session.dialect();
    let there = !existing(&connection, dialect, &[TABLE.to_owned()])
        .await
        .map_err(db_context())?
        .is_empty();
    let mut runs = Vec::new();
    if there {
        let time = |column: &str| match dialect {
            Dialect::Postgres => format!(
                "to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US\"+00:00\"') AS {column}"
            ),
            Dialect::Sqlite => column.to_owned(),
        };
        let (which, report) = match run {
            Some(id) => (format!("WHERE id = {id}"), "report"),
            None => (
                format!("ORDER BY id DESC LIMIT {limit}"),
                "CAST(NULL AS text) AS report",
            ),
        };
        let sql = format!(
            "SELECT CAST(id AS bigint) AS id, kind, {}, {}, outcome, tool_version, host, {report} FROM {TABLE} {which}",
            time("started_at"),
            time("finished_at")
        );
        let stored: Vec<Row> =
            rows::all(&connection, Statement::from_string(dialect.backend(), sql))
                .await
                .map_err(db_context())?;
        runs.extend(stored.into_iter().map(|row| {
            RecordedRun {
                id: row.id,
                kind: row.kind,
                started_at: row.started_at,
                finished_at: row.finished_at,
                outcome: row.outcome,
                tool_version: row.tool_version,
                host: row.host,
                report: row
                    .report
                    .and_then(|report| serde_json::from_str(&report).ok()),
            }
        }));
    }
    if let (Some(id), true) = (run, runs.is_empty()) {
        return Err(Error::NotFound {
            what: format!("run {id} in {TABLE}; `tollgate history` lists them"),
        });
    }
    Ok(Report {
        result: Some(CommandResult::History(HistoryResult { runs })),
        ..Report::default()
    })
}
