//! What stops the cutover or is said of it before its first write.

use super::*;

#[rstest]
#[tokio::test]
async fn contract_stops_before_its_first_write(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_backfill").await;
    let tollgate = tollgate().on(&database.url);
    // 505's precondition: an operator made a live provider of a migrated name after the copy.
    database
        .execute(&format!(
            "INSERT INTO chat_providers (id, provider) VALUES ('{}', 'google'); \
             INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold) VALUES ('{}', 'openrouter', 'x', 1, 1)",
            id(1), id(2)
        ))
        .await;
    provider(&database, &id(3), "google", "agents-google", "").await;
    database
        .execute("UPDATE chat_providers SET central_api_key_enabled = false, allow_user_api_key = true WHERE provider = 'anthropic'")
        .await;
    let before = database.everything(|_, _| true).await;
    let (code, json) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 4, "{json:#}");
    for (code, table, id) in [
        ("P002", "ai_providers", id(3)),
        ("P003", "chat_model_configs", id(2)),
        ("P004", "chat_providers", ANTHROPIC.to_owned()),
    ] {
        let found = named(&json, code);
        assert_eq!(found.len(), 1, "{code}: {json:#}");
        assert_eq!(found[0]["table"], table);
        assert_eq!(found[0]["rows"], 1);
        assert_eq!(found[0]["sample_ids"], serde_json::json!([id]));
        assert_ne!(found[0]["resolve"], "");
    }
    assert_eq!(database.everything(|_, _| true).await, before);
    // The routine cannot know whose the name is.
    let (code, json) = tollgate.json(&["reconcile", "provider-keys"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    database
        .execute(&format!(
            "UPDATE chat_model_configs SET deleted = true WHERE id = '{}'",
            id(2)
        ))
        .await;
    let (code, json) = tollgate.json(&["migrate", "up", "--accept-policy-change"]);
    assert_eq!((code, named(&json, "P002").len()), (4, 1), "{json:#}");
    tollgate.succeed(&[
        "migrate",
        "up",
        "--accept-policy-change",
        "--name-conflicts",
        "retire",
    ]);
    assert_eq!(
        providers(&database).await,
        [
            "agents-anthropic anthropic - on",
            "agents-bedrock bedrock - off",
            "agents-google google - off deleted",
            "agents-google google - on",
            "agents-openai openai OpenAI on https://openai.example.com/v1",
        ]
    );
}

#[rstest]
#[tokio::test]
async fn what_the_flags_said_is_spelt_out_for_whom(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // Three users are there and not deleted; alice and bob have a key for openai.
    let database = coder(backend).await;
    let tollgate = tollgate().on(&database.url);
    for (flags, key, found) in [
        ([true, true, true], "'k'", ""),
        (
            [true, false, false],
            "'k'",
            "the stored keys of 2 users become usable where the deployment allows users' own keys",
        ),
        (
            [true, true, false],
            "'k'",
            "1 user without a key of their own start using the central key",
        ),
        (
            [false, true, false],
            "'k'",
            "the central key, which is switched off, becomes live; 1 user without a key of their own start using it",
        ),
        (
            [false, true, false],
            "''",
            "a key that the deployment itself provides, if it does, becomes usable; 1 user without a key of their own start using it",
        ),
    ] {
        database
            .execute(&format!(
                "UPDATE chat_providers SET api_key = {key}, central_api_key_enabled = {}, allow_user_api_key = {}, \
                 allow_central_api_key_fallback = {} WHERE id = '{OPENAI}'",
                flags[0], flags[1], flags[2]
            ))
            .await;
        let (code, json) = tollgate.json(&["doctor"]);
        let findings = named(&json, "P004");
        if found.is_empty() {
            assert_eq!((code, findings.len()), (0, 0), "{flags:?}: {json:#}");
        } else {
            assert_eq!((code, findings.len()), (4, 1), "{flags:?}: {json:#}");
            assert_eq!(findings[0]["effect"], format!("openai {OPENAI}: {found}"));
            assert_eq!(findings[0]["sample_ids"], serde_json::json!([OPENAI]));
        }
    }
    // It belongs to contract.
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    assert_eq!(tollgate.run(&["migrate", "up"]).code, 4);
    let (code, json) = tollgate.json(&["migrate", "up", "--accept-policy-change"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(named(&json, "P004")[0]["severity"], "info");
}

#[rstest]
#[tokio::test]
async fn every_hazard_is_found_where_it_was_planted(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    let (code, seeded) = tollgate.json(&[
        "seed",
        "--profile",
        "coder-legacy",
        "--virtual-keys",
        "60",
        "--hazards",
    ]);
    assert_eq!(code, 0, "{seeded:#}");
    let (code, json) = tollgate.json(&["doctor"]);
    assert_eq!(code, 4);
    let planted = seeded["result"]["planted"].as_array().unwrap();
    assert_eq!(planted.len(), 5);
    for hazard in planted {
        let found = named(&json, hazard["code"].as_str().unwrap());
        assert_eq!(found.len(), 1, "{hazard:#}: {json:#}");
        assert_eq!(found[0]["sample_ids"], hazard["ids"]);
        assert_eq!(found[0]["severity"], "blocking");
    }
    // Contract's hazards do not stop the copy.
    let (_, json) = tollgate.json(&["migrate", "plan", "--adopt", "--phase", "backfill"]);
    let codes: Vec<&str> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["P001", "P002", "P005"]);
    // A clean one goes through, and nothing is lost.
    let clean = TestDatabase::new(backend).await;
    let tollgate = crate::tollgate().on(&clean.url);
    tollgate.succeed(&["seed", "--profile", "coder-legacy", "--virtual-keys", "60"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    tollgate.succeed(&["snapshot", "-o", &file]);
    for phase in ["expand", "backfill", "contract"] {
        tollgate.succeed(&["migrate", "up", "--adopt", "--phase", phase]);
        let run = tollgate.run(&["verify", "--snapshot", &file]);
        assert_eq!(run.code, 0, "{phase}: {run:#?}");
    }
    tollgate.succeed(&["migrate", "down", "--to", "providers_baseline"]);
    let run = tollgate.run(&["verify", "--snapshot", &file]);
    assert_eq!(run.code, 0, "down: {run:#?}");
}

#[rstest]
#[tokio::test]
async fn rows_that_the_new_tables_would_refuse_are_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let insert = |number: u32, user: &str, provider: &str, key: &str, digest: &str| {
        format!(
            "INSERT INTO user_chat_provider_keys (id, user_id, chat_provider_id, api_key, api_key_key_id) \
             VALUES ('{}', '{user}', '{provider}', '{key}', {digest})",
            id(number)
        )
    };
    let (checks, uniques, references) = match backend {
        Backend::Sqlite => (
            "PRAGMA ignore_check_constraints = ON",
            "DROP INDEX user_chat_provider_keys_user_id_chat_provider_id_key; DROP INDEX chat_providers_provider_key",
            "PRAGMA foreign_keys = OFF",
        ),
        Backend::Postgres => (
            "ALTER TABLE user_chat_provider_keys DROP CONSTRAINT user_chat_provider_keys_api_key_check; \
             ALTER TABLE chat_providers DROP CONSTRAINT chat_providers_provider_check",
            "ALTER TABLE user_chat_provider_keys DROP CONSTRAINT user_chat_provider_keys_user_id_chat_provider_id_key; \
             ALTER TABLE chat_providers DROP CONSTRAINT chat_providers_provider_key",
            "ALTER TABLE user_chat_provider_keys DROP CONSTRAINT user_chat_provider_keys_user_id_fkey; \
             ALTER TABLE user_chat_provider_keys DROP CONSTRAINT user_chat_provider_keys_chat_provider_id_fkey; \
             ALTER TABLE user_chat_provider_keys DROP CONSTRAINT user_chat_provider_keys_api_key_key_id_fkey",
        ),
    };
    let nobody = id(77);
    for (code, table, prepare, sql, ids) in [
        (
            "P005",
            "user_chat_provider_keys",
            checks,
            insert(1, DAVE, OPENAI, "", "NULL"),
            vec![id(1)],
        ),
        (
            "P005",
            "user_chat_provider_keys",
            uniques,
            insert(1, ALICE, OPENAI, "k", "NULL"),
            vec![id(1), "e1000000-0000-4000-8000-000000000001".to_owned()],
        ),
        (
            "P005",
            "user_chat_provider_keys",
            references,
            insert(1, &nobody, OPENAI, "k", "NULL"),
            vec![id(1)],
        ),
        (
            "P005",
            "user_chat_provider_keys",
            references,
            insert(1, DAVE, &nobody, "k", "NULL"),
            vec![id(1)],
        ),
        (
            "P005",
            "user_chat_provider_keys",
            references,
            insert(1, DAVE, OPENAI, "k", "'01d01d01d01d01'"),
            vec![id(1)],
        ),
        (
            "P005",
            "chat_providers",
            uniques,
            format!(
                "INSERT INTO chat_providers (id, provider) VALUES ('{}', 'openai')",
                id(1)
            ),
            vec![id(1), OPENAI.to_owned()],
        ),
        (
            "P001",
            "chat_providers",
            checks,
            format!(
                "INSERT INTO chat_providers (id, provider) VALUES ('{}', 'Open AI')",
                id(1)
            ),
            vec![id(1)],
        ),
    ] {
        let database = coder(backend).await;
        database.execute(&format!("{prepare}; {sql}")).await;
        let before = database.everything(|_, _| true).await;
        let (exit, json) = tollgate()
            .on(&database.url)
            .json(&["migrate", "up", "--adopt"]);
        assert_eq!(exit, 4, "{sql}: {json:#}");
        let found = named(&json, code);
        assert_eq!(found.len(), 1, "{sql}: {json:#}");
        assert_eq!(found[0]["table"], table);
        let mut ids = ids;
        ids.sort();
        assert_eq!(found[0]["sample_ids"], serde_json::json!(ids), "{sql}");
        assert_eq!(database.everything(|_, _| true).await, before);
    }
    // An id that somebody else's provider has already.
    let database = at(backend, "provider_key_expand").await;
    provider(&database, OPENAI, "azure", "somebody-elses", "").await;
    let (exit, json) = tollgate().on(&database.url).json(&["migrate", "up"]);
    assert_eq!(
        (exit, named(&json, "P005")[0]["sample_ids"][0].as_str()),
        (4, Some(OPENAI))
    );
    // A view on a legacy table would stop the drop.
    let database = coder(backend).await;
    database
        .execute("CREATE VIEW families AS SELECT provider FROM chat_providers")
        .await;
    let (exit, json) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(
        (exit, named(&json, "P007")[0]["sample_ids"][0].as_str()),
        (4, Some("view families")),
        "{json:#}"
    );
    if backend == Backend::Sqlite {
        let database = coder(backend).await;
        database.execute("UPDATE user_chat_provider_keys SET updated_at = 'soon' WHERE api_key = 'plain-bob'").await;
        let (exit, json) = tollgate()
            .on(&database.url)
            .json(&["migrate", "up", "--adopt"]);
        assert_eq!(
            (exit, named(&json, "P006")[0]["sample_ids"][0].as_str()),
            (4, Some("e1000000-0000-4000-8000-000000000002"))
        );
    }
}

#[rstest]
#[tokio::test]
async fn a_time_that_nobody_can_read_stops_on_either_side(
    #[values(
        "user_ai_provider_keys.updated_at",
        "user_ai_provider_keys.created_at",
        "ai_provider_keys.updated_at",
        "ai_provider_keys.created_at",
        "ai_providers.updated_at"
    )]
    column: &str,
) {
    let database = at(Backend::Sqlite, "provider_key_backfill").await;
    let (table, name) = column.split_once('.').unwrap();
    database
        .execute(&format!(
            "UPDATE {table} SET {name} = '2026-03-10 00:00:00 +0000 UTC'; \
             UPDATE user_chat_provider_keys SET api_key = 'newer', updated_at = '2026-05-01 00:00:00+00:00';"
        ))
        .await;
    let tollgate = tollgate().on(&database.url);
    for arguments in [&["reconcile", "provider-keys"][..], &["migrate", "up"]] {
        let (code, json) = tollgate.json(arguments);
        assert_eq!(code, 4, "{arguments:?} {json:#}");
        assert_eq!(named(&json, "P006")[0]["table"], table);
    }
    assert!(database.catalog().await.has_table("chat_providers"));
}

#[rstest]
#[tokio::test]
async fn a_view_over_everything_of_a_legacy_table_stops_contract(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    database
        .execute("CREATE VIEW everything AS SELECT * FROM chat_providers")
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(
        named(&json, "P007")[0]["sample_ids"],
        serde_json::json!(["view everything"])
    );
    assert_eq!(
        database
            .one("SELECT CAST(count(*) AS text) FROM everything")
            .await,
        "3"
    );
}

#[rstest]
#[tokio::test]
async fn keys_that_the_new_gateway_deleted_come_back_with_a_warning(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_backfill").await;
    database
        .execute(&format!(
            "DELETE FROM user_ai_provider_keys WHERE user_id = '{ALICE}'; DELETE FROM ai_provider_keys WHERE provider_id = '{ANTHROPIC}'; \
             INSERT INTO user_chat_provider_keys (id, user_id, chat_provider_id, api_key, created_at, updated_at) VALUES \
             ('{}', '{DAVE}', '{OPENAI}', 'plain-dave', '2099-01-01 00:00:00+00:00', '2099-01-01 00:00:00+00:00')",
            id(1)
        ))
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["reconcile", "provider-keys"]);
    assert_eq!(code, 0, "{json:#}");
    let found: Vec<_> = named(&json, "P009")
        .iter()
        .map(|finding| (finding["table"].clone(), finding["sample_ids"].clone()))
        .collect();
    assert_eq!(
        found,
        [
            ("chat_providers".into(), serde_json::json!([ANTHROPIC])),
            (
                "user_chat_provider_keys".into(),
                serde_json::json!(["e1000000-0000-4000-8000-000000000001"])
            ),
        ],
        "a key that is newer than the copy is none of them"
    );
}

/// An edit that left `updated_at` alone: upstream would keep the copy and drop the legacy row, silently.
#[rstest]
#[tokio::test]
async fn a_tie_that_nobody_can_break_stops_contract_and_routine(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for (sql, table, row) in [
        (
            format!("UPDATE chat_providers SET api_key = 'rotated' WHERE id = '{ANTHROPIC}'"),
            "ai_provider_keys",
            None,
        ),
        (
            format!(
                "UPDATE chat_providers SET api_key = '', api_key_key_id = NULL WHERE id = '{ANTHROPIC}'"
            ),
            "ai_provider_keys",
            None,
        ),
        (
            format!("UPDATE chat_providers SET enabled = NOT enabled WHERE id = '{ANTHROPIC}'"),
            "ai_providers",
            Some(ANTHROPIC),
        ),
        (
            format!(
                "UPDATE user_chat_provider_keys SET api_key = 'rotated' WHERE user_id = '{ALICE}'"
            ),
            "user_ai_provider_keys",
            Some("e1000000-0000-4000-8000-000000000001"),
        ),
    ] {
        let database = at(backend, "provider_key_backfill").await;
        database.execute(&sql).await;
        let before = database.everything(|_, _| true).await;
        for command in [
            &["reconcile", "provider-keys"][..],
            &["migrate", "up", "--accept-policy-change"],
        ] {
            let (code, json) = tollgate().on(&database.url).json(command);
            assert_eq!(code, 4, "{sql}: {json:#}");
            let found = named(&json, "P010");
            assert_eq!(found[0]["table"], table, "{json:#}");
            if let Some(row) = row {
                assert_eq!(found[0]["sample_ids"], serde_json::json!([row]));
            }
        }
        assert_eq!(before, database.everything(|_, _| true).await, "{sql}");
        // Whoever says which is meant gets it.
        for table in ["chat_providers", "user_chat_provider_keys"] {
            database
                .execute(&format!(
                    "UPDATE {table} SET updated_at = '2098-01-01 00:00:00+00:00'"
                ))
                .await;
        }
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--accept-policy-change"]);
    }
}

/// What the routine has copied once and somebody has deleted since was revoked; who goes on is told.
#[rstest]
#[tokio::test]
async fn a_key_that_the_routine_copied_and_somebody_revoked_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_backfill").await;
    let routine = || {
        tollgate()
            .on(&database.url)
            .json(&["reconcile", "provider-keys"])
            .1
    };
    // In the second of the copy or behind it, and before the routine.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let now = database.dialect().now();
    database
        .execute(&format!(
            "INSERT INTO user_chat_provider_keys (id, user_id, chat_provider_id, api_key, created_at, updated_at) \
             VALUES ('{}', '{DAVE}', '{OPENAI}', 'plain-dave', {now}, {now})",
            id(1)
        ))
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(named(&routine(), "P009").is_empty());
    database
        .execute(&format!(
            "DELETE FROM user_ai_provider_keys WHERE user_id = '{DAVE}'"
        ))
        .await;
    let json = routine();
    assert_eq!(
        named(&json, "P009")[0]["sample_ids"],
        serde_json::json!([id(1)]),
        "{json:#}"
    );
}

#[rstest]
#[tokio::test]
async fn a_provider_neither_on_nor_off_is_named_before_the_first_write(
    #[values(Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    database
        .execute(&format!(
            "ALTER TABLE chat_providers ALTER COLUMN enabled DROP NOT NULL; UPDATE chat_providers SET enabled = NULL WHERE id = '{OPENAI}'"
        ))
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(
        named(&json, "P005")[0]["sample_ids"],
        serde_json::json!([OPENAI])
    );
}
