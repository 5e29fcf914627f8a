//! The tables of `docs/upstream/coder.md` §A1 and §A2.

use crate::ddl::Type::{BigInt, Bool, Bytes, Enum, Int, Json, Text, Time, Uuid, Varchar};
use crate::ddl::{
    CheckSpec, ColumnSpec, ForeignKeySpec, TableSpec, column, foreign_key, index,
    unique_constraint, unique_index,
};
use crate::dialect::Dialect;

use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, CRYPT_KEYS, FAMILIES, GATEWAY_KEYS, MODEL_CONFIGS,
    PROVIDER_KEYS, PROVIDERS, TYPE, USER_KEYS, USERS,
};

/// A key that PostgreSQL makes up; SQLite has no function for it, so the caller gives one there.
fn id(dialect: Dialect) -> ColumnSpec {
    let id = column("id", Uuid).not_null();
    match dialect {
        Dialect::Postgres => id.default("gen_random_uuid()"),
        Dialect::Sqlite => id,
    }
}

fn now(dialect: Dialect, name: &str) -> ColumnSpec {
    column(name, Time).not_null().default(match dialect {
        Dialect::Postgres => "now()",
        Dialect::Sqlite => "CURRENT_TIMESTAMP",
    })
}

fn flag(dialect: Dialect, name: &str, value: bool) -> ColumnSpec {
    column(name, Bool).not_null().default(if value {
        dialect.true_literal()
    } else {
        dialect.false_literal()
    })
}

fn text(name: &str) -> ColumnSpec {
    column(name, Text).not_null().default("''")
}

fn check(name: &str, expression: impl Into<String>) -> CheckSpec {
    CheckSpec {
        name: name.to_owned(),
        expression: expression.into(),
    }
}

/// The key that the ciphertext in another column was made with.
fn crypt_key(table: &str, column: &str) -> ForeignKeySpec {
    foreign_key(
        &format!("{table}_{column}_fkey"),
        column,
        CRYPT_KEYS,
        "active_key_digest",
    )
}

fn to(table: &str, column: &str, parent: &str) -> ForeignKeySpec {
    foreign_key(&format!("{table}_{column}_fkey"), column, parent, "id")
}

fn table(name: &str, columns: Vec<ColumnSpec>) -> TableSpec {
    TableSpec {
        name: name.to_owned(),
        primary_key: vec!["id".to_owned()],
        columns,
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        indexes: Vec::new(),
    }
}

fn families() -> String {
    let mut families = FAMILIES;
    families.sort_unstable();
    families.join("', '")
}

/// Lower-case words joined by single dashes.
fn kebab(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("{column} ~ '^[a-z0-9]+(-[a-z0-9]+)*$'"),
        // SQLite has no regular expressions of its own.
        Dialect::Sqlite => format!(
            "{column} NOT GLOB '*[^a-z0-9-]*' AND {column} <> '' AND {column} NOT LIKE '-%' \
             AND {column} NOT LIKE '%-' AND {column} NOT LIKE '%--%'"
        ),
    }
}

/// The tables before the cutover.
pub fn baseline(dialect: Dialect) -> Vec<TableSpec> {
    vec![
        users(dialect),
        crypt_keys(),
        chat_providers(dialect),
        chat_user_keys(dialect),
        model_configs(dialect),
    ]
}

/// The tables that only old code uses.
pub fn legacy(dialect: Dialect) -> [TableSpec; 2] {
    [chat_providers(dialect), chat_user_keys(dialect)]
}

/// The tables of the new schema.
pub fn new(dialect: Dialect) -> Vec<TableSpec> {
    vec![
        providers(dialect),
        provider_keys(dialect),
        user_keys(dialect),
    ]
}

fn users(dialect: Dialect) -> TableSpec {
    table(USERS, vec![id(dialect), flag(dialect, "deleted", false)])
}

fn crypt_keys() -> TableSpec {
    TableSpec {
        primary_key: vec!["number".to_owned()],
        indexes: vec![
            unique_constraint("dbcrypt_keys_active_key_digest_key", &["active_key_digest"]),
            unique_constraint(
                "dbcrypt_keys_revoked_key_digest_key",
                &["revoked_key_digest"],
            ),
        ],
        ..table(
            CRYPT_KEYS,
            vec![
                column("number", Int).not_null(),
                column("active_key_digest", Text),
                column("revoked_key_digest", Text),
                column("created_at", Time).default("CURRENT_TIMESTAMP"),
                column("revoked_at", Time),
                column("test", Text).not_null(),
            ],
        )
    }
}

fn chat_providers(dialect: Dialect) -> TableSpec {
    TableSpec {
        foreign_keys: vec![
            crypt_key(CHAT_PROVIDERS, "api_key_key_id"),
            to(CHAT_PROVIDERS, "created_by", USERS),
        ],
        checks: vec![
            check(
                "chat_providers_provider_check",
                format!("provider IN ('{}')", families()),
            ),
            check(
                "valid_credential_policy",
                "(central_api_key_enabled OR allow_user_api_key) AND (NOT allow_central_api_key_fallback \
                 OR (central_api_key_enabled AND allow_user_api_key))",
            ),
        ],
        indexes: vec![
            unique_constraint("chat_providers_provider_key", &["provider"]),
            index("idx_chat_providers_enabled", &["enabled"]),
        ],
        ..table(
            CHAT_PROVIDERS,
            vec![
                id(dialect),
                column("provider", Text).not_null(),
                text("display_name"),
                text("api_key"),
                column("api_key_key_id", Text),
                column("created_by", Uuid),
                flag(dialect, "enabled", true),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
                text("base_url"),
                flag(dialect, "central_api_key_enabled", true),
                flag(dialect, "allow_user_api_key", false),
                flag(dialect, "allow_central_api_key_fallback", false),
            ],
        )
    }
}

fn chat_user_keys(dialect: Dialect) -> TableSpec {
    TableSpec {
        foreign_keys: vec![
            to(CHAT_USER_KEYS, "user_id", USERS).cascade(),
            to(CHAT_USER_KEYS, "chat_provider_id", CHAT_PROVIDERS).cascade(),
            crypt_key(CHAT_USER_KEYS, "api_key_key_id"),
        ],
        checks: vec![check(
            "user_chat_provider_keys_api_key_check",
            "api_key <> ''",
        )],
        indexes: vec![unique_constraint(
            "user_chat_provider_keys_user_id_chat_provider_id_key",
            &["user_id", "chat_provider_id"],
        )],
        ..table(
            CHAT_USER_KEYS,
            vec![
                id(dialect),
                column("user_id", Uuid).not_null(),
                column("chat_provider_id", Uuid).not_null(),
                column("api_key", Text).not_null(),
                column("api_key_key_id", Text),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
            ],
        )
    }
}

fn model_configs(dialect: Dialect) -> TableSpec {
    TableSpec {
        foreign_keys: vec![
            to(MODEL_CONFIGS, "created_by", USERS),
            to(MODEL_CONFIGS, "updated_by", USERS),
        ],
        checks: vec![
            check(
                "chat_model_configs_context_limit_check",
                "context_limit > 0",
            ),
            check(
                "chat_model_configs_compression_threshold_check",
                "compression_threshold >= 0 AND compression_threshold <= 100",
            ),
        ],
        indexes: vec![
            index("idx_chat_model_configs_enabled", &["enabled"]),
            index("idx_chat_model_configs_provider", &["provider"]),
            index(
                "idx_chat_model_configs_provider_model",
                &["provider", "model"],
            ),
            // At most one live default in the whole deployment.
            unique_index("idx_chat_model_configs_single_default", &["(1)"])
                .only_where("is_default AND NOT deleted"),
        ],
        ..table(
            MODEL_CONFIGS,
            vec![
                id(dialect),
                column("provider", Text).not_null(),
                column("model", Text).not_null(),
                text("display_name"),
                column("created_by", Uuid),
                column("updated_by", Uuid),
                flag(dialect, "enabled", true),
                flag(dialect, "is_default", false),
                flag(dialect, "deleted", false),
                column("deleted_at", Time),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
                column("context_limit", BigInt).not_null(),
                column("compression_threshold", Int).not_null(),
                column("options", Json).not_null().default("'{}'"),
            ],
        )
    }
}

fn providers(dialect: Dialect) -> TableSpec {
    let mut checks = vec![check("ai_providers_name_check", kebab(dialect, "name"))];
    if dialect == Dialect::Sqlite {
        checks.push(check(
            "ai_providers_type_check",
            format!("type IN ('{}')", TYPE.1.join("', '")),
        ));
    }
    TableSpec {
        foreign_keys: vec![crypt_key(PROVIDERS, "settings_key_id")],
        checks,
        indexes: vec![
            unique_index("ai_providers_name_unique", &["name"]).only_where(live(dialect)),
            index("idx_ai_providers_enabled", &["enabled"]).only_where(live(dialect)),
        ],
        ..table(
            PROVIDERS,
            vec![
                id(dialect),
                column("type", Enum(TYPE.0)).not_null(),
                column("name", Text).not_null(),
                column("display_name", Text),
                flag(dialect, "enabled", true),
                flag(dialect, "deleted", false),
                column("base_url", Text).not_null(),
                column("settings", Text),
                column("settings_key_id", Text),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
            ],
        )
    }
}

fn live(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "deleted = false",
        Dialect::Sqlite => "deleted = 0",
    }
}

fn provider_keys(dialect: Dialect) -> TableSpec {
    TableSpec {
        foreign_keys: vec![
            to(PROVIDER_KEYS, "provider_id", PROVIDERS).cascade(),
            crypt_key(PROVIDER_KEYS, "api_key_key_id"),
        ],
        indexes: vec![index("idx_ai_provider_keys_provider_id", &["provider_id"])],
        ..table(
            PROVIDER_KEYS,
            vec![
                id(dialect),
                column("provider_id", Uuid).not_null(),
                column("api_key", Text).not_null(),
                column("api_key_key_id", Text),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
            ],
        )
    }
}

fn user_keys(dialect: Dialect) -> TableSpec {
    TableSpec {
        foreign_keys: vec![
            to(USER_KEYS, "user_id", USERS).cascade(),
            to(USER_KEYS, "ai_provider_id", PROVIDERS).cascade(),
            crypt_key(USER_KEYS, "api_key_key_id"),
        ],
        checks: vec![check(
            "user_ai_provider_keys_api_key_check",
            "api_key <> ''",
        )],
        indexes: vec![
            unique_constraint(
                "user_ai_provider_keys_user_id_ai_provider_id_key",
                &["user_id", "ai_provider_id"],
            ),
            index(
                "idx_user_ai_provider_keys_ai_provider_id",
                &["ai_provider_id"],
            ),
        ],
        ..table(
            USER_KEYS,
            vec![
                id(dialect),
                column("user_id", Uuid).not_null(),
                column("ai_provider_id", Uuid).not_null(),
                column("api_key", Text).not_null(),
                column("api_key_key_id", Text),
                now(dialect, "created_at"),
                now(dialect, "updated_at"),
            ],
        )
    }
}

/// Gateway keys (§A5).
pub fn gateway_keys(dialect: Dialect) -> TableSpec {
    TableSpec {
        checks: vec![
            check(
                "ai_gateway_keys_name_check",
                format!("length(name) <= 64 AND {}", kebab(dialect, "name")),
            ),
            check(
                "ai_gateway_keys_secret_prefix_check",
                "length(secret_prefix) = 11",
            ),
            check(
                "ai_gateway_keys_hashed_secret_check",
                "length(hashed_secret) > 0",
            ),
        ],
        indexes: vec![
            unique_index("ai_gateway_keys_name_idx", &["lower(name)"]),
            unique_index("ai_gateway_keys_secret_prefix_idx", &["secret_prefix"]),
            unique_index("ai_gateway_keys_hashed_secret_idx", &["hashed_secret"]),
        ],
        ..table(
            GATEWAY_KEYS,
            vec![
                column("id", Uuid).not_null(),
                column("created_at", Time).not_null(),
                column("name", Text).not_null(),
                column("secret_prefix", Varchar(11)).not_null(),
                column("hashed_secret", Bytes).not_null(),
                column("last_used_at", Time),
            ],
        )
    }
}
