//! A Coder before the provider-key cutover: chat providers, a key of each user's own, model configs; and what such a
//! database can have in it that stands in the way.

use tollgate_migration::Dialect;
use tollgate_migration::ddl::TableSpec;
use tollgate_migration::ledger::SCHEMA_MIGRATIONS;
use tollgate_migration::providers::coder;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, CRYPT_KEYS, FAMILIES, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS,
    TYPE, USERS, tables,
};

use crate::seed::{Fill, Maker, Planted, Seed};

/// The digest of the made-up key that half of the made-up ciphertext was made with.
const DIGEST: &str = "5eed5eed5eed5e";

/// Family, display name, whether it has a central key, whether it is enabled, its base URL, and its three flags.
type Made = (
    &'static str,
    &'static str,
    bool,
    bool,
    &'static str,
    [bool; 3],
);

const MADE: [Made; 5] = [
    ("openai", "OpenAI", true, true, "", [true, true, true]),
    ("anthropic", "", true, true, "", [true, true, true]),
    ("bedrock", "", false, true, "", [true, false, false]),
    ("google", "Gemini", true, false, "", [true, false, false]),
    (
        "openai-compat",
        "In house",
        true,
        true,
        "https://models.example.com/v1",
        [true, false, false],
    ),
];

/// How many model configs there are.
const CONFIGS: u32 = 100;

/// Coder at 502.
pub static LEGACY: Seed = Seed {
    name: "coder-legacy",
    about: "Coder at 502, before the provider-key cutover, with its ledger on PostgreSQL; --virtual-keys counts its users, each \
            with a key of their own",
    ledger: SCHEMA_MIGRATIONS,
    recorded: ledger,
    types,
    tables,
    fills,
    planted: PLANTED,
};

/// Coder runs on PostgreSQL alone.
fn ledger(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::Postgres => vec![
            format!(
                "CREATE TABLE {SCHEMA_MIGRATIONS} (version bigint PRIMARY KEY, dirty boolean NOT NULL)"
            ),
            format!(
                "INSERT INTO {SCHEMA_MIGRATIONS} (version, dirty) VALUES ({}, false)",
                coder::BEFORE
            ),
        ],
        Dialect::Sqlite => Vec::new(),
    }
}

pub(super) fn tables(dialect: Dialect) -> Vec<TableSpec> {
    let mut all = tables::baseline(dialect);
    if dialect == Dialect::Postgres {
        // Coder's own 495, which stands before the cutover; it has no SQLite.
        all.extend(
            tables::new(dialect)
                .into_iter()
                .filter(|table| table.name == PROVIDERS || table.name == PROVIDER_KEYS),
        );
    }
    all
}

/// The enum of 499, which comes before the tables.
pub(super) fn types(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::Postgres => vec![format!(
            "CREATE TYPE {} AS ENUM ('{}')",
            TYPE.0,
            FAMILIES.join("', '")
        )],
        Dialect::Sqlite => Vec::new(),
    }
}

pub(super) fn fills(maker: &Maker, users: u32) -> Vec<Fill> {
    vec![
        made_up_users(maker, users),
        crypt_keys(maker),
        chat_providers(maker),
        user_keys(maker, users),
        model_configs(maker),
    ]
}

/// One value for each of the five providers.
fn choose(values: [String; 5]) -> String {
    let arms: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(position, value)| format!("WHEN {} THEN {value}", position + 1))
        .collect();
    format!("CASE i {} END", arms.join(" "))
}

/// The family whose turn it is.
fn family(number: &str) -> String {
    let arms: Vec<String> = MADE
        .iter()
        .enumerate()
        .map(|(position, made)| format!("WHEN {position} THEN '{}'", made.0))
        .collect();
    format!("CASE ({number}) % 5 {} END", arms.join(" "))
}

fn made_up_users(maker: &Maker, users: u32) -> Fill {
    maker.insert(
        USERS,
        users,
        &[
            ("id", maker.uuid(4, "i")),
            ("deleted", maker.flag("i % 50 = 0")),
        ],
        "1 = 1",
    )
}

fn crypt_keys(maker: &Maker) -> Fill {
    maker.insert(
        CRYPT_KEYS,
        1,
        &[
            ("number", "i".to_owned()),
            ("active_key_digest", format!("'{DIGEST}'")),
            ("test", "'made up'".to_owned()),
        ],
        "1 = 1",
    )
}

fn chat_providers(maker: &Maker) -> Fill {
    let text = |value: &str| maker.dialect.text(value);
    let flag = |value: bool| maker.flag(if value { "1 = 1" } else { "1 = 0" });
    let of_seed = maker.seed;
    maker.insert(
        CHAT_PROVIDERS,
        5,
        &[
            ("id", maker.uuid(5, "i")),
            ("provider", choose(MADE.map(|made| text(made.0)))),
            ("display_name", choose(MADE.map(|made| text(made.1)))),
            (
                "api_key",
                format!(
                    "CASE WHEN {} = 1 THEN 'made-up-central-{of_seed}-' || i ELSE '' END",
                    choose(MADE.map(|made| u8::from(made.2).to_string()))
                ),
            ),
            (
                "api_key_key_id",
                format!(
                    "CASE WHEN {} = 1 AND i % 2 = 1 THEN '{DIGEST}' END",
                    choose(MADE.map(|made| u8::from(made.2).to_string()))
                ),
            ),
            ("enabled", choose(MADE.map(|made| flag(made.3)))),
            ("created_at", maker.before("8640000 - i * 3600")),
            ("updated_at", maker.before("864000 - i * 60")),
            ("base_url", choose(MADE.map(|made| text(made.4)))),
            (
                "central_api_key_enabled",
                choose(MADE.map(|made| flag(made.5[0]))),
            ),
            (
                "allow_user_api_key",
                choose(MADE.map(|made| flag(made.5[1]))),
            ),
            (
                "allow_central_api_key_fallback",
                choose(MADE.map(|made| flag(made.5[2]))),
            ),
        ],
        "1 = 1",
    )
}

fn user_keys(maker: &Maker, users: u32) -> Fill {
    let of_seed = maker.seed;
    maker.insert(
        CHAT_USER_KEYS,
        users,
        &[
            ("id", maker.uuid(6, "i")),
            ("user_id", maker.uuid(4, "i")),
            ("chat_provider_id", maker.uuid(5, "i % 2 + 1")),
            ("api_key", format!("'made-up-own-{of_seed}-' || i")),
            (
                "api_key_key_id",
                format!("CASE WHEN i % 2 = 0 THEN '{DIGEST}' END"),
            ),
            ("created_at", maker.before(&maker.random(1, 8_000_000))),
            ("updated_at", maker.before(&maker.random(2, 800_000))),
        ],
        "1 = 1",
    )
}

fn model_configs(maker: &Maker) -> Fill {
    maker.insert(
        MODEL_CONFIGS,
        CONFIGS,
        &[
            ("id", maker.uuid(7, "i")),
            ("provider", family("i")),
            ("model", "'model-' || i".to_owned()),
            ("is_default", maker.flag("i = 1")),
            ("deleted", maker.flag("i % 10 = 0")),
            ("context_limit", "200000".to_owned()),
            ("compression_threshold", "70".to_owned()),
        ],
        "1 = 1",
    )
}

const AT: &str = "'2026-03-01 00:00:00+00:00'";

fn without_check(dialect: Dialect, table: &str, check: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("ALTER TABLE {table} DROP CONSTRAINT {check}"),
        // For this connection only.
        Dialect::Sqlite => "PRAGMA ignore_check_constraints = ON".to_owned(),
    }
}

fn provider(
    dialect: Dialect,
    id: &str,
    family: &str,
    central: bool,
    user: bool,
    fallback: bool,
) -> String {
    let flag = |value: bool| {
        if value {
            dialect.true_literal()
        } else {
            dialect.false_literal()
        }
    };
    format!(
        "INSERT INTO {CHAT_PROVIDERS} (id, provider, api_key, created_at, updated_at, central_api_key_enabled, \
         allow_user_api_key, allow_central_api_key_fallback) VALUES ('{id}', '{family}', 'made-up-planted', {AT}, {AT}, {}, {}, {})",
        flag(central),
        flag(user),
        flag(fallback)
    )
}

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        code: "P001",
        table: CHAT_PROVIDERS,
        ids: &["00000008-0000-4000-8000-000000000001"],
        together: true,
        plant: |dialect| {
            vec![
                without_check(dialect, CHAT_PROVIDERS, "chat_providers_provider_check"),
                provider(
                    dialect,
                    "00000008-0000-4000-8000-000000000001",
                    "mistral",
                    true,
                    false,
                    false,
                ),
            ]
        },
    },
    Planted {
        code: "P002",
        table: PROVIDERS,
        ids: &["00000008-0000-4000-8000-000000000002"],
        together: true,
        plant: |dialect| {
            let mut statements = Vec::new();
            let tables = tables::new(dialect);
            if dialect == Dialect::Sqlite
                && let Some(table) = tables.iter().find(|table| table.name == PROVIDERS)
            {
                statements.push(table.sql(dialect));
                statements.extend(
                    table
                        .separate_indexes(dialect)
                        .map(|index| index.sql(dialect, &table.name)),
                );
            }
            statements.push(format!(
                "INSERT INTO {PROVIDERS} (id, type, name, base_url, created_at, updated_at) \
                 VALUES ('00000008-0000-4000-8000-000000000002', 'openai', 'agents-openai', 'https://other.example.com', {AT}, {AT})"
            ));
            statements
        },
    },
    Planted {
        code: "P003",
        table: MODEL_CONFIGS,
        ids: &["00000008-0000-4000-8000-000000000003"],
        together: true,
        plant: |_| {
            vec![format!(
                "INSERT INTO {MODEL_CONFIGS} (id, provider, model, context_limit, compression_threshold) \
                 VALUES ('00000008-0000-4000-8000-000000000003', 'vercel', 'orphan', 1000, 50)"
            )]
        },
    },
    Planted {
        code: "P004",
        table: CHAT_PROVIDERS,
        ids: &["00000008-0000-4000-8000-000000000004"],
        together: true,
        plant: |dialect| {
            vec![provider(
                dialect,
                "00000008-0000-4000-8000-000000000004",
                "azure",
                false,
                true,
                false,
            )]
        },
    },
    Planted {
        code: "P005",
        table: CHAT_USER_KEYS,
        ids: &["00000008-0000-4000-8000-000000000005"],
        together: true,
        plant: |dialect| {
            vec![
                without_check(
                    dialect,
                    CHAT_USER_KEYS,
                    "user_chat_provider_keys_api_key_check",
                ),
                format!(
                    "INSERT INTO {CHAT_USER_KEYS} (id, user_id, chat_provider_id, api_key) \
                     VALUES ('00000008-0000-4000-8000-000000000005', '00000004-0000-4000-8000-000000000002', \
                     '00000005-0000-4000-8000-000000000002', '')"
                ),
            ]
        },
    },
];
