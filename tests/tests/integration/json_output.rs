//! The JSON contract: every command's output against the published schema.

use std::collections::BTreeSet;

use serde_json::Value;
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
    for (code, url, arguments) in [
        (0, &database.url, &["migrate", "adopt", "--dry-run"][..]),
        (0, &database.url, &["migrate", "adopt"]),
        (0, &database.url, &["migrate", "plan", "--sql"]),
        (0, &database.url, &["migrate", "up"]),
        (0, &database.url, &["migrate", "pause"]),
        (0, &database.url, &["migrate", "status"]),
        (0, &database.url, &["migrate", "resume"]),
        (0, &database.url, &["migrate", "status"]),
        (0, &database.url, &["schema", "diff"]),
        (0, &database.url, &["snapshot", "-o", &file]),
        (0, &database.url, &["verify"]),
        (0, &database.url, &["verify", "--snapshot", &file]),
        (0, &database.url, &["rehearse"]),
        (0, &database.url, &["history"]),
        (0, &database.url, &["history", "--run", "1"]),
        (1, &database.url, &["history", "--run", "99"]),
        (3, &database.url, &["reconcile", "credentials", "--check"]),
        (0, &database.url, &["reconcile", "credentials"]),
        (
            0,
            &database.url,
            &["reconcile", "flows", "--orphan-ttl", "1d"],
        ),
        (0, &database.url, &["reconcile", "header-keys"]),
        (
            0,
            &database.url,
            &[
                "reconcile",
                "header-requirements",
                "--mcp-client",
                "mcp-wide",
            ],
        ),
        (
            0,
            &database.url,
            &["mcp-client", "delete", "mcp-wide", "--dry-run"],
        ),
        (0, &database.url, &["mcp-client", "delete", "mcp-wide"]),
        (1, &database.url, &["mcp-client", "delete", "mcp-wide"]),
        (
            0,
            &database.url,
            &["budget", "list", "--virtual-key", "vk-alice"],
        ),
        (
            0,
            &database.url,
            &[
                "budget",
                "check",
                "--virtual-key",
                "vk-alice",
                "--provider",
                "openai",
            ],
        ),
        (
            0,
            &database.url,
            &[
                "budget",
                "record",
                "--virtual-key",
                "vk-alice",
                "--provider",
                "openai",
                "--cost",
                "1000000",
                "--request-id",
                "r-1",
            ],
        ),
        (
            4,
            &database.url,
            &[
                "budget",
                "check",
                "--virtual-key",
                "vk-alice",
                "--provider",
                "openai",
            ],
        ),
        (
            1,
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
        (3, &database.url, &["reconcile", "resets", "--check"]),
        (0, &database.url, &["reconcile", "resets"]),
        (
            0,
            &database.url,
            &["virtual-key", "delete", "vk-alice", "--dry-run"],
        ),
        (0, &database.url, &["virtual-key", "delete", "vk-alice"]),
        (1, &database.url, &["virtual-key", "delete", "vk-alice"]),
        (0, &database.url, &["provider-config", "delete", "2"]),
        (4, &database.url, &["migrate", "down"]),
        (2, &database.url, &["migrate", "sideways"]),
        (4, &shared.url, &["migrate", "up", "--adopt"]),
        (4, &shared.url, &["doctor"]),
        (0, &database.url, &["doctor"]),
        (
            0,
            &shared.url,
            &["migrate", "plan", "--adopt", "--shared-budgets", "clone"],
        ),
        (4, &shared.url, &["seed", "--profile", "bifrost-legacy"]),
        (0, &shared.url, &["completions", "bash"]),
        (0, &chats.url, &["doctor"]),
        (
            0,
            &chats.url,
            &["migrate", "up", "--adopt", "--phase", "backfill"],
        ),
        (0, &chats.url, &["migrate", "up"]),
        (1, &chats.url, &["reconcile", "provider-keys"]),
        (0, &chats.url, &["verify"]),
        (4, &chats.url, &["seed", "--profile", "coder-legacy"]),
        (
            0,
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
            1,
            &chats.url,
            &["provider-key", "resolve", "--model-config", "nobody"],
        ),
        (0, &chats.url, &["gateway-key", "create", "Replica-2"]),
        (2, &chats.url, &["gateway-key", "create", "no name"]),
        (0, &chats.url, &["gateway-key", "list"]),
        (1, &chats.url, &["gateway-key", "authenticate"]),
        (0, &chats.url, &["gateway-key", "delete", "replica-2"]),
        (1, &chats.url, &["gateway-key", "delete", "replica-2"]),
        (0, &shared.url, &["demo", "--virtual-keys", "20"]),
    ] {
        let (exit, json) = tollgate().on(url).json(arguments);
        assert_eq!(exit, code, "{arguments:?}: {json:#}");
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

#[tokio::test]
async fn a_log_for_programs_has_each_step_and_whose_it_is() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    let up = ["migrate", "up", "--adopt", "--shared-budgets", "clone"];
    let logged = |command: &[&str]| {
        let command = [command, &["--log-format", "json"]].concat();
        let run = tollgate().on(&database.url).succeed(&command);
        let events: Vec<Value> = run
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let runs: BTreeSet<String> = events
            .iter()
            .map(|event| event["span"]["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(runs.len(), 1, "{events:#?}");
        let steps = events
            .iter()
            .filter_map(|event| event["fields"]["step"].as_str());
        (runs, steps.map(str::to_owned).collect::<Vec<_>>())
    };
    let (first, steps) = logged(&up);
    for step in [
        "run the hazard checks",
        "m20260330_000007_multi_budget_contract",
    ] {
        assert!(steps.iter().any(|said| said == step), "{step}: {steps:#?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json").display().to_string();
    let (second, steps) = logged(&["snapshot", "-o", &file]);
    assert!(
        steps.iter().any(|step| step == "read governance_budgets"),
        "{steps:#?}"
    );
    assert_ne!(first, second);
}
