//! The legacy tables of `docs/upstream/bifrost.md` §1, as a fresh install of that time has them.

use crate::ddl::Type::{self, Amount, BigInt, Bool, Serial, Text, Time, Varchar};
use crate::ddl::{
    ColumnSpec, ForeignKeySpec, IndexSpec, TableSpec, column, foreign_key, index, unique_index,
};

use crate::dialect::Dialect;

use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

const RATE_LIMITS: &str = "governance_rate_limits";
const TEAMS: &str = "governance_teams";
const CUSTOMERS: &str = "governance_customers";
/// Providers' keys, which virtual keys may use.
pub const KEYS: &str = "config_keys";
const PROVIDERS: &str = "config_providers";
const JOIN: &str = "governance_virtual_key_provider_config_keys";

pub(super) fn table(
    name: &str,
    primary_key: &[&str],
    columns: Vec<ColumnSpec>,
    foreign_keys: Vec<ForeignKeySpec>,
    indexes: Vec<IndexSpec>,
) -> TableSpec {
    TableSpec {
        name: name.to_owned(),
        columns,
        primary_key: primary_key.iter().map(|&key| key.to_owned()).collect(),
        foreign_keys,
        checks: Vec::new(),
        indexes,
    }
}

pub(super) fn id() -> ColumnSpec {
    column("id", Varchar(255)).not_null()
}

pub(super) fn name() -> ColumnSpec {
    column("name", Varchar(255)).not_null()
}

pub(super) fn reference(name: &str) -> ColumnSpec {
    column(name, Varchar(255))
}

pub(super) fn hash() -> ColumnSpec {
    column("config_hash", Varchar(255))
}

pub(super) fn encryption() -> ColumnSpec {
    column("encryption_status", Varchar(20)).default("'plain_text'")
}

pub(super) fn flag(name: &str, default: &str) -> ColumnSpec {
    column(name, Bool).default(default)
}

/// `created_at` and `updated_at`, which end every table that has them.
pub(super) fn stamped(mut columns: Vec<ColumnSpec>) -> Vec<ColumnSpec> {
    columns.push(column("created_at", Time).not_null());
    columns.push(column("updated_at", Time).not_null());
    columns
}

/// gorm's default name, `idx_<table>_<column>`.
pub(super) fn plain(table: &str, columns: &[&str]) -> Vec<IndexSpec> {
    columns
        .iter()
        .map(|&column| index(&format!("idx_{table}_{column}"), &[column]))
        .collect()
}

/// The tables in an order in which each one's parents come first.
pub fn legacy(dialect: Dialect) -> Vec<TableSpec> {
    vec![
        budgets(),
        rate_limits(),
        customers(),
        teams(),
        virtual_keys(),
        providers(),
        keys(),
        provider_configs(),
        join(dialect),
    ]
}

/// What later releases up to 1.5.8 add to those tables and nothing has to be moved for, by table.
pub fn described_since() -> Vec<TableSpec> {
    let addition =
        |name, column: ColumnSpec, indexes| table(name, &[], vec![column], vec![], indexes);
    vec![
        addition(
            TEAMS,
            reference("source_id"),
            vec![unique_index(
                "idx_governance_teams_source_id",
                &["source_id"],
            )],
        ),
        addition(
            VIRTUAL_KEYS,
            reference("created_by_user_id"),
            vec![index("idx_virtual_key_created_by", &["created_by_user_id"])],
        ),
        addition(PROVIDER_CONFIGS, column("blacklisted_models", Text), vec![]),
    ]
}

fn budgets() -> TableSpec {
    table(
        BUDGETS,
        &["id"],
        stamped(vec![
            id(),
            column("max_limit", Amount).not_null(),
            column("reset_duration", Varchar(50)).not_null(),
            column("last_reset", Time),
            column("current_usage", Amount).default("0"),
            flag("calendar_aligned", "false"),
            hash(),
        ]),
        vec![],
        plain(BUDGETS, &["last_reset", "created_at", "updated_at"]),
    )
}

fn rate_limits() -> TableSpec {
    let mut columns = vec![id()];
    for kind in ["token", "request"] {
        columns.push(column(&format!("{kind}_max_limit"), BigInt));
        columns.push(column(&format!("{kind}_reset_duration"), Varchar(50)));
        columns.push(column(&format!("{kind}_current_usage"), BigInt).default("0"));
        columns.push(column(&format!("{kind}_last_reset"), Time));
    }
    columns.push(hash());
    table(
        RATE_LIMITS,
        &["id"],
        stamped(columns),
        vec![],
        plain(
            RATE_LIMITS,
            &[
                "token_last_reset",
                "request_last_reset",
                "created_at",
                "updated_at",
            ],
        ),
    )
}

fn customers() -> TableSpec {
    table(
        CUSTOMERS,
        &["id"],
        stamped(vec![
            id(),
            name(),
            reference("budget_id"),
            reference("rate_limit_id"),
            hash(),
        ]),
        vec![
            foreign_key("fk_governance_customers_budget", "budget_id", BUDGETS, "id"),
            foreign_key(
                "fk_governance_customers_rate_limit",
                "rate_limit_id",
                RATE_LIMITS,
                "id",
            ),
        ],
        plain(
            CUSTOMERS,
            &["budget_id", "rate_limit_id", "created_at", "updated_at"],
        ),
    )
}

fn teams() -> TableSpec {
    table(
        TEAMS,
        &["id"],
        stamped(vec![
            id(),
            name(),
            reference("customer_id"),
            reference("budget_id"),
            reference("rate_limit_id"),
            column("profile", Text),
            column("config", Text),
            column("claims", Text),
            hash(),
        ]),
        vec![
            foreign_key(
                "fk_governance_customers_teams",
                "customer_id",
                CUSTOMERS,
                "id",
            ),
            foreign_key("fk_governance_teams_budget", "budget_id", BUDGETS, "id"),
            foreign_key(
                "fk_governance_teams_rate_limit",
                "rate_limit_id",
                RATE_LIMITS,
                "id",
            ),
        ],
        plain(
            TEAMS,
            &[
                "customer_id",
                "budget_id",
                "rate_limit_id",
                "created_at",
                "updated_at",
            ],
        ),
    )
}

fn virtual_keys() -> TableSpec {
    let mut indexes = vec![
        unique_index("idx_virtual_key_name", &["name"]),
        unique_index("idx_virtual_key_value", &["value"]),
        unique_index("idx_virtual_key_value_hash", &["value_hash"]),
    ];
    indexes.extend(plain(
        VIRTUAL_KEYS,
        &[
            "team_id",
            "customer_id",
            "budget_id",
            "rate_limit_id",
            "created_at",
            "updated_at",
        ],
    ));
    table(
        VIRTUAL_KEYS,
        &["id"],
        stamped(vec![
            id(),
            name(),
            column("description", Text),
            column("value", Text).not_null(),
            flag("is_active", "true"),
            reference("team_id"),
            reference("customer_id"),
            reference("budget_id"),
            reference("rate_limit_id"),
            hash(),
            encryption(),
            column("value_hash", Varchar(64)),
        ]),
        vec![
            foreign_key("fk_governance_teams_virtual_keys", "team_id", TEAMS, "id"),
            foreign_key(
                "fk_governance_customers_virtual_keys",
                "customer_id",
                CUSTOMERS,
                "id",
            ),
            foreign_key(
                "fk_governance_virtual_keys_budget",
                "budget_id",
                BUDGETS,
                "id",
            ),
            foreign_key(
                "fk_governance_virtual_keys_rate_limit",
                "rate_limit_id",
                RATE_LIMITS,
                "id",
            ),
        ],
        indexes,
    )
}

fn provider_configs() -> TableSpec {
    // Upstream has each of them twice.
    let mut indexes = plain(PROVIDER_CONFIGS, &["budget_id", "rate_limit_id"]);
    indexes.push(index("idx_provider_config_budget", &["budget_id"]));
    indexes.push(index("idx_provider_config_rate_limit", &["rate_limit_id"]));
    table(
        PROVIDER_CONFIGS,
        &[],
        vec![
            column("id", Serial),
            column("virtual_key_id", Varchar(255)).not_null(),
            column("provider", Varchar(50)).not_null(),
            column("weight", Amount),
            column("allowed_models", Text),
            flag("allow_all_keys", "false"),
            reference("budget_id"),
            reference("rate_limit_id"),
        ],
        vec![
            foreign_key(
                "fk_governance_virtual_keys_provider_configs",
                "virtual_key_id",
                VIRTUAL_KEYS,
                "id",
            )
            .cascade(),
            foreign_key(
                "fk_governance_virtual_key_provider_configs_budget",
                "budget_id",
                BUDGETS,
                "id",
            ),
            foreign_key(
                "fk_governance_virtual_key_provider_configs_rate_limit",
                "rate_limit_id",
                RATE_LIMITS,
                "id",
            ),
        ],
        indexes,
    )
}

fn join(dialect: Dialect) -> TableSpec {
    // Too long for PostgreSQL, and shortened differently for each: the gateway's boot looks a key up by its name.
    let to_config = match dialect {
        Dialect::Postgres => "fk_governance_virtual_key_provider_config_keys_table_vi9ac4e889",
        Dialect::Sqlite => "fk_governance_virtual_key_provider_config_keys_table_vir9ac4e889",
    };
    table(
        JOIN,
        &["table_virtual_key_provider_config_id", "table_key_id"],
        vec![
            column("table_virtual_key_provider_config_id", BigInt).not_null(),
            column("table_key_id", BigInt).not_null(),
        ],
        vec![
            foreign_key(
                to_config,
                "table_virtual_key_provider_config_id",
                PROVIDER_CONFIGS,
                "id",
            )
            .cascade(),
            foreign_key(
                "fk_governance_virtual_key_provider_config_keys_table_key",
                "table_key_id",
                KEYS,
                "id",
            )
            .cascade(),
        ],
        vec![unique_index(
            "idx_vk_provider_config_key",
            &["table_virtual_key_provider_config_id", "table_key_id"],
        )],
    )
}

/// What each provider's keys carry beside the value; all of it may be NULL. Every migration of the gateway's that reads a
/// key reads them all, so its boot on PostgreSQL stops where one is not there.
pub const OF_PROVIDERS: [(&str, Type); 22] = [
    ("azure_endpoint", Text),
    ("azure_client_id", Text),
    ("azure_client_secret", Text),
    ("azure_tenant_id", Text),
    ("azure_scopes", Text),
    ("vertex_project_id", Text),
    ("vertex_project_number", Text),
    ("vertex_region", Text),
    ("vertex_auth_credentials", Text),
    ("bedrock_access_key", Text),
    ("bedrock_secret_key", Text),
    ("bedrock_session_token", Text),
    ("bedrock_region", Text),
    ("bedrock_arn", Text),
    ("bedrock_role_arn", Text),
    ("bedrock_external_id", Text),
    ("bedrock_role_session_name", Text),
    ("bedrock_batch_s3_config_json", Text),
    ("vllm_url", Text),
    ("vllm_model_name", Varchar(255)),
    ("ollama_url", Text),
    ("sgl_url", Text),
];

fn keys() -> TableSpec {
    let mut indexes = vec![
        unique_index("idx_key_name", &["name"]),
        unique_index("idx_key_id", &["key_id"]),
    ];
    indexes.extend(plain(
        KEYS,
        &["provider_id", "provider", "created_at", "updated_at"],
    ));
    let mut columns = vec![
        column("id", Serial),
        name(),
        column("provider_id", BigInt).not_null(),
        column("provider", Varchar(50)),
        column("key_id", Varchar(255)).not_null(),
        column("value", Text).not_null(),
        column("models_json", Text),
        column("blacklisted_models_json", Text),
        column("weight", Amount),
        flag("enabled", "true"),
        flag("use_for_batch_api", "false"),
        column("aliases_json", Text),
        column("status", Varchar(50)).default("'unknown'"),
        column("description", Text),
        column("replicate_use_deployments_endpoint", Bool),
        hash(),
        encryption(),
    ];
    columns.extend(OF_PROVIDERS.map(|(name, kind)| column(name, kind)));
    table(
        KEYS,
        &[],
        stamped(columns),
        vec![foreign_key("fk_config_providers_keys", "provider_id", PROVIDERS, "id").cascade()],
        indexes,
    )
}

fn providers() -> TableSpec {
    let mut indexes = vec![
        unique_index("idx_config_providers_name", &["name"]),
        index("idx_provider_budget", &["budget_id"]),
        index("idx_provider_rate_limit", &["rate_limit_id"]),
    ];
    indexes.extend(plain(PROVIDERS, &["created_at", "updated_at"]));
    table(
        PROVIDERS,
        &[],
        stamped(vec![
            column("id", Serial),
            column("name", Varchar(50)).not_null(),
            column("network_config_json", Text),
            column("concurrency_buffer_json", Text),
            column("proxy_config_json", Text),
            column("custom_provider_config_json", Text),
            column("open_ai_config_json", Text),
            column("send_back_raw_request", Bool),
            column("send_back_raw_response", Bool),
            column("store_raw_request_response", Bool),
            reference("budget_id"),
            reference("rate_limit_id"),
            column("status", Varchar(50)).default("'unknown'"),
            column("description", Text),
            hash(),
            encryption(),
        ]),
        vec![
            foreign_key("fk_config_providers_budget", "budget_id", BUDGETS, "id"),
            foreign_key(
                "fk_config_providers_rate_limit",
                "rate_limit_id",
                RATE_LIMITS,
                "id",
            ),
        ],
        indexes,
    )
}
