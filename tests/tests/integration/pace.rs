//! How hard a run works: paused from another terminal, resting between batches, on several connections at once.

use std::process::Child;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::Value;
use tollgate_tests::{Backend, TestDatabase, Tollgate};

use crate::tollgate;
use crate::waiting::{ended, signal};

async fn seeded(backend: Backend, keys: u32) -> (TestDatabase, Tollgate) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    let keys = keys.to_string();
    let profile = "--profile";
    tollgate.succeed(&[
        "seed",
        profile,
        "bifrost-legacy",
        "--virtual-keys",
        &keys,
        "-q",
    ]);
    (database, tollgate)
}

fn status(tollgate: &Tollgate) -> Value {
    let (code, json) = tollgate.json(&["migrate", "status"]);
    assert_eq!(code, 0, "{json:#}");
    json["result"].clone()
}

/// Asks until the status is so.
async fn until(tollgate: &Tollgate, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = status(tollgate);
        if holds(&status) {
            return status;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "never: {what}: {status:#}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Begins a command that will hold, and waits until it has its lock.
async fn holding(tollgate: &Tollgate, command: &[&str]) -> Child {
    let child = tollgate.command(command).spawn().unwrap();
    until(tollgate, "it runs", |status| {
        status["running"][0].is_object()
    })
    .await;
    child
}

#[rstest]
#[tokio::test]
async fn a_run_that_starts_while_paused_holds_before_its_first_write(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (database, tollgate) = seeded(backend, 20).await;
    let before = database.schema().await;
    tollgate.succeed(&["migrate", "pause"]);
    let again = tollgate.succeed(&["migrate", "pause"]);
    assert!(
        again.stdout.contains("governance: paused since"),
        "{again:#?}"
    );
    let up = holding(&tollgate, &["migrate", "up", "--adopt"]).await;
    let seen = status(&tollgate);
    assert_eq!(seen["paused"][0]["track"], "governance", "{seen:#}");
    // It keeps its lock, and a gateway may have its own.
    let other = tollgate.run(&["migrate", "up", "--adopt", "--wait-lock", "0"]);
    assert_eq!(other.code, 5, "{other:#?}");
    let kept: Vec<String> = database
        .schema()
        .await
        .into_iter()
        .filter(|line| !line.contains("tollgate_pauses"))
        .collect();
    assert_eq!(kept, before);
    let resumed = tollgate.succeed(&["migrate", "resume"]);
    assert!(resumed.stdout.contains("goes on"), "{resumed:#?}");
    let run = ended(up);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(run.stderr.contains("paused since"), "{run:#?}");
    tollgate.succeed(&["migrate", "resume"]);
    tollgate.succeed(&["verify"]);
    assert_eq!(status(&tollgate)["running"], serde_json::json!([]));
}

#[rstest]
#[tokio::test]
async fn a_run_that_is_paused_stands_still_until_it_is_resumed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (database, tollgate) = seeded(backend, 3000).await;
    let (undisturbed, calm) = seeded(backend, 3000).await;
    calm.succeed(&["migrate", "up", "--adopt"]);
    let up = [
        "migrate",
        "up",
        "--adopt",
        "--batch-ms",
        "1",
        "--batch-delay",
        "100ms",
    ];
    let up = tollgate.command(&up).spawn().unwrap();
    until(&tollgate, "a pass has begun", |status| {
        status["passes"][0].is_object()
    })
    .await;
    tollgate.succeed(&["migrate", "pause"]);
    // Longer than the run takes to notice.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let held = status(&tollgate);
    assert!(held["running"][0].is_object(), "{held:#}");
    assert!(held["in_progress"][0].is_object(), "{held:#}");
    if backend == Backend::Postgres {
        let key = "SELECT pg_try_advisory_xact_lock(1000001)::text";
        assert_eq!(database.one(key).await, "true", "a gateway may boot");
    }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let later = status(&tollgate);
    assert_eq!(later["passes"], held["passes"]);
    tollgate.succeed(&["migrate", "resume"]);
    let run = ended(up);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(
        database.everything(|_, _| true).await,
        undisturbed.everything(|_, _| true).await
    );
}

#[tokio::test]
async fn a_signal_ends_a_hold_and_the_next_run_goes_on() {
    let (_database, tollgate) = seeded(Backend::Postgres, 20).await;
    tollgate.succeed(&["migrate", "pause"]);
    let up = holding(&tollgate, &["migrate", "up", "--adopt"]).await;
    signal(&up, "-TERM");
    let run = ended(up);
    assert_eq!(run.code, 143, "{run:#?}");
    tollgate.succeed(&["migrate", "resume"]);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
}

/// The parts of a table are nobody else's; a row that two of them want is one's, and the repeat sees that it is done.
#[tokio::test]
async fn on_several_connections_the_rows_end_as_on_one() {
    let (database, tollgate) = seeded(Backend::Postgres, 5000).await;
    let (undisturbed, calm) = seeded(Backend::Postgres, 5000).await;
    calm.succeed(&["migrate", "up", "--adopt"]);
    // Killed on four, taken up on three: parts of another number begin at their beginning.
    let up = [
        "migrate",
        "up",
        "--adopt",
        "--parallel",
        "4",
        "--batch-ms",
        "1",
    ];
    let slowly = [&up[..], &["--batch-delay", "50ms"]].concat();
    let mut killed = tollgate.command(&slowly).spawn().unwrap();
    until(&tollgate, "a pass has begun", |status| {
        status["passes"][2].is_object()
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    tollgate.succeed(&["migrate", "up", "--adopt", "--parallel", "3"]);
    tollgate.succeed(&["verify"]);
    assert_eq!(
        database.everything(|_, _| true).await,
        undisturbed.everything(|_, _| true).await
    );
}

#[tokio::test]
async fn a_lag_that_nobody_can_see_is_no_reason_to_begin() {
    let (database, tollgate) = seeded(Backend::Postgres, 20).await;
    let role = database.role("deploy", "").await;
    database.belongs_to(&role).await;
    let run = crate::tollgate()
        .on(&role.url)
        .run(&["migrate", "up", "--adopt", "--max-lag", "5s"]);
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("pg_monitor"), "{run:#?}");
    assert!(!database.has_table("tollgate_governance_migrations").await);
    // Nobody replicates from this server, and nothing is waited for.
    tollgate.succeed(&["migrate", "up", "--adopt", "--max-lag", "5s"]);
    let (_file, sqlite) = seeded(Backend::Sqlite, 20).await;
    let run = sqlite.run(&["migrate", "up", "--adopt", "--max-lag", "5s"]);
    assert_eq!(run.code, 2, "{run:#?}");
}

/// What a gateway writes while `down` holds is looked at before anything is lost.
#[rstest]
#[tokio::test]
async fn down_holds_before_it_looks_at_what_would_be_lost(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (database, tollgate) = seeded(backend, 20).await;
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    tollgate.succeed(&["migrate", "pause"]);
    let down = holding(&tollgate, &["migrate", "down"]).await;
    database
        .execute(
            "INSERT INTO governance_budgets (id, max_limit, reset_duration, virtual_key_id, created_at, updated_at) \
             SELECT 'second', max_limit, reset_duration, virtual_key_id, created_at, updated_at \
             FROM governance_budgets WHERE virtual_key_id IS NOT NULL LIMIT 1",
        )
        .await;
    tollgate.succeed(&["migrate", "resume"]);
    let run = ended(down);
    assert_eq!(run.code, 4, "{run:#?}");
    assert!(run.stderr.contains("lose data"), "{run:#?}");
    tollgate.succeed(&["verify"]);
}
