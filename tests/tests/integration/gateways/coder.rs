//! Coder's number, its lock and its own migrations.

use super::*;

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
