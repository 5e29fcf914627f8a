//! Calendar flags that the gateway's own migration cannot carry, noted before it and put back behind it.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::remembered::{self, KINDS, NOBODY, PROVIDER_CONFIG, Promoted};
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};
use tollgate_migration::{Context, Dialect};

use crate::connection::Connection;
use crate::database::existing;
use crate::report::{Change, Finding, Severity};
use crate::rows;
use crate::tracks::governance::budget::schema::{CUSTOMERS, TEAMS};
use crate::tracks::governance::shape::{MODEL_CONFIGS, has_budgets_of_model_configs};

pub(crate) use tollgate_migration::governance::remembered::TABLE;

/// Notes every flag that would be lost; answers the budgets that are noted for the first time.
pub(super) async fn note(connection: &Connection, live: &Context) -> Result<Vec<String>, DbErr> {
    let dialect = live.catalog.dialect;
    let Some(due) = remembered::due(&live.catalog, Promoted::Forgotten) else {
        return Ok(Vec::new());
    };
    let transaction = connection.begin().await?;
    if existing(&transaction, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        transaction
            .execute_unprepared(&remembered::create())
            .await?;
    }
    transaction
        .execute_unprepared(&remembered::strike(&due, Promoted::Forgotten))
        .await?;
    let new = texts(
        &transaction,
        dialect,
        format!(
            "SELECT due.budget AS id FROM ({due}) due WHERE NOT EXISTS (SELECT 1 FROM {TABLE} r \
             WHERE r.kind = due.kind AND r.owner = due.owner)"
        ),
    )
    .await?;
    transaction
        .execute_unprepared(&remembered::note(&due))
        .await?;
    transaction.commit().await?;
    Ok(new)
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Flags that are where they belong now.
    pub changes: Vec<Change>,
    /// Flags that this schema has no place for, by kind.
    pub without_a_place: Vec<Finding>,
}

/// Where a kind's flag belongs in the schema that is there now: each table, and the condition that a row `t` of it is due.
fn places(live: &Context, kind: &str) -> Vec<(&'static str, &'static str)> {
    let catalog = &live.catalog;
    // Between the versions that put the flag on budgets again and those that took it away, the budget's own counts.
    let on_budgets = catalog.has_column(BUDGETS, "calendar_aligned")
        && live.upstream_ran("migrate_calendar_aligned")
        && !live.upstream_ran("drop_legacy_calendar_aligned_columns");
    let moved = catalog.has_column(MODEL_CONFIGS, "calendar_aligned")
        && has_budgets_of_model_configs(|table, column| catalog.has_column(table, column));
    let of_the_owner: &[(&str, &str)] = match (kind, moved) {
        (PROVIDER_CONFIG, false) => &[(VIRTUAL_KEYS, "t.id = r.virtual_key")],
        // The model config that stands for it, alone: the key's own would align every budget of the key.
        (PROVIDER_CONFIG, true) => &[
            (
                MODEL_CONFIGS,
                "t.scope = 'virtual_key' AND t.id IN (SELECT b.model_config_id FROM governance_budgets b WHERE b.id = r.budget)",
            ),
            (
                VIRTUAL_KEYS,
                "t.id = r.virtual_key AND NOT EXISTS (SELECT 1 FROM governance_budgets b WHERE b.id = r.budget \
                 AND b.model_config_id IS NOT NULL)",
            ),
        ],
        ("team", _) => &[(TEAMS, "t.id = r.owner")],
        ("customer", _) => &[(CUSTOMERS, "t.id = r.owner")],
        ("model_config", true) => &[(MODEL_CONFIGS, "t.id = r.owner")],
        ("provider", true) => &[(
            MODEL_CONFIGS,
            "t.scope = 'global' AND t.id IN (SELECT b.model_config_id FROM governance_budgets b WHERE b.id = r.budget)",
        )],
        _ => &[],
    };
    of_the_owner
        .iter()
        .copied()
        .filter(|(table, _)| catalog.has_column(table, "calendar_aligned"))
        .chain(on_budgets.then_some((BUDGETS, "t.id = r.budget")))
        .collect()
}

/// Puts the flags to their owners' places, each once; what has none stays remembered.
pub(crate) async fn finish(connection: &Connection, live: &Context) -> Result<Finished, DbErr> {
    let dialect = live.catalog.dialect;
    let mut finished = Finished::default();
    if !live.catalog.has_table(TABLE) {
        return Ok(finished);
    }
    let transaction = connection.begin().await?;
    for kind in KINDS.map(|(kind, _)| kind).into_iter().chain([NOBODY]) {
        let places = places(live, kind);
        if places.is_empty() {
            let owners = texts(
                &transaction,
                dialect,
                format!("SELECT owner AS id FROM {TABLE} WHERE kind = '{kind}' ORDER BY owner"),
            )
            .await?;
            if !owners.is_empty() {
                finished.without_a_place.push(homeless(kind, owners));
            }
            continue;
        }
        for (table, condition) in &places {
            let due = condition.replace("t.", &format!("{table}."));
            let ids = texts(
                &transaction,
                dialect,
                format!(
                    "UPDATE {table} SET calendar_aligned = {true_literal} WHERE NOT ({aligned}) \
                     AND EXISTS (SELECT 1 FROM {TABLE} r WHERE r.kind = '{kind}' AND {due}) RETURNING CAST(id AS text) AS id",
                    true_literal = dialect.true_literal(),
                    aligned = dialect.is_true("calendar_aligned"),
                ),
            )
            .await?;
            if !ids.is_empty() {
                finished.changes.push(Change {
                    table: (*table).to_owned(),
                    action: "put back flag".to_owned(),
                    rows: ids.len() as u64,
                    sample_ids: ids.into_iter().take(10).collect(),
                });
            }
        }
        // A flag on a budget goes once more, with the column: it stays remembered until its owner has a place.
        let mut settled: Vec<String> = places
            .iter()
            .filter(|(table, _)| *table != BUDGETS)
            .map(|(table, condition)| {
                format!(
                    "EXISTS (SELECT 1 FROM {table} t WHERE {condition} AND {})",
                    dialect.is_true("t.calendar_aligned")
                )
            })
            .collect();
        if settled.is_empty() {
            continue;
        }
        // Who is gone needs no flag any more.
        settled.push(format!(
            "NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = r.budget)"
        ));
        let left = texts(
            &transaction,
            dialect,
            format!(
                "SELECT r.owner AS id FROM {TABLE} r WHERE r.kind = '{kind}' AND NOT ({}) ORDER BY r.owner",
                settled.join(" OR ")
            ),
        )
        .await?;
        transaction
            .execute_unprepared(&format!(
                "DELETE FROM {TABLE} AS r WHERE r.kind = '{kind}' AND ({})",
                settled.join(" OR ")
            ))
            .await?;
        if !left.is_empty() {
            finished.without_a_place.push(homeless(kind, left));
        }
    }
    transaction.commit().await?;
    Ok(finished)
}

async fn texts<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    sql: String,
) -> Result<Vec<String>, DbErr> {
    rows::column(connection, Statement::from_string(dialect.backend(), sql)).await
}

fn homeless(kind: &str, owners: Vec<String>) -> Finding {
    Finding {
        code: "G017".to_owned(),
        severity: Severity::Info,
        title: if kind == NOBODY {
            "a calendar flag of a budget that nobody has".to_owned()
        } else {
            format!(
                "a calendar flag of a {} without a place in this schema",
                kind.replace('_', " ")
            )
        },
        table: TABLE.to_owned(),
        column: None,
        rows: owners.len() as u64,
        sample_ids: owners.into_iter().take(10).collect(),
        effect: "it stays remembered; windows roll until then".to_owned(),
        resolve: if kind == NOBODY {
            "nothing to do: `migrate down` gives it back"
        } else {
            "run the command again on a later version of the gateway: teams have a place from 1.5.3 on, customers and model configs from 1.5.9 on"
        }
        .to_owned(),
    }
}
