//! Beside a gateway that migrates itself: its ledger, what is left to it, hand-over, preparing, and what it does afterwards.

mod coder;
mod prepared;

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
            tollgate_migration::context::slug_of(step["version"].as_str().unwrap()).to_owned()
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
#[case("2.1.0")]
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
        assert!(hint.contains("2.0.0-prerelease3"), "{words:?}: {json:#}");
    }
    assert!(!database.has_table("tollgate_governance_migrations").await);
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
