//! Coder's ledger: what is proven before its number moves, and where it goes.

use serde_json::{Value, json};
use tollgate_tests::fixture::coder_at_502;

use crate::gateways::{PASS, ask, number, waiting};

#[tokio::test]
async fn coders_number_follows_handover_and_contract_and_goes_back() {
    let database = coder_at_502().await;
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!(code, 0, "nothing is applied, so nothing moves: {json:#}");
    assert_eq!(number(&database).await, "502");
    let (code, json) = ask(
        &database,
        &["migrate", "up", "--adopt", "--phase", "expand"],
    );
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        number(&database).await,
        "502",
        "up leaves it alone before contract"
    );
    assert!(!database.has_table("ai_gateway_keys").await);
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!((code, &json["result"]["to"]), (0, &json!(503)), "{json:#}");
    let (code, json) = ask(&database, &["migrate", "up", "--phase", "backfill"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!((code, &json["result"]["to"]), (0, &json!(504)), "{json:#}");
    assert_eq!(number(&database).await, "504");
    let (code, json) = ask(&database, &["migrate", "status"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["result"]["drift"], json!([]), "{json:#}");
    assert_eq!(waiting(&json), ["gateway_keys"], "{json:#}");
    let (code, json) = ask(&database, &[&["migrate", "up"], PASS].concat());
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(number(&database).await, "505");
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!(
        (code, &json["result"]["moved"]),
        (0, &json!(false)),
        "{json:#}"
    );
    // And back, step by step.
    for expected in ["504", "503", "502"] {
        let (code, json) = ask(&database, &["migrate", "down", "--allow-data-loss"]);
        assert_eq!(code, 0, "{json:#}");
        assert_eq!(number(&database).await, expected);
    }
    let bridge = database.one("SELECT name FROM ai_providers").await;
    assert_eq!(bridge, "openai", "what is nobody's copy stays");
}

#[tokio::test]
async fn what_a_number_promises_is_proven_before_it_moves() {
    let database = coder_at_502().await;
    ask(
        &database,
        &["migrate", "up", "--adopt", "--phase", "backfill"],
    );
    for (damage, repair, table) in [
        (
            "DROP INDEX idx_user_ai_provider_keys_ai_provider_id",
            "CREATE INDEX idx_user_ai_provider_keys_ai_provider_id ON user_ai_provider_keys (ai_provider_id)",
            "user_ai_provider_keys",
        ),
        (
            "ALTER TABLE users DISABLE TRIGGER tollgate_delete_keys_of_deleted_users",
            "ALTER TABLE users ENABLE TRIGGER tollgate_delete_keys_of_deleted_users",
            "users",
        ),
        (
            "ALTER TABLE chat_model_configs ADD CONSTRAINT chat_model_configs_ai_provider_required_when_active \
             CHECK (deleted = true OR ai_provider_id IS NOT NULL)",
            "ALTER TABLE chat_model_configs DROP CONSTRAINT chat_model_configs_ai_provider_required_when_active",
            "chat_model_configs",
        ),
    ] {
        database.execute(damage).await;
        let (code, json) = ask(&database, &["migrate", "handover"]);
        assert_eq!(code, 4, "{damage}: {json:#}");
        assert_eq!(json["error"]["code"], "not_proven", "{damage}: {json:#}");
        assert_eq!(json["findings"][0]["table"], table, "{damage}: {json:#}");
        assert_eq!(number(&database).await, "502");
        database.execute(repair).await;
    }
    let (code, json) = ask(&database, &["--track", "governance", "migrate", "handover"]);
    assert_eq!(code, 2, "{json:#}");
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!(code, 0, "{json:#}");
}

/// What 504 and 505 would stop on, or a later migration, stops the hand-over.
#[tokio::test]
async fn what_coders_next_migrations_stop_on_stops_the_hand_over() {
    const VIEW: &str = "CREATE VIEW report AS SELECT id FROM chat_providers";
    const EARLY: &str = "CREATE TABLE ai_gateway_keys (id uuid PRIMARY KEY)";
    const LONELY: &str = "INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold) \
         VALUES ('f1000000-0000-4000-8000-0000000000ff', 'vercel', 'gone', 1, 1)";
    const COPY: &str = "INSERT INTO user_ai_provider_keys (id, user_id, ai_provider_id, api_key) \
         SELECT r.id, r.user_id, (SELECT min(id::text)::uuid FROM ai_providers), 'other' FROM user_chat_provider_keys r LIMIT 1";
    for (phase, damage, repair, named) in [
        ("expand", VIEW, "DROP VIEW report", "P007"),
        ("backfill", VIEW, "DROP VIEW report", "P007"),
        ("expand", EARLY, "DROP TABLE ai_gateway_keys", "handover"),
        ("backfill", EARLY, "DROP TABLE ai_gateway_keys", "handover"),
        (
            "expand",
            LONELY,
            "DELETE FROM chat_model_configs WHERE model = 'gone'",
            "P003",
        ),
        (
            "expand",
            COPY,
            "DELETE FROM user_ai_provider_keys WHERE api_key = 'other'",
            "handover",
        ),
    ] {
        let database = coder_at_502().await;
        ask(&database, &["migrate", "up", "--adopt", "--phase", phase]);
        database.execute(damage).await;
        let (code, json) = ask(&database, &["migrate", "handover"]);
        assert_eq!(code, 4, "{damage}: {json:#}");
        assert_eq!(json["error"]["code"], "not_proven", "{damage}: {json:#}");
        let codes: Vec<&Value> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|found| found["severity"] == "blocking")
            .map(|found| &found["code"])
            .collect();
        assert!(codes.contains(&&json!(named)), "{damage}: {json:#}");
        assert_eq!(number(&database).await, "502");
        database.execute(repair).await;
        let (code, json) = ask(&database, &["migrate", "handover"]);
        assert_eq!(code, 0, "{damage}: {json:#}");
    }
}

/// A contract that Coder did is on record as the gateway's, and nobody undoes it.
#[tokio::test]
async fn a_contract_of_coders_own_is_recorded_as_that() {
    let database = coder_at_502().await;
    ask(
        &database,
        &["migrate", "up", "--adopt", "--phase", "backfill"],
    );
    let (code, json) = ask(&database, &["migrate", "handover"]);
    assert_eq!(code, 0, "{json:#}");
    database
        .execute(
            "UPDATE schema_migrations SET version = 505; \
             UPDATE chat_model_configs SET deleted = true WHERE ai_provider_id IS NULL; \
             ALTER TABLE chat_model_configs ADD CONSTRAINT chat_model_configs_ai_provider_required_when_active \
             CHECK (deleted = true OR ai_provider_id IS NOT NULL); \
             DROP TABLE user_chat_provider_keys; DROP TABLE chat_providers CASCADE",
        )
        .await;
    let (code, json) = ask(&database, &["migrate", "up"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        database
            .one("SELECT origin FROM tollgate_providers_migrations WHERE version LIKE '%contract'")
            .await,
        "gateway"
    );
    let (code, json) = ask(&database, &["migrate", "down"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (4, &json!("ledger_moved")),
        "{json:#}"
    );
    for command in [&["verify"][..], &["migrate", "status", "--check"]] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 0, "{command:?}: {json:#}");
    }
}
