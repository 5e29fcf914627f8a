//! Databases as real servers left them, and what an embedding program does with the migrations.

use super::*;

#[rstest]
#[tokio::test]
async fn every_state_of_a_real_database_is_recognised(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let forget = "DROP TABLE tollgate_providers_migrations; DROP TABLE ai_gateway_keys";
    for (to, shape, applied) in [
        (None, "before the provider-key cutover", 1),
        (Some("provider_key_expand"), "(503), nothing copied", 2),
        (
            Some("provider_key_backfill"),
            "(504), old code still served",
            3,
        ),
        (
            Some("provider_key_contract"),
            "behind the provider-key cutover (505)",
            4,
        ),
    ] {
        let database = match to {
            Some(to) => at(backend, to).await,
            None => coder(backend).await,
        };
        database
            .execute(if to.is_some() {
                forget
            } else {
                "DROP TABLE ai_gateway_keys"
            })
            .await;
        let tollgate = tollgate().on(&database.url);
        let (code, json) = tollgate.json(&["migrate", "adopt", "--dry-run"]);
        assert_eq!(code, 0, "{json:#}");
        let recognised = json["result"]["recognised"].as_array().unwrap();
        assert_eq!(
            recognised.len(),
            1,
            "Coder's workspaces are no track: {json:#}"
        );
        assert!(
            recognised[0]["shape"].as_str().unwrap().contains(shape),
            "{json:#}"
        );
        assert_eq!(recognised[0]["applied"].as_array().unwrap().len(), applied);
        tollgate.succeed(&["migrate", "up", "--adopt"]);
        assert_eq!(
            tollgate.run(&["migrate", "status", "--check"]).code,
            0,
            "{to:?}"
        );
        assert_eq!(
            keys(&database).await.len(),
            2,
            "{to:?}: no key twice, none missing"
        );
        assert_eq!(tollgate.run(&["verify"]).code, 0);
    }
    // Upstream's copy has keys of random ids; a run of ours adds none.
    let database = at(backend, "provider_key_backfill").await;
    database
        .execute(&format!("UPDATE ai_provider_keys SET id = '{}' WHERE provider_id = '{OPENAI}'; DROP TABLE tollgate_providers_migrations", id(1)))
        .await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    assert_eq!(keys(&database).await.len(), 2);
    // A table without a column that the migrations read is no version.
    let database = coder(backend).await;
    database
        .execute("ALTER TABLE user_chat_provider_keys RENAME COLUMN api_key TO secret")
        .await;
    let (code, json) = tollgate().on(&database.url).json(&["migrate", "adopt"]);
    assert_eq!(code, 4);
    assert!(
        json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("user_chat_provider_keys has no column api_key")
    );
}

#[tokio::test]
async fn a_deploy_may_run_everything_in_one_transaction() {
    // From before 474 (a key on the family) and from before 499 (a type of two labels).
    for early in [false, true] {
        let database = coder(Backend::Postgres).await;
        database.execute("DROP TABLE ai_gateway_keys").await;
        if early {
            database
                .execute(
                    "DELETE FROM chat_model_configs WHERE provider = 'vercel'; \
                     ALTER TABLE chat_model_configs ADD CONSTRAINT chat_model_configs_provider_fkey FOREIGN KEY (provider) \
                     REFERENCES chat_providers(provider) ON DELETE CASCADE; \
                     CREATE TYPE ai_provider_type AS ENUM ('openai', 'anthropic'); \
                     CREATE TABLE ai_providers (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), type ai_provider_type NOT NULL, \
                     name text NOT NULL CONSTRAINT ai_providers_name_check CHECK (name ~ '^[a-z0-9]+(-[a-z0-9]+)*$'), display_name text, \
                     enabled boolean NOT NULL DEFAULT true, deleted boolean NOT NULL DEFAULT false, base_url text NOT NULL, settings text, \
                     settings_key_id text REFERENCES dbcrypt_keys(active_key_digest), created_at timestamptz NOT NULL DEFAULT now(), \
                     updated_at timestamptz NOT NULL DEFAULT now()); \
                     CREATE UNIQUE INDEX ai_providers_name_unique ON ai_providers (name) WHERE deleted = false; \
                     CREATE TABLE ai_provider_keys (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), \
                     provider_id uuid NOT NULL REFERENCES ai_providers(id) ON DELETE CASCADE, api_key text NOT NULL, \
                     api_key_key_id text REFERENCES dbcrypt_keys(active_key_digest), created_at timestamptz NOT NULL DEFAULT now(), \
                     updated_at timestamptz NOT NULL DEFAULT now()); \
                     INSERT INTO ai_providers (type, name, base_url) VALUES ('anthropic', 'of-ours', '')",
                )
                .await;
        }
        let transaction = one_transaction(&database.url).await;
        {
            let manager = SchemaManager::new(&transaction);
            // As a deploy's own driver would: one transaction around all pending migrations.
            for migration in Migrator::<Providers>::migrations() {
                migration.up(&manager).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
        assert_eq!(
            keys(&database).await,
            [
                "agents-anthropic plain-anthropic -",
                "agents-openai cipher-openai d16e57d16e57d1"
            ]
        );
        assert_eq!(user_keys(&database).await.len(), 2);
        assert!(!database.catalog().await.has_table("chat_providers"));
        let labels = &database.catalog().await.enums["ai_provider_type"];
        assert_eq!(labels[..3], ["openai", "anthropic", "azure"], "{labels:?}");
    }
}

/// A transaction of sea-orm's own, as a program that embeds the migrations has.
#[expect(
    clippy::disallowed_methods,
    reason = "plays a program that runs the migrations itself"
)]
async fn one_transaction(url: &str) -> sea_orm::DatabaseTransaction {
    use sea_orm::TransactionTrait;
    let database = sea_orm::Database::connect(url).await.unwrap();
    database.begin().await.unwrap()
}

#[rstest]
#[tokio::test]
async fn whoever_is_gone_leaves_no_key_behind(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_backfill").await;
    database
        .execute(&format!(
            "UPDATE users SET deleted = true WHERE id = '{ALICE}'"
        ))
        .await;
    assert_eq!(
        user_keys(&database).await,
        ["e1000000-0000-4000-8000-000000000002 bob@example.com agents-openai plain-bob"]
    );
    // Nor does old code's row bring it back.
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["reconcile", "provider-keys", "--check"]);
    assert_eq!(code, 0, "{json:#}");
    // A key that old code deleted since is named: the copy still opens the door.
    database
        .execute(&format!(
            "DELETE FROM user_chat_provider_keys WHERE user_id = '{BOB}'"
        ))
        .await;
    let (code, json) = tollgate.json(&["doctor"]);
    assert_eq!(code, 0);
    assert_eq!(
        named(&json, "P008")[0]["sample_ids"],
        serde_json::json!(["e1000000-0000-4000-8000-000000000002"])
    );
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(user_keys(&database).await.len(), 1);
}

/// Whoever deletes a user need not have the search path of the migration.
#[tokio::test]
async fn the_trigger_knows_its_schema() {
    let database = coder(Backend::Postgres).await;
    let moved: Vec<String> = database
        .column("SELECT format('ALTER TABLE public.%I SET SCHEMA coder', tablename) FROM pg_tables WHERE schemaname = 'public'")
        .await;
    database
        .execute(&format!("CREATE SCHEMA coder; {}", moved.join("; ")))
        .await;
    let url = format!("{}?options=-c%20search_path%3Dcoder,public", database.url);
    tollgate().on(&url).succeed(&["migrate", "up", "--adopt"]);
    database
        .execute(&format!(
            "DROP TRIGGER trigger_update_users ON coder.users; UPDATE coder.users SET deleted = true WHERE id = '{ALICE}'"
        ))
        .await;
    assert_eq!(database.count("coder.user_ai_provider_keys").await, 1);
}

/// A schema whose name needs quotes is a schema like any other.
#[tokio::test]
async fn a_schema_with_capitals_and_spaces_is_found() {
    let database = TestDatabase::new(Backend::Postgres).await;
    database.execute("CREATE SCHEMA \"My Coder\"").await;
    let name = database.one("SELECT current_database()").await;
    database
        .execute(&format!(
            "ALTER DATABASE {name} SET search_path = 'My Coder'"
        ))
        .await;
    let url = database.url.clone();
    tollgate()
        .on(&url)
        .succeed(&["--track", "providers", "migrate", "up"]);
    tollgate().on(&url).succeed(&["verify"]);
    assert_eq!(
        database
            .one("SELECT CAST(count(*) AS text) FROM pg_tables WHERE schemaname = 'My Coder' AND tablename = 'ai_providers'")
            .await,
        "1"
    );
}

#[tokio::test]
async fn a_narrow_enum_behind_an_adopted_expand_is_widened_by_the_copy() {
    let database = at(Backend::Postgres, "provider_key_expand").await;
    database
        .execute(
            "DROP TABLE tollgate_providers_migrations; CREATE TYPE narrow AS ENUM ('openai', 'anthropic'); \
             ALTER TABLE ai_providers ALTER COLUMN type TYPE narrow USING type::text::narrow; \
             DROP TYPE ai_provider_type; ALTER TYPE narrow RENAME TO ai_provider_type",
        )
        .await;
    up(&database, "provider_key_backfill");
    assert_eq!(
        providers(&database).await.len(),
        3,
        "bedrock has a label now"
    );
    tollgate().on(&database.url).succeed(&["verify"]);
}

#[rstest]
#[tokio::test]
async fn users_without_the_flag_need_no_trigger(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    let on = match backend {
        Backend::Sqlite => "",
        Backend::Postgres => " ON users",
    };
    database
        .execute(&format!("DROP TRIGGER trigger_update_users{on}"))
        .await;
    database
        .execute("DROP INDEX users_email_lower_idx; ALTER TABLE users DROP COLUMN deleted")
        .await;
    up(&database, "provider_key_contract");
    tollgate().on(&database.url).succeed(&["verify"]);
}
