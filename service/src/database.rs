//! The way to a database: its address without secrets, and connections that do what the command needs and no more.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::connection::Connection;
use sea_orm::{ConnectionTrait, DbErr, SqlxPostgresConnector, SqlxSqliteConnector, Statement};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tollgate_migration::Dialect;

use crate::error::{Error, Result};
use crate::retry::needs_recovery;

/// Where a database is.
#[derive(Clone)]
pub struct Location {
    target: Target,
    /// The address without its password.
    pub display: String,
}

#[derive(Clone)]
enum Target {
    Postgres(Box<PgConnectOptions>),
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
    /// Reads a `postgres://` or `sqlite:` address.
    ///
    /// # Errors
    /// [`Error::Usage`] for any other address. The message never repeats a password.
    pub fn parse(url: &str) -> Result<Self> {
        const HINT: &str = "use postgres://user@host:5432/database or sqlite://path/to/file.db";
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => {
                let parsed = url::Url::parse(url).map_err(|error| {
                    Error::usage(format!("the database URL cannot be read: {error}"), HINT)
                })?;
                if parsed.fragment().is_some() || parsed.path().contains('@') {
                    // Such a password was cut in two, and half of it would be shown as host or database.
                    return Err(Error::usage(
                        "the database URL has a # or / before its @",
                        "write special characters of a password percent-encoded: # as %23, / as %2F, @ as %40",
                    ));
                }
                let options = PgConnectOptions::from_str(url).map_err(|_| {
                    Error::usage("the database URL is not one that PostgreSQL knows", HINT)
                })?;
                let pid = std::process::id();
                Ok(Self {
                    display: redacted(parsed),
                    target: Target::Postgres(Box::new(
                        options
                            .application_name(&format!("tollgate (pid {pid})"))
                            .statement_cache_capacity(0),
                    )),
                })
            }
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
                    target: Target::Sqlite(Box::new(
                        options
                            .busy_timeout(Duration::from_secs(5))
                            .statement_cache_capacity(0),
                    )),
                })
            }
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

    /// The same PostgreSQL database, with a schema of it in the place of the usual ones.
    pub(crate) fn within(&self, schema: &str) -> Self {
        let mut there = self.clone();
        if let Target::Postgres(options) = &mut there.target {
            **options = (**options).clone().options([("search_path", schema)]);
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
    /// [`Error::Unreachable`], [`Error::NoFile`], [`Error::NotADatabase`] or [`Error::Database`].
    pub async fn connect(&self, access: Access, timeout: Duration) -> Result<Connection> {
        let opening = async {
            match &self.target {
                Target::Postgres(options) => {
                    let pool = PgPoolOptions::new()
                        .max_connections(1)
                        .idle_timeout(None)
                        .max_lifetime(None)
                        .test_before_acquire(false)
                        .acquire_timeout(timeout)
                        .connect_with((**options).clone())
                        .await?;
                    Ok::<_, sqlx::Error>(Connection::from(
                        SqlxPostgresConnector::from_sqlx_postgres_pool(pool),
                    ))
                }
                Target::Sqlite(options) => {
                    let options = match access {
                        Access::Read => {
                            (**options).clone().create_if_missing(false).read_only(true)
                        }
                        Access::Write => (**options).clone().create_if_missing(false),
                        Access::Create => (**options).clone().create_if_missing(true),
                    };
                    let pool = SqlitePoolOptions::new()
                        .max_connections(1)
                        .idle_timeout(None)
                        .max_lifetime(None)
                        .test_before_acquire(false)
                        .connect_with(options)
                        .await?;
                    Ok(Connection::from(
                        SqlxSqliteConnector::from_sqlx_sqlite_pool(pool),
                    ))
                }
            }
        };
        if self.file().is_some_and(|path| path.is_dir()) {
            return Err(Error::NotADatabase {
                place: self.display.clone(),
            });
        }
        if access != Access::Create && !self.exists() {
            return Err(Error::NoFile {
                place: self.display.clone(),
            });
        }
        let connection = match tokio::time::timeout(timeout, opening).await {
            Err(_) | Ok(Err(sqlx::Error::PoolTimedOut)) => {
                // The pool keeps trying and forgets why; one more try of our own says it.
                let reason = match &self.target {
                    Target::Postgres(options) => tokio::time::timeout(
                        Duration::from_secs(1),
                        <sqlx::PgConnection as sqlx::Connection>::connect_with(options),
                    )
                    .await
                    .ok()
                    .and_then(std::result::Result::err)
                    .map(|error| format!(" ({error})")),
                    Target::Sqlite(_) => None,
                };
                return Err(Error::Unreachable {
                    place: self.display.clone(),
                    reason: format!(
                        "no answer within {} s{}",
                        timeout.as_secs(),
                        reason.unwrap_or_default()
                    ),
                });
            }
            Ok(Err(error)) => return Err(self.explain(&error)),
            Ok(Ok(connection)) => connection,
        };
        match self.dialect() {
            Dialect::Sqlite => {
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
            }
            Dialect::Postgres if access == Access::Read => {
                // One transaction for the command's whole life: one view of the data, and nothing is left behind on a
                // server connection that a pooler hands to the gateway next.
                connection
                    .execute_unprepared("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
                    .map_err(Error::database("open a read-only transaction"))?;
            }
            Dialect::Postgres => {}
        }
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
            reason,
        }
    }

    fn explain_database(&self, error: DbErr) -> Error {
        if error.to_string().contains("file is not a database") {
            return Error::NotADatabase {
                place: self.display.clone(),
            };
        }
        Error::Database {
            doing: format!("open {}", self.display),
            source: error,
        }
    }
}

fn redacted(mut url: url::Url) -> String {
    // Neither fails on a URL with a host; where it does there is no password to hide.
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
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
    connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?
        .iter()
        .map(|row| row.try_get("", "name"))
        .collect()
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
    connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?
        .iter()
        .map(|row| row.try_get("", "name"))
        .collect()
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
    connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?
        .iter()
        .map(|row| Ok((row.try_get("", "name")?, row.try_get("", "col")?)))
        .collect()
}
