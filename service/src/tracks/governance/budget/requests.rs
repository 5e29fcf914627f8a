//! Which requests have been recorded: `tollgate_requests`, made on first need and kept for a while.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Dialect;

use crate::connection::Connection;
use crate::database::existing;
use crate::instant;
use crate::sqlstate::is_made_twice;

/// The table.
pub const TABLE: &str = "tollgate_requests";

/// Whether the table is there.
pub(super) async fn exist<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> Result<bool, DbErr> {
    let found = existing(connection, dialect, &[TABLE.to_owned()]).await?;
    Ok(!found.is_empty())
}

/// Makes the table where it is not there.
pub(super) async fn ensure(connection: &Connection) -> Result<(), DbErr> {
    let dialect = connection.dialect();
    if exist(connection, dialect).await? {
        return Ok(());
    }
    let kind = match dialect {
        Dialect::Postgres => "timestamptz",
        Dialect::Sqlite => "datetime",
    };
    // Both or neither: whoever finds the table looks for no index.
    let made = async {
        let transaction = connection.begin().await?;
        transaction
            .execute_unprepared(&format!(
                "CREATE TABLE IF NOT EXISTS {TABLE} (request_id text NOT NULL PRIMARY KEY, virtual_key_id text NOT NULL, \
                 recorded_at {kind} NOT NULL); \
                 CREATE INDEX IF NOT EXISTS idx_{TABLE}_recorded_at ON {TABLE} (recorded_at);"
            ))
            .await?;
        transaction.commit().await
    };
    match made.await {
        // Somebody else made it at the same time.
        Err(error) if is_made_twice(&error) => Ok(()),
        made => made,
    }
}

/// Notes a request; `false` where it was noted before. A request that is being noted elsewhere is waited for.
pub(super) async fn note<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    request: &str,
    virtual_key: &str,
    now: DateTime<Utc>,
) -> Result<bool, DbErr> {
    let rows = connection
        .execute_raw(Statement::from_sql_and_values(
            dialect.backend(),
            format!(
                "INSERT INTO {TABLE} (request_id, virtual_key_id, recorded_at) VALUES ({}, {}, {}) ON CONFLICT DO NOTHING",
                dialect.parameter(1),
                dialect.parameter(2),
                instant::of_text(dialect, &dialect.parameter(3))
            ),
            [
                request.into(),
                virtual_key.into(),
                instant::text(now).into(),
            ],
        ))
        .await?
        .rows_affected();
    Ok(rows == 1)
}

/// Which were noted before an instant.
fn noted_before(dialect: Dialect, verb: &str, more: &str, before: DateTime<Utc>) -> Statement {
    Statement::from_sql_and_values(
        dialect.backend(),
        format!(
            "{verb} FROM {TABLE} WHERE recorded_at < {}{more}",
            instant::of_text(dialect, &dialect.parameter(1))
        ),
        [instant::text(before).into()],
    )
}

/// How many were noted before an instant.
pub(crate) async fn count_before<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    before: DateTime<Utc>,
) -> Result<u64, DbErr> {
    if !exist(connection, dialect).await? {
        return Ok(0);
    }
    let row = connection
        .query_one_raw(noted_before(
            dialect,
            "SELECT count(*) AS number",
            "",
            before,
        ))
        .await?;
    let number: i64 = row.map_or(Ok(0), |row| row.try_get("", "number"))?;
    Ok(number.unsigned_abs())
}

/// Forgets some of those that were noted before an instant, as one statement; how many.
pub(crate) async fn forget_page<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    before: DateTime<Utc>,
    page: u64,
) -> Result<u64, DbErr> {
    let place = match dialect {
        Dialect::Postgres => "ctid",
        Dialect::Sqlite => "rowid",
    };
    let (open, close) = match dialect {
        Dialect::Postgres => ("= ANY (ARRAY(", "))"),
        Dialect::Sqlite => ("IN (", ")"),
    };
    Ok(connection
        .execute_raw(noted_before(
            dialect,
            &format!("DELETE FROM {TABLE} WHERE {place} {open}SELECT {place}"),
            &format!(" LIMIT {page}{close}"),
            before,
        ))
        .await?
        .rows_affected())
}
