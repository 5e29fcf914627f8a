//! What a PostgreSQL server says, in a form that tells who was in the way and repeats nothing of the server's source.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use sea_orm::{DbErr, RuntimeErr};
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;

/// A session that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// The server's process.
    pub pid: i32,
    /// What it calls itself; empty where the role may not see it.
    pub application: String,
    /// `active`, `idle in transaction`, …; empty where the role may not see it.
    pub state: String,
    /// How old its transaction is, in seconds.
    pub age: i64,
    /// Whether it is a run of Tollgate's.
    pub ours: bool,
}

impl fmt::Display for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text.to_owned()
            }
        };
        write!(
            formatter,
            "server pid {}, application {}, {}, for {} s",
            self.pid,
            or(&self.application, "unknown"),
            or(&self.state, "state unknown"),
            self.age
        )
    }
}

/// Why a statement did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The server said so.
    Server,
    /// A policy of row-level security would hide rows of a table.
    RowSecurity,
    /// The connection that holds the run's lock is gone, or its work key is somebody else's.
    LockLost,
    /// A signal, of that number, ended a wait.
    Stopped(u8),
    /// Nobody answers any more.
    Silent,
}

/// An error of a statement.
#[derive(Clone, Debug)]
pub(crate) struct QueryError {
    /// What kind it is.
    pub cause: Cause,
    /// Who was waited for, where that is known.
    pub blocker: Option<Blocker>,
    message: String,
    code: String,
    constraint: Option<String>,
    table: Option<String>,
    kind: Kind,
}

/// sqlx's kinds, which cannot be cloned.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Unique,
    ForeignKey,
    NotNull,
    Check,
    Other,
}

impl QueryError {
    /// An error that no server said.
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            blocker: None,
            message: message.into(),
            code: String::new(),
            constraint: None,
            table: None,
            kind: Kind::Other,
        }
    }

    /// Whether the server ended a statement that waited for a lock, or lasted longer than it might.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(self.code.as_str(), "55P03" | "57014")
    }

    /// The table that a policy hides rows of: the last word in quotes, in whatever language.
    pub(crate) fn hidden_table(&self) -> String {
        let quote = |c: char| matches!(c, '"' | '\u{ab}' | '\u{bb}' | '\u{201c}' | '\u{201d}');
        self.message
            .rsplit(quote)
            .map(str::trim)
            .find(|word| !word.is_empty())
            .unwrap_or_default()
            .to_owned()
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        if let Some(blocker) = &self.blocker {
            write!(formatter, " ({blocker} was in the way)")?;
        }
        Ok(())
    }
}

impl StdError for QueryError {}

impl DatabaseError for QueryError {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        (!self.code.is_empty()).then_some(Cow::Borrowed(self.code.as_str()))
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    fn kind(&self) -> ErrorKind {
        match self.kind {
            Kind::Unique => ErrorKind::UniqueViolation,
            Kind::ForeignKey => ErrorKind::ForeignKeyViolation,
            Kind::NotNull => ErrorKind::NotNullViolation,
            Kind::Check => ErrorKind::CheckViolation,
            Kind::Other => ErrorKind::Other,
        }
    }
}

/// The server's own error in our words; everything else as it is.
pub(crate) fn of_driver(error: sqlx::Error, blocker: Option<Blocker>) -> sqlx::Error {
    let sqlx::Error::Database(said) = &error else {
        return error;
    };
    let Some(said) = said.try_downcast_ref::<PgDatabaseError>() else {
        return error;
    };
    // The routine is the server's own name, and no translation of its messages changes it.
    let hidden = said.code() == "42501" && said.routine() == Some("check_enable_rls");
    let gave_up = matches!(said.code(), "55P03" | "57014");
    sqlx::Error::Database(Box::new(QueryError {
        cause: if hidden {
            Cause::RowSecurity
        } else {
            Cause::Server
        },
        blocker: blocker.filter(|_| gave_up),
        message: said.message().to_owned(),
        code: said.code().to_owned(),
        constraint: said.constraint().map(str::to_owned),
        table: said.table().map(str::to_owned),
        kind: match said.code() {
            "23505" => Kind::Unique,
            "23503" => Kind::ForeignKey,
            "23502" => Kind::NotNull,
            "23514" => Kind::Check,
            _ => Kind::Other,
        },
    }))
}

/// What is known of an error of a connection of ours.
pub(crate) fn of(error: &DbErr) -> Option<&QueryError> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))
    | DbErr::Conn(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    error.as_database_error()?.try_downcast_ref::<QueryError>()
}

impl From<QueryError> for DbErr {
    fn from(error: QueryError) -> Self {
        query_failed(error.into())
    }
}

/// sea-orm's form of a driver's error.
pub(crate) fn query_failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_table_is_found_in_any_language() {
        let refused = |message: &str| QueryError::new(Cause::RowSecurity, message);
        assert_eq!(
            refused("query would be affected by row-level security policy for table \"users\"")
                .hidden_table(),
            "users"
        );
        assert_eq!(
            refused("la requête serait affectée par la politique de la table « users »")
                .hidden_table(),
            "users"
        );
    }
}
