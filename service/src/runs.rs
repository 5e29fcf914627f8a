//! One row for each command that changed something.

mod history;

pub use history::history;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::Dialect;

use crate::database::existing;
use crate::error::{Error, Result};
use crate::instant::of_text;
use crate::rows;

/// The table of runs.
pub const TABLE: &str = "tollgate_runs";

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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

/// When a kind of run last began.
#[derive(FromQueryResult)]
struct Start {
    kind: String,
    at: i64,
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
        crate::process::host().into(),
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
