//! `--shared-budgets clone`: every further owner gets a copy, and nobody's allowance grows.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// Who shares what, in the full fixture: `b-alice` (limit 100.5, used 12.345678) goes to two keys and two configs, and
/// the team's budget to one key.
async fn share(database: &TestDatabase) {
    for sql in [
        "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'",
        "UPDATE governance_virtual_key_provider_configs SET budget_id = 'b-alice' WHERE id = 1",
        "INSERT INTO governance_virtual_key_provider_configs (id, virtual_key_id, provider, budget_id) VALUES (10, 'vk-bob', 'openai', 'b-alice')",
        "UPDATE governance_virtual_keys SET budget_id = 'b-team' WHERE id = 'vk-dave'",
    ] {
        database.execute(sql).await;
    }
}

/// Each owner's budget by value: owner, limit, duration, window, usage.
async fn owned(database: &TestDatabase) -> Vec<String> {
    let text = |column: &str| match database.backend {
        Backend::Sqlite => format!("COALESCE(quote({column}), 'NULL')"),
        Backend::Postgres => format!("COALESCE(CAST({column} AS text), 'NULL')"),
    };
    database
        .column(&format!(
            "SELECT COALESCE(virtual_key_id, CAST(provider_config_id AS text)) || ' ' || {} || ' ' || reset_duration || ' ' || {} || ' ' || {} \
             FROM governance_budgets WHERE virtual_key_id IS NOT NULL OR provider_config_id IS NOT NULL ORDER BY 1",
            text("max_limit"),
            text("last_reset"),
            text("current_usage"),
        ))
        .await
}

#[rstest]
#[tokio::test]
async fn each_owner_gets_a_row_of_its_own_with_the_same_window_and_usage(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    share(&database).await;
    let tollgate = tollgate().on(&database.url);
    assert_eq!(tollgate.run(&["migrate", "up", "--adopt"]).code, 4);
    let (code, up) = tollgate.json(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    assert_eq!(code, 0, "{up:#}");
    let alice = database
        .one("SELECT CAST(current_usage AS text) FROM governance_budgets WHERE id = 'b-alice'")
        .await;
    assert_eq!(alice, "12.345678");
    // vk-alice sorts first among the keys, so it keeps the original; the others have the same numbers.
    assert_eq!(
        database
            .column("SELECT virtual_key_id FROM governance_budgets WHERE id = 'b-alice'")
            .await,
        ["vk-alice"]
    );
    let rows = owned(&database).await;
    let like_alice: Vec<&String> = rows
        .iter()
        .filter(|row| row.contains("100.5") && row.contains("12.345678"))
        .collect();
    let owners: Vec<&str> = like_alice
        .iter()
        .map(|row| row.split(' ').next().unwrap())
        .collect();
    assert_eq!(owners, ["1", "10", "vk-alice", "vk-carol"]);
    let windows: std::collections::BTreeSet<&str> = like_alice
        .iter()
        .map(|row| row.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        windows.len(),
        1,
        "one limit, duration, window and usage: {windows:?}"
    );
    // The team keeps its own; the key has a copy of it.
    assert_eq!(
        database
            .column(
                "SELECT COALESCE(virtual_key_id, 'team') FROM governance_budgets WHERE max_limit = 500 ORDER BY 1"
            )
            .await,
        ["team", "vk-dave"]
    );
    assert_eq!(
        database.one("SELECT budget_id FROM governance_teams").await,
        "b-team"
    );
    assert_eq!(
        database
            .column("SELECT original || ' ' || CAST(kind AS text) || ' ' || owner FROM tollgate_clones ORDER BY 1")
            .await,
        ["b-alice 0 vk-carol", "b-alice 1 1", "b-alice 1 10", "b-team 0 vk-dave"]
    );
    // vk-dave's own former budget lost its owner with the re-pointing above, and is kept.
    assert_eq!(
        database
            .count("governance_budgets WHERE id = 'b-dave'")
            .await,
        1
    );
}

#[rstest]
#[tokio::test]
async fn the_same_budget_and_owner_always_give_the_same_id(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let database = legacy(backend, Shape::Full, Calendar::Flag).await;
        share(&database).await;
        tollgate().on(&database.url).succeed(&[
            "migrate",
            "up",
            "--adopt",
            "--shared-budgets",
            "clone",
        ]);
        ids.push(
            database
                .column("SELECT id FROM governance_budgets ORDER BY id")
                .await,
        );
    }
    assert_eq!(ids[0], ids[1]);
    // UUIDv5 of (b-alice, virtual_key, vk-carol), by another implementation.
    assert!(
        ids[0].contains(&"cd331762-42c7-5050-b996-fa405632b0f1".to_owned()),
        "{:?}",
        ids[0]
    );
}

#[rstest]
#[tokio::test]
async fn an_old_gateway_works_on_between_backfill_and_contract(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    share(&database).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--phase",
        "backfill",
    ]);
    // Every reference that the old gateway follows still finds a budget.
    assert_eq!(
        database
            .count(
                "governance_virtual_keys v WHERE v.budget_id <> '' AND NOT EXISTS \
                 (SELECT 1 FROM governance_budgets b WHERE b.id = v.budget_id)"
            )
            .await,
        0
    );
    for edit in [
        // It still has b-alice in memory for all four owners, and writes what was spent to the original.
        "UPDATE governance_budgets SET current_usage = 50.125 WHERE id = 'b-alice'",
        // The team's window rolled over, so its copy keeps what it has until its own does.
        "UPDATE governance_budgets SET current_usage = 400, last_reset = '2026-04-01 00:00:00+00:00' WHERE id = 'b-team'",
        // A sharing that is new.
        "UPDATE governance_virtual_keys SET budget_id = 'b-bob' WHERE id = 'vk-dave'",
    ] {
        database.execute(edit).await;
    }
    let refused = tollgate.run(&["migrate", "up"]);
    assert_eq!(refused.code, 4, "a new sharing refuses: {refused:#?}");
    assert!(refused.stdout.contains("G001"), "{refused:#?}");
    tollgate.succeed(&["migrate", "up", "--shared-budgets", "clone"]);
    let usage = |owner: &str| {
        format!(
            "SELECT CAST(current_usage AS text) FROM governance_budgets \
             WHERE COALESCE(virtual_key_id, CAST(provider_config_id AS text)) = '{owner}'"
        )
    };
    for owner in ["vk-alice", "vk-carol", "1", "10"] {
        assert_eq!(
            database.column(&usage(owner)).await,
            ["50.125"],
            "{owner}: no spend is reopened"
        );
    }
    for owner in ["vk-bob", "vk-dave"] {
        assert_eq!(
            database.column(&usage(owner)).await,
            ["249.99"],
            "{owner}: the new sharing was copied with its usage"
        );
    }
    assert_eq!(
        database
            .column(
                "SELECT CAST(current_usage AS text) FROM governance_budgets WHERE max_limit = 500 ORDER BY 1"
            )
            .await
            .len(),
        2,
        "the team's and the copy that vk-dave has left behind"
    );
}

#[rstest]
#[tokio::test]
async fn many_owners_of_one_budget_are_split_in_pages(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "700",
    ]);
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = (SELECT min(id) FROM governance_budgets WHERE id LIKE 'budget-vk%')")
        .await;
    let (code, up) = tollgate.json(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    assert_eq!(code, 0, "{up:#}");
    assert_eq!(
        database
            .one("SELECT CAST(count(DISTINCT virtual_key_id) AS text) FROM governance_budgets WHERE virtual_key_id IS NOT NULL")
            .await,
        "700"
    );
    assert_eq!(
        database
            .count("tollgate_clones WHERE copy IS NOT NULL")
            .await,
        699
    );
    assert_eq!(
        database
            .one("SELECT CAST(count(DISTINCT current_usage) AS text) FROM governance_budgets WHERE virtual_key_id IS NOT NULL")
            .await,
        "1"
    );
}

#[rstest]
#[tokio::test]
async fn what_a_cut_off_run_had_only_listed_goes_with_a_down(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    share(&database).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--phase",
        "backfill",
        "--shared-budgets",
        "clone",
    ]);
    let copies = database
        .count("tollgate_clones WHERE copy IS NOT NULL")
        .await;
    assert!(copies > 0, "the fixture shares a budget");
    database
        .execute("INSERT INTO tollgate_clones (original, kind, owner) VALUES ('b-alice', 0, 'vk-nobody')")
        .await;
    tollgate.succeed(&[
        "migrate",
        "down",
        "--to",
        "mcp_credentials",
        "--allow-data-loss",
    ]);
    assert_eq!(
        database.count("tollgate_clones WHERE copy IS NULL").await,
        0
    );
    assert_eq!(
        database
            .count("tollgate_clones WHERE copy IS NOT NULL")
            .await,
        copies,
        "copies stay, and what says whose they are"
    );
}

#[tokio::test]
async fn a_backup_is_written_before_anything_changes() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    let before = database.everything(|_, _| true).await;
    let backup = database.folder().unwrap().join("before.db");
    let path = backup.display().to_string();
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--backup", &path]);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&backup).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds keys");
    let copy = crate::opened(&format!("sqlite://{path}")).await;
    let rows = sea_orm::ConnectionTrait::query_all_raw(
        &copy,
        sea_orm::Statement::from_string(
            sea_orm::DbBackend::Sqlite,
            "SELECT id || budget_id FROM governance_virtual_keys WHERE budget_id IS NOT NULL",
        ),
    )
    .await
    .unwrap();
    assert_eq!(rows.len(), 3, "the copy is the database as it was");
    assert!(!before.is_empty());
    // A second run has nothing to do and writes no copy; an existing file is never overwritten.
    let again = tollgate.run(&["migrate", "up", "--backup", &path]);
    assert_eq!(again.code, 4, "{again:#?}");
    let other = database.folder().unwrap().join("again.db");
    tollgate.succeed(&["migrate", "up", "--backup", &other.display().to_string()]);
    assert!(!other.exists());
    let postgres = legacy(Backend::Postgres, Shape::Required, Calendar::None).await;
    assert_eq!(
        crate::tollgate()
            .on(&postgres.url)
            .run(&["migrate", "up", "--adopt", "--backup", &path])
            .code,
        2
    );
}

/// The required fixture with what the cases below share: A and B refer to b1 (used 10), D to nothing.
async fn small(backend: Backend) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    database
        .execute(&tollgate_tests::fixture::schema(
            backend,
            Shape::Required,
            Calendar::Flag,
        ))
        .await;
    for sql in [
        "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage) VALUES ('b1', 100, '1M', 10), ('b2', 100, '1M', 20)",
        "INSERT INTO governance_virtual_keys (id, budget_id) VALUES ('A', 'b1'), ('B', 'b1'), ('C', 'b2'), ('D', NULL)",
        "INSERT INTO governance_virtual_key_provider_configs (id, virtual_key_id, budget_id) VALUES (2, 'D', 'b1'), (10, 'D', 'b1')",
    ] {
        database.execute(sql).await;
    }
    database
}

async fn usage_of(database: &TestDatabase, owner: &str) -> Vec<String> {
    let number = match database.backend {
        Backend::Sqlite => "printf('%g', current_usage)",
        Backend::Postgres => "CAST(current_usage AS text)",
    };
    database
        .column(&format!(
            "SELECT {number} FROM governance_budgets WHERE COALESCE(virtual_key_id, CAST(provider_config_id AS text)) = '{owner}' ORDER BY 1"
        ))
        .await
}

#[rstest]
#[tokio::test]
async fn an_owner_that_comes_back_to_the_original_gets_its_copy_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = small(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--phase",
        "backfill",
    ]);
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = 'b1' WHERE id = 'B'")
        .await;
    // Old code points D at B's copy, and spends on the original.
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = (SELECT copy FROM tollgate_clones WHERE owner = 'B') WHERE id = 'D'")
        .await;
    database
        .execute("UPDATE governance_budgets SET current_usage = 60 WHERE id = 'b1'")
        .await;
    tollgate.succeed(&["migrate", "up", "--shared-budgets", "clone"]);
    for owner in ["A", "B", "D", "2", "10"] {
        assert_eq!(usage_of(&database, owner).await, ["60"], "{owner}");
    }
    // From here on each is spent on by itself; a way down and up again raises nothing.
    database
        .execute("UPDATE governance_budgets SET current_usage = 77 WHERE id = 'b1'")
        .await;
    tollgate.succeed(&["migrate", "down"]);
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(usage_of(&database, "A").await, ["77"]);
    assert_eq!(usage_of(&database, "B").await, ["60"]);
}

/// Upstream's own migration has run over the small database.
async fn upstream(backend: Backend) -> TestDatabase {
    let database = small(backend).await;
    let (flag, number) = match backend {
        Backend::Sqlite => ("numeric", "integer"),
        Backend::Postgres => ("boolean", "bigint"),
    };
    for sql in [
        format!(
            "ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned {flag} DEFAULT false"
        ),
        "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)".to_owned(),
        format!("ALTER TABLE governance_budgets ADD COLUMN provider_config_id {number}"),
        "CREATE TABLE migrations (id varchar(255) PRIMARY KEY)".to_owned(),
        "INSERT INTO migrations VALUES ('add_multi_budget_tables')".to_owned(),
    ] {
        database.execute(&sql).await;
    }
    database
}

#[rstest]
#[tokio::test]
async fn a_budget_that_upstream_gave_two_owners_is_split(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = upstream(backend).await;
    for sql in [
        "UPDATE governance_budgets SET virtual_key_id = 'A', provider_config_id = 2 WHERE id = 'b1'",
        "UPDATE governance_budgets SET virtual_key_id = 'C' WHERE id = 'b2'",
        "ALTER TABLE governance_virtual_keys DROP COLUMN budget_id",
        "ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id",
        "ALTER TABLE governance_budgets DROP COLUMN calendar_aligned",
    ] {
        database.execute(sql).await;
    }
    let tollgate = tollgate().on(&database.url);
    let (code, refused) = tollgate.json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    database
        .execute("UPDATE governance_budgets SET current_usage = current_usage + 1 WHERE id = 'b1'")
        .await;
    tollgate.succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    assert_eq!(usage_of(&database, "A").await, ["11"]);
    assert_eq!(usage_of(&database, "2").await, ["11"]);
    assert_eq!(database.count("governance_budgets").await, 3);
}

#[tokio::test]
async fn of_leftover_references_only_owners_without_a_budget_have_a_say() {
    let database = upstream(Backend::Sqlite).await;
    for sql in [
        // Upstream gave b1 to B; A and the configs were left without a limit. The new gateway has given D a budget.
        "UPDATE governance_budgets SET virtual_key_id = 'B' WHERE id = 'b1'",
        "UPDATE governance_budgets SET virtual_key_id = 'C' WHERE id = 'b2'",
        "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, virtual_key_id) VALUES ('bD', 5, '1d', 1, 'D')",
        "UPDATE governance_virtual_keys SET budget_id = 'b1' WHERE id = 'D'",
        "UPDATE governance_virtual_key_provider_configs SET budget_id = NULL",
    ] {
        database.execute(sql).await;
    }
    let tollgate = tollgate().on(&database.url);
    assert_eq!(
        tollgate.run(&["migrate", "up", "--adopt"]).code,
        4,
        "A has lost its limit"
    );
    tollgate.succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    assert_eq!(usage_of(&database, "A").await, ["10"], "a copy of its own");
    assert_eq!(usage_of(&database, "B").await, ["10"], "the original");
    assert_eq!(
        usage_of(&database, "D").await,
        ["1"],
        "no stale one beside its own"
    );
}
