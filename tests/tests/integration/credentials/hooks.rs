//! A gateway's own hooks, in its transaction and beside others.

use super::*;

#[rstest]
#[tokio::test]
async fn a_clients_change_takes_as_many_statements_for_a_thousand_keys_as_for_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut counts = Vec::new();
    for keys in [1, 1000] {
        let database = empty(backend).await;
        let mut rows = Rows::default();
        for number in 0..keys {
            let key = format!("vk-{number:04}");
            rows.key(&key);
            for kind in [0, 1] {
                rows.credential(kind, &format!("{key}-c"), &key, "c", "vk", "active");
                rows.flow(kind, &format!("{key}-c"), &key, "c", "vk", "pending");
            }
        }
        rows.insert(&database).await;
        let mut connection = sea_orm::Database::connect(&database.url).await.unwrap();
        let issued = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&issued);
        connection.set_metric_callback(move |info| {
            let sql = &info.statement.sql;
            if sql.contains("oauth_user_") || sql.contains("mcp_per_user_") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let changes = after_mcp_client_change(&connection, "c", Utc::now())
            .await
            .unwrap();
        assert_eq!(
            changes.iter().map(|change| change.rows).sum::<u64>(),
            4 * keys
        );
        counts.push(issued.load(Ordering::SeqCst));
    }
    assert_eq!(counts[0], counts[1]);
    assert!((4..=14).contains(&counts[0]), "{counts:?}");
}

#[rstest]
#[tokio::test]
async fn a_hook_is_part_of_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    tollgate()
        .on(&database.url)
        .succeed(&["reconcile", "credentials"]);
    let before = state(&database).await;
    let connection = sea_orm::Database::connect(&database.url).await.unwrap();
    let revoke = "DELETE FROM governance_virtual_key_mcp_configs WHERE virtual_key_id = 'vk-alice'";

    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared(revoke).await.unwrap();
    let changes = after_virtual_key_change(&transaction, "vk-alice", Utc::now())
        .await
        .unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].action, "orphan");
    assert_eq!(changes[0].sample_ids, ["tok-alice"]);
    transaction.rollback().await.unwrap();
    assert_eq!(state(&database).await, before, "rolled back with it");

    // A hook that fails leaves the caller's transaction as it was: the caller logs it, and the sweep repairs.
    let guard = match backend {
        Backend::Sqlite => {
            "CREATE TRIGGER guard BEFORE UPDATE ON oauth_user_tokens BEGIN SELECT RAISE(ABORT, 'not now'); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$; \
             CREATE TRIGGER guard BEFORE UPDATE ON oauth_user_tokens FOR EACH ROW EXECUTE FUNCTION guard()"
        }
    };
    database.execute(guard).await;
    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared(revoke).await.unwrap();
    let failed = after_virtual_key_change(&transaction, "vk-alice", Utc::now()).await;
    assert!(failed.unwrap_err().to_string().contains("not now"));
    transaction.commit().await.unwrap();
    assert_eq!(
        database
            .count("governance_virtual_key_mcp_configs WHERE virtual_key_id = 'vk-alice'")
            .await,
        0,
        "the caller's own write is there"
    );
    match backend {
        Backend::Sqlite => database.execute("DROP TRIGGER guard").await,
        Backend::Postgres => database.execute("DROP FUNCTION guard CASCADE").await,
    }
    let (_, swept) = tollgate()
        .on(&database.url)
        .json(&["reconcile", "credentials"]);
    assert_eq!(
        swept["changes"][0]["sample_ids"],
        serde_json::json!(["tok-alice"])
    );
    // Nobody and a stranger are nothing to do.
    for id in ["", "nobody"] {
        assert!(
            after_virtual_key_change(&connection, id, Utc::now())
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            after_mcp_client_change(&connection, id, Utc::now())
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_hook_leaves_the_settings_of_the_transaction_around_it() {
    let database = empty(Backend::Postgres).await;
    let mut rows = Rows::default();
    rows.key("vk-1");
    rows.credential(0, "token", "vk-1", "c", "vk", "active");
    rows.insert(&database).await;
    let connection = sea_orm::Database::connect(&database.url).await.unwrap();
    let outer = sea_orm::TransactionTrait::begin(&connection).await.unwrap();
    outer
        .execute_unprepared("SET LOCAL lock_timeout = '7s'")
        .await
        .unwrap();
    let changes = after_virtual_key_change(&outer, "vk-1", Utc::now())
        .await
        .unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    let set = outer
        .query_one_raw(sea_orm::Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT current_setting('lock_timeout')",
        ))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(set.try_get_by_index::<String>(0).unwrap(), "7s");
    outer.rollback().await.unwrap();
    assert_eq!(
        database.one("SELECT status FROM oauth_user_tokens").await,
        "active"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reconciles_in_opposite_directions_never_deadlock() {
    const KEYS: u32 = 60;
    let database = empty(Backend::Postgres).await;
    let mut rows = Rows::default();
    for number in 0..KEYS {
        let key = format!("vk-{number:03}");
        rows.key(&key);
        for kind in [0, 1] {
            for client in ["c", "d", "e"] {
                rows.credential(
                    kind,
                    &format!("{key}-{client}"),
                    &key,
                    client,
                    "vk",
                    "active",
                );
            }
        }
    }
    rows.insert(&database).await;
    let url = database.url.clone();
    let over = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let task = |what: u32| {
        let (url, over, rounds) = (url.clone(), Arc::clone(&over), Arc::clone(&rounds));
        tokio::spawn(async move {
            let connection = sea_orm::Database::connect(&url).await.unwrap();
            let mut dice = Dice(u64::from(what));
            let mut round = 0u32;
            while !over.load(Ordering::Relaxed) {
                round += 1;
                // One walks the keys upwards, another downwards; a third takes whole clients.
                let upwards = format!("vk-{:03}", round % KEYS);
                let downwards = format!("vk-{:03}", KEYS - 1 - round % KEYS);
                let client = dice.roll(&["c", "d", "e"]);
                match what {
                    0 => drop(
                        after_virtual_key_change(&connection, &upwards, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    1 => drop(
                        after_virtual_key_change(&connection, &downwards, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    2 | 3 => drop(
                        after_mcp_client_change(&connection, client, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    _ => {
                        // Somebody edits grants: half of all keys gain or lose a client.
                        let number = dice.roll(&["1", "2", "3"]);
                        let odd = dice.roll(&["0", "1"]);
                        let half = format!("CAST(substr(id, 4) AS integer) % 2 = {odd}");
                        let sql = if dice.roll(&["give", "take"]) == "give" {
                            format!(
                                "INSERT INTO governance_virtual_key_mcp_configs (virtual_key_id, mcp_client_id, tools_to_execute) \
                                 SELECT id, {number}, '[]' FROM governance_virtual_keys WHERE {half} ORDER BY id ON CONFLICT DO NOTHING"
                            )
                        } else {
                            format!(
                                "DELETE FROM governance_virtual_key_mcp_configs WHERE mcp_client_id = {number} \
                                 AND virtual_key_id IN (SELECT id FROM governance_virtual_keys WHERE {half})"
                            )
                        };
                        connection.execute_unprepared(&sql).await.unwrap();
                        // And a token is asked for again: one more pending flow.
                        connection
                            .execute_unprepared(&format!(
                                "INSERT INTO mcp_per_user_header_flows (id, virtual_key_id, mcp_client_id, flow_mode, status, expires_at, created_at, updated_at) \
                                 VALUES ('flow-{round}', '{upwards}', '{client}', 'vk', 'pending', '2027-01-01', now(), now())"
                            ))
                            .await
                            .unwrap();
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let tasks: Vec<_> = (0..5).map(task).collect();
    tokio::time::sleep(Duration::from_secs(10) * crate::scale()).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let tool = tollgate().on(&url);
    tool.succeed(&["reconcile", "credentials"]);
    let last = tool.run(&["reconcile", "credentials", "--check"]);
    assert_eq!(last.code, 0, "{last:#?}");
    let deadlocks = database
        .one("SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()")
        .await;
    crate::say(&format!(
        "{} hooks and edits; deadlocks that the server saw: {deadlocks}",
        rounds.load(Ordering::Relaxed)
    ));
    assert!(rounds.load(Ordering::Relaxed) > 100);
    assert_eq!(deadlocks, "0", "rows are locked in one order");
}
