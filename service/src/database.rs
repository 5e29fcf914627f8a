//! The way to a database: its address without secrets, and connections that do what the command needs and no more.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tollgate_migration::Dialect;

use crate::address::{Address, Host, Target as Role, is_conninfo};
pub(crate) use crate::connection::settings::LOCK_TIMEOUT;
use crate::connection::{Connection, Opening, Server, Settings};
use crate::error::{Error, Result};
use crate::file;
use crate::rows;
use crate::shutdown::ShutdownSignal;
use crate::sqlstate::needs_recovery;

/// Where a database is.
#[derive(Clone)]
pub struct Location {
    target: Target,
    /// The address without its password.
    pub display: String,
    /// How long a statement waits for somebody else's lock on a table or row.
    pub lock_timeout: Duration,
    /// What ends a wait for the database: to connect, and for somebody else's lock.
    pub stop: ShutdownSignal,
}

#[derive(Clone)]
enum Target {
    Postgres(Box<Address>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// What a command wants to do with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look only. SQLite files are opened read-only, once what a killed writer left is undone; on PostgreSQL everything
    /// happens in one read-only transaction.
    Read,
    /// Change what exists.
    Write,
    /// Change it, creating a SQLite file that does not exist.
    Create,
}

impl std::fmt::Debug for Location {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.display)
    }
}

impl Location {
    /// Reads a `postgres://` or `sqlite:` address, or libpq's `host=… dbname=…`.
    ///
    /// # Errors
    /// [`Error::Usage`] for any other address. The message never repeats a password.
    pub fn parse(url: &str) -> Result<Self> {
        const HINT: &str = "use postgres://user@host:5432/database or sqlite://path/to/file.db";
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => Self::postgres(url),
            "sqlite" => {
                if url.contains(":memory:") || url.contains("mode=memory") {
                    return Err(Error::usage(
                        "a database in memory is gone when the command ends",
                        HINT,
                    ));
                }
                let options = SqliteConnectOptions::from_str(url).map_err(|error| {
                    Error::usage(format!("the database URL cannot be read: {error}"), HINT)
                })?;
                if options.get_filename().as_os_str().is_empty() {
                    return Err(Error::usage("the database URL names no file", HINT));
                }
                Ok(Self {
                    display: format!("sqlite://{}", options.get_filename().display()),
                    target: Target::Sqlite(Box::new(options.statement_cache_capacity(0))),
                    lock_timeout: LOCK_TIMEOUT,
                    stop: ShutdownSignal::default(),
                })
            }
            _ if is_conninfo(url) => Self::postgres(url),
            other => Err(Error::usage(
                if url.contains("://") {
                    format!("{other}:// is no database that Tollgate knows")
                } else {
                    "the database URL has no scheme that Tollgate knows".to_owned()
                },
                HINT,
            )),
        }
    }

    fn postgres(text: &str) -> Result<Self> {
        let address = Address::parse(text)?;
        Ok(Self {
            display: address.display.clone(),
            target: Target::Postgres(Box::new(address)),
            lock_timeout: LOCK_TIMEOUT,
            stop: ShutdownSignal::default(),
        })
    }

    /// The database that a pool of sea-orm's is of, for connections of Tollgate's own.
    ///
    /// # Errors
    /// [`Error::Usage`] for a database in memory, which has no other connection, and for one of another product.
    pub fn of(pool: &DatabaseConnection) -> Result<Self> {
        let target = match pool.get_database_backend() {
            DbBackend::Postgres => {
                let options = pool.get_postgres_connection_pool().connect_options();
                Target::Postgres(Box::new(Address::of_pool(&options)))
            }
            DbBackend::Sqlite => {
                let options = pool.get_sqlite_connection_pool().connect_options();
                let name = options.get_filename();
                // What the driver calls one that has no file.
                let text = name.to_string_lossy();
                if text.is_empty()
                    || text.contains(":memory:")
                    || text.starts_with("file:sqlx-in-memory-")
                {
                    return Err(Error::usage(
                        "a database in memory has one connection, and the runner needs its own",
                        "use a file",
                    ));
                }
                Target::Sqlite(Box::new(
                    options.as_ref().clone().statement_cache_capacity(0),
                ))
            }
            other => {
                return Err(Error::usage(
                    format!("{other:?} is no database that Tollgate knows"),
                    "use PostgreSQL or SQLite",
                ));
            }
        };
        Ok(Self {
            display: match &target {
                Target::Postgres(address) => address.display.clone(),
                Target::Sqlite(options) => {
                    format!("sqlite://{}", options.get_filename().display())
                }
            },
            target,
            lock_timeout: LOCK_TIMEOUT,
            stop: ShutdownSignal::default(),
        })
    }

    /// The same PostgreSQL database, with its schemas in this order.
    pub(crate) fn on_path(mut self, path: String) -> Self {
        if let Target::Postgres(address) = &mut self.target {
            address.search_path = Some(path);
        }
        self
    }

    /// The same PostgreSQL database, with a schema of it in the place of the usual ones.
    pub(crate) fn within(&self, schema: &str) -> Self {
        let mut there = self.clone();
        if let Target::Postgres(address) = &mut there.target {
            address.search_path = Some(Dialect::Postgres.quote(schema));
        }
        there
    }

    /// The dialect spoken there.
    pub fn dialect(&self) -> Dialect {
        match self.target {
            Target::Postgres(_) => Dialect::Postgres,
            Target::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// The SQLite file.
    pub fn file(&self) -> Option<PathBuf> {
        match &self.target {
            Target::Sqlite(options) => Some(options.get_filename().to_path_buf()),
            Target::Postgres(_) => None,
        }
    }

    /// Whether there is a file; always true where a server answers.
    pub fn exists(&self) -> bool {
        self.file().is_none_or(|path| path.exists())
    }

    /// Opens one connection.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NoFile`], [`Error::NotADatabase`], [`Error::Database`] or [`Error::Stopped`].
    pub async fn connect(&self, access: Access, timeout: Duration) -> Result<Connection> {
        tokio::select! {
            connected = self.connected(access, timeout) => connected,
            signal = self.stop.requested() => Err(Error::Stopped { signal }),
        }
    }

    async fn connected(&self, access: Access, timeout: Duration) -> Result<Connection> {
        match &self.target {
            Target::Postgres(address) => {
                let mut server = self.reach(address, timeout).await?;
                if access == Access::Read {
                    // One transaction for the command's whole life: one view of the data, and nothing is left behind on
                    // a server connection that a pooler hands to the gateway next.
                    crate::fault::statement()
                        .map_err(Error::database("open a read-only transaction"))?;
                    server
                        .hold(Opening::Read)
                        .await
                        .map_err(Error::database("open a read-only transaction"))?;
                }
                Ok(Connection::from(server))
            }
            Target::Sqlite(options) => self.open(options, access, timeout).await,
        }
    }

    /// Tries the hosts in order, as often as the time allows where a server is there and has no place.
    async fn reach(&self, address: &Address, timeout: Duration) -> Result<Server> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(50);
        loop {
            let mut reasons = Vec::new();
            let mut again = false;
            // A second round takes any, where a standby was only preferred.
            let rounds: &[Role] = match address.target {
                Role::PreferStandby => &[Role::Standby, Role::Any],
                _ => std::slice::from_ref(&address.target),
            };
            for &role in rounds {
                for host in &address.hosts {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let patience = address.connect_timeout.unwrap_or(left).min(left);
                    match self.try_host(address, host, role, patience).await {
                        Ok(server) => return Ok(server),
                        Err((reason, transient)) => {
                            again |= transient;
                            if address.hosts.len() > 1 {
                                reasons.push(format!("{}: {reason}", host.place));
                            } else {
                                reasons.push(reason);
                            }
                        }
                    }
                }
            }
            if !again || Instant::now() + pause > deadline {
                reasons.dedup();
                return Err(Error::Unreachable {
                    place: self.display.clone(),
                    reason: reasons.join("; "),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// One try; where it fails, why, and whether the next may succeed.
    async fn try_host(
        &self,
        address: &Address,
        host: &Host,
        role: Role,
        patience: Duration,
    ) -> std::result::Result<Server, (String, bool)> {
        let settings = Settings {
            options: host.options.clone(),
            search_path: address.search_path.clone(),
            lock_timeout: self.lock_timeout,
            version: 0,
            stop: self.stop.clone(),
        };
        let opening = async {
            let server = Server::connect(settings).await.map_err(|error| {
                let transient = error
                    .as_database_error()
                    .and_then(|said| said.code())
                    // Too many connections, and a server that starts.
                    .is_some_and(|code| matches!(code.as_ref(), "53300" | "57P03"))
                    || matches!(&error, sqlx::Error::Io(error)
                        if error.kind() == std::io::ErrorKind::ConnectionRefused);
                (error.to_string(), transient)
            })?;
            if role != Role::Any {
                let (in_recovery, read_only) = server
                    .role()
                    .await
                    .map_err(|error| (error.to_string(), false))?;
                if !role.accepts(in_recovery, read_only) {
                    return Err((format!("the server is not {}", role.word()), false));
                }
            }
            Ok(server)
        };
        match tokio::time::timeout(patience, opening).await {
            Ok(opened) => opened,
            Err(_) => Err((
                format!("no answer within {} s", patience.as_secs_f64().ceil()),
                false,
            )),
        }
    }

    async fn open(
        &self,
        options: &SqliteConnectOptions,
        access: Access,
        timeout: Duration,
    ) -> Result<Connection> {
        let path = options.get_filename();
        file::check_kind(path, &self.display)?;
        if access != Access::Create && !path.exists() {
            return Err(Error::NoFile {
                place: self.display.clone(),
            });
        }
        let options = options.clone().busy_timeout(self.lock_timeout);
        let options = match access {
            Access::Read => file::to_read(options.create_if_missing(false).read_only(true)),
            Access::Write => options.create_if_missing(false),
            Access::Create => options.create_if_missing(true),
        };
        let options = file::with_temporary_storage(options);
        let opening = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options);
        let connection = match tokio::time::timeout(timeout, opening).await {
            Err(_) | Ok(Err(sqlx::Error::PoolTimedOut)) => {
                return Err(Error::Unreachable {
                    place: self.display.clone(),
                    reason: format!("no answer within {} s", timeout.as_secs()),
                });
            }
            Ok(Err(error)) => return Err(self.explain(&error)),
            Ok(Ok(pool)) => Connection::from(pool),
        };
        // The first page is read only now; a file that is no database shows here.
        let probe = || {
            connection.query_one_raw(Statement::from_string(
                Dialect::Sqlite.backend(),
                "SELECT count(*) FROM sqlite_schema",
            ))
        };
        let mut probed = probe().await;
        if access == Access::Read && probed.as_ref().is_err_and(needs_recovery) {
            self.recover(timeout).await?;
            probed = probe().await;
        }
        probed.map_err(|error| self.explain_database(error))?;
        Ok(connection)
    }

    /// Lets SQLite undo what a writer left half-written that was killed. It does so by itself for whoever may write; what is
    /// committed stays as it is.
    async fn recover(&self, timeout: Duration) -> Result<()> {
        let writer = Box::pin(self.connect(Access::Write, timeout))
            .await
            .map_err(|error| match error {
                Error::Database { source, .. } if needs_recovery(&source) => Error::ReadOnly {
                    place: self.display.clone(),
                    reason: format!(
                        "a writer was killed, and what it left has to be undone first: {source}"
                    ),
                },
                other => other,
            })?;
        writer
            .close()
            .await
            .map_err(Error::database("undo what a killed writer left"))
    }

    fn explain(&self, error: &sqlx::Error) -> Error {
        let reason = error.to_string();
        if reason.contains("file is not a database") {
            return Error::NotADatabase {
                place: self.display.clone(),
            };
        }
        Error::Unreachable {
            place: self.display.clone(),
            reason: match self.file() {
                Some(path) => file::advice(&path, reason),
                None => reason,
            },
        }
    }

    fn explain_database(&self, error: DbErr) -> Error {
        let text = error.to_string();
        if text.contains("file is not a database") {
            return Error::NotADatabase {
                place: self.display.clone(),
            };
        }
        if ["unable to open", "disk I/O error", "readonly database"]
            .iter()
            .any(|said| text.contains(said))
        {
            return Error::Unreachable {
                place: self.display.clone(),
                reason: match self.file() {
                    Some(path) => file::advice(&path, text),
                    None => text,
                },
            };
        }
        Error::database(format!("open {}", self.display))(error)
    }
}

/// The path in the form that every process sees the same.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Which of the tables exist, in one statement.
pub(crate) async fn existing<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    names: &[String],
) -> std::result::Result<Vec<String>, DbErr> {
    let list: Vec<String> = names.iter().map(|name| dialect.text(name)).collect();
    let list = list.join(", ");
    let sql = match dialect {
        Dialect::Postgres => format!(
            "SELECT relname::text AS name FROM pg_class WHERE relnamespace = quote_ident(current_schema())::regnamespace \
             AND relkind IN ('r','p') AND relname IN ({list})"
        ),
        Dialect::Sqlite => {
            format!("SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ({list})")
        }
    };
    rows::column(connection, Statement::from_string(dialect.backend(), sql)).await
}

/// The columns of a table, in one statement.
pub(crate) async fn columns<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    table: &str,
) -> std::result::Result<Vec<String>, DbErr> {
    let table = dialect.text(table);
    let sql = match dialect {
        Dialect::Postgres => format!(
            "SELECT a.attname::text AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relkind IN ('r','p') AND c.relname = {table} \
             AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        Dialect::Sqlite => format!("SELECT name FROM pragma_table_info({table})"),
    };
    rows::column(connection, Statement::from_string(dialect.backend(), sql)).await
}

/// The columns of several tables, in one statement; a table that does not exist has none.
pub(crate) async fn columns_of<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    tables: &[&str],
) -> std::result::Result<std::collections::BTreeSet<(String, String)>, DbErr> {
    let sql = match dialect {
        Dialect::Postgres => {
            let list: Vec<String> = tables.iter().map(|table| dialect.text(table)).collect();
            format!(
                "SELECT c.relname::text AS name, a.attname::text AS col FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = quote_ident(current_schema())::regnamespace \
                 AND c.relkind IN ('r','p') AND c.relname IN ({}) AND a.attnum > 0 AND NOT a.attisdropped",
                list.join(", ")
            )
        }
        Dialect::Sqlite => tables
            .iter()
            .map(|table| {
                let table = dialect.text(table);
                format!("SELECT {table} AS name, name AS col FROM pragma_table_info({table})")
            })
            .collect::<Vec<_>>()
            .join(" UNION ALL "),
    };
    let found: Vec<TableColumn> =
        rows::all(connection, Statement::from_string(dialect.backend(), sql)).await?;
    Ok(found.into_iter().map(|row| (row.name, row.col)).collect())
}

/// A table, and a column of it.
#[derive(FromQueryResult)]
struct TableColumn {
    name: String,
    col: String,
}

/// The dialect that a connection, or a caller's transaction, speaks.
pub(crate) fn dialect_of<C: ConnectionTrait>(
    connection: &C,
) -> std::result::Result<Dialect, DbErr> {
    Dialect::try_from(connection.get_database_backend())
        .map_err(|error| DbErr::Custom(error.to_string()))
}
