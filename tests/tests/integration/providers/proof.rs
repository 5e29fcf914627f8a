//! What `verify` and `rehearse` say of the cutover, and that no key is said by anybody.

use super::*;

#[rstest]
#[tokio::test]
async fn every_single_corruption_of_the_cutover_is_found_and_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let first = tollgate().on(&database.url);
    first.succeed(&["snapshot", "-o", &file]);
    up(&database, "provider_key_backfill");
    let copied = database.freeze().await;
    let database = copied.copy().await;
    tollgate().on(&database.url).succeed(&["migrate", "up"]);
    let finished = database.freeze().await;
    let aside = match backend {
        Backend::Sqlite => "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON",
        Backend::Postgres => {
            "SET session_replication_role = replica; \
                              ALTER TABLE chat_model_configs DROP CONSTRAINT IF EXISTS chat_model_configs_ai_provider_required_when_active"
        }
    };
    let alice_key = format!("{ALICE},{OPENAI}");
    let openai_key = format!("{OPENAI},1");
    let config = "f1000000-0000-4000-8000-000000000001";
    let nobody = id(9);
    for (sql, code, table, column, id) in [
        ("UPDATE user_ai_provider_keys SET api_key = 'x' WHERE api_key = 'cipher-alice'".to_owned(), "V104", "user_ai_provider_keys", Some("api_key"), alice_key.as_str()),
        ("UPDATE user_ai_provider_keys SET api_key_key_id = NULL WHERE api_key = 'cipher-alice'".to_owned(), "V104", "user_ai_provider_keys", Some("api_key_key_id"), &alice_key),
        ("UPDATE user_ai_provider_keys SET updated_at = '2026-01-01 00:00:00+00:00' WHERE api_key = 'cipher-alice'".to_owned(), "V104", "user_ai_provider_keys", Some("updated_at"), &alice_key),
        (format!("UPDATE user_ai_provider_keys SET user_id = '{DAVE}' WHERE api_key = 'cipher-alice'"), "V102", "user_ai_provider_keys", None, &alice_key),
        ("DELETE FROM user_ai_provider_keys WHERE api_key = 'cipher-alice'".to_owned(), "V102", "user_ai_provider_keys", None, &alice_key),
        ("UPDATE ai_provider_keys SET api_key = 'x' WHERE api_key = 'cipher-openai'".to_owned(), "V104", "ai_provider_keys", Some("api_key"), &openai_key),
        ("DELETE FROM ai_provider_keys WHERE api_key = 'cipher-openai'".to_owned(), "V102", "ai_provider_keys", None, &openai_key),
        (format!("INSERT INTO ai_provider_keys (id, provider_id, api_key) VALUES ('{nobody}', '{BEDROCK}', 'x')"), "V103", "ai_provider_keys", None, "c1000000-0000-4000-8000-000000000003,1"),
        (format!("UPDATE ai_providers SET enabled = true WHERE id = '{BEDROCK}'"), "V104", "ai_providers", Some("enabled"), BEDROCK),
        (format!("UPDATE ai_providers SET deleted = true WHERE id = '{OPENAI}'"), "V104", "ai_providers", Some("deleted"), OPENAI),
        (format!("UPDATE ai_providers SET type = 'azure' WHERE id = '{OPENAI}'"), "V104", "ai_providers", Some("type"), OPENAI),
        (format!("UPDATE ai_providers SET base_url = '' WHERE id = '{OPENAI}'"), "V104", "ai_providers", Some("base_url"), OPENAI),
        (format!("DELETE FROM ai_providers WHERE id = '{BEDROCK}'"), "V102", "ai_providers", None, BEDROCK),
        (format!("UPDATE chat_model_configs SET ai_provider_id = '{ANTHROPIC}' WHERE id = '{config}'"), "V105", "chat_model_configs", Some("ai_provider_id"), config),
        (format!("UPDATE chat_model_configs SET ai_provider_id = NULL WHERE id = '{config}'"), "V011", "chat_model_configs", Some("ai_provider_id"), config),
        (format!("UPDATE chat_model_configs SET ai_provider_id = '{nobody}' WHERE id = '{config}'"), "V004", "chat_model_configs", Some("ai_provider_id"), config),
        (format!("UPDATE chat_model_configs SET enabled = false WHERE id = '{config}'"), "V104", "chat_model_configs", Some("enabled"), config),
        (format!("UPDATE users SET deleted = false WHERE id = '{CAROL}'"), "V104", "users", Some("deleted"), CAROL),
        ("DROP INDEX idx_user_ai_provider_keys_ai_provider_id".to_owned(), "V001", "user_ai_provider_keys", None, "user_ai_provider_keys index idx_user_ai_provider_keys_ai_provider_id"),
        (match backend { Backend::Sqlite => "DROP TRIGGER tollgate_delete_keys_of_deleted_users".to_owned(), Backend::Postgres => "DROP TRIGGER tollgate_delete_keys_of_deleted_users ON users".to_owned() }, "V001", "users", None, "users trigger tollgate_delete_keys_of_deleted_users"),
        ("CREATE TABLE chat_providers (id integer PRIMARY KEY)".to_owned(), "V007", "chat_providers", None, "chat_providers"),
    ] {
        let database = finished.copy().await;
        database.execute(&format!("{aside}; {sql}")).await;
        let (exit, json) = tollgate().on(&database.url).json(&["verify", "--snapshot", &file]);
        let found = json["findings"].as_array().unwrap().iter().any(|finding| {
            finding["code"] == code
                && finding["table"] == table
                && finding["column"].as_str() == column
                && finding["sample_ids"].as_array().unwrap().iter().any(|sample| *sample == id)
        });
        assert!(exit == 4 && found, "{sql}: wanted {code} {table} {column:?} {id}, said {json:#}");
        let said = json.to_string();
        for secret in ["cipher-", "plain-"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
    // Between the copy and contract, without a snapshot.
    for (sql, code, table) in [
        (
            "DELETE FROM user_ai_provider_keys WHERE api_key = 'cipher-alice'",
            "V009",
            "user_ai_provider_keys",
        ),
        (
            "UPDATE user_ai_provider_keys SET api_key = 'x' WHERE api_key = 'cipher-alice'",
            "V010",
            "user_ai_provider_keys",
        ),
        (
            "UPDATE ai_provider_keys SET api_key = 'x' WHERE api_key = 'cipher-openai'",
            "V010",
            "ai_provider_keys",
        ),
        (
            "DELETE FROM ai_provider_keys WHERE api_key = 'cipher-openai'",
            "V009",
            "ai_provider_keys",
        ),
        (
            "UPDATE chat_model_configs SET ai_provider_id = NULL WHERE model = 'gpt'",
            "V009",
            "chat_model_configs",
        ),
    ] {
        let database = copied.copy().await;
        database.execute(sql).await;
        let (exit, json) = tollgate().on(&database.url).json(&["verify"]);
        assert_eq!(exit, 4, "{sql}: {json:#}");
        assert_eq!(named(&json, code)[0]["table"], table, "{sql}: {json:#}");
    }
}

#[rstest]
#[tokio::test]
async fn a_user_who_went_in_between_is_no_loss(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_backfill").await;
    database
        .execute(&format!(
            "UPDATE users SET deleted = true WHERE id = '{ALICE}'"
        ))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["snapshot", "-o", &file]);
    tollgate.succeed(&["migrate", "up"]);
    tollgate.succeed(&["verify", "--snapshot", &file]);
    assert_eq!(database.count("user_ai_provider_keys").await, 1);
}

#[rstest]
#[tokio::test]
async fn a_rehearsal_says_that_no_key_would_be_lost(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    let scratch = TestDatabase::new(Backend::Postgres).await;
    let mut arguments = vec![
        "rehearse",
        "--adopt",
        "--accept-policy-change",
        "--name-conflicts",
        "retire",
    ];
    if backend == Backend::Postgres {
        arguments.extend(["--scratch-url", &scratch.url]);
    }
    let run = tollgate().on(&database.url).succeed(&arguments);
    assert!(run.stdout.contains("nothing would be lost"), "{run:#?}");
    // What the server has besides the track's tables.
    let left_out: Vec<&str> = run
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("not copied: "))
        .collect();
    let expected: &[&str] = match backend {
        Backend::Sqlite => &[],
        Backend::Postgres => &[
            "trigger trigger_update_users of users",
            "foreign key api_keys_user_id_fkey",
            "foreign key chat_messages_model_config_id_fkey",
            "foreign key chats_last_model_config_id_fkey",
            // Another track's table is not copied.
            "foreign key workspaces_owner_id_fkey",
        ],
    };
    assert_eq!(left_out, expected, "{run:#?}");
}

#[rstest]
#[tokio::test]
async fn no_key_reaches_an_output(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let database = coder(backend).await;
    let tollgate = tollgate().on(&database.url);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let mut said = String::new();
    for arguments in [
        &["doctor", "-vvv"][..],
        &["snapshot", "-o", &file],
        &["migrate", "plan", "--adopt", "--sql"],
        &["migrate", "up", "--adopt", "--phase", "backfill", "-vvv"],
        &["reconcile", "provider-keys", "-vvv"],
        &["rehearse"],
        &["migrate", "up", "-vvv"],
        &["verify", "--snapshot", &file],
        &["migrate", "down", "--to", "provider_key_expand", "-vvv"],
        &["history", "--run", "1"],
    ] {
        let run = tollgate.run(arguments);
        said.push_str(&run.stdout);
        said.push_str(&run.stderr);
    }
    said.push_str(&std::fs::read_to_string(&file).unwrap());
    said.push_str(
        &database
            .column("SELECT report FROM tollgate_runs")
            .await
            .join("\n"),
    );
    for secret in [
        "cipher-openai",
        "plain-anthropic",
        "cipher-alice",
        "plain-bob",
    ] {
        assert!(!said.contains(secret), "{secret}");
    }
}
