//! What goes with a virtual key or a provider config, and what stays.

use super::*;

/// Every text of a table that names the key.
async fn traces(database: &TestDatabase, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in database.everything(|_, _| true).await {
        for row in rows {
            if needles.iter().any(|needle| row.contains(needle)) {
                found.push(format!("{table}: {row}"));
            }
        }
    }
    found
}

fn counted(json: &Value) -> BTreeMap<String, u64> {
    json["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            (
                format!(
                    "{} {}",
                    change["action"].as_str().unwrap(),
                    change["table"].as_str().unwrap()
                ),
                change["rows"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn expected(changes: &[(&str, u64)]) -> BTreeMap<String, u64> {
    changes
        .iter()
        .map(|(what, rows)| ((*what).to_owned(), *rows))
        .collect()
}

#[rstest]
#[tokio::test]
async fn a_deleted_key_leaves_nothing_behind(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        "governance_baseline",
        "multi_budget_backfill",
        "multi_budget_contract"
    )]
    to: &str,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tollgate = tollgate().on(&database.url);
    if to == "governance_baseline" {
        tollgate.succeed(&["migrate", "adopt"]);
    } else {
        tollgate.succeed(&["migrate", "up", "--adopt", "--to", to]);
    }
    let before = database.everything(|_, _| true).await;
    let (code, planned) = tollgate.json(&["virtual-key", "delete", "vk-dave", "--dry-run"]);
    assert_eq!(code, 0, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    let (code, done) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(
        counted(&done),
        expected(&[
            ("delete governance_virtual_keys", 1),
            ("delete governance_virtual_key_provider_configs", 2),
            ("delete governance_virtual_key_provider_config_keys", 2),
            ("delete governance_virtual_key_mcp_configs", 1),
            ("delete governance_budgets", 3),
            ("delete oauth_user_tokens", 1),
            ("delete mcp_per_user_header_credentials", 1),
        ])
    );
    assert_eq!(planned["changes"], done["changes"]);
    assert_eq!(traces(&database, &["dave"]).await, Vec::<String>::new());
    // What is not theirs is as it was.
    for (table, rows) in database.everything(|_, _| true).await {
        let kept: Vec<String> = before
            .iter()
            .find(|(name, _)| *name == table)
            .map(|(_, rows)| {
                rows.iter()
                    .filter(|row| !row.contains("dave"))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        if table != "governance_virtual_key_provider_config_keys" {
            assert_eq!(rows, kept, "{table}");
        }
    }
    let (code, json) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"not_found".into()),
        "{json:#}"
    );
    if to != "governance_baseline" {
        tollgate.succeed(&["verify"]);
    }
}

#[rstest]
#[tokio::test]
async fn what_somebody_else_refers_to_stays(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "UPDATE config_providers SET budget_id = 'b-dave' WHERE id = 2; \
             UPDATE governance_virtual_keys SET rate_limit_id = 'rl-1' WHERE id = 'vk-dave'",
        )
        .await;
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{json:#}");
    let found: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["code"].as_str().unwrap(),
                finding["sample_ids"][0].as_str().unwrap(),
                finding["effect"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("R004", "b-dave", "it is referred to by config_providers 2"),
            (
                "R004",
                "rl-1",
                "it is referred to by governance_virtual_keys vk-alice"
            ),
        ]
    );
    assert_eq!(
        database
            .column("SELECT COALESCE(virtual_key_id, 'nobody') FROM governance_budgets WHERE id = 'b-dave'")
            .await,
        ["nobody"]
    );
    assert_eq!(database.count("governance_rate_limits").await, 2);

    // A provider config goes with its budget; its rate limit is the customer's too.
    let (code, planned) = tollgate.json(&["provider-config", "delete", "2", "--dry-run"]);
    assert_eq!(code, 0, "{planned:#}");
    let (code, json) = tollgate.json(&["provider-config", "delete", "2"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(planned["changes"], json["changes"]);
    assert_eq!(
        counted(&json),
        expected(&[
            ("delete governance_virtual_key_provider_config_keys", 1),
            ("delete governance_virtual_key_provider_configs", 1),
            ("delete governance_budgets", 1),
        ])
    );
    assert_eq!(
        json["findings"][0]["sample_ids"],
        serde_json::json!(["rl-2"])
    );
    assert_eq!(
        database
            .count("governance_virtual_keys WHERE id = 'vk-carol'")
            .await,
        1
    );
    let (code, json) = tollgate.json(&["provider-config", "delete", "2"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"not_found".into()),
        "{json:#}"
    );
    tollgate.succeed(&["verify"]);
}

/// A table of a later version that nobody here knows refuses the deletion, and nothing is gone.
/// Upstream's backfill sets both owner columns of a budget that a key and a config shared.
#[rstest]
#[tokio::test]
async fn a_key_without_configs_leaves_a_configs_budget_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let config = database
        .one("SELECT CAST(min(provider_config_id) AS text) FROM governance_budgets WHERE id = 'b-dave-openai'")
        .await;
    let drop = match backend {
        Backend::Sqlite => String::new(),
        Backend::Postgres => "ALTER TABLE governance_budgets DROP CONSTRAINT IF EXISTS chk_governance_budgets_one_owner; ".to_owned(),
    };
    if backend == Backend::Sqlite {
        database
            .execute("PRAGMA ignore_check_constraints = ON")
            .await;
    }
    database
        .execute(&format!(
            "{drop}INSERT INTO governance_virtual_keys (id, name, value, created_at, updated_at) \
             VALUES ('vk-lone', 'Lone', 'sk-bf-lone', '2026-01-01', '2026-01-01'); \
             UPDATE governance_budgets SET virtual_key_id = 'vk-lone' WHERE id = 'b-dave-openai'"
        ))
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-lone"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["findings"][0]["code"], "R004", "{json:#}");
    assert_eq!(
        database
            .one("SELECT COALESCE(virtual_key_id, '-') || ' ' || CAST(provider_config_id AS text) FROM governance_budgets WHERE id = 'b-dave-openai'")
            .await,
        format!("- {config}")
    );
}

/// What a database may still have from before provider configs.
#[rstest]
#[tokio::test]
async fn the_keys_of_old_virtual_keys_go_with_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "CREATE TABLE governance_virtual_key_keys (table_virtual_key_id varchar(255) REFERENCES governance_virtual_keys (id), table_key_id bigint); \
             INSERT INTO governance_virtual_key_keys VALUES ('vk-dave', 1), ('vk-alice', 1)",
        )
        .await;
    let (_, planned) =
        tollgate()
            .on(&database.url)
            .json(&["virtual-key", "delete", "vk-dave", "--dry-run"]);
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(counted(&planned), counted(&json));
    assert_eq!(counted(&json)["delete governance_virtual_key_keys"], 1);
    assert_eq!(database.count("governance_virtual_key_keys").await, 1);
}

#[rstest]
#[tokio::test]
async fn a_reference_that_nobody_knows_stops_the_deletion(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "CREATE TABLE audit (id integer, virtual_key varchar(255) REFERENCES governance_virtual_keys(id)); \
             INSERT INTO audit VALUES (1, 'vk-dave')",
        )
        .await;
    let before = database.everything(|_, _| true).await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"database".into()),
        "{json:#}"
    );
    assert_eq!(database.everything(|_, _| true).await, before);
}
