//! Nothing waits without bound: other sessions' locks, a signal, a peer that is gone, few connections, and the COMMIT of a
//! run that was killed.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rstest::rstest;
use sea_orm::ConnectionTrait;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, Proxy, Run, TestDatabase};

use crate::tollgate;

async fn postgres() -> TestDatabase {
    legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await
}

pub(crate) fn ended(child: Child) -> Run {
    Run::from(child.wait_with_output().unwrap())
}

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(sent.success());
}

/// Waits until the server has such rows, or none any more.
async fn poll(database: &TestDatabase, what: &str, from: &str, there: bool, most: Duration) {
    let begun = Instant::now();
    while (database.count(from).await > 0) != there {
        assert!(begun.elapsed() < most, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn until(database: &TestDatabase, what: &str, from: &str) {
    poll(database, what, from, true, Duration::from_secs(60)).await;
}

/// Nobody else reads or writes budgets.
const LOCKED: &str = "LOCK TABLE governance_budgets IN ACCESS EXCLUSIVE MODE";

/// Somebody waits for a lock on a table of this database.
pub(crate) const SOMEBODY_WAITS: &str = "pg_locks WHERE NOT granted AND locktype = 'relation' \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[rstest]
#[case(&["migrate", "status"])]
#[case(&["migrate", "plan"])]
#[case(&["schema", "diff"])]
#[case(&["doctor"])]
#[case(&["verify"])]
#[case(&["snapshot", "-o", "/dev/null"])]
#[case(&["reconcile", "resets", "--check"])]
#[case(&["reconcile", "resets"])]
#[case(&["budget", "check", "--virtual-key", "vk-alice", "--provider", "openai"])]
#[case(&["budget", "record", "--virtual-key", "vk-alice", "--provider", "openai", "--cost", "1", "--request-id", "r"])]
#[tokio::test]
async fn a_locked_table_is_waited_for_as_long_as_told(#[case] command: &[&str]) {
    let database = postgres().await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    for (application, code) in [("psql", 1), ("tollgate (pid 1)", 5)] {
        let other = database
            .somebody(
                application,
                "LOCK TABLE governance_budgets, governance_virtual_keys IN ACCESS EXCLUSIVE MODE",
            )
            .await;
        let begun = Instant::now();
        let words = [command, &["--lock-timeout", "1"]].concat();
        let run = tollgate().on(&database.url).run(&words);
        assert_eq!(run.code, code, "{words:?}: {run:#?}");
        assert!(begun.elapsed() < Duration::from_secs(12), "{words:?}");
        let pid: String = other
            .query_one_raw(sea_orm::Statement::from_string(
                sea_orm::DbBackend::Postgres,
                "SELECT pg_backend_pid()::text",
            ))
            .await
            .unwrap()
            .unwrap()
            .try_get_by_index(0)
            .unwrap();
        for told in [pid.as_str(), application, "idle in transaction"] {
            assert!(run.stderr.contains(told), "{told} in {words:?}: {run:#?}");
        }
        other.execute_unprepared("ROLLBACK").await.unwrap();
        other.close().await.unwrap();
    }
}

#[rstest]
#[case("oauth_user_tokens", &["reconcile", "credentials"])]
#[case("oauth_user_tokens", &["virtual-key", "delete", "vk-0000001"])]
#[tokio::test]
async fn a_row_in_somebodys_hands_is_waited_for_as_long_as_told(
    #[case] table: &str,
    #[case] command: &[&str],
) {
    let database = TestDatabase::new(Backend::Postgres).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&[
        "seed",
        "--profile",
        "bifrost-credentials",
        "--virtual-keys",
        "50",
    ]);
    tool.succeed(&["migrate", "up", "--adopt"]);
    let before = database.everything(|_, _| true).await;
    let other = database
        .somebody("psql", &format!("SELECT 1 FROM {table} FOR UPDATE"))
        .await;
    let begun = Instant::now();
    let run = tool.run(&[command, &["--lock-timeout", "2"]].concat());
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("psql"), "{run:#?}");
    assert!(run.stderr.contains("--lock-timeout"), "{run:#?}");
    // Half a second at a time, and longer than that in all.
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert!(waited < Duration::from_secs(12), "{waited:?}");
    assert_eq!(
        database
            .everything(|table, _| table != "tollgate_runs")
            .await,
        before
            .into_iter()
            .filter(|(table, _)| table != "tollgate_runs")
            .collect::<Vec<_>>()
    );
    let child = tool
        .command(&[command, &["--lock-timeout", "60"]].concat())
        .spawn()
        .unwrap();
    until(
        &database,
        "it waits for the row",
        "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .await;
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let first = database
        .one(&format!("SELECT max(xact_start)::text FROM {waits}"))
        .await;
    until(
        &database,
        "it waits for the row in another transaction",
        &format!("{waits} AND xact_start > '{first}'"),
    )
    .await;
    drop(other);
    let run = ended(child);
    assert_eq!(run.code, 0, "{run:#?}");
}

#[tokio::test]
async fn up_backs_off_until_wait_lock_and_lets_the_gateway_in_meanwhile() {
    let database = postgres().await;
    let other = database
        .somebody(
            "gateway",
            "LOCK TABLE governance_budgets IN ACCESS SHARE MODE",
        )
        .await;
    let begun = Instant::now();
    let up = tollgate()
        .on(&database.url)
        .command(&["migrate", "up", "--adopt", "--wait-lock", "6"])
        .spawn()
        .unwrap();
    // A gateway that boots wants this key, and gets it between two attempts.
    let mut got = 0;
    let gateway = database.another().await;
    while begun.elapsed() < Duration::from_secs(5) {
        let row = gateway
            .query_one_raw(sea_orm::Statement::from_string(
                sea_orm::DbBackend::Postgres,
                "SELECT pg_try_advisory_xact_lock(1000001)",
            ))
            .await
            .unwrap()
            .unwrap();
        got += u32::from(row.try_get_by_index::<bool>(0).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let run = ended(up);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(begun.elapsed() > Duration::from_secs(5), "{run:#?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{run:#?}");
    assert!(run.stderr.contains("gateway"), "{run:#?}");
    assert!(got > 20, "the gateway's key was free {got} times");
    other.execute_unprepared("ROLLBACK").await.unwrap();
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    tollgate().on(&database.url).succeed(&["verify"]);
}

/// A concurrent build waits for whoever has a snapshot when it asks, to the end of their transaction. The lock's transaction
/// ends with the run: whoever looked after the build on its connection could stop it for good.
#[tokio::test]
async fn a_concurrent_build_is_looked_after_without_the_locks_connection() {
    let database = postgres().await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--to", "multi_budget_backfill"]);
    let writer = database
        .somebody(
            "gateway",
            "LOCK TABLE governance_budgets IN ROW EXCLUSIVE MODE",
        )
        .await;
    let up = tollgate.command(&["migrate", "up"]).spawn().unwrap();
    until(
        &database,
        "the build waits",
        "pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'",
    )
    .await;
    // The run's lock is the one advisory lock that is held meanwhile. More than two looks.
    let last_used = "SELECT max(a.state_change)::text AS at FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()";
    let before = database.one(last_used).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(database.one(last_used).await, before);
    writer.execute_unprepared("ROLLBACK").await.unwrap();
    let run = ended(up);
    assert_eq!(run.code, 0, "{run:#?}");
}

#[tokio::test]
async fn the_lock_key_in_anybodys_hands_is_exit_5() {
    let database = postgres().await;
    let _bifrost = database
        .somebody("bifrost", "SELECT pg_advisory_xact_lock(1000001)")
        .await;
    let run = tollgate()
        .on(&database.url)
        .run(&["migrate", "up", "--adopt", "--wait-lock", "1"]);
    assert_eq!(run.code, 5, "{run:#?}");
    assert!(run.stderr.contains("bifrost"), "{run:#?}");
    assert!(!database.has_table("tollgate_governance_migrations").await);
}

#[tokio::test]
async fn four_replicas_start_on_five_connections() {
    let database = postgres().await;
    let role = database.role("gw", "CONNECTION LIMIT 5").await;
    database.belongs_to(&role).await;
    let tollgate = tollgate().on(&role.url);
    let replicas: Vec<Child> = (0..4)
        .map(|_| {
            tollgate
                .command(&["migrate", "up", "--adopt"])
                .spawn()
                .unwrap()
        })
        .collect();
    for replica in replicas {
        let run = ended(replica);
        assert_eq!(run.code, 0, "{run:#?}");
    }
    tollgate.succeed(&["verify"]);
}

#[rstest]
#[case(&["migrate", "up", "--adopt", "--wait-lock", "120"], "-TERM", 143)]
#[case(&["verify", "--lock-timeout", "120"], "-TERM", 143)]
#[case(&["doctor", "--lock-timeout", "120"], "-INT", 130)]
#[case(&["reconcile", "resets", "--lock-timeout", "120"], "-TERM", 143)]
#[tokio::test]
async fn the_first_signal_ends_a_wait(
    #[case] command: &[&str],
    #[case] name: &str,
    #[case] code: i32,
) {
    let database = postgres().await;
    if command[0] != "migrate" {
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--adopt"]);
    }
    let other = database.somebody("gateway", LOCKED).await;
    let child = tollgate()
        .on(&database.url)
        .command(command)
        .spawn()
        .unwrap();
    until(&database, "it waits", SOMEBODY_WAITS).await;
    let begun = Instant::now();
    signal(&child, name);
    let run = ended(child);
    assert_eq!(run.code, code, "{command:?}: {run:#?}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{command:?}: {run:#?}"
    );
    other.execute_unprepared("ROLLBACK").await.unwrap();
}

/// A row that somebody has locked, for a command whose writes are one row each.
#[tokio::test]
async fn a_signal_ends_the_wait_for_a_row() {
    let database = postgres().await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let other = database
        .somebody("gateway", "SELECT 1 FROM governance_budgets FOR UPDATE")
        .await;
    let child = tollgate()
        .on(&database.url)
        .command(&[
            "budget",
            "record",
            "--virtual-key",
            "vk-alice",
            "--provider",
            "openai",
            "--cost",
            "1",
            "--lock-timeout",
            "120",
        ])
        .spawn()
        .unwrap();
    until(
        &database,
        "it waits",
        "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    )
    .await;
    let begun = Instant::now();
    signal(&child, "-TERM");
    let run = ended(child);
    assert_eq!(run.code, 143, "{run:#?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{run:#?}");
    other.execute_unprepared("ROLLBACK").await.unwrap();
}

/// Somebody listens and never answers.
#[tokio::test]
async fn a_signal_ends_the_wait_to_connect() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for command in [&["migrate", "up"][..], &["reconcile", "resets"]] {
        let child = tollgate()
            .on(&format!("postgres://somebody@127.0.0.1:{port}/nothing"))
            .command(&[command, &["--connect-timeout", "120"]].concat())
            .spawn()
            .unwrap();
        let (_connected, _) = silent.accept().unwrap();
        let begun = Instant::now();
        signal(&child, "-TERM");
        let run = ended(child);
        assert_eq!(run.code, 143, "{command:?}: {run:#?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{run:#?}");
    }
}

/// A writer of SQLite's that does not end, with readers kept out or not: the wait ends with its time, and with a signal.
#[rstest]
#[tokio::test]
async fn a_writer_of_the_file_is_waited_for_as_long_as_told(
    #[values("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")] begin: &str,
) {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    let other = database.another().await;
    other.execute_unprepared(begin).await.unwrap();
    let up = |wait: &str| {
        tollgate()
            .on(&database.url)
            .command(&["migrate", "up", "--adopt", "--wait-lock", wait])
            .spawn()
            .unwrap()
    };
    let begun = Instant::now();
    let run = ended(up("3"));
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{run:#?}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{run:#?}");
    assert!(run.stderr.contains("--wait-lock"), "{run:#?}");
    let child = up("120");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let begun = Instant::now();
    signal(&child, "-TERM");
    let run = ended(child);
    assert_eq!(run.code, 143, "{run:#?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{run:#?}");
    let child = up("120");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    other.execute_unprepared("ROLLBACK").await.unwrap();
    let run = ended(child);
    assert_eq!(run.code, 0, "{run:#?}");
}

/// Catalog reads behind somebody's lock are tried again as long as for a run of Tollgate's.
#[rstest]
#[case(&["migrate", "up", "--adopt"])]
#[case(&["migrate", "down"])]
#[tokio::test]
async fn a_table_that_nobody_may_read_is_waited_for(#[case] command: &[&str]) {
    let database = postgres().await;
    if command.contains(&"down") {
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--adopt"]);
    }
    let other = database.somebody("gateway", LOCKED).await;
    let begun = Instant::now();
    let child = tollgate()
        .on(&database.url)
        .command(&[command, &["--wait-lock", "60"]].concat())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    other.execute_unprepared("ROLLBACK").await.unwrap();
    let run = ended(child);
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(begun.elapsed() >= Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_noticed_within_a_minute() {
    let database = postgres().await;
    let proxy = Proxy::to(&database.url).await;
    let other = database.somebody("gateway", LOCKED).await;
    let child = tollgate()
        .on(&proxy.url)
        .command(&["doctor", "--lock-timeout", "600"])
        .spawn()
        .unwrap();
    until(&database, "it waits", SOMEBODY_WAITS).await;
    proxy.fall_silent();
    let begun = Instant::now();
    let run = tokio::task::spawn_blocking(move || ended(child))
        .await
        .unwrap();
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{run:#?}");
    other.execute_unprepared("ROLLBACK").await.unwrap();
}

/// A client that is killed while it waits leaves no session behind: the server looks after its clients too.
#[tokio::test]
async fn a_client_that_is_killed_stops_waiting_on_the_server() {
    let database = postgres().await;
    let other = database.somebody("gateway", LOCKED).await;
    let mut child = tollgate()
        .on(&database.url)
        .command(&["doctor", "--lock-timeout", "600"])
        .spawn()
        .unwrap();
    until(&database, "it waits", SOMEBODY_WAITS).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let most = Duration::from_secs(10);
    poll(&database, "it still waits", SOMEBODY_WAITS, false, most).await;
    other.execute_unprepared("ROLLBACK").await.unwrap();
}

/// The work of a run that was killed in its COMMIT is still under way: nobody looks at history before it is over. A standby
/// that does not answer makes a COMMIT last; here a constraint does that is checked at the end, and a relay that stays when
/// the client dies keeps the server from noticing.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runs_commit_is_waited_for() {
    let database = postgres().await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    let owned = "governance_budgets WHERE virtual_key_id IS NOT NULL";
    let owners = database.count(owned).await;
    assert!(owners > 0);
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM set_config('lock_timeout', '0', true); PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON tollgate_governance_migrations \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let disk = database
        .somebody("disk", "SELECT pg_advisory_xact_lock(42)")
        .await;
    let proxy = Proxy::to(&database.url).await;
    let mut killed = crate::tollgate()
        .on(&proxy.url)
        .command(&["migrate", "up"])
        .spawn()
        .unwrap();
    let committing = "pg_stat_activity WHERE query = 'COMMIT' AND wait_event_type = 'Lock' AND datname = current_database()";
    until(&database, "its COMMIT waits", committing).await;
    proxy.fall_silent();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The lock goes with its client; the relay would keep it.
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' \
             AND starts_with(application_name, 'tollgate') AND datname = current_database()",
        )
        .await;
    let down = [
        "migrate",
        "down",
        "--to",
        "governance_baseline",
        "--allow-data-loss",
        "--wait-lock",
        "2",
    ];
    let refused = tollgate.run(&down);
    assert_eq!(refused.code, 5, "{refused:#?}");
    assert!(refused.stderr.contains("still committing"), "{refused:#?}");
    disk.execute_unprepared("ROLLBACK").await.unwrap();
    let most = Duration::from_secs(60);
    poll(&database, "it is committed", committing, false, most).await;
    // What it committed is known to the next run: down undoes the contract first, and no owner is gone.
    assert_eq!(database.count(owned).await, owners);
    let catalog = database.catalog().await;
    assert!(!catalog.has_column("governance_virtual_keys", "budget_id"));
    database
        .execute("DROP TRIGGER slow ON tollgate_governance_migrations; DROP FUNCTION slow()")
        .await;
    tollgate.succeed(&down);
    let referenced = database
        .count("governance_virtual_keys WHERE budget_id IS NOT NULL")
        .await;
    assert_eq!(referenced, owners);
    tollgate.succeed(&["migrate", "up"]);
    tollgate.succeed(&["verify"]);
}
