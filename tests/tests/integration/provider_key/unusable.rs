//! Keys that cannot be used, and rows that nobody can tell apart.

use super::*;

/// White space of any script is no key, and the next one is asked.
#[rstest]
#[tokio::test]
async fn a_key_of_white_space_is_passed_over_for_the_next(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    for blank in [" ", "\t\n", "\u{a0}", "\u{2003}\u{3000}"] {
        let rows = EMPTY.to_owned()
            + &provider(PROVIDER, "openai", "one", "enabled")
            + &config("openai", "enabled")
            + &central(
                "d4000000-0000-4000-8000-0000000000ff",
                blank,
                "2020-01-01 00:00:00+00:00",
            )
            + &centrals("1");
        database.execute(&rows).await;
        let config = Target::ModelConfig(CONFIG.to_owned());
        assert_eq!(
            asked.resolve(config, false, None).await,
            "provider",
            "{blank:?}"
        );
    }
}

/// The oldest is the oldest whatever its time is spelt like, to the last digit; one that cannot be read comes last.
#[tokio::test]
async fn sqlites_oldest_key_is_the_oldest_instant() {
    let database = fresh(Backend::Sqlite).await;
    let asked = asked(&database).await;
    let other = "d4000000-0000-4000-8000-000000000001";
    for (oldest, newer) in [
        (
            "2025-01-01 00:00:00+00:00",
            "2026-03-29 12:11:12 +0200 CEST",
        ),
        (
            "2026-01-01 12:00:00.0001+02:00",
            "2026-01-01 10:00:00.0004+00:00",
        ),
        (
            "2026-01-01 10:00:00.9996+00:00",
            "2026-01-01 10:00:01.0001+00:00",
        ),
    ] {
        let rows = EMPTY.to_owned()
            + &provider(PROVIDER, "openai", "one", "enabled")
            + &config("openai", "enabled")
            + &central(other, "sk-newer", newer)
            + &central(OLDEST, "sk-oldest", oldest);
        database.execute(&rows).await;
        let config = Target::ModelConfig(CONFIG.to_owned());
        assert_eq!(
            asked.resolve(config, false, None).await,
            "provider",
            "{oldest} {newer}"
        );
    }
}

#[rstest]
#[tokio::test]
async fn several_providers_of_a_type_are_ambiguous_where_none_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    let two = provider(PROVIDER, "openai", "one", "enabled")
        + &centrals("1")
        + &provider(OTHER, "openai", "two", "enabled");
    database
        .execute(&(two.clone() + &config("openai", "unlinked")))
        .await;
    let target = || Target::ModelConfig(CONFIG.to_owned());
    assert_eq!(
        asked.resolve(target(), true, None).await,
        "ambiguous_provider"
    );
    assert_eq!(
        asked
            .resolve(Target::Type(" OpenAI ".to_owned()), true, None)
            .await,
        "ambiguous_provider"
    );
    let (code, json) = tollgate().on(&database.url).json(&[
        "provider-key",
        "resolve",
        "--model-config",
        CONFIG,
        "--fallback-env",
    ]);
    assert_eq!(code, 1, "{json:#}");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("multiple enabled AI providers use provider type")
            && message.contains(PROVIDER)
            && message.contains(OTHER),
        "{message}"
    );
    assert_eq!(json["result"], serde_json::Value::Null);
    // A type that nobody asks for may be as ambiguous as it likes.
    database
        .execute("UPDATE chat_model_configs SET provider = 'vercel'")
        .await;
    assert_eq!(asked.resolve(target(), true, None).await, "no_provider");
    // A named provider is the one that is meant.
    database
        .execute(&format!(
            "UPDATE chat_model_configs SET ai_provider_id = '{PROVIDER}'"
        ))
        .await;
    assert_eq!(asked.resolve(target(), true, None).await, "provider");
    // One that is switched off or deleted is none of several.
    for state in ["disabled", "deleted"] {
        let rows = EMPTY.to_owned()
            + &provider(PROVIDER, "openai", "one", "enabled")
            + &centrals("1")
            + &provider(OTHER, "openai", "two", state)
            + &config("openai", "unlinked");
        database.execute(&rows).await;
        assert_eq!(asked.resolve(target(), true, None).await, "provider");
    }
}

#[rstest]
#[tokio::test]
async fn what_is_no_key_is_passed_over(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    let target = || Target::ModelConfig(CONFIG.to_owned());
    let blank = "d4000000-0000-4000-8000-000000000000";
    for nothing in ["", "  ", "\n\t"] {
        let rows = EMPTY.to_owned()
            + &provider(PROVIDER, "openai", "one", "enabled")
            + &config("openai", "enabled")
            + &central(blank, nothing, "2026-01-01 00:00:00+00:00");
        database.execute(&rows).await;
        assert_eq!(
            asked.resolve(target(), false, None).await,
            "missing_api_key"
        );
        database.execute(&centrals("1")).await;
        assert_eq!(asked.resolve(target(), false, None).await, "provider");
    }
    // A user's key of white space, a stranger's key, and the key of a user who is gone.
    database.execute(&users_key(USER, "  ")).await;
    assert_eq!(asked.resolve(target(), true, None).await, "provider");
    database.execute("DELETE FROM user_ai_provider_keys").await;
    database.execute(&users_key(STRANGER, "sk-user")).await;
    assert_eq!(asked.resolve(target(), true, None).await, "provider");
    database
        .execute(&format!(
            "DELETE FROM user_ai_provider_keys; UPDATE users SET deleted = true WHERE id = '{USER}';"
        ))
        .await;
    database.execute(&users_key(USER, "sk-user")).await;
    assert_eq!(asked.resolve(target(), true, None).await, "provider");
}

/// A database that cannot say every white space there is.
#[tokio::test]
async fn another_encoding_than_utf_8_resolves_too() {
    let database = filled(TestDatabase::encoded("LATIN1").await).await;
    let asked = asked(&database).await;
    let rows = provider(PROVIDER, "openai", "one", "enabled")
        + &config("openai", "enabled")
        + &central(
            "d4000000-0000-4000-8000-000000000000",
            " \t",
            "2026-01-01 00:00:00+00:00",
        )
        + &centrals("3")
        + &users_key(USER, "sk-user");
    database.execute(&rows).await;
    let target = || Target::ModelConfig(CONFIG.to_owned());
    assert_eq!(asked.resolve(target(), false, None).await, "provider");
    assert_eq!(asked.resolve(target(), true, None).await, "user");
}

/// A table that lost its key, and a UUID in two spellings where ids are texts: neither is a second provider.
#[rstest]
#[tokio::test]
async fn a_row_that_stands_twice_is_no_second_provider(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    let rows = provider(PROVIDER, "openai", "one", "enabled")
        + &config("openai", "enabled")
        + &centrals("1");
    database.execute(&rows).await;
    match backend {
        Backend::Postgres => {
            for table in ["ai_provider_keys", "chat_model_configs"] {
                database
                    .execute(&format!(
                        "ALTER TABLE {table} DROP CONSTRAINT {table}_pkey; INSERT INTO {table} SELECT * FROM {table}"
                    ))
                    .await;
            }
        }
        Backend::Sqlite => {
            let upper = CONFIG.to_uppercase();
            database
                .execute(&format!(
                    "INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold, enabled, ai_provider_id) \
                     VALUES ('{upper}', 'openai', 'm', 1000, 70, false, '{PROVIDER}')"
                ))
                .await;
            assert_eq!(
                asked.resolve(Target::ModelConfig(upper), false, None).await,
                "model_config_disabled",
                "the spelling that was asked for"
            );
        }
    }
    let target = || Target::ModelConfig(CONFIG.to_owned());
    assert_eq!(asked.resolve(target(), false, None).await, "provider");
    if backend == Backend::Postgres {
        // Which of the two is meant, nobody can say.
        database
            .execute("ALTER TABLE ai_providers DROP CONSTRAINT ai_providers_pkey CASCADE; DROP INDEX ai_providers_name_unique; \
                      INSERT INTO ai_providers SELECT * FROM ai_providers")
            .await;
        assert_eq!(asked.resolve(target(), false, None).await, "provider");
        database
            .execute("UPDATE ai_providers SET base_url = 'https://elsewhere.example.com' WHERE ctid = (SELECT min(ctid) FROM ai_providers)")
            .await;
        assert_eq!(asked.resolve(target(), false, None).await, "several_rows");
        let by_type = Target::Type("openai".to_owned());
        assert_eq!(asked.resolve(by_type, false, None).await, "several_rows");
    }
}

#[rstest]
#[tokio::test]
async fn ciphertext_is_handed_over_as_it_is_and_never_printed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    database
        .execute(&format!(
            "INSERT INTO dbcrypt_keys (number, active_key_digest, test) VALUES (1, 'abcdef01234567', 'x'); {} {} {} \
             UPDATE ai_provider_keys SET api_key_key_id = 'abcdef01234567';",
            provider(PROVIDER, "openai", "one", "enabled"),
            config("openai", "enabled"),
            central(OLDEST, " c2VjcmV0 ", "2026-01-01 00:00:00+00:00"),
        ))
        .await;
    let asked = asked(&database).await;
    let request = Request {
        target: Target::ModelConfig(CONFIG.to_owned()),
        user: None,
        byok: false,
        fallback: Some(&environment()),
    };
    let resolved = asked
        .resolver
        .resolve(&database.connection, &request)
        .await
        .unwrap();
    let key = resolved.key.as_ref().unwrap();
    assert_eq!(key.expose(), "c2VjcmV0");
    assert_eq!(key.encrypted_with(), Some("abcdef01234567"));
    let shown = format!("{resolved:?} {request:?} {}", serde_json::json!(resolved));
    for secret in ["c2VjcmV0", "abcdef01234567", "sk-environment"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
