//! The one connection type of this crate, which is sea-orm's [`ConnectionTrait`].
//!
//! On PostgreSQL it is Tollgate's own: every statement stands in an explicit transaction with its settings and has no name, so
//! that it works through a pooler in transaction mode, and a row that a policy hides is an error. On SQLite, and
//! for a gateway's own pool, it is sea-orm's. Tests make the n-th statement of either fail.

pub(crate) mod query_error;
mod server;
pub(crate) mod settings;
mod watch;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, SqlxSqliteConnector, Statement, TransactionTrait,
};
use sqlx::SqlitePool;
use tollgate_migration::Dialect;

use crate::error::Error;
use crate::fault;

pub(crate) use query_error::{of, query_failed};
pub(crate) use server::{Server, ServerTransaction, Wire};
pub(crate) use settings::{Opening, Settings};
pub(crate) use watch::Watch;
pub(crate) use work::Work;

/// One connection to a database; or a gateway's own pool, where it embeds this crate.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    /// sea-orm's: SQLite, and a gateway's own pool.
    Pool(DatabaseConnection),
    /// Tollgate's own to a PostgreSQL server.
    Server(Server),
}

/// A gateway's own pool, for what it asks and writes at run time ([`crate::tracks::governance::budget`], [`crate::tracks::providers::provider_key`],
/// [`crate::tracks::providers::gateway_key`]). Statements keep their text from call to call, so that the pool's cache of
/// prepared statements serves them. Nothing is set on its connections: row security and what a pooler needs are the
/// gateway's. The runner and the routines make connections of their own.
impl TryFrom<DatabaseConnection> for Connection {
    type Error = Error;

    fn try_from(pool: DatabaseConnection) -> Result<Self, Error> {
        match pool.get_database_backend() {
            DbBackend::Postgres | DbBackend::Sqlite => Ok(Self(Kind::Pool(pool))),
            other => Err(Error::usage(
                format!("{other:?} is no database that Tollgate knows"),
                "use PostgreSQL or SQLite",
            )),
        }
    }
}

impl From<SqlitePool> for Connection {
    fn from(pool: SqlitePool) -> Self {
        Self(Kind::Pool(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)))
    }
}

impl From<Server> for Connection {
    fn from(server: Server) -> Self {
        Self(Kind::Server(server))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Connection")
            .field(&self.get_database_backend())
            .finish()
    }
}

/// A transaction on a [`Connection`]; rolled back when dropped.
pub struct Transaction(Begun);

enum Begun {
    Pool(DatabaseTransaction),
    Server(ServerTransaction),
}

impl Connection {
    /// A write transaction. On SQLite it takes the write lock at once, so that it cannot fail half-way for want of it.
    ///
    /// # Errors
    /// What the database says; under a run's lock also that the lock is lost.
    pub async fn begin(&self) -> Result<Transaction, DbErr> {
        fault::statement()?;
        match &self.0 {
            Kind::Pool(pool) => pool
                .begin_with_options(sea_orm::TransactionOptions {
                    // A server's default may be another: a snapshot that outlives a statement would hold up index builds.
                    isolation_level: (pool.get_database_backend() == DbBackend::Postgres)
                        .then_some(sea_orm::IsolationLevel::ReadCommitted),
                    sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
                    ..Default::default()
                })
                .await
                .map(|begun| Transaction(Begun::Pool(begun))),
            Kind::Server(server) => server
                .begin()
                .await
                .map(|begun| Transaction(Begun::Server(begun))),
        }
    }

    /// Runs a statement that a transaction refuses, such as a concurrent index build.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute_alone(&self, sql: &str) -> Result<(), DbErr> {
        fault::statement()?;
        match &self.0 {
            Kind::Pool(pool) => pool.execute_unprepared(sql).await.map(|_| ()),
            Kind::Server(server) => server.alone(sql).await,
        }
    }

    /// The same connection for a run under a lock of PostgreSQL's.
    pub(crate) fn under(self, work: &Arc<Work>) -> Self {
        match self.0 {
            Kind::Server(server) => Self(Kind::Server(server.under(Arc::clone(work)))),
            pool => Self(pool),
        }
    }

    /// The server's connection, where it is Tollgate's own to PostgreSQL.
    pub(crate) fn into_server(self) -> Result<Server, Self> {
        match self.0 {
            Kind::Server(server) => Ok(server),
            pool => Err(Self(pool)),
        }
    }

    /// The dialect that the database speaks.
    pub fn dialect(&self) -> Dialect {
        match self.get_database_backend() {
            DbBackend::Postgres => Dialect::Postgres,
            _ => Dialect::Sqlite,
        }
    }

    /// How long one wait for a lock may last here.
    pub(crate) fn lock_timeout(&self) -> Duration {
        match &self.0 {
            Kind::Server(server) => server.lock_timeout(),
            Kind::Pool(_) => settings::LOCK_TIMEOUT,
        }
    }

    /// The driver's own handle, for what streams: rows by the million, and `COPY`.
    pub(crate) async fn driver(&self) -> Result<Driver<'_>, DbErr> {
        match &self.0 {
            Kind::Server(server) => server.wire().await.map(Box::new).map(Driver::Postgres),
            Kind::Pool(pool) if pool.get_database_backend() == DbBackend::Sqlite => {
                Ok(Driver::Sqlite(pool.get_sqlite_connection_pool()))
            }
            Kind::Pool(_) => Err(DbErr::Custom(
                "what streams needs a connection of Tollgate's own".to_owned(),
            )),
        }
    }

    /// Ends the connection.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn close(self) -> Result<(), DbErr> {
        match self.0 {
            Kind::Pool(pool) => pool.close().await,
            Kind::Server(server) => server.close().await,
        }
    }
}

/// The driver's own handle.
pub(crate) enum Driver<'a> {
    Postgres(Box<Wire>),
    Sqlite(&'a SqlitePool),
}

impl Transaction {
    /// Makes it all so.
    ///
    /// # Errors
    /// What the database says; nothing was kept then.
    pub async fn commit(self) -> Result<(), DbErr> {
        fault::statement()?;
        match self.0 {
            Begun::Pool(begun) => begun.commit().await,
            Begun::Server(begun) => begun.commit().await,
        }
    }

    /// Makes it all so, and what a last statement does with it: in one message where the backend takes several.
    ///
    /// # Errors
    /// Those of [`Self::commit`], and what the database says to the statement.
    pub(crate) async fn commit_with(self, last: &str) -> Result<(), DbErr> {
        match self.0 {
            Begun::Pool(_) => {
                self.execute_unprepared(last).await?;
                self.commit().await
            }
            Begun::Server(begun) => {
                fault::statement()?;
                begun.commit_with(last).await
            }
        }
    }

    /// Whether [`Self::copy_in`] is to be had: on a connection of Tollgate's own to PostgreSQL.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.0, Begun::Server(_))
    }

    /// `COPY … FROM STDIN`, with lines of its text format, for as long as there are any.
    ///
    /// # Errors
    /// What the database says, and where it cannot be had. Whoever meets one gives up: the connection is out of step then.
    pub(crate) async fn copy_in(
        &self,
        copy: &str,
        lines: impl Stream<Item = String> + Unpin,
    ) -> Result<(), DbErr> {
        fault::statement()?;
        match &self.0 {
            Begun::Server(begun) => begun.copy_in(copy, lines).await,
            Begun::Pool(_) => Err(DbErr::Custom(
                "what streams needs a connection of Tollgate's own".to_owned(),
            )),
        }
    }

    /// Undoes it all.
    ///
    /// # Errors
    /// What the database says; the connection is gone then, and the transaction with it.
    pub async fn rollback(self) -> Result<(), DbErr> {
        match self.0 {
            Begun::Pool(begun) => begun.rollback().await,
            Begun::Server(begun) => begun.rollback().await,
        }
    }
}

macro_rules! delegate {
    ($type:ty, $kind:ident) => {
        #[async_trait::async_trait]
        impl ConnectionTrait for $type {
            fn get_database_backend(&self) -> DbBackend {
                match &self.0 {
                    $kind::Pool(pool) => pool.get_database_backend(),
                    $kind::Server(_) => DbBackend::Postgres,
                }
            }

            async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                fault::statement()?;
                match &self.0 {
                    $kind::Pool(pool) => pool.execute_raw(statement).await,
                    $kind::Server(server) => server.execute(&statement).await,
                }
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                fault::statement()?;
                match &self.0 {
                    $kind::Pool(pool) => pool.execute_unprepared(sql).await,
                    $kind::Server(server) => server.simple(sql).await,
                }
            }

            async fn query_one_raw(
                &self,
                statement: Statement,
            ) -> Result<Option<QueryResult>, DbErr> {
                fault::statement()?;
                match &self.0 {
                    $kind::Pool(pool) => pool.query_one_raw(statement).await,
                    $kind::Server(server) => server.one(&statement).await,
                }
            }

            async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                fault::statement()?;
                match &self.0 {
                    $kind::Pool(pool) => pool.query_all_raw(statement).await,
                    $kind::Server(server) => server.all(&statement).await,
                }
            }
        }
    };
}

delegate!(Connection, Kind);
delegate!(Transaction, Begun);
