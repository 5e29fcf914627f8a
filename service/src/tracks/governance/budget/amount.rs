//! An amount on its way out.

use std::fmt;

use sea_orm::{DbErr, QueryResult};
use serde::{Serialize, Serializer};
use serde_json::Number;
use tollgate_migration::Dialect;

/// An amount as the database holds it: every digit of PostgreSQL's `numeric`, of SQLite's `real` the shortest text that
/// reads back as the same. In JSON a number; what is none there, a text (`NaN`, `Infinity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(Result<Number, String>);

impl Amount {
    /// Nothing.
    pub fn zero() -> Self {
        Self(Ok(Number::from(0)))
    }

    /// What is stored where an amount should be, and is none.
    pub(super) fn no_number() -> Self {
        Self(Err("NaN".to_owned()))
    }

    /// Whether it is zero or less.
    pub fn is_nothing(&self) -> bool {
        self.to_string()
            .parse::<f64>()
            .is_ok_and(|amount| amount <= 0.0)
    }

    /// The expression that [`Amount::read`] reads.
    pub(super) fn expression(dialect: Dialect, amount: &str) -> String {
        match dialect {
            Dialect::Postgres => format!("CAST({amount} AS text)"),
            Dialect::Sqlite => format!("CAST({amount} AS real)"),
        }
    }

    pub(super) fn read(row: &QueryResult, column: &str, dialect: Dialect) -> Result<Self, DbErr> {
        match dialect {
            Dialect::Postgres => {
                let text: String = row.try_get("", column)?;
                Ok(Self(text.parse().map_err(|_| text)))
            }
            Dialect::Sqlite => {
                let amount: f64 = row.try_get("", column)?;
                Ok(Self(Number::from_f64(amount).ok_or_else(|| {
                    if amount.is_nan() {
                        "NaN".to_owned()
                    } else if amount > 0.0 {
                        "Infinity".to_owned()
                    } else {
                        "-Infinity".to_owned()
                    }
                })))
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(number) => write!(formatter, "{number}"),
            Err(text) => formatter.write_str(text),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(number) => number.serialize(serializer),
            Err(text) => serializer.serialize_str(text),
        }
    }
}
