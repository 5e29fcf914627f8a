//! The tracks as sea-orm's own tools run them: what `run_cli` calls, on the pool that it is given.

use rstest::rstest;
use sea_orm::{Database, DatabaseConnection};
use sea_orm_migration::migrator::{MigrationStatus, MigratorTraitSelf};
use tollgate_migration::Track;
use tollgate_service::migrator::{Billing, Governance, Migrator, OfTrack, Providers};
use tollgate_tests::fixture::{Calendar, Shape, legacy, populated};
use tollgate_tests::{Backend, TestDatabase};

use crate::fault_injection::state;
use crate::tollgate;

/// A pool as `run_cli` makes one.
#[expect(
    clippy::disallowed_methods,
    reason = "plays a program that embeds the migrators"
)]
async fn pool(database: &TestDatabase) -> DatabaseConnection {
    Database::connect(&database.url).await.unwrap()
}

async fn pending<T: OfTrack>(pool: &DatabaseConnection) -> usize {
    Migrator::<T>::new()
        .get_migration_with_status(pool)
        .await
        .unwrap()
        .iter()
        .filter(|migration| migration.status() == MigrationStatus::Pending)
        .count()
}

async fn ends_as_the_command_does<T: OfTrack>(backend: Backend, fresh: bool) {
    let track = T::TRACK;
    let make = async || {
        if fresh {
            TestDatabase::new(backend).await
        } else {
            populated(backend, track).await
        }
    };
    let (embedded, by_hand) = (make().await, make().await);
    let pool = pool(&embedded).await;
    let before = state(&embedded).await;
    let all = track.migrations().len();
    assert_eq!(pending::<T>(&pool).await, all);
    assert_eq!(state(&embedded).await, before, "looking writes nothing");
    Migrator::<T>::new().up(&pool, Some(1)).await.unwrap();
    assert!(pending::<T>(&pool).await < all);
    Migrator::<T>::new().up(&pool, None).await.unwrap();
    assert_eq!(pending::<T>(&pool).await, 0);
    tollgate()
        .on(&by_hand.url)
        .succeed(&["--track", track.name(), "migrate", "up", "--adopt"]);
    let (ours, theirs) = (state(&embedded).await, state(&by_hand).await);
    assert_eq!(ours.1, theirs.1, "{track}: the schema");
    let without_times = |rows: &[(String, Vec<String>)]| -> Vec<(String, usize)> {
        rows.iter()
            .map(|(table, rows)| (table.clone(), rows.len()))
            .collect()
    };
    assert_eq!(without_times(&ours.0), without_times(&theirs.0), "{track}");
    let history = |state: &crate::fault_injection::State| {
        state
            .0
            .iter()
            .find(|(table, _)| *table == track.history_table())
            .cloned()
    };
    assert_eq!(
        history(&ours),
        history(&theirs),
        "{track}: with what was created"
    );
    tollgate().on(&embedded.url).succeed(&["verify"]);
    Migrator::<T>::new().down(&pool, Some(1)).await.unwrap();
    assert_eq!(pending::<T>(&pool).await, 1);
    Migrator::<T>::new().up(&pool, None).await.unwrap();
    assert_eq!(state(&embedded).await.1, theirs.1);
}

#[rstest]
#[tokio::test]
async fn each_track_goes_up_and_down_as_by_the_command_line(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] fresh: bool,
) {
    ends_as_the_command_does::<Governance>(backend, fresh).await;
    ends_as_the_command_does::<Billing>(backend, fresh).await;
    if fresh {
        ends_as_the_command_does::<Providers>(backend, fresh).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_hazard_stops_it_and_says_what_to_do(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'")
        .await;
    let before = state(&database).await;
    let pool = pool(&database).await;
    let error = Migrator::<Governance>::new()
        .up(&pool, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("G001"), "{error}");
    assert!(error.contains("--shared-budgets clone"), "{error}");
    assert_eq!(state(&database).await, before);
}

#[rstest]
#[tokio::test]
async fn a_transaction_and_what_would_drop_the_gateways_tables_are_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    use sea_orm::TransactionTrait;
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    let before = state(&database).await;
    let pool = pool(&database).await;
    let migrator = Migrator::<Governance>::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "plays a program that embeds the migrators"
    )]
    let transaction = pool.begin().await.unwrap();
    let error = migrator.up(&transaction, None).await.unwrap_err();
    assert!(error.to_string().contains("transaction"), "{error}");
    transaction.rollback().await.unwrap();
    for error in [
        migrator.fresh(&pool).await.unwrap_err(),
        migrator.refresh(&pool).await.unwrap_err(),
        migrator.reset(&pool).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("nothing was changed"), "{error}");
    }
    assert_eq!(state(&database).await, before);
}

#[tokio::test]
async fn it_works_in_the_schema_of_its_pool() {
    let database = TestDatabase::new(Backend::Postgres).await;
    database.execute("CREATE SCHEMA tenant").await;
    let mut options = sea_orm::ConnectOptions::new(&database.url);
    options.set_schema_search_path("tenant");
    #[expect(
        clippy::disallowed_methods,
        reason = "plays a program that embeds the migrators"
    )]
    let pool = Database::connect(options).await.unwrap();
    Migrator::<Billing>::new().up(&pool, None).await.unwrap();
    assert_eq!(pending::<Billing>(&pool).await, 0);
    let there = database
        .one(
            "SELECT string_agg(DISTINCT schemaname, ',') FROM pg_tables WHERE tablename = 'workspaces'",
        )
        .await;
    assert_eq!(there, "tenant");
    assert!(
        !database
            .catalog()
            .await
            .has_table(&Track::BILLING.history_table())
    );
}

#[tokio::test]
async fn a_database_in_memory_has_no_second_connection() {
    #[expect(
        clippy::disallowed_methods,
        reason = "plays a program that embeds the migrators"
    )]
    let pool = Database::connect("sqlite::memory:").await.unwrap();
    let error = Migrator::<Billing>::new()
        .up(&pool, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("in memory"), "{error}");
}

/// sea-orm's own command line, in a process of its own.
fn run_cli(database: &TestDatabase, command: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_migrator-under-test"))
        .args(command)
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[rstest]
#[tokio::test]
async fn sea_orms_own_command_line_migrates_undoes_and_refuses_what_would_drop_tables(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Required, Calendar::Flag).await;
    let (done, said) = run_cli(&database, &["status"]);
    assert!(done && said.contains("Pending"), "{said}");
    let (done, said) = run_cli(&database, &["up"]);
    assert!(done, "{said}");
    tollgate().on(&database.url).succeed(&["verify"]);
    let (done, said) = run_cli(&database, &["status"]);
    assert!(done && !said.contains("Pending"), "{said}");
    let migrated = state(&database).await;
    for dropping in ["fresh", "refresh", "reset"] {
        let (done, said) = run_cli(&database, &[dropping]);
        assert!(!done, "{dropping}: {said}");
        assert_eq!(state(&database).await, migrated, "{dropping}");
    }
    let (done, said) = run_cli(&database, &["down"]);
    assert!(done, "{said}");
    let catalog = database.catalog().await;
    assert!(catalog.has_column("governance_virtual_keys", "budget_id"));
}
