//! Builds a [`Plan`] against a [`Catalog`]: each call says what should be there afterwards, emits the statements that
//! are still missing, and writes their effect into its own copy of the catalog, so that the next call and the next
//! migration see the schema as it will be.

use crate::catalog::sqlite_ddl::CreateTable;
use crate::catalog::{Catalog, Check, Column, ForeignKey, Index, Table};
use crate::ddl::{CheckSpec, ColumnSpec, ForeignKeySpec, IndexSpec, TableSpec, Type};
use crate::dialect::Dialect;
use crate::plan::{
    Backfill, Blocks, Created, DroppedColumn, Guard, Plan, Split, Statement, Step, Unit,
};
use crate::rebuild::rebuild;

/// A plan in the making.
#[derive(Debug)]
pub struct Script {
    /// The schema as it will be after what was emitted so far.
    pub catalog: Catalog,
    plan: Plan,
    open: Vec<Step>,
}

impl Script {
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

    /// What the plan creates so far.
    pub fn created(&self) -> &Created {
        &self.plan.created
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

    /// A statement over rows, in the open transaction.
    pub fn execute(&mut self, table: &str, sql: String, purpose: &str, blocks: Blocks) {
        self.open.push(Step::Run(Statement {
            sql,
            purpose: purpose.to_owned(),
            blocks,
            counted: Some(table.to_owned()),
            detail: false,
        }));
    }

    /// Takes every lock the transaction will need at once, so that it either starts or gives way. SQLite's
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

    /// A batched pass over a table, outside the open transaction.
    pub fn backfill(&mut self, backfill: Backfill) {
        self.close();
        self.plan.units.push(Unit::Backfill(backfill));
    }

    /// Copies of shared budgets, outside the open transaction.
    pub fn split(&mut self, split: Split) {
        self.close();
        // Later steps see the list of copies as they will find it.
        self.catalog
            .tables
            .entry(Split::TABLE.to_owned())
            .or_default();
        self.plan.units.push(Unit::Split(split));
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

    /// Drops the checks that `unwanted` picks, and makes sure of another one, with one rebuild on SQLite.
    pub fn replace_checks(
        &mut self,
        table: &str,
        spec: &CheckSpec,
        unwanted: impl Fn(&Check) -> bool,
    ) {
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        let gone: Vec<Check> = live
            .checks
            .iter()
            .filter(|check| unwanted(check))
            .cloned()
            .collect();
        let dialect = self.dialect();
        match dialect {
            Dialect::Postgres => {
                for name in gone.iter().filter_map(|check| check.name.as_ref()) {
                    self.drop_constraint(table, name);
                }
            }
            Dialect::Sqlite => self.rebuild(table, |create| {
                for check in &gone {
                    create.cut_check(&check.definition);
                }
                create.add_constraint(&spec.constraint(dialect));
            }),
        }
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.checks.retain(|check| !gone.contains(check));
            if dialect == Dialect::Sqlite {
                live.checks.push(live_check(spec));
                self.plan
                    .created
                    .checks
                    .push(format!("{table}.{}", spec.name));
            }
        }
        self.add_check(table, spec);
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
        self.catalog.tables.insert(spec.name.clone(), table);
        self.plan.created.tables.push(spec.name.clone());
        for index in &spec.indexes {
            self.ddl(
                index.sql(dialect, &spec.name, false),
                format!("index {}", index.name),
                Blocks::Nothing,
            );
            self.remember_index(&spec.name, index);
        }
    }

    /// Adds the column unless the table has it. SQLite can add a foreign key and a check only together with the
    /// column, so they are said here; PostgreSQL gets them later, validated online.
    pub fn add_column(
        &mut self,
        table: &str,
        column: &ColumnSpec,
        foreign_key: Option<&ForeignKeySpec>,
        check: Option<&CheckSpec>,
    ) {
        if self.catalog.has_column(table, &column.name) {
            return;
        }
        let dialect = self.dialect();
        let mut definition = column.sql(dialect);
        let inline = dialect == Dialect::Sqlite;
        for constraint in [
            foreign_key.map(|key| key.column_constraint(dialect)),
            check.map(|check| check.constraint(dialect)),
        ]
        .into_iter()
        .flatten()
        .filter(|_| inline)
        {
            definition.push(' ');
            definition.push_str(&constraint);
        }
        self.ddl(
            format!(
                "ALTER TABLE {} ADD COLUMN {definition}",
                dialect.quote(table)
            ),
            format!("column {table}.{}", column.name),
            Blocks::Everyone,
        );
        self.plan
            .created
            .columns
            .push(format!("{table}.{}", column.name));
        let Some(live) = self.catalog.tables.get_mut(table) else {
            return;
        };
        live.columns.push(live_column(column, dialect));
        if inline {
            if let Some(mut create) = live.sql.as_deref().and_then(CreateTable::parse) {
                create.add_column(&definition);
                live.sql = Some(create.sql(&dialect.quote(table)));
            }
            if let Some(key) = foreign_key {
                live.foreign_keys.push(live_foreign_key(key, dialect));
                self.plan
                    .created
                    .foreign_keys
                    .push(format!("{table}.{}", key.name));
            }
            if let Some(check) = check {
                live.checks.push(live_check(check));
                self.plan
                    .created
                    .checks
                    .push(format!("{table}.{}", check.name));
            }
        }
    }

    fn remember_index(&mut self, table: &str, spec: &IndexSpec) {
        let definition = spec.sql(self.dialect(), table, false);
        if let Some(table) = self.catalog.tables.get_mut(table) {
            table.indexes.retain(|index| index.name != spec.name);
            table.indexes.push(Index {
                name: spec.name.clone(),
                unique: spec.unique,
                columns: spec.columns.clone(),
                valid: true,
                constraint: false,
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
                self.plan.units.push(Unit::Alone(Statement {
                    sql: format!(
                        "DROP INDEX CONCURRENTLY IF EXISTS {}",
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
            self.plan.units.push(Unit::Alone(Statement {
                sql: spec.sql(dialect, table, true),
                purpose: format!("index {}, built while the gateway works", spec.name),
                blocks: Blocks::Nothing,
                counted: None,
                detail: false,
            }));
        } else {
            self.ddl(
                spec.sql(dialect, table, false),
                format!("index {}", spec.name),
                Blocks::Writers,
            );
        }
        self.remember_index(table, spec);
        self.plan.created.indexes.push(spec.name.clone());
    }

    /// Makes sure that the foreign key exists, under its name, with its action, and checked against every row.
    pub fn add_foreign_key(&mut self, table: &str, spec: &ForeignKeySpec) {
        self.add_foreign_key_after(table, spec, None);
    }

    /// The same for several keys, with one rebuild on SQLite.
    pub fn add_foreign_keys(&mut self, table: &str, specs: &[ForeignKeySpec]) {
        let dialect = self.dialect();
        if dialect == Dialect::Sqlite {
            let missing: Vec<&ForeignKeySpec> = specs
                .iter()
                .filter(|spec| {
                    self.catalog.table(table).is_some_and(|live| {
                        live.column(&spec.column).is_some()
                            && !live.foreign_keys_on(&spec.column).any(|key| {
                                key.on_delete == spec.on_delete && key.parent == spec.parent
                            })
                    })
                })
                .collect();
            if missing.is_empty() {
                return;
            }
            self.rebuild(table, |create| {
                for spec in &missing {
                    create.drop_foreign_keys(&spec.column);
                    create.add_constraint(&spec.table_constraint(dialect));
                }
            });
            for spec in missing {
                self.remember_foreign_key(table, spec);
            }
            return;
        }
        for spec in specs {
            self.add_foreign_key(table, spec);
        }
    }

    fn remember_foreign_key(&mut self, table: &str, spec: &ForeignKeySpec) {
        let dialect = self.dialect();
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.foreign_keys
                .retain(|key| key.columns != [spec.column.clone()]);
            live.foreign_keys.push(live_foreign_key(spec, dialect));
        }
        self.plan
            .created
            .foreign_keys
            .push(format!("{table}.{}", spec.name));
    }

    /// The same, with a statement that runs when new rows are held to the key already and old ones are not checked
    /// yet.
    pub fn add_foreign_key_after(
        &mut self,
        table: &str,
        spec: &ForeignKeySpec,
        cleanup: Option<String>,
    ) {
        let dialect = self.dialect();
        let Some(live) = self
            .catalog
            .table(table)
            .filter(|live| live.column(&spec.column).is_some())
        else {
            return;
        };
        let fits = |key: &&ForeignKey| {
            key.name.as_deref() == Some(&spec.name)
                && key.parent == spec.parent
                && key.on_delete == spec.on_delete
        };
        let fitting = live.foreign_keys_on(&spec.column).find(fits);
        if let Some(validated) = fitting.map(|key| key.validated) {
            if !validated {
                self.validate(table, &spec.name);
            }
            return;
        }
        let unfit: Vec<Option<String>> = live
            .foreign_keys_on(&spec.column)
            .map(|key| key.name.clone())
            .collect();
        match dialect {
            Dialect::Postgres => {
                self.boundary();
                for name in unfit.iter().flatten() {
                    self.drop_constraint(table, name);
                }
                self.ddl(
                    format!(
                        "ALTER TABLE {} ADD {} NOT VALID",
                        dialect.quote(table),
                        spec.table_constraint(dialect)
                    ),
                    format!("foreign key {} for rows to come", spec.name),
                    Blocks::Writers,
                );
                if let Some(cleanup) = cleanup {
                    self.boundary();
                    self.execute(
                        table,
                        cleanup,
                        "rows whose parent is gone already",
                        Blocks::Rows,
                    );
                }
                self.validate(table, &spec.name);
            }
            Dialect::Sqlite => {
                if let Some(cleanup) = cleanup {
                    self.execute(
                        table,
                        cleanup,
                        "rows whose parent is gone already",
                        Blocks::Rows,
                    );
                }
                self.rebuild(table, |create| {
                    create.drop_foreign_keys(&spec.column);
                    create.add_constraint(&spec.table_constraint(dialect));
                });
            }
        }
        self.remember_foreign_key(table, spec);
    }

    /// Makes sure that the check exists and holds for every row.
    pub fn add_check(&mut self, table: &str, spec: &CheckSpec) {
        let dialect = self.dialect();
        match self
            .catalog
            .table(table)
            .and_then(|table| table.check(&spec.name))
        {
            Some(check) if check.validated => return,
            Some(_) => return self.validate(table, &spec.name),
            None => {}
        }
        match dialect {
            Dialect::Postgres => {
                self.boundary();
                self.ddl(
                    format!(
                        "ALTER TABLE {} ADD {} NOT VALID",
                        dialect.quote(table),
                        spec.constraint(dialect)
                    ),
                    format!("check {} for rows to come", spec.name),
                    Blocks::Everyone,
                );
                self.validate(table, &spec.name);
            }
            Dialect::Sqlite => self.rebuild(table, |create| {
                create.add_constraint(&spec.constraint(dialect));
            }),
        }
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.checks.push(live_check(spec));
        }
        self.plan
            .created
            .checks
            .push(format!("{table}.{}", spec.name));
    }

    fn validate(&mut self, table: &str, constraint: &str) {
        let dialect = self.dialect();
        self.boundary();
        self.ddl(
            format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                dialect.quote(table),
                dialect.quote(constraint)
            ),
            format!("check the existing rows against {constraint}"),
            Blocks::Nothing,
        );
        self.boundary();
    }

    fn drop_constraint(&mut self, table: &str, constraint: &str) {
        let dialect = self.dialect();
        self.ddl(
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                dialect.quote(table),
                dialect.quote(constraint)
            ),
            format!("drop constraint {constraint}"),
            Blocks::Everyone,
        );
    }

    /// Drops a column and makes sure of foreign keys on the same table, with one rebuild on SQLite.
    pub fn drop_column_and_add_keys(
        &mut self,
        table: &str,
        column: &str,
        specs: &[ForeignKeySpec],
    ) {
        if self.dialect() == Dialect::Postgres || !self.catalog.has_column(table, column) {
            self.drop_column(table, column);
            self.add_foreign_keys(table, specs);
            return;
        }
        self.remember_drop(table, column);
        let dialect = self.dialect();
        self.rebuild(table, |create| {
            create.drop_column(column);
            for spec in specs {
                create.drop_foreign_keys(&spec.column);
                create.add_constraint(&spec.table_constraint(dialect));
            }
        });
        self.forget_column(table, column);
        for spec in specs {
            self.remember_foreign_key(table, spec);
        }
    }

    /// Drops the column with its indexes and foreign keys, and remembers what is needed to bring it back.
    pub fn drop_column(&mut self, table: &str, column: &str) {
        if self.catalog.has_column(table, column) {
            self.remember_drop(table, column);
            self.remove_column(table, column);
        }
    }

    fn forget_column(&mut self, table: &str, column: &str) {
        let dialect = self.dialect();
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.columns.retain(|found| found.name != column);
            live.indexes
                .retain(|index| index.constraint || !index_mentions(index, column));
            live.foreign_keys
                .retain(|key| !key.columns.iter().any(|name| name == column));
            live.checks
                .retain(|check| !mentions(&check.definition, column));
            if dialect == Dialect::Sqlite
                && let Some(mut create) = live.sql.as_deref().and_then(CreateTable::parse)
            {
                create.drop_column(column);
                live.sql = Some(create.sql(&dialect.quote(table)));
            }
        }
    }

    fn remember_drop(&mut self, table: &str, column: &str) {
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        let Some(found) = live.column(column).cloned() else {
            return;
        };
        let foreign_key = live
            .foreign_keys_on(column)
            .next()
            .map(|key| (key.name.clone(), key.definition.clone()));
        let indexes: Vec<(String, String)> = live
            .indexes
            .iter()
            .filter(|index| !index.constraint && index_mentions(index, column))
            .map(|index| (index.name.clone(), index.definition.clone()))
            .collect();
        let constraints = live
            .checks
            .iter()
            .chain(&live.uniques)
            .filter(|constraint| mentions(&constraint.definition, column))
            .filter_map(|constraint| {
                Some((constraint.name.clone()?, constraint.definition.clone()))
            })
            .collect();
        let items = live
            .sql
            .as_deref()
            .and_then(CreateTable::parse)
            .map(|create| create.items_over(column))
            .unwrap_or_default();
        self.plan.created.dropped.push(DroppedColumn {
            table: table.to_owned(),
            name: column.to_owned(),
            kind: found.kind,
            default: found.default,
            foreign_key,
            indexes,
            constraints,
            items,
        });
    }

    /// Drops a column that this track's own migration had added.
    pub fn remove_column(&mut self, table: &str, column: &str) {
        let dialect = self.dialect();
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        if live.column(column).is_none() {
            return;
        }
        let create = live.sql.as_deref().and_then(CreateTable::parse);
        let plain = create.as_ref().is_none_or(|create| {
            // SQLite's DROP COLUMN refuses what a constraint or another column's expression mentions.
            create.items.iter().all(|item| {
                item.column
                    .as_deref()
                    .is_some_and(|name| name.eq_ignore_ascii_case(column))
                    && item.constraints.is_empty()
                    || !item.mentions(column)
            })
        });
        let indexes: Vec<String> = live
            .indexes
            .iter()
            .filter(|index| !index.constraint && index_mentions(index, column))
            .map(|index| index.name.clone())
            .collect();
        let plain = plain && !self.catalog.has_views_or_triggers;
        if dialect == Dialect::Sqlite && !plain {
            self.rebuild(table, |create| create.drop_column(column));
        } else {
            if dialect == Dialect::Sqlite {
                for index in &indexes {
                    self.ddl(
                        format!("DROP INDEX {}", dialect.quote(index)),
                        format!("drop index {index}, which is over the column"),
                        Blocks::Writers,
                    );
                }
            }
            self.ddl(
                format!(
                    "ALTER TABLE {} DROP COLUMN {}",
                    dialect.quote(table),
                    dialect.quote(column)
                ),
                format!("drop column {table}.{column}"),
                Blocks::Everyone,
            );
        }
        self.forget_column(table, column);
    }

    /// Brings a dropped column back, without its indexes and foreign key.
    pub fn restore_column(&mut self, dropped: &DroppedColumn) {
        // SQLite adds a foreign key only together with its column; PostgreSQL gets it in `restore_constraints`.
        let dialect = self.dialect();
        if self.catalog.has_column(&dropped.table, &dropped.name) {
            return;
        }
        let column = ColumnSpec {
            name: dropped.name.clone(),
            kind: Type::Live(dropped.kind.clone()),
            not_null: false,
            default: None,
        };
        let purpose = format!("bring back column {}.{}", dropped.table, dropped.name);
        let plain = dropped.default.is_none()
            && dropped.items.first().is_none_or(|item| {
                CreateTable::parse(&format!("CREATE TABLE t ({item})"))
                    .is_some_and(|create| create.is_plain())
            })
            && dropped
                .items
                .iter()
                .skip(1)
                .all(|item| item.to_uppercase().contains("FOREIGN KEY"));
        if dialect == Dialect::Sqlite && !plain {
            // ALTER TABLE cannot add what the column had (a default beside a key, UNIQUE, a check).
            let items = dropped.items.clone();
            self.rebuild(&dropped.table, |create| {
                for (position, item) in items.iter().enumerate() {
                    if position == 0 {
                        create.add_column(item);
                    } else {
                        create.add_constraint(item);
                    }
                }
            });
            if let Some(live) = self.catalog.tables.get_mut(&dropped.table) {
                live.columns.push(live_column(&column, dialect));
            }
            return;
        }
        let mut definition = column.sql(dialect);
        if dialect == Dialect::Sqlite
            && let Some((name, clause)) = &dropped.foreign_key
        {
            if let Some(name) = name {
                definition.push_str(&format!(" CONSTRAINT {}", dialect.quote(name)));
            }
            // A table constraint's clause begins with its own column list, which a column constraint does not have.
            let references = clause
                .to_uppercase()
                .find("REFERENCES")
                .map_or(clause.as_str(), |at| &clause[at..]);
            definition.push_str(&format!(" {references}"));
        }
        self.ddl(
            format!(
                "ALTER TABLE {} ADD COLUMN {definition}",
                dialect.quote(&dropped.table)
            ),
            purpose,
            Blocks::Everyone,
        );
        if let Some(live) = self.catalog.tables.get_mut(&dropped.table) {
            live.columns.push(live_column(&column, dialect));
            if let Some(mut create) = live.sql.as_deref().and_then(CreateTable::parse) {
                create.add_column(&definition);
                live.sql = Some(create.sql(&dialect.quote(&dropped.table)));
            }
        }
    }

    /// Brings back the indexes and the foreign key of a dropped column.
    pub fn restore_constraints(&mut self, dropped: &DroppedColumn) {
        let dialect = self.dialect();
        for (name, definition) in &dropped.indexes {
            let exists = self
                .catalog
                .table(&dropped.table)
                .is_some_and(|table| table.index(name).is_some());
            if !exists {
                self.ddl(
                    definition.clone(),
                    format!("bring back index {name}"),
                    Blocks::Writers,
                );
            }
        }
        if dialect == Dialect::Sqlite {
            return;
        }
        if let Some(default) = &dropped.default {
            self.ddl(
                format!(
                    "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {default}",
                    dialect.quote(&dropped.table),
                    dialect.quote(&dropped.name)
                ),
                format!("bring back the default of {}", dropped.name),
                Blocks::Everyone,
            );
        }
        let foreign_key = dropped
            .foreign_key
            .iter()
            .filter_map(|(name, clause)| Some((name.clone()?, clause.clone())));
        for (name, clause) in foreign_key.chain(dropped.constraints.iter().cloned()) {
            let clause = &clause;
            self.ddl(
                format!(
                    "ALTER TABLE {} ADD CONSTRAINT {} {clause}",
                    dialect.quote(&dropped.table),
                    dialect.quote(&name)
                ),
                format!("bring back constraint {name}"),
                Blocks::Writers,
            );
        }
    }

    /// Drops what a migration had created, in the order that dependencies allow. Columns it had dropped are not
    /// brought back here.
    pub fn undo(&mut self, created: &Created) {
        let dialect = self.dialect();
        if dialect == Dialect::Postgres {
            for constraint in created.foreign_keys.iter().chain(&created.checks) {
                if let Some((table, name)) = constraint.split_once('.')
                    && self.constraint_exists(table, name)
                {
                    self.drop_constraint(table, name);
                    self.forget_constraint(table, name);
                }
            }
        }
        for name in &created.indexes {
            let exists = self
                .catalog
                .tables
                .values()
                .any(|table| table.index(name).is_some());
            if exists {
                self.ddl(
                    format!("DROP INDEX {}", dialect.quote(name)),
                    format!("drop index {name}"),
                    Blocks::Everyone,
                );
                for table in self.catalog.tables.values_mut() {
                    table.indexes.retain(|index| &index.name != name);
                }
            }
        }
        if dialect == Dialect::Sqlite {
            for constraint in created.foreign_keys.iter().chain(&created.checks) {
                let Some((table, name)) = constraint.split_once('.') else {
                    continue;
                };
                // One that came with a column goes with it; the rest needs a rebuild.
                let comes_with_column = created
                    .columns
                    .iter()
                    .any(|column| column.starts_with(&format!("{table}.")));
                if comes_with_column || !self.constraint_exists(table, name) {
                    continue;
                }
                let column = self.catalog.table(table).and_then(|table| {
                    table
                        .foreign_keys
                        .iter()
                        .find(|key| key.name.as_deref() == Some(name))
                        .and_then(|key| key.columns.first().cloned())
                });
                self.rebuild(table, |create| match &column {
                    Some(column) => create.drop_foreign_keys(column),
                    None => create.drop_check(name),
                });
                self.forget_constraint(table, name);
            }
        }
        for column in created.columns.iter().rev() {
            if let Some((table, name)) = column.split_once('.') {
                self.remove_column(table, name);
            }
        }
        for table in created.tables.iter().rev() {
            if self.catalog.tables.remove(table).is_some() {
                // With foreign keys on, SQLite deletes the rows of other tables that cascade from the dropped one.
                if dialect == Dialect::Sqlite {
                    self.plan.rebuilds.push(table.clone());
                }
                self.ddl(
                    format!("DROP TABLE {}", dialect.quote(table)),
                    format!("drop table {table}"),
                    Blocks::Everyone,
                );
            }
        }
        self.undo_enums(created);
    }

    /// Drops the enums that a migration had created.
    fn undo_enums(&mut self, created: &Created) {
        for name in &created.enums {
            if self.catalog.enums.remove(name).is_some() {
                let dialect = self.dialect();
                self.ddl(
                    format!("DROP TYPE {}", dialect.quote(name)),
                    format!("drop type {name}"),
                    Blocks::Nothing,
                );
            }
        }
    }

    fn constraint_exists(&self, table: &str, name: &str) -> bool {
        self.catalog.table(table).is_some_and(|table| {
            table.check(name).is_some()
                || table
                    .foreign_keys
                    .iter()
                    .any(|key| key.name.as_deref() == Some(name))
        })
    }

    fn forget_constraint(&mut self, table: &str, name: &str) {
        if let Some(table) = self.catalog.tables.get_mut(table) {
            table
                .checks
                .retain(|check| check.name.as_deref() != Some(name));
            table
                .foreign_keys
                .retain(|key| key.name.as_deref() != Some(name));
        }
    }

    fn rebuild(&mut self, table: &str, edit: impl FnOnce(&mut CreateTable)) {
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        let mut copy = format!("{table}__tollgate");
        while self.catalog.has_table(&copy) {
            copy.push('_');
        }
        if let Some((steps, sql)) = rebuild(table, &copy, live, edit) {
            self.open.extend(steps.into_iter().map(Step::Run));
            self.plan.rebuilds.push(table.to_owned());
            if let Some(live) = self.catalog.tables.get_mut(table) {
                live.sql = Some(sql);
            }
        }
    }
}

/// Whether the text names the column as a word of its own.
fn mentions(text: &str, column: &str) -> bool {
    crate::catalog::sqlite_ddl::words(text).contains(&column.to_lowercase())
}

/// Whether an index is over the column, or its condition or an expression names it.
pub(crate) fn index_mentions(index: &Index, column: &str) -> bool {
    index.columns.iter().any(|name| name == column)
        // What stands before the first parenthesis are the names of the index and the table.
        || index
            .definition
            .split_once('(')
            .is_some_and(|(_, body)| mentions(body, column))
        || index
            .predicate
            .as_deref()
            .is_some_and(|predicate| mentions(predicate, column))
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
