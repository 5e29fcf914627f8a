//! `history`: what changed this database.

use sea_orm::{FromQueryResult, Statement};
use tollgate_migration::Dialect;

use super::TABLE;
use crate::database::{Access, existing};
use crate::error::{Error, Result};
use crate::report::result::{HistoryResult, RecordedRun};
use crate::report::{CommandResult, Report};
use crate::rows;
use crate::runner::Session;

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
