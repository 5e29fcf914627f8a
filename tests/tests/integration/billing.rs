//! The billing track: Molecule's workspaces, adopted in every shape, and other products' tables left alone.

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
async fn get_set_and_clear_answer_one_of_three(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let tollgate = tollgate().on(&database.url);
    let get = |org: &str| {
        let (code, json) = tollgate.json(&["billing-mode", "get", ONE, "--org-default", org]);
        (code, json["result"].clone())
    };
    let answer = |mode: &str, source: &str, stored: Option<&str>, org: &str| serde_json::json!({ "workspace_id": ONE, "resolved_mode": mode, "source": source, "workspace_override": stored, "org_default": org });
    assert_eq!(
        get("byok"),
        (0, answer("byok", "org_default", None, "byok"))
    );
    assert_eq!(
        get("-garbled"),
        (
            0,
            answer(
                "platform_managed",
                "constant_fallback",
                None,
                "platform_managed"
            )
        )
    );
    let (code, set) = tollgate.json(&[
        "billing-mode",
        "set",
        ONE,
        "disabled",
        "--org-default",
        "byok",
    ]);
    assert_eq!(
        (code, &set["result"]),
        (
            0,
            &answer("disabled", "workspace_override", Some("disabled"), "byok")
        )
    );
    for garbled in ["byokk", "", "BYOK", "-x"] {
        let run = tollgate.run(&["billing-mode", "set", ONE, garbled]);
        assert_eq!(run.code, 2, "{run:#?}");
        assert!(run.stderr.contains("unknown billing mode"), "{run:#?}");
    }
    assert_eq!(
        get("byok").1["resolved_mode"],
        "disabled",
        "nothing was changed"
    );
    tollgate.succeed(&["billing-mode", "clear", ONE]);
    assert_eq!(
        get("byok"),
        (0, answer("byok", "org_default", None, "byok"))
    );
    // A workspace that is not there: asking inherits, writing fails.
    let nobody = "99999999-9999-4999-8999-999999999999";
    let (code, json) = tollgate.json(&["billing-mode", "get", nobody, "--org-default", "byok"]);
    assert_eq!(
        (code, &json["result"]["source"]),
        (0, &"org_default".into())
    );
    let (code, json) = tollgate.json(&["billing-mode", "set", nobody, "byok"]);
    assert_eq!((code, &json["error"]["code"]), (1, &"not_found".into()));
    // No workspace yet: the database is not asked.
    let (code, json) = tollgate.json(&["billing-mode", "get", "", "--org-default", "byok"]);
    assert_eq!(
        (code, &json["result"]["resolved_mode"]),
        (0, &"byok".into())
    );
}

#[rstest]
#[tokio::test]
async fn a_database_that_cannot_say_closes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // The column is not there yet, and the table is not there at all.
    let lacking = molecule(backend, "").await;
    let empty = TestDatabase::new(backend).await;
    for url in [
        lacking.url.as_str(),
        &empty.url,
        "postgres://u:hunter2@127.0.0.1:1/x",
        "sqlite:///nowhere/at/all.db",
    ] {
        let run = tollgate().on(url).run(&[
            "billing-mode",
            "get",
            ONE,
            "--org-default",
            "byok",
            "--output",
            "json",
            "--connect-timeout",
            "1",
        ]);
        assert_eq!(run.code, 1, "{run:#?}");
        let json = run.json();
        assert_eq!(
            json["result"]["resolved_mode"], "platform_managed",
            "{json:#}"
        );
        assert_eq!(json["result"]["source"], "constant_fallback");
        assert_ne!(json["error"], serde_json::Value::Null);
        assert!(!run.stdout.contains("hunter2"), "{run:#?}");
        let gate = tollgate().on(url).run(&[
            "workspace-secret",
            "check",
            "--workspace",
            ONE,
            "--key",
            "OPENAI_API_KEY",
            "--connect-timeout",
            "1",
        ]);
        assert_eq!(gate.code, 1, "closed on error: {gate:#?}");
        assert!(gate.stdout.contains("refused"), "{gate:#?}");
    }
}

#[tokio::test]
async fn a_database_that_hangs_closes_after_a_while() {
    use sea_orm::ConnectionTrait;
    let database = migrated(Backend::Postgres).await;
    let holder = database.another().await;
    let held = holder.begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE workspaces IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let begun = std::time::Instant::now();
    let (code, json) =
        tollgate()
            .on(&database.url)
            .json(&["billing-mode", "get", ONE, "--org-default", "byok"]);
    assert_eq!(code, 1, "{json:#}");
    assert_eq!(json["result"]["resolved_mode"], "platform_managed");
    assert!(begun.elapsed().as_secs() < 15);
    held.rollback().await.unwrap();
}

#[tokio::test]
async fn any_bytes_in_the_column_close_on_sqlite() {
    let database = molecule(Backend::Sqlite, ", llm_billing_mode text").await;
    let tollgate = tollgate().on(&database.url);
    for bytes in [
        "x'ff00fe'",
        "x'62796f6b00'",
        "'byok' || char(10)",
        "42",
        "1.5",
        "x''",
    ] {
        database
            .execute(&format!(
                "UPDATE workspaces SET llm_billing_mode = {bytes} WHERE id = '{ONE}'"
            ))
            .await;
        let (code, json) = tollgate.json(&["billing-mode", "get", ONE, "--org-default", "byok"]);
        assert_eq!(code, 0, "{bytes}: {json:#}");
        assert_eq!(
            json["result"]["resolved_mode"], "platform_managed",
            "{bytes}"
        );
        assert_eq!(json["result"]["source"], "constant_fallback", "{bytes}");
    }
}

fn strip(
    url: &str,
    arguments: &[&str],
    environment: &[u8],
    settings: &[(&str, &str)],
) -> (i32, Vec<u8>, String) {
    use std::io::Write;
    let mut tollgate = tollgate().on(url);
    for (name, value) in settings {
        tollgate = tollgate.with(name, value);
    }
    let mut command = tollgate.command(&[&["billing-mode", "strip"], arguments].concat());
    command
        .stdin(std::process::Stdio::piped())
        .env_remove("OPENAI_API_KEY")
        .env_remove("OPENAI_BASE_URL");
    for (name, value) in settings {
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(environment).unwrap();
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        output.stdout,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[rstest]
#[tokio::test]
async fn strip_gives_a_container_what_it_may_have(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let own = b"PATH=/bin\nOPENAI_API_KEY=own\nopenai_api_key=kept\n\xff\xfe=bytes\nHF_TOKEN=own\n";
    let (code, out, error) = strip(&database.url, &[ONE], own, &[]);
    assert_eq!(code, 4, "{error}");
    assert_eq!(
        out,
        b"PATH=/bin\nopenai_api_key=kept\n\xff\xfe=bytes\nMOLECULE_LLM_BILLING_MODE_RESOLVED=platform_managed\n"
    );
    assert!(error.contains("MOLECULE_LLM_BASE_URL"), "{error}");
    let proxy = [
        ("MOLECULE_LLM_BASE_URL", "https://proxy"),
        ("MOLECULE_LLM_USAGE_TOKEN", "token"),
    ];
    let (code, out, error) = strip(&database.url, &[ONE], own, &proxy);
    assert_eq!(code, 0, "{error}");
    assert_eq!(
        out,
        b"PATH=/bin\nOPENAI_API_KEY=token\nopenai_api_key=kept\n\xff\xfe=bytes\nMOLECULE_LLM_BASE_URL=https://proxy\n\
          MOLECULE_LLM_USAGE_TOKEN=token\nOPENAI_BASE_URL=https://proxy\nMOLECULE_LLM_BILLING_MODE_RESOLVED=platform_managed\n"
    );
    tollgate()
        .on(&database.url)
        .succeed(&["billing-mode", "set", ONE, "byok"]);
    let (code, out, _) = strip(&database.url, &[ONE], own, &proxy);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        [&own[..], b"MOLECULE_LLM_BILLING_MODE_RESOLVED=byok\n"].concat()
    );
    let (code, out, _) = strip(
        &database.url,
        &[TWO, "--json-env"],
        br#"{"Z":"1","HF_TOKEN":"own","A":"2"}"#,
        &proxy,
    );
    assert_eq!(code, 0);
    let text = String::from_utf8(out).unwrap();
    let order: Vec<usize> = ["\"Z\"", "\"A\"", "MOLECULE_LLM_BASE_URL"]
        .iter()
        .map(|name| text.find(name).unwrap())
        .collect();
    assert!(order.is_sorted() && !text.contains("HF_TOKEN"), "{text}");
    let (code, _, error) = strip(&database.url, &[TWO, "--json-env"], b"[1]", &proxy);
    assert_eq!(code, 1, "{error}");
}

#[rstest]
#[tokio::test]
async fn the_gate_refuses_what_would_bypass_the_platform(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let tollgate = tollgate().on(&database.url);
    let check = |key: &str| {
        tollgate.json(&[
            "workspace-secret",
            "check",
            "--workspace",
            ONE,
            "--key",
            key,
        ])
    };
    let (code, json) = check(" openai_api_key ");
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["result"]["key"], "OPENAI_API_KEY");
    assert!(
        json["error"]["hint"]
            .as_str()
            .unwrap()
            .contains(&format!("billing-mode set {ONE} byok"))
    );
    assert_eq!(check("SLACK_TOKEN").0, 0);
    assert_eq!(check("ANTHROPIC_BASE_URL").0, 0, "not among the 23");
    tollgate.succeed(&["billing-mode", "set", ONE, "byok"]);
    assert_eq!(check("OPENAI_API_KEY").0, 0);
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
