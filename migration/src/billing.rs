//! The billing track: how a Molecule workspace pays for its models (`reference/molecule.md`).

pub mod adoption;
mod m20260401_000001_billing_baseline;
mod m20260402_000002_llm_billing_mode;
mod tables;

use sea_orm_migration::sea_query::{Alias, DynIden, IntoIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

use crate::catalog::Check;
use crate::migration::Migration;
use crate::track::Track;

/// Where agents live; a removed one stays with the status `removed`.
pub const WORKSPACES: &str = "workspaces";
/// Secrets of one workspace.
pub const WORKSPACE_SECRETS: &str = "workspace_secrets";
/// Secrets of all workspaces; one of the same key in a workspace wins.
pub const GLOBAL_SECRETS: &str = "global_secrets";
/// The column that says how a workspace pays; NULL inherits the organisation's default.
pub const MODE: &str = "llm_billing_mode";
/// The modes that are recognised, exactly as written.
pub const MODES: [&str; 3] = ["platform_managed", "byok", "disabled"];

/// The tables as a fresh install before the billing mode has them.
pub fn tables(dialect: crate::Dialect) -> Vec<crate::ddl::TableSpec> {
    tables::all(dialect)
}

/// The native enum of a workspace's status: its name and labels.
pub fn status() -> (&'static str, [&'static str; 8]) {
    tables::STATUS
}

/// The track's migrations, oldest first.
pub const MIGRATIONS: &[&Migration] = &[
    &m20260401_000001_billing_baseline::MIGRATION,
    &m20260402_000002_llm_billing_mode::MIGRATION,
];

/// The track for sea-orm's own tools.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        MIGRATIONS
            .iter()
            .map(|&migration| Box::new(migration) as Box<dyn MigrationTrait>)
            .collect()
    }

    fn migration_table_name() -> DynIden {
        Alias::new(Track::Billing.history_table()).into_iden()
    }
}

/// Whether a check is over the billing mode.
pub fn is_over_mode(check: &Check) -> bool {
    crate::catalog::sqlite_ddl::words(&check.definition)
        .iter()
        .any(|word| word == MODE)
}

/// Whether a check lets exactly the recognised modes through, whatever its spelling: it names these texts and no other.
pub fn is_the_check(check: &Check) -> bool {
    let mut named: Vec<&str> = check.definition.split('\'').skip(1).step_by(2).collect();
    named.sort_unstable();
    let mut wanted = MODES;
    wanted.sort_unstable();
    is_over_mode(check) && named == wanted
}

/// Workspaces whose stored mode is none of the three: `id`.
pub fn garbled() -> String {
    format!(
        "SELECT id FROM {WORKSPACES} WHERE {MODE} IS NOT NULL AND {MODE} NOT IN ('{}')",
        MODES.join("', '")
    )
}
