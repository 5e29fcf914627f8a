//! Calendar flags on budgets whose owner has no place for them in the 1.5.0 schema: they stand in a table of Tollgate's until
//! the schema has one (`docs/upstream/bifrost.md` §2.2). No secret is remembered.

use crate::catalog::Catalog;
use crate::context::Context;
use crate::plan_builder::PlanBuilder;

use super::owners::OWNER_COLUMNS;
use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

/// The table: `kind` and `owner`, the budget whose flag it was, and the virtual key of a provider config.
pub const TABLE: &str = "tollgate_remembered";

/// Of a provider config; a migration of Tollgate's moves it to the virtual key.
pub const PROVIDER_CONFIG: &str = "provider_config";

/// Of a budget that nobody has.
pub const NOBODY: &str = "budget";

/// Kinds of owners whose flags get lost, by their table on the legacy schema.
pub const KINDS: [(&str, &str); 5] = [
    (PROVIDER_CONFIG, PROVIDER_CONFIGS),
    ("team", "governance_teams"),
    ("customer", "governance_customers"),
    ("provider", "config_providers"),
    ("model_config", "governance_model_configs"),
];

/// Who carries the flag of a provider config's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// The gateway's own migration, which forgets it: it is remembered.
    Forgotten,
    /// Tollgate's, which gives it to the virtual key.
    Moved,
}

/// Creates the table.
pub fn create() -> String {
    format!(
        "CREATE TABLE {TABLE} (kind varchar(20) NOT NULL, owner varchar(255) NOT NULL, budget varchar(255) NOT NULL, \
         virtual_key varchar(255), PRIMARY KEY (kind, owner))"
    )
}

/// Every flag that would be lost: `kind`, `owner`, `budget`, `virtual_key`. `None` where budgets have no flag.
pub fn due(catalog: &Catalog, promoted: Promoted) -> Option<String> {
    due_among(catalog, promoted, "")
}

fn due_among(catalog: &Catalog, promoted: Promoted, among: &str) -> Option<String> {
    if !catalog.has_column(BUDGETS, "calendar_aligned") {
        return None;
    }
    let flagged = catalog.dialect.is_true("b.calendar_aligned");
    let owners: Vec<&str> = OWNER_COLUMNS
        .into_iter()
        .filter(|column| catalog.has_column(BUDGETS, column))
        .collect();
    let referring = |table: &&str| catalog.has_column(table, "budget_id");
    let mut arms: Vec<String> = KINDS
        .iter()
        .filter(|(kind, _)| promoted == Promoted::Forgotten || *kind != PROVIDER_CONFIG)
        .filter(|(_, table)| referring(table))
        .map(|(kind, table)| {
            let key = if *kind == PROVIDER_CONFIG {
                "t.virtual_key_id"
            } else {
                "NULL"
            };
            format!(
                "SELECT '{kind}' AS kind, CAST(t.id AS text) AS owner, b.id AS budget, CAST({key} AS text) AS virtual_key \
                 FROM {table} t JOIN {BUDGETS} b ON b.id = t.budget_id WHERE {flagged}{among}"
            )
        })
        .collect();
    let mut nobodys = vec![flagged];
    nobodys.extend(owners.iter().map(|column| format!("b.{column} IS NULL")));
    // Where budgets say themselves who has them, the two large tables need not be walked for it.
    let said = owners.contains(&"virtual_key_id") && owners.contains(&"provider_config_id");
    nobodys.extend(
        [VIRTUAL_KEYS, PROVIDER_CONFIGS]
            .into_iter()
            .filter(|_| !said)
            .chain(KINDS.iter().skip(1).map(|(_, table)| *table))
            .filter(referring)
            .map(|table| format!("NOT EXISTS (SELECT 1 FROM {table} o WHERE o.budget_id = b.id)")),
    );
    arms.push(format!(
        "SELECT '{NOBODY}' AS kind, b.id AS owner, b.id AS budget, CAST(NULL AS text) AS virtual_key FROM {BUDGETS} b WHERE {}{among}",
        nobodys.join(" AND ")
    ));
    Some(arms.join(" UNION ALL "))
}

/// Strikes out what was noted and is no longer so: a flag that was turned off since is not put back.
pub fn strike(due: &str, promoted: Promoted) -> String {
    let kinds = match promoted {
        Promoted::Forgotten => String::new(),
        Promoted::Moved => format!("kind <> '{PROVIDER_CONFIG}' AND "),
    };
    format!(
        "DELETE FROM {TABLE} WHERE {kinds}NOT EXISTS (SELECT 1 FROM ({due}) due WHERE due.kind = {TABLE}.kind \
         AND due.owner = {TABLE}.owner)"
    )
}

/// Notes what is due.
pub fn note(due: &str) -> String {
    format!(
        "INSERT INTO {TABLE} (kind, owner, budget, virtual_key) SELECT kind, owner, budget, virtual_key FROM ({due}) due \
         WHERE 1 = 1 ON CONFLICT (kind, owner) DO UPDATE SET budget = excluded.budget, virtual_key = excluded.virtual_key"
    )
}

/// Remembers what a step is about to drop with the budgets' flag.
///
/// `among` is a condition over the budgets `b` that are looked at, which begins with `AND`; empty for all.
pub(super) fn remember(context: &Context, builder: &mut PlanBuilder, among: &str) {
    let Some(due) = due_among(&context.catalog, Promoted::Moved, among) else {
        return;
    };
    if !builder.catalog.has_table(TABLE) {
        builder.bookkeeping(
            create(),
            "a list of calendar flags that this schema has no place for",
        );
        builder.catalog.tables.entry(TABLE.to_owned()).or_default();
    }
    builder.bookkeeping(
        format!(
            "{}{}",
            strike(&due, Promoted::Moved),
            among.replace("b.id", "budget")
        ),
        "flags that were turned off since they were noted",
    );
    builder.bookkeeping(
        note(&due),
        "calendar flags of teams, customers, providers, model configs and nobody are noted",
    );
}

/// Gives the budgets their flags back, with the column that carried them.
pub(super) fn put_back(catalog: &Catalog, builder: &mut PlanBuilder) {
    if !catalog.has_table(TABLE) {
        return;
    }
    let dialect = catalog.dialect;
    builder.update(
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET calendar_aligned = {} WHERE NOT ({}) AND id IN (SELECT budget FROM {TABLE})",
            dialect.true_literal(),
            dialect.is_true("calendar_aligned"),
        ),
        "calendar flags that were remembered go back to the budgets",
        crate::plan::Blocks::Rows,
    );
    builder.bookkeeping(
        format!("DELETE FROM {TABLE}"),
        "the budgets carry these flags again",
    );
}
