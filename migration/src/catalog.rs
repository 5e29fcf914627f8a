//! What the database really looks like: tables, columns, constraints, indexes, triggers and views, read from the
//! catalog of either backend into one shape.
//!
//! Migrations are functions of a [`Catalog`]: they read it, then emit their statements, and never read back what they
//! have just written. Real databases have been through upgrades, prereleases and hand edits, so nothing is assumed.

mod postgres;
mod sqlite;
pub mod sqlite_ddl;

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr};

use crate::ddl::OnDelete;
use crate::dialect::Dialect;

/// A column of a live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as the database spells it (`character varying(255)`, `datetime`).
    pub kind: String,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// The default expression, as the database spells it.
    pub default: Option<String>,
    /// Whether its value is computed and cannot be written.
    pub generated: bool,
}

/// A foreign key of a live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The constraint's name; SQLite allows keys without one.
    pub name: Option<String>,
    /// The referring columns.
    pub columns: Vec<String>,
    /// The table referred to.
    pub parent: String,
    /// The columns referred to, empty where SQLite leaves them to the parent's primary key.
    pub parent_columns: Vec<String>,
    /// What a delete of the parent row does.
    pub on_delete: OnDelete,
    /// False while PostgreSQL has not checked the existing rows (`NOT VALID`).
    pub validated: bool,
    /// The clause that recreates it (`FOREIGN KEY (…) REFERENCES …`).
    pub definition: String,
}

/// A check of a live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The constraint's name; SQLite allows checks without one.
    pub name: Option<String>,
    /// The clause that recreates it (`CHECK (…)`).
    pub definition: String,
    /// False while PostgreSQL has not checked the existing rows (`NOT VALID`).
    pub validated: bool,
}

/// An index of a live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Whether equal values are refused.
    pub unique: bool,
    /// The indexed columns in order; an expression stands as an empty name.
    pub columns: Vec<String>,
    /// False when a concurrent build failed or was killed (PostgreSQL).
    pub valid: bool,
    /// True when a primary key or unique constraint owns it.
    pub constraint: bool,
    /// The statement that recreates it; empty for SQLite's automatic indexes.
    pub definition: String,
    /// The condition of a partial index.
    pub predicate: Option<String>,
}

/// A trigger of a live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// The statement that recreates it.
    pub definition: String,
}

/// A table of the live schema.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Table {
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in order.
    pub primary_key: Vec<String>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Its checks.
    pub checks: Vec<Check>,
    /// Its unique constraints (PostgreSQL; SQLite keeps them as indexes).
    pub uniques: Vec<Check>,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// Its triggers.
    pub triggers: Vec<Trigger>,
    /// The stored `CREATE TABLE` statement (SQLite).
    pub sql: Option<String>,
    /// The planner's estimate of its rows; -1 where nobody has counted (PostgreSQL), 0 on SQLite.
    pub estimated_rows: i64,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The index of that name.
    pub fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// The foreign keys over exactly that column.
    pub fn foreign_keys_on<'a>(
        &'a self,
        column: &'a str,
    ) -> impl Iterator<Item = &'a ForeignKey> + 'a {
        self.foreign_keys
            .iter()
            .filter(move |key| key.columns.len() == 1 && key.columns[0] == column)
    }

    /// The check of that name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks
            .iter()
            .find(|check| check.name.as_deref() == Some(name))
    }
}

/// A view, rule or foreign trigger that reads a table of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// `view`, `materialized view`, `rule` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table it reads.
    pub table: String,
    /// The column it reads; on SQLite also empty, once for the table itself.
    pub column: String,
}

/// The live schema of one database, or of one schema of it.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The backend it was read from.
    pub dialect: Dialect,
    /// The schema that unqualified names resolve to.
    pub schema: String,
    /// Every ordinary table, by name.
    pub tables: BTreeMap<String, Table>,
    /// Native enums with their labels (PostgreSQL).
    pub enums: BTreeMap<String, Vec<String>>,
    /// Views, rules and triggers by the columns they read.
    pub dependents: Vec<Dependent>,
    /// Relations with a name of Tollgate's own (`tollgate_…`) that are no ordinary tables.
    pub others: std::collections::BTreeSet<String>,
    /// SQLite: whether there is any view or trigger. `DROP COLUMN` looks at all of them, and fails for a broken one
    /// that has nothing to do with the column.
    pub has_views_or_triggers: bool,
}

impl Catalog {
    /// Reads the live schema. Issues a fixed number of statements on PostgreSQL and a fixed number on SQLite, however
    /// many tables there are.
    ///
    /// # Errors
    /// Whatever the database answers; nothing is written.
    pub async fn read<C: ConnectionTrait>(connection: &C) -> Result<Self, DbErr> {
        let dialect = Dialect::try_from(connection.get_database_backend())
            .map_err(|error| DbErr::Custom(error.to_string()))?;
        match dialect {
            Dialect::Postgres => postgres::read(connection).await,
            Dialect::Sqlite => sqlite::read(connection).await,
        }
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// Whether the table exists.
    pub fn has_table(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }

    /// The tables that foreign keys of a table name and that do not exist, each with the one that is probably meant: a rebuild by
    /// rename leaves keys to the name that its copy had (`governance_virtual_keys__temp`).
    pub fn lost_parents(&self, table: &str) -> Vec<(String, Option<String>)> {
        let mut lost: Vec<String> = self
            .table(table)
            .into_iter()
            .flat_map(|table| &table.foreign_keys)
            .map(|key| key.parent.clone())
            .filter(|parent| !self.has_table(parent))
            .collect();
        lost.sort();
        lost.dedup();
        lost.into_iter()
            .map(|missing| {
                let meant = self
                    .tables
                    .keys()
                    .filter(|name| name.len() > 3)
                    .filter(|name| {
                        missing.starts_with(name.as_str()) || missing.ends_with(name.as_str())
                    })
                    .max_by_key(|name| name.len())
                    .cloned();
                (missing, meant)
            })
            .collect()
    }

    /// The stored text of a table with its lost parents named as they are (SQLite); none where nothing is lost that could be
    /// found.
    pub fn mended(&self, table: &str) -> Option<String> {
        let mut sql = self.table(table)?.sql.clone()?;
        let mut mended = false;
        for (missing, meant) in self.lost_parents(table) {
            if let Some(meant) = meant
                && let Some(text) = sqlite_ddl::renamed_parent(&sql, &missing, &meant)
            {
                sql = text;
                mended = true;
            }
        }
        mended.then_some(sql)
    }

    /// Whether something that is no ordinary table has the name, one of Tollgate's own.
    pub fn is_other_relation(&self, name: &str) -> bool {
        self.others.contains(name)
    }

    /// Whether the table exists and has the column.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.column(table, column).is_some()
    }

    /// The column of the table.
    pub fn column(&self, table: &str, column: &str) -> Option<&Column> {
        self.table(table)?.column(column)
    }
}
