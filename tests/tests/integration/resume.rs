//! Killed, stopped and cut off: the next run ends where an undisturbed one does.

use std::time::{Duration, Instant};

use rstest::rstest;
use tollgate_tests::{Backend, Run, TestDatabase, Tollgate};

use crate::{scale, tollgate};

/// A seeded legacy database with a shared budget.
async fn seeded(backend: Backend, keys: u32) -> (TestDatabase, Tollgate) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        &keys.to_string(),
        "--hazards=G001,G002,G006",
        "-q",
    ]);
    (database, tollgate)
}

const UP: [&str; 7] = [
    "migrate",
    "up",
    "--adopt",
    "--shared-budgets",
    "clone",
    "--batch-ms",
    "5",
];

#[rstest]
#[tokio::test]
async fn killed_at_ten_moments_and_repeated_it_ends_as_if_undisturbed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // 200,000 keys at scale 20.
    let keys = 10_000 * scale();
    let (undisturbed, calm) = seeded(backend, keys).await;
    let begun = Instant::now();
    calm.succeed(&UP);
    let whole = begun.elapsed();
    let expected = (
        undisturbed.everything(|_, _| true).await,
        undisturbed.schema().await,
    );

    let (database, tollgate) = seeded(backend, keys).await;
    let mut killed = 0;
    for round in 1..=10u32 {
        let mut child = tollgate.command(&UP).spawn().unwrap();
        // From 20 ms up, in no order, so that every stage is hit by some round.
        let moment = 20 + u64::from(round * 37 % 100) * 2 * u64::from(scale());
        std::thread::sleep(Duration::from_millis(moment));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    let last = tollgate.succeed(&UP);
    crate::say(&format!(
        "{backend:?}: {keys} keys, whole run {whole:?}, {killed} of 10 runs killed"
    ));
    assert!(killed >= 1, "no run was killed: {last:#?}");
    // Whoever was killed on PostgreSQL may leave a server process finishing its last statement.
    assert_eq!(database.everything(|_, _| true).await, expected.0);
    let gateway = |lines: Vec<String>| {
        lines
            .into_iter()
            .filter(|line| !line.starts_with("tollgate_"))
            .collect::<Vec<_>>()
    };
    assert_eq!(gateway(database.schema().await), gateway(expected.1));
    // What each migration created is on record although it took several runs: `down` finds it all.
    tollgate.succeed(&["migrate", "down", "--to", "governance_baseline"]);
    assert!(
        !database
            .catalog()
            .await
            .has_column("governance_budgets", "virtual_key_id")
    );
}

#[rstest]
#[case::sigterm("TERM", 143)]
#[case::sigint("INT", 130)]
#[tokio::test]
async fn a_signal_stops_within_a_batch_and_the_next_run_goes_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] signal: &str,
    #[case] code: i32,
) {
    let (database, tollgate) = seeded(backend, 8_000).await;
    let child = tollgate.command(&UP).spawn().unwrap();
    // Into the backfill: its checkpoints are there.
    let begun = Instant::now();
    while !database.catalog().await.has_table("tollgate_backfills")
        || database
            .count("tollgate_backfills WHERE position > 0")
            .await
            == 0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no backfill began"
        );
    }
    let asked = Instant::now();
    let killed = std::process::Command::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, code, "{run:#?}");
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert!(
        run.stderr.contains("hint: run the same command again"),
        "{run:#?}"
    );
    tollgate.succeed(&UP);
    assert_eq!(
        tollgate.run(&["migrate", "status", "--check"]).code,
        0,
        "all done"
    );
}

#[tokio::test]
async fn a_lost_lock_stops_the_run_and_the_next_one_goes_on() {
    let (database, tollgate) = seeded(Backend::Postgres, 8_000).await;
    let child = tollgate.command(&UP).spawn().unwrap();
    let begun = Instant::now();
    while !database.catalog().await.has_table("tollgate_backfills")
        || database
            .count("tollgate_backfills WHERE position > 0")
            .await
            == 0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no backfill began"
        );
    }
    let ended = database
        .column(
            "SELECT CAST(pg_terminate_backend(pid) AS text) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
             AND classid = 1416588396 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
    assert_eq!(ended, ["true"]);
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("lock"), "{run:#?}");
    tollgate.succeed(&UP);
}

#[tokio::test]
async fn an_index_left_half_built_is_built_anew() {
    use sea_orm::ConnectionTrait;
    let (database, tollgate) = seeded(Backend::Postgres, 100).await;
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--to",
        "multi_budget_backfill",
    ]);
    // A concurrent build that failed: values repeat, so the unique index under that name stays INVALID.
    database.execute("UPDATE governance_budgets SET provider_config_id = NULL, virtual_key_id = 'vk-0000001' WHERE id LIKE 'budget-vk%'").await;
    let failed = database
        .connection
        .execute_unprepared(
            "CREATE UNIQUE INDEX CONCURRENTLY idx_governance_budgets_virtual_key_id ON governance_budgets (virtual_key_id)",
        )
        .await;
    assert!(failed.is_err());
    tollgate.succeed(&["migrate", "up", "--phase", "backfill"]);
    let catalog = database.catalog().await;
    let index = catalog
        .table("governance_budgets")
        .unwrap()
        .index("idx_governance_budgets_virtual_key_id")
        .unwrap();
    assert!(index.valid && !index.unique, "{index:?}");
}

#[tokio::test]
async fn a_booting_bifrost_and_tollgate_wait_for_each_other() {
    use sea_orm::ConnectionTrait;
    let (database, tollgate) = seeded(Backend::Postgres, 50).await;
    let bifrost = database.another().await;
    let migrating = bifrost.begin().await.unwrap();
    migrating
        .execute_unprepared("SELECT pg_advisory_lock(1000001)")
        .await
        .unwrap();
    let run = tollgate.run(&["migrate", "up", "--adopt", "--wait-lock", "0"]);
    assert_eq!(run.code, 5, "{run:#?}");
    assert!(run.stderr.contains("Bifrost"), "{run:#?}");
    migrating
        .execute_unprepared("SELECT pg_advisory_unlock(1000001)")
        .await
        .unwrap();
    migrating.rollback().await.unwrap();
    // An old Bifrost that waits in the blocking form, in a statement that holds a snapshot, while indexes are built.
    let waiting = database.another().await;
    let holder = database.another().await;
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE governance_virtual_keys IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let child = tollgate
        .command(&["migrate", "up", "--adopt", "--shared-budgets", "clone"])
        .spawn()
        .unwrap();
    let taken = "pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND objid = 1000001 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let begun = Instant::now();
    while database.count(taken).await == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "Bifrost's key was not taken"
        );
    }
    let boot = tokio::spawn(async move {
        waiting
            .execute_unprepared(
                "SELECT pg_advisory_lock(1000001); SELECT pg_advisory_unlock(1000001)",
            )
            .await
    });
    held.rollback().await.unwrap();
    let run = Run::from(
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
            .await
            .unwrap(),
    );
    assert_eq!(run.code, 0, "{run:#?}");
    boot.await.unwrap().unwrap();
}

/// The journal that a writer leaves that was killed when it had overwritten the last page (SQLite's file format, 3).
fn journal(database: &[u8]) -> Vec<u8> {
    let size = usize::from(u16::from_be_bytes([database[16], database[17]]));
    let (pages, nonce) = (database.len() / size, 7_u32);
    let last = &database[(pages - 1) * size..];
    let checksum = (1..size - 199)
        .rev()
        .step_by(200)
        .fold(nonce, |sum, at| sum.wrapping_add(u32::from(last[at])));
    let number = |value: usize| u32::try_from(value).unwrap().to_be_bytes();
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for field in [
        number(1),
        nonce.to_be_bytes(),
        number(pages),
        number(512),
        number(size),
    ] {
        journal.extend(field);
    }
    journal.resize(512, 0);
    journal.extend(number(pages));
    journal.extend(last);
    journal.extend(checksum.to_be_bytes());
    journal
}

/// A killed writer leaves a journal on SQLite, and pages that are to be undone with it: who only reads may do that.
#[tokio::test]
async fn what_a_killed_writer_left_is_undone_before_it_is_read() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--track", "governance"]);
    let file = database.url.trim_start_matches("sqlite://");
    let whole = std::fs::read(file).unwrap();
    let mut torn = whole.clone();
    let end = torn.len() - 4096;
    torn[end..].fill(0xff);
    for command in [&["migrate", "status", "--check"][..], &["verify"]] {
        std::fs::write(file, &torn).unwrap();
        std::fs::write(format!("{file}-journal"), journal(&whole)).unwrap();
        tollgate().on(&database.url).succeed(command);
        assert!(std::fs::read(file).unwrap() == whole, "as it was before");
    }
}
