//! The way back, and what the legacy schema cannot hold.

use super::*;

#[rstest]
#[tokio::test]
async fn going_down_says_what_the_legacy_schema_cannot(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_contract").await;
    let tollgate = tollgate().on(&database.url);
    // A second openai, two azures, a copilot and a deleted one: none of them was a chat provider, whatever its family, and old
    // code reads them where they are.
    provider(&database, &id(1), "openai", "second", "").await;
    database
        .execute(&format!(
            "UPDATE ai_providers SET updated_at = '2027-01-01 00:00:00+00:00' WHERE id = '{}'",
            id(1)
        ))
        .await;
    provider(&database, &id(2), "azure", "azure-on", "").await;
    provider(&database, &id(3), "azure", "azure-off", "").await;
    database.execute(&format!("UPDATE ai_providers SET enabled = false, updated_at = '2027-01-01 00:00:00+00:00' WHERE id = '{}'", id(3))).await;
    provider(&database, &id(4), "copilot", "pilot", "").await;
    provider(&database, &id(5), "vercel", "gone", "").await;
    database
        .execute(&format!(
            "UPDATE ai_providers SET deleted = true WHERE id = '{}'",
            id(5)
        ))
        .await;
    database
        .execute(&format!(
            "UPDATE ai_providers SET settings = 'cipher-settings' WHERE id = '{BEDROCK}'"
        ))
        .await;
    key(
        &database,
        &id(6),
        OPENAI,
        "younger",
        "2027-01-01 00:00:00+00:00",
    )
    .await;
    // Dave has a key for the other openai only, alice for both.
    user_key(
        &database,
        &id(7),
        DAVE,
        &id(1),
        "dave",
        "2026-06-01 00:00:00+00:00",
    )
    .await;
    user_key(
        &database,
        &id(8),
        ALICE,
        &id(1),
        "alice-other",
        "2027-06-01 00:00:00+00:00",
    )
    .await;
    let before = database.everything(|_, _| true).await;
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{json:#}");
    let mut lost: Vec<String> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            format!(
                "{} {}",
                finding["table"].as_str().unwrap(),
                finding["sample_ids"]
            )
        })
        .collect();
    lost.sort();
    let list = |ids: &[&str]| serde_json::json!(ids).to_string();
    let mut expected = vec![
        format!("ai_providers {}", list(&[BEDROCK])),
        format!("ai_provider_keys {}", list(&[&id(6)])),
    ];
    expected.sort();
    assert_eq!(lost, expected);
    assert_eq!(
        database.everything(|_, _| true).await,
        before,
        "nothing was changed"
    );
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!(
        database
            .column(
                "SELECT provider || ' ' || CAST(id AS text) || ' ' || display_name || ' ' || api_key || ' ' || COALESCE(api_key_key_id, '-') \
                 || CASE WHEN enabled THEN ' on' ELSE ' off' END || CASE WHEN central_api_key_enabled AND allow_user_api_key \
                 AND allow_central_api_key_fallback THEN ' all' ELSE '' END FROM chat_providers ORDER BY 1"
            )
            .await,
        [
            format!("anthropic {ANTHROPIC}  plain-anthropic - on all"),
            format!("bedrock {BEDROCK}   - off all"),
            format!("openai {OPENAI} OpenAI cipher-openai d16e57d16e57d1 on all"),
        ]
    );
    assert_eq!(
        database
            .column("SELECT CAST(id AS text) || ' ' || CAST(chat_provider_id AS text) || ' ' || api_key FROM user_chat_provider_keys ORDER BY 1")
            .await,
        [
            format!("e1000000-0000-4000-8000-000000000001 {OPENAI} cipher-alice"),
            format!("e1000000-0000-4000-8000-000000000002 {OPENAI} plain-bob"),
        ]
    );
    // The new rows stay until the copy goes down, which takes away those of chat providers only.
    assert_eq!(database.count("ai_providers").await, 8);
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(
        code, 4,
        "settings and the younger key have no legacy row: {json:#}"
    );
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!(
        providers(&database).await,
        [
            "azure-off azure - off",
            "azure-on azure - on",
            "gone vercel - on deleted",
            "pilot copilot - on",
            "second openai - on"
        ]
    );
    assert_eq!(database.count("ai_provider_keys").await, 0);
    assert_eq!(
        database.count("user_ai_provider_keys").await,
        2,
        "those of the provider that stays"
    );
    assert_eq!(
        database
            .count("chat_model_configs WHERE ai_provider_id IS NOT NULL")
            .await,
        0
    );
    assert_eq!(database.count("chat_providers").await, 3);
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{json:#}");
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert!(!database.catalog().await.has_table("ai_providers"));
}

#[rstest]
#[tokio::test]
async fn going_down_brings_back_what_was_retired(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_expand").await;
    provider(&database, &id(1), "openai", "agents-openai", "").await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "migrate",
        "up",
        "--phase",
        "backfill",
        "--name-conflicts",
        "retire",
    ]);
    assert_eq!(
        providers(&database).await.len(),
        4,
        "three copies beside the retired one"
    );
    tollgate.succeed(&["migrate", "down"]);
    assert_eq!(providers(&database).await, ["agents-openai openai - on"]);
    assert_eq!(database.count("tollgate_changed").await, 0);
    assert_eq!(database.count("chat_providers").await, 3);
    assert_eq!(database.count("user_chat_provider_keys").await, 2);
}

#[rstest]
#[tokio::test]
async fn going_down_behind_the_copy_lists_edits_and_names(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        "base_url = 'https://edited'",
        "display_name = 'Edited'",
        "enabled = false",
        "name = 'renamed'"
    )]
    edit: &str,
) {
    let database = at(backend, "provider_key_backfill").await;
    database
        .execute(&format!(
            "UPDATE ai_providers SET {edit}, updated_at = '2027-01-01 00:00:00+00:00' WHERE id = '{OPENAI}'"
        ))
        .await;
    let tollgate = tollgate().on(&database.url);
    let before = database.everything(|_, _| true).await;
    let (code, json) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{json:#}");
    let listed = json["findings"].as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|finding| finding["table"] == "ai_providers"
                && finding["sample_ids"] == serde_json::json!([OPENAI])),
        "{json:#}"
    );
    assert_eq!(database.everything(|_, _| true).await, before);
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
}

/// One time of a chat provider stands for its settings and its key: an edit of the one is none of the other.
#[rstest]
#[tokio::test]
async fn verify_is_content_right_behind_a_down_of_contract(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_contract").await;
    database
        .execute(&format!(
            "UPDATE ai_providers SET base_url = 'https://edited', updated_at = '2027-01-01 00:00:00+00:00'; \
             INSERT INTO ai_provider_keys (id, provider_id, api_key, created_at, updated_at) VALUES \
             ('{}', '{BEDROCK}', '', '2026-04-01 00:00:00+00:00', '2026-04-01 00:00:00+00:00'), \
             ('{}', '{BEDROCK}', 'key-real', '2026-04-02 00:00:00+00:00', '2026-04-02 00:00:00+00:00');",
            id(1),
            id(2)
        ))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["snapshot", "-o", &file]);
    let keys_before = keys(&database).await;
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!(
        database
            .one("SELECT api_key FROM chat_providers WHERE provider = 'bedrock'")
            .await,
        "key-real",
        "the key in use, not the empty one before it"
    );
    tollgate.succeed(&["verify"]);
    tollgate.succeed(&["verify", "--snapshot", &file]);
    tollgate.succeed(&["reconcile", "provider-keys", "--check"]);
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(keys(&database).await, keys_before);
    tollgate.succeed(&["verify", "--snapshot", &file]);
}

/// Each of many losses is named, in the refusal, in the answer and in the record; and the way up stays open.
#[rstest]
#[tokio::test]
async fn a_down_with_many_losses_lists_each_and_can_go_up_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_contract").await;
    let tollgate = || tollgate().on(&database.url);
    for number in 0..21 {
        key(
            &database,
            &id(100 + number),
            OPENAI,
            &format!("extra-{number}"),
            "2027-05-01 00:00:00+00:00",
        )
        .await;
    }
    let listed = |json: &Value| {
        let mut ids: Vec<String> = named(json, "data_loss")
            .iter()
            .filter(|finding| finding["table"] == "ai_provider_keys")
            .flat_map(|finding| finding["sample_ids"].as_array().unwrap().clone())
            .filter_map(|id| id.as_str().map(str::to_owned))
            .filter(|id| id.starts_with("99"))
            .collect();
        ids.sort();
        ids
    };
    // The oldest of all is the one in use, which the legacy schema has.
    let expected: Vec<String> = (100..121).map(id).collect();
    let (code, refused) = tollgate().json(&["migrate", "down"]);
    assert_eq!((code, listed(&refused)), (4, expected.clone()));
    let (code, lost) = tollgate().json(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!((code, listed(&lost)), (0, expected));
    assert!(
        lost["findings"]
            .as_array()
            .unwrap()
            .iter()
            .all(|finding| finding["severity"] != "blocking"),
        "{lost:#}"
    );
    let (code, json) = tollgate().json(&["migrate", "up", "--accept-policy-change"]);
    assert_eq!(code, 0, "{json:#}");
    assert!(
        named(&json, "P008").is_empty() && named(&json, "P009").is_empty(),
        "{json:#}"
    );
    tollgate().succeed(&["verify"]);
}
