//! Bifrost 1.4.24, before multi-budget: customers, teams, virtual keys with provider configs, each level with budgets.

use tollgate_migration::Dialect;
use tollgate_migration::ddl::TableSpec;
use tollgate_migration::governance::mcp::{self, CLIENTS, GRANTS};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS, legacy_tables};

use crate::seed::{Fill, Maker};

const DURATIONS: [&str; 8] = ["1h", "1d", "24h", "1w", "7d", "1M", "30d", "1M"];
const PROVIDERS: [&str; 6] = [
    "openai",
    "anthropic",
    "bedrock",
    "vertex",
    "mistral",
    "groq",
];

/// What that version has of the tables of MCP servers.
pub(super) const HAS: [&str; 2] = [CLIENTS, GRANTS];

/// Their columns that came with 1.5.
pub(super) const LATER: [&str; 7] = [
    "allowed_extra_headers_json",
    "allow_on_all_virtual_keys",
    "discovered_tools_json",
    "tool_name_mapping_json",
    "disabled",
    "per_user_header_keys_json",
    "tls_config_json",
];

pub(super) fn tables(dialect: Dialect) -> Vec<TableSpec> {
    let mut tables = legacy_tables(dialect);
    tables.extend(
        mcp::all()
            .into_iter()
            .filter(|spec| HAS.contains(&spec.name.as_str()))
            .map(|mut spec| {
                spec.columns
                    .retain(|column| !LATER.contains(&column.name.as_str()));
                spec
            }),
    );
    tables
}

/// The columns of a budget. Amounts have cents, so that sums show what rounding would lose.
fn budget(maker: &Maker, id: String, salt: u32, usage_below: u32) -> Vec<(&'static str, String)> {
    let usage = maker.random(salt + 1, usage_below);
    let limit = maker.random(salt + 2, 900);
    vec![
        ("id", id),
        ("max_limit", format!("({limit} + 100) * 1.0")),
        ("reset_duration", maker.pick(salt + 3, &DURATIONS)),
        (
            "last_reset",
            maker.before(&maker.random(salt + 4, 2_592_000)),
        ),
        ("current_usage", format!("{usage} / 100.0")),
        (
            "calendar_aligned",
            maker.flag(&format!("{} = 0", maker.random(salt + 5, 5))),
        ),
        (
            "created_at",
            maker.before(&format!("{} + 2592000", maker.random(salt + 6, 20_000_000))),
        ),
        (
            "updated_at",
            maker.before(&maker.random(salt + 7, 2_592_000)),
        ),
    ]
}

fn stamped(maker: &Maker, mut columns: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    columns.push(("created_at", maker.before("i + 2592000")));
    columns.push(("updated_at", maker.before("i % 86400")));
    columns
}

fn when(condition: &str, value: &str) -> String {
    format!("CASE WHEN {condition} THEN {value} END")
}

/// How many rows of each table go with so many virtual keys.
struct Sizes {
    customers: u32,
    teams: u32,
    virtual_keys: u32,
    configs: u32,
    providers: u32,
}

pub(super) fn fills(maker: &Maker, virtual_keys: u32) -> Vec<Fill> {
    let sizes = Sizes {
        customers: virtual_keys / 100 + 1,
        teams: virtual_keys / 20 + 1,
        virtual_keys,
        configs: virtual_keys * 2,
        providers: u32::try_from(PROVIDERS.len()).unwrap_or(1),
    };
    let mut fills = budgets(maker, &sizes);
    fills.push(limits(maker, &sizes));
    fills.extend(customers_and_teams(maker, &sizes));
    fills.push(keys(maker, &sizes));
    fills.extend(providers(maker, &sizes));
    fills.extend(provider_configs(maker, &sizes));
    fills.extend(sequences(maker));
    fills
}

/// Which virtual keys have a budget of their own.
fn key_has_budget(maker: &Maker) -> String {
    format!("{} < 7", maker.random(10, 10))
}

/// Which provider configs have one.
fn config_has_budget(maker: &Maker) -> String {
    format!("{} < 3", maker.random(20, 10))
}

/// The name of the provider whose turn it is.
fn provider(providers: u32) -> String {
    let names: Vec<String> = PROVIDERS
        .iter()
        .enumerate()
        .map(|(position, name)| format!("WHEN {position} THEN '{name}'"))
        .collect();
    format!("CASE (i - 1) % {providers} {} END", names.join(" "))
}

fn budgets(maker: &Maker, sizes: &Sizes) -> Vec<Fill> {
    vec![
        maker.insert(
            BUDGETS,
            sizes.customers,
            &budget(maker, maker.id("budget-customer", "i"), 100, 900_000),
            "1 = 1",
        ),
        maker.insert(
            BUDGETS,
            sizes.teams,
            &budget(maker, maker.id("budget-team", "i"), 200, 90_000),
            "i % 2 = 0",
        ),
        maker.insert(
            BUDGETS,
            sizes.virtual_keys,
            &budget(maker, maker.id("budget-vk", "i"), 300, 9_000),
            &key_has_budget(maker),
        ),
        maker.insert(
            BUDGETS,
            sizes.configs,
            &budget(maker, maker.id("budget-pc", "i"), 400, 5_000),
            &config_has_budget(maker),
        ),
    ]
}

fn limits(maker: &Maker, sizes: &Sizes) -> Fill {
    maker.insert(
        "governance_rate_limits",
        sizes.virtual_keys / 3,
        &stamped(
            maker,
            vec![
                ("id", maker.id("limit", "i")),
                (
                    "token_max_limit",
                    format!("{} + 1000", maker.random(30, 1_000_000)),
                ),
                ("token_reset_duration", "'1h'".to_owned()),
                ("token_current_usage", maker.random(31, 1000)),
                ("token_last_reset", maker.before(&maker.random(32, 7200))),
            ],
        ),
        "1 = 1",
    )
}

fn customers_and_teams(maker: &Maker, sizes: &Sizes) -> [Fill; 2] {
    let customers = sizes.customers;
    [
        maker.insert(
            "governance_customers",
            customers,
            &stamped(
                maker,
                vec![
                    ("id", maker.id("customer", "i")),
                    ("name", "'Customer ' || i".to_owned()),
                    ("budget_id", maker.id("budget-customer", "i")),
                ],
            ),
            "1 = 1",
        ),
        maker.insert(
            "governance_teams",
            sizes.teams,
            &stamped(
                maker,
                vec![
                    ("id", maker.id("team", "i")),
                    ("name", "'Team ' || i".to_owned()),
                    (
                        "customer_id",
                        maker.id("customer", &format!("i % {customers} + 1")),
                    ),
                    (
                        "budget_id",
                        when("i % 2 = 0", &maker.id("budget-team", "i")),
                    ),
                ],
            ),
            "1 = 1",
        ),
    ]
}

fn keys(maker: &Maker, sizes: &Sizes) -> Fill {
    let Sizes {
        customers,
        teams,
        virtual_keys,
        ..
    } = *sizes;
    maker.insert(
        VIRTUAL_KEYS,
        virtual_keys,
        &stamped(
            maker,
            vec![
                ("id", maker.id("vk", "i")),
                ("name", "'Key ' || i".to_owned()),
                ("description", "''".to_owned()),
                (
                    "value",
                    format!(
                        "'sk-bf-demo-' || {} || '-' || i",
                        maker.random(40, 1_000_000)
                    ),
                ),
                ("is_active", maker.flag("i % 50 <> 0")),
                (
                    "team_id",
                    when("i % 3 <> 0", &maker.id("team", &format!("i % {teams} + 1"))),
                ),
                (
                    "customer_id",
                    when(
                        "i % 3 = 0 AND i % 2 = 0",
                        &maker.id("customer", &format!("i % {customers} + 1")),
                    ),
                ),
                (
                    "budget_id",
                    when(&key_has_budget(maker), &maker.id("budget-vk", "i")),
                ),
                (
                    "rate_limit_id",
                    when(
                        &format!("i <= {}", virtual_keys / 3),
                        &maker.id("limit", "i"),
                    ),
                ),
            ],
        ),
        "1 = 1",
    )
}

fn providers(maker: &Maker, sizes: &Sizes) -> [Fill; 2] {
    let providers = sizes.providers;
    let provider = provider(providers);
    [
        maker.insert(
            "config_providers",
            providers,
            &stamped(
                maker,
                vec![("id", "i".to_owned()), ("name", provider.clone())],
            ),
            "1 = 1",
        ),
        maker.insert(
            "config_keys",
            providers * 3,
            &stamped(
                maker,
                vec![
                    ("id", "i".to_owned()),
                    ("name", "'provider key ' || i".to_owned()),
                    ("provider_id", format!("(i - 1) % {providers} + 1")),
                    ("provider", provider.clone()),
                    (
                        "key_id",
                        "'00000000-0000-4000-8000-' || (100000000000 + i)".to_owned(),
                    ),
                    ("value", "'env.PROVIDER_KEY_' || i".to_owned()),
                ],
            ),
            "1 = 1",
        ),
    ]
}

fn provider_configs(maker: &Maker, sizes: &Sizes) -> [Fill; 2] {
    let Sizes {
        virtual_keys,
        configs,
        providers,
        ..
    } = *sizes;
    [
        maker.insert(
            PROVIDER_CONFIGS,
            configs,
            &[
                ("id", "i".to_owned()),
                (
                    "virtual_key_id",
                    maker.id("vk", &format!("(i - 1) % {virtual_keys} + 1")),
                ),
                ("provider", provider(providers)),
                ("weight", "1.0".to_owned()),
                ("allowed_models", "'[\"*\"]'".to_owned()),
                (
                    "budget_id",
                    when(&config_has_budget(maker), &maker.id("budget-pc", "i")),
                ),
            ],
            "1 = 1",
        ),
        maker.insert(
            "governance_virtual_key_provider_config_keys",
            configs,
            &[
                ("table_virtual_key_provider_config_id", "i".to_owned()),
                ("table_key_id", format!("(i - 1) % {} + 1", providers * 3)),
            ],
            "1 = 1",
        ),
    ]
}

/// Ids were given, so the sequences must be told.
fn sequences(maker: &Maker) -> Vec<Fill> {
    let tables: &[&str] = match maker.dialect {
        Dialect::Postgres => &["config_providers", "config_keys", PROVIDER_CONFIGS],
        Dialect::Sqlite => &[],
    };
    tables
        .iter()
        .map(|table| Fill {
            table: "sequences",
            sql: format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
            ),
        })
        .collect()
}
