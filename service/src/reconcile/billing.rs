//! `reconcile billing`: stored billing modes outside the three become NULL, so that the workspace inherits.
//!
//! Reads and closes `workspaces.llm_billing_mode`; touches no other column and no other row.

use chrono::Utc;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tollgate_migration::Track;
use tollgate_migration::billing::{MODE, WORKSPACES, garbled};

use super::Options;
use crate::database::{Access, columns};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::report::{Change, Report};
use crate::runner::{Session, begin, prove_writable};
use crate::stop::Stop;

/// Runs the routine.
///
/// # Errors
/// [`Error::Refused`] when the brake holds, [`Error::NotFound`] when there is no such column, [`Error::Locked`].
pub async fn billing(session: &Session, options: Options, stop: &Stop) -> Result<Report> {
    let started = Utc::now();
    let access = if options.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    let connection = session.connect(access).await?;
    let present = columns(&connection, session.dialect(), WORKSPACES)
        .await
        .map_err(Error::database("look for the billing mode"))?;
    if !present.iter().any(|column| column == MODE)
        || Track::Billing.is_anothers(WORKSPACES, present.iter().map(String::as_str))
    {
        return Err(Error::NotFound {
            what: format!("{WORKSPACES}.{MODE}, which this routine is about"),
        });
    }
    if options.dry_run {
        let found = find(&connection, session).await?;
        brake(options, &found)?;
        return Ok(report(found));
    }
    prove_writable(session, &connection).await?;
    let lock = Lock::take(
        &session.location,
        Track::Billing,
        session.wait_lock,
        session.connect_timeout,
        stop,
    )
    .await?;
    let outcome = apply(&connection, session, options).await;
    lock.release().await;
    let report = outcome?;
    if !report.changes.is_empty() {
        session
            .record_run(&connection, "reconcile billing", started, "done", &report)
            .await;
    }
    Ok(report)
}

/// What differs: workspace and the text its row has.
async fn find<C: ConnectionTrait>(
    connection: &C,
    session: &Session,
) -> Result<Vec<(String, String)>> {
    let dialect = session.dialect();
    let rows = connection
        .query_all_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT CAST(w.id AS text) AS id, CAST(w.{MODE} AS text) AS mode FROM {WORKSPACES} w \
                 WHERE w.id IN ({}) ORDER BY w.id",
                garbled()
            ),
        ))
        .await
        .map_err(Error::database("look for garbled billing modes"))?;
    rows.iter()
        .map(|row| Ok((row.try_get("", "id")?, row.try_get("", "mode")?)))
        .collect::<std::result::Result<_, sea_orm::DbErr>>()
        .map_err(Error::database("read garbled billing modes"))
}

fn brake(options: Options, found: &[(String, String)]) -> Result<()> {
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

async fn apply(
    connection: &DatabaseConnection,
    session: &Session,
    options: Options,
) -> Result<Report> {
    let doing = || Error::database("clear garbled billing modes");
    let transaction = begin(connection).await.map_err(doing())?;
    let found = find(&transaction, session).await?;
    brake(options, &found)?;
    transaction
        .execute_unprepared(&format!(
            "UPDATE {WORKSPACES} SET {MODE} = NULL WHERE id IN ({})",
            garbled()
        ))
        .await
        .map_err(doing())?;
    transaction.commit().await.map_err(doing())?;
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
