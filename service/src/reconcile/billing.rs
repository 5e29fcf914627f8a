//! `reconcile billing`: stored billing modes outside the three become NULL, so that the workspace inherits.
//!
//! Reads and closes `workspaces.llm_billing_mode`; touches no other column and no other row.

use crate::connection::Connection;
use crate::doctor::environment;
use chrono::Utc;
use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::billing::{MODE, WORKSPACES, is_garbled};
use tollgate_migration::{Dialect, Track};

use super::Options;
use crate::billing::mode::bytes;
use crate::database::{Access, columns};
use crate::error::{Error, Result};
use crate::lock::{Gateway, Lock};
use crate::report::{Change, Report};
use crate::runner::{Session, prove_writable};
use crate::shutdown::ShutdownSignal;

/// Runs the routine.
///
/// # Errors
/// [`Error::Refused`] when the change limit holds, [`Error::NotFound`] when there is no such column, [`Error::Locked`].
pub async fn billing(session: &Session, options: Options, stop: &ShutdownSignal) -> Result<Report> {
    let started = Utc::now();
    let access = if options.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    let connection = session.connect(access).await?;
    environment::refuse_hidden(&connection, Track::BILLING).await?;
    let present = columns(&connection, session.dialect(), WORKSPACES)
        .await
        .map_err(Error::database("look for the billing mode"))?;
    if !present.iter().any(|column| column == MODE)
        || Track::BILLING.is_foreign_table(WORKSPACES, present.iter().map(String::as_str))
    {
        return Err(Error::NotFound {
            what: format!("{WORKSPACES}.{MODE}, which this routine is about"),
        });
    }
    if options.dry_run {
        let found = find(&connection, session).await?;
        change_limit(options, &found)?;
        return Ok(report(found));
    }
    change_limit(options, &find(&connection, session).await?)?;
    prove_writable(session, &connection).await?;
    let (lock, connection) =
        Lock::take(session, connection, &[Track::BILLING], Gateway::Boots, stop).await?;
    let outcome = apply(&connection, session, options).await;
    let report = outcome?;
    if !report.changes.is_empty() {
        session
            .record_run(&connection, "reconcile billing", started, "done", &report)
            .await;
    }
    lock.release().await;
    Ok(report)
}

/// The columns of an answer: workspace, and the text its row has. SQLite's text may hold any bytes.
fn answer(dialect: Dialect) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST(id AS text) AS id, {MODE} AS mode"),
        Dialect::Sqlite => format!("CAST(id AS text) AS id, hex(CAST({MODE} AS blob)) AS mode"),
    }
}

fn read(dialect: Dialect, rows: &[sea_orm::QueryResult]) -> Result<Vec<(String, String)>> {
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
        .collect::<std::result::Result<_, sea_orm::DbErr>>()
        .map_err(Error::database("read garbled billing modes"))
}

/// What differs.
async fn find<C: ConnectionTrait>(
    connection: &C,
    session: &Session,
) -> Result<Vec<(String, String)>> {
    let dialect = session.dialect();
    let sql = format!(
        "SELECT {} FROM {WORKSPACES} WHERE {} ORDER BY id",
        answer(dialect),
        is_garbled(dialect)
    );
    let rows = connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await
        .map_err(Error::database("look for garbled billing modes"))?;
    read(dialect, &rows)
}

fn change_limit(options: Options, found: &[(String, String)]) -> Result<()> {
    match options.max_changes {
        Some(most) if found.len() as u64 > most => Err(Error::refused(
            "max_changes",
            format!(
                "{} rows would change, more than --max-changes {most}",
                found.len()
            ),
            "look with --dry-run; nothing was changed",
        )),
        _ => Ok(()),
    }
}

async fn apply(connection: &Connection, session: &Session, options: Options) -> Result<Report> {
    let db_context = || Error::database("clear garbled billing modes");
    let dialect = session.dialect();
    let transaction = connection.begin().await.map_err(db_context())?;
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
                .await
                .map_err(db_context())?;
            read(dialect, &rows)?
        }
        // The transaction has the write lock, so nothing moves between the two.
        Dialect::Sqlite => {
            let found = find(&transaction, session).await?;
            transaction
                .execute_unprepared(&format!(
                    "UPDATE {WORKSPACES} SET {MODE} = NULL WHERE {condition}"
                ))
                .await
                .map_err(db_context())?;
            found
        }
    };
    // The change limit holds on the way out too: nothing is committed.
    change_limit(options, &found)?;
    transaction.commit().await.map_err(db_context())?;
    Ok(report(found))
}

fn report(found: Vec<(String, String)>) -> Report {
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
        .map(|(id, mode)| serde_json::json!({ "workspace_id": id, "was": mode }))
        .collect();
    report.result = Some(serde_json::json!({ "cleared": cleared }));
    report
}
