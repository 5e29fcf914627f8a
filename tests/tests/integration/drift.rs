//! Ten changes by hand, each named by `status` and `schema diff`.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// A change on PostgreSQL, the same on SQLite where it can be said there, and how it is named.
const CHANGES: [(&str, Option<&str>, &str); 14] = [
    (
        "CREATE INDEX hand ON governance_virtual_key_provider_configs (provider, weight)",
        Some("CREATE INDEX hand ON governance_virtual_key_provider_configs (provider, weight)"),
        "governance_virtual_key_provider_configs index hand: unexpected, (provider, weight)",
    ),
    (
        "DROP INDEX idx_governance_budgets_last_reset; CREATE INDEX idx_governance_budgets_last_reset ON governance_budgets (last_reset DESC)",
        Some(
            "DROP INDEX idx_governance_budgets_last_reset; CREATE INDEX idx_governance_budgets_last_reset ON governance_budgets (last_reset DESC)",
        ),
        "governance_budgets index idx_governance_budgets_last_reset: is (last_reset DESC), should be (last_reset)",
    ),
    (
        "ALTER TABLE governance_virtual_keys ADD COLUMN expires_at integer",
        Some("ALTER TABLE governance_virtual_keys ADD COLUMN expires_at integer"),
        "governance_virtual_keys column expires_at: unexpected, integer",
    ),
    (
        "ALTER TABLE governance_budgets ADD COLUMN note text",
        Some("ALTER TABLE governance_budgets ADD COLUMN note text"),
        "governance_budgets column note: unexpected, text",
    ),
    (
        "ALTER TABLE governance_teams DROP COLUMN profile",
        Some("ALTER TABLE governance_teams DROP COLUMN profile"),
        "governance_teams column profile: missing, should be text",
    ),
    (
        "ALTER TABLE governance_budgets ALTER COLUMN reset_duration TYPE text",
        None,
        "governance_budgets column reset_duration: is text not null, should be varchar(50) not null",
    ),
    (
        "ALTER TABLE governance_budgets ALTER COLUMN max_limit DROP NOT NULL",
        None,
        "governance_budgets column max_limit: is numeric, should be numeric not null",
    ),
    (
        "ALTER TABLE governance_virtual_keys ALTER COLUMN is_active SET DEFAULT false",
        None,
        "governance_virtual_keys column is_active: is boolean default false, should be boolean default true",
    ),
    (
        "DROP INDEX idx_governance_budgets_virtual_key_id",
        Some("DROP INDEX idx_governance_budgets_virtual_key_id"),
        "governance_budgets index idx_governance_budgets_virtual_key_id: missing, should be (virtual_key_id)",
    ),
    (
        "CREATE INDEX by_limit ON governance_budgets (max_limit)",
        Some("CREATE INDEX by_limit ON governance_budgets (max_limit)"),
        "governance_budgets index by_limit: unexpected, (max_limit)",
    ),
    (
        "ALTER TABLE governance_budgets DROP CONSTRAINT fk_governance_virtual_keys_budgets; ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_virtual_keys_budgets FOREIGN KEY (virtual_key_id) REFERENCES governance_virtual_keys(id)",
        None,
        "governance_budgets foreign key fk_governance_virtual_keys_budgets: is (virtual_key_id) to governance_virtual_keys (id), on delete no action, should be (virtual_key_id) to governance_virtual_keys (id), on delete cascade",
    ),
    (
        "ALTER TABLE governance_budgets DROP CONSTRAINT chk_governance_budgets_one_owner",
        None,
        "governance_budgets check chk_governance_budgets_one_owner: missing",
    ),
    (
        "CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER noticed AFTER INSERT ON governance_budgets FOR EACH ROW EXECUTE FUNCTION n()",
        Some("CREATE TRIGGER noticed AFTER INSERT ON governance_budgets BEGIN SELECT 1; END"),
        "governance_budgets trigger noticed: unexpected",
    ),
    (
        "DROP TABLE governance_virtual_key_provider_config_keys",
        Some("DROP TABLE governance_virtual_key_provider_config_keys"),
        "governance_virtual_key_provider_config_keys table: missing",
    ),
];

/// SQLite's stored definition, edited as a hand with `writable_schema` or a rebuild would.
const REWRITTEN: [(&str, &str, &str, &str); 5] = [
    (
        "governance_budgets",
        "`reset_duration` varchar(50)",
        "`reset_duration` text",
        "governance_budgets column reset_duration: is text not null, should be varchar(50) not null",
    ),
    (
        "governance_budgets",
        "`max_limit` real NOT NULL",
        "`max_limit` real",
        "governance_budgets column max_limit: is real, should be real not null",
    ),
    (
        "governance_virtual_keys",
        "`is_active` numeric DEFAULT true",
        "`is_active` numeric DEFAULT false",
        "governance_virtual_keys column is_active: is numeric default false, should be numeric default true",
    ),
    (
        "governance_budgets",
        "REFERENCES `governance_virtual_keys`(`id`) ON DELETE CASCADE",
        "REFERENCES `governance_virtual_keys`(`id`)",
        "governance_budgets foreign key fk_governance_virtual_keys_budgets: is (virtual_key_id) to governance_virtual_keys (id), on delete no action",
    ),
    (
        "governance_budgets",
        "CONSTRAINT `chk_governance_budgets_one_owner` CHECK (virtual_key_id IS NULL OR provider_config_id IS NULL)",
        "",
        "governance_budgets check chk_governance_budgets_one_owner: missing",
    ),
];

async fn migrated(backend: Backend, fresh: bool) -> TestDatabase {
    if fresh {
        let database = TestDatabase::new(backend).await;
        tollgate()
            .on(&database.url)
            .succeed(&["--track", "governance", "migrate", "up"]);
        database
    } else {
        let database = legacy(backend, Shape::Full, Calendar::Flag).await;
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--adopt"]);
        database
    }
}

fn named(database: &TestDatabase, line: &str) {
    let tollgate = tollgate().on(&database.url);
    for arguments in [
        &["migrate", "status", "--check"][..],
        &["schema", "diff", "--check"],
    ] {
        let run = tollgate.run(arguments);
        assert_eq!(run.code, 3, "{arguments:?} {run:#?}");
        let drifts: Vec<&str> = run
            .stdout
            .lines()
            .filter_map(|found| found.trim().strip_prefix("drift     "))
            .collect();
        assert!(
            drifts.iter().any(|found| found.starts_with(line)),
            "{line}\n{run:#?}"
        );
        assert_eq!(drifts.len(), 1, "{drifts:#?}");
    }
    // Looking is not judging: without --check the exit is 0.
    tollgate.succeed(&["migrate", "status"]);
}

#[rstest]
#[tokio::test]
async fn every_change_by_hand_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] fresh: bool,
) {
    let template = migrated(backend, fresh).await.freeze().await;
    let clean = template.copy().await;
    let run = tollgate()
        .on(&clean.url)
        .run(&["migrate", "status", "--check"]);
    assert_eq!(run.code, 0, "{run:#?}");
    for (postgres, sqlite, line) in CHANGES {
        let sql = match backend {
            Backend::Postgres => Some(postgres),
            Backend::Sqlite => sqlite,
        };
        if let Some(sql) = sql {
            let database = template.copy().await;
            database.execute(sql).await;
            named(&database, line);
        }
    }
    if backend == Backend::Postgres {
        return;
    }
    for (table, from, to, line) in REWRITTEN {
        let database = template.copy().await;
        let before = database
            .one(&format!(
                "SELECT sql FROM sqlite_schema WHERE name = '{table}'"
            ))
            .await;
        let after = before
            .replace(&format!(" {from}"), &format!(" {to}"))
            .replace(&format!(",{from}"), &format!(",{to}"))
            .replace(&format!("\n  {from}"), &format!("\n  {to}"));
        assert_ne!(after, before, "{from} in {before}");
        let after = after.replace(",,", ",").replace(",)", ")");
        database.execute("PRAGMA writable_schema = ON").await;
        database
            .execute(&format!(
                "UPDATE sqlite_schema SET sql = '{}' WHERE name = '{table}'",
                after.replace('\'', "''")
            ))
            .await;
        database.execute("PRAGMA writable_schema = OFF").await;
        named(&database, line);
    }
}
