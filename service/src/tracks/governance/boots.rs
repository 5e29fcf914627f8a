//! What would stop a later boot of Bifrost's, or make it lose something, although this track's own migrations pass
//! (`docs/upstream/bifrost.md` §2.2, §9.3, §11.2, §12). Asked only where a gateway owns the database.

use tollgate_migration::governance::bifrost;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, mcp};
use tollgate_migration::{Context, Dialect, Ledger, Track};

use super::claims;
use crate::doctor::{Facts, Queries};
use crate::tracks::governance::budget::schema::{RATE_LIMITS, TEAMS};

fn ledger(context: &Context) -> &Ledger {
    context.ledger(Track::GOVERNANCE)
}

/// Whether one of the gateway's migrations is still before it.
fn is_to_come(context: &Context, id: &str) -> bool {
    ledger(context).owns() && !ledger(context).has(id)
}

/// A budget of two teams, or of two of customer, team, provider and model config (G021).
pub(super) fn shared_without_a_key(context: &Context, _facts: &Facts) -> Queries {
    if !is_to_come(context, "add_customer_budgets_to_budgets_table") {
        return Queries::none();
    }
    claims::such(context, "others > 1")
}

/// Team names on which making them unique stops (G022).
pub(super) fn team_names(context: &Context, _facts: &Facts) -> Queries {
    let there = ["id", "name"]
        .iter()
        .all(|column| context.catalog.has_column(TEAMS, column));
    if !there || !is_to_come(context, "gov_unique_team_names") {
        return Queries::none();
    }
    // Counted by one sort: many teams may have the same name.
    let (prefix, stops) = match context.catalog.dialect {
        // The recreated table already has the unique index when the rows come back.
        Dialect::Sqlite => ("substr(id, 1, 8)", "1 = 1"),
        // Renamed by the first eight characters of the id: a shorter one panics, equal ones collide.
        Dialect::Postgres => ("left(id, 8)", "(length(id) < 8 OR alike > 1)"),
    };
    Queries::on(
        TEAMS,
        format!(
            "SELECT id FROM (SELECT id, count(*) OVER (PARTITION BY name) AS named, \
             count(*) OVER (PARTITION BY name, {prefix}) AS alike FROM {TEAMS} WHERE name IS NOT NULL) t \
             WHERE named > 1 AND {stops}"
        ),
    )
}

/// Virtual keys with two configs of one provider (G023).
pub(super) fn twin_configs(context: &Context, _facts: &Facts) -> Queries {
    let there = ["virtual_key_id", "provider"]
        .iter()
        .all(|column| context.catalog.has_column(PROVIDER_CONFIGS, column));
    if !there || !is_to_come(context, "migrate_virtual_key_governance_to_model_configs") {
        return Queries::none();
    }
    Queries::on(
        PROVIDER_CONFIGS,
        format!(
            "SELECT DISTINCT virtual_key_id AS id FROM {PROVIDER_CONFIGS} GROUP BY virtual_key_id, provider HAVING count(*) > 1"
        ),
    )
}

/// What stops the merge of OAuth tokens (G024).
pub(super) fn unmergeable(context: &Context, _facts: &Facts) -> Queries {
    let catalog = &context.catalog;
    if !is_to_come(context, "merge_oauth_token_tables") {
        return Queries::none();
    }
    let mut found = Queries::none();
    if ["id", "oauth_config_id"]
        .iter()
        .all(|column| catalog.has_column(mcp::CLIENTS, column))
    {
        found.push(
            mcp::CLIENTS,
            format!(
                "SELECT c.id AS id FROM {clients} c WHERE c.oauth_config_id IN (SELECT oauth_config_id FROM {clients} \
                 WHERE oauth_config_id IS NOT NULL AND oauth_config_id <> '' GROUP BY oauth_config_id HAVING count(*) > 1)",
                clients = mcp::CLIENTS
            ),
        );
    }
    if catalog.has_column(mcp::TOKENS, "auth_mode") {
        let mut arms = vec![format!(
            "SELECT id FROM {} WHERE auth_mode IS NULL OR auth_mode = ''",
            mcp::TOKENS
        )];
        arms.extend(mcp::duplicate_bindings(context, mcp::Kind::OAuth));
        found.push(mcp::TOKENS, arms.join(" UNION "));
    }
    found
}

/// A column that the boots of 1.5.3 to 1.5.8 drop, and stop where it is missing (G025).
pub(crate) fn dropped_flags(context: &Context) -> Vec<&'static str> {
    let ledger = ledger(context);
    if context.catalog.dialect == Dialect::Sqlite
        || !ledger.has("migrate_calendar_aligned")
        || ledger.has("drop_legacy_calendar_aligned_columns")
    {
        return Vec::new();
    }
    [BUDGETS, RATE_LIMITS]
        .into_iter()
        .filter(|table| {
            context.catalog.has_table(table)
                && !context.catalog.has_column(table, "calendar_aligned")
        })
        .collect()
}

/// The same as queries: one object per table.
pub(super) fn missing_flags(context: &Context, _facts: &Facts) -> Queries {
    dropped_flags(context)
        .into_iter()
        .map(|table| (table, format!("SELECT '{table}.calendar_aligned' AS id")))
        .collect()
}

/// Whether a boot of a version, by its stage, is one of that release or a later one.
pub(super) fn is_past(release: &str, target: i64) -> bool {
    bifrost::parse(release).is_some_and(|stage| i64::try_from(stage).is_ok_and(|at| at <= target))
}
