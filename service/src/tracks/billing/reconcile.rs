//! `reconcile billing`: stored billing modes outside the three become NULL, so that the workspace inherits.
//!
//! Reads and closes `workspaces.llm_billing_mode`; touches no other column and no other row.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::billing::{MODE, WORKSPACES, is_garbled};
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::database::columns;
use crate::error::{Error, Result};
use crate::reconcile::{Options, Routine, held, run};
use crate::report::result::{ClearedMode, ClearedResult};
use crate::report::{Change, CommandResult, Outcome, Report};
use crate::retry::{self, in_turns};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;
use crate::tracks::billing::mode::bytes;

struct Billing {
    max_changes: Option<u64>,
}

/// Runs the routine.
pub async fn billing(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let routine = Billing {
        max_changes: options.max_changes,
    };
    run(session, options, now, stop, &routine).await
}

impl Routine for Billing {
    fn name(&self) -> &'static str {
        "billing"
    }

    fn track(&self) -> Track {
        Track::BILLING
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        present(connection).await?;
        let found = find(connection, connection.dialect())
            .await
            .map_err(Error::database("look for garbled billing modes"))?;
        Ok(of(found))
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        present(connection).await?;
        let cleared = in_turns(connection, || clear(connection, self.max_changes))
            .await
            .map_err(Error::database("clear garbled billing modes"))?;
        *report = of(cleared?);
        Ok(())
    }
}

/// Fails where there is no such column, or the table is another product's.
async fn present(connection: &Connection) -> Result<()> {
    let present = columns(connection, connection.dialect(), WORKSPACES)
        .await
        .map_err(Error::database("look for the billing mode"))?;
    if !present.iter().any(|column| column == MODE)
        || Track::BILLING.is_foreign_table(WORKSPACES, present.iter().map(String::as_str))
    {
        return Err(Error::MissingSchema {
            what: format!("{WORKSPACES}.{MODE}, which this routine is about"),
        });
    }
    Ok(())
}

/// The columns of an answer: workspace, and the text its row has. SQLite's text may hold any bytes.
fn answer(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST(id AS text) AS id, {MODE} AS mode"),
        Dialect::Sqlite => format!("CAST(id AS text) AS id, hex(CAST({MODE} AS blob)) AS mode"),
    }
}

fn read(
    dialect: Dialect,
    rows: &[sea_orm::QueryResult],
) -> std::result::Result<Vec<(String, String)>, DbErr> {
    rows.iter()
        .map(|row| {
            let id: Option<String> = row.try_get("", "id")?;
            let mode: Option<String> = row.try_get("", "mode")?;
            let mode = mode.unwrap_or_default();
            Ok((
                id.unwrap_or_default(),
                match dialect {
                    Dialect::Postgres => mode,
                    Dialect::Sqlite => String::from_utf8_lossy(&bytes(&mode)).into_owned(),
                },
            ))
        })
        .collect()
}

/// What differs.
async fn find<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<Vec<(String, String)>, DbErr> {
    let sql = format!(
        "SELECT {} FROM {WORKSPACES} WHERE {} ORDER BY id",
        answer(dialect),
        is_garbled(dialect)
    );
    let rows = connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?;
    read(dialect, &rows)
}

/// Clears them in one transaction, or answers that there are more of them now than may change.
async fn clear(
    connection: &Connection,
    max_changes: Option<u64>,
) -> std::result::Result<Result<Vec<(String, String)>>, DbErr> {
    let dialect = connection.dialect();
    let transaction = retry::begin(connection).await?;
    let condition = is_garbled(dialect);
    let found = match dialect {
        // A row that somebody is writing is waited for and looked at again: the concurrent write wins, and what is
        // reported is what was changed.
        Dialect::Postgres => {
            let rows = transaction
                .query_all_raw(Statement::from_string(
                    dialect.backend(),
                    format!(
                        "WITH due AS (SELECT id, {MODE} AS mode FROM {WORKSPACES} WHERE {condition} ORDER BY id FOR UPDATE), \
                         done AS (UPDATE {WORKSPACES} w SET {MODE} = NULL FROM due WHERE w.id = due.id \
                         RETURNING CAST(w.id AS text) AS id, due.mode AS mode) SELECT id, mode FROM done ORDER BY id"
                    ),
                ))
                .await?;
            read(dialect, &rows)?
        }
        // The transaction has the write lock, so nothing moves between the two.
        Dialect::Sqlite => {
            let found = find(&transaction, dialect).await?;
            transaction
                .execute_unprepared(&format!(
                    "UPDATE {WORKSPACES} SET {MODE} = NULL WHERE {condition}"
                ))
                .await?;
            found
        }
    };
    // The change limit holds on the way out too: nothing is committed.
    let rows = found.len() as u64;
    if let Some(most) = max_changes.filter(|most| rows > *most) {
        return Ok(Err(held(rows, most)));
    }
    transaction.commit().await?;
    Ok(Ok(found))
}

fn of(found: Vec<(String, String)>) -> Report {
    let mut report = Report::default();
    if !found.is_empty() {
        report.changes.push(Change {
            table: WORKSPACES.to_owned(),
            action: "update".to_owned(),
            rows: found.len() as u64,
            sample_ids: found.iter().take(10).map(|(id, _)| id.clone()).collect(),
        });
    }
    let cleared: Vec<_> = found
        .into_iter()
        .map(|(workspace_id, was)| ClearedMode { workspace_id, was })
        .collect();
    report.result = Some(CommandResult::Cleared(ClearedResult { cleared }));
    report
}
