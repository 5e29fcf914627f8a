//! What a policy hides is never taken for absent: every command refuses, and a role that sees everything works.

use tollgate_migration::Track;
use tollgate_tests::fixture::populated;
use tollgate_tests::{Backend, Role, TestDatabase};

use crate::tollgate;

/// A database whose owner sees only some rows of a table.
async fn hidden(track: Track, table: &str, rule: &str) -> (TestDatabase, Role) {
    let database = populated(Backend::Postgres, track).await;
    let role = database.role("gw", "").await;
    database.belongs_to(&role).await;
    if track == Track::BILLING {
        tollgate()
            .on(&role.url)
            .succeed(&["migrate", "up", "--adopt"]);
    }
    database
        .execute(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY; \
             CREATE POLICY only_some ON {table} USING ({rule})"
        ))
        .await;
    (database, role)
}

/// Commands that a gateway's own process could run, with no look at the catalog before.
const AT_RUN_TIME: [&str; 3] = ["budget", "billing-mode", "virtual-key"];

/// Every command that looks into a table of the track's.
fn commands(track: Track, file: &str) -> Vec<Vec<&str>> {
    let mut all = vec![
        vec!["doctor"],
        vec!["migrate", "plan", "--adopt"],
        vec!["migrate", "adopt"],
        vec!["migrate", "up", "--adopt"],
        vec!["verify"],
        vec!["snapshot", "-o", file],
        vec!["reconcile", "all"],
        vec!["reconcile", "all", "--check"],
    ];
    all.extend(match track.name() {
        "governance" => vec![
            vec!["reconcile", "credentials"],
            vec!["reconcile", "credentials", "--check"],
            vec!["reconcile", "resets", "--dry-run"],
            vec![
                "budget",
                "check",
                "--virtual-key",
                "vk-alice",
                "--provider",
                "openai",
            ],
            vec![
                "budget",
                "record",
                "--virtual-key",
                "vk-alice",
                "--provider",
                "openai",
                "--cost",
                "1",
                "--request-id",
                "r",
            ],
            vec!["virtual-key", "delete", "vk-alice"],
        ],
        "providers" => vec![vec!["reconcile", "provider-keys"]],
        _ => vec![
            vec![
                "billing-mode",
                "get",
                "00000000-0000-4000-8000-000000000001",
            ],
            vec![
                "billing-mode",
                "strip",
                "00000000-0000-4000-8000-000000000001",
            ],
        ],
    });
    all
}

/// The gateway's own schema; request ids have a table of Tollgate's from the first that is noted.
async fn gateways(database: &TestDatabase) -> Vec<String> {
    let mut lines = database.schema().await;
    lines.retain(|line| !line.starts_with("tollgate_"));
    lines
}

async fn every_command_refuses(track: Track, table: &str, rule: &str) {
    let (database, role) = hidden(track, table, rule).await;
    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("snapshot.json");
    let before = (
        gateways(&database).await,
        database.everything(|_, _| true).await,
    );
    for command in commands(track, file.to_str().unwrap()) {
        let words = [&["--track", track.name()], &command[..]].concat();
        let (code, json) = tollgate().on(&role.url).json(&words);
        if track == Track::BILLING && command.starts_with(&["migrate", "up"]) {
            // Nothing is pending, and nothing is read.
            assert_eq!(code, 0, "{words:?}: {json:#}");
            continue;
        }
        assert_eq!(code, 4, "{words:?}: {json:#}");
        let found = &json["findings"][0];
        assert_eq!(found["code"], "E001", "{words:?}: {json:#}");
        assert_eq!(found["severity"], "blocking", "{words:?}: {json:#}");
        assert_eq!(found["table"], table, "{words:?}: {json:#}");
        // What asks at run time is told so by the server, which names no policy.
        let named = serde_json::json!(["policy only_some"]);
        assert!(
            found["sample_ids"] == named || AT_RUN_TIME.contains(&command[0]),
            "{words:?}: {json:#}"
        );
        let hint = json["error"]["hint"].as_str().unwrap_or_default();
        assert!(
            command[0] == "doctor" || hint.contains("BYPASSRLS"),
            "{words:?}: {json:#}"
        );
    }
    assert!(!file.exists(), "no snapshot of half the rows");
    let after = (
        gateways(&database).await,
        database.everything(|_, _| true).await,
    );
    assert_eq!(before, after);
}

#[tokio::test]
async fn hidden_virtual_keys_stop_every_command() {
    every_command_refuses(
        Track::GOVERNANCE,
        "governance_virtual_keys",
        "id <> 'vk-alice'",
    )
    .await;
}

#[tokio::test]
async fn hidden_budgets_stop_every_command() {
    every_command_refuses(Track::GOVERNANCE, "governance_budgets", "false").await;
}

#[tokio::test]
async fn hidden_user_keys_stop_every_command() {
    every_command_refuses(Track::PROVIDERS, "user_chat_provider_keys", "false").await;
}

#[tokio::test]
async fn hidden_workspaces_stop_every_command() {
    every_command_refuses(Track::BILLING, "workspaces", "false").await;
}

#[tokio::test]
async fn a_role_that_sees_every_row_works() {
    let (database, role) = hidden(Track::GOVERNANCE, "governance_virtual_keys", "false").await;
    database
        .execute(&format!("ALTER ROLE {} BYPASSRLS", role.name))
        .await;
    let keys = database
        .column("SELECT id FROM governance_virtual_keys WHERE budget_id IS NOT NULL ORDER BY 1")
        .await;
    assert!(!keys.is_empty());
    let tollgate = tollgate().on(&role.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    tollgate.succeed(&["verify"]);
    let owners = database
        .column("SELECT DISTINCT virtual_key_id FROM governance_budgets WHERE virtual_key_id IS NOT NULL ORDER BY 1")
        .await;
    assert_eq!(keys, owners, "every key has its budget");
}
