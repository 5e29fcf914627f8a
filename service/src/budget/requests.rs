//! Which requests have been recorded: `tollgate_requests`, made on first need and kept for a while.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Dialect;

use crate::connection::Connection;
use crate::database::existing;
use crate::instant;
use crate::retry::is_made_twice;

/// The table.
pub const TABLE: &str = "tollgate_requests";

fn time(dialect: Dialect, parameter: String) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST({parameter} AS timestamptz)"),
        Dialect::Sqlite => parameter,
    }
}

/// Makes the table where it is not there.
pub(super) async fn ensure(connection: &Connection) -> Result<(), DbErr> {
    let dialect = connection.dialect();
    if !existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(());
    }
    let kind = match dialect {
        Dialect::Postgres => "timestamptz",
        Dialect::Sqlite => "datetime",
    };
    let made = connection
        .execute_unprepared(&format!(
            "CREATE TABLE IF NOT EXISTS {TABLE} (request_id text NOT NULL PRIMARY KEY, virtual_key_id text NOT NULL, \
             recorded_at {kind} NOT NULL); \
             CREATE INDEX IF NOT EXISTS idx_{TABLE}_recorded_at ON {TABLE} (recorded_at);"
        ))
        .await;
    match made {
        // Somebody else made it at the same time.
        Err(error) if is_made_twice(&error) => Ok(()),
        made => made.map(|_| ()),
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
                time(dialect, dialect.parameter(3))
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

/// How many were noted before an instant; deletes them unless they are only counted.
pub(crate) async fn forget<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    before: DateTime<Utc>,
    count_only: bool,
) -> Result<u64, DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(0);
    }
    let condition = format!("recorded_at < {}", time(dialect, dialect.parameter(1)));
    let statement = |verb: &str| {
        Statement::from_sql_and_values(
            dialect.backend(),
            format!("{verb} FROM {TABLE} WHERE {condition}"),
            [instant::text(before).into()],
        )
    };
    if count_only {
        let row = connection
            .query_one_raw(statement("SELECT count(*) AS number"))
            .await?;
        let number: i64 = row.map_or(Ok(0), |row| row.try_get("", "number"))?;
        return Ok(number.unsigned_abs());
    }
    Ok(connection
        .execute_raw(statement("DELETE"))
        .await?
        .rows_affected())
}
