//! Foreign keys and checks: made sure of under their names, and held against every row.

use super::{PlanBuilder, live_check, live_foreign_key};
use crate::catalog::{Check, ForeignKey};
use crate::ddl::{CheckSpec, ForeignKeySpec};
use crate::dialect::Dialect;
use crate::plan::{Action, Blocks};

impl PlanBuilder {
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

    pub(super) fn remember_foreign_key(&mut self, table: &str, spec: &ForeignKeySpec) {
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
        cleanup: Option<(Action, String)>,
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
                // A run that was cut off behind the key has not looked for rows without parent.
                self.clean_up_and_validate(table, spec, cleanup);
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
                self.clean_up_and_validate(table, spec, cleanup);
            }
            Dialect::Sqlite => {
                if let Some((action, cleanup)) = cleanup {
                    self.execute(
                        action,
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

    fn clean_up_and_validate(
        &mut self,
        table: &str,
        spec: &ForeignKeySpec,
        cleanup: Option<(Action, String)>,
    ) {
        if let Some((action, cleanup)) = cleanup {
            self.boundary();
            self.execute(
                action,
                table,
                cleanup,
                "rows whose parent is gone already",
                Blocks::Rows,
            );
        }
        self.validate(table, &spec.name);
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

    pub(super) fn validate(&mut self, table: &str, constraint: &str) {
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

    pub(super) fn drop_constraint(&mut self, table: &str, constraint: &str) {
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

    pub(super) fn constraint_exists(&self, table: &str, name: &str) -> bool {
        self.catalog.table(table).is_some_and(|table| {
            table.check(name).is_some()
                || table
                    .foreign_keys
                    .iter()
                    .any(|key| key.name.as_deref() == Some(name))
        })
    }

    pub(super) fn forget_constraint(&mut self, table: &str, name: &str) {
        if let Some(table) = self.catalog.tables.get_mut(table) {
            table
                .checks
                .retain(|check| check.name.as_deref() != Some(name));
            table
                .foreign_keys
                .retain(|key| key.name.as_deref() != Some(name));
        }
    }
}
