//! `rehearse --gateway`: the gateway's own migration on two copies, one of them prepared.

use rstest::rstest;
use serde_json::{Value, json};
use tollgate_tests::fixture::{Calendar, Shape, coder_at_502, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::gateways::{ask, said};

struct Rehearsed {
    source: TestDatabase,
    scratch: Option<TestDatabase>,
}

impl Rehearsed {
    async fn of(source: TestDatabase) -> Self {
        let scratch = match source.backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(TestDatabase::new(Backend::Postgres).await),
        };
        Self { source, scratch }
    }

    /// The answer, and that the source is as it was.
    async fn run(&self, words: &[&str]) -> (i32, Value) {
        let before = self.source.everything(|_, _| true).await;
        let schema = self.source.schema().await;
        let mut all = vec!["rehearse", "--gateway"];
        all.extend(words);
        if let Some(scratch) = &self.scratch {
            all.extend(["--scratch-url", &scratch.url]);
        }
        let answer = ask(&self.source, &all);
        assert_eq!(self.source.everything(|_, _| true).await, before);
        assert_eq!(self.source.schema().await, schema);
        if let Some(scratch) = &self.scratch {
            let left = scratch
                .count("pg_namespace WHERE nspname LIKE 'tollgate_rehearsal_%'")
                .await;
            assert_eq!(left, 0, "nothing of the copies stays");
        }
        answer
    }
}

fn codes(ended: &Value) -> Vec<&str> {
    ended["lost"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lost| lost["code"].as_str().unwrap())
        .collect()
}

/// Carol's config is flagged: the gateway's own migration forgets that, and `prepare` does not.
#[rstest]
#[tokio::test]
async fn what_a_bifrost_would_lose_is_shown_and_that_it_would_not(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("1.5.2", "1.5.8")] version: &str,
) {
    let rehearsed = Rehearsed::of(legacy(backend, Shape::Full, Calendar::Flag).await).await;
    let (code, json) = rehearsed.run(&["--for", version]).await;
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["result"]["gateway"], "Bifrost", "{json:#}");
    let without = &json["result"]["without_prepare"];
    assert_eq!(without["stopped"], Value::Null, "{json:#}");
    assert!(codes(without).contains(&"V105"), "{json:#}");
    let with = &json["result"]["with_prepare"];
    assert_eq!(
        (codes(with), &with["stopped"]),
        (vec![], &Value::Null),
        "{json:#}"
    );
    assert_eq!(said(&json, "rehearse").len(), 1, "{json:#}");
}

/// A budget that two keys share stops the boot on PostgreSQL and loses an owner on SQLite.
#[rstest]
#[tokio::test]
async fn a_shared_budget_is_lost_without_prepare_and_cloned_with_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let source = legacy(backend, Shape::Full, Calendar::Flag).await;
    source
        .execute("UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'")
        .await;
    let rehearsed = Rehearsed::of(source).await;
    let (code, json) = rehearsed.run(&["--for", "1.5.8"]).await;
    assert_eq!(code, 4, "nobody said what becomes of it: {json:#}");
    assert_eq!(said(&json, "G001").len(), 1, "{json:#}");
    let (code, json) = rehearsed
        .run(&["--for", "1.5.8", "--shared-budgets", "clone"])
        .await;
    assert_eq!(code, 0, "{json:#}");
    let without = &json["result"]["without_prepare"];
    match backend {
        Backend::Postgres => assert!(
            without["stopped"]
                .as_str()
                .unwrap()
                .contains("add_multi_budget_tables"),
            "{json:#}"
        ),
        Backend::Sqlite => assert!(codes(without).contains(&"V105"), "{json:#}"),
    }
    assert_eq!(codes(&json["result"]["with_prepare"]), [] as [&str; 0]);
}

#[tokio::test]
async fn what_stops_coders_cutover_is_shown() {
    let source = coder_at_502().await;
    source
        .execute(
            "INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold) \
             VALUES ('f1000000-0000-4000-8000-0000000000ff', 'vercel', 'gone', 1, 1)",
        )
        .await;
    let rehearsed = Rehearsed::of(source).await;
    let accept = ["--for", "505", "--accept-policy-change"];
    let (code, json) = rehearsed.run(&accept).await;
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "P003").len(), 1, "{json:#}");
    let retire = [&accept[..], &["--orphaned-models", "retire"]].concat();
    let (code, json) = rehearsed.run(&retire).await;
    assert_eq!(code, 0, "{json:#}");
    assert!(
        json["result"]["without_prepare"]["stopped"]
            .as_str()
            .unwrap()
            .contains("505"),
        "{json:#}"
    );
    assert_eq!(
        (
            &json["result"]["with_prepare"]["stopped"],
            &json["result"]["with_prepare"]["lost"]
        ),
        (&Value::Null, &json!([])),
        "{json:#}"
    );
}

#[tokio::test]
async fn a_boot_needs_a_version_and_a_ledger() {
    let source = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    let (code, json) = ask(&source, &["rehearse", "--gateway"]);
    assert_eq!(code, 2, "{json:#}");
    source.execute("DROP TABLE migrations").await;
    let (code, json) = ask(&source, &["rehearse", "--gateway", "--for", "1.5.8"]);
    assert_eq!(code, 2, "{json:#}");
}
