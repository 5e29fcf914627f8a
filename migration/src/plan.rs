//! What a migration is going to do, as data: the statements, how they are grouped into transactions, and what they
//! create. `migrate up` runs a plan, `migrate plan` prints it, tests count and break it.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::dialect::Dialect;
use crate::paged::Paged;
use crate::schema::{Difference, respelt};

/// What a statement makes a running gateway wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocks {
    /// Nobody.
    Nothing,
    /// Writers of the rows it touches, while its short transaction lasts.
    Rows,
    /// Writers of a table.
    Writers,
    /// Readers and writers of a table.
    Everyone,
}

/// What is done to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are inserted.
    Insert,
    /// They are updated.
    Update,
    /// They are deleted.
    Delete,
}

impl Action {
    /// Its word in a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The statement, without a semicolon.
    pub sql: String,
    /// What it is for, as one line.
    pub purpose: String,
    /// What it makes others wait for.
    pub blocks: Blocks,
    /// The table whose rows it changes and what it does to them, where those are the migration's data and counted.
    pub counted: Option<(String, Action)>,
    /// Whether it is a part of the step before it, and shown only with its SQL.
    pub detail: bool,
}

/// A question asked under the migration's lock; any row in the answer refuses the migration before it commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The hazard's code.
    pub code: String,
    /// The table whose rows it names.
    pub table: String,
    /// A query whose first column `id` names the offending rows.
    pub sql: String,
}

impl Guard {
    /// The code of a guard that refuses nothing: what it finds makes the run begin again from the plan.
    pub const AGAIN: &str = "again";
}

/// Makes rows whose ids are UUIDs of version 5, which no SQL of either backend computes: a query names what they are
/// made for, and a statement inserts them with their ids. What the query finds is bounded by the schema it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertWithUuids {
    /// What it is for, as one line.
    pub purpose: String,
    /// The name space of the ids, so that a row gets the same one in every run and on every machine.
    pub namespace: Uuid,
    /// The table that gets the rows.
    pub table: String,
    /// A query whose column `id` names what the rows are made for, as text.
    pub find: String,
    /// The statement, with [`InsertWithUuids::IDS`] where the list of `(what it is for, id)` belongs. A repeat changes nothing.
    pub insert: String,
}

impl InsertWithUuids {
    /// Stands in [`InsertWithUuids::insert`] for the list of pairs.
    pub const IDS: &'static str = "{ids}";

    /// What rows are to be made for.
    ///
    /// # Errors
    /// Whatever the database answers; nothing is written.
    pub async fn made_for<C: ConnectionTrait>(
        &self,
        connection: &C,
        dialect: Dialect,
    ) -> Result<Vec<String>, DbErr> {
        connection
            .query_all_raw(sea_orm::Statement::from_string(
                dialect.backend(),
                self.find.clone(),
            ))
            .await?
            .iter()
            .map(|row| row.try_get("", "id"))
            .collect()
    }

    /// The statement for what the query found, its values bound.
    pub fn statement(&self, dialect: Dialect, found: &[String]) -> sea_orm::Statement {
        let mut values: Vec<sea_orm::Value> = Vec::new();
        let pairs: Vec<String> = found
            .iter()
            .map(|name| {
                let id = Uuid::new_v5(&self.namespace, name.to_lowercase().as_bytes()).to_string();
                values.extend([name.clone().into(), id.into()]);
                format!(
                    "({}, {})",
                    dialect.parameter(values.len() - 1),
                    dialect.parameter(values.len())
                )
            })
            .collect();
        sea_orm::Statement::from_sql_and_values(
            dialect.backend(),
            self.insert.replace(Self::IDS, &pairs.join(", ")),
            values,
        )
    }
}

/// One step inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Runs a statement.
    Run(Statement),
    /// Refuses when a query finds something.
    Guard(Guard),
    /// Inserts rows with ids of version 5.
    InsertWithUuids(InsertWithUuids),
}

impl Step {
    /// Its text, as it is shown and linted.
    pub fn sql(&self) -> String {
        match self {
            Self::Run(statement) => statement.sql.clone(),
            Self::Guard(guard) => guard.sql.clone(),
            Self::InsertWithUuids(insert) => insert.insert.replace(
                InsertWithUuids::IDS,
                "('00000000-0000-4000-8000-000000000000', '00000000-0000-5000-8000-000000000000')",
            ),
        }
    }
}

/// One pass of a batched backfill over the physical order of a referring table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The name its checkpoint is kept under, unique within the migration.
    pub name: String,
    /// What it is for, as one line.
    pub purpose: String,
    /// The table whose physical order is walked.
    pub table: String,
    /// The table whose rows it changes.
    pub changes: String,
    /// What it does to them.
    pub action: Action,
    /// The alias that table has in [`Backfill::sql`].
    pub alias: String,
    /// The statement, with [`Backfill::RANGE`] where the batch's range belongs. A repeat changes nothing.
    pub sql: String,
    /// A query whose single column `number` counts what the statement would still change, over the whole table.
    pub remaining: String,
    /// A query whose single column `number` says about how many rows the pass will change, asked before anything of
    /// the run has happened.
    pub estimate: String,
}

impl Backfill {
    /// Stands in [`Backfill::sql`] for the range of the batch.
    pub const RANGE: &'static str = "{range}";

    /// The statement for one range, a condition over the walked table.
    pub fn batch(&self, range: &str) -> String {
        self.sql.replace(Self::RANGE, range)
    }
}

/// A group of steps that commits at once, or cannot run in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Steps of one transaction.
    Transaction(Vec<Step>),
    /// A statement that PostgreSQL refuses inside a transaction (`CREATE INDEX CONCURRENTLY`).
    NonTransactional(Statement),
    /// Batches, each a transaction of its own.
    Backfill(Backfill),
    /// Pages that the program computes, each a transaction of its own.
    Paged(Paged),
}

/// A column that was dropped, with what is needed to bring it back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedColumn {
    /// The table it was dropped from.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its type, as the database spelt it.
    pub kind: String,
    /// Its default expression.
    pub default: Option<String>,
    /// The foreign key over it: name and clause.
    pub foreign_key: Option<(Option<String>, String)>,
    /// The indexes that went with it: name and statement.
    pub indexes: Vec<(String, String)>,
    /// The checks and unique constraints that went with it: name and clause.
    #[serde(default)]
    pub constraints: Vec<(String, String)>,
    /// SQLite: the items of the stored `CREATE TABLE` that went with it, the column's own first.
    #[serde(default)]
    pub items: Vec<String>,
}

/// What a migration really created and dropped on this database. Its `down` undoes exactly this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Created {
    /// Tables.
    pub tables: Vec<String>,
    /// Native enums.
    pub enums: Vec<String>,
    /// Columns, as `table.column`.
    pub columns: Vec<String>,
    /// Indexes, by name.
    pub indexes: Vec<String>,
    /// Foreign keys, as `table.constraint`.
    pub foreign_keys: Vec<String>,
    /// Checks, as `table.constraint`.
    pub checks: Vec<String>,
    /// Triggers, as `table.trigger`; on PostgreSQL each with a function of its name.
    pub triggers: Vec<String>,
    /// Foreign keys that were dropped, as `table.constraint`.
    pub cut_keys: Vec<String>,
    /// Columns that were dropped.
    pub dropped: Vec<DroppedColumn>,
    /// For an adopted migration: how the database differed from its golden schema then, by object, with how it was
    /// (`None` for what was missing). These are no drift afterwards.
    pub tolerated: BTreeMap<String, Option<String>>,
    /// Nothing was made, because it is the gateway's own to make.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// The newest entry of the gateway's ledger when the step was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// The number that the gateway's ledger was moved from, where a hand-over moved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<i64>,
}

impl Created {
    /// Adds what another run of the same migration created, so that a run that was killed half-way still counts.
    pub fn merge(&mut self, other: &Self) {
        fn add<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
            for item in from {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
        }
        add(&mut self.tables, &other.tables);
        add(&mut self.enums, &other.enums);
        add(&mut self.columns, &other.columns);
        add(&mut self.indexes, &other.indexes);
        add(&mut self.foreign_keys, &other.foreign_keys);
        add(&mut self.checks, &other.checks);
        add(&mut self.triggers, &other.triggers);
        add(&mut self.cut_keys, &other.cut_keys);
        add(&mut self.dropped, &other.dropped);
        self.gateway |= other.gateway;
        if other.ledger.is_some() {
            self.ledger.clone_from(&other.ledger);
        }
        if other.moved_from.is_some() {
            self.moved_from = other.moved_from;
        }
        for (object, live) in &other.tolerated {
            self.tolerated
                .entry(object.clone())
                .or_insert_with(|| live.clone());
        }
    }

    /// What it created, as the objects of a canonical schema.
    pub fn objects(&self, catalog: &Catalog) -> Vec<String> {
        let of = |kind: &str, names: &[String]| -> Vec<String> {
            names
                .iter()
                .filter_map(|name| name.split_once('.'))
                .map(|(table, name)| format!("{table} {kind} {name}"))
                .collect()
        };
        let mut objects = of("column", &self.columns);
        objects.extend(of("foreign key", &self.foreign_keys));
        objects.extend(of("check", &self.checks));
        objects.extend(of("trigger", &self.triggers));
        objects.extend(self.tables.iter().map(|table| format!("{table} table")));
        for name in &self.indexes {
            // An index that is gone has no table any more; its name is enough to find it among the differences.
            let table = catalog
                .tables
                .iter()
                .find(|(_, table)| table.index(name).is_some())
                .map_or("", |(table, _)| table);
            objects.push(format!("{table} index {name}"));
        }
        objects
    }

    /// Whether a difference was there when the database was adopted, or was made so for a reason.
    pub fn tolerates(&self, difference: &Difference) -> bool {
        self.tolerated.get(&difference.object).is_some_and(|live| {
            live.as_deref().map(respelt) == difference.live.as_deref().map(respelt)
        })
    }

    /// Whether the column was created by this migration.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.columns.contains(&format!("{table}.{column}"))
    }
}

/// Everything a migration is going to do on one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What runs, in order.
    pub units: Vec<Unit>,
    /// What it creates and drops.
    pub created: Created,
    /// SQLite: tables that are rebuilt. Foreign keys must be off around the transaction and checked before it commits.
    pub rebuilds: Vec<String>,
}

impl Plan {
    /// Every statement, in order; a backfill stands with its whole table as the range.
    pub fn statements(&self) -> Vec<String> {
        let mut statements = Vec::new();
        for unit in &self.units {
            match unit {
                Unit::Transaction(steps) => {
                    statements.extend(steps.iter().map(Step::sql));
                }
                Unit::NonTransactional(statement) => statements.push(statement.sql.clone()),
                Unit::Backfill(backfill) => statements.push(backfill.batch("1 = 1")),
                Unit::Paged(step) => statements.extend(step.statements()),
            }
        }
        statements
    }
}
