//! Values of a statement that is put together piece by piece: each gets its placeholder where it stands.

use sea_orm::{Statement, Value};
use tollgate_migration::Dialect;

/// The values so far, in the order of their placeholders.
#[derive(Debug)]
pub(crate) struct Parameters {
    dialect: Dialect,
    values: Vec<Value>,
}

impl Parameters {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            values: Vec::new(),
        }
    }

    /// Binds a value; returns its placeholder.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        self.dialect.parameter(self.values.len())
    }

    /// Binds several, for a list in parentheses; `NULL`, which equals nothing, where there are none.
    pub(crate) fn list<V: Into<Value> + Clone>(&mut self, values: &[V]) -> String {
        if values.is_empty() {
            return "NULL".to_owned();
        }
        let places: Vec<String> = values
            .iter()
            .map(|value| self.bind(value.clone()))
            .collect();
        places.join(", ")
    }

    /// What was bound, in the order of the placeholders.
    pub(crate) fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// The statement with what was bound.
    pub(crate) fn statement(self, sql: String) -> Statement {
        Statement::from_sql_and_values(self.dialect.backend(), sql, self.values)
    }
}
