//! One connection to PostgreSQL. It works through a pooler that hands the server to somebody else between transactions:
//! every statement stands in an explicit transaction that carries its own settings, and none has a name.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use sea_orm::{DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgConnection, PgQueryResult, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor, Row};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::query_error::{Cause, QueryError, of_driver, query_failed};
use super::settings::{Opening, Settings};
use super::watch::{Backend, Watch};
use super::work::Work;

/// The wire, and what is open on it.
pub(crate) struct Link {
    wire: PgConnection,
    /// A transaction that nobody has ended yet.
    open: bool,
    /// A statement of it has failed, so that the server would answer COMMIT with a rollback and say nothing.
    failed: bool,
    backend: Backend,
}

/// A connection to PostgreSQL, shared by its clones: one transaction at a time.
#[derive(Clone)]
pub(crate) struct Server {
    link: Arc<Mutex<Link>>,
    turn: Arc<Semaphore>,
    settings: Arc<Settings>,
    /// One transaction lasts as long as the connection, and everything happens in it.
    held: bool,
    work: Option<Arc<Work>>,
}

/// A statement, and what is wanted of it.
#[derive(Clone, Copy)]
enum Ask<'a> {
    Simple(&'a str),
    Execute(&'a Statement),
    One(&'a Statement),
    All(&'a Statement),
}

enum Answer {
    Done(PgQueryResult),
    Row(Option<PgRow>),
    Rows(Vec<PgRow>),
}

fn query(statement: &Statement) -> sqlx::query::Query<'_, sqlx::Postgres, SqlxValues> {
    let values = statement
        .values
        .clone()
        .unwrap_or_else(|| sea_orm::sea_query::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values)).persistent(false)
}

fn ask<'a>(wire: &'a mut PgConnection, ask: Ask<'a>) -> BoxFuture<'a, Result<Answer, sqlx::Error>> {
    Box::pin(async move {
        match ask {
            Ask::Simple(sql) => wire
                .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
                .await
                .map(Answer::Done),
            Ask::Execute(statement) => wire.execute(query(statement)).await.map(Answer::Done),
            Ask::One(statement) => wire.fetch_optional(query(statement)).await.map(Answer::Row),
            Ask::All(statement) => wire.fetch_all(query(statement)).await.map(Answer::Rows),
        }
    })
}

impl Server {
    /// How long the server lets a statement wait for a lock.
    pub(crate) fn lock_timeout(&self) -> Duration {
        self.settings.lock_timeout
    }

    /// Opens a connection; nothing is sent on it yet.
    pub(crate) async fn connect(mut settings: Settings) -> Result<Self, sqlx::Error> {
        let wire = PgConnection::connect_with(&settings.options)
            .await
            .map_err(|error| of_driver(error, None))?;
        settings.version = wire.server_version_num().unwrap_or_default();
        Ok(Self {
            link: Arc::new(Mutex::new(Link {
                wire,
                open: false,
                failed: false,
                backend: Backend::default(),
            })),
            turn: Arc::new(Semaphore::new(1)),
            settings: Arc::new(settings),
            held: false,
            work: None,
        })
    }

    /// Whether the server replays another's log, and whether its transactions may not write.
    pub(crate) async fn role(&self) -> Result<(bool, bool), DbErr> {
        let statement = Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT pg_is_in_recovery() AS replays, current_setting('default_transaction_read_only') = 'on' AS reads",
        );
        let _turn = self.turn().await?;
        let mut link = self.link.lock().await;
        self.open(&mut link, Opening::Read).await?;
        let answer = self.inside(&mut link, Ask::One(&statement)).await;
        self.end(&mut link, "ROLLBACK").await?;
        match answer? {
            Answer::Row(Some(row)) => Ok((
                row.try_get("replays").map_err(query_failed)?,
                row.try_get("reads").map_err(query_failed)?,
            )),
            _ => Err(unexpected()),
        }
    }

    /// The same connection for a run under a lock: every transaction carries the run's keys, and proves the lock.
    pub(crate) fn under(mut self, work: Arc<Work>) -> Self {
        self.work = Some(work);
        self
    }

    /// Opens the one transaction in which everything will happen from now on.
    pub(crate) async fn hold(&mut self, opening: Opening) -> Result<(), DbErr> {
        let mut link = self.link.lock().await;
        self.open(&mut link, opening).await?;
        drop(link);
        self.held = true;
        Ok(())
    }

    /// Ends the transaction that [`Server::hold`] opened, and what it held with it.
    pub(crate) async fn release(&mut self) -> Result<(), DbErr> {
        let mut link = self.link.lock().await;
        let ended = self.end(&mut link, "ROLLBACK").await;
        drop(link);
        self.held = false;
        ended
    }

    fn watch(&self, backend: &Backend) -> Watch {
        Watch {
            settings: Arc::clone(&self.settings),
            work: self.work.clone(),
            backend: backend.clone(),
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, DbErr> {
        Arc::clone(&self.turn)
            .acquire_owned()
            .await
            .map_err(|_| DbErr::Conn(RuntimeErr::Internal("the connection is closed".to_owned())))
    }

    /// Begins. Where a run's key is not to be had, or its lock is lost, nothing else is sent.
    async fn open(&self, link: &mut Link, opening: Opening) -> Result<(), DbErr> {
        if link.open {
            // Somebody went away in the middle.
            self.end(link, "ROLLBACK").await?;
        }
        let keys = match (&self.work, opening) {
            (Some(work), Opening::Work) => work.keys(),
            _ => &[],
        };
        let sql = self.settings.opening(opening, keys);
        let watch = self.watch(&link.backend);
        link.open = true;
        link.failed = false;
        let rows = watch
            .over_beginning(
                link.wire
                    .fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.as_str()))),
            )
            .await
            .map_err(query_failed)?;
        // The search path answers a row of its own before the last.
        let row = rows.last().ok_or_else(|| {
            DbErr::Conn(RuntimeErr::Internal("BEGIN was not answered".to_owned()))
        })?;
        link.backend = Backend {
            pid: row.try_get("pid").map_err(query_failed)?,
            since: row.try_get("since").map_err(query_failed)?,
        };
        if let (Some(work), false) = (&self.work, keys.is_empty()) {
            let held: bool = row.try_get("held").map_err(query_failed)?;
            // The key before the proof: between a proof and a key another run could begin.
            let proven = if held {
                work.ensure_held().await
            } else {
                Err(QueryError::new(
                    Cause::LockLost,
                    "another run has taken the lock and holds the work key",
                ))
            };
            if let Err(lost) = proven {
                let _ = self.end(link, "ROLLBACK").await;
                return Err(lost.into());
            }
        }
        Ok(())
    }

    async fn end(&self, link: &mut Link, how: &str) -> Result<(), DbErr> {
        let failed = link.failed;
        let watch = self.watch(&link.backend);
        let ended = watch
            .over(link.wire.execute(sqlx::raw_sql(AssertSqlSafe(how))))
            .await
            .map_err(query_failed);
        link.open = ended.is_err();
        link.failed = false;
        ended?;
        if how == "COMMIT" && failed {
            return Err(DbErr::Custom(
                "a statement of the transaction had failed, so that the server rolled it back"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// A statement inside whatever is open.
    async fn inside(&self, link: &mut Link, what: Ask<'_>) -> Result<Answer, DbErr> {
        let watch = self.watch(&link.backend);
        let answer = watch.over(ask(&mut link.wire, what)).await;
        match (&answer, what) {
            (Err(_), _) => link.failed = true,
            (Ok(_), Ask::Simple(sql)) if sql.starts_with("ROLLBACK TO ") => link.failed = false,
            _ => {}
        }
        answer.map_err(query_failed)
    }

    /// A statement by itself: in the one transaction, or in one of its own.
    async fn lone(&self, what: Ask<'_>) -> Result<Answer, DbErr> {
        if self.held {
            let mut link = self.link.lock().await;
            return self.inside(&mut link, what).await;
        }
        let _turn = self.turn().await?;
        let mut link = self.link.lock().await;
        self.open(&mut link, Opening::Work).await?;
        match self.inside(&mut link, what).await {
            Ok(answer) => {
                self.end(&mut link, "COMMIT").await?;
                Ok(answer)
            }
            Err(error) => {
                // Where this fails too, the next statement finds the transaction open and says so.
                let _ = self.end(&mut link, "ROLLBACK").await;
                Err(error)
            }
        }
    }

    /// A statement that PostgreSQL refuses inside a transaction. It carries no settings: none would last through a pooler.
    pub(crate) async fn alone(&self, sql: &str) -> Result<(), DbErr> {
        let _turn = self.turn().await?;
        let mut link = self.link.lock().await;
        if link.open {
            self.end(&mut link, "ROLLBACK").await?;
        }
        let watch = self.watch(&link.backend);
        watch
            .over_alone(sql, link.wire.execute(sqlx::raw_sql(AssertSqlSafe(sql))))
            .await
            .map(|_| ())
            .map_err(query_failed)
    }

    /// A transaction.
    pub(crate) async fn begin(&self) -> Result<ServerTransaction, DbErr> {
        let turn = self.turn().await?;
        let mut link = self.link.lock().await;
        self.open(&mut link, Opening::Work).await?;
        drop(link);
        Ok(ServerTransaction {
            server: self.clone(),
            turn: Some(turn),
        })
    }

    /// The wire itself, in a transaction, for what streams.
    pub(crate) async fn wire(&self) -> Result<Wire, DbErr> {
        let turn = if self.held {
            None
        } else {
            Some(self.turn().await?)
        };
        let mut link = Arc::clone(&self.link).lock_owned().await;
        if !self.held {
            self.open(&mut link, Opening::Work).await?;
        }
        Ok(Wire {
            server: self.clone(),
            link,
            turn,
        })
    }

    pub(crate) async fn close(self) -> Result<(), DbErr> {
        // Clones keep the wire; the last of them lets it go.
        if let Ok(link) = Arc::try_unwrap(self.link) {
            let link = link.into_inner();
            link.wire.close().await.map_err(query_failed)?;
        }
        Ok(())
    }
}

/// What a statement of sea-orm's trait answers.
macro_rules! answers {
    ($type:ty, $method:ident) => {
        impl $type {
            pub(crate) async fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
                self.$method(Ask::Execute(statement)).await.and_then(done)
            }

            pub(crate) async fn simple(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.$method(Ask::Simple(sql)).await.and_then(done)
            }

            pub(crate) async fn one(
                &self,
                statement: &Statement,
            ) -> Result<Option<QueryResult>, DbErr> {
                match self.$method(Ask::One(statement)).await? {
                    Answer::Row(row) => Ok(row.map(QueryResult::from)),
                    _ => Err(unexpected()),
                }
            }

            pub(crate) async fn all(
                &self,
                statement: &Statement,
            ) -> Result<Vec<QueryResult>, DbErr> {
                match self.$method(Ask::All(statement)).await? {
                    Answer::Rows(rows) => Ok(rows.into_iter().map(QueryResult::from).collect()),
                    _ => Err(unexpected()),
                }
            }
        }
    };
}

answers!(Server, lone);
answers!(ServerTransaction, within);

fn done(answer: Answer) -> Result<ExecResult, DbErr> {
    match answer {
        Answer::Done(result) => Ok(ExecResult::from(result)),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> DbErr {
    DbErr::Custom("the statement answered something else".to_owned())
}

/// A transaction; rolled back when dropped.
pub(crate) struct ServerTransaction {
    server: Server,
    /// Taken when the transaction has ended.
    turn: Option<OwnedSemaphorePermit>,
}

impl ServerTransaction {
    async fn within(&self, what: Ask<'_>) -> Result<Answer, DbErr> {
        let mut link = self.server.link.lock().await;
        self.server.inside(&mut link, what).await
    }

    /// Streams lines into a table, as they come.
    pub(crate) async fn copy_in(
        &self,
        copy: &str,
        mut lines: impl Stream<Item = String> + Unpin,
    ) -> Result<(), DbErr> {
        let mut link = self.server.link.lock().await;
        let watch = self.server.watch(&link.backend);
        let copied = watch
            .over(async {
                let mut writing = link.wire.copy_in_raw(copy).await?;
                while let Some(lines) = lines.next().await {
                    writing.send(lines.into_bytes()).await?;
                }
                writing.finish().await
            })
            .await;
        link.failed |= copied.is_err();
        copied.map(|_| ()).map_err(query_failed)
    }

    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        self.finish("COMMIT").await
    }

    /// One message: where the statement fails, the server reads no further.
    pub(crate) async fn commit_with(self, last: &str) -> Result<(), DbErr> {
        self.finish(&format!("{last}; COMMIT")).await
    }

    pub(crate) async fn rollback(self) -> Result<(), DbErr> {
        self.finish("ROLLBACK").await
    }

    async fn finish(mut self, how: &str) -> Result<(), DbErr> {
        let mut link = self.server.link.lock().await;
        let ended = self.server.end(&mut link, how).await;
        drop(link);
        // A transaction that could not be ended is ended by whoever uses the connection next.
        self.turn.take();
        ended
    }
}

impl Drop for ServerTransaction {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let server = self.server.clone();
        // Its locks must not last until somebody uses the connection again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut link = server.link.lock().await;
                let _ = server.end(&mut link, "ROLLBACK").await;
                drop(link);
                drop(turn);
            });
        }
    }
}

/// The wire in a transaction. What is dropped before [`Wire::finish`] is rolled back by the next use.
pub(crate) struct Wire {
    server: Server,
    link: OwnedMutexGuard<Link>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Wire {
    /// sqlx's connection, and who watches over what is asked on it.
    pub(crate) fn parts(&mut self) -> (&mut PgConnection, Watch) {
        let watch = self.server.watch(&self.link.backend);
        (&mut self.link.wire, watch)
    }

    /// Commits a transaction of its own.
    pub(crate) async fn finish(mut self) -> Result<(), DbErr> {
        if self.turn.is_some() {
            let server = self.server.clone();
            server.end(&mut self.link, "COMMIT").await?;
        }
        Ok(())
    }
}
