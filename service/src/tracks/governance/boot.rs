//! Bifrost's own migrations, as far as they change rows that a snapshot covers (`docs/upstream/bifrost.md` §2.1 and §9.3).

mod cutover;
mod merge;

use sea_orm::DbErr;
use tollgate_migration::ddl::Type::{BigInt, Bool, Text, Varchar};
use tollgate_migration::ddl::{column, index, unique_index};
use tollgate_migration::governance::bifrost;
use tollgate_migration::governance::{BUDGETS, KEYS, PROVIDER_CONFIGS, VIRTUAL_KEYS, mcp};
use tollgate_migration::ledger::{MIGRATIONS, Target};
use tollgate_migration::plan::Blocks;
use tollgate_migration::plan_builder::PlanBuilder;
use tollgate_migration::{Context, Dialect};

use crate::connection::Connection;
use crate::rehearse::boot::{plainly, run, steps};
use crate::tracks::governance::budget::schema::{RATE_LIMITS, TEAMS};
use crate::tracks::governance::shape::PROVIDERS;

const OF_CONFIGS: &str = "governance_virtual_key_provider_config_keys";

/// One of Bifrost's migrations: its id, the release that brought it, and its work.
type Step = (&'static str, &'static str, fn(&Context, &mut PlanBuilder));

/// In the order in which it runs them.
const BIFROST: &[Step] = &[
    (
        "add_allow_all_keys_to_provider_config",
        "1.5.0-prerelease1",
        allow_all_keys,
    ),
    (
        "backfill_empty_virtual_key_configs",
        "1.5.0-prerelease1",
        fill_empty_keys,
    ),
    (
        "backfill_allowed_models_wildcard",
        "1.5.0-prerelease1",
        wildcards,
    ),
    ("add_multi_budget_tables", "1.5.0-prerelease2", multi_budget),
    ("migrate_calendar_aligned", "1.5.0-prerelease4", flags_again),
    (
        "add_team_budgets_to_budgets_table",
        "1.5.0-prerelease4",
        team_budgets,
    ),
    (
        "convert_mcp_client_tool_sync_interval_minutes_to_seconds",
        "1.5.0-prerelease6",
        seconds,
    ),
    ("gov_unique_team_names", "1.5.0", team_names),
    ("add_team_calendar_aligned_column", "1.5.3", team_flags),
    ("drop_legacy_calendar_aligned_columns", "1.5.3", drop_flags),
    (
        "backfill_vk_provider_config_blacklisted_models",
        "1.5.5",
        blacklists,
    ),
    ("add_model_config_scope_columns", "1.5.9", cutover::scopes),
    (
        "migrate_provider_governance_to_model_configs",
        "1.5.9",
        cutover::providers,
    ),
    (
        "add_budget_model_config_id_column",
        "1.5.9",
        cutover::budgets_of_models,
    ),
    (
        "add_model_config_calendar_aligned_column",
        "1.5.9",
        cutover::flags,
    ),
    (
        "migrate_virtual_key_governance_to_model_configs",
        "1.5.9",
        cutover::keys,
    ),
    (
        "add_customer_calendar_aligned_column",
        "1.5.9",
        cutover::customer_flags,
    ),
    (
        "add_customer_budgets_to_budgets_table",
        "1.5.9",
        cutover::customers,
    ),
    (
        "add_customer_name_unique_constraint_dedup",
        "1.5.12",
        cutover::customer_names,
    ),
    (
        "null_legacy_customer_budget_id_refs",
        "1.5.12",
        cutover::customer_references,
    ),
    (
        "merge_oauth_token_tables",
        "2.0.0-prerelease1",
        merge::tokens,
    ),
    (
        "create_mcp_oauth_flows_table",
        "2.0.0-prerelease1",
        merge::flows,
    ),
];

pub(super) async fn boot(connection: &Connection, target: &Target) -> Result<(), DbErr> {
    let dialect = connection.dialect();
    for (id, release, work) in BIFROST {
        let brought = bifrost::parse(release).and_then(|stage| i64::try_from(stage).ok());
        let live = Context::read(connection).await?;
        if live.upstream_ran(id) || brought.is_none_or(|stage| stage > target.at) {
            continue;
        }
        let mut builder = PlanBuilder::new(&live.catalog);
        work(&live, &mut builder);
        let mut pieces = steps(&builder.finish().0);
        pieces.push((
            format!(
                "INSERT INTO {MIGRATIONS} (id) VALUES ({})",
                dialect.text(id)
            ),
            false,
        ));
        run(connection, pieces)
            .await
            .map_err(|error| DbErr::Custom(format!("the gateway's {id} stops: {error}")))?;
    }
    // What else that release makes concerns no row here; its ledger says which one it is.
    let live = Context::read(connection).await?;
    match bifrost::mark(target.at).filter(|mark| !live.upstream_ran(mark)) {
        None => Ok(()),
        Some(mark) => {
            let sql = format!(
                "INSERT INTO {MIGRATIONS} (id) VALUES ({})",
                dialect.text(mark)
            );
            run(connection, plainly(vec![sql])).await
        }
    }
}

fn write(builder: &mut PlanBuilder, table: &str, sql: String) {
    builder.update(table, sql, "the gateway's own", Blocks::Rows);
}

fn flag(builder: &mut PlanBuilder, table: &str, name: &str) {
    builder.add_column(table, &column(name, Bool).default("false"), None, None);
}

fn allow_all_keys(live: &Context, builder: &mut PlanBuilder) {
    flag(builder, PROVIDER_CONFIGS, "allow_all_keys");
    let some = if live.catalog.has_table(OF_CONFIGS) {
        format!(
            " WHERE NOT EXISTS (SELECT 1 FROM {OF_CONFIGS} k \
             WHERE k.table_virtual_key_provider_config_id = {PROVIDER_CONFIGS}.id)"
        )
    } else {
        String::new()
    };
    let yes = builder.dialect().true_literal();
    write(
        builder,
        PROVIDER_CONFIGS,
        format!("UPDATE {PROVIDER_CONFIGS} SET allow_all_keys = {yes}{some}"),
    );
}

fn fill_empty_keys(live: &Context, builder: &mut PlanBuilder) {
    let yes = builder.dialect().true_literal();
    if live.catalog.has_column(PROVIDERS, "name") {
        write(
            builder,
            PROVIDER_CONFIGS,
            format!(
                "INSERT INTO {PROVIDER_CONFIGS} (virtual_key_id, provider, weight, allowed_models, allow_all_keys) \
                 SELECT v.id, p.name, 1, '[]', {yes} FROM {VIRTUAL_KEYS} v CROSS JOIN {PROVIDERS} p \
                 WHERE NOT EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c WHERE c.virtual_key_id = v.id)"
            ),
        );
    }
    if live.catalog.has_table(mcp::GRANTS) && live.catalog.has_table(mcp::CLIENTS) {
        write(
            builder,
            mcp::GRANTS,
            format!(
                "INSERT INTO {grants} (virtual_key_id, mcp_client_id, tools_to_execute) \
                 SELECT v.id, c.id, '[\"*\"]' FROM {VIRTUAL_KEYS} v CROSS JOIN {clients} c \
                 WHERE NOT EXISTS (SELECT 1 FROM {grants} g WHERE g.virtual_key_id = v.id)",
                grants = mcp::GRANTS,
                clients = mcp::CLIENTS,
            ),
        );
    }
}

fn wildcards(live: &Context, builder: &mut PlanBuilder) {
    for (table, name) in [(PROVIDER_CONFIGS, "allowed_models"), (KEYS, "models_json")] {
        if live.catalog.has_column(table, name) {
            write(
                builder,
                table,
                format!(
                    "UPDATE {table} SET {name} = '[\"*\"]' WHERE {name} IS NULL OR {name} IN ('[]', '')"
                ),
            );
        }
    }
}

fn multi_budget(live: &Context, builder: &mut PlanBuilder) {
    let catalog = &live.catalog;
    let dialect = builder.dialect();
    flag(builder, VIRTUAL_KEYS, "calendar_aligned");
    for (table, owner, kind) in [
        (VIRTUAL_KEYS, "virtual_key_id", Varchar(255)),
        (PROVIDER_CONFIGS, "provider_config_id", BigInt),
    ] {
        builder.add_column(BUDGETS, &column(owner, kind), None, None);
        builder.create_index(BUDGETS, &index(&format!("idx_{BUDGETS}_{owner}"), &[owner]));
        if catalog.has_column(table, "budget_id") {
            // A scalar sub-select, as the gateway's: two owners stop it on PostgreSQL, and one of them wins on SQLite.
            write(
                builder,
                BUDGETS,
                format!(
                    "UPDATE {BUDGETS} SET {owner} = (SELECT t.id FROM {table} t WHERE t.budget_id = {BUDGETS}.id) \
                     WHERE {owner} IS NULL AND EXISTS (SELECT 1 FROM {table} t WHERE t.budget_id = {BUDGETS}.id)"
                ),
            );
        }
    }
    if catalog.has_column(BUDGETS, "calendar_aligned") {
        write(
            builder,
            VIRTUAL_KEYS,
            format!(
                "UPDATE {VIRTUAL_KEYS} SET calendar_aligned = {} WHERE id IN (SELECT virtual_key_id FROM {BUDGETS} WHERE {})",
                dialect.true_literal(),
                dialect.is_true("calendar_aligned"),
            ),
        );
        // On SQLite the gateway's own statement is wrong until 1.5.9, and the column stays.
        if dialect == Dialect::Postgres {
            builder.drop_column(BUDGETS, "calendar_aligned");
        }
    }
    for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS] {
        builder.drop_column(table, "budget_id");
    }
}

fn flags_again(live: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let aligned = dialect.is_true("v.calendar_aligned");
    for (table, through) in [
        (BUDGETS, format!("v.id = {BUDGETS}.virtual_key_id")),
        (RATE_LIMITS, format!("v.rate_limit_id = {RATE_LIMITS}.id")),
    ] {
        if !live.catalog.has_table(table) {
            continue;
        }
        flag(builder, table, "calendar_aligned");
        if table == BUDGETS || live.catalog.has_column(VIRTUAL_KEYS, "rate_limit_id") {
            write(
                builder,
                table,
                format!(
                    "UPDATE {table} SET calendar_aligned = {} WHERE EXISTS \
                     (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {through} AND {aligned})",
                    dialect.true_literal()
                ),
            );
        }
    }
}

fn team_budgets(live: &Context, builder: &mut PlanBuilder) {
    builder.add_column(BUDGETS, &column("team_id", Varchar(255)), None, None);
    builder.create_index(
        BUDGETS,
        &index(&format!("idx_{BUDGETS}_team_id"), &["team_id"]),
    );
    if !live.catalog.has_column(TEAMS, "budget_id") {
        return;
    }
    builder.guard(
        "G002",
        BUDGETS,
        format!(
            "SELECT b.id AS id FROM {BUDGETS} b JOIN {TEAMS} t ON t.budget_id = b.id \
             WHERE b.virtual_key_id IS NOT NULL OR b.provider_config_id IS NOT NULL"
        ),
    );
    write(
        builder,
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET team_id = (SELECT t.id FROM {TEAMS} t WHERE t.budget_id = {BUDGETS}.id) \
             WHERE team_id IS NULL AND EXISTS (SELECT 1 FROM {TEAMS} t WHERE t.budget_id = {BUDGETS}.id)"
        ),
    );
    builder.drop_column(TEAMS, "budget_id");
}

fn seconds(live: &Context, builder: &mut PlanBuilder) {
    if live.catalog.has_column(mcp::CLIENTS, "tool_sync_interval") {
        write(
            builder,
            mcp::CLIENTS,
            format!(
                "UPDATE {} SET tool_sync_interval = tool_sync_interval * 60 WHERE tool_sync_interval > 0",
                mcp::CLIENTS
            ),
        );
    }
}

fn team_names(live: &Context, builder: &mut PlanBuilder) {
    if !live.catalog.has_column(TEAMS, "name") {
        return;
    }
    // SQLite's table is made again with the index before its rows come back: equal names stop it.
    if builder.dialect() == Dialect::Postgres {
        let oldest = if live.catalog.has_column(TEAMS, "created_at") {
            "created_at, id"
        } else {
            "id"
        };
        write(
            builder,
            TEAMS,
            format!(
                "UPDATE {TEAMS} SET name = {TEAMS}.name || '-' || left({TEAMS}.id, 8) FROM (SELECT id, row_number() OVER \
                 (PARTITION BY name ORDER BY {oldest}) AS place FROM {TEAMS}) ranked \
                 WHERE ranked.id = {TEAMS}.id AND ranked.place > 1"
            ),
        );
    }
    builder.create_index(
        TEAMS,
        &unique_index(&format!("idx_{TEAMS}_name"), &["name"]),
    );
}

fn team_flags(live: &Context, builder: &mut PlanBuilder) {
    if !live.catalog.has_table(TEAMS) {
        return;
    }
    flag(builder, TEAMS, "calendar_aligned");
    if live.catalog.has_column(BUDGETS, "calendar_aligned")
        && live.catalog.has_column(BUDGETS, "team_id")
    {
        let dialect = builder.dialect();
        write(
            builder,
            TEAMS,
            format!(
                "UPDATE {TEAMS} SET calendar_aligned = {} WHERE id IN (SELECT team_id FROM {BUDGETS} WHERE {})",
                dialect.true_literal(),
                dialect.is_true("calendar_aligned"),
            ),
        );
    }
}

fn drop_flags(_live: &Context, builder: &mut PlanBuilder) {
    for table in [BUDGETS, RATE_LIMITS] {
        builder.drop_column(table, "calendar_aligned");
    }
}

fn blacklists(_live: &Context, builder: &mut PlanBuilder) {
    builder.add_column(
        PROVIDER_CONFIGS,
        &column("blacklisted_models", Text),
        None,
        None,
    );
    write(
        builder,
        PROVIDER_CONFIGS,
        format!(
            "UPDATE {PROVIDER_CONFIGS} SET blacklisted_models = '[]' WHERE blacklisted_models IS NULL OR blacklisted_models = ''"
        ),
    );
}
