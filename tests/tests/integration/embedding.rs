//! What a program that embeds Tollgate calls inside its own transaction, and the clock that it brings.

#![expect(
    clippy::disallowed_methods,
    reason = "a gateway connects and begins by itself, as these tests do"
)]

use chrono::{DateTime, Utc};
use rstest::rstest;
use sea_orm::{DatabaseConnection, TransactionTrait};
use tollgate_service::governance::budget::{Asked, Budgets, Cost};
use tollgate_service::governance::mcp_client;
use tollgate_service::governance::virtual_key::{self, Deletion};
use tollgate_service::runner::{Session, up};
use tollgate_service::{Clock, Error, Location, Report, ShutdownSignal, Silent, Track};
use tollgate_tests::fixture::{Calendar, Shape, SilentKeys, legacy, with_credentials};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

async fn pool(database: &TestDatabase) -> DatabaseConnection {
    sea_orm::Database::connect(&database.url).await.unwrap()
}

async fn with_grants(backend: Backend) -> TestDatabase {
    let database = with_credentials(backend, SilentKeys::There).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    database
}

fn changes(report: &Report) -> serde_json::Value {
    serde_json::to_value(&report.changes).unwrap()
}

/// What the command does, done in a transaction: nothing where that is rolled back, the same where it is committed.
async fn deletes_as_the_command<F>(backend: Backend, command: &[&str], delete: F)
where
    F: AsyncFn(&sea_orm::DatabaseTransaction) -> tollgate_service::Result<Report>,
{
    let (database, twin) = (with_grants(backend).await, with_grants(backend).await);
    let (code, by_command) = tollgate().on(&twin.url).json(command);
    assert_eq!(code, 0, "{by_command:#}");
    let pool = pool(&database).await;
    let before = database.everything(|_, _| true).await;

    let transaction = pool.begin().await.unwrap();
    let undone = delete(&transaction).await.unwrap();
    assert_eq!(changes(&undone), by_command["changes"]);
    transaction.rollback().await.unwrap();
    assert_eq!(database.everything(|_, _| true).await, before);

    let transaction = pool.begin().await.unwrap();
    let done = delete(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(changes(&done), by_command["changes"]);
    let without_runs = |table: &str, _: &str| table != "tollgate_runs";
    assert_eq!(
        database.everything(without_runs).await,
        twin.everything(without_runs).await
    );
    let again = delete(&pool.begin().await.unwrap()).await;
    assert!(matches!(again, Err(Error::NotFound { .. })), "{again:?}");
}

#[rstest]
#[tokio::test]
async fn a_virtual_key_is_deleted_in_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let target = Deletion::VirtualKey("vk-dave".to_owned());
    deletes_as_the_command(
        backend,
        &["virtual-key", "delete", "vk-dave"],
        async |transaction| virtual_key::delete_in(transaction, &target).await,
    )
    .await;
}

#[rstest]
#[tokio::test]
async fn an_mcp_client_is_deleted_in_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_grants(backend).await;
    let client = database
        .one("SELECT client_id FROM config_mcp_clients ORDER BY id LIMIT 1")
        .await;
    deletes_as_the_command(
        backend,
        &["mcp-client", "delete", &client],
        async |transaction| mcp_client::delete_in(transaction, &client).await,
    )
    .await;
}

#[rstest]
#[tokio::test]
async fn a_cost_is_recorded_in_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    database
        .execute("UPDATE governance_budgets SET current_usage = 0, last_reset = '2030-01-01 00:00:00+00:00'")
        .await;
    let now: DateTime<Utc> = "2030-01-01T00:00:01Z".parse().unwrap();
    let pool = pool(&database).await;
    let budgets = Budgets::load(&pool, database.dialect()).await.unwrap();
    let cost: Cost = "1.5".parse().unwrap();
    let asked = Asked::of("vk-alice", "openai");
    let record = async |transaction: &sea_orm::DatabaseTransaction, request| {
        budgets
            .record_in(transaction, &asked, &cost, request, now)
            .await
    };
    let spent = async || {
        database
            .count("governance_budgets WHERE current_usage = 1.5")
            .await
    };

    let transaction = pool.begin().await.unwrap();
    let undone = record(&transaction, None).await.unwrap();
    assert!(undone.recorded && !undone.budgets.is_empty());
    transaction.rollback().await.unwrap();
    assert_eq!(spent().await, 0, "rolled back with it");

    // Nothing is made in somebody else's transaction.
    let transaction = pool.begin().await.unwrap();
    let unmade = record(&transaction, Some("r-1")).await;
    assert!(
        matches!(unmade, Err(Error::MissingSchema { .. })),
        "{unmade:?}"
    );
    transaction.rollback().await.unwrap();
    assert!(!database.has_table("tollgate_requests").await);
    tollgate().on(&database.url).succeed(&[
        "budget",
        "record",
        "--virtual-key",
        "vk-bob",
        "--provider",
        "openai",
        "--cost",
        "0",
        "--request-id",
        "r-0",
    ]);

    for recorded in [true, false] {
        let transaction = pool.begin().await.unwrap();
        let once = record(&transaction, Some("r-1")).await.unwrap();
        assert_eq!(once.recorded, recorded);
        transaction.commit().await.unwrap();
        assert_eq!(
            spent().await,
            u64::try_from(undone.budgets.len()).unwrap(),
            "once"
        );
    }
}

#[rstest]
#[tokio::test]
async fn what_is_recorded_goes_by_the_sessions_clock(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let now: DateTime<Utc> = "2031-02-03T04:05:06Z".parse().unwrap();
    let mut session =
        Session::new(Location::parse(&database.url).unwrap()).on(&[Track::GOVERNANCE]);
    session.clock = Clock::at(now);
    let mut options = up::Options::default();
    options.adopt = true;
    let outcome = up::up(&session, &options, &Silent, &ShutdownSignal::default()).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(
        database
            .count(&format!(
                "tollgate_governance_migrations WHERE applied_at <> {}",
                now.timestamp()
            ))
            .await,
        0
    );
    let (_, history) = tollgate().on(&database.url).json(&["history"]);
    let run = &history["result"]["runs"][0];
    for time in ["started_at", "finished_at"] {
        assert!(
            run[time]
                .as_str()
                .unwrap()
                .starts_with("2031-02-03 04:05:06"),
            "{run:#}"
        );
    }
}
