//! Several processes at once, and the lock between them.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, Run};

use crate::tollgate;

#[rstest]
#[tokio::test]
async fn three_replicas_start_at_once_and_one_does_the_work(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    let children: Vec<_> = (0..3)
        .map(|_| {
            tollgate
                .command(&["migrate", "up", "--adopt", "--output", "json"])
                .spawn()
                .unwrap()
        })
        .collect();
    let runs: Vec<Run> = children
        .into_iter()
        .map(|child| Run::from(child.wait_with_output().unwrap()))
        .collect();
    let applied: Vec<usize> = runs
        .iter()
        .map(|run| {
            assert_eq!(run.code, 0, "{run:#?}");
            run.json()["tracks"][0]["applied"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(applied.iter().sum::<usize>(), 6, "{applied:?}");
    assert_eq!(
        applied.iter().max(),
        Some(&6),
        "one did it all: {applied:?}"
    );
    assert_eq!(
        database
            .count("governance_budgets WHERE virtual_key_id IS NOT NULL")
            .await,
        3
    );
}

#[tokio::test]
async fn a_held_lock_is_named_on_sqlite() {
    let database = legacy(Backend::Sqlite, Shape::Required, Calendar::Flag).await;
    let path = database.folder().unwrap().join("gateway.db.lock");
    let file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &file, b"somebody@host (pid 77)").unwrap();
    file.lock().unwrap();
    let run = tollgate()
        .on(&database.url)
        .run(&["migrate", "up", "--adopt", "--wait-lock", "0"]);
    assert_eq!(run.code, 5, "{run:#?}");
    assert!(run.stderr.contains("somebody@host (pid 77)"), "{run:#?}");
    drop(file);
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt", "--wait-lock", "0"]);
}

#[tokio::test]
async fn a_held_lock_is_named_on_postgres() {
    use sea_orm::ConnectionTrait;
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    // A run that never ends: it waits for a table that somebody keeps locked.
    let holder = database.another().await;
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE governance_budgets IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut first = tollgate
        .command(&["migrate", "up", "--adopt"])
        .spawn()
        .unwrap();
    let locked = "pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let begun = std::time::Instant::now();
    while database.count(locked).await == 0 {
        assert!(
            begun.elapsed().as_secs() < 30,
            "the first run takes no lock"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let second = tollgate.run(&["migrate", "up", "--adopt", "--wait-lock", "0"]);
    assert_eq!(second.code, 5, "{second:#?}");
    let pid = format!("tollgate (pid {})", first.id());
    assert!(second.stderr.contains(&pid), "{pid} in {second:#?}");
    held.rollback().await.unwrap();
    assert!(first.wait().unwrap().success());
}
