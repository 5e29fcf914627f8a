//! Bifrost from 1.5.9 on, where budgets belong to model configs, and from 2.0 on, where OAuth tokens are in one table
//! (`docs/upstream/bifrost.md` §11 to §13).

mod boots;
mod oracle;

use std::collections::BTreeSet;

use chrono::Utc;
use rstest::rstest;
use serde_json::{Value, json};
use tollgate_tests::versions::bifrost;
use tollgate_tests::{Backend, TestDatabase};

use crate::gateways::{ask, said};

/// A 1.5.16 whose budgets allow ten each, and whose windows are open.
async fn open(backend: Backend, version: &str) -> TestDatabase {
    let database = bifrost(backend, version).await;
    let now = Utc::now().format("%Y-%m-%d %H:%M:%S");
    database
        .execute(&format!(
            "UPDATE governance_budgets SET last_reset = '{now}', current_usage = 0, max_limit = 10, reset_duration = '1d'"
        ))
        .await;
    database
}

fn budget<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["budget", command, "--virtual-key"], more].concat()
}

fn owners(json: &Value) -> Vec<String> {
    json["result"]["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|standing| standing["owner"].as_str().unwrap().to_owned())
        .collect()
}

#[rstest]
#[tokio::test]
async fn every_budget_above_a_request_is_asked_and_charged_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = open(backend, "1.5.16").await;
    database
        .execute(
            "INSERT INTO governance_model_configs (id, model_name, provider, scope, scope_id, created_at, updated_at) \
             SELECT n.id, n.model, n.provider, n.scope, n.scope_id, v.created_at, v.updated_at FROM governance_virtual_keys v JOIN \
             (SELECT 'm-both' AS id, 'gpt-4' AS model, 'openai' AS provider, 'global' AS scope, NULL AS scope_id \
              UNION ALL SELECT 'm-model', 'gpt-4', NULL, 'global', NULL \
              UNION ALL SELECT 'm-all', '*', NULL, 'global', NULL \
              UNION ALL SELECT 'm-alice-model', 'openai/gpt-4', NULL, 'virtual_key', 'vk-alice' \
              UNION ALL SELECT 'm-bob-model', 'gpt-4', NULL, 'virtual_key', 'vk-bob' \
              UNION ALL SELECT 'm-else', 'gpt-4', 'bedrock', 'global', NULL) n ON v.id = 'vk-alice'; \
             INSERT INTO governance_budgets (id, max_limit, reset_duration, last_reset, current_usage, model_config_id, created_at, updated_at) \
             SELECT 'b-' || m.id, 10, '1d', b.last_reset, 0, m.id, m.created_at, m.updated_at FROM governance_model_configs m \
             JOIN governance_budgets b ON b.id = 'b-nobody' \
             WHERE m.id IN ('m-both', 'm-model', 'm-all', 'm-alice-model', 'm-bob-model', 'm-else')",
        )
        .await;
    let request = ["vk-alice", "--provider", "openai", "--model", "gpt-4"];
    let (code, listed) = ask(&database, &budget("list", &request));
    assert_eq!(code, 0, "{listed:#}");
    let asked = [
        "model_config m-both",
        "model_config m-model",
        "model_config m-openai",
        "model_config m-all",
        "model_config m-alice-model",
        "model_config m-vk-alice",
        "team t-1",
        "customer c-1",
    ];
    assert_eq!(owners(&listed), asked);
    // Of a model that nobody limits, and of none, the limits of all are met.
    for more in [&["--model", "gpt-5"][..], &[]] {
        let request = [&["vk-alice", "--provider", "openai"], more].concat();
        let (code, json) = ask(
            &database,
            &budget("record", &[&request[..], &["--cost", "0"]].concat()),
        );
        assert_eq!(code, 0, "{json:#}");
        assert_eq!(
            owners(&json),
            [
                "model_config m-openai",
                "model_config m-all",
                "model_config m-vk-alice",
                "team t-1",
                "customer c-1",
            ]
        );
    }
    // Each blocks alone, and the first that is spent is named.
    for owner in asked.iter().rev() {
        let (table, id) = owner.split_once(' ').unwrap();
        database
            .execute(&format!(
                "UPDATE governance_budgets SET current_usage = 10 WHERE {} = '{id}'",
                if table == "model_config" {
                    "model_config_id".to_owned()
                } else {
                    format!("{table}_id")
                }
            ))
            .await;
        let (code, json) = ask(&database, &budget("check", &request));
        assert_eq!(code, 4, "{json:#}");
        assert_eq!(json["result"]["blocked_by"]["owner"], *owner, "{json:#}");
    }
    database
        .execute("UPDATE governance_budgets SET current_usage = 0")
        .await;
    let (code, json) = ask(
        &database,
        &budget("record", &[&request[..], &["--cost", "2.5"]].concat()),
    );
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(owners(&json), asked);
    assert_eq!(
        database
            .column("SELECT id FROM governance_budgets WHERE current_usage = 2.5 ORDER BY id")
            .await,
        [
            "b-alice",
            "b-customer",
            "b-m-alice-model",
            "b-m-all",
            "b-m-both",
            "b-m-model",
            "b-provider",
            "b-team",
        ]
    );
}

#[rstest]
#[tokio::test]
async fn a_key_that_is_off_or_expired_opens_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = open(backend, "2.0.0-prerelease3").await;
    let check = async |key: &str| {
        let (code, json) = ask(&database, &budget("check", &[key, "--provider", "openai"]));
        (code, json["error"]["code"].as_str().map(str::to_owned))
    };
    assert_eq!(check("vk-alice").await, (0, None));
    let inactive = (4, Some("virtual_key_inactive".to_owned()));
    assert_eq!(check("vk-carol").await, inactive);
    for (expires, answer) in [
        ("2020-01-01 00:00:00", inactive),
        ("2090-01-01 00:00:00", (0, None)),
    ] {
        database
            .execute(&format!(
                "UPDATE governance_virtual_keys SET expires_at = '{expires}' WHERE id = 'vk-alice'"
            ))
            .await;
        assert_eq!(check("vk-alice").await, answer, "{expires}");
    }
}

/// A limit that is raised for some cycles counts as raised while one is left.
#[rstest]
#[tokio::test]
async fn an_override_raises_the_limit_while_it_lasts(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = open(backend, "2.0.0-prerelease3").await;
    for (cycles, mode, code) in [(2, "add", 0), (0, "add", 4), (2, "", 4)] {
        database
            .execute(&format!(
                "UPDATE governance_budgets SET current_usage = 12, override_amount = 5, override_mode = '{mode}', \
                 override_cycles_remaining = {cycles} WHERE id = 'b-alice'"
            ))
            .await;
        let (answer, json) = ask(
            &database,
            &budget("check", &["vk-alice", "--provider", "openai"]),
        );
        assert_eq!(answer, code, "{cycles} {mode:?}: {json:#}");
    }
}

#[rstest]
#[tokio::test]
async fn a_deleted_key_takes_its_own_model_configs_along(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("1.5.9", "1.5.16", "2.0.0-prerelease3")] version: &str,
) {
    let database = bifrost(backend, version).await;
    let delete = ["virtual-key", "delete", "vk-dave"];
    let (code, planned) = ask(&database, &[&delete[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{planned:#}");
    let (code, done) = ask(&database, &delete);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(planned["changes"], done["changes"]);
    let gone: BTreeSet<String> = done["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|change| change["table"] == "governance_model_configs")
        .flat_map(|change| change["sample_ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        gone,
        ["m-vk-dave", "m-vk-dave-bedrock", "m-vk-dave-openai"]
            .map(str::to_owned)
            .into()
    );
    assert_eq!(
        database
            .column("SELECT id FROM governance_budgets ORDER BY id")
            .await,
        [
            "b-alice",
            "b-bob",
            "b-carol-openai",
            "b-customer",
            "b-nobody",
            "b-provider",
            "b-team"
        ]
    );
    // With a provider config goes the key's model config of that provider, and nothing of another's.
    let (code, json) = ask(&database, &["provider-config", "delete", "2"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        database
            .column("SELECT id FROM governance_model_configs ORDER BY id")
            .await,
        ["m-openai", "m-vk-alice", "m-vk-bob"]
    );
    assert_eq!(
        database
            .count("governance_rate_limits WHERE id = 'rl-1'")
            .await,
        1,
        "of a key that stays"
    );
}

#[rstest]
#[tokio::test]
async fn windows_of_model_configs_follow_their_own_flag(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "1.5.16").await;
    // A month that rolls is over after thirty days; one of the calendar on the first.
    let began = (Utc::now() - chrono::Duration::days(32)).format("%Y-%m-%d 00:00:00");
    database
        .execute(&format!(
            "UPDATE governance_model_configs SET calendar_aligned = (id = 'm-vk-bob'); \
             UPDATE governance_budgets SET last_reset = '{began}', current_usage = 1, reset_duration = '1M'"
        ))
        .await;
    let (code, json) = ask(&database, &["reconcile", "resets"]);
    assert_eq!(code, 0, "{json:#}");
    let first = Utc::now().format("%Y-%m-01");
    let on_the_first = database
        .column(&format!(
            "SELECT id FROM governance_budgets WHERE CAST(last_reset AS text) LIKE '{first} 00:00:00%' AND current_usage = 0"
        ))
        .await;
    assert_eq!(on_the_first, ["b-bob"]);
    assert_eq!(
        database
            .count("governance_budgets WHERE current_usage <> 0")
            .await,
        0
    );
}

/// From 2.0 on the tables of before stand there unwritten: what is stale in them opens nothing.
#[rstest]
#[tokio::test]
async fn credentials_follow_grants_in_the_merged_table(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "2.0.0-prerelease3").await;
    database
        .execute(
            "INSERT INTO mcp_oauth_tokens (id, virtual_key_id, mcp_client_id, auth_mode, status, access_token, token_type, created_at, \
             updated_at) SELECT n.id, n.vk, 'mcp-files', n.mode, n.status, 'made up', 'Bearer', v.created_at, v.updated_at \
             FROM governance_virtual_keys v JOIN (SELECT 't-granted' AS id, 'vk-alice' AS vk, 'vk' AS mode, 'active' AS status \
             UNION ALL SELECT 't-ungranted', 'vk-bob', 'vk', 'active' UNION ALL SELECT 't-again', 'vk-dave', 'vk', 'orphaned' \
             UNION ALL SELECT 't-shared', NULL, 'shared', 'active' UNION ALL SELECT 't-admin', 'vk-bob', 'admin', 'active') n \
             ON v.id = 'vk-alice'; \
             INSERT INTO mcp_oauth_flows (id, mcp_client_id, oauth_config_id, state, virtual_key_id, flow_mode, status, expires_at, created_at, \
             updated_at) SELECT 'f-ungranted', 'mcp-files', 'o-1', 's-1', 'vk-bob', 'vk', 'pending', v.updated_at, v.created_at, v.updated_at \
             FROM governance_virtual_keys v WHERE v.id = 'vk-alice'; \
             INSERT INTO oauth_user_tokens (id, virtual_key_id, mcp_client_id, auth_mode, status, oauth_config_id, access_token, token_type, \
             created_at, updated_at) SELECT 't-of-before', 'vk-bob', 'mcp-files', 'vk', 'active', 'o-1', 'made up', 'Bearer', v.created_at, \
             v.updated_at FROM governance_virtual_keys v WHERE v.id = 'vk-alice'",
        )
        .await;
    let (code, json) = ask(&database, &["doctor"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(said(&json, "G013")[0]["rows"], 2, "{json:#}");
    let (code, json) = ask(&database, &["reconcile", "credentials", "--check"]);
    assert_eq!(code, 3, "{json:#}");
    let (code, json) = ask(&database, &["reconcile", "credentials"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        database
            .column("SELECT id || ' ' || status FROM mcp_oauth_tokens ORDER BY id")
            .await,
        [
            "t-admin active",
            "t-again active",
            "t-granted active",
            "t-shared active",
            "t-ungranted orphaned"
        ]
    );
    assert_eq!(database.count("mcp_oauth_flows").await, 0);
    assert_eq!(
        database
            .column("SELECT id || ' ' || status FROM oauth_user_tokens ORDER BY id")
            .await,
        ["t-of-before active"]
    );
    let (code, json) = ask(&database, &["virtual-key", "delete", "vk-bob"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(database.count("oauth_user_tokens").await, 0);
    assert_eq!(
        database
            .count("mcp_oauth_tokens WHERE virtual_key_id = 'vk-bob'")
            .await,
        0
    );
}

#[rstest]
#[tokio::test]
async fn what_is_not_done_on_a_version_says_so_and_the_rest_goes_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json").display().to_string();
    std::fs::write(
        &file,
        json!({ "governance": { "virtual_keys": [] } }).to_string(),
    )
    .unwrap();
    let database = bifrost(backend, "2.0.0-prerelease3").await;
    let before = database.everything(|_, _| true).await;
    for command in [
        &["reconcile", "config", "--file", &file][..],
        &["reconcile", "resets"],
        &["reconcile", "resets", "--dry-run"],
        &budget(
            "record",
            &["vk-alice", "--provider", "openai", "--cost", "1"],
        ),
    ] {
        let (code, json) = ask(&database, command);
        assert_eq!(
            (code, &json["error"]["code"]),
            (4, &Value::from("not_on_this_version")),
            "{command:?}: {json:#}"
        );
    }
    assert_eq!(database.everything(|_, _| true).await, before);
    let (code, json) = ask(&database, &["reconcile", "all"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(said(&json, "R014")[0]["table"], "resets", "{json:#}");
    let (code, json) = ask(
        &bifrost(backend, "1.5.9").await,
        &["reconcile", "config", "--file", &file],
    );
    assert_eq!(
        (code, &json["error"]["code"]),
        (4, &Value::from("not_on_this_version")),
        "{json:#}"
    );
}

/// On SQLite the columns of before may stand there with what they once said: behind the move they say nothing.
#[rstest]
#[tokio::test]
async fn a_leftover_of_before_says_nothing_behind_the_move(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = open(backend, "1.5.16").await;
    database
        .execute(
            "ALTER TABLE governance_virtual_keys ADD COLUMN budget_id varchar(255); \
             ALTER TABLE governance_virtual_key_provider_configs ADD COLUMN budget_id varchar(255); \
             UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id IN ('vk-alice', 'vk-bob'); \
             UPDATE governance_budgets SET current_usage = 10 WHERE id = 'b-alice'",
        )
        .await;
    let check =
        |key: &'static str| ask(&database, &budget("check", &[key, "--provider", "openai"])).0;
    assert_eq!([check("vk-alice"), check("vk-bob")], [4, 0]);
    let budgets =
        "SELECT id || ' ' || COALESCE(model_config_id, '-') FROM governance_budgets ORDER BY id";
    let before = database.column(budgets).await;
    let (code, json) = ask(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(database.column(budgets).await, before);
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
}

/// Half a merge is no version: credentials would be looked for where they are not.
#[rstest]
#[tokio::test]
async fn half_a_merge_is_not_worked_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "2.0.0-prerelease3").await;
    database.execute("DROP TABLE mcp_oauth_flows").await;
    for command in [
        &["doctor"][..],
        &["reconcile", "credentials", "--check"],
        &["mcp-client", "delete", "mcp-files", "--dry-run"],
        &budget("check", &["vk-alice", "--provider", "openai"]),
    ] {
        let (code, json) = ask(&database, command);
        assert_eq!(code, 4, "{command:?}: {json:#}");
    }
}

/// Before the merge, what would stop it blocks whoever names that version as the next.
#[rstest]
#[tokio::test]
async fn what_stops_the_merge_blocks_for_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "1.5.16").await;
    database
        .execute("UPDATE config_mcp_clients SET oauth_config_id = 'o-1'")
        .await;
    database
        .execute(
            "INSERT INTO config_mcp_clients (id, client_id, name, connection_type, oauth_config_id, created_at, updated_at) \
             SELECT 77, 'twin', 'Twin', 'http', 'o-1', created_at, updated_at FROM config_mcp_clients WHERE client_id = 'mcp-files'",
        )
        .await;
    for (version, code) in [("1.5.16", 0), ("2.0.0-prerelease3", 4)] {
        let (found, json) = ask(&database, &["doctor", "--code", "G024", "--for", version]);
        assert_eq!(found, code, "{version}: {json:#}");
        assert_eq!(said(&json, "G024").len(), 1, "{version}: {json:#}");
    }
}
