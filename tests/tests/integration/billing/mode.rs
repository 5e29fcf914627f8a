//! Who pays for a workspace, and what its container may have.

use super::*;

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
async fn a_mode_is_set_in_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    use tollgate_service::billing::mode::{Mode, set_in};

    let database = migrated(backend).await;
    for commit in [false, true] {
        let transaction = database.connection.begin().await.unwrap();
        let set = set_in(&transaction, ONE, Some("byok")).await.unwrap();
        assert_eq!(set.resolved_mode, Mode::Byok);
        let garbled = set_in(&transaction, ONE, Some("byokk")).await;
        assert_eq!(garbled.unwrap_err().exit_code(), 2);
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let stored = if commit { "one byok" } else { "one -" };
        assert_eq!(modes(&database).await, [stored, "two -"]);
    }
}
