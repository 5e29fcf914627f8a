//! Takes back what a migration created.

use super::PlanBuilder;
use crate::dialect::Dialect;
use crate::plan::{Blocks, Created};

impl PlanBuilder {
    /// Drops what a migration had created, in the order that dependencies allow. Columns it had dropped are not
    /// brought back here.
    pub fn undo(&mut self, created: &Created) {
        let dialect = self.dialect();
        self.undo_triggers(created);
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
    pub(super) fn undo_enums(&mut self, created: &Created) {
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
}
