//! The same for a gateway, inside its own transaction.

use backon::Retryable;
use sea_orm::TransactionSession;
use tollgate_migration::Dialect;

use crate::error::Result;
use crate::report::Change;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement, TransactionTrait};

use super::{Present, Scope, apply, bounds, db_context, dialect};
use crate::retry::{ROW_TIMEOUT, backoff, is_busy};

/// Brings a virtual key's credentials in line, after its grants changed or it was created or deleted.
///
/// Runs in a transaction of its own, or in a savepoint of the caller's: a failure undoes this call's writes only. The caller
/// may log it and go on, for the sweep repairs. Takes no lock of Tollgate's. `now` becomes `updated_at` of what changes.
///
/// # Errors
/// [`crate::Error::Database`] when the database failed, after nine tries in some ten seconds where somebody was in the way.
pub async fn after_virtual_key_change<C>(
    connection: &C,
    virtual_key: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Change>>
where
    C: ConnectionTrait + TransactionTrait,
{
    if virtual_key.is_empty() {
        return Ok(Vec::new());
    }
    reconcile_scope(connection, &Scope::VirtualKey(virtual_key.to_owned()), now).await
}

/// Brings the credentials of every virtual key in line that holds any row of the client, after the client's grants or its
/// `allow_on_all_virtual_keys` changed. A constant number of statements, at most ten besides the transaction's own.
///
/// # Errors
/// As [`after_virtual_key_change`].
pub async fn after_mcp_client_change<C>(
    connection: &C,
    client_id: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Change>>
where
    C: ConnectionTrait + TransactionTrait,
{
    reconcile_scope(connection, &Scope::Client(client_id.to_owned()), now).await
}

/// Lets the transaction wait for a row no longer than half a second at a time: two that look at different moments lock the
/// active and the orphaned rows of a key in different orders, and this backs off before the server picks a victim, which might
/// be the gateway. Returns what was set before, for a savepoint's settings are those of the transaction around it.
async fn impatient<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<Option<String>, DbErr> {
    if dialect == Dialect::Sqlite {
        return Ok(None);
    }
    connection
        .query_one_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', '{ROW_TIMEOUT}', true) AS now"
            ),
        ))
        .await?
        .map(|row| row.try_get("", "before"))
        .transpose()
}

/// Takes it back.
async fn restore<C: ConnectionTrait>(
    connection: &C,
    before: String,
) -> std::result::Result<(), DbErr> {
    connection
        .query_one_raw(Statement::from_sql_and_values(
            Dialect::Postgres.backend(),
            "SELECT set_config('lock_timeout', $1, true) AS now",
            [before.into()],
        ))
        .await
        .map(|_| ())
}

async fn reconcile_scope<C>(
    connection: &C,
    scope: &Scope,
    now: DateTime<Utc>,
) -> Result<Vec<Change>>
where
    C: ConnectionTrait + TransactionTrait,
{
    let dialect = dialect(connection)?;
    let attempt = async || {
        let transaction = connection
            .begin_with_options(sea_orm::TransactionOptions {
                sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
                ..Default::default()
            })
            .await?;
        let present = Present::read(&transaction, dialect).await?;
        let mut changes = Vec::new();
        let bounds = |kind| bounds(dialect, scope, kind);
        let before = impatient(&transaction, dialect).await?;
        match apply(&transaction, &present, bounds, now, &mut changes).await {
            Ok(()) => {
                if let Some(before) = before {
                    restore(&transaction, before).await?;
                }
                transaction.commit().await?;
                Ok(changes)
            }
            Err(error) => {
                transaction.rollback().await?;
                Err(error)
            }
        }
    };
    attempt
        .retry(backoff().with_max_times(8))
        .when(is_busy)
        .await
        .map_err(db_context())
}
