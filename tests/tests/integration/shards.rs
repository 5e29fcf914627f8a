//! One sweep in several processes, or on several connections: every row is one's, and nothing is done twice.

use std::collections::BTreeMap;
use std::process::Child;

use rstest::rstest;
use sea_orm::ConnectionTrait;
use serde_json::Value;
use tollgate_tests::{Backend, TestDatabase, Tollgate};

use crate::tollgate;
use crate::waiting::{SOMEBODY_WAITS, ended, until};

/// Credentials of which some have drifted from their grants, and budgets whose window is over.
async fn seeded(backend: Backend) -> (TestDatabase, Tollgate) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    let profile = "bifrost-credentials";
    tollgate.succeed(&["seed", "--profile", profile, "--virtual-keys", "400", "-q"]);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    (database, tollgate)
}

/// Rows by table and action.
fn rows(json: &Value) -> BTreeMap<String, u64> {
    let changes = json["changes"].as_array().unwrap();
    let row = |change: &Value| {
        let name = format!("{} {}", change["table"], change["action"]);
        (name, change["rows"].as_u64().unwrap())
    };
    changes.iter().map(row).collect()
}

/// What a sweep leaves, but for when.
async fn left(database: &TestDatabase) -> Vec<(String, Vec<String>)> {
    let at = [
        "updated_at",
        "last_reset",
        "token_last_reset",
        "request_last_reset",
    ];
    database.everything(|_, column| !at.contains(&column)).await
}

#[rstest]
#[case("credentials", Backend::Postgres)]
#[case("resets", Backend::Postgres)]
#[case("flows", Backend::Postgres)]
#[case("credentials", Backend::Sqlite)]
#[case("resets", Backend::Sqlite)]
#[tokio::test]
async fn eight_processes_do_what_one_does(#[case] routine: &str, #[case] backend: Backend) {
    let (whole, alone) = seeded(backend).await;
    let (code, expected) = alone.json(&["reconcile", routine]);
    assert_eq!(code, 0, "{expected:#}");
    let expected = rows(&expected);
    assert!(expected.values().sum::<u64>() > 50, "{expected:#?}");

    let (database, tollgate) = seeded(backend).await;
    let shards: Vec<Child> = (1..=8)
        .map(|shard| {
            let shard = format!("{shard}/8");
            tollgate
                .command(&["reconcile", routine, "--shard", &shard, "--output", "json"])
                .spawn()
                .unwrap()
        })
        .collect();
    let mut done: BTreeMap<String, u64> = BTreeMap::new();
    let mut busy = 0;
    for shard in shards {
        let run = ended(shard);
        assert_eq!(run.code, 0, "{run:#?}");
        let of_shard = rows(&run.json());
        busy += u32::from(!of_shard.is_empty());
        for (what, rows) in of_shard {
            *done.entry(what).or_default() += rows;
        }
    }
    assert_eq!(done, expected);
    assert!(busy > 4, "{busy} of eight shards had anything to do");
    assert_eq!(left(&database).await, left(&whole).await);
    tollgate.succeed(&["reconcile", routine, "--check"]);
}

#[rstest]
#[case("credentials")]
#[case("resets")]
#[tokio::test]
async fn four_connections_do_what_one_does(#[case] routine: &str) {
    let (whole, alone) = seeded(Backend::Postgres).await;
    let (_, expected) = alone.json(&["reconcile", routine]);
    let (database, tollgate) = seeded(Backend::Postgres).await;
    let (code, json) = tollgate.json(&["reconcile", routine, "--parallel", "4"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(rows(&json), rows(&expected));
    assert_eq!(json["findings"], expected["findings"]);
    assert_eq!(left(&database).await, left(&whole).await);
}

#[tokio::test]
async fn a_shard_keeps_out_what_would_do_its_rows_again() {
    let (database, tollgate) = seeded(Backend::Postgres).await;
    let table = "LOCK TABLE oauth_user_tokens IN ACCESS EXCLUSIVE MODE";
    let gateway = database.somebody("gateway", table).await;
    let sweep = ["reconcile", "credentials", "--lock-timeout", "120"];
    let first = tollgate
        .command(&[&sweep[..], &["--shard", "1/2"]].concat())
        .spawn()
        .unwrap();
    until(&database, "it waits", SOMEBODY_WAITS).await;
    let at_once = [
        "reconcile",
        "credentials",
        "--wait-lock",
        "0",
        "--lock-timeout",
        "1",
    ];
    for (more, code) in [
        (&["--shard", "1/2"][..], 5),
        (&["--shard", "3/3"], 5),
        (&[], 5),
        // It has its lock, and waits for the table in vain.
        (&["--shard", "2/2"], 1),
    ] {
        let run = tollgate.run(&[&at_once[..], more].concat());
        assert_eq!(run.code, code, "{more:?}: {run:#?}");
    }
    let resets = tollgate.run(&["reconcile", "resets", "--wait-lock", "0"]);
    assert_eq!(resets.code, 5, "{resets:#?}");
    gateway.execute_unprepared("ROLLBACK").await.unwrap();
    let run = ended(first);
    assert_eq!(run.code, 0, "{run:#?}");
}

#[tokio::test]
async fn what_is_not_divided_says_so() {
    let (_database, tollgate) = seeded(Backend::Sqlite).await;
    for command in [
        &["reconcile", "header-keys", "--shard", "1/2"][..],
        &["reconcile", "all", "--shard", "1/2"],
        &["reconcile", "credentials", "--shard", "0/2"],
        &["reconcile", "credentials", "--shard", "3/2"],
    ] {
        let run = tollgate.run(command);
        assert_eq!(run.code, 2, "{command:?}: {run:#?}");
    }
    let most = [
        "reconcile",
        "credentials",
        "--shard",
        "1/2",
        "--max-changes",
        "1",
    ];
    let run = tollgate.run(&most);
    assert_eq!(run.code, 4, "{run:#?}");
}
