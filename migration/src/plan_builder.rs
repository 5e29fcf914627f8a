//! Builds a [`Plan`] against a [`Catalog`]: each call says what should be there afterwards, emits the statements that
//! are still missing, and writes their effect into its own copy of the catalog, so that the next call and the next
//! migration see the schema as it will be.

mod columns;
mod keys;
pub mod objects;
mod remember;
mod undo;

pub use remember::{CHANGED, create as create_list, note, remembered};

use crate::catalog::sqlite_ddl::CreateTable;
use crate::catalog::{Catalog, Check, Column, ForeignKey, Index, Table};
use crate::ddl::{CheckSpec, ColumnSpec, ForeignKeySpec, IndexSpec, TableSpec};
use crate::dialect::Dialect;
use crate::paged::{Paged, PagedStep};
use crate::plan::{Action, Backfill, Blocks, Guard, InsertWithUuids, Plan, Statement, Step, Unit};
use crate::rebuild::{index_mentions, mentions, rebuild};
use crate::schema::Difference;

/// A plan in the making.
#[derive(Debug)]
pub struct PlanBuilder {
    /// The schema as it will be after what was emitted so far.
    pub catalog: Catalog,
    plan: Plan,
    open: Vec<Step>,
}

impl PlanBuilder {
    /// Begins a plan on a database that looks like this.
    pub fn new(catalog: &Catalog) -> Self {
        Self {
            catalog: catalog.clone(),
            plan: Plan::default(),
            open: Vec::new(),
        }
    }

    /// The dialect the statements are written in.
    pub fn dialect(&self) -> Dialect {
        self.catalog.dialect
    }

    /// Ends the plan; also returns the schema as it will be.
    pub fn finish(mut self) -> (Plan, Catalog) {
        self.close();
        (self.plan, self.catalog)
    }

    /// Ends the open transaction. On SQLite a migration without backfills is one transaction, so this does nothing.
    pub fn boundary(&mut self) {
        if self.dialect() == Dialect::Postgres {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.plan
                .units
                .push(Unit::Transaction(std::mem::take(&mut self.open)));
        }
    }

    fn ddl(&mut self, sql: String, purpose: String, blocks: Blocks) {
        self.open.push(Step::Run(Statement {
            sql,
            purpose,
            blocks,
            counted: None,
            detail: false,
        }));
    }

    /// Rows that are inserted, in the open transaction.
    pub fn insert(&mut self, table: &str, sql: String, purpose: &str, blocks: Blocks) {
        self.execute(Action::Insert, table, sql, purpose, blocks);
    }

    /// Rows that are updated, in the open transaction.
    pub fn update(&mut self, table: &str, sql: String, purpose: &str, blocks: Blocks) {
        self.execute(Action::Update, table, sql, purpose, blocks);
    }

    /// Rows that are deleted, in the open transaction.
    pub fn delete(&mut self, table: &str, sql: String, purpose: &str, blocks: Blocks) {
        self.execute(Action::Delete, table, sql, purpose, blocks);
    }

    /// A statement over rows, in the open transaction.
    pub fn execute(
        &mut self,
        action: Action,
        table: &str,
        sql: String,
        purpose: &str,
        blocks: Blocks,
    ) {
        self.open.push(Step::Run(Statement {
            sql,
            purpose: purpose.to_owned(),
            blocks,
            counted: Some((table.to_owned(), action)),
            detail: false,
        }));
    }

    /// A statement over something else than rows, in the open transaction.
    pub fn statement(&mut self, sql: String, purpose: &str, blocks: Blocks) {
        self.ddl(sql, purpose.to_owned(), blocks);
    }

    /// A statement that is a part of the step before it, and shown only with its SQL.
    pub fn part(&mut self, sql: String, purpose: &str, blocks: Blocks) {
        self.open.push(Step::Run(Statement {
            sql,
            purpose: purpose.to_owned(),
            blocks,
            counted: None,
            detail: true,
        }));
    }

    /// A statement over Tollgate's own rows, which are no part of what a migration changed.
    pub fn bookkeeping(&mut self, sql: String, purpose: &str) {
        self.ddl(sql, purpose.to_owned(), Blocks::Nothing);
    }

    /// Makes nothing: it is one of the gateway's own migrations that makes it.
    pub fn leave_to_gateway(&mut self) {
        self.plan.created.gateway = true;
    }

    /// Tells Coder's ledger that the step is done, in the same transaction (`docs/upstream/coder.md` A10). It stops where the
    /// number is another one by then.
    pub fn move_ledger(&mut self, from: i64, to: i64) {
        let table = crate::ledger::SCHEMA_MIGRATIONS;
        self.guard(
            "E006",
            table,
            format!(
                "SELECT CAST(version AS text) AS id FROM {table} WHERE dirty OR version <> {from}"
            ),
        );
        self.bookkeeping(
            format!("UPDATE {table} SET version = {to} WHERE version = {from} AND NOT dirty"),
            "the gateway's ledger says so too",
        );
        self.plan.created.ledger = Some(to.to_string());
        self.plan.created.moved_from = Some(from);
    }

    /// Tells running servers of Coder's that providers have changed (`docs/upstream/coder.md` A11); delivered at the commit.
    pub fn tell_coder(&mut self) {
        self.bookkeeping(
            "SELECT pg_notify('ai_providers_changed', '')".to_owned(),
            "running servers read their providers again",
        );
    }

    /// Takes every lock the transaction will need at once, so that it either starts or backs off. SQLite's
    /// `BEGIN IMMEDIATE` has done that already.
    pub fn lock_tables(&mut self, tables: &[&str]) {
        if self.dialect() == Dialect::Postgres {
            let sql = format!(
                "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
                self.dialect().quote_all(tables)
            );
            self.ddl(
                sql,
                "nobody reads or writes these tables until the commit".to_owned(),
                Blocks::Everyone,
            );
        }
    }

    /// A question that refuses the migration when it finds something.
    pub fn guard(&mut self, code: &str, table: &str, sql: String) {
        self.open.push(Step::Guard(Guard {
            code: code.to_owned(),
            table: table.to_owned(),
            sql,
        }));
    }

    /// Inserts rows with ids of version 5, in the open transaction.
    pub fn insert_with_uuids(&mut self, insert: InsertWithUuids) {
        self.open.push(Step::InsertWithUuids(insert));
    }

    /// A batched pass over a table, outside the open transaction.
    pub fn backfill(&mut self, backfill: Backfill) {
        self.close();
        self.plan.units.push(Unit::Backfill(backfill));
    }

    /// A pass whose pages the program computes, outside the open transaction.
    pub fn paged(&mut self, step: impl PagedStep + 'static) {
        self.close();
        if let Some(table) = step.own_table() {
            // Later steps see it as they will find it.
            self.catalog.tables.entry(table.to_owned()).or_default();
        }
        self.plan.units.push(Unit::Paged(Paged::new(step)));
    }

    /// Writes down how existing tables still differ from a fresh database.
    pub fn tolerate(&mut self, differences: &[Difference]) {
        for difference in differences {
            self.plan
                .created
                .tolerated
                .insert(difference.object.clone(), difference.live.clone());
        }
    }

    /// Creates a native enum unless there is one of that name; SQLite has none.
    pub fn create_enum(&mut self, name: &str, labels: &[&str]) {
        let dialect = self.dialect();
        if dialect == Dialect::Sqlite || self.catalog.enums.contains_key(name) {
            return;
        }
        let quoted: Vec<String> = labels.iter().map(|label| dialect.text(label)).collect();
        self.ddl(
            format!(
                "CREATE TYPE {} AS ENUM ({})",
                dialect.quote(name),
                quoted.join(", ")
            ),
            format!("create type {name}"),
            Blocks::Nothing,
        );
        self.catalog.enums.insert(
            name.to_owned(),
            labels.iter().map(|&label| label.to_owned()).collect(),
        );
        self.plan.created.enums.push(name.to_owned());
    }

    /// Creates the table with its indexes unless it exists; an existing table is taken as it is.
    pub fn create_table(&mut self, spec: &TableSpec) {
        if self.catalog.has_table(&spec.name) {
            return;
        }
        let dialect = self.dialect();
        self.ddl(
            spec.sql(dialect),
            format!("create table {}", spec.name),
            Blocks::Nothing,
        );
        let mut table = Table {
            sql: Some(spec.sql(dialect)),
            primary_key: spec.key(),
            ..Table::default()
        };
        table.columns = spec
            .columns
            .iter()
            .map(|column| live_column(column, dialect))
            .collect();
        table.foreign_keys = spec
            .foreign_keys
            .iter()
            .map(|key| live_foreign_key(key, dialect))
            .collect();
        table.checks = spec.checks.iter().map(live_check).collect();
        if dialect == Dialect::Postgres {
            table.uniques = spec
                .indexes
                .iter()
                .filter(|index| index.constraint)
                .map(|index| Check {
                    name: Some(index.name.clone()),
                    definition: format!("UNIQUE ({})", index.columns.join(", ")),
                    validated: true,
                })
                .collect();
        }
        self.catalog.tables.insert(spec.name.clone(), table);
        self.plan.created.tables.push(spec.name.clone());
        for index in &spec.indexes {
            if !(index.constraint && dialect == Dialect::Postgres) {
                self.ddl(
                    index.sql(dialect, &spec.name),
                    format!("index {}", index.name),
                    Blocks::Nothing,
                );
            }
            self.remember_index(&spec.name, index);
        }
    }

    fn remember_index(&mut self, table: &str, spec: &IndexSpec) {
        let definition = spec.sql(self.dialect(), table);
        if let Some(table) = self.catalog.tables.get_mut(table) {
            table.indexes.retain(|index| index.name != spec.name);
            table.indexes.push(Index {
                name: spec.name.clone(),
                unique: spec.unique,
                columns: spec.columns.clone(),
                valid: true,
                constraint: spec.constraint && self.catalog.dialect == Dialect::Postgres,
                definition,
                predicate: spec.predicate.clone(),
            });
        }
    }

    /// Creates the index unless a valid one of that name exists; one left INVALID by a killed build is dropped first.
    /// On PostgreSQL it is built concurrently.
    pub fn create_index(&mut self, table: &str, spec: &IndexSpec) {
        let dialect = self.dialect();
        let live = self
            .catalog
            .table(table)
            .and_then(|table| table.index(&spec.name));
        match live {
            Some(index) if index.valid => return,
            Some(_) => {
                self.boundary();
                self.plan.units.push(Unit::NonTransactional(Statement {
                    sql: format!(
                        "DROP INDEX CONCURRENTLY IF EXISTS {}.{}",
                        dialect.quote(&self.catalog.schema),
                        dialect.quote(&spec.name)
                    ),
                    purpose: format!("index {} was left half-built", spec.name),
                    blocks: Blocks::Nothing,
                    counted: None,
                    detail: false,
                }));
            }
            None => {}
        }
        if dialect == Dialect::Postgres {
            self.boundary();
            self.plan.units.push(Unit::NonTransactional(Statement {
                sql: spec.sql_concurrently(&self.catalog.schema, table),
                purpose: format!("index {}, built while the gateway works", spec.name),
                blocks: Blocks::Nothing,
                counted: None,
                detail: false,
            }));
        } else {
            self.ddl(
                spec.sql(dialect, table),
                format!("index {}", spec.name),
                Blocks::Writers,
            );
        }
        self.remember_index(table, spec);
        self.plan.created.indexes.push(spec.name.clone());
    }

    fn rebuild(&mut self, table: &str, edit: impl FnOnce(&mut CreateTable)) {
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        let mut copy = format!("{table}__tollgate");
        while self.catalog.has_table(&copy) {
            copy.push('_');
        }
        // A key to a table that is gone is set right on the way.
        let mut live = live.clone();
        if let Some(mended) = self.catalog.mended(table) {
            live.sql = Some(mended);
        }
        let lost = self.catalog.lost_parents(table);
        if let Some((steps, sql)) = rebuild(table, &copy, &live, edit) {
            self.open.extend(steps.into_iter().map(Step::Run));
            self.plan.rebuilds.push(table.to_owned());
            if let Some(live) = self.catalog.tables.get_mut(table) {
                live.sql = Some(sql);
                for (missing, meant) in lost {
                    for key in &mut live.foreign_keys {
                        if key.parent == missing {
                            key.parent = meant.clone().unwrap_or_else(|| missing.clone());
                        }
                    }
                }
            }
        }
    }
}

fn live_column(spec: &ColumnSpec, dialect: Dialect) -> Column {
    Column {
        name: spec.name.clone(),
        kind: spec.kind.sql(dialect),
        not_null: spec.not_null,
        default: spec.default.clone(),
        generated: false,
    }
}

fn live_foreign_key(spec: &ForeignKeySpec, dialect: Dialect) -> ForeignKey {
    let constraint = spec.table_constraint(dialect);
    ForeignKey {
        name: Some(spec.name.clone()),
        columns: vec![spec.column.clone()],
        parent: spec.parent.clone(),
        parent_columns: vec![spec.parent_column.clone()],
        on_delete: spec.on_delete,
        validated: true,
        definition: constraint
            .find("FOREIGN KEY")
            .map_or_else(String::new, |at| constraint[at..].to_owned()),
    }
}

fn live_check(spec: &CheckSpec) -> Check {
    Check {
        name: Some(spec.name.clone()),
        definition: format!("CHECK ({})", spec.expression),
        validated: true,
    }
}
