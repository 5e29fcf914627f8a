//! The provider-key cutover: each branch of `docs/upstream/coder.md` §A3, with expectations written by hand.

use rstest::rstest;
use sea_orm_migration::{MigratorTrait, SchemaManager};
use serde_json::Value;
use tollgate_tests::fixture::coder;
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

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
use tollgate_service::migrator::{Migrator, Providers};
