//! `schema repair`: what a gateway's rebuild, a hand or an earlier release left, and how it is put right.

use rstest::rstest;
use serde_json::json;
use tollgate_tests::fixture::{Calendar, Shape, legacy, recorded};
use tollgate_tests::{Backend, TestDatabase};

use crate::gateways::{ask, said};
use crate::tollgate;

#[tokio::test]
async fn indexes_that_a_rebuild_has_lost_are_brought_back() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    database
        .execute("DROP INDEX idx_governance_budgets_last_reset; DROP INDEX idx_virtual_key_value")
        .await;
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let catalog = database.catalog().await;
    assert!(
        catalog
            .table("governance_budgets")
            .unwrap()
            .index("idx_governance_budgets_last_reset")
            .is_some()
    );
    assert!(
        catalog
            .table("governance_virtual_keys")
            .unwrap()
            .index("idx_virtual_key_value")
            .is_some()
    );
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!((code, &json["changes"]), (0, &json!([])), "{json:#}");
}

#[tokio::test]
async fn a_column_that_a_boot_drops_is_there_for_it() {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    ask(&database, &["migrate", "up", "--adopt"]);
    database
        .execute("ALTER TABLE governance_budgets ADD COLUMN team_id varchar(255)")
        .await;
    recorded(
        &database,
        &[
            "add_multi_budget_tables",
            "migrate_calendar_aligned",
            "add_team_budgets_to_budgets_table",
        ],
    )
    .await;
    let (code, json) = ask(&database, &["doctor"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(said(&json, "G025").len(), 2, "{json:#}");
    let (code, json) = ask(&database, &["doctor", "--for", "1.5.3"]);
    assert_eq!(code, 4, "{json:#}");
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["doctor", "--for", "1.5.3"]);
    assert_eq!(code, 0, "{json:#}");
}

/// What the release before made in the gateway's place.
#[rstest]
#[tokio::test]
async fn tables_that_were_made_too_early_are_named_and_dropped_where_they_are_empty(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    // Without a ledger everything is made, as the release before did with one.
    let ids = database.column("SELECT id FROM migrations").await;
    database.execute("DELETE FROM migrations").await;
    let (code, json) = ask(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{json:#}");
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    recorded(&database, &ids).await;
    let (_, json) = ask(&database, &["doctor"]);
    assert_eq!(said(&json, "E008").len(), 4, "{json:#}");
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let catalog = database.catalog().await;
    for table in [
        "oauth_user_tokens",
        "oauth_user_sessions",
        "mcp_per_user_header_credentials",
        "mcp_per_user_header_flows",
    ] {
        assert!(!catalog.has_table(table), "{table}");
    }
    let (_, json) = ask(&database, &["doctor"]);
    assert_eq!(said(&json, "E008").len(), 0, "{json:#}");
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
}

/// What an earlier release made in place of a gateway's table of keys is completed: a boot reads all of its columns.
#[rstest]
#[tokio::test]
async fn keys_of_an_earlier_release_get_what_a_boot_reads(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["--track", "governance", "migrate", "up"]);
    assert!(
        database
            .catalog()
            .await
            .has_column("config_keys", "vertex_project_id")
    );
    for column in ["vertex_project_id", "vllm_model_name"] {
        database
            .execute(&format!("ALTER TABLE config_keys DROP COLUMN {column}"))
            .await;
    }
    tollgate.succeed(&["verify"]);
    let (code, repair) = tollgate.json(&["schema", "repair"]);
    assert_eq!(code, 0, "{repair:#}");
    assert_eq!(repair["changes"][0]["rows"], 2, "{repair:#}");
    assert!(
        database
            .catalog()
            .await
            .has_column("config_keys", "vertex_project_id")
    );
    let (_, diff) = tollgate.json(&["schema", "diff"]);
    assert_eq!(
        diff["result"]["differences"],
        serde_json::json!([]),
        "{diff:#}"
    );
}

/// What a step made and a hand has taken away comes back in the form that the step gave it.
#[rstest]
#[tokio::test]
async fn what_a_step_made_and_somebody_took_away_comes_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let (code, json) = ask(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{json:#}");
    let schema = database.schema().await;
    database
        .execute("DROP INDEX idx_governance_budgets_virtual_key_id")
        .await;
    if backend == Backend::Postgres {
        database
            .execute(
                "ALTER TABLE governance_budgets DROP CONSTRAINT fk_governance_virtual_keys_budgets; \
                 ALTER TABLE governance_budgets DROP CONSTRAINT chk_governance_budgets_one_owner",
            )
            .await;
    }
    assert_ne!(database.schema().await, schema);
    let (code, json) = ask(&database, &["schema", "repair", "--dry-run"]);
    assert_eq!(code, 0, "{json:#}");
    assert_ne!(database.schema().await, schema, "a dry run changes nothing");
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(database.schema().await, schema);
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!((code, &json["changes"]), (0, &json!([])), "{json:#}");
}

/// The flag that a boot drops says what the keys say, as the gateway's own migration fills it.
#[tokio::test]
async fn a_flag_that_comes_back_says_what_the_keys_say() {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    ask(&database, &["migrate", "up", "--adopt"]);
    recorded(
        &database,
        &["add_multi_budget_tables", "migrate_calendar_aligned"],
    )
    .await;
    let aligned = database
        .column(
            "SELECT b.id FROM governance_budgets b JOIN governance_virtual_keys v ON v.id = b.virtual_key_id \
             WHERE v.calendar_aligned ORDER BY 1",
        )
        .await;
    assert!(!aligned.is_empty());
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let flagged = database
        .column("SELECT id FROM governance_budgets WHERE calendar_aligned ORDER BY 1")
        .await;
    assert_eq!(flagged, aligned);
}

/// The rebuild of `make_oauth_token_expiry_nullable`, in the shape of before 1.5.3.
#[tokio::test]
async fn indexes_of_early_tokens_come_back() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    for sql in [
        "CREATE TABLE oauth_user_tokens (id varchar(255) PRIMARY KEY, virtual_key_id varchar(255), user_id varchar(255), \
         mcp_client_id varchar(255), oauth_config_id varchar(255), session_token varchar(255), session_token_hash varchar(64), \
         expires_at datetime, last_refreshed_at datetime, created_at datetime, updated_at datetime)",
        "CREATE TABLE oauth_tokens (id varchar(255) PRIMARY KEY, expires_at datetime, last_refreshed_at datetime, \
         created_at datetime, updated_at datetime)",
    ] {
        database.execute(sql).await;
    }
    recorded(
        &database,
        &[
            "add_per_user_oauth_tables",
            "make_oauth_token_expiry_nullable",
        ],
    )
    .await;
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let catalog = database.catalog().await;
    for (table, count) in [("oauth_user_tokens", 8), ("oauth_tokens", 4)] {
        let named = catalog
            .table(table)
            .unwrap()
            .indexes
            .iter()
            .filter(|index| index.name.starts_with("idx_"))
            .count();
        assert_eq!(named, count, "{table}");
    }
}

/// A dropped table that was made too early is the gateway's to make: its absence is no drift.
#[rstest]
#[tokio::test]
async fn a_table_that_went_is_no_drift(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let ids = database.column("SELECT id FROM migrations").await;
    database.execute("DELETE FROM migrations").await;
    ask(
        &database,
        &["migrate", "up", "--adopt", "--phase", "expand"],
    );
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    recorded(&database, &ids).await;
    // With a version that boots next it stops the run, as it stops that boot.
    let (code, json) = ask(&database, &["migrate", "up", "--for", "1.5.8"]);
    assert_eq!(code, 4, "{json:#}");
    assert!(!said(&json, "E008").is_empty(), "{json:#}");
    let (code, json) = ask(&database, &["schema", "repair"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "status"]);
    assert_eq!(
        (code, &json["result"]["drift"]),
        (0, &json!([])),
        "{json:#}"
    );
    let (code, json) = ask(&database, &["migrate", "up", "--for", "1.5.8"]);
    assert_eq!(code, 0, "{json:#}");
}
