//! An advisory lock held by one open transaction on a connection of its own, so that it holds through a transaction
//! pooler and vanishes with the process.

use std::time::Duration;

use crate::connection::{Connection, Transaction};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use sha2::{Digest, Sha256};
use tollgate_migration::{Dialect, Track};

use crate::database::{Access, Location};
use crate::error::{Error, Result};

/// The first half of every key: "Toll".
const CLASS: i32 = 0x546f_6c6c;

/// A connection that may become a lock.
pub(super) struct Poll {
    connection: Connection,
}

/// What a try came to.
pub(super) enum Tried {
    Held(PostgresLock),
    Busy(Poll, String),
}

/// A held lock.
pub(crate) struct PostgresLock {
    transaction: Transaction,
    _connection: Connection,
}

/// Two schemas of one database are two databases to Tollgate.
fn key(schema: &str, track: Track) -> i32 {
    let digest = Sha256::digest(format!("{schema}\u{1f}{track}"));
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn query(sql: String) -> Statement {
    Statement::from_string(Dialect::Postgres.backend(), sql)
}

impl Poll {
    pub(super) async fn connect(location: &Location, timeout: Duration) -> Result<Self> {
        Ok(Self {
            connection: location.connect(Access::Write, timeout).await?,
        })
    }

    pub(super) async fn try_lock(self, track: Track) -> Result<Tried> {
        self.attempt(track)
            .await
            .map_err(Error::database("take the lock"))
    }

    async fn attempt(self, track: Track) -> std::result::Result<Tried, DbErr> {
        let transaction = self.connection.begin().await?;
        outlive_timeouts(&transaction).await?;
        let schema: String = transaction
            .query_one_raw(query("SELECT current_schema()::text AS name".to_owned()))
            .await?
            .map(|row| row.try_get("", "name"))
            .transpose()?
            .unwrap_or_default();
        let key = key(&schema, track);
        let held: bool = transaction
            .query_one_raw(query(format!(
                "SELECT pg_try_advisory_xact_lock({CLASS}, {key}) AS held"
            )))
            .await?
            .map(|row| row.try_get("", "held"))
            .transpose()?
            .unwrap_or_default();
        if held {
            return Ok(Tried::Held(PostgresLock {
                transaction,
                _connection: self.connection,
            }));
        }
        let holder = holder(&transaction, key).await?;
        transaction.rollback().await?;
        Ok(Tried::Busy(self, holder))
    }
}

/// An idle transaction is a lock's whole life; PostgreSQL can end one in two ways, from 17 on in three.
pub(super) async fn outlive_timeouts(transaction: &Transaction) -> std::result::Result<(), DbErr> {
    transaction
        .execute_unprepared(
            "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0; \
             SELECT set_config('transaction_timeout', '0', true) \
             WHERE current_setting('server_version_num')::int >= 170000",
        )
        .await
        .map(|_| ())
}

async fn holder(transaction: &Transaction, key: i32) -> std::result::Result<String, DbErr> {
    let row = transaction
        .query_one_raw(query(format!(
            "SELECT format('server pid %s, application %s, client %s, for %s s', a.pid, \
             COALESCE(NULLIF(a.application_name, ''), 'unknown'), COALESCE(host(a.client_addr), 'local'), \
             EXTRACT(epoch FROM clock_timestamp() - a.xact_start)::int) AS holder \
             FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND l.classid::bigint = {CLASS} AND l.objid::bigint = {}",
            key.cast_unsigned()
        )))
        .await?;
    Ok(row
        .map(|row| row.try_get("", "holder"))
        .transpose()?
        .unwrap_or_else(|| "a run that has just ended".to_owned()))
}

impl PostgresLock {
    pub(super) async fn prove(&self) -> std::result::Result<(), DbErr> {
        self.transaction
            .execute_unprepared("SELECT 1")
            .await
            .map(|_| ())
    }

    pub(super) async fn release(self) {
        // A failure here means the connection is gone, and the lock with it.
        if let Err(error) = self.transaction.rollback().await {
            tracing::debug!(%error, "the lock's connection was gone already");
        }
    }
}
