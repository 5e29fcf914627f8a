//! Databases that have been through something: hand edits, odd settings, an old gateway in the middle of a migration.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

async fn references(database: &TestDatabase) -> Vec<String> {
    database
        .column(
            "SELECT id || ' ' || COALESCE(budget_id, '-') FROM governance_virtual_keys ORDER BY 1",
        )
        .await
}

async fn run(database: &TestDatabase, statements: &[&str]) {
    for sql in statements {
        database.execute(sql).await;
    }
}

#[rstest]
#[tokio::test]
async fn down_keeps_what_old_code_wrote_since_the_backfill(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    run(
        &database,
        &[
            "UPDATE governance_virtual_keys SET budget_id = 'b-nobody' WHERE id = 'vk-alice'",
            "UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = 'vk-dave'",
            "UPDATE governance_budgets SET calendar_aligned = false WHERE id = 'b-bob'",
        ],
    )
    .await;
    tollgate.succeed(&["migrate", "down", "--to", "governance_baseline"]);
    assert_eq!(
        references(&database).await,
        [
            "vk-alice b-nobody",
            "vk-bob b-bob",
            "vk-carol -",
            "vk-dave -"
        ]
    );
    let flag = database.dialect().is_true("calendar_aligned");
    assert_eq!(
        database
            .column(&format!(
                "SELECT id FROM governance_budgets WHERE {flag} ORDER BY 1"
            ))
            .await,
        ["b-carol-openai", "b-team"]
    );
}

#[rstest]
#[tokio::test]
async fn a_deleted_key_takes_no_budget_that_was_given_to_another(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Shape::Full, Shape::Required)] shape: Shape,
    #[values("backfill", "contract")] last: &str,
) {
    let database = legacy(backend, shape, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    // Deleted before the foreign keys exist on PostgreSQL, or after.
    let to = if last == "backfill" {
        "multi_budget_backfill"
    } else {
        "multi_budget_constraints"
    };
    tollgate.succeed(&["migrate", "up", "--adopt", "--to", to]);
    run(
        &database,
        &[
            "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'",
            "UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = 'vk-alice'",
            "DELETE FROM governance_virtual_key_provider_configs WHERE virtual_key_id = 'vk-alice'",
        ],
    )
    .await;
    if shape == Shape::Full {
        run(
            &database,
            &["DELETE FROM governance_virtual_key_mcp_configs WHERE virtual_key_id = 'vk-alice'"],
        )
        .await;
    }
    run(
        &database,
        &["DELETE FROM governance_virtual_keys WHERE id = 'vk-alice'"],
    )
    .await;
    assert_eq!(
        database
            .count("governance_budgets WHERE id = 'b-alice'")
            .await,
        1
    );
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(
        database
            .one("SELECT virtual_key_id FROM governance_budgets WHERE id = 'b-alice'")
            .await,
        "vk-carol"
    );
    // Now the owner is authoritative, and a budget goes with it.
    run(
        &database,
        &["DELETE FROM governance_virtual_keys WHERE id = 'vk-carol'"],
    )
    .await;
    assert_eq!(
        database
            .count("governance_budgets WHERE id = 'b-alice'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_server_whose_default_isolation_is_stricter_is_migrated_all_the_same() {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    let name = database.one("SELECT current_database()::text").await;
    database
        .execute(&format!(
            "ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
        ))
        .await;
    let begun = std::time::Instant::now();
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    assert!(begun.elapsed().as_secs() < 20);
}

#[rstest]
#[case::reads_the_old_row(
    "CREATE TRIGGER t BEFORE UPDATE ON governance_virtual_keys WHEN old.budget_id IS NOT NULL BEGIN SELECT 1; END"
)]
#[case::on_another_table(
    "CREATE TRIGGER t AFTER DELETE ON governance_budgets BEGIN UPDATE governance_virtual_keys SET budget_id = NULL WHERE budget_id = old.id; END"
)]
#[case::view("CREATE VIEW t AS SELECT k.budget_id AS b FROM governance_virtual_keys AS k")]
#[case::generated(
    "ALTER TABLE governance_virtual_keys ADD COLUMN has_budget integer GENERATED ALWAYS AS (budget_id IS NOT NULL) VIRTUAL"
)]
#[tokio::test]
async fn what_would_break_on_sqlite_is_seen_before(#[case] dependent: &str) {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::None).await;
    database.execute(dependent).await;
    let (code, refused) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    assert!(
        refused["findings"].to_string().contains("G018"),
        "{refused:#}"
    );
}

#[rstest]
#[case::function(
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF old.budget_id IS NULL THEN RETURN NULL; END IF; RETURN new; END'; CREATE TRIGGER t AFTER UPDATE ON governance_virtual_keys FOR EACH ROW EXECUTE FUNCTION f()"
)]
#[case::generated(
    "ALTER TABLE governance_virtual_keys ADD COLUMN has_budget boolean GENERATED ALWAYS AS (budget_id IS NOT NULL) STORED"
)]
#[tokio::test]
async fn what_would_break_on_postgres_is_seen_before(#[case] dependent: &str) {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::None).await;
    database.execute(dependent).await;
    let (code, refused) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    assert!(
        refused["findings"].to_string().contains("G018"),
        "{refused:#}"
    );
}

#[rstest]
#[tokio::test]
async fn a_flag_without_a_budget_is_a_loss_that_contracts_down_refuses(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    run(
        &database,
        &["INSERT INTO governance_virtual_keys (id, name, value, calendar_aligned, created_at, updated_at) \
           VALUES ('vk-bare', 'Bare', 'sk-bf-bare', true, '2026-05-01 00:00:00+00:00', '2026-05-01 00:00:00+00:00')"],
    )
    .await;
    let (code, refused) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(
        refused["findings"][0]["sample_ids"],
        serde_json::json!(["vk-bare"])
    );
}

#[tokio::test]
async fn odd_neighbours_on_sqlite_neither_stop_the_run_nor_suffer_from_it() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    run(
        &database,
        &[
            // Somebody's table under the name a rebuild would like to use.
            "CREATE TABLE governance_virtual_keys__tollgate (a text)",
            "INSERT INTO governance_virtual_keys__tollgate VALUES ('mine')",
            // A view over a table that is gone.
            "CREATE TABLE gone (x integer)",
            "CREATE VIEW broken AS SELECT x FROM gone",
            "DROP TABLE gone",
            // A key to columns that are not unique, which SQLite cannot check.
            "PRAGMA foreign_keys = OFF",
            "CREATE TABLE odd (a text, FOREIGN KEY (a) REFERENCES governance_virtual_keys(description))",
            "INSERT INTO odd VALUES ('x')",
            // Rows without their parent, from before keys were enforced.
            "INSERT INTO governance_virtual_key_mcp_configs (id, virtual_key_id, mcp_client_id) VALUES (9, 'vk-nobody', 77)",
        ],
    )
    .await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    assert_eq!(
        database
            .column("SELECT a FROM governance_virtual_keys__tollgate")
            .await,
        ["mine"]
    );
    assert_eq!(database.column("SELECT a FROM odd").await, ["x"]);
    assert_eq!(
        database.count("governance_virtual_key_mcp_configs").await,
        3
    );
    tollgate.succeed(&["migrate", "down", "--to", "governance_baseline"]);
    assert_eq!(
        database.count("sqlite_schema WHERE name = 'broken'").await,
        1
    );
}

#[rstest]
#[tokio::test]
async fn everything_on_a_dropped_column_comes_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Required, Calendar::Flag).await;
    let own = match backend {
        Backend::Postgres => &[
            "UPDATE governance_virtual_keys SET budget_id = NULL WHERE budget_id IN ('', 'b-gone')",
            "ALTER TABLE governance_virtual_keys ALTER COLUMN budget_id SET DEFAULT 'b-nobody'",
            "ALTER TABLE governance_virtual_keys ADD CONSTRAINT one_each UNIQUE (budget_id)",
            "ALTER TABLE governance_virtual_keys ADD CONSTRAINT short CHECK (length(budget_id) < 200)",
            "CREATE INDEX folded ON governance_virtual_keys (lower(budget_id))",
            "CREATE INDEX present ON governance_virtual_keys (id) WHERE budget_id IS NOT NULL",
        ][..],
        Backend::Sqlite => &[
            "DROP TABLE governance_virtual_keys",
            "CREATE TABLE governance_virtual_keys (id varchar(255), budget_id varchar(255) DEFAULT 'b-nobody' UNIQUE \
             CONSTRAINT fk_own REFERENCES governance_budgets(id), config_hash varchar(255), PRIMARY KEY (id), \
             CONSTRAINT short CHECK (length(budget_id) < 200))",
            "INSERT INTO governance_virtual_keys VALUES ('vk-alice', 'b-alice', ''), ('vk-bob', 'b-bob', ''), \
             ('vk-carol', NULL, ''), ('vk-dave', 'b-dave', '')",
            "CREATE INDEX folded ON governance_virtual_keys (lower(budget_id))",
            "CREATE INDEX present ON governance_virtual_keys (id) WHERE budget_id IS NOT NULL",
        ],
    };
    run(&database, own).await;
    let (schema, before) = (database.schema().await, references(&database).await);
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    tollgate.succeed(&["migrate", "down", "--to", "governance_baseline"]);
    let restored: Vec<String> = database
        .schema()
        .await
        .into_iter()
        .filter(|line| !line.starts_with("tollgate_"))
        .collect();
    assert_eq!(restored, schema);
    assert_eq!(
        references(&database).await,
        before,
        "a default invents no reference"
    );
}

#[tokio::test]
async fn a_dropped_baseline_takes_no_rows_of_other_tables() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "--track",
        "governance",
        "migrate",
        "up",
        "--to",
        "governance_baseline",
    ]);
    run(
        &database,
        &[
            "CREATE TABLE own (key_id text REFERENCES governance_virtual_keys(id) ON DELETE CASCADE)",
            "INSERT INTO governance_virtual_keys (id, name, value, created_at, updated_at) VALUES ('vk-1', 'One', 'sk', '', '')",
            "INSERT INTO own VALUES ('vk-1')",
        ],
    )
    .await;
    let run = tollgate.run(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!(run.code, 4, "{run:#?}");
    assert_eq!(database.count("own").await, 1);
    assert_eq!(database.count("governance_virtual_keys").await, 1);
}

#[rstest]
#[tokio::test]
async fn upstream_migrated_in_between_and_gave_a_budget_two_owners(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "expand"]);
    if backend == Backend::Sqlite {
        // SQLite has the check from expand on, so upstream's own statement fails there and its boot with it.
        use sea_orm::ConnectionTrait;
        let both = database
            .connection
            .execute_unprepared(
                "UPDATE governance_budgets SET virtual_key_id = 'vk-alice', provider_config_id = 1 WHERE id = 'b-alice'",
            )
            .await;
        assert!(both.is_err());
        return;
    }
    run(
        &database,
        &[
            "UPDATE governance_budgets b SET virtual_key_id = v.id FROM governance_virtual_keys v WHERE v.budget_id = b.id",
            "UPDATE governance_budgets SET provider_config_id = 1 WHERE id = 'b-alice'",
            "ALTER TABLE governance_virtual_keys DROP COLUMN budget_id",
            "ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id",
            "INSERT INTO migrations VALUES ('add_multi_budget_tables')",
        ],
    )
    .await;
    let (code, refused) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(refused["findings"][0]["code"], "G001");
    database
        .execute("UPDATE governance_budgets SET current_usage = 5 WHERE id = 'b-alice'")
        .await;
    // The operator decides whose it is, and the rest goes through.
    database
        .execute("UPDATE governance_budgets SET provider_config_id = NULL WHERE id = 'b-alice'")
        .await;
    tollgate.succeed(&["migrate", "up"]);
}

#[test]
fn a_password_is_not_shown_wherever_the_address_stands() {
    for arguments in [
        &["migrate", "up", "postgres://u:hunter2@h/db"][..],
        &["postgres://u:hunter2@h/db", "migrate", "up"],
        &["migrate", "up", "--track", "postgres://u:hunter2@h/db"],
        &[
            "migrate",
            "up",
            "--database-url",
            "postgres://u:12#hunter2@h/db",
        ],
        &[
            "migrate",
            "up",
            "--database-url",
            "postgres://u:12/hunter2@h/db",
        ],
        &["migrate", "up", "--database-url", "mysql://u:hunter2@h/db"],
    ] {
        for output in ["text", "json"] {
            let run = tollgate().run(&[arguments, &["--output", output]].concat());
            assert_eq!(run.code, 2, "{run:#?}");
            assert!(!run.stdout.contains("hunter2"), "{run:#?}");
            assert!(!run.stderr.contains("hunter2"), "{run:#?}");
        }
    }
}

#[rstest]
#[case::policy("CREATE POLICY p ON governance_virtual_keys USING (budget_id IS NOT NULL OR true)")]
#[case::publication("CREATE PUBLICATION pb FOR TABLE governance_virtual_keys (id, budget_id)")]
#[case::foreign_key(
    "CREATE UNIQUE INDEX uq ON governance_virtual_keys (budget_id); CREATE TABLE ref (b varchar(255) REFERENCES governance_virtual_keys (budget_id))"
)]
#[tokio::test]
async fn what_else_would_break_is_seen_before(#[case] dependent: &str) {
    for backend in [Backend::Postgres, Backend::Sqlite] {
        if backend == Backend::Sqlite && !dependent.contains("ref (b") {
            continue;
        }
        let database = legacy(backend, Shape::Full, Calendar::None).await;
        database.execute(dependent).await;
        let (code, refused) = tollgate()
            .on(&database.url)
            .json(&["migrate", "up", "--adopt"]);
        assert_eq!(code, 4, "{backend:?} {refused:#}");
        assert!(
            refused["findings"].to_string().contains("G018"),
            "{refused:#}"
        );
    }
}

#[tokio::test]
async fn odd_names_elsewhere_on_postgres_are_nobodys_business() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::None).await;
    run(
        &database,
        &[
            "CREATE TABLE other (id int, \"x(\" int)",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION f()",
        ],
    )
    .await;
    tollgate().on(&database.url).succeed(&["doctor"]);
}

#[tokio::test]
async fn types_that_the_migrations_cannot_work_with_are_refused_and_others_followed() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::None).await;
    let tollgate = tollgate().on(&database.url);
    run(
        &database,
        &["ALTER TABLE governance_budgets ALTER max_limit TYPE text"],
    )
    .await;
    let refused = tollgate.run(&["migrate", "adopt"]);
    assert_eq!(refused.code, 4, "{refused:#?}");
    assert!(
        refused
            .stderr
            .contains("governance_budgets.max_limit is text"),
        "{refused:#?}"
    );
    run(
        &database,
        &[
            "ALTER TABLE governance_budgets ALTER max_limit TYPE numeric USING max_limit::numeric",
            "ALTER TABLE governance_virtual_keys ALTER id TYPE text",
        ],
    )
    .await;
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    let status = tollgate.run(&["migrate", "status", "--check"]);
    assert_eq!(
        status.code, 0,
        "the owner column follows its key: {status:#?}"
    );
}

#[rstest]
#[tokio::test]
async fn flags_that_go_are_all_announced(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    // The team's flagged budget is a key's too; and after the backfill old code lets go of another flagged one.
    run(
        &database,
        &["UPDATE governance_virtual_keys SET budget_id = 'b-team' WHERE id = 'vk-carol'"],
    )
    .await;
    tollgate.succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--phase",
        "backfill",
    ]);
    run(
        &database,
        &["UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = 'vk-bob'"],
    )
    .await;
    let (_, found) = tollgate.json(&["doctor", "--code", "G017"]);
    assert_eq!(
        found["findings"][0]["sample_ids"],
        serde_json::json!(["b-bob", "b-team"]),
        "{found:#}"
    );
}
