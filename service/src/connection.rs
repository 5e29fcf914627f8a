//! The one connection type of this crate: sea-orm's, with a place where tests make a statement fail.

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement, TransactionTrait,
};
use sqlx::{PgPool, SqlitePool};
use tollgate_migration::Dialect;

use crate::fault;

/// One connection to a database; or a gateway's own pool, where it embeds this crate.
#[derive(Clone, Debug)]
pub struct Connection(DatabaseConnection);

/// A gateway's own pool, for what it asks and writes at run time ([`crate::budget`], [`crate::provider_key`],
/// [`crate::gateway_key`]). Statements keep their text from call to call, so that the pool's cache of
/// prepared statements serves them. The runner and the routines make connections of their own.
impl From<DatabaseConnection> for Connection {
    fn from(pool: DatabaseConnection) -> Self {
        Self(pool)
    }
}

/// A transaction on a [`Connection`]; rolled back when dropped.
#[derive(Debug)]
pub struct Transaction(DatabaseTransaction);

impl Connection {
    /// A write transaction. On SQLite it takes the write lock at once, so that it cannot fail half-way for want of it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin(&self) -> Result<Transaction, DbErr> {
        fault::statement()?;
        self.0
            .begin_with_options(sea_orm::TransactionOptions {
                // A server's default may be another: a snapshot that outlives a statement would hold up index builds.
                isolation_level: (self.0.get_database_backend() == DbBackend::Postgres)
                    .then_some(sea_orm::IsolationLevel::ReadCommitted),
                sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
                ..Default::default()
            })
            .await
            .map(Transaction)
    }

    /// The dialect that the database speaks.
    pub fn dialect(&self) -> Dialect {
        match self.0.get_database_backend() {
            DbBackend::Postgres => Dialect::Postgres,
            _ => Dialect::Sqlite,
        }
    }

    /// The driver's own handle, for what streams: rows by the million, and `COPY`.
    pub(crate) fn driver(&self) -> Driver<'_> {
        match self.0.get_database_backend() {
            DbBackend::Postgres => Driver::Postgres(self.0.get_postgres_connection_pool()),
            _ => Driver::Sqlite(self.0.get_sqlite_connection_pool()),
        }
    }

    /// Ends the connection.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn close(self) -> Result<(), DbErr> {
        self.0.close().await
    }
}

/// A pool of the one connection.
pub(crate) enum Driver<'a> {
    Postgres(&'a PgPool),
    Sqlite(&'a SqlitePool),
}

impl Transaction {
    /// Makes it all so.
    ///
    /// # Errors
    /// What the database says; nothing was kept then.
    pub async fn commit(self) -> Result<(), DbErr> {
        fault::statement()?;
        self.0.commit().await
    }

    /// Undoes it all.
    ///
    /// # Errors
    /// What the database says; the connection is gone then, and the transaction with it.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.0.rollback().await
    }
}

macro_rules! delegate {
    ($type:ty) => {
        #[async_trait::async_trait]
        impl ConnectionTrait for $type {
            fn get_database_backend(&self) -> DbBackend {
                self.0.get_database_backend()
            }

            async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                fault::statement()?;
                self.0.execute_raw(statement).await
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                fault::statement()?;
                self.0.execute_unprepared(sql).await
            }

            async fn query_one_raw(
                &self,
                statement: Statement,
            ) -> Result<Option<QueryResult>, DbErr> {
                fault::statement()?;
                self.0.query_one_raw(statement).await
            }

            async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                fault::statement()?;
                self.0.query_all_raw(statement).await
            }
        }
    };
}

delegate!(Connection);
delegate!(Transaction);
