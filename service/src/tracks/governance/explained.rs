//! What Bifrost's own migrations rewrite and insert (`docs/upstream/bifrost.md` §9.3).

use crate::module::Rewrite;

/// Migrations that compute hashes of configurations again; gorm writes `updated_at` with them.
const REHASH: &[&str] = &[
    "add_allow_all_keys_to_provider_config",
    "backfill_empty_virtual_key_configs",
    "backfill_allowed_models_wildcard",
    "drop_deployment_columns_and_add_aliases",
    "add_replicate_key_config_column",
    "add_team_budgets_to_budgets_table",
    "backfill_vk_provider_config_blacklisted_models",
];
const WILDCARD: &[&str] = &["backfill_allowed_models_wildcard"];
const TEAM_NAMES: &[&str] = &["gov_unique_team_names"];
const INTERVALS: &[&str] = &["convert_mcp_client_tool_sync_interval_minutes_to_seconds"];

/// The move of governance to model configs; what it moves is held against the facts of `moved.rs`.
const KEY_GOVERNANCE: &[&str] = &["migrate_virtual_key_governance_to_model_configs"];
const PROVIDER_GOVERNANCE: &[&str] = &["migrate_provider_governance_to_model_configs"];
const CUSTOMER_BUDGETS: &[&str] = &[
    "add_customer_budgets_to_budgets_table",
    "add_customer_name_unique_constraint_dedup",
    "null_legacy_customer_budget_id_refs",
];
const BARE_WILDCARD: &[&str] = &["repair_bare_wildcard_allowed_models"];

pub(super) const REWRITES: &[Rewrite] = &[
    Rewrite::any("governance_virtual_keys", "rate_limit_id", KEY_GOVERNANCE),
    Rewrite::any("governance_virtual_keys", "updated_at", KEY_GOVERNANCE),
    Rewrite::any(
        "governance_virtual_key_provider_configs",
        "rate_limit_id",
        KEY_GOVERNANCE,
    ),
    Rewrite::any("config_providers", "budget_id", PROVIDER_GOVERNANCE),
    Rewrite::any("config_providers", "rate_limit_id", PROVIDER_GOVERNANCE),
    Rewrite::any("config_providers", "updated_at", PROVIDER_GOVERNANCE),
    Rewrite::any(
        "governance_customers",
        "budget_id",
        &["null_legacy_customer_budget_id_refs"],
    ),
    Rewrite::any("governance_customers", "config_hash", CUSTOMER_BUDGETS),
    Rewrite::any("governance_customers", "updated_at", CUSTOMER_BUDGETS),
    Rewrite::any(
        "governance_customers",
        "name",
        &["add_customer_name_unique_constraint_dedup"],
    ),
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "allowed_models",
        ids: BARE_WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "blacklisted_models",
        ids: BARE_WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite::any("governance_virtual_keys", "config_hash", REHASH),
    Rewrite::any("governance_virtual_keys", "updated_at", REHASH),
    Rewrite::any("config_keys", "config_hash", REHASH),
    Rewrite::any("config_keys", "updated_at", REHASH),
    Rewrite::any(
        "config_keys",
        "aliases_json",
        &["drop_deployment_columns_and_add_aliases"],
    ),
    Rewrite::any("config_providers", "config_hash", REHASH),
    Rewrite::any("config_providers", "updated_at", REHASH),
    Rewrite::any("governance_teams", "config_hash", REHASH),
    Rewrite::any("governance_teams", "updated_at", REHASH),
    Rewrite::any("governance_teams", "name", TEAM_NAMES),
    Rewrite::any(
        "governance_virtual_key_provider_configs",
        "allow_all_keys",
        &["add_allow_all_keys_to_provider_config"],
    ),
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "allowed_models",
        ids: WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite {
        table: "config_keys",
        column: "models_json",
        ids: WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "blacklisted_models",
        ids: &["backfill_vk_provider_config_blacklisted_models"],
        value: Some("[]"),
    },
    Rewrite::any("config_mcp_clients", "tool_sync_interval", INTERVALS),
    Rewrite::any("config_mcp_clients", "updated_at", INTERVALS),
];

/// Rows that migrations and starts insert.
pub(super) const INSERTS: &[(&str, &[&str])] = &[
    (
        "governance_virtual_key_provider_configs",
        &["backfill_empty_virtual_key_configs"],
    ),
    (
        "governance_virtual_key_mcp_configs",
        &["backfill_empty_virtual_key_configs"],
    ),
    ("config_keys", &["add_ollama_sgl_config_columns"]),
];
