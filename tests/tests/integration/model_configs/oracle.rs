//! What a request meets, beside an oracle.

use proptest::prelude::*;
use tollgate_service::governance::budget::{Asked, Budgets, Cost};

use super::*;

/// A model config, as an oracle sees it.
#[derive(Clone, Debug)]
struct Config {
    model: &'static str,
    provider: Option<&'static str>,
    key: Option<&'static str>,
}

const MODELS: [&str; 4] = ["*", "gpt-4", "openai/gpt-4", "o3"];
const PROVIDERS: [&str; 2] = ["openai", "bedrock"];
const KEYS: [&str; 2] = ["vk-alice", "vk-bob"];

fn config() -> impl Strategy<Value = Config> {
    (
        prop::sample::select(&MODELS[..]),
        prop::option::of(prop::sample::select(&PROVIDERS[..])),
        prop::option::of(prop::sample::select(&KEYS[..])),
    )
        .prop_map(|(model, provider, key)| Config {
            model,
            provider,
            key,
        })
}

fn base(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or_default()
}

/// Whether a request meets a model config, said in plain words.
fn meets(config: &Config, key: &str, provider: &str, model: Option<&str>) -> bool {
    config.key.is_none_or(|own| own == key)
        && config.provider.is_none_or(|own| own == provider)
        && (config.model == "*" || model.is_some_and(|model| base(config.model) == base(model)))
}

#[rstest]
#[tokio::test]
async fn what_a_request_meets_is_what_an_oracle_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let database = open(backend, "1.5.16").await;
    database
        .execute("DELETE FROM governance_budgets; DELETE FROM governance_model_configs")
        .await;
    let budgets = Budgets::load(&database.connection, database.dialect())
        .await
        .unwrap();
    let mut runner = TestRunner::deterministic();
    for _ in 0..12 {
        let configs = prop::collection::vec(config(), 1..12)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let quoted =
            |word: Option<&str>| word.map_or("NULL".to_owned(), |word| format!("'{word}'"));
        let rows: Vec<String> = configs
            .iter()
            .enumerate()
            .map(|(number, config)| {
                let scope = if config.key.is_some() { "virtual_key" } else { "global" };
                format!(
                    "INSERT INTO governance_model_configs (id, model_name, provider, scope, scope_id, created_at, updated_at) \
                     SELECT 'm-{number}', '{}', {}, '{scope}', {}, created_at, updated_at FROM governance_virtual_keys WHERE id = 'vk-bob'; \
                     INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, model_config_id, created_at, updated_at) \
                     SELECT 'b-{number}', 10, '1d', 0, 'm-{number}', created_at, updated_at FROM governance_virtual_keys WHERE id = 'vk-bob'",
                    config.model,
                    quoted(config.provider),
                    quoted(config.key)
                )
            })
            .collect();
        // A unique index that the gateway has forbids some of them, and no oracle needs it.
        database
            .execute("DROP INDEX IF EXISTS idx_model_scope_provider")
            .await;
        database.execute(&rows.join("; ")).await;
        for key in KEYS {
            for provider in PROVIDERS {
                for model in [
                    None,
                    Some("gpt-4"),
                    Some("azure/gpt-4"),
                    Some("o3"),
                    Some("x"),
                ] {
                    let asked = Asked {
                        virtual_key: key,
                        provider: Some(provider),
                        model,
                    };
                    let expected: BTreeSet<String> = configs
                        .iter()
                        .enumerate()
                        .filter(|(_, config)| meets(config, key, provider, model))
                        .map(|(number, _)| format!("b-{number}"))
                        .collect();
                    let nothing: Cost = "0".parse().unwrap();
                    let met: Vec<String> = budgets
                        .record(&database.connection, &asked, &nothing, None, Utc::now())
                        .await
                        .unwrap()
                        .budgets
                        .into_iter()
                        .map(|standing| standing.budget_id)
                        .collect();
                    let once: BTreeSet<String> = met.iter().cloned().collect();
                    assert_eq!(met.len(), once.len(), "each once");
                    assert_eq!(once, expected, "{asked:?} of {configs:?}");
                }
            }
        }
        database
            .execute("DELETE FROM governance_budgets; DELETE FROM governance_model_configs")
            .await;
    }
}
