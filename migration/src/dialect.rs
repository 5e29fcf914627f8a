//! The one home of what differs between PostgreSQL and SQLite in the text of a statement.

use sea_orm::DbBackend;

/// The SQL dialect a statement is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 14 and later.
    Postgres,
    /// SQLite 3.35 and later (`DROP COLUMN`, `RETURNING`).
    Sqlite,
}

impl Dialect {
    /// Quotes an identifier. SQLite gets backticks because the gateway's own migrator finds its constraints by
    /// searching the stored DDL for them in that spelling.
    pub fn quote(self, identifier: &str) -> String {
        match self {
            Self::Postgres => format!("\"{}\"", identifier.replace('"', "\"\"")),
            Self::Sqlite => format!("`{}`", identifier.replace('`', "``")),
        }
    }

    /// Quotes a text literal. One with a backslash is written so that it means the same under every setting of
    /// `standard_conforming_strings`.
    pub fn text(self, value: &str) -> String {
        let quoted = value.replace('\'', "''");
        if self == Self::Postgres && quoted.contains('\\') {
            format!("E'{}'", quoted.replace('\\', "\\\\"))
        } else {
            format!("'{quoted}'")
        }
    }

    /// Quotes several identifiers, separated by commas.
    pub fn quote_all<S: AsRef<str>>(self, identifiers: &[S]) -> String {
        let quoted: Vec<String> = identifiers
            .iter()
            .map(|identifier| self.quote(identifier.as_ref()))
            .collect();
        quoted.join(", ")
    }

    /// The condition that a boolean column holds true. SQLite's upstream writes 0 and 1 into `numeric` columns, and a
    /// NULL flag is false on both.
    pub fn is_true(self, column: &str) -> String {
        match self {
            Self::Postgres => format!("{column} IS TRUE"),
            // A `numeric` column keeps what is no number as text, and hands have written 'false' into it.
            Self::Sqlite => {
                format!("lower(CAST(COALESCE({column}, 0) AS text)) IN ('1', '1.0', 'true', 't')")
            }
        }
    }

    /// The literal true.
    pub fn true_literal(self) -> &'static str {
        match self {
            Self::Postgres => "true",
            Self::Sqlite => "1",
        }
    }

    /// The literal false.
    pub fn false_literal(self) -> &'static str {
        match self {
            Self::Postgres => "false",
            Self::Sqlite => "0",
        }
    }

    /// The operator by which two values differ, of which each may be NULL.
    pub fn is_distinct_from(self) -> &'static str {
        match self {
            Self::Postgres => "IS DISTINCT FROM",
            Self::Sqlite => "IS NOT",
        }
    }

    /// The database's own clock, as it is stored in a column of times: on SQLite text in UTC to the millisecond.
    pub fn now(self) -> &'static str {
        match self {
            Self::Postgres => "now()",
            Self::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now') || '+00:00'",
        }
    }

    /// The n-th bind parameter, counted from one.
    pub fn parameter(self, position: usize) -> String {
        match self {
            Self::Postgres => format!("${position}"),
            Self::Sqlite => format!("?{position}"),
        }
    }

    /// sea-orm's name of the backend.
    pub fn backend(self) -> DbBackend {
        match self {
            Self::Postgres => DbBackend::Postgres,
            Self::Sqlite => DbBackend::Sqlite,
        }
    }

    /// The name used in file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A database that Tollgate has no dialect for.
#[derive(Debug, thiserror::Error)]
#[error("Tollgate works on PostgreSQL and SQLite, not on {0:?}")]
pub struct UnknownBackend(pub DbBackend);

impl TryFrom<DbBackend> for Dialect {
    type Error = UnknownBackend;

    fn try_from(backend: DbBackend) -> Result<Self, UnknownBackend> {
        match backend {
            DbBackend::Postgres => Ok(Self::Postgres),
            DbBackend::Sqlite => Ok(Self::Sqlite),
            other => Err(UnknownBackend(other)),
        }
    }
}
