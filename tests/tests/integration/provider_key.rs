//! Which key answers (`docs/upstream/coder.md` §A4): the whole table, and the same on every path.

mod unusable;

use std::fmt::Write as _;

use rstest::rstest;
use tollgate_service::providers::provider_key::{
    Fallback, Request, Resolved, Resolver, Source, Target,
};
use tollgate_service::{Error, Result};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

const PROVIDER: &str = "d1000000-0000-4000-8000-000000000001";

const OTHER: &str = "d1000000-0000-4000-8000-000000000002";

const CONFIG: &str = "d2000000-0000-4000-8000-000000000001";

const USER: &str = "d3000000-0000-4000-8000-000000000001";

const STRANGER: &str = "d3000000-0000-4000-8000-000000000002";

/// The oldest of the provider's keys, and neither the first that is stored nor the lowest id.
const OLDEST: &str = "d4000000-0000-4000-8000-000000000005";

const USERS_KEY: &str = "d5000000-0000-4000-8000-000000000001";

/// What a model config and its provider let through. `key` leaves it to the second table.
const STATES: &str = "
    config      provider    answer
    enabled     enabled     key
    enabled     disabled    provider_disabled
    enabled     deleted     provider_deleted
    disabled    enabled     model_config_disabled
    disabled    disabled    model_config_disabled
    disabled    deleted     model_config_disabled
    deleted     enabled     model_config_deleted
    deleted     disabled    model_config_deleted
    deleted     deleted     model_config_deleted
    default     enabled     key
    default     disabled    provider_disabled
    default     deleted     provider_deleted
    unlinked    enabled     key
    unlinked    disabled    no_provider
    unlinked    deleted     no_provider
";

/// Which key is used, where one may be: the answer for every type but bedrock, then that for bedrock.
const KEYS: &str = "
    byok  user  central  environment   answer                  bedrock
    no    no    0        no            missing_api_key         ambient
    no    no    0        yes           fallback                fallback
    no    no    1        no            provider                provider
    no    no    1        yes           provider                provider
    no    no    3        no            provider                provider
    no    no    3        yes           provider                provider
    no    yes   0        no            missing_api_key         ambient
    no    yes   0        yes           fallback                fallback
    no    yes   1        no            provider                provider
    no    yes   1        yes           provider                provider
    no    yes   3        no            provider                provider
    no    yes   3        yes           provider                provider
    yes   no    0        no            user_api_key_required   ambient
    yes   no    0        yes           fallback                fallback
    yes   no    1        no            provider                provider
    yes   no    1        yes           provider                provider
    yes   no    3        no            provider                provider
    yes   no    3        yes           provider                provider
    yes   yes   0        no            user                    user
    yes   yes   0        yes           user                    user
    yes   yes   1        no            user                    user
    yes   yes   1        yes           user                    user
    yes   yes   3        no            user                    user
    yes   yes   3        yes           user                    user
";

fn table(text: &'static str) -> Vec<Vec<&'static str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| !words.is_empty())
        .skip(1)
        .collect()
}

/// A fresh database as between copy and contract, where a model config may still be without a provider.
async fn fresh(backend: Backend) -> TestDatabase {
    filled(TestDatabase::new(backend).await).await
}

async fn filled(database: TestDatabase) -> TestDatabase {
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--track",
        "providers",
        "--phase",
        "backfill",
    ]);
    database
        .execute(&format!(
            "INSERT INTO users (id) VALUES ('{USER}'), ('{STRANGER}')"
        ))
        .await;
    database
}

fn provider(id: &str, family: &str, name: &str, state: &str) -> String {
    format!(
        "INSERT INTO ai_providers (id, type, name, base_url, enabled, deleted) VALUES ('{id}', '{family}', '{name}', '', {}, {});",
        if state == "enabled" { "true" } else { "false" },
        if state == "deleted" { "true" } else { "false" },
    )
}

fn config(family: &str, state: &str) -> String {
    format!(
        "INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold, enabled, deleted, is_default, ai_provider_id) \
         VALUES ('{CONFIG}', '{family}', 'm', 1000, 70, {}, {}, {}, {});",
        if state == "disabled" { "false" } else { "true" },
        if state == "deleted" { "true" } else { "false" },
        if state == "default" { "true" } else { "false" },
        if state == "unlinked" {
            "NULL".to_owned()
        } else {
            format!("'{PROVIDER}'")
        },
    )
}

fn central(id: &str, key: &str, at: &str) -> String {
    format!(
        "INSERT INTO ai_provider_keys (id, provider_id, api_key, created_at) VALUES ('{id}', '{PROVIDER}', '{key}', '{at}');"
    )
}

/// As many central keys; of several the oldest is stored last, and as text its time comes behind another's.
fn centrals(number: &str) -> String {
    let oldest = central(OLDEST, "sk-oldest", "2026-03-01 09:00:00+02:00");
    match number {
        "0" => String::new(),
        "1" => oldest,
        _ => {
            central(
                "d4000000-0000-4000-8000-000000000001",
                "sk-newest",
                "2026-03-02 00:00:00+00:00",
            ) + &central(
                "d4000000-0000-4000-8000-000000000009",
                "sk-same-time",
                "2026-03-01 09:00:00+02:00",
            ) + &central(
                "d4000000-0000-4000-8000-000000000002",
                "sk-newer",
                "2026-03-01 08:00:00+00:00",
            ) + &oldest
        }
    }
}

fn users_key(user: &str, key: &str) -> String {
    format!(
        "INSERT INTO user_ai_provider_keys (id, user_id, ai_provider_id, api_key) VALUES ('{USERS_KEY}', '{user}', '{PROVIDER}', '{key}');"
    )
}

const EMPTY: &str = "DELETE FROM user_ai_provider_keys; DELETE FROM ai_provider_keys; \
                     DELETE FROM chat_model_configs; DELETE FROM ai_providers;";

fn environment() -> Fallback {
    Fallback::from(|name| match name {
        "OPENAI_API_KEY" | "CODER_AIBRIDGE_BEDROCK_KEY" => Some("sk-environment".to_owned()),
        "OPENROUTER_API_KEY" => Some("  ".to_owned()),
        _ => None,
    })
}

/// The answer in one word, with what goes with it.
fn word(answer: &Result<Resolved>) -> String {
    match answer {
        Err(Error::Unusable { code, .. }) => (*code).to_owned(),
        Err(error) => panic!("{error}"),
        Ok(resolved) => {
            assert_eq!(resolved.provider_id, PROVIDER);
            let key = resolved.key.as_ref().map(|key| key.expose());
            let (word, id, held) = match resolved.source {
                Source::User => ("user", Some(USERS_KEY), Some("sk-user")),
                Source::Provider => ("provider", Some(OLDEST), Some("sk-oldest")),
                Source::Fallback => ("fallback", None, Some("sk-environment")),
                Source::Ambient => ("ambient", None, None),
            };
            assert_eq!((resolved.key_id.as_deref(), key), (id, held));
            word.to_owned()
        }
    }
}

struct Asked<'a> {
    database: &'a TestDatabase,
    resolver: Resolver,
}

impl Asked<'_> {
    async fn resolve(&self, target: Target, byok: bool, fallback: Option<&Fallback>) -> String {
        let request = Request {
            target,
            user: Some(USER),
            byok,
            fallback,
        };
        word(
            &self
                .resolver
                .resolve(&self.database.connection, &request)
                .await,
        )
    }
}

async fn asked(database: &TestDatabase) -> Asked<'_> {
    Asked {
        database,
        resolver: Resolver::load(&database.connection, database.dialect())
            .await
            .unwrap(),
    }
}

#[rstest]
#[tokio::test]
async fn every_combination_has_its_answer(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("openai", "bedrock")] family: &str,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    let environment = environment();
    let mut wrong = String::new();
    let mut combinations = 0;
    for state in table(STATES) {
        let [config_state, provider_state, through] = state[..] else {
            panic!("{state:?}");
        };
        for row in table(KEYS) {
            let [byok, user, number, fallback, answer, bedrock] = row[..] else {
                panic!("{row:?}");
            };
            let mut rows = EMPTY.to_owned()
                + &provider(PROVIDER, family, "one", provider_state)
                + &config(family, config_state)
                + &centrals(number);
            if user == "yes" {
                rows += &users_key(USER, "sk-user");
            }
            database.execute(&rows).await;
            let expected = match (through, family) {
                ("key", "bedrock") => bedrock,
                ("key", _) => answer,
                (reason, _) => reason,
            };
            let fallback = (fallback == "yes").then_some(&environment);
            let byok = byok == "yes";
            let mut ask = vec![(Target::ModelConfig(CONFIG.to_owned()), expected)];
            // The other paths: a title asks for the default, a gateway for the provider, a subagent for a type.
            if config_state == "default" {
                ask.push((Target::DefaultModelConfig, expected));
            } else {
                ask.push((Target::DefaultModelConfig, "no_default_model_config"));
            }
            if config_state == "enabled" {
                ask.push((Target::Provider(PROVIDER.to_owned()), expected));
                let by_type = if through == "key" {
                    expected
                } else {
                    "no_provider"
                };
                ask.push((Target::Type(family.to_owned()), by_type));
            }
            for (target, expected) in ask {
                let found = asked.resolve(target.clone(), byok, fallback).await;
                if found != expected {
                    writeln!(wrong, "{state:?} {row:?} {target:?}: {found}").unwrap();
                }
            }
            combinations += 1;
        }
    }
    assert_eq!(combinations, 15 * 24);
    assert_eq!(wrong, "");
}

/// States that come together: the default that is switched off, and configs without a provider.
#[rstest]
#[tokio::test]
async fn a_default_and_an_unlinked_config_resolve_no_more_than_others(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let asked = asked(&database).await;
    for (state, change, named, default) in [
        (
            "default",
            "enabled = false",
            "model_config_disabled",
            "model_config_disabled",
        ),
        (
            "default",
            "deleted = true",
            "model_config_deleted",
            "no_default_model_config",
        ),
        ("default", "ai_provider_id = NULL", "provider", "provider"),
        (
            "unlinked",
            "enabled = false",
            "model_config_disabled",
            "no_default_model_config",
        ),
        (
            "unlinked",
            "deleted = true",
            "model_config_deleted",
            "no_default_model_config",
        ),
    ] {
        let rows = EMPTY.to_owned()
            + &provider(PROVIDER, "openai", "one", "enabled")
            + &config("openai", state)
            + &centrals("1");
        database.execute(&rows).await;
        database
            .execute(&format!("UPDATE chat_model_configs SET {change}"))
            .await;
        let config = Target::ModelConfig(CONFIG.to_owned());
        assert_eq!(
            asked.resolve(config, false, None).await,
            named,
            "{state} {change}"
        );
        assert_eq!(
            asked.resolve(Target::DefaultModelConfig, false, None).await,
            default,
            "{state} {change}"
        );
    }
}

/// An empty variable of a script must not bill the central key silently.
#[rstest]
#[tokio::test]
async fn an_empty_id_is_a_wrong_call_before_anything_is_connected_to(
    #[values("sqlite:///nowhere/at-all.db", "postgres://nobody@127.0.0.1:1/none")] url: &str,
) {
    for arguments in [
        &["--model-config", ""][..],
        &["--model-config", CONFIG, "--byok", "--user", " "],
    ] {
        let run = tollgate()
            .on(url)
            .run(&[&["provider-key", "resolve"], arguments].concat());
        assert_eq!(run.code, 2, "{run:#?}");
        assert!(run.stderr.contains("it is empty"), "{run:#?}");
    }
}

#[rstest]
#[tokio::test]
async fn the_command_says_which_key_and_never_the_key(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let rows = provider(PROVIDER, "openai", "one", "enabled")
        + &config("openai", "default")
        + &centrals("3")
        + &users_key(USER, "sk-user");
    database.execute(&rows).await;
    let tollgate = tollgate()
        .on(&database.url)
        .with("OPENAI_API_KEY", "sk-environment");
    let resolve = |more: &[&str]| {
        let arguments = [&["provider-key", "resolve", "--model-config", CONFIG], more].concat();
        let (code, json) = tollgate.json(&arguments);
        let plain = tollgate.run(&[&arguments[..], &["-vvv"]].concat());
        assert_eq!(plain.code, code, "{plain:#?}");
        let said = format!("{json}{}{}", plain.stdout, plain.stderr);
        assert!(!said.contains("sk-"), "{said}");
        (code, json)
    };
    let answer = |json: &serde_json::Value| {
        let result = &json["result"];
        (
            result["source"].clone(),
            result["key_id"].clone(),
            result["provider_id"].clone(),
        )
    };
    let (code, json) = resolve(&["--user", USER]);
    assert_eq!(
        (code, answer(&json)),
        (0, ("provider".into(), OLDEST.into(), PROVIDER.into()))
    );
    let (code, json) = resolve(&["--user", USER, "--byok"]);
    assert_eq!(
        (code, answer(&json)),
        (0, ("user".into(), USERS_KEY.into(), PROVIDER.into()))
    );
    // Nobody's key without a user.
    let (code, json) = resolve(&["--byok"]);
    assert_eq!(
        (code, answer(&json)),
        (0, ("provider".into(), OLDEST.into(), PROVIDER.into()))
    );
    let (code, json) = tollgate.json(&["provider-key", "resolve", "--model-config", "default"]);
    assert_eq!(
        (code, answer(&json)),
        (0, ("provider".into(), OLDEST.into(), PROVIDER.into()))
    );
    database.execute("DELETE FROM ai_provider_keys").await;
    let (code, json) = resolve(&["--fallback-env"]);
    let null = serde_json::Value::Null;
    assert_eq!(
        (code, answer(&json)),
        (0, ("fallback".into(), null, PROVIDER.into()))
    );
    let (code, json) = resolve(&[]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"missing_api_key".into())
    );
    database
        .execute("UPDATE ai_providers SET enabled = false")
        .await;
    let (code, json) = resolve(&["--byok", "--user", USER, "--fallback-env"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"provider_disabled".into())
    );
    assert_eq!(
        json["error"]["message"],
        format!("AI provider {PROVIDER} is disabled")
    );
    // What cannot be an id is a wrong call where ids are UUIDs, and no row where they are texts.
    let (code, json) = tollgate.json(&["provider-key", "resolve", "--model-config", "m-1"]);
    assert_eq!(
        code,
        if backend == Backend::Postgres { 2 } else { 1 },
        "{json:#}"
    );
    // A user that nobody has would mean the central key.
    let padded = format!(" {USER}");
    let (code, json) = resolve(&["--byok", "--user", &padded]);
    assert_eq!(code, 2, "{json:#}");
    let (code, json) = tollgate.json(&["provider-key", "resolve", "--model-config", OTHER]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"model_config_not_found".into())
    );
}

#[rstest]
#[tokio::test]
async fn a_database_without_ai_providers_says_so(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let (code, json) =
        tollgate()
            .on(&database.url)
            .json(&["provider-key", "resolve", "--model-config", CONFIG]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"not_found".into()),
        "{json:#}"
    );
}
