//! Deleting an MCP client with all that hangs on it, in the order that real foreign keys allow
//! (`docs/upstream/bifrost.md` §4.5, §4.10; upstream #6648).

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::mcp::{CLIENTS, GRANTS, Kind};
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::database::{Access, columns_of, dialect_of};
use crate::error::{Error, Result};
use crate::lock::{Gateway, Lock};
use crate::reconcile::count;
use crate::report::result::DeletionResult;
use crate::report::{Change, CommandResult, Report};
use crate::retry::{self, in_turns};
use crate::rows;
use crate::runner::{Session, prove_writable};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;
use crate::tracks::governance::shape;

/// Deletes the client's grants, flows and credentials of every mode, then the client, in one transaction; with `dry_run`
/// counts them.
///
/// # Errors
/// [`Error::NotFound`] where there is no client of that `client_id`; [`Error::Locked`]; what the database says, with
/// nothing deleted.
pub async fn delete(
    session: &Session,
    client_id: &str,
    dry_run: bool,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let dialect = session.dialect();
    let db_context = || Error::database(format!("delete MCP client {client_id:?}"));
    shape::refuse_unknown(&connection, dialect).await?;
    let number = number(&connection, dialect, client_id).await?;
    let mut report = Report::answering(result(client_id, dry_run));
    if dry_run {
        for step in steps(&connection, dialect).await.map_err(db_context())? {
            let counted = step.statement(dialect, "SELECT count(*)", client_id, number);
            let rows = rows::count(&connection, counted)
                .await
                .map_err(db_context())?;
            count(&mut report.changes, step.table, "delete", rows, None);
        }
        return Ok(report);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(
        session,
        connection,
        &[Track::GOVERNANCE],
        Gateway::Boots,
        stop,
    )
    .await?;
    let deleted = in_turns(&connection, || transaction(&connection, client_id, number))
        .await
        .map_err(db_context());
    report.changes = deleted?;
    session
        .record_run(
            &connection,
            "mcp-client delete",
            now,
            RunOutcome::Done,
            &report,
        )
        .await;
    lock.release().await;
    Ok(report)
}

/// The same in a transaction of the caller's, which commits it or undoes it. It takes no lock of Tollgate's, tries nothing
/// again, and records no run: the report says what was deleted.
///
/// # Errors
/// Those of [`delete`] but for the lock's.
pub async fn delete_in<C: ConnectionTrait>(transaction: &C, client_id: &str) -> Result<Report> {
    let db_context = || Error::database(format!("delete MCP client {client_id:?}"));
    let dialect = dialect_of(transaction).map_err(db_context())?;
    shape::refuse_unknown(transaction, dialect).await?;
    let number = number(transaction, dialect, client_id).await?;
    let changes = delete_all(transaction, dialect, client_id, number)
        .await
        .map_err(db_context())?;
    Ok(Report {
        changes,
        ..Report::answering(result(client_id, false))
    })
}

fn result(client_id: &str, dry_run: bool) -> CommandResult {
    CommandResult::Deleted(DeletionResult {
        client_id: Some(client_id.to_owned()),
        dry_run,
        ..DeletionResult::default()
    })
}

/// The number of a client that is there.
async fn number<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    client_id: &str,
) -> Result<i64> {
    find(connection, dialect, client_id)
        .await
        .map_err(Error::database(format!("delete MCP client {client_id:?}")))?
        .ok_or_else(|| Error::NotFound {
            what: format!("MCP client {client_id:?}"),
        })
}

/// The number that grants refer to.
async fn find<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    client_id: &str,
) -> std::result::Result<Option<i64>, DbErr> {
    let columns = columns_of(connection, dialect, &[CLIENTS]).await?;
    if !columns.contains(&(CLIENTS.to_owned(), "client_id".to_owned())) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT CAST(id AS bigint) AS id FROM {CLIENTS} WHERE client_id = {}",
        dialect.parameter(1)
    );
    rows::scalar(
        connection,
        Statement::from_sql_and_values(dialect.backend(), sql, [client_id.into()]),
    )
    .await
}

/// The rows of one table that belong to the client.
struct Step {
    table: &'static str,
    column: &'static str,
    /// Whether the column holds the client's number rather than its `client_id`.
    by_number: bool,
}

impl Step {
    fn statement(&self, dialect: Dialect, verb: &str, client_id: &str, number: i64) -> Statement {
        let sql = format!(
            "{verb} FROM {} WHERE {} = {}",
            self.table,
            self.column,
            dialect.parameter(1)
        );
        let value = if self.by_number {
            number.into()
        } else {
            client_id.into()
        };
        Statement::from_sql_and_values(dialect.backend(), sql, [value])
    }
}

/// What refers to the client comes before it: the tables that are there.
async fn steps<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<Vec<Step>, DbErr> {
    let step = |table, column, by_number| Step {
        table,
        column,
        by_number,
    };
    let mut steps = vec![step(GRANTS, "mcp_client_id", true)];
    for kind in Kind::ALL {
        steps.push(step(kind.flows(), "mcp_client_id", false));
        steps.push(step(kind.credentials(), "mcp_client_id", false));
    }
    let tables: Vec<&str> = steps.iter().map(|step| step.table).collect();
    let there = columns_of(connection, dialect, &tables).await?;
    steps.retain(|step| there.contains(&(step.table.to_owned(), step.column.to_owned())));
    steps.push(step(CLIENTS, "id", true));
    Ok(steps)
}

async fn transaction(
    connection: &Connection,
    client_id: &str,
    number: i64,
) -> std::result::Result<Vec<Change>, DbErr> {
    let transaction = retry::begin(connection).await?;
    let changes = delete_all(&transaction, connection.dialect(), client_id, number).await?;
    transaction.commit().await?;
    Ok(changes)
}

async fn delete_all<C: ConnectionTrait>(
    transaction: &C,
    dialect: Dialect,
    client_id: &str,
    number: i64,
) -> std::result::Result<Vec<Change>, DbErr> {
    let mut changes = Vec::new();
    // As many statements as tables.
    for step in steps(transaction, dialect).await? {
        let rows = transaction
            .execute_raw(step.statement(dialect, "DELETE", client_id, number))
            .await?
            .rows_affected();
        count(&mut changes, step.table, "delete", rows, None);
    }
    Ok(changes)
}
