//! Tables made complete or dropped, enums widened, triggers, and checks under a lock that is held.

use super::{PlanBuilder, live_check};
use crate::catalog::{Table, Trigger};
use crate::ddl::{CheckSpec, IndexSpec, TableSpec};
use crate::dialect::Dialect;
use crate::plan::{Blocks, Created};
use crate::registry::golden;
use crate::schema::{canonical, differences};

/// A trigger that runs one statement when a row of a table is updated.
#[derive(Clone, Copy, Debug)]
pub struct TriggerSpec {
    /// Its name, and on PostgreSQL its function's.
    pub name: &'static str,
    /// The table whose updates it watches.
    pub table: &'static str,
    /// The column whose updates it watches.
    pub column: &'static str,
    /// The statement, in which `NEW` is the updated row. It runs where the column holds true.
    pub statement: &'static str,
}

impl PlanBuilder {
    /// Creates the tables that are missing, and adds to the others the columns and indexes that they lack. How an
    /// existing table differs besides from the golden schema of `version` is written down, and is no drift afterwards.
    ///
    /// `added` is told of every column that an existing table gets.
    pub fn ensure_tables(
        &mut self,
        version: &str,
        tables: &[TableSpec],
        mut added: impl FnMut(&mut Self, &TableSpec, &str),
    ) {
        let there: Vec<&TableSpec> = tables
            .iter()
            .filter(|spec| self.catalog.has_table(&spec.name))
            .collect();
        for spec in tables {
            if there.iter().any(|known| known.name == spec.name) {
                self.complete(spec, &mut added);
            } else {
                self.create_table(spec);
            }
        }
        let names = there.iter().map(|spec| spec.name.as_str());
        let mut expected = golden(self.dialect(), version).unwrap_or_default();
        expected.retain(|object, _| {
            there
                .iter()
                .any(|spec| object.split(' ').next() == Some(spec.name.as_str()))
        });
        let live = canonical(&self.catalog, names);
        self.tolerate(&differences(&expected, &live));
    }

    /// Adds the columns, each with its indexes, that existing tables lack.
    pub fn add_missing(&mut self, additions: &[TableSpec]) {
        for addition in additions {
            if self.catalog.has_table(&addition.name) {
                self.complete(addition, &mut |_, _, _| {});
            }
        }
    }

    fn complete(&mut self, spec: &TableSpec, added: &mut impl FnMut(&mut Self, &TableSpec, &str)) {
        for column in &spec.columns {
            let mut column = column.clone();
            // There is no value for the rows that exist.
            column.not_null &= column.default.is_some();
            if !self.catalog.has_column(&spec.name, &column.name) {
                self.add_column(&spec.name, &column, None, None);
                added(self, spec, &column.name);
            }
        }
        for index in &spec.indexes {
            let equal = self
                .catalog
                .table(&spec.name)
                .is_some_and(|table| serves(table, index));
            if !equal {
                self.create_index(&spec.name, index);
            }
        }
    }

    /// Makes sure that a native enum has the labels. One that lacks some is made again and takes its place, since a label
    /// that `ADD VALUE` adds cannot be used in the same transaction; tables with such a column are rewritten.
    pub fn widen_enum(&mut self, name: &str, labels: &[&str]) {
        let dialect = self.dialect();
        let Some(live) = self.catalog.enums.get(name).cloned() else {
            self.create_enum(name, labels);
            return;
        };
        if labels
            .iter()
            .all(|label| live.iter().any(|live| live == label))
        {
            return;
        }
        let mut wide: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        wide.extend(
            live.into_iter()
                .filter(|label| !labels.contains(&label.as_str())),
        );
        let quoted: Vec<String> = wide.iter().map(|label| dialect.text(label)).collect();
        let new = format!("{name}__tollgate");
        self.ddl(
            format!(
                "CREATE TYPE {} AS ENUM ({})",
                dialect.quote(&new),
                quoted.join(", ")
            ),
            format!("type {name} with the labels that it lacks"),
            Blocks::Nothing,
        );
        let users: Vec<(String, String)> = self
            .catalog
            .tables
            .iter()
            .flat_map(|(table, live)| {
                live.columns
                    .iter()
                    .filter(|column| column.kind == name)
                    .map(|column| (table.clone(), column.name.clone()))
            })
            .collect();
        for (table, column) in users {
            let column = dialect.quote(&column);
            self.ddl(
                format!(
                    "ALTER TABLE {} ALTER COLUMN {column} TYPE {new} USING {column}::text::{new}",
                    dialect.quote(&table),
                    new = dialect.quote(&new)
                ),
                format!("{table} takes the wider type"),
                Blocks::Everyone,
            );
        }
        self.ddl(
            format!("DROP TYPE {}", dialect.quote(name)),
            format!("drop the narrow type {name}"),
            Blocks::Nothing,
        );
        self.ddl(
            format!(
                "ALTER TYPE {} RENAME TO {}",
                dialect.quote(&new),
                dialect.quote(name)
            ),
            format!("the wide type {name} takes its place"),
            Blocks::Nothing,
        );
        self.catalog.enums.insert(name.to_owned(), wide);
    }

    /// Creates the trigger unless the table has one of its name.
    pub fn create_trigger(&mut self, spec: &TriggerSpec) {
        let dialect = self.dialect();
        let there = self
            .catalog
            .table(spec.table)
            .is_none_or(|table| table.triggers.iter().any(|known| known.name == spec.name));
        if there {
            return;
        }
        let (name, table) = (dialect.quote(spec.name), dialect.quote(spec.table));
        let column = dialect.quote(spec.column);
        let holds = dialect.is_true(&format!("NEW.{column}"));
        let definition = match dialect {
            Dialect::Postgres => {
                // Whoever updates the table may have another search path.
                let schema = dialect.quote(&self.catalog.schema);
                self.ddl(
                    format!(
                        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql \
                         SET search_path = {schema}, pg_temp AS $$ BEGIN {}; RETURN NEW; END $$",
                        spec.statement
                    ),
                    format!("function {}", spec.name),
                    Blocks::Nothing,
                );
                format!(
                    "CREATE TRIGGER {name} AFTER UPDATE OF {column} ON {table} FOR EACH ROW WHEN ({holds}) \
                     EXECUTE FUNCTION {name}()"
                )
            }
            Dialect::Sqlite => format!(
                "CREATE TRIGGER {name} AFTER UPDATE OF {column} ON {table} FOR EACH ROW WHEN {holds} \
                 BEGIN {}; END",
                spec.statement
            ),
        };
        self.ddl(
            definition.clone(),
            format!("trigger {} on {}", spec.name, spec.table),
            Blocks::Writers,
        );
        if let Some(live) = self.catalog.tables.get_mut(spec.table) {
            live.triggers.push(Trigger {
                name: spec.name.to_owned(),
                definition,
            });
        }
        self.catalog.has_views_or_triggers |= dialect == Dialect::Sqlite;
        self.plan
            .created
            .triggers
            .push(format!("{}.{}", spec.table, spec.name));
    }

    /// Drops the triggers that a migration had created.
    pub(super) fn undo_triggers(&mut self, created: &Created) {
        let dialect = self.dialect();
        for (table, name) in created
            .triggers
            .iter()
            .filter_map(|trigger| trigger.split_once('.'))
        {
            let Some(live) = self.catalog.tables.get_mut(table) else {
                continue;
            };
            let before = live.triggers.len();
            live.triggers.retain(|trigger| trigger.name != name);
            if live.triggers.len() == before {
                continue;
            }
            let quoted = dialect.quote(name);
            let purpose = format!("drop trigger {name}");
            match dialect {
                Dialect::Postgres => {
                    let sql = format!("DROP TRIGGER {quoted} ON {}", dialect.quote(table));
                    self.ddl(sql, purpose, Blocks::Everyone);
                    self.ddl(
                        format!("DROP FUNCTION {quoted}()"),
                        format!("drop function {name}"),
                        Blocks::Nothing,
                    );
                }
                Dialect::Sqlite => {
                    self.ddl(format!("DROP TRIGGER {quoted}"), purpose, Blocks::Everyone);
                }
            }
        }
    }

    /// Drops a table that only old code used, where it is there.
    pub fn drop_table(&mut self, table: &str) {
        if self.catalog.tables.remove(table).is_none() {
            return;
        }
        let dialect = self.dialect();
        // With foreign keys on, SQLite deletes the rows of other tables that cascade from the dropped one.
        if dialect == Dialect::Sqlite {
            self.plan.rebuilds.push(table.to_owned());
        }
        self.ddl(
            format!("DROP TABLE {}", dialect.quote(table)),
            format!("drop table {table}"),
            Blocks::Everyone,
        );
    }

    /// Drops the foreign keys of a table that refer to another one.
    pub fn drop_foreign_keys_to(&mut self, table: &str, parent: &str) {
        let dialect = self.dialect();
        let Some(live) = self.catalog.table(table) else {
            return;
        };
        let gone: Vec<_> = live
            .foreign_keys
            .iter()
            .filter(|key| key.parent == parent)
            .cloned()
            .collect();
        if gone.is_empty() {
            return;
        }
        match dialect {
            Dialect::Postgres => {
                for name in gone.iter().filter_map(|key| key.name.as_ref()) {
                    self.drop_constraint(table, name);
                }
            }
            Dialect::Sqlite => self.rebuild(table, |create| {
                for column in gone.iter().filter_map(|key| key.columns.first()) {
                    create.drop_foreign_keys(column);
                }
            }),
        }
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.foreign_keys.retain(|key| !gone.contains(key));
        }
        self.plan.created.cut_keys.extend(gone.iter().map(|key| {
            let name = key.name.clone().unwrap_or_else(|| key.columns.join("_"));
            format!("{table}.{name}")
        }));
    }

    /// Keeps writers, and nobody else, out of tables until the commit; readers go on.
    pub fn lock_writers(&mut self, tables: &[&str]) {
        if self.dialect() == Dialect::Postgres {
            let sql = format!(
                "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
                self.dialect().quote_all(tables)
            );
            self.ddl(
                sql,
                "nobody writes these tables until the commit".to_owned(),
                Blocks::Writers,
            );
        }
    }

    /// Makes sure of a check inside the open transaction, whose lock keeps rows out that would break it; the existing
    /// rows are held against it afterwards, online, by [`PlanBuilder::add_check`].
    pub fn add_check_for_new_rows(&mut self, table: &str, spec: &CheckSpec) {
        let dialect = self.dialect();
        let there = self
            .catalog
            .table(table)
            .is_none_or(|live| live.check(&spec.name).is_some());
        if there {
            return;
        }
        if dialect == Dialect::Sqlite {
            self.add_check(table, spec);
            return;
        }
        self.ddl(
            format!(
                "ALTER TABLE {} ADD {} NOT VALID",
                dialect.quote(table),
                spec.constraint(dialect)
            ),
            format!("check {} for rows to come", spec.name),
            Blocks::Everyone,
        );
        let mut check = live_check(spec);
        check.validated = false;
        if let Some(live) = self.catalog.tables.get_mut(table) {
            live.checks.push(check);
        }
        self.plan
            .created
            .checks
            .push(format!("{table}.{}", spec.name));
    }
}

/// Whether an index of whatever name does what this one is for: upgraded databases have other names for some.
fn serves(table: &Table, wanted: &IndexSpec) -> bool {
    table.indexes.iter().any(|index| {
        index.valid
            && index.name != wanted.name
            && index.columns == wanted.columns
            && (index.unique || !wanted.unique)
            && index.predicate.is_none()
            && wanted.predicate.is_none()
    })
}
