//! Beside a gateway that migrates itself: its ledger, what is left to it, hand-over, preparing, and what it does afterwards.

use rstest::rstest;
use serde_json::{Value, json};
use tollgate_migration::Track;
use tollgate_tests::fixture::{
    Calendar, Shape, SilentKeys, coder_at_502, legacy, populated, recorded, with_credentials,
};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

pub(crate) fn said<'a>(json: &'a Value, code: &str) -> Vec<&'a Value> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["code"] == code)
        .collect()
}

pub(crate) fn ask(database: &TestDatabase, words: &[&str]) -> (i32, Value) {
    tollgate().on(&database.url).json(words)
}

fn slugs(steps: &Value) -> Vec<String> {
    steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            tollgate_migration::migration::slug_of(step["version"].as_str().unwrap()).to_owned()
        })
        .collect()
}

fn pending(json: &Value) -> Vec<String> {
    slugs(&json["tracks"][0]["pending"])
}

pub(crate) fn waiting(json: &Value) -> Vec<String> {
    slugs(&json["result"]["waiting"])
}

pub(crate) async fn number(database: &TestDatabase) -> String {
    database
        .one("SELECT version::text || CASE WHEN dirty THEN ' dirty' ELSE '' END FROM schema_migrations")
        .await
}

pub(crate) const PASS: &[&str] = &["--shared-budgets", "clone", "--accept-policy-change"];

#[rstest]
#[case(&["add_budget_calendar_aligned_column"], "1.5.0-prerelease1")]
#[case(&["add_multi_budget_tables"], "1.5.0-prerelease2")]
#[tokio::test]
async fn a_bifrosts_version_is_read_off_its_ledger(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] ids: &[&str],
    #[case] words: &str,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    if ids == ["add_multi_budget_tables"] {
        database
            .execute("ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)")
            .await;
        database
            .execute("ALTER TABLE governance_budgets ADD COLUMN provider_config_id bigint")
            .await;
        database.execute("ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned boolean DEFAULT false").await;
    }
    recorded(&database, ids).await;
    for command in [
        &["migrate", "status"][..],
        &["migrate", "adopt", "--dry-run"],
        &["migrate", "plan", "--adopt"],
        &["doctor"],
    ] {
        let (_, json) = ask(&database, command);
        let gateway = &json["result"]["gateways"][0];
        assert_eq!(gateway["version"], words, "{command:?}: {json:#}");
        assert_eq!(gateway["gateway"], "Bifrost", "{command:?}: {json:#}");
        assert_eq!(gateway["ledger"], "migrations", "{command:?}: {json:#}");
    }
}

#[rstest]
#[tokio::test]
async fn what_is_the_gateways_own_is_not_made_in_its_place(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let before = database.catalog().await;
    let (code, json) = ask(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{json:#}");
    let after = database.catalog().await;
    let made: Vec<&String> = after
        .tables
        .keys()
        .filter(|name| !before.tables.contains_key(*name) && !name.starts_with("tollgate_"))
        .collect();
    assert_eq!(made, [] as [&String; 0], "no table of the gateway's");
    let clients = "config_mcp_clients";
    assert_eq!(
        before.table(clients).unwrap().columns.len(),
        after.table(clients).unwrap().columns.len()
    );
    let origin = database
        .one("SELECT origin FROM tollgate_governance_migrations WHERE version LIKE '%mcp_credentials'")
        .await;
    assert_eq!(origin, "gateway");
    for command in [&["verify"][..], &["migrate", "status", "--check"]] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 0, "{command:?}: {json:#}");
    }
    // The routines say so.
    let (code, json) = ask(&database, &["reconcile", "credentials"]);
    assert_eq!(code, 1, "{json:#}");
    let (code, json) = ask(
        &database,
        &["migrate", "down", "--to", "multi_budget_expand"],
    );
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        before.table(clients).unwrap().columns.len(),
        database
            .catalog()
            .await
            .table(clients)
            .unwrap()
            .columns
            .len()
    );
}

#[rstest]
#[tokio::test]
async fn a_gateway_that_goes_on_is_no_drift_and_stops_down(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    ask(&database, &["migrate", "up", "--adopt"]);
    // A hand's work, first.
    database
        .execute("ALTER TABLE governance_teams ADD COLUMN cost_centre varchar(20)")
        .await;
    let (code, json) = ask(&database, &["migrate", "status", "--check"]);
    assert_eq!(code, 3, "{json:#}");
    database
        .execute("ALTER TABLE governance_teams DROP COLUMN cost_centre")
        .await;
    // The gateway's: columns that no golden schema has, and one that it takes away.
    for sql in [
        "ALTER TABLE governance_teams ADD COLUMN something_new varchar(20)",
        "ALTER TABLE config_keys DROP COLUMN bedrock_region",
    ] {
        database.execute(sql).await;
    }
    recorded(
        &database,
        &["add_something_new", "add_mcp_client_disabled_column"],
    )
    .await;
    for command in [&["verify"][..], &["migrate", "status", "--check"]] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 0, "{command:?}: {json:#}");
    }
    let (schema, rows) = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );
    let (code, json) = ask(&database, &["migrate", "down", "--allow-data-loss"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["error"]["code"], "ledger_moved", "{json:#}");
    assert_eq!(schema, database.schema().await);
    assert_eq!(rows, database.everything(|_, _| true).await);
}

#[rstest]
#[tokio::test]
async fn a_ledger_that_says_what_is_not_there_stops_the_run(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    recorded(&database, &["add_multi_budget_tables"]).await;
    let (code, json) = ask(&database, &["doctor"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "E006").len(), 1, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{json:#}");
    assert!(!database.has_table("tollgate_governance_migrations").await);
}

#[rstest]
#[case("CREATE TABLE migrations (id integer PRIMARY KEY, migration varchar(255))")]
#[case(
    "CREATE TABLE migrations (id varchar(64) PRIMARY KEY); INSERT INTO migrations VALUES ('2014_10_12_create_users')"
)]
#[tokio::test]
async fn another_products_ledger_is_none_of_bifrosts(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] sql: &str,
) {
    let database = TestDatabase::new(backend).await;
    database.execute(sql).await;
    let (code, json) = ask(&database, &["--track", "governance", "migrate", "up"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "E007").len(), 1, "{json:#}");
    assert_eq!(database.catalog().await.tables.len(), 1);
}

#[rstest]
#[case("1.4.24", &[])]
#[case("1.5.3", &["multi_budget_expand", "multi_budget_backfill", "multi_budget_constraints", "multi_budget_contract"])]
#[tokio::test]
async fn up_goes_as_far_as_the_gateway_that_boots_next_can_live_with(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] version: &str,
    #[case] steps: &[&str],
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    ask(&database, &["migrate", "adopt"]);
    let (code, json) = ask(&database, &["migrate", "status", "--for", version]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(pending(&json), steps, "{json:#}");
    assert_eq!(pending(&json).len() + waiting(&json).len(), 6, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "up", "--for", version]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        json["tracks"][0]["applied"].as_array().unwrap().len(),
        steps.len(),
        "{json:#}"
    );
    let (code, json) = ask(
        &database,
        &["migrate", "status", "--check", "--for", version],
    );
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["verify", "--for", version]);
    assert_eq!(code, 0, "{json:#}");
}

#[rstest]
#[case("1.5.9")]
#[case("1.4.99")]
#[case("next")]
#[tokio::test]
async fn a_version_that_nobody_knows_is_a_usage_error(#[case] version: &str) {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    for command in [
        &["migrate", "up", "--adopt"][..],
        &["migrate", "plan", "--adopt"],
        &["migrate", "status"],
        &["doctor"],
        &["verify"],
    ] {
        let words = [command, &["--for", version]].concat();
        let (code, json) = ask(&database, &words);
        assert_eq!(code, 2, "{words:?}: {json:#}");
        let hint = json["error"]["hint"].as_str().unwrap();
        assert!(hint.contains("1.5.8"), "{words:?}: {json:#}");
    }
    assert!(!database.has_table("tollgate_governance_migrations").await);
}

#[rstest]
#[case(459, "P013")]
#[case(533, "P014")]
#[tokio::test]
async fn a_coder_too_old_or_too_new_is_named_and_left_alone(
    #[case] version: i64,
    #[case] named: &str,
) {
    let database = coder_at_502().await;
    database
        .execute(&format!("UPDATE schema_migrations SET version = {version}"))
        .await;
    if version < 495 {
        database
            .execute("DROP TABLE ai_provider_keys, ai_providers; DROP TYPE ai_provider_type")
            .await;
    } else {
        database
            .execute(
                "CREATE TABLE user_ai_provider_keys (id uuid PRIMARY KEY, user_id uuid, ai_provider_id uuid, api_key text, \
                 api_key_key_id text, created_at timestamptz, updated_at timestamptz); \
                 CREATE TABLE ai_gateway_keys (id uuid); ALTER TABLE chat_model_configs ADD COLUMN ai_provider_id uuid",
            )
            .await;
    }
    let schema = database.schema().await;
    for command in [&["doctor"][..], &["migrate", "up", "--adopt"]] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
        assert_eq!(said(&json, named).len(), 1, "{command:?}: {json:#}");
    }
    assert_eq!(schema, database.schema().await);
}

#[tokio::test]
async fn a_dirty_ledger_refuses_also_when_nothing_is_pending() {
    let database = coder_at_502().await;
    let (code, json) = ask(&database, &[&["migrate", "up", "--adopt"], PASS].concat());
    assert_eq!(code, 0, "{json:#}");
    database
        .execute("UPDATE schema_migrations SET dirty = true")
        .await;
    for command in [
        &["migrate", "up"][..],
        &["doctor"],
        &["migrate", "handover"],
    ] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
        assert_eq!(said(&json, "E006").len(), 1, "{command:?}: {json:#}");
    }
}

/// The key that a Coder takes before it migrates.
#[tokio::test]
async fn a_coder_that_migrates_keeps_tollgate_out() {
    use sea_orm::ConnectionTrait;
    let database = coder_at_502().await;
    let coder = database
        .somebody(
            "coderd",
            "SELECT pg_advisory_xact_lock(1037453835920848937)",
        )
        .await;
    let run = tollgate().on(&database.url).run(&[
        "migrate",
        "up",
        "--adopt",
        "--phase",
        "backfill",
        "--wait-lock",
        "1",
    ]);
    assert_eq!(run.code, 5, "{run:#?}");
    assert!(run.stderr.contains("coderd"), "{run:#?}");
    // Who only reads waits as long as for a lock, and reads past what asks for no key.
    for command in [&["migrate", "status"][..], &["doctor"], &["verify"]] {
        let words = [command, &["--lock-timeout", "1"]].concat();
        let run = tollgate().on(&database.url).run(&words);
        assert_eq!(run.code, 5, "{words:?}: {run:#?}");
        assert!(run.stderr.contains("coderd"), "{words:?}: {run:#?}");
    }
    tollgate().on(&database.url).succeed(&["history"]);
    coder.execute_unprepared("ROLLBACK").await.unwrap();
}

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

#[rstest]
#[tokio::test]
async fn a_database_past_what_is_known_is_said_to_be_so_and_nothing_else(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    ask(&database, &[&["migrate", "up", "--adopt"], PASS].concat());
    for sql in [
        "ALTER TABLE governance_budgets ADD COLUMN model_config_id varchar(255)",
        "ALTER TABLE governance_budgets ADD COLUMN customer_id varchar(255)",
    ] {
        database.execute(sql).await;
    }
    recorded(
        &database,
        &["migrate_virtual_key_governance_to_model_configs"],
    )
    .await;
    for command in [
        &["doctor"][..],
        &["verify"],
        &["migrate", "up"],
        &["reconcile", "credentials", "--check"],
        &["reconcile", "resets", "--dry-run"],
        &["reconcile", "all"],
        &["migrate", "prepare", "--finish"],
    ] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
        let codes: std::collections::BTreeSet<&str> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|found| found["severity"] == "blocking")
            .map(|found| found["code"].as_str().unwrap())
            .collect();
        assert_eq!(codes, ["G016"].into(), "{command:?}: {json:#}");
    }
    let (code, json) = ask(
        &database,
        &[
            "budget",
            "check",
            "--virtual-key",
            "vk-alice",
            "--provider",
            "openai",
        ],
    );
    assert_eq!(code, 4, "{json:#}");
}

/// During the cutover the key is the one that the gateway would use.
#[tokio::test]
async fn a_key_is_resolved_as_the_gateway_does_between_copy_and_contract() {
    let database = coder_at_502().await;
    let openai = "f1000000-0000-4000-8000-000000000001";
    let anthropic = "f1000000-0000-4000-8000-000000000002";
    ask(
        &database,
        &["migrate", "up", "--adopt", "--phase", "expand"],
    );
    let (code, json) = ask(
        &database,
        &["provider-key", "resolve", "--model-config", openai],
    );
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &json!("provider_not_copied")),
        "{json:#}"
    );
    ask(&database, &["migrate", "up", "--phase", "backfill"]);
    let (code, json) = ask(
        &database,
        &["provider-key", "resolve", "--model-config", openai],
    );
    assert_eq!(
        (code, &json["result"]["source"]),
        (0, &json!("provider")),
        "{json:#}"
    );
    // Old code heeds the flags: a central key that is switched off opens nothing.
    database
        .execute(
            "UPDATE chat_providers SET central_api_key_enabled = false, allow_user_api_key = true WHERE provider = 'anthropic'",
        )
        .await;
    let (code, json) = ask(
        &database,
        &["provider-key", "resolve", "--model-config", anthropic],
    );
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &json!("user_api_key_required")),
        "{json:#}"
    );
    ask(&database, &[&["migrate", "up"], PASS].concat());
    let (code, json) = ask(
        &database,
        &["provider-key", "resolve", "--model-config", anthropic],
    );
    assert_eq!(
        (code, &json["result"]["source"]),
        (0, &json!("provider")),
        "{json:#}"
    );
    let (code, json) = ask(&database, &["reconcile", "all"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(said(&json, "R020").len(), 1, "{json:#}");
}

#[rstest]
#[tokio::test]
async fn a_molecule_past_the_feature_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, Track::BILLING).await;
    database
        .execute(
            "CREATE TABLE schema_migrations (filename text PRIMARY KEY); \
             INSERT INTO schema_migrations VALUES ('001_workspaces.sql'), ('043_workspace_status_enum.up.sql')",
        )
        .await;
    let (code, json) = ask(&database, &["migrate", "status"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        json["result"]["gateways"][0]["version"], "043_workspace_status_enum",
        "{json:#}"
    );
    database
        .execute("INSERT INTO schema_migrations VALUES ('20260630120000_drop_workspaces_llm_billing_mode.up.sql')")
        .await;
    for command in [&["doctor"][..], &["migrate", "up", "--adopt"]] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
        assert_eq!(said(&json, "B003").len(), 1, "{command:?}: {json:#}");
    }
}

#[rstest]
#[tokio::test]
async fn a_plan_can_be_made_for_a_fresh_database(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("governance", "providers", "billing")] track: &str,
) {
    let database = TestDatabase::new(backend).await;
    database.execute("CREATE TABLE another (id integer)").await;
    let (code, plan) = tollgate()
        .on(&database.url)
        .json(&["--track", track, "migrate", "plan"]);
    assert_eq!(code, 0, "{plan:#}");
    let planned = plan["result"]["migrations"].as_array().unwrap();
    assert!(!planned.is_empty(), "{plan:#}");
    assert!(planned.iter().all(|step| step["rows"] == 0), "{plan:#}");
}

#[rstest]
#[case("bifrost-legacy", Backend::Sqlite, "1.4.18 to 1.4.24")]
#[case("bifrost-legacy", Backend::Postgres, "1.4.18 to 1.4.24")]
#[case("coder-legacy", Backend::Postgres, "502")]
#[case("molecule", Backend::Postgres, "043_workspace_status_enum")]
#[tokio::test]
async fn seeds_carry_the_ledger_of_the_version_that_they_imitate(
    #[case] profile: &str,
    #[case] backend: Backend,
    #[case] version: &str,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["seed", "--profile", profile, "--virtual-keys", "50"]);
    let (_, status) = tollgate.json(&["migrate", "status"]);
    let said = status["result"]["gateways"][0]["version"].as_str().unwrap();
    assert!(said.contains(version), "{status:#}");
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--accept-policy-change",
        "--name-conflicts",
        "retire",
    ]);
    tollgate.succeed(&["verify"]);
}

#[tokio::test]
async fn down_to_the_baseline_takes_its_own_number_back_and_never_coders() {
    let database = coder_at_502().await;
    ask(
        &database,
        &["migrate", "up", "--adopt", "--accept-policy-change"],
    );
    assert_eq!(number(&database).await, "505");
    let down = ["migrate", "down", "--to", "providers_baseline"];
    let (code, json) = ask(&database, &down);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(number(&database).await, "502");

    let database = coder_at_502().await;
    ask(
        &database,
        &[
            "migrate",
            "up",
            "--adopt",
            "--phase",
            "backfill",
            "--accept-policy-change",
        ],
    );
    // Coder's own 505.
    database
        .execute(
            "UPDATE schema_migrations SET version = 505; DROP TABLE user_chat_provider_keys; DROP TABLE chat_providers CASCADE",
        )
        .await;
    let (code, json) = ask(&database, &["migrate", "up"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "down"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (4, &json!("ledger_moved")),
        "{json:#}"
    );
    assert!(!database.has_table("chat_providers").await);
}

/// What stops the boot of the version that was named stops `up` too: once the steps are done, no row can mend it.
#[rstest]
#[tokio::test]
async fn up_for_a_version_stops_where_its_boot_would(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "100",
    ]);
    database
        .execute(
            "UPDATE governance_teams SET budget_id = (SELECT max(budget_id) FROM governance_teams) \
             WHERE id = (SELECT min(id) FROM governance_teams WHERE budget_id IS NULL)",
        )
        .await;
    let up = ["migrate", "up", "--adopt", "--for", "1.5.8"];
    let (code, json) = tollgate.json(&up);
    assert_eq!(code, 4, "{json:#}");
    assert!(
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|found| found["code"] == "G021" && found["severity"] == "blocking"),
        "{json:#}"
    );
    tollgate.succeed(&["migrate", "prepare", "--shared-budgets", "clone"]);
    tollgate.succeed(&up);
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

/// A provider that new code made under a family's name never was a chat provider: the way down lets old code read it, and
/// takes neither it nor its keys.
#[rstest]
#[tokio::test]
async fn the_way_down_takes_no_provider_that_others_made(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, Track::PROVIDERS).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[&["migrate", "up", "--adopt"], PASS].concat());
    let at = "'2026-04-01 00:00:00+00:00'";
    let yes = database.dialect().true_literal();
    let no = database.dialect().false_literal();
    database
        .execute(&format!(
            "INSERT INTO ai_providers (id, type, name, display_name, enabled, deleted, base_url, created_at, updated_at) \
             VALUES ('00000000-0000-4000-8000-00000000a2e0', 'azure', 'agents-azure', 'Azure', {yes}, {no}, '', {at}, {at})"
        ))
        .await;
    database
        .execute(&format!(
            "INSERT INTO user_ai_provider_keys (id, user_id, ai_provider_id, api_key, created_at, updated_at) \
             SELECT '00000000-0000-4000-8000-00000000a2e1', u.id, '00000000-0000-4000-8000-00000000a2e0', 'azure-key', {at}, {at} \
             FROM (SELECT id FROM users WHERE NOT ({}) ORDER BY id LIMIT 1) u",
            database.dialect().is_true("deleted")
        ))
        .await;
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 0, "{json:#}");
    let legacy = "SELECT api_key FROM user_chat_provider_keys WHERE api_key = 'azure-key'";
    assert_eq!(database.one(legacy).await, "azure-key", "old code reads it");
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        database
            .one("SELECT name FROM ai_providers WHERE name = 'agents-azure'")
            .await,
        "agents-azure"
    );
    assert_eq!(
        database
            .one("SELECT api_key FROM user_ai_provider_keys WHERE api_key = 'azure-key'")
            .await,
        "azure-key"
    );
    tollgate.succeed(&[&["migrate", "up"], PASS].concat());
    tollgate.succeed(&["verify"]);
}
