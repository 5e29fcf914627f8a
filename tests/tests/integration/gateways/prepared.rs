//! `migrate prepare` and `--finish`, around a boot that migrates by itself.

use super::*;

/// Every kind of owner that can share a budget, and every flag that the gateway's migration loses.
#[rstest]
#[tokio::test]
async fn a_database_is_prepared_for_the_gateways_own_migration(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    for sql in [
        // A key beside a team, two teams, a customer beside a provider.
        "UPDATE governance_virtual_keys SET budget_id = 'b-team' WHERE id = 'vk-carol'",
        "INSERT INTO governance_teams (id, name, budget_id, created_at, updated_at) VALUES ('t-2', 'Team Two', 'b-team', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')",
        "UPDATE config_providers SET budget_id = 'b-customer' WHERE id = 2",
    ] {
        database.execute(sql).await;
    }
    let (_, doctor) = ask(&database, &["doctor"]);
    let shared: Vec<&Value> = said(&doctor, "G021");
    assert_eq!(
        shared[0]["sample_ids"],
        json!(["b-customer", "b-team"]),
        "{doctor:#}"
    );
    let (code, json) = ask(&database, &["migrate", "prepare"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(
        said(&json, "G001")[0]["sample_ids"],
        json!(["b-customer", "b-team"]),
        "{json:#}"
    );
    let (code, json) = ask(
        &database,
        &["migrate", "prepare", "--shared-budgets", "clone"],
    );
    assert_eq!(code, 0, "{json:#}");
    let again = ask(
        &database,
        &["migrate", "prepare", "--shared-budgets", "clone"],
    );
    assert_eq!(
        (again.0, &again.1["changes"]),
        (0, &json!([])),
        "{:#}",
        again.1
    );
    // The first team keeps its budget; everybody else has one with the same usage.
    assert_eq!(
        database
            .one("SELECT budget_id FROM governance_teams WHERE id = 't-1'")
            .await,
        "b-team"
    );
    let copies = database
        .column(
            "SELECT CAST(current_usage AS text) || ' ' || COALESCE(config_hash, 'none') FROM governance_budgets WHERE id IN \
             (SELECT budget_id FROM governance_teams WHERE id = 't-2' UNION SELECT budget_id FROM governance_virtual_keys \
             WHERE id = 'vk-carol')",
        )
        .await;
    let usage = match backend {
        Backend::Sqlite => "17.0 none",
        Backend::Postgres => "17 none",
    };
    assert_eq!(copies, [usage, usage]);
    assert_ne!(
        database
            .one("SELECT budget_id FROM config_providers WHERE id = 2")
            .await,
        "b-customer"
    );
    let (_, doctor) = ask(&database, &["doctor"]);
    for code in ["G001", "G002", "G021"] {
        assert_eq!(said(&doctor, code), [] as [&Value; 0], "{doctor:#}");
    }
    let (code, json) = ask(&database, &["migrate", "prepare", "--finish"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (4, &json!("not_moved")),
        "{json:#}"
    );
    // Carol's config is flagged, both teams' budgets are.
    let remembered = database
        .column("SELECT kind || ' ' || owner FROM tollgate_remembered ORDER BY 1")
        .await;
    assert_eq!(remembered, ["provider_config 2", "team t-1", "team t-2"]);
}

/// What the gateway's boot to 1.5.3 leaves, as far as flags are concerned.
#[rstest]
#[tokio::test]
async fn what_was_remembered_is_put_back_behind_the_boot(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(&["migrate", "prepare", "--finish"], &["migrate", "up", "--adopt"])]
    command: &[&str],
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let (code, json) = ask(&database, &["migrate", "prepare"]);
    assert_eq!(code, 0, "{json:#}");
    // Owners are where upstream's migration puts them, and the columns that it drops are gone.
    for sql in [
        "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)",
        "ALTER TABLE governance_budgets ADD COLUMN provider_config_id bigint",
        "ALTER TABLE governance_budgets ADD COLUMN team_id varchar(255)",
        "ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false",
        "ALTER TABLE governance_teams ADD COLUMN calendar_aligned boolean DEFAULT false",
        "UPDATE governance_budgets SET virtual_key_id = (SELECT v.id FROM governance_virtual_keys v WHERE v.budget_id = governance_budgets.id)",
        "UPDATE governance_budgets SET provider_config_id = (SELECT c.id FROM governance_virtual_key_provider_configs c WHERE c.budget_id = governance_budgets.id)",
        "UPDATE governance_budgets SET team_id = (SELECT t.id FROM governance_teams t WHERE t.budget_id = governance_budgets.id)",
    ] {
        database.execute(sql).await;
    }
    recorded(
        &database,
        &[
            "add_multi_budget_tables",
            "migrate_calendar_aligned",
            "add_team_budgets_to_budgets_table",
            "add_oauth_auth_mode_columns",
            "add_team_calendar_aligned_column",
            "drop_legacy_calendar_aligned_columns",
        ],
    )
    .await;
    for (table, column) in [
        ("governance_virtual_keys", "budget_id"),
        ("governance_virtual_key_provider_configs", "budget_id"),
        ("governance_teams", "budget_id"),
        ("governance_budgets", "calendar_aligned"),
    ] {
        database.drop_column(table, column).await;
    }
    let (code, json) = ask(&database, command);
    assert_eq!(code, 0, "{json:#}");
    let (yes, no) = match backend {
        Backend::Sqlite => ("1", "0"),
        Backend::Postgres => ("true", "false"),
    };
    let flag = async |table: &str, id: &str| {
        database
            .one(&format!(
                "SELECT CAST(calendar_aligned AS text) FROM {table} WHERE id = '{id}'"
            ))
            .await
    };
    assert_eq!(
        flag("governance_virtual_keys", "vk-carol").await,
        yes,
        "{json:#}"
    );
    assert_eq!(flag("governance_teams", "t-1").await, yes, "{json:#}");
    assert_eq!(
        flag("governance_virtual_keys", "vk-dave").await,
        no,
        "{json:#}"
    );
    assert_eq!(database.count("tollgate_remembered").await, 0);
}

/// A gateway that migrates between snapshot and verify rewrites what its ids say, and nothing else.
#[rstest]
#[tokio::test]
async fn what_the_gateway_rewrites_is_held_against_its_rule(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let (code, json) = ask(&database, &["snapshot", "-o", &file]);
    assert_eq!(code, 0, "{json:#}");
    recorded(&database, &["backfill_allowed_models_wildcard"]).await;
    database
        .execute("UPDATE governance_virtual_key_provider_configs SET allowed_models = '[\"*\"]' WHERE allowed_models = '[]'")
        .await;
    database
        .execute("UPDATE governance_virtual_keys SET config_hash = 'new' WHERE id = 'vk-dave'")
        .await;
    let (code, json) = ask(&database, &["verify", "--snapshot", &file]);
    assert_eq!(code, 0, "{json:#}");
    let told = said(&json, "V104");
    assert_eq!(told.len(), 2, "{json:#}");
    assert!(
        told.iter().all(|found| found["severity"] == "info"),
        "{json:#}"
    );
    // A value that the rule does not write is a loss.
    database
        .execute("UPDATE governance_virtual_key_provider_configs SET allowed_models = '[\"gpt-4\"]' WHERE id = 4")
        .await;
    let (code, json) = ask(&database, &["verify", "--snapshot", &file]);
    assert_eq!(code, 4, "{json:#}");
}

/// What `prepare` re-points and retires is announced, and no loss.
#[rstest]
#[tokio::test]
async fn what_was_prepared_is_no_loss(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    database
        .execute(
            "INSERT INTO governance_teams (id, name, budget_id, created_at, updated_at) VALUES ('t-2', 'Team Two', 'b-team', \
             '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')",
        )
        .await;
    let (code, json) = ask(&database, &["snapshot", "-o", &file]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(
        &database,
        &["migrate", "prepare", "--shared-budgets", "clone"],
    );
    assert_eq!(code, 0, "{json:#}");
    assert_ne!(
        database
            .one("SELECT budget_id FROM governance_teams WHERE id = 't-2'")
            .await,
        "b-team"
    );
    let (code, json) = ask(&database, &["verify", "--snapshot", &file]);
    assert_eq!(code, 0, "{json:#}");
    // What somebody else re-points is one.
    database
        .execute("UPDATE governance_teams SET budget_id = 'b-alice' WHERE id = 't-2'")
        .await;
    let (code, json) = ask(&database, &["verify", "--snapshot", &file]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "V104").len(), 1, "{json:#}");
}

/// The same of model configs that are retired, by `prepare` and by contract, which gives them back on its way down.
#[tokio::test]
async fn retired_model_configs_are_no_loss() {
    const LONELY: &str = "INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold) \
         VALUES ('f1000000-0000-4000-8000-0000000000ff', 'vercel', 'gone', 1, 1)";
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &[
            "migrate",
            "prepare",
            "--orphaned-models",
            "retire",
            "--accept-policy-change",
        ][..],
        &[
            "migrate",
            "up",
            "--adopt",
            "--orphaned-models",
            "retire",
            "--accept-policy-change",
        ],
    ] {
        let file = folder
            .path()
            .join(format!("{}.json", command[1]))
            .display()
            .to_string();
        let database = coder_at_502().await;
        database.execute(LONELY).await;
        let (code, json) = ask(&database, &["snapshot", "-o", &file]);
        assert_eq!(code, 0, "{json:#}");
        let (code, json) = ask(&database, command);
        assert_eq!(code, 0, "{command:?}: {json:#}");
        let gone = "SELECT CAST(deleted AS text) FROM chat_model_configs WHERE model = 'gone'";
        assert_eq!(database.one(gone).await, "true");
        let (code, json) = ask(&database, &["verify", "--snapshot", &file]);
        assert_eq!(code, 0, "{command:?}: {json:#}");
        if command[1] == "up" {
            let (code, json) = ask(&database, &["migrate", "down", "--allow-data-loss"]);
            assert_eq!(code, 0, "{json:#}");
            assert_eq!(database.one(gone).await, "false");
        }
    }
}

/// Between the versions that put the flag on budgets again and those that took it away both places count.
#[rstest]
#[tokio::test]
async fn a_flag_is_put_back_wherever_the_gateway_of_now_looks(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let (code, json) = ask(&database, &["migrate", "prepare"]);
    assert_eq!(code, 0, "{json:#}");
    // The gateway's own way, as far as flags are concerned: re-added, and filled through keys only.
    for sql in [
        "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)",
        "ALTER TABLE governance_budgets ADD COLUMN provider_config_id bigint",
        "ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false",
        "UPDATE governance_budgets SET virtual_key_id = (SELECT v.id FROM governance_virtual_keys v WHERE v.budget_id = governance_budgets.id)",
        "UPDATE governance_budgets SET provider_config_id = (SELECT c.id FROM governance_virtual_key_provider_configs c WHERE c.budget_id = governance_budgets.id)",
    ] {
        database.execute(sql).await;
    }
    recorded(
        &database,
        &["add_multi_budget_tables", "migrate_calendar_aligned"],
    )
    .await;
    for (table, column) in [
        ("governance_virtual_keys", "budget_id"),
        ("governance_virtual_key_provider_configs", "budget_id"),
    ] {
        database.drop_column(table, column).await;
    }
    let no = database.dialect().false_literal();
    database
        .execute(&format!(
            "UPDATE governance_budgets SET calendar_aligned = {no}"
        ))
        .await;
    let (code, json) = ask(&database, &["migrate", "prepare", "--finish"]);
    assert_eq!(code, 0, "{json:#}");
    let yes = database.dialect().is_true("calendar_aligned");
    assert_eq!(
        database
            .column(&format!("SELECT id FROM governance_budgets WHERE {yes} AND provider_config_id IS NOT NULL ORDER BY 1"))
            .await,
        ["b-carol-openai"]
    );
    assert_eq!(
        database
            .column(&format!(
                "SELECT id FROM governance_virtual_keys WHERE {yes} ORDER BY 1"
            ))
            .await,
        ["vk-carol"]
    );
}
