//! Contract beside old code that goes on writing: what it changes is noted while everything is walked, and the lock is held for
//! what was noted alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rstest::rstest;
use sea_orm::ConnectionTrait;
use tollgate_tests::{Backend, TestDatabase};

use crate::{scale, tollgate};

/// A seeded gateway behind the backfill, with a shadow of what its references and flags are: written by the test's writers in the
/// transaction of each change, and never read by Tollgate.
async fn behind_the_backfill(keys: u32) -> TestDatabase {
    let database = TestDatabase::new(Backend::Postgres).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        &keys.to_string(),
        "-q",
    ]);
    tool.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    database
        .execute(
            "CREATE TABLE shadow_owner (kind text, id text, budget text, PRIMARY KEY (kind, id)); \
             INSERT INTO shadow_owner SELECT 'vk', id, budget_id FROM governance_virtual_keys; \
             INSERT INTO shadow_owner SELECT 'pc', id::text, budget_id FROM governance_virtual_key_provider_configs; \
             CREATE TABLE shadow_flag (budget text PRIMARY KEY, flag boolean); \
             INSERT INTO shadow_flag SELECT id, calendar_aligned FROM governance_budgets; \
             CREATE TABLE shadow_parent (config text PRIMARY KEY, key text); \
             INSERT INTO shadow_parent SELECT id::text, virtual_key_id FROM governance_virtual_key_provider_configs; \
             INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, calendar_aligned, created_at, updated_at) \
             SELECT 'spare-' || id, 5, '1d', 0, false, now(), now() FROM governance_virtual_keys; \
             INSERT INTO shadow_flag SELECT id, false FROM governance_budgets WHERE id LIKE 'spare-%'",
        )
        .await;
    database
}

/// What old code does, each with its shadow in one statement. A key has its own budget, its spare one or none, so that nothing is
/// ever shared.
fn change(turn: u32, keys: u32) -> String {
    let key = format!("vk-{:07}", turn % keys + 1);
    let config = turn % keys + 1;
    let shadow = |kind: &str| {
        format!(
            "INSERT INTO shadow_owner SELECT '{kind}', m.id::text, m.budget_id FROM m ON CONFLICT (kind, id) DO UPDATE SET budget = excluded.budget"
        )
    };
    match (turn >> 27) % 8 {
        0 => format!(
            "WITH m AS (UPDATE governance_virtual_keys SET budget_id = 'spare-{key}' WHERE id = '{key}' RETURNING id, budget_id) {}",
            shadow("vk")
        ),
        1 => format!(
            "WITH m AS (UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = '{key}' RETURNING id, budget_id) {}",
            shadow("vk")
        ),
        2 => format!(
            "WITH m AS (UPDATE governance_virtual_key_provider_configs SET budget_id = NULL WHERE id = {config} RETURNING id, budget_id) {}",
            shadow("pc")
        ),
        3 | 4 => format!(
            "WITH m AS (UPDATE governance_budgets SET calendar_aligned = NOT calendar_aligned WHERE id = 'spare-{key}' RETURNING id, calendar_aligned) \
             INSERT INTO shadow_flag SELECT id, calendar_aligned FROM m ON CONFLICT (budget) DO UPDATE SET flag = excluded.flag"
        ),
        5 => format!(
            "WITH m AS (UPDATE governance_virtual_key_provider_configs SET virtual_key_id = '{key}' WHERE id = {} RETURNING id, virtual_key_id) \
             INSERT INTO shadow_parent SELECT id::text, virtual_key_id FROM m ON CONFLICT (config) DO UPDATE SET key = excluded.key",
            (turn / 7) % keys + 1
        ),
        6 => format!(
            "WITH b AS (INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, calendar_aligned, created_at, updated_at) \
             VALUES ('new-{turn}', 10, '1d', 1, true, now(), now()) ON CONFLICT DO NOTHING RETURNING id), \
             f AS (INSERT INTO shadow_flag SELECT id, true FROM b ON CONFLICT DO NOTHING), \
             m AS (INSERT INTO governance_virtual_keys (id, name, value, budget_id, created_at, updated_at) \
             SELECT 'vk-new-{turn}', 'New {turn}', 'sk-bf-new-{turn}', id, now(), now() FROM b RETURNING id, budget_id) {}",
            shadow("vk")
        ),
        _ => format!(
            "UPDATE governance_budgets SET current_usage = current_usage + 0.01 WHERE id = 'budget-{key}'"
        ),
    }
}

/// A writer, until contract takes its columns away: how long each write took.
async fn writer(
    connection: tollgate_service::Connection,
    number: u32,
    keys: u32,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut turn = number.wrapping_mul(2_654_435_761);
    while !stop.load(Ordering::SeqCst) {
        turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let begun = Instant::now();
        if let Err(error) = connection.execute_unprepared(&change(turn, keys)).await {
            let said = error.to_string();
            assert!(
                said.contains("does not exist") || said.contains("deadlock"),
                "{said}"
            );
            if said.contains("does not exist") {
                break;
            }
        }
        waits.push(begun.elapsed());
    }
    waits
}

/// Owners and flags by the shadow, and by the migrated tables.
async fn expect_what_the_shadow_says(database: &TestDatabase) {
    let owners = "SELECT o.budget || ' ' || min(o.kind || ' ' || o.id) FROM shadow_owner o JOIN governance_budgets b ON b.id = o.budget \
                  GROUP BY o.budget ORDER BY 1";
    let migrated = "SELECT id || ' ' || COALESCE('vk ' || virtual_key_id, 'pc ' || provider_config_id::text) FROM governance_budgets \
                    WHERE virtual_key_id IS NOT NULL OR provider_config_id IS NOT NULL ORDER BY 1";
    let (said, is) = (
        database.column(owners).await,
        database.column(migrated).await,
    );
    assert_eq!(said.len(), is.len());
    assert_eq!(said, is);
    let flags = "SELECT DISTINCT x.key FROM (SELECT o.id AS key, o.budget FROM shadow_owner o WHERE o.kind = 'vk' \
                 UNION ALL SELECT p.key, o.budget FROM shadow_owner o JOIN shadow_parent p ON p.config = o.id WHERE o.kind = 'pc') x \
                 JOIN shadow_flag f ON f.budget = x.budget AND f.flag ORDER BY 1";
    let aligned = "SELECT id FROM governance_virtual_keys WHERE calendar_aligned ORDER BY 1";
    assert_eq!(database.column(flags).await, database.column(aligned).await);
}

async fn nothing_is_left(database: &TestDatabase) {
    let left = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'tollgate_note%' \
                UNION ALL SELECT proname FROM pg_proc WHERE proname = 'tollgate_note' \
                UNION ALL SELECT relname FROM pg_class WHERE relname = 'tollgate_touched'";
    assert_eq!(database.column(left).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_old_code_changes_while_contract_runs_is_kept_and_it_hardly_waits() {
    let keys = 6_000 * scale();
    let database = behind_the_backfill(keys).await;
    let tool = tollgate().on(&database.url);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 1..=6 {
        let connection = database.another().await;
        writers.push(tokio::spawn(writer(connection, number, keys, stop.clone())));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (code, up) = tokio::task::spawn_blocking(move || tool.json(&["migrate", "up"]))
        .await
        .unwrap();
    stop.store(true, Ordering::SeqCst);
    let mut waits = Vec::new();
    for writer in writers {
        waits.extend(writer.await.unwrap());
    }
    assert_eq!(code, 0, "{up:#}");
    expect_what_the_shadow_says(&database).await;
    nothing_is_left(&database).await;
    tollgate().on(&database.url).succeed(&["verify"]);
    waits.sort();
    let contract = &up["tracks"][0]["applied"][0];
    crate::say(&format!(
        "{keys} keys, 6 writers: {} writes, p99 {:?}, max {:?}; the longest lock {} ms",
        waits.len(),
        waits[(waits.len() - 1) * 99 / 100],
        waits.last().unwrap(),
        contract["longest_lock_ms"]
    ));
    assert!(waits.len() > 100, "the writers wrote");
    assert!(
        *waits.last().unwrap() < Duration::from_secs(2),
        "nobody stood still"
    );
}

/// What a run that was killed has left of the capture.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// All of it, as it was made.
    Everything,
    /// Somebody has dropped the list.
    TriggersWithoutTheList,
    /// Somebody has dropped the triggers.
    TheListAlone,
    /// And the list as well.
    TheFunctionAlone,
    /// Somebody has made the list again.
    AnotherList,
    /// A trigger does not fire.
    ATriggerThatIsOff,
}

/// Kills contract when the capture is in force and the lock is not: somebody who reads keeps it waiting for that.
async fn killed(database: &TestDatabase) {
    let reader = database
        .somebody("psql", "LOCK TABLE governance_budgets IN ACCESS SHARE MODE")
        .await;
    let mut contract = tollgate()
        .on(&database.url)
        .command(&["migrate", "up"])
        .spawn()
        .unwrap();
    let waits = "pg_class, pg_locks WHERE relname = 'tollgate_touched' AND NOT granted AND locktype = 'relation' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let begun = Instant::now();
    while database.count(waits).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    contract.kill().unwrap();
    contract.wait().unwrap();
    reader.execute_unprepared("ROLLBACK").await.unwrap();
    reader.close().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn leftovers_of_a_killed_contract_stop_neither_the_gateway_nor_the_next_run(
    #[values(
        Left::Everything,
        Left::TriggersWithoutTheList,
        Left::TheListAlone,
        Left::TheFunctionAlone,
        Left::AnotherList,
        Left::ATriggerThatIsOff
    )]
    left: Left,
    #[values(true, false)] goes_on: bool,
) {
    let keys = 200;
    let database = behind_the_backfill(keys).await;
    killed(&database).await;
    let triggers = "DROP TRIGGER tollgate_note_moved ON governance_virtual_keys; DROP TRIGGER tollgate_note_came ON governance_virtual_keys; \
         DROP TRIGGER tollgate_note_emptied ON governance_virtual_keys; DROP TRIGGER tollgate_note_moved ON governance_virtual_key_provider_configs; \
         DROP TRIGGER tollgate_note_came ON governance_virtual_key_provider_configs; \
         DROP TRIGGER tollgate_note_emptied ON governance_virtual_key_provider_configs; DROP TRIGGER tollgate_note_moved ON governance_budgets; \
         DROP TRIGGER tollgate_note_came ON governance_budgets; DROP TRIGGER tollgate_note_emptied ON governance_budgets;";
    match left {
        Left::Everything => {}
        Left::TriggersWithoutTheList => database.execute("DROP TABLE tollgate_touched").await,
        Left::TheListAlone => {
            database
                .execute(&format!("{triggers} DROP FUNCTION tollgate_note()"))
                .await;
        }
        Left::TheFunctionAlone => {
            database
                .execute(&format!("{triggers} DROP TABLE tollgate_touched"))
                .await;
        }
        Left::AnotherList => {
            database
                .execute("CREATE TABLE copy_of AS TABLE tollgate_touched; DROP TABLE tollgate_touched; ALTER TABLE copy_of RENAME TO tollgate_touched")
                .await;
        }
        Left::ATriggerThatIsOff => {
            database
                .execute("ALTER TABLE governance_budgets DISABLE TRIGGER tollgate_note_moved")
                .await;
        }
    }
    // The gateway writes as it always has.
    for number in 0..240u32 {
        let turn = (number % 8) << 27 | number;
        database.execute(&change(turn, keys)).await;
    }
    if goes_on {
        tollgate().on(&database.url).succeed(&["migrate", "up"]);
        expect_what_the_shadow_says(&database).await;
        nothing_is_left(&database).await;
        tollgate().on(&database.url).succeed(&["verify"]);
        return;
    }
    // Its own next boot drops its own columns, and it goes on writing.
    database
        .execute(
            "ALTER TABLE governance_virtual_keys DROP COLUMN budget_id; \
             ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id; \
             ALTER TABLE governance_budgets DROP COLUMN calendar_aligned; \
             UPDATE governance_virtual_keys SET description = 'written since' WHERE id = 'vk-0000001'; \
             UPDATE governance_budgets SET current_usage = current_usage + 1 WHERE id = 'spare-vk-0000001'; \
             DELETE FROM governance_budgets WHERE id = 'spare-vk-0000002'",
        )
        .await;
    tollgate().on(&database.url).succeed(&["migrate", "up"]);
    nothing_is_left(&database).await;
}

#[tokio::test]
async fn a_contract_that_nobody_disturbs_walks_once() {
    let database = behind_the_backfill(200).await;
    let up = tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "-v"]);
    let walks = up
        .stderr
        .matches("owners that old code has set, moved or cleared since the backfill are noted")
        .count();
    assert_eq!(walks, 1, "{up:#?}");
    nothing_is_left(&database).await;
}

#[tokio::test]
async fn a_contract_that_was_killed_goes_back_without_leaving_its_triggers() {
    let database = behind_the_backfill(200).await;
    killed(&database).await;
    tollgate().on(&database.url).succeed(&["migrate", "down"]);
    nothing_is_left(&database).await;
    let counted: BTreeMap<&str, u64> = [(
        "referred",
        database
            .count("governance_virtual_keys WHERE budget_id <> ''")
            .await,
    )]
    .into();
    assert!(counted["referred"] > 0);
    tollgate().on(&database.url).succeed(&["migrate", "up"]);
    expect_what_the_shadow_says(&database).await;
    nothing_is_left(&database).await;
}
