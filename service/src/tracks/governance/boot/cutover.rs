//! The move of governance to model configs, as the boots of 1.5.9 and 1.5.12 make it (`docs/upstream/bifrost.md` §11), with what it
//! loses: two configs of one provider merge, and a budget that a model config has already keeps its key too.

use tollgate_migration::ddl::Type::{Bool, Time, Varchar};
use tollgate_migration::ddl::{TableSpec, column};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::plan::Blocks;
use tollgate_migration::plan_builder::PlanBuilder;
use tollgate_migration::{Context, Dialect};

use super::{flag, write};
use crate::tracks::governance::budget::schema::CUSTOMERS;
use crate::tracks::governance::shape::{MODEL_CONFIGS, PROVIDERS};

/// A new id.
fn uuid(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "CAST(gen_random_uuid() AS text)",
        Dialect::Sqlite => "lower(hex(randomblob(16)))",
    }
}

/// The column of a table, or what stands for it where it is not there.
fn or(live: &Context, table: &str, alias: &str, name: &str, else_: &str) -> String {
    if live.catalog.has_column(table, name) {
        format!("{alias}.{name}")
    } else {
        else_.to_owned()
    }
}

/// Every model config is everybody's. Where the table is not there, no version before has made one.
pub(super) fn scopes(live: &Context, builder: &mut PlanBuilder) {
    let scope = column("scope", Varchar(50)).default("'global'");
    let scope_id = column("scope_id", Varchar(255));
    if live.catalog.has_table(MODEL_CONFIGS) {
        builder.add_column(MODEL_CONFIGS, &scope, None, None);
        builder.add_column(MODEL_CONFIGS, &scope_id, None, None);
        // A model and provider are no longer everybody's alone.
        builder.statement(
            "DROP INDEX IF EXISTS idx_model_provider".to_owned(),
            "the gateway's own",
            Blocks::Everyone,
        );
        return;
    }
    builder.create_table(&TableSpec {
        name: MODEL_CONFIGS.to_owned(),
        columns: vec![
            column("id", Varchar(255)).not_null(),
            column("model_name", Varchar(255)).not_null(),
            column("provider", Varchar(50)),
            column("budget_id", Varchar(255)),
            column("rate_limit_id", Varchar(255)),
            column("config_hash", Varchar(255)),
            scope,
            scope_id,
            column("calendar_aligned", Bool).default("false"),
            column("created_at", Time),
            column("updated_at", Time),
        ],
        primary_key: vec!["id".to_owned()],
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        indexes: Vec::new(),
    });
}

pub(super) fn providers(live: &Context, builder: &mut PlanBuilder) {
    let has = |name: &str| live.catalog.has_column(PROVIDERS, name);
    if !has("budget_id") || !has("rate_limit_id") || !has("name") {
        return;
    }
    let wildcard = "m.scope = 'global' AND m.model_name = '*' AND m.provider = p.name";
    let created = or(live, PROVIDERS, "p", "created_at", "CURRENT_TIMESTAMP");
    let updated = or(live, PROVIDERS, "p", "updated_at", "CURRENT_TIMESTAMP");
    // What is there already gets what it lacks; the rest of the provider's is nobody's then.
    let slot = |name: &str| {
        format!(
            "{name} = COALESCE(NULLIF({name}, ''), (SELECT p.{name} FROM {PROVIDERS} p WHERE p.name = {MODEL_CONFIGS}.provider))"
        )
    };
    write(
        builder,
        MODEL_CONFIGS,
        format!(
            "UPDATE {MODEL_CONFIGS} SET {}, {} WHERE scope = 'global' AND model_name = '*'",
            slot("budget_id"),
            slot("rate_limit_id")
        ),
    );
    write(
        builder,
        MODEL_CONFIGS,
        format!(
            "INSERT INTO {MODEL_CONFIGS} (id, model_name, provider, budget_id, rate_limit_id, scope, created_at, updated_at) \
             SELECT {}, '*', p.name, NULLIF(p.budget_id, ''), NULLIF(p.rate_limit_id, ''), 'global', {created}, {updated} \
             FROM {PROVIDERS} p WHERE (p.budget_id <> '' OR p.rate_limit_id <> '') \
             AND NOT EXISTS (SELECT 1 FROM {MODEL_CONFIGS} m WHERE {wildcard})",
            uuid(builder.dialect())
        ),
    );
    write(
        builder,
        PROVIDERS,
        format!(
            "UPDATE {PROVIDERS} SET budget_id = NULL, rate_limit_id = NULL WHERE budget_id IS NOT NULL OR rate_limit_id IS NOT NULL"
        ),
    );
}

pub(super) fn budgets_of_models(_live: &Context, builder: &mut PlanBuilder) {
    builder.add_column(
        BUDGETS,
        &column("model_config_id", Varchar(255)),
        None,
        None,
    );
    write(
        builder,
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET model_config_id = (SELECT min(m.id) FROM {MODEL_CONFIGS} m WHERE m.budget_id = {BUDGETS}.id) \
             WHERE model_config_id IS NULL AND EXISTS (SELECT 1 FROM {MODEL_CONFIGS} m WHERE m.budget_id = {BUDGETS}.id)"
        ),
    );
}

pub(super) fn flags(_live: &Context, builder: &mut PlanBuilder) {
    flag(builder, MODEL_CONFIGS, "calendar_aligned");
}

/// Those of the key, then those of its provider configs.
pub(super) fn keys(live: &Context, builder: &mut PlanBuilder) {
    let id = uuid(builder.dialect());
    let created = or(live, VIRTUAL_KEYS, "v", "created_at", "CURRENT_TIMESTAMP");
    let updated = or(live, VIRTUAL_KEYS, "v", "updated_at", "CURRENT_TIMESTAMP");
    let columns = "id, model_name, provider, rate_limit_id, scope, scope_id, calendar_aligned, created_at, updated_at";
    let own = format!(
        "m.scope = 'virtual_key' AND m.model_name = '*' AND m.scope_id = {BUDGETS}.virtual_key_id AND COALESCE(m.provider, '') = ''"
    );
    let limit = or(live, VIRTUAL_KEYS, "v", "rate_limit_id", "NULL");
    write(
        builder,
        MODEL_CONFIGS,
        format!(
            "INSERT INTO {MODEL_CONFIGS} ({columns}) SELECT {id}, '*', NULL, NULLIF({limit}, ''), 'virtual_key', v.id, \
             v.calendar_aligned, {created}, {updated} FROM {VIRTUAL_KEYS} v WHERE {limit} <> '' \
             OR EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.virtual_key_id = v.id)"
        ),
    );
    move_budgets(builder, "virtual_key_id", &own);
    let limit = or(live, PROVIDER_CONFIGS, "c", "rate_limit_id", "NULL");
    write(
        builder,
        MODEL_CONFIGS,
        format!(
            "INSERT INTO {MODEL_CONFIGS} ({columns}) SELECT {id}, '*', g.provider, g.rate_limit_id, 'virtual_key', v.id, \
             v.calendar_aligned, {created}, {updated} FROM {VIRTUAL_KEYS} v JOIN (SELECT DISTINCT c.virtual_key_id, c.provider, \
             (SELECT NULLIF({last}, '') FROM {PROVIDER_CONFIGS} l WHERE l.virtual_key_id = c.virtual_key_id \
             AND l.provider = c.provider AND {last} <> '' ORDER BY l.id DESC LIMIT 1) AS rate_limit_id \
             FROM {PROVIDER_CONFIGS} c WHERE {limit} <> '' OR EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.provider_config_id = c.id)) g \
             ON g.virtual_key_id = v.id",
            last = limit.replace("c.", "l.")
        ),
    );
    let of_config = format!(
        "m.scope = 'virtual_key' AND m.model_name = '*' AND EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c \
         WHERE c.id = {BUDGETS}.provider_config_id AND c.virtual_key_id = m.scope_id AND c.provider = m.provider)"
    );
    move_budgets(builder, "provider_config_id", &of_config);
    for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS] {
        if live.catalog.has_column(table, "rate_limit_id") {
            write(
                builder,
                table,
                format!("UPDATE {table} SET rate_limit_id = NULL WHERE rate_limit_id IS NOT NULL"),
            );
        }
    }
}

/// A budget that has a model config already keeps its owner too.
fn move_budgets(builder: &mut PlanBuilder, column: &str, its: &str) {
    write(
        builder,
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET model_config_id = (SELECT m.id FROM {MODEL_CONFIGS} m WHERE {its}), {column} = NULL \
             WHERE {column} IS NOT NULL AND model_config_id IS NULL AND EXISTS (SELECT 1 FROM {MODEL_CONFIGS} m WHERE {its})"
        ),
    );
}

pub(super) fn customer_flags(live: &Context, builder: &mut PlanBuilder) {
    if live.catalog.has_table(CUSTOMERS) {
        flag(builder, CUSTOMERS, "calendar_aligned");
    }
}

/// Stops on a budget that somebody else has.
pub(super) fn customers(live: &Context, builder: &mut PlanBuilder) {
    builder.add_column(BUDGETS, &column("customer_id", Varchar(255)), None, None);
    if !live.catalog.has_column(CUSTOMERS, "budget_id") {
        return;
    }
    let others: Vec<String> = [
        "virtual_key_id",
        "provider_config_id",
        "team_id",
        "model_config_id",
    ]
    .into_iter()
    .filter(|column| live.catalog.has_column(BUDGETS, column))
    .map(|column| format!("b.{column} IS NOT NULL"))
    .collect();
    builder.guard(
        "G021",
        BUDGETS,
        format!(
            "SELECT b.id AS id FROM {BUDGETS} b JOIN {CUSTOMERS} c ON c.budget_id = b.id WHERE {}",
            others.join(" OR ")
        ),
    );
    write(
        builder,
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET customer_id = (SELECT c.id FROM {CUSTOMERS} c WHERE c.budget_id = {BUDGETS}.id) \
             WHERE customer_id IS NULL AND EXISTS (SELECT 1 FROM {CUSTOMERS} c WHERE c.budget_id = {BUDGETS}.id)"
        ),
    );
}

/// Later ones of a name get a number behind it.
pub(super) fn customer_names(live: &Context, builder: &mut PlanBuilder) {
    if !live.catalog.has_column(CUSTOMERS, "name") {
        return;
    }
    write(
        builder,
        CUSTOMERS,
        format!(
            "UPDATE {CUSTOMERS} SET name = {CUSTOMERS}.name || '-' || CAST(ranked.place - 1 AS text) FROM (SELECT id, row_number() OVER \
             (PARTITION BY name ORDER BY id) AS place FROM {CUSTOMERS}) ranked \
             WHERE ranked.id = {CUSTOMERS}.id AND ranked.place > 1"
        ),
    );
}

pub(super) fn customer_references(live: &Context, builder: &mut PlanBuilder) {
    if live.catalog.has_column(CUSTOMERS, "budget_id") {
        write(
            builder,
            CUSTOMERS,
            format!("UPDATE {CUSTOMERS} SET budget_id = NULL WHERE budget_id IS NOT NULL"),
        );
    }
}
