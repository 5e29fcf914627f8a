//! Hazards planted into a made-up Bifrost, on rows of their own so that the ids are known beforehand.

use tollgate_migration::Dialect;

use crate::seed::Planted;

const AT: &str = "'2026-01-01 00:00:00+00:00'";

fn budget(id: &str, limit: &str, duration: &str, usage: &str, aligned: bool) -> String {
    format!(
        "INSERT INTO governance_budgets (id, max_limit, reset_duration, last_reset, current_usage, calendar_aligned, \
         created_at, updated_at) VALUES ('{id}', {limit}, '{duration}', '2026-03-01 00:00:00+00:00', {usage}, {aligned}, {AT}, {AT})"
    )
}

fn key(id: &str, budget: &str, hash: &str) -> String {
    format!(
        "INSERT INTO governance_virtual_keys (id, name, value, budget_id, config_hash, created_at, updated_at) \
         VALUES ('{id}', 'Planted {id}', 'sk-bf-planted-{id}', {budget}, {hash}, {AT}, {AT})"
    )
}

fn config(key: &str, budget: &str) -> String {
    format!(
        "INSERT INTO governance_virtual_key_provider_configs (virtual_key_id, provider, allowed_models, budget_id) \
         VALUES ('{key}', 'openai', '[\"*\"]', '{budget}')"
    )
}

/// References that no foreign key lets through, as an old release without keys left them. On SQLite the seed's
/// connection does not check foreign keys.
fn unchecked(dialect: Dialect, reference: String) -> Vec<String> {
    let drop = "ALTER TABLE governance_virtual_keys DROP CONSTRAINT IF EXISTS fk_governance_virtual_keys_budget";
    match dialect {
        Dialect::Postgres => vec![drop.to_owned(), reference],
        Dialect::Sqlite => vec![reference],
    }
}

pub(super) const PLANTED: &[Planted] = &[
    Planted {
        code: "G001",
        table: "governance_budgets",
        ids: &["planted-shared"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-shared", "100", "1M", "42.42", false),
                key("planted-vk-1", "'planted-shared'", "NULL"),
                key("planted-vk-2", "'planted-shared'", "NULL"),
                config("planted-vk-2", "planted-shared"),
            ]
        },
    },
    Planted {
        code: "G002",
        table: "governance_budgets",
        ids: &["planted-team"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-team", "500", "1w", "7.5", false),
                format!(
                    "INSERT INTO governance_teams (id, name, budget_id, created_at, updated_at) \
                     VALUES ('planted-team', 'Planted', 'planted-team', {AT}, {AT})"
                ),
                key("planted-vk-3", "'planted-team'", "NULL"),
            ]
        },
    },
    Planted {
        code: "G003",
        table: "governance_virtual_keys",
        ids: &["planted-vk-4"],
        together: true,
        plant: |dialect| unchecked(dialect, key("planted-vk-4", "'planted-gone'", "NULL")),
    },
    Planted {
        code: "G004",
        table: "governance_virtual_keys",
        ids: &["planted-vk-5"],
        together: true,
        plant: |dialect| unchecked(dialect, key("planted-vk-5", "''", "NULL")),
    },
    Planted {
        code: "G005",
        table: "governance_budgets",
        ids: &["planted-nobody"],
        together: true,
        plant: |_| vec![budget("planted-nobody", "5", "1d", "1", false)],
    },
    Planted {
        code: "G006",
        table: "governance_budgets",
        ids: &["planted-promoted"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-promoted", "9", "1d", "2", true),
                key("planted-vk-6", "NULL", "NULL"),
                config("planted-vk-6", "planted-promoted"),
            ]
        },
    },
    Planted {
        code: "G007",
        table: "governance_budgets",
        ids: &["planted-also-aligned"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-aligned", "9", "1M", "2", true),
                budget("planted-also-aligned", "9", "1d", "2", false),
                key("planted-vk-7", "'planted-aligned'", "NULL"),
                config("planted-vk-7", "planted-also-aligned"),
            ]
        },
    },
    Planted {
        code: "G009",
        table: "governance_budgets",
        ids: &["planted-endless", "planted-negative"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-endless", "9", "1D", "2", false),
                budget("planted-negative", "-1", "1d", "0", false),
                key("planted-vk-8", "'planted-endless'", "NULL"),
                key("planted-vk-9", "'planted-negative'", "NULL"),
            ]
        },
    },
    Planted {
        code: "G011",
        table: "governance_virtual_keys",
        ids: &["planted-vk-10"],
        together: true,
        plant: |_| {
            vec![
                budget("planted-hashed", "9", "1d", "2", false),
                key("planted-vk-10", "'planted-hashed'", "'1f0e'"),
            ]
        },
    },
    Planted {
        code: "G016",
        table: "governance_budgets",
        ids: &["model_config_id"],
        together: false,
        plant: |_| {
            vec![
                "ALTER TABLE governance_budgets ADD COLUMN model_config_id varchar(255)".to_owned(),
            ]
        },
    },
    Planted {
        code: "G017",
        table: "governance_budgets",
        ids: &["planted-placeless"],
        together: true,
        plant: |_| vec![budget("planted-placeless", "5", "1d", "1", true)],
    },
    Planted {
        code: "G018",
        table: "governance_virtual_keys",
        ids: &["view planted_view"],
        together: false,
        plant: |_| {
            vec![
                "CREATE VIEW planted_view AS SELECT id, budget_id FROM governance_virtual_keys"
                    .to_owned(),
            ]
        },
    },
];
