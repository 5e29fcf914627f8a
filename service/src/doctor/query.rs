//! A question of the doctor: SQL with the values it speaks of bound, never written into it.

use sea_orm::{DbBackend, Statement, Value};
use tollgate_migration::Dialect;

use crate::parameters::Parameters;

/// A query that names the offending rows in a column `id`.
#[derive(Clone, Debug)]
pub struct Query {
    sql: String,
    values: Vec<Value>,
    reads_shared: bool,
}

/// Queries by the table they look in.
#[derive(Clone, Debug, Default)]
pub struct Queries(Vec<(&'static str, Query)>);

impl Queries {
    /// None: this schema cannot have the hazard.
    pub fn none() -> Self {
        Self::default()
    }

    /// One query of one table.
    pub fn on(table: &'static str, query: impl Into<Query>) -> Self {
        [(table, query)].into_iter().collect()
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Query> {
        self.0.iter().map(|(_, query)| query)
    }

    /// One more of another table.
    pub fn push(&mut self, table: &'static str, query: impl Into<Query>) {
        self.0.push((table, query.into()));
    }
}

impl<Q: Into<Query>> FromIterator<(&'static str, Q)> for Queries {
    fn from_iter<I: IntoIterator<Item = (&'static str, Q)>>(queries: I) -> Self {
        Self(
            queries
                .into_iter()
                .map(|(table, query)| (table, query.into()))
                .collect(),
        )
    }
}

impl Extend<(&'static str, Query)> for Queries {
    fn extend<I: IntoIterator<Item = (&'static str, Query)>>(&mut self, queries: I) {
        self.0.extend(queries);
    }
}

impl IntoIterator for Queries {
    type Item = (&'static str, Query);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Query {
    /// Names that are known without asking the database.
    pub(crate) fn names(dialect: Dialect, names: &[String]) -> Self {
        let mut parameters = Parameters::new(dialect);
        let arms: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "SELECT CAST({} AS text) AS id",
                    parameters.bind(name.clone())
                )
            })
            .collect();
        parameters.query(arms.join(" UNION "))
    }

    /// A query over the relation that the track's hazards share ([`crate::module::Module::shared`]): those are asked together, so
    /// that it is built once. It binds nothing.
    pub fn over_shared(sql: String) -> Self {
        Self {
            reads_shared: true,
            ..sql.into()
        }
    }

    pub(super) fn reads_shared(&self) -> bool {
        self.reads_shared
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// The statement that this query is a part of.
    pub(super) fn within(&self, backend: DbBackend, sql: String) -> Statement {
        Statement::from_sql_and_values(backend, sql, self.values.clone())
    }
}

impl Parameters {
    /// What was bound, with the query that it was bound for.
    pub(crate) fn query(self, sql: String) -> Query {
        Query {
            sql,
            values: self.into_values(),
            reads_shared: false,
        }
    }
}

impl From<String> for Query {
    fn from(sql: String) -> Self {
        Self {
            sql,
            values: Vec::new(),
            reads_shared: false,
        }
    }
}

impl From<&str> for Query {
    fn from(sql: &str) -> Self {
        sql.to_owned().into()
    }
}
