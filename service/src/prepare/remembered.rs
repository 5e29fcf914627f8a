//! Calendar flags that the gateway's own migration cannot carry: they stand in a table of Tollgate's until the schema has a
//! place for them (`reference/bifrost.md` §2.2: flags of provider configs, teams, customers, providers and model configs).
//! No secret is remembered.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Context;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

use crate::connection::Connection;
use crate::database::existing;
use crate::report::{Change, Finding, Severity};

/// The table: `kind` and `owner`, the budget whose flag it was, and the virtual key of a provider config.
pub(crate) const TABLE: &str = "tollgate_remembered";

const TEAMS: &str = "governance_teams";

/// Kinds of owners whose flags get lost, by their table on the legacy schema.
const KINDS: [(&str, &str); 5] = [
    ("provider_config", PROVIDER_CONFIGS),
    ("team", TEAMS),
    ("customer", "governance_customers"),
    ("provider", "config_providers"),
    ("model_config", "governance_model_configs"),
];

/// Notes every flag that would be lost; answers the budgets that are noted for the first time.
pub(super) async fn note(connection: &Connection, live: &Context) -> Result<Vec<String>, DbErr> {
    let catalog = &live.catalog;
    let dialect = catalog.dialect;
    if !catalog.has_column(BUDGETS, "calendar_aligned") {
        return Ok(Vec::new());
    }
    let flagged = dialect.is_true("b.calendar_aligned");
    let arms: Vec<String> = KINDS
        .iter()
        .filter(|(_, table)| catalog.has_column(table, "budget_id"))
        .map(|(kind, table)| {
            let key = if *table == PROVIDER_CONFIGS {
                "t.virtual_key_id"
            } else {
                "NULL"
            };
            format!(
                "SELECT '{kind}' AS kind, CAST(t.id AS text) AS owner, b.id AS budget, CAST({key} AS text) AS virtual_key \
                 FROM {table} t JOIN {BUDGETS} b ON b.id = t.budget_id WHERE {flagged}"
            )
        })
        .collect();
    if arms.is_empty() {
        return Ok(Vec::new());
    }
    let transaction = connection.begin().await?;
    if existing(&transaction, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        transaction
            .execute_unprepared(&format!(
                "CREATE TABLE {TABLE} (kind varchar(20) NOT NULL, owner varchar(255) NOT NULL, budget varchar(255) NOT NULL, \
                 virtual_key varchar(255), PRIMARY KEY (kind, owner))"
            ))
            .await?;
    }
    // A flag that was turned off since the last time is not put back.
    transaction
        .execute_unprepared(&format!(
            "DELETE FROM {TABLE} WHERE NOT EXISTS (SELECT 1 FROM ({}) due WHERE due.kind = {TABLE}.kind \
             AND due.owner = {TABLE}.owner)",
            arms.join(" UNION ALL ")
        ))
        .await?;
    let rows = transaction
        .query_all_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "INSERT INTO {TABLE} (kind, owner, budget, virtual_key) SELECT kind, owner, budget, virtual_key FROM ({}) due \
                 WHERE 1 = 1 ON CONFLICT (kind, owner) DO NOTHING RETURNING budget AS id",
                arms.join(" UNION ALL ")
            ),
        ))
        .await?;
    transaction.commit().await?;
    rows.iter().map(|row| row.try_get("", "id")).collect()
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Flags that are where they belong now.
    pub changes: Vec<Change>,
    /// Flags that this schema has no place for, by kind.
    pub without_a_place: Vec<Finding>,
}

/// Where a kind's flag belongs in the schema that is there now: the table, and the condition that a row `t` of it is due.
fn place(live: &Context, kind: &str) -> Option<(&'static str, String)> {
    let catalog = &live.catalog;
    // Between the versions that put the flag on budgets again and those that took it away, the budget's own counts.
    let on_budgets = catalog.has_column(BUDGETS, "calendar_aligned")
        && live.upstream_ran("migrate_calendar_aligned")
        && !live.upstream_ran("drop_legacy_calendar_aligned_columns");
    let flagged = |table: &str| catalog.has_column(table, "calendar_aligned");
    match kind {
        "provider_config" if flagged(VIRTUAL_KEYS) => {
            Some((VIRTUAL_KEYS, "t.id = r.virtual_key".to_owned()))
        }
        "team" if flagged(TEAMS) => Some((TEAMS, "t.id = r.owner".to_owned())),
        _ if on_budgets => Some((BUDGETS, "t.id = r.budget".to_owned())),
        _ => None,
    }
}

/// Puts the flags to their owners' places, each once; what has none stays remembered.
pub(crate) async fn finish(connection: &Connection, live: &Context) -> Result<Finished, DbErr> {
    let dialect = live.catalog.dialect;
    let mut finished = Finished::default();
    if !live.catalog.has_table(TABLE) {
        return Ok(finished);
    }
    let transaction = connection.begin().await?;
    for (kind, _) in KINDS {
        let Some((table, condition)) = place(live, kind) else {
            let rows = transaction
                .query_all_raw(Statement::from_string(
                    dialect.backend(),
                    format!("SELECT owner FROM {TABLE} WHERE kind = '{kind}' ORDER BY owner"),
                ))
                .await?;
            let owners = rows
                .iter()
                .map(|row| row.try_get("", "owner"))
                .collect::<Result<Vec<String>, DbErr>>()?;
            if !owners.is_empty() {
                finished.without_a_place.push(homeless(kind, owners));
            }
            continue;
        };
        let (truth, aligned) = (dialect.truth(), dialect.is_true("calendar_aligned"));
        let due = condition.replace("t.", &format!("{table}."));
        let rows = transaction
            .query_all_raw(Statement::from_string(
                dialect.backend(),
                format!(
                    "UPDATE {table} SET calendar_aligned = {truth} WHERE NOT COALESCE({aligned}, {no}) \
                     AND EXISTS (SELECT 1 FROM {TABLE} r WHERE r.kind = '{kind}' AND {due}) RETURNING CAST(id AS text) AS id",
                    no = dialect.falsehood(),
                ),
            ))
            .await?;
        let ids = rows
            .iter()
            .map(|row| row.try_get("", "id"))
            .collect::<Result<Vec<String>, DbErr>>()?;
        // A flag on a budget goes once more, with the column: it stays remembered until its owner has a place.
        if table != BUDGETS {
            transaction
                .execute_unprepared(&format!("DELETE FROM {TABLE} WHERE kind = '{kind}'"))
                .await?;
        }
        if !ids.is_empty() {
            finished.changes.push(Change {
                table: table.to_owned(),
                action: "put back flag".to_owned(),
                rows: ids.len() as u64,
                sample_ids: ids.into_iter().take(10).collect(),
            });
        }
    }
    transaction.commit().await?;
    Ok(finished)
}

fn homeless(kind: &str, owners: Vec<String>) -> Finding {
    Finding {
        code: "G017".to_owned(),
        severity: Severity::Info,
        title: format!("a calendar flag of a {} without a place in this schema", kind.replace('_', " ")),
        table: TABLE.to_owned(),
        column: None,
        rows: owners.len() as u64,
        sample_ids: owners.into_iter().take(10).collect(),
        effect: "it stays remembered; windows roll until then".to_owned(),
        resolve: "run the command again on a later version of the gateway: teams have a place from 1.5.3 on, customers and model configs from 1.5.9 on".to_owned(),
    }
}
