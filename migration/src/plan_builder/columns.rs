//! Columns: added, dropped with what is over them, and brought back with it.

use super::{PlanBuilder, index_mentions, live_check, live_column, live_foreign_key, mentions};
use crate::catalog::sqlite_ddl::CreateTable;
use crate::ddl::{CheckSpec, ColumnSpec, ForeignKeySpec, Type};
use crate::dialect::Dialect;
use crate::plan::{Blocks, DroppedColumn};

impl PlanBuilder {
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

    pub(super) fn forget_column(&mut self, table: &str, column: &str) {
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

    pub(super) fn remember_drop(&mut self, table: &str, column: &str) {
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
        // With the column, so that rows have it too, as they had when a gateway added it; where a unique index may refuse
        // equal values the rows have none, and the default comes behind.
        if let Some(default) = dropped
            .default
            .as_ref()
            .filter(|_| dialect == Dialect::Postgres && default_for_all(dropped))
        {
            definition.push_str(&format!(" DEFAULT {default}"));
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
        if let Some(default) = dropped
            .default
            .as_ref()
            .filter(|_| !default_for_all(dropped))
        {
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
}

/// Whether every row may have a column's default.
fn default_for_all(dropped: &DroppedColumn) -> bool {
    dropped.indexes.is_empty() && dropped.constraints.is_empty()
}
