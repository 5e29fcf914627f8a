//! What around a database would stop a command half-way is said before the first write.

use rstest::rstest;
use serde_json::Value;
use tollgate_migration::Track;
use tollgate_tests::fixture::{Calendar, Shape, legacy, populated};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

async fn postgres() -> TestDatabase {
    populated(Backend::Postgres, Track::GOVERNANCE).await
}

/// Expects a finding of doctor, of plan and of up, and that nothing changed.
async fn refused(database: &TestDatabase, url: &str, code: &str, sample: &str) {
    let before = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );
    for command in [
        &["doctor"][..],
        &["migrate", "plan", "--adopt"],
        &["migrate", "up", "--adopt", "--shared-budgets", "clone"],
    ] {
        let (exit, json) = tollgate().on(url).json(command);
        let named = json["findings"].as_array().unwrap().iter().any(|found| {
            found["code"] == code
                && found["severity"] == "blocking"
                && found["sample_ids"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|id| id.as_str().unwrap().contains(sample))
        });
        assert!(named, "{command:?}: {json:#}");
        if command != ["migrate", "plan", "--adopt"] {
            assert_eq!(exit, 4, "{command:?}: {json:#}");
        }
    }
    let after = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_table_of_another_role_is_named() {
    let database = postgres().await;
    let role = database.role("gw", "").await;
    database.belongs_to(&role).await;
    database
        .execute(&format!(
            "ALTER TABLE governance_budgets OWNER TO postgres; GRANT ALL ON governance_budgets TO {}",
            role.name
        ))
        .await;
    refused(&database, &role.url, "E002", "owned by postgres").await;
}

#[tokio::test]
async fn a_schema_in_which_nothing_may_be_made_is_named() {
    let database = postgres().await;
    let role = database.role("gw", "").await;
    database.belongs_to(&role).await;
    database
        .execute(&format!(
            "REVOKE CREATE ON SCHEMA public FROM {0}, PUBLIC; GRANT USAGE ON SCHEMA public TO {0}",
            role.name
        ))
        .await;
    refused(&database, &role.url, "E002", "no CREATE on schema public").await;
}

/// `IF NOT EXISTS` needs the right all the same.
#[tokio::test]
async fn routines_need_no_create_where_their_tables_are() {
    let database = postgres().await;
    let role = database.role("gw", "").await;
    database.belongs_to(&role).await;
    let tollgate = tollgate().on(&role.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    tollgate.succeed(&["reconcile", "all"]);
    let spend = |request| {
        tollgate.succeed(&[
            "budget",
            "record",
            "--virtual-key",
            "vk-alice",
            "--provider",
            "openai",
            "--cost",
            "0.01",
            "--request-id",
            request,
        ])
    };
    spend("one");
    database
        .execute(&format!(
            "REVOKE CREATE ON SCHEMA public FROM {0}, PUBLIC; GRANT USAGE ON SCHEMA public TO {0}",
            role.name
        ))
        .await;
    spend("two");
    database
        .execute("UPDATE governance_budgets SET last_reset = '2020-01-01 00:00:00+00'")
        .await;
    tollgate.succeed(&["reconcile", "all"]);
    tollgate.succeed(&["reconcile", "all", "--check"]);
}

#[tokio::test]
async fn an_event_trigger_that_raises_is_named() {
    let database = postgres().await;
    database
        .execute(
            "CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'no DDL on a weekday'; END $$; \
             CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION no_ddl()",
        )
        .await;
    refused(&database, &database.url, "E003", "guard").await;
    database.execute("DROP EVENT TRIGGER guard").await;
}

#[tokio::test]
async fn a_published_table_without_identity_is_named() {
    let database = postgres().await;
    database
        .execute(
            "CREATE PUBLICATION replica FOR TABLE governance_budgets; \
             ALTER TABLE governance_budgets REPLICA IDENTITY NOTHING",
        )
        .await;
    refused(&database, &database.url, "E003", "replica").await;
}

#[rstest]
#[tokio::test]
async fn a_table_under_a_name_of_tollgates_own_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        "CREATE TABLE tollgate_runs (what text)",
        "CREATE VIEW tollgate_backfills AS SELECT 1 AS one",
        "CREATE SEQUENCE tollgate_changed"
    )]
    squatter: &str,
) {
    if backend == Backend::Sqlite && squatter.contains("SEQUENCE") {
        return;
    }
    let database = populated(backend, Track::GOVERNANCE).await;
    database.execute(squatter).await;
    let name = squatter.split(' ').nth(2).unwrap();
    refused(&database, &database.url, "E004", name).await;
}

/// The gateway's tables in `public`, an empty schema first on the search path.
#[tokio::test]
async fn tables_later_on_the_search_path_are_not_hidden_by_new_ones() {
    let database = postgres().await;
    let name = database.one("SELECT current_database()::text").await;
    database
        .execute(&format!(
            "CREATE SCHEMA app; ALTER DATABASE {name} SET search_path = app, public"
        ))
        .await;
    for command in [
        &["doctor"][..],
        &["migrate", "status"],
        &["migrate", "plan"],
        &["migrate", "up"],
        &["migrate", "up", "--adopt"],
        &["migrate", "adopt"],
        &["verify"],
        &["reconcile", "all"],
    ] {
        for track in [&[][..], &["--track", "governance"]] {
            let words = [track, command].concat();
            let (code, json) = tollgate().on(&database.url).json(&words);
            assert_eq!(code, 4, "{words:?}: {json:#}");
            assert_eq!(json["findings"][0]["code"], "E004", "{words:?}: {json:#}");
            let hint = json["error"]["hint"].as_str().unwrap();
            assert!(hint.contains("?schema=public"), "{words:?}: {json:#}");
        }
    }
    let made = database
        .count("pg_class WHERE relnamespace = 'app'::regnamespace")
        .await;
    assert_eq!(made, 0);
    let url = format!("{}?schema=public", database.url);
    tollgate()
        .on(&url)
        .succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    tollgate().on(&url).succeed(&["verify"]);
}

/// One table of the gateway's is later on the search path, and the others are where they should be.
#[tokio::test]
async fn a_single_table_later_on_the_search_path_is_named() {
    let database = postgres().await;
    let name = database.one("SELECT current_database()::text").await;
    database
        .execute(&format!(
            "CREATE SCHEMA later; ALTER TABLE governance_teams SET SCHEMA later; \
             ALTER DATABASE {name} SET search_path = public, later"
        ))
        .await;
    for command in [
        &["doctor"][..],
        &["migrate", "up", "--adopt", "--shared-budgets", "clone"],
    ] {
        let (code, json) = tollgate().on(&database.url).json(command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
        let found: Vec<&Value> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|found| found["code"] == "E004")
            .collect();
        assert_eq!(found.len(), 1, "{command:?}: {json:#}");
        assert_eq!(
            found[0]["sample_ids"],
            serde_json::json!(["later.governance_teams"]),
            "{command:?}: {json:#}"
        );
    }
    assert!(!database.has_table("tollgate_governance_migrations").await);
    database
        .execute("ALTER TABLE later.governance_teams SET SCHEMA public")
        .await;
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
    ]);
}

/// Rows that are made up do not hide a gateway's.
#[tokio::test]
async fn a_seed_makes_no_shadow_tables() {
    let database = postgres().await;
    let name = database.one("SELECT current_database()::text").await;
    database
        .execute(&format!(
            "CREATE SCHEMA app; ALTER DATABASE {name} SET search_path = app, public"
        ))
        .await;
    let (code, json) = tollgate().on(&database.url).json(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "10",
    ]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["findings"][0]["code"], "E004", "{json:#}");
    let made = database
        .count("pg_class WHERE relnamespace = 'app'::regnamespace")
        .await;
    assert_eq!(made, 0);
}

fn codes(json: &Value) -> Vec<&str> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["code"].as_str().unwrap())
        .collect()
}

/// Hazards that can come back are asked when nothing is pending too.
#[rstest]
#[tokio::test]
async fn hazards_that_come_back_are_asked_always(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("-5", "'NaN'", "'Infinity'")] limit: &str,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let (_, json) = tollgate().on(&database.url).json(&["doctor"]);
    assert!(!codes(&json).contains(&"G009"), "{json:#}");
    database
        .execute(&format!(
            "UPDATE governance_budgets SET max_limit = {limit} WHERE id = 'b-alice'"
        ))
        .await;
    let (_, json) = tollgate().on(&database.url).json(&["doctor"]);
    let found = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["code"] == "G009")
        .unwrap_or_else(|| panic!("{json:#}"));
    assert_eq!(found["sample_ids"], serde_json::json!(["b-alice"]));
    // And such a limit allows nothing.
    let (code, json) = tollgate().on(&database.url).json(&[
        "budget",
        "check",
        "--virtual-key",
        "vk-alice",
        "--provider",
        "openai",
    ]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(
        json["result"]["blocked_by"]["budget_id"], "b-alice",
        "{json:#}"
    );
}

#[tokio::test]
async fn down_asks_before_the_first_write_what_would_stop_it_half_way() {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    database
        .execute("ALTER TABLE governance_budgets REPLICA IDENTITY NOTHING; CREATE PUBLICATION pub FOR TABLE governance_budgets")
        .await;
    let (code, down) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{down:#}");
    assert_eq!(down["findings"][0]["code"], "E003", "{down:#}");
    let (_, status) = tollgate.json(&["migrate", "status"]);
    assert_eq!(
        status["result"]["in_progress"],
        serde_json::json!([]),
        "{status:#}"
    );
    database.execute("DROP PUBLICATION pub").await;
    tollgate.succeed(&["migrate", "down"]);
}
