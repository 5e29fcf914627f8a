//! `up` beside a gateway that goes on working.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::plan::Unit;
use tollgate_migration::{Context, Track};
use tollgate_service::history::History;
use tollgate_tests::{Backend, TestDatabase};

use crate::{scale, tollgate};

/// One writer of a busy gateway: usage all the time, now and then a new key or a moved budget.
async fn gateway(
    connection: tollgate_service::Connection,
    writer: u32,
    keys: u32,
    stop: Arc<AtomicBool>,
) -> (Vec<Duration>, Vec<String>) {
    let mut waits = Vec::new();
    let mut errors = Vec::new();
    let mut turn = writer.wrapping_mul(2_654_435_761);
    while !stop.load(Ordering::SeqCst) {
        turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = turn % keys + 1;
        let sql = match turn >> 28 {
            0 => format!(
                "WITH made AS (INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, created_at, updated_at) \
                 VALUES ('new-{writer}-{turn}', 10, '1d', 1, now(), now()) ON CONFLICT DO NOTHING RETURNING id) \
                 INSERT INTO governance_virtual_keys (id, name, value, budget_id, created_at, updated_at) \
                 SELECT 'vk-new-{writer}-{turn}', 'New {writer} {turn}', 'sk-bf-new-{writer}-{turn}', id, now(), now() FROM made ON CONFLICT DO NOTHING"
            ),
            1 => format!(
                "UPDATE governance_virtual_keys SET budget_id = NULL, updated_at = now() WHERE id = 'vk-{key:07}'"
            ),
            _ => format!(
                "UPDATE governance_budgets SET current_usage = current_usage + 0.01, updated_at = now() WHERE id = 'budget-vk-{key:07}'"
            ),
        };
        let begun = Instant::now();
        if let Err(error) = connection.execute_unprepared(&sql).await {
            errors.push(error.to_string());
        }
        waits.push(begun.elapsed());
    }
    (waits, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_meet_no_error_while_expand_and_backfill_run() {
    // 300,000 keys at scale 20.
    let keys = 15_000 * scale();
    let database = TestDatabase::new(Backend::Postgres).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        &keys.to_string(),
        "-q",
    ]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 1..=8 {
        let connection = database.another().await;
        writers.push(tokio::spawn(gateway(
            connection,
            writer,
            keys,
            stop.clone(),
        )));
    }
    let begun = Instant::now();
    let command = tollgate.clone();
    let (code, up) = tokio::task::spawn_blocking(move || {
        command.json(&["migrate", "up", "--adopt", "--phase", "backfill"])
    })
    .await
    .unwrap();
    let took = begun.elapsed();
    stop.store(true, Ordering::SeqCst);
    let mut waits = Vec::new();
    let mut errors = Vec::new();
    for writer in writers {
        let (more, failed) = writer.await.unwrap();
        waits.extend(more);
        errors.extend(failed);
    }
    assert_eq!(code, 0, "{up:#}");
    assert_eq!(errors, [] as [String; 0], "no error on the gateway's side");
    waits.sort();
    let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
    let left: u64 = up["tracks"][0]["applied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|applied| applied["left"].as_u64().unwrap())
        .sum();
    crate::say(&format!(
        "{keys} keys, 8 writers, up {took:?}: {} writes, wait p50 {:?}, p99 {:?}, max {:?}; {left} rows left for contract",
        waits.len(),
        at(500),
        at(990),
        waits.last().unwrap()
    ));
    assert!(waits.len() > 100, "the writers wrote");
    assert!(at(990) < Duration::from_millis(500), "p99 {:?}", at(990));
    // Contract ends exactly as the legacy columns say.
    let said = "SELECT budget_id || ' ' || id FROM governance_virtual_keys WHERE budget_id <> '' \
         UNION ALL SELECT budget_id || ' ' || id FROM governance_virtual_key_provider_configs WHERE budget_id <> '' ORDER BY 1";
    let expected = database.column(said).await;
    tollgate.succeed(&["migrate", "up"]);
    let owned = "SELECT id || ' ' || COALESCE(virtual_key_id, CAST(provider_config_id AS text)) FROM governance_budgets \
         WHERE virtual_key_id IS NOT NULL OR provider_config_id IS NOT NULL ORDER BY 1";
    assert_eq!(database.column(owned).await, expected);
}

/// The plan of every batch: the referring table by a bounded range, everything else by a key.
#[tokio::test]
async fn every_batch_reaches_the_other_tables_by_their_keys() {
    // A million keys at scale 20.
    let keys = match scale() {
        1 => 10_000,
        scale => 50_000 * scale,
    };
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let database = TestDatabase::new(backend).await;
        tollgate().on(&database.url).succeed(&[
            "seed",
            "--profile",
            "bifrost-legacy",
            "--virtual-keys",
            &keys.to_string(),
            "-q",
        ]);
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--adopt", "--phase", "expand"]);
        let mut context = Context::read(&database.connection).await.unwrap();
        let track = Track::GOVERNANCE;
        context.history = History::read(&database.connection, database.dialect(), track)
            .await
            .unwrap()
            .created();
        let backfill = Track::GOVERNANCE.find("multi_budget_backfill").unwrap();
        let (plan, _) = backfill.plan_up(&context);
        let passes: Vec<_> = plan
            .units
            .iter()
            .filter_map(|unit| match unit {
                Unit::Backfill(pass) => Some(pass),
                _ => None,
            })
            .collect();
        assert_eq!(passes.len(), 4);
        for pass in passes {
            let (explain, range) = match backend {
                Backend::Postgres => (
                    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off",
                    "r.ctid >= '(10,0)'::tid AND r.ctid < '(42,0)'::tid",
                ),
                Backend::Sqlite => ("SELECT 1", "r.rowid >= 1000 AND r.rowid < 2000"),
            };
            database.execute(explain).await;
            let (word, column) = match backend {
                Backend::Postgres => ("EXPLAIN", 0),
                Backend::Sqlite => ("EXPLAIN QUERY PLAN", 3),
            };
            let lines: Vec<String> = database
                .connection
                .query_all_raw(Statement::from_string(
                    database.dialect().backend(),
                    format!("{word} {}", pass.batch(range)),
                ))
                .await
                .unwrap()
                .iter()
                .map(|row| row.try_get_by_index::<String>(column).unwrap())
                .collect();
            let text = lines.join("\n");
            match backend {
                Backend::Postgres => {
                    assert!(text.contains("Tid Range Scan"), "{}\n{text}", pass.name);
                    assert!(!text.contains("Seq Scan"), "{}\n{text}", pass.name);
                    assert!(!text.contains("Hash Join"), "{}\n{text}", pass.name);
                }
                Backend::Sqlite => {
                    assert!(
                        text.contains("SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
                        "{}\n{text}",
                        pass.name
                    );
                    assert!(!text.contains("SCAN"), "{}\n{text}", pass.name);
                }
            }
        }
    }
}
