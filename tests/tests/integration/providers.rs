//! The provider-key cutover: each branch of `docs/upstream/coder.md` §A3, with expectations written by hand.

mod down;
mod hazards;
mod proof;
mod recognition;

use rstest::rstest;
use sea_orm_migration::{MigratorTrait, SchemaManager};
use serde_json::Value;
use tollgate_tests::fixture::coder;
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;
use tollgate_service::migrator::{Migrator, Providers};

const OPENAI: &str = "c1000000-0000-4000-8000-000000000001";

const ANTHROPIC: &str = "c1000000-0000-4000-8000-000000000002";

const BEDROCK: &str = "c1000000-0000-4000-8000-000000000003";

const ALICE: &str = "a1000000-0000-4000-8000-000000000001";

const BOB: &str = "a1000000-0000-4000-8000-000000000002";

const CAROL: &str = "a1000000-0000-4000-8000-000000000003";

const DAVE: &str = "a1000000-0000-4000-8000-000000000004";

/// A row id that no fixture has.
fn id(number: u32) -> String {
    format!("99000000-0000-4000-8000-{number:012}")
}

/// Adopts and goes as far as a migration.
fn up(database: &TestDatabase, to: &str) {
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt", "--to", to]);
}

async fn at(backend: Backend, to: &str) -> TestDatabase {
    let database = coder(backend).await;
    up(&database, to);
    database
}

async fn provider(database: &TestDatabase, id: &str, family: &str, name: &str, more: &str) {
    database
        .execute(&format!(
            "INSERT INTO ai_providers (id, type, name, base_url, created_at, updated_at) VALUES \
             ('{id}', '{family}', '{name}', '', '2026-03-05 00:00:00+00:00', '2026-03-05 00:00:00+00:00'){more}"
        ))
        .await;
}

async fn key(database: &TestDatabase, id: &str, provider: &str, key: &str, at: &str) {
    database
        .execute(&format!(
            "INSERT INTO ai_provider_keys (id, provider_id, api_key, created_at, updated_at) \
             VALUES ('{id}', '{provider}', '{key}', '{at}', '{at}')"
        ))
        .await;
}

async fn user_key(
    database: &TestDatabase,
    id: &str,
    user: &str,
    provider: &str,
    key: &str,
    at: &str,
) {
    database
        .execute(&format!(
            "INSERT INTO user_ai_provider_keys (id, user_id, ai_provider_id, api_key, created_at, updated_at) \
             VALUES ('{id}', '{user}', '{provider}', '{key}', '{at}', '{at}')"
        ))
        .await;
}

async fn providers(database: &TestDatabase) -> Vec<String> {
    database
        .column(
            "SELECT name || ' ' || CAST(type AS text) || ' ' || COALESCE(display_name, '-') || CASE WHEN enabled THEN ' on' ELSE ' off' END \
             || CASE WHEN deleted THEN ' deleted' ELSE '' END || CASE WHEN base_url = '' THEN '' ELSE ' ' || base_url END \
             FROM ai_providers ORDER BY 1",
        )
        .await
}

async fn keys(database: &TestDatabase) -> Vec<String> {
    database
        .column(
            "SELECT p.name || ' ' || k.api_key || ' ' || COALESCE(k.api_key_key_id, '-') FROM ai_provider_keys k \
             JOIN ai_providers p ON p.id = k.provider_id ORDER BY 1",
        )
        .await
}

async fn user_keys(database: &TestDatabase) -> Vec<String> {
    database
        .column(
            "SELECT CAST(k.id AS text) || ' ' || u.email || ' ' || p.name || ' ' || k.api_key FROM user_ai_provider_keys k \
             JOIN ai_providers p ON p.id = k.ai_provider_id JOIN users u ON u.id = k.user_id ORDER BY 1",
        )
        .await
}

/// The findings of a code.
fn named<'a>(json: &'a Value, code: &str) -> Vec<&'a Value> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["code"] == code)
        .collect()
}

#[rstest]
#[tokio::test]
async fn the_copy_frees_names_keeps_ids_and_makes_the_same_keys_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_expand").await;
    let stale = id(1);
    provider(&database, &stale, "openai", "agents-openai", "").await;
    provider(&database, &id(2), "anthropic", "claude-of-ours", "").await;
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["migrate", "up", "--phase", "backfill"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(
        named(&json, "P002")[0]["sample_ids"],
        serde_json::json!([stale])
    );
    assert_eq!(
        database.count("ai_providers").await,
        2,
        "nothing was changed"
    );
    let (code, json) = tollgate.json(&[
        "migrate",
        "up",
        "--phase",
        "backfill",
        "--name-conflicts",
        "retire",
    ]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        providers(&database).await,
        [
            "agents-anthropic anthropic - on",
            "agents-bedrock bedrock - off",
            "agents-openai openai - off deleted",
            "agents-openai openai OpenAI on https://openai.example.com/v1",
            "claude-of-ours anthropic - on",
        ]
    );
    // UUID version 5 of the provider's id in Tollgate's name space, computed with another implementation.
    let mut ids = database
        .column("SELECT CAST(id AS text) FROM ai_provider_keys")
        .await;
    ids.sort();
    let mut expected = KEY_IDS;
    expected.sort_unstable();
    assert_eq!(ids, expected);
    // 504 keeps the time of the provider's creation.
    assert_eq!(
        database
            .column("SELECT CAST(k.id AS text) FROM ai_provider_keys k JOIN chat_providers p ON p.id = k.provider_id \
                     AND p.created_at = k.created_at AND p.updated_at = k.updated_at ORDER BY 1")
            .await,
        expected
    );
    // Lost history: the same rows again.
    let before = database
        .everything(|_, column| column != "updated_at")
        .await;
    database
        .execute("DELETE FROM tollgate_providers_migrations WHERE version LIKE '%_provider_key_backfill'")
        .await;
    tollgate.succeed(&["migrate", "up", "--phase", "backfill"]);
    assert_eq!(
        database
            .everything(|_, column| column != "updated_at")
            .await,
        before
    );
}

/// `uuid.uuid5` of Python for the two providers with a central key.
const KEY_IDS: [&str; 2] = [
    "bc6ef555-6974-58fa-94ae-0f46ea383e09",
    "a5c7b19b-2e9c-5d1d-92fd-f8e870a703d1",
];

#[rstest]
#[tokio::test]
async fn everything_that_old_code_did_since_is_carried_over_newest_first(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] by_routine: bool,
) {
    let database = at(backend, "provider_key_backfill").await;
    let tollgate = tollgate().on(&database.url);
    // 1 and 5: a new provider with a key. 2: edits, and a provider that new code deleted. 3: a cleared key. 4: a changed
    // one, in the oldest row only. 6: a new, a newer and an older user key. 7: a config without a link.
    database
        .execute(&format!(
            "INSERT INTO chat_providers (id, provider, api_key, base_url, allow_user_api_key, allow_central_api_key_fallback, \
             created_at, updated_at) VALUES ('{}', 'google', 'cipher-google', 'https://g', true, true, \
             '2026-04-01 00:00:00+00:00', '2026-04-02 00:00:00+00:00')",
            id(1)
        ))
        .await;
    database
        .execute("UPDATE chat_providers SET display_name = '', base_url = 'https://new', api_key = 'cipher-2', \
                  api_key_key_id = NULL, updated_at = '2026-04-03 00:00:00+00:00' WHERE provider = 'openai'")
        .await;
    key(
        &database,
        &id(2),
        OPENAI,
        "second",
        "2026-03-20 00:00:00+00:00",
    )
    .await;
    database
        .execute("UPDATE chat_providers SET api_key = '', updated_at = '2026-04-04 00:00:00+00:00' WHERE provider = 'anthropic'")
        .await;
    database
        .execute(&format!("UPDATE ai_providers SET deleted = true, enabled = false, updated_at = '2026-05-01 00:00:00+00:00' WHERE id = '{BEDROCK}'"))
        .await;
    database
        .execute(&format!(
            "INSERT INTO user_chat_provider_keys (id, user_id, chat_provider_id, api_key, created_at, updated_at) \
             VALUES ('{}', '{DAVE}', '{}', 'dave', '2026-04-05 00:00:00+00:00', '2026-04-05 00:00:00+00:00'); \
             INSERT INTO user_chat_provider_keys (id, user_id, chat_provider_id, api_key, created_at, updated_at) \
             VALUES ('{}', '{CAROL}', '{OPENAI}', 'carol', '2026-04-05 00:00:00+00:00', '2026-04-05 00:00:00+00:00'); \
             UPDATE user_chat_provider_keys SET api_key = 'alice-2', api_key_key_id = NULL, updated_at = '2026-04-06 00:00:00+00:00' WHERE user_id = '{ALICE}'; \
             UPDATE user_ai_provider_keys SET api_key = 'bob-new-code', updated_at = '2026-04-07 00:00:00+00:00' WHERE user_id = '{BOB}'; \
             UPDATE user_chat_provider_keys SET api_key = 'bob-old-code', updated_at = '2026-04-06 00:00:00+00:00' WHERE user_id = '{BOB}'; \
             INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold) VALUES ('{}', 'google', 'gemini', 1, 1)",
            id(3), id(1), id(4), id(5)
        ))
        .await;
    if by_routine {
        let (code, planned) = tollgate.json(&["reconcile", "provider-keys", "--check"]);
        assert_eq!(code, 3, "{planned:#}");
        let (code, held) = tollgate.json(&["reconcile", "provider-keys", "--max-changes", "3"]);
        assert_eq!(code, 4, "{held:#}");
        let (code, done) = tollgate.json(&["reconcile", "provider-keys"]);
        assert_eq!(code, 0, "{done:#}");
        assert_eq!(
            planned["changes"], done["changes"],
            "the plan is what is done"
        );
        let actions: Vec<String> = done["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| {
                format!(
                    "{} {} {}",
                    change["table"], change["action"], change["rows"]
                )
                .replace('"', "")
            })
            .collect();
        assert_eq!(
            actions,
            [
                "ai_providers insert 1",
                "ai_providers reactivate 1",
                "ai_providers update 2",
                "ai_provider_keys delete 1",
                "ai_provider_keys update 1",
                "ai_provider_keys insert 1",
                "user_ai_provider_keys insert 1",
                "user_ai_provider_keys update 1",
                "chat_model_configs update 1",
            ]
        );
        let (code, again) = tollgate.json(&["reconcile", "provider-keys", "--check"]);
        assert_eq!(
            (code, again["changes"].as_array().unwrap().len()),
            (0, 0),
            "{again:#}"
        );
        assert_eq!(tollgate.run(&["verify"]).code, 0);
    }
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(
        providers(&database).await,
        [
            "agents-anthropic anthropic - on",
            "agents-bedrock bedrock - off",
            "agents-google google - on https://g",
            "agents-openai openai - on https://new",
        ]
    );
    // A resurrected provider keeps the later of the two times.
    assert_eq!(
        database
            .count(&format!(
                "ai_providers WHERE id = '{BEDROCK}' AND updated_at = '2026-05-01 00:00:00+00:00'"
            ))
            .await,
        1
    );
    assert_eq!(
        keys(&database).await,
        [
            "agents-google cipher-google -",
            "agents-openai cipher-2 -",
            "agents-openai second -"
        ]
    );
    // 505 gives a key that it inserts the time of the edit.
    assert_eq!(
        database
            .count("ai_provider_keys WHERE api_key = 'cipher-google' AND created_at = '2026-04-02 00:00:00+00:00'")
            .await,
        1
    );
    // Carol was soft-deleted: her key does not come back.
    assert_eq!(
        user_keys(&database).await,
        [
            format!("{} dave@example.com agents-google dave", id(3)),
            "e1000000-0000-4000-8000-000000000001 alice@example.com agents-openai alice-2"
                .to_owned(),
            "e1000000-0000-4000-8000-000000000002 bob@example.com agents-openai bob-new-code"
                .to_owned(),
        ]
    );
    assert_eq!(
        database
            .column("SELECT c.model || ' ' || p.name FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id ORDER BY 1")
            .await,
        ["claude agents-anthropic", "gemini agents-google", "gpt agents-openai", "gpt-old agents-openai"]
    );
    let catalog = database.catalog().await;
    assert!(!catalog.has_table("chat_providers") && !catalog.has_table("user_chat_provider_keys"));
    assert_eq!(
        database.count("workspaces").await,
        1,
        "another product's table"
    );
    assert_eq!(tollgate.run(&["verify"]).code, 0);
    // The routine has nothing to do any more, and says so.
    assert_eq!(tollgate.run(&["reconcile", "provider-keys"]).code, 1);
    // An active config needs a provider, a deleted one does not.
    let refused = sea_orm::ConnectionTrait::execute_unprepared(
        &database.connection,
        "UPDATE chat_model_configs SET ai_provider_id = NULL WHERE model = 'gpt'",
    )
    .await;
    assert!(refused.is_err());
}

/// Old code deletes a provider and makes it again: upstream stops there, and its advice leads nowhere.
#[rstest]
#[tokio::test]
async fn a_provider_that_was_made_anew_takes_over_with_its_models(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("flag in cron", "flag at contract", "deleted in the new gateway")] way: &str,
) {
    let database = at(backend, "provider_key_backfill").await;
    let anew = id(1);
    database
        .execute(&format!(
            "DELETE FROM user_chat_provider_keys WHERE chat_provider_id = '{OPENAI}'; DELETE FROM chat_providers WHERE id = '{OPENAI}'; \
             INSERT INTO chat_providers (id, provider, api_key, central_api_key_enabled, allow_user_api_key, allow_central_api_key_fallback, \
             created_at, updated_at) VALUES ('{anew}', 'openai', 'key-anew', true, true, true, '2027-01-01 00:00:00+00:00', '2027-01-01 00:00:00+00:00');"
        ))
        .await;
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["reconcile", "provider-keys"]);
    assert_eq!((code, named(&json, "P002").len()), (4, 1), "{json:#}");
    match way {
        "flag in cron" => {
            let (_, planned) = tollgate.json(&[
                "reconcile",
                "provider-keys",
                "--name-conflicts",
                "retire",
                "--dry-run",
            ]);
            let (code, done) =
                tollgate.json(&["reconcile", "provider-keys", "--name-conflicts", "retire"]);
            assert_eq!(code, 0, "{done:#}");
            assert_eq!(planned["changes"], done["changes"]);
            tollgate.succeed(&["reconcile", "provider-keys", "--check"]);
            tollgate.succeed(&["migrate", "up"]);
        }
        "flag at contract" => {
            tollgate.succeed(&["migrate", "up", "--name-conflicts", "retire"]);
        }
        _ => {
            database
                .execute(&format!(
                    "UPDATE ai_providers SET deleted = true, enabled = false WHERE id = '{OPENAI}'"
                ))
                .await;
            tollgate.succeed(&["migrate", "up"]);
        }
    }
    // Both model configs of the family, the deleted one too, follow it; nobody else's does.
    assert_eq!(
        database
            .column("SELECT model || ' ' || CAST(ai_provider_id AS text) FROM chat_model_configs WHERE ai_provider_id IS NOT NULL ORDER BY 1")
            .await,
        [
            format!("claude {ANTHROPIC}"),
            format!("gpt {anew}"),
            format!("gpt-old {anew}"),
        ]
    );
    assert_eq!(
        database
            .column("SELECT k.api_key FROM ai_provider_keys k JOIN ai_providers p ON p.id = k.provider_id WHERE p.name = 'agents-openai' ORDER BY 1")
            .await,
        ["cipher-openai", "key-anew"],
        "the retired provider keeps its key"
    );
    tollgate.succeed(&["verify"]);
}

/// A link to an operator's own provider that holds the name moves with the name.
#[rstest]
#[tokio::test]
async fn a_link_to_a_retired_provider_moves_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_expand").await;
    provider(&database, &id(1), "openai", "agents-openai", "").await;
    provider(&database, &id(2), "openai", "ours", "").await;
    database
        .execute(&format!(
            "UPDATE chat_model_configs SET ai_provider_id = '{}' WHERE model = 'gpt'; \
             UPDATE chat_model_configs SET ai_provider_id = '{}' WHERE model = 'gpt-old'",
            id(1),
            id(2)
        ))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["snapshot", "-o", &file]);
    tollgate.succeed(&["migrate", "up", "--name-conflicts", "retire"]);
    assert_eq!(
        database
            .column("SELECT model || ' ' || CAST(ai_provider_id AS text) FROM chat_model_configs WHERE provider = 'openai' ORDER BY 1")
            .await,
        [format!("gpt {OPENAI}"), format!("gpt-old {}", id(2))]
    );
    tollgate.succeed(&["verify", "--snapshot", &file]);
}

/// What was written to the same instant, however it is spelt, is no newer; what came a microsecond later is.
#[tokio::test]
async fn sqlites_times_are_compared_to_the_last_digit() {
    let database = at(Backend::Sqlite, "provider_key_backfill").await;
    for (legacy, new, wins) in [
        ("2026-06-01T10:00:00Z", "2026-06-01 10:00:00", false),
        (
            "2026-06-01 12:00:00.0001+02:00",
            "2026-06-01 10:00:00.0004+00:00",
            false,
        ),
        (
            "2026-06-01 12:00:00.00041+02:00",
            "2026-06-01 10:00:00.0004+00:00",
            true,
        ),
        (
            "2026-06-01 10:00:01.0001+00:00",
            "2026-06-01 10:00:00.9996+00:00",
            true,
        ),
        (
            "2026-06-01 10:00:00.9996+00:00",
            "2026-06-01 10:00:01.0001+00:00",
            false,
        ),
    ] {
        database
            .execute(&format!(
                "UPDATE user_chat_provider_keys SET api_key = 'legacy', updated_at = '{legacy}' WHERE user_id = '{ALICE}'; \
                 UPDATE user_ai_provider_keys SET api_key = 'new', api_key_key_id = NULL, updated_at = '{new}' WHERE user_id = '{ALICE}'"
            ))
            .await;
        let (_, json) =
            tollgate()
                .on(&database.url)
                .json(&["reconcile", "provider-keys", "--dry-run"]);
        let rows = json["changes"].as_array().unwrap().len();
        assert_eq!(rows, usize::from(wins), "{legacy} {new}: {json:#}");
    }
}

/// The routine follows a copy; it is none.
#[rstest]
#[tokio::test]
async fn the_routine_waits_for_the_copy(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = at(backend, "provider_key_expand").await;
    let run = tollgate()
        .on(&database.url)
        .run(&["reconcile", "provider-keys"]);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("--phase backfill"), "{run:#?}");
    assert_eq!(database.count("ai_providers").await, 0);
}
