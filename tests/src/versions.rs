//! Databases as the versions of the gateways leave them, each from the facts of `docs/upstream/bifrost.md` §10 and `coder.md` A9: a
//! hand-written one of before, and what every later release changed on it.

use tollgate_migration::governance::mcp;

use crate::database::{Backend, TestDatabase};
use crate::fixture::{Calendar, Shape, coder, coder_at_502, legacy, recorded};

/// What a release of Bifrost's changed: ids of its ledger, statements of both backends, and dropped columns.
struct Release {
    version: &'static str,
    ids: &'static [&'static str],
    statements: &'static [&'static str],
    dropped: &'static [(&'static str, &'static str)],
}

const BUDGETS: &str = "governance_budgets";
const KEYS: &str = "governance_virtual_keys";
const CONFIGS: &str = "governance_virtual_key_provider_configs";
const TEAMS: &str = "governance_teams";

/// Oldest first. The columns of configs and keys that only concern the gateway are left out.
const RELEASES: &[Release] = &[
    Release {
        version: "1.4.24",
        ids: &["add_budget_calendar_aligned_column"],
        statements: &[],
        dropped: &[],
    },
    Release {
        version: "1.5.0-prerelease1",
        ids: &[
            "add_allow_all_keys_to_provider_config",
            "backfill_empty_virtual_key_configs",
            "backfill_allowed_models_wildcard",
        ],
        statements: &[],
        dropped: &[],
    },
    Release {
        version: "1.5.0-prerelease7",
        ids: &[
            "add_multi_budget_tables",
            "add_per_user_oauth_tables",
            "add_model_pricing_unique_index",
            "migrate_calendar_aligned",
            "add_team_budgets_to_budgets_table",
            "convert_mcp_client_tool_sync_interval_minutes_to_seconds",
            "make_oauth_token_expiry_nullable",
        ],
        statements: &[
            "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255) CONSTRAINT fk_governance_virtual_keys_budgets \
             REFERENCES governance_virtual_keys(id) ON DELETE CASCADE",
            "ALTER TABLE governance_budgets ADD COLUMN provider_config_id bigint \
             CONSTRAINT fk_governance_virtual_key_provider_configs_budgets \
             REFERENCES governance_virtual_key_provider_configs(id) ON DELETE CASCADE",
            "ALTER TABLE governance_budgets ADD COLUMN team_id varchar(255) CONSTRAINT fk_governance_teams_budgets \
             REFERENCES governance_teams(id) ON DELETE CASCADE",
            "ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false",
            "ALTER TABLE governance_rate_limits ADD COLUMN calendar_aligned boolean DEFAULT false",
            "UPDATE governance_budgets SET virtual_key_id = (SELECT v.id FROM governance_virtual_keys v \
             WHERE v.budget_id = governance_budgets.id)",
            "UPDATE governance_budgets SET provider_config_id = (SELECT c.id FROM governance_virtual_key_provider_configs c \
             WHERE c.budget_id = governance_budgets.id)",
            "UPDATE governance_budgets SET team_id = (SELECT t.id FROM governance_teams t WHERE t.budget_id = governance_budgets.id)",
            "CREATE TABLE oauth_user_tokens (id varchar(255) PRIMARY KEY, session_token varchar(255), \
             session_token_hash varchar(64), virtual_key_id varchar(255), user_id varchar(255), mcp_client_id varchar(255) NOT NULL, \
             oauth_config_id varchar(255) NOT NULL, access_token text NOT NULL, refresh_token text, token_type varchar(50) NOT NULL, \
             expires_at timestamp, scopes text, last_refreshed_at timestamp, encryption_status varchar(20), \
             created_at timestamp NOT NULL, updated_at timestamp NOT NULL)",
            "CREATE TABLE oauth_user_sessions (id varchar(255) PRIMARY KEY, mcp_client_id varchar(255) NOT NULL, \
             oauth_config_id varchar(255) NOT NULL, state varchar(255) NOT NULL, session_token varchar(255), \
             session_token_hash varchar(64), gateway_session_id varchar(255), virtual_key_id varchar(255), user_id varchar(255), \
             status varchar(50) NOT NULL, expires_at timestamp NOT NULL, created_at timestamp NOT NULL, updated_at timestamp NOT NULL)",
        ],
        dropped: &[
            (KEYS, "budget_id"),
            (CONFIGS, "budget_id"),
            (TEAMS, "budget_id"),
        ],
    },
    Release {
        version: "1.5.2",
        ids: &["gov_unique_team_names", "drop_allow_direct_keys_column_ddl"],
        statements: &["CREATE UNIQUE INDEX idx_governance_teams_name ON governance_teams (name)"],
        dropped: &[],
    },
    Release {
        version: "1.5.8",
        ids: &[
            "add_oauth_auth_mode_columns",
            "replace_oauth_session_token_with_session_id",
            "drop_legacy_oauth_server_tables",
            "drop_non_vk_oauth_user_rows",
            "add_team_calendar_aligned_column",
            "drop_legacy_calendar_aligned_columns",
            "add_created_by_user_id_column_for_virtual_keys",
            "backfill_vk_provider_config_blacklisted_models",
            "add_mcp_per_user_header_credentials_table",
            "add_mcp_per_user_header_flows_table",
        ],
        statements: &[
            "DROP TABLE oauth_user_tokens",
            "DROP TABLE oauth_user_sessions",
            "ALTER TABLE governance_teams ADD COLUMN calendar_aligned boolean DEFAULT false",
        ],
        dropped: &[
            (BUDGETS, "calendar_aligned"),
            ("governance_rate_limits", "calendar_aligned"),
        ],
    },
    Release {
        version: "1.5.9",
        ids: &[
            "add_model_config_scope_columns",
            "migrate_provider_governance_to_model_configs",
            "add_budget_model_config_id_column",
            "add_model_config_calendar_aligned_column",
            "migrate_virtual_key_governance_to_model_configs",
            "add_customer_calendar_aligned_column",
            "add_customer_budgets_to_budgets_table",
            "add_model_config_budgets_fk_constraint",
        ],
        statements: &[
            "CREATE TABLE governance_model_configs (id varchar(255) PRIMARY KEY, model_name varchar(255) NOT NULL, provider varchar(50), \
             budget_id varchar(255), rate_limit_id varchar(255), config_hash varchar(255), \
             scope varchar(50) NOT NULL DEFAULT 'global', scope_id varchar(255), calendar_aligned boolean NOT NULL DEFAULT false, \
             created_at timestamp NOT NULL, updated_at timestamp NOT NULL)",
            "CREATE UNIQUE INDEX idx_model_scope_provider ON governance_model_configs (scope, scope_id, model_name, provider)",
            "ALTER TABLE governance_budgets ADD COLUMN model_config_id varchar(255) CONSTRAINT fk_governance_model_configs_budgets \
             REFERENCES governance_model_configs(id) ON DELETE CASCADE",
            "ALTER TABLE governance_budgets ADD COLUMN customer_id varchar(255) CONSTRAINT fk_governance_customers_budgets \
             REFERENCES governance_customers(id) ON DELETE CASCADE",
            "ALTER TABLE governance_customers ADD COLUMN calendar_aligned boolean DEFAULT false",
            // What §11.1 moves, in its order: providers, keys, provider configs, customers.
            "INSERT INTO governance_model_configs (id, model_name, provider, budget_id, scope, created_at, updated_at) \
             SELECT 'm-' || p.name, '*', p.name, p.budget_id, 'global', p.created_at, p.updated_at FROM config_providers p \
             WHERE p.budget_id IS NOT NULL",
            "UPDATE governance_budgets SET model_config_id = (SELECT m.id FROM governance_model_configs m \
             WHERE m.budget_id = governance_budgets.id)",
            "UPDATE config_providers SET budget_id = NULL, rate_limit_id = NULL",
            "INSERT INTO governance_model_configs (id, model_name, rate_limit_id, scope, scope_id, calendar_aligned, created_at, updated_at) \
             SELECT 'm-' || v.id, '*', v.rate_limit_id, 'virtual_key', v.id, v.calendar_aligned, v.created_at, v.updated_at \
             FROM governance_virtual_keys v WHERE v.rate_limit_id IS NOT NULL \
             OR EXISTS (SELECT 1 FROM governance_budgets b WHERE b.virtual_key_id = v.id)",
            "UPDATE governance_budgets SET model_config_id = 'm-' || virtual_key_id, virtual_key_id = NULL WHERE virtual_key_id IS NOT NULL",
            "UPDATE governance_virtual_keys SET rate_limit_id = NULL",
            "INSERT INTO governance_model_configs (id, model_name, provider, rate_limit_id, scope, scope_id, calendar_aligned, created_at, \
             updated_at) SELECT 'm-' || v.id || '-' || c.provider, '*', c.provider, c.rate_limit_id, 'virtual_key', v.id, \
             v.calendar_aligned, v.created_at, v.updated_at FROM governance_virtual_key_provider_configs c \
             JOIN governance_virtual_keys v ON v.id = c.virtual_key_id WHERE c.rate_limit_id IS NOT NULL \
             OR EXISTS (SELECT 1 FROM governance_budgets b WHERE b.provider_config_id = c.id)",
            "UPDATE governance_budgets SET model_config_id = (SELECT 'm-' || c.virtual_key_id || '-' || c.provider \
             FROM governance_virtual_key_provider_configs c WHERE c.id = governance_budgets.provider_config_id), \
             provider_config_id = NULL WHERE provider_config_id IS NOT NULL",
            "UPDATE governance_virtual_key_provider_configs SET rate_limit_id = NULL",
            "UPDATE governance_budgets SET customer_id = (SELECT c.id FROM governance_customers c WHERE c.budget_id = governance_budgets.id)",
        ],
        dropped: &[],
    },
    Release {
        version: "1.5.16",
        ids: &[
            "add_customer_name_unique_constraint_dedup",
            "add_customer_name_unique_constraint_index",
            "null_legacy_customer_budget_id_refs",
            "add_skills_repo_tables",
        ],
        statements: &[
            "CREATE UNIQUE INDEX idx_governance_customers_name ON governance_customers (name)",
            "UPDATE governance_customers SET budget_id = NULL",
        ],
        dropped: &[],
    },
    Release {
        version: "2.0.0-prerelease3",
        ids: &[
            "add_bedrock_mantle_key_columns",
            "add_virtual_key_expires_at_column",
            "add_budget_override_columns",
            "add_budget_reset_config_column",
            "merge_oauth_token_tables",
            "create_mcp_oauth_flows_table",
        ],
        statements: &[
            "ALTER TABLE governance_virtual_keys ADD COLUMN expires_at timestamp",
            "ALTER TABLE governance_budgets ADD COLUMN override_amount real NOT NULL DEFAULT 0",
            "ALTER TABLE governance_budgets ADD COLUMN override_mode varchar(20) NOT NULL DEFAULT ''",
            "ALTER TABLE governance_budgets ADD COLUMN override_cycles_remaining integer NOT NULL DEFAULT 0",
            "ALTER TABLE governance_budgets ADD COLUMN override_cycles_total integer NOT NULL DEFAULT 0",
            "ALTER TABLE governance_budgets ADD COLUMN override_anchor_reset timestamp",
            "ALTER TABLE governance_budgets ADD COLUMN reset_config_json text",
            "CREATE TABLE mcp_oauth_tokens (id varchar(255) PRIMARY KEY, session_id varchar(255), virtual_key_id varchar(255), \
             user_id varchar(255), mcp_client_id varchar(255), auth_mode varchar(20) NOT NULL, \
             status varchar(20) NOT NULL DEFAULT 'active', oauth_config_id varchar(255), access_token text NOT NULL, refresh_token text, \
             token_type varchar(50) NOT NULL, expires_at timestamp, scopes text, last_refreshed_at timestamp, \
             encryption_status varchar(20), created_at timestamp NOT NULL, updated_at timestamp NOT NULL)",
            "CREATE UNIQUE INDEX idx_mcp_oauth_tokens_vk_mcp ON mcp_oauth_tokens (virtual_key_id, mcp_client_id) WHERE auth_mode = 'vk'",
            "INSERT INTO mcp_oauth_tokens (id, session_id, virtual_key_id, user_id, mcp_client_id, auth_mode, status, oauth_config_id, \
             access_token, refresh_token, token_type, created_at, updated_at) SELECT id, session_id, virtual_key_id, user_id, mcp_client_id, \
             auth_mode, status, oauth_config_id, access_token, refresh_token, token_type, created_at, updated_at FROM oauth_user_tokens",
            "CREATE TABLE mcp_oauth_flows (id varchar(255) PRIMARY KEY, mcp_client_id varchar(255) NOT NULL, \
             oauth_config_id varchar(255) NOT NULL, state varchar(255) NOT NULL, code_verifier text, session_id varchar(255), \
             virtual_key_id varchar(255), user_id varchar(255), flow_mode varchar(20) NOT NULL DEFAULT 'vk', status varchar(50) NOT NULL, \
             expires_at timestamp NOT NULL, created_at timestamp NOT NULL, updated_at timestamp NOT NULL)",
            "INSERT INTO mcp_oauth_flows (id, mcp_client_id, oauth_config_id, state, code_verifier, virtual_key_id, user_id, flow_mode, \
             status, expires_at, created_at, updated_at) SELECT id, mcp_client_id, oauth_config_id, state, code_verifier, virtual_key_id, \
             user_id, flow_mode, status, expires_at, created_at, updated_at FROM oauth_user_sessions",
        ],
        dropped: &[],
    },
    // By hearsay, and enough to be known for it.
    Release {
        version: "2.1.0",
        ids: &["add_vk_rotation_cooldown_columns"],
        statements: &["ALTER TABLE governance_virtual_keys ADD COLUMN previous_value text"],
        dropped: &[],
    },
];

/// The versions of Bifrost's that [`bifrost`] knows.
pub const BIFROST: &[&str] = &[
    "1.4.0",
    "1.4.24",
    "1.5.0-prerelease1",
    "1.5.0-prerelease7",
    "1.5.2",
    "1.5.8",
    "1.5.9",
    "1.5.16",
    "2.0.0-prerelease3",
    "2.1.0",
];

/// A Bifrost's database of that version, with rows.
pub async fn bifrost(backend: Backend, version: &str) -> TestDatabase {
    let calendar = if version == "1.4.0" {
        Calendar::None
    } else {
        Calendar::Flag
    };
    let database = legacy(backend, Shape::Full, calendar).await;
    database.execute("DELETE FROM migrations").await;
    recorded(&database, &["many2manyjoin"]).await;
    if version == "1.4.0" {
        return database;
    }
    for release in RELEASES {
        for sql in release.statements {
            database.execute(sql).await;
        }
        for (table, column) in release.dropped {
            database.drop_column(table, column).await;
        }
        if release.version == "1.5.8" {
            credentials(&database).await;
        }
        recorded(&database, release.ids).await;
        if release.version == version {
            return database;
        }
    }
    panic!("{version} is none of {BIFROST:?}");
}

/// The tables of per-user credentials in the shape of 1.5.6 on, with the columns of clients that go with them.
async fn credentials(database: &TestDatabase) {
    let catalog = database.catalog().await;
    let dialect = database.dialect();
    for spec in mcp::all() {
        if let Some(live) = catalog.table(&spec.name) {
            for column in &spec.columns {
                if live.column(&column.name).is_none() {
                    database
                        .execute(&format!(
                            "ALTER TABLE {} ADD COLUMN {}",
                            spec.name,
                            column.sql(dialect)
                        ))
                        .await;
                }
            }
            continue;
        }
        database.execute(&spec.sql(dialect)).await;
        for index in spec.separate_indexes(dialect) {
            database.execute(&index.sql(dialect, &spec.name)).await;
        }
    }
}

/// The ledger numbers of Coder's that [`coder_at`] knows.
pub const CODER: &[i64] = &[459, 502, 503, 504, 505, 514, 532];

/// A Coder's database at that number, with rows. PostgreSQL.
pub async fn coder_at(number: i64) -> TestDatabase {
    if number == 459 {
        let database = coder(Backend::Postgres).await;
        database
            .execute(
                "DROP TABLE ai_gateway_keys; CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); \
                 INSERT INTO schema_migrations VALUES (459, false)",
            )
            .await;
        return database;
    }
    let database = coder_at_502().await;
    for (at, sql) in [
        (503, include_str!("../fixtures/coder/503.postgres.sql")),
        (504, include_str!("../fixtures/coder/504.postgres.sql")),
        (505, include_str!("../fixtures/coder/505.postgres.sql")),
        (514, include_str!("../fixtures/coder/514.postgres.sql")),
        (532, include_str!("../fixtures/coder/532.postgres.sql")),
    ] {
        if at <= number {
            database.execute(sql).await;
        }
    }
    database
}
