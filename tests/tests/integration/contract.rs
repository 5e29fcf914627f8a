//! The JSON contract: every command's output against the published schema.

use tollgate_tests::Backend;
use tollgate_tests::fixture::{Calendar, Shape, SilentKeys, coder, legacy, with_credentials};

use crate::tollgate;

#[tokio::test]
async fn every_output_holds_against_the_schema() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/output.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let database = with_credentials(Backend::Sqlite, SilentKeys::There).await;
    let shared = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    shared
        .execute("UPDATE governance_virtual_keys SET budget_id = 'b-alice'")
        .await;
    let chats = coder(Backend::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json").display().to_string();
    for (url, arguments) in [
        (&database.url, &["migrate", "adopt", "--dry-run"][..]),
        (&database.url, &["migrate", "adopt"]),
        (&database.url, &["migrate", "plan", "--sql"]),
        (&database.url, &["migrate", "up"]),
        (&database.url, &["migrate", "status"]),
        (&database.url, &["schema", "diff"]),
        (&database.url, &["snapshot", "-o", &file]),
        (&database.url, &["verify"]),
        (&database.url, &["verify", "--snapshot", &file]),
        (&database.url, &["rehearse"]),
        (&database.url, &["history"]),
        (&database.url, &["history", "--run", "1"]),
        (&database.url, &["history", "--run", "99"]),
        (&database.url, &["reconcile", "credentials", "--check"]),
        (&database.url, &["reconcile", "credentials"]),
        (&database.url, &["reconcile", "flows", "--orphan-ttl", "1d"]),
        (&database.url, &["reconcile", "header-keys"]),
        (
            &database.url,
            &[
                "reconcile",
                "header-requirements",
                "--mcp-client",
                "mcp-wide",
            ],
        ),
        (
            &database.url,
            &["mcp-client", "delete", "mcp-wide", "--dry-run"],
        ),
        (&database.url, &["mcp-client", "delete", "mcp-wide"]),
        (&database.url, &["mcp-client", "delete", "mcp-wide"]),
        (&database.url, &["budget", "list", "--virtual-key", "vk-1"]),
        (
            &database.url,
            &[
                "budget",
                "check",
                "--virtual-key",
                "vk-1",
                "--provider",
                "openai",
            ],
        ),
        (
            &database.url,
            &[
                "budget",
                "record",
                "--virtual-key",
                "vk-1",
                "--provider",
                "openai",
                "--cost",
                "1000000",
                "--request-id",
                "r-1",
            ],
        ),
        (
            &database.url,
            &[
                "budget",
                "check",
                "--virtual-key",
                "vk-1",
                "--provider",
                "openai",
            ],
        ),
        (
            &database.url,
            &[
                "budget",
                "check",
                "--virtual-key",
                "nobody",
                "--provider",
                "openai",
            ],
        ),
        (&database.url, &["reconcile", "resets", "--check"]),
        (&database.url, &["reconcile", "resets"]),
        (
            &database.url,
            &["virtual-key", "delete", "vk-1", "--dry-run"],
        ),
        (&database.url, &["virtual-key", "delete", "vk-1"]),
        (&database.url, &["virtual-key", "delete", "vk-1"]),
        (&database.url, &["provider-config", "delete", "1"]),
        (&database.url, &["migrate", "down"]),
        (&database.url, &["migrate", "sideways"]),
        (&shared.url, &["migrate", "up", "--adopt"]),
        (&shared.url, &["doctor"]),
        (&database.url, &["doctor"]),
        (
            &shared.url,
            &["migrate", "plan", "--adopt", "--shared-budgets", "clone"],
        ),
        (&shared.url, &["seed", "--profile", "bifrost-legacy"]),
        (&shared.url, &["completions", "bash"]),
        (&chats.url, &["doctor"]),
        (
            &chats.url,
            &["migrate", "up", "--adopt", "--phase", "backfill"],
        ),
        (&chats.url, &["migrate", "up"]),
        (&chats.url, &["reconcile", "provider-keys"]),
        (&chats.url, &["verify"]),
        (&chats.url, &["seed", "--profile", "coder-legacy"]),
        (
            &chats.url,
            &[
                "provider-key",
                "resolve",
                "--model-config",
                "default",
                "--fallback-env",
            ],
        ),
        (
            &chats.url,
            &["provider-key", "resolve", "--model-config", "nobody"],
        ),
        (&chats.url, &["gateway-key", "create", "Replica-2"]),
        (&chats.url, &["gateway-key", "create", "no name"]),
        (&chats.url, &["gateway-key", "list"]),
        (&chats.url, &["gateway-key", "authenticate"]),
        (&chats.url, &["gateway-key", "delete", "replica-2"]),
        (&chats.url, &["gateway-key", "delete", "replica-2"]),
        (&shared.url, &["demo", "--virtual-keys", "20"]),
    ] {
        let (_, json) = tollgate().on(url).json(arguments);
        let errors: Vec<String> = validator
            .iter_errors(&json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{arguments:?}: {errors:#?}\n{json:#}");
    }
}

#[test]
fn the_demo_says_that_nothing_was_lost() {
    let run = tollgate().run(&["demo"]);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(run.stdout.contains("Nothing lost"), "{run:#?}");
}
