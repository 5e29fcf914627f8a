//! The billing track: Molecule's workspaces, adopted in every shape, and other products' tables left alone.

mod mode;

use rstest::rstest;
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// Two identifiers that are UUIDs on either backend.
const ONE: &str = "11111111-1111-4111-8111-111111111111";

const TWO: &str = "22222222-2222-4222-8222-222222222222";

/// What a Molecule database has of §B1 at the least, with a column as some version or hand left it.
async fn molecule(backend: Backend, mode: &str) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    let key = match backend {
        Backend::Sqlite => "text",
        Backend::Postgres => "uuid",
    };
    let bytes = match backend {
        Backend::Sqlite => "blob",
        Backend::Postgres => "bytea",
    };
    for sql in [
        format!(
            "CREATE TABLE workspaces (id {key} PRIMARY KEY NOT NULL, name text NOT NULL, runtime text DEFAULT 'langgraph'{mode})"
        ),
        format!(
            "CREATE TABLE workspace_secrets (id {key} PRIMARY KEY NOT NULL, workspace_id {key} REFERENCES workspaces(id), key text NOT NULL, encrypted_value {bytes} NOT NULL)"
        ),
        format!("INSERT INTO workspaces (id, name) VALUES ('{ONE}', 'one'), ('{TWO}', 'two')"),
        format!(
            "INSERT INTO workspace_secrets (id, workspace_id, key, encrypted_value) VALUES ('{ONE}', '{ONE}', ' openai_api_key ', 'x'), ('{TWO}', '{TWO}', 'SLACK_TOKEN', 'x')"
        ),
    ] {
        database.execute(&sql).await;
    }
    database
}

async fn modes(database: &TestDatabase) -> Vec<String> {
    database
        .column("SELECT name || ' ' || COALESCE(llm_billing_mode, '-') FROM workspaces ORDER BY 1")
        .await
}

/// Whether the column takes that text.
async fn takes(database: &TestDatabase, mode: &str) -> bool {
    use sea_orm::ConnectionTrait;
    database
        .connection
        .execute_unprepared(&format!(
            "UPDATE workspaces SET llm_billing_mode = {mode} WHERE id = '{ONE}'"
        ))
        .await
        .is_ok()
}

async fn guards(database: &TestDatabase) {
    for mode in ["'byok'", "'disabled'", "'platform_managed'", "NULL"] {
        assert!(takes(database, mode).await, "{mode}");
    }
    for mode in ["'byokk'", "''", "'BYOK'", "' byok'"] {
        assert!(!takes(database, mode).await, "{mode}");
    }
}

#[rstest]
#[case::before("", "Molecule, before llm_billing_mode", 1)]
#[case::with(
    ", llm_billing_mode text CHECK (llm_billing_mode IS NULL OR llm_billing_mode IN ('platform_managed', 'byok', 'disabled'))",
    "Molecule, with llm_billing_mode",
    0
)]
#[case::unguarded(
    ", llm_billing_mode text",
    "Molecule, with an llm_billing_mode that another check guards, or none",
    1
)]
#[tokio::test]
async fn a_molecule_database_is_recognised_and_guarded(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] mode: &str,
    #[case] shape: &str,
    #[case] pending: usize,
) {
    let database = molecule(backend, mode).await;
    let tollgate = tollgate().on(&database.url);
    let (code, adopted) = tollgate.json(&["migrate", "adopt"]);
    assert_eq!(code, 0, "{adopted:#}");
    assert_eq!(adopted["result"]["recognised"][0]["shape"], shape);
    assert_eq!(
        adopted["tracks"][0]["pending"].as_array().unwrap().len(),
        pending
    );
    tollgate.succeed(&["migrate", "up"]);
    guards(&database).await;
    assert_eq!(
        database.count("workspace_secrets").await,
        2,
        "a rebuild keeps the children"
    );
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
}

#[rstest]
#[tokio::test]
async fn garbled_modes_and_another_check_block_until_they_are_cleared(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = molecule(
        backend,
        ", llm_billing_mode text CONSTRAINT old CHECK (llm_billing_mode <> 'free')",
    )
    .await;
    database
        .execute(&format!(
            "UPDATE workspaces SET llm_billing_mode = 'byokk' WHERE id = '{ONE}'"
        ))
        .await;
    database
        .execute(&format!(
            "UPDATE workspaces SET llm_billing_mode = 'byok' WHERE id = '{TWO}'"
        ))
        .await;
    let schema = database.schema().await;
    let tollgate = tollgate().on(&database.url);
    let (code, refused) = tollgate.json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    let found = refused["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["code"] == "B001")
        .unwrap();
    assert_eq!(found["sample_ids"], serde_json::json!([ONE, "check old"]));
    assert_eq!(database.schema().await, schema);
    assert_eq!(modes(&database).await, ["one byokk", "two byok"]);

    let (code, up) = tollgate.json(&["migrate", "up", "--adopt", "--garbled-modes", "clear"]);
    assert_eq!(code, 0, "{up:#}");
    assert_eq!(modes(&database).await, ["one -", "two byok"]);
    assert!(
        up["findings"].to_string().contains(ONE),
        "what was cleared is listed: {up:#}"
    );
    guards(&database).await;
    let checks = database
        .catalog()
        .await
        .table("workspaces")
        .unwrap()
        .checks
        .clone();
    assert_eq!(checks.len(), 1, "{checks:#?}");
}

#[rstest]
#[tokio::test]
async fn keys_that_the_platform_keeps_from_a_workspace_are_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = molecule(backend, "").await;
    let (code, found) = tollgate()
        .on(&database.url)
        .json(&["doctor", "--code", "B002"]);
    assert_eq!(code, 0, "{found:#}");
    assert_eq!(
        found["findings"][0]["sample_ids"],
        serde_json::json!([format!("{ONE}  openai_api_key ")])
    );
}

#[rstest]
#[tokio::test]
async fn another_products_workspaces_are_not_touched(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    database
        .execute("CREATE TABLE workspaces (id varchar(36) PRIMARY KEY NOT NULL, owner_id text, organization_id text, template_id text, name text)")
        .await;
    let schema = database.schema().await;
    let tollgate = tollgate().on(&database.url);
    assert_eq!(
        tollgate.run(&["migrate", "status"]).code,
        2,
        "it carries no track"
    );
    for arguments in [
        &["--track", "billing", "migrate", "adopt"][..],
        &["--track", "billing", "migrate", "up"],
        &["--track", "billing", "migrate", "up", "--adopt"],
    ] {
        let run = tollgate.run(arguments);
        assert_eq!(run.code, 4, "{run:#?}");
        assert!(
            run.stderr.contains("belongs to another product"),
            "{run:#?}"
        );
    }
    assert_eq!(database.schema().await, schema);
}

#[rstest]
#[tokio::test]
async fn down_refuses_to_lose_modes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = molecule(backend, "").await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    assert!(takes(&database, "'byok'").await);
    let (code, refused) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(
        refused["findings"][0]["sample_ids"],
        serde_json::json!([ONE])
    );
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert!(
        !database
            .catalog()
            .await
            .has_column("workspaces", "llm_billing_mode")
    );
}

/// A migrated Molecule database.
async fn migrated(backend: Backend) -> TestDatabase {
    let database = molecule(backend, "").await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    database
}

#[rstest]
#[tokio::test]
async fn reconcile_clears_garbled_modes_and_says_what_they_were(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = molecule(backend, ", llm_billing_mode text").await;
    database
        .execute(&format!("UPDATE workspaces SET llm_billing_mode = CASE WHEN id = '{ONE}' THEN 'byokk' ELSE 'byok' END"))
        .await;
    let tollgate = tollgate().on(&database.url);
    let (code, checked) = tollgate.json(&["reconcile", "billing", "--check"]);
    assert_eq!(code, 3, "{checked:#}");
    assert_eq!(tollgate.run(&["reconcile", "billing", "--dry-run"]).code, 0);
    assert_eq!(
        tollgate
            .run(&["reconcile", "billing", "--max-changes", "0"])
            .code,
        4
    );
    assert_eq!(
        modes(&database).await,
        ["one byokk", "two byok"],
        "nothing was changed"
    );
    let (code, applied) = tollgate.json(&["reconcile", "billing"]);
    assert_eq!(code, 0, "{applied:#}");
    assert_eq!(
        applied["changes"], checked["changes"],
        "plan and application agree"
    );
    assert_eq!(
        applied["result"]["cleared"],
        serde_json::json!([{ "workspace_id": ONE, "was": "byokk" }])
    );
    assert_eq!(modes(&database).await, ["one -", "two byok"]);
    let (_, again) = tollgate.json(&["reconcile", "billing", "--check"]);
    assert_eq!(again["changes"], serde_json::json!([]));
    let without = molecule(backend, "").await;
    assert_eq!(
        crate::tollgate()
            .on(&without.url)
            .run(&["reconcile", "billing"])
            .code,
        1
    );
}

#[rstest]
#[tokio::test]
async fn a_made_up_molecule_is_adopted_and_migrated(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["seed", "--profile", "molecule", "--virtual-keys", "300"]);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    assert_eq!(database.count("workspaces").await, 300);
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
    let (_, found) = tollgate.json(&["doctor"]);
    assert_eq!(
        found["findings"],
        serde_json::json!([]),
        "nothing pending, nothing to warn of"
    );
}

#[rstest]
#[case::inverted(
    ", llm_billing_mode text CHECK (llm_billing_mode NOT IN ('platform_managed', 'byok', 'disabled'))"
)]
#[case::narrower_beside(
    ", llm_billing_mode text CHECK (llm_billing_mode IN ('platform_managed', 'byok', 'disabled')), CHECK (llm_billing_mode IN ('platform_managed', 'byok'))"
)]
#[case::wider(
    ", llm_billing_mode text CHECK (llm_billing_mode IN ('platform_managed', 'byok', 'disabled') OR length(llm_billing_mode) > 0)"
)]
#[tokio::test]
async fn a_check_that_only_looks_right_is_replaced(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] mode: &str,
) {
    let database = molecule(backend, mode).await;
    let tollgate = tollgate().on(&database.url);
    assert_eq!(tollgate.run(&["migrate", "up", "--adopt"]).code, 4);
    tollgate.succeed(&["migrate", "up", "--adopt", "--garbled-modes", "clear"]);
    guards(&database).await;
}

#[rstest]
#[case::not_null(", llm_billing_mode text NOT NULL DEFAULT 'byok'", "NOT NULL")]
#[case::default(", llm_billing_mode text DEFAULT 'byok'", "default")]
#[tokio::test]
async fn a_column_that_cannot_inherit_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] mode: &str,
    #[case] named: &str,
) {
    let database = molecule(backend, mode).await;
    let run = tollgate()
        .on(&database.url)
        .run(&["migrate", "up", "--adopt"]);
    assert_eq!(run.code, 4, "{run:#?}");
    assert!(run.stderr.contains(named), "{run:#?}");
}

#[rstest]
#[tokio::test]
async fn another_products_modes_are_neither_read_nor_written(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = molecule(backend, ", llm_billing_mode text, owner_id text").await;
    database
        .execute("UPDATE workspaces SET llm_billing_mode = 'byok'")
        .await;
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["billing-mode", "get", ONE, "--org-default", "byok"]);
    assert_eq!(
        (code, &json["result"]["resolved_mode"]),
        (1, &"platform_managed".into())
    );
    assert_eq!(
        tollgate.run(&["billing-mode", "set", ONE, "disabled"]).code,
        1
    );
    assert_eq!(modes(&database).await, ["one byok", "two byok"]);
}

#[tokio::test]
async fn a_write_of_the_gateway_wins_over_the_routine() {
    use sea_orm::ConnectionTrait;
    let database = molecule(Backend::Postgres, ", llm_billing_mode text").await;
    database
        .execute("UPDATE workspaces SET llm_billing_mode = 'byokk'")
        .await;
    let other = database.another().await;
    let writing = other.begin().await.unwrap();
    writing
        .execute_unprepared(&format!(
            "UPDATE workspaces SET llm_billing_mode = 'byok' WHERE id = '{ONE}'"
        ))
        .await
        .unwrap();
    let child = tollgate()
        .on(&database.url)
        .command(&["reconcile", "billing", "--output", "json"])
        .spawn()
        .unwrap();
    let waiting = "pg_locks WHERE NOT granted";
    let begun = std::time::Instant::now();
    while database.count(waiting).await == 0 {
        assert!(
            begun.elapsed().as_secs() < 20,
            "the routine does not wait for the row"
        );
    }
    writing.commit().await.unwrap();
    let run = tollgate_tests::Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(run.json()["changes"][0]["rows"], 1, "{run:#?}");
    assert_eq!(modes(&database).await, ["one byok", "two -"]);
}

#[tokio::test]
async fn any_bytes_are_cleared_on_sqlite() {
    let database = molecule(Backend::Sqlite, ", llm_billing_mode text").await;
    for (id, bytes) in [(ONE, "CAST(x'ff62' AS text)"), (TWO, "x'62796f6b'")] {
        database
            .execute(&format!(
                "UPDATE workspaces SET llm_billing_mode = {bytes} WHERE id = '{id}'"
            ))
            .await;
    }
    tollgate()
        .on(&database.url)
        .succeed(&["reconcile", "billing"]);
    assert_eq!(modes(&database).await, ["one -", "two -"]);
}
