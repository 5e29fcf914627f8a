//! The config file, taken at its word: what it refers to, restricts or misspells is never dropped silently.

use rstest::rstest;
use serde_json::{Value, json};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

async fn fresh(backend: Backend) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    tollgate()
        .on(&database.url)
        .succeed(&["--track", "governance", "migrate", "up"]);
    database
}

fn said(governance: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = json!({ "governance": governance }).to_string();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A reference that is stored as the secret is a working key in the hands of everybody who can read the file.
#[rstest]
#[tokio::test]
async fn a_reference_is_never_stored_as_the_secret(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate()
        .on(&database.url)
        .with("SPACED", "sk-bf-spaced ")
        .with("BROKEN", "sk-bf-broken\nrest")
        .with("OTHER", "other-secret");
    for value in [
        "vault.secret/data/gateway#vk",
        "Vault.x",
        "${VK_B}",
        "$VK_C",
        "ENV.VK_D",
        " env.VK_E",
        "env.NOBODY_SETS_THIS",
        "env.SPACED",
        "env.BROKEN",
        "env.OTHER",
        "sk-bf-one ",
        "plain",
    ] {
        let file = said(&json!({ "virtual_keys": [{ "id": "a", "name": "a", "value": value }] }));
        let path = file.path().display().to_string();
        let run = tollgate.run(&["reconcile", "config", "--file", &path]);
        assert_eq!(run.code, 1, "{value}: {run:#?}");
        assert!(
            run.stderr.contains("$.governance.virtual_keys[0].value"),
            "{value}: {run:#?}"
        );
        assert!(!run.stderr.contains("other-secret"), "{run:#?}");
        assert_eq!(database.count("governance_virtual_keys").await, 0);
    }
}

#[rstest]
#[tokio::test]
async fn a_section_that_nobody_knows_is_refused_and_one_of_the_gateways_is_told(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate().on(&database.url);
    for (section, near) in [
        ("virtualKeys", "virtual_keys"),
        ("rateLimits", "rate_limits"),
        ("virtual_key", "virtual_keys"),
    ] {
        let file = said(&json!({ section: [] }));
        let path = file.path().display().to_string();
        let run = tollgate.run(&["reconcile", "config", "--file", &path]);
        assert_eq!(run.code, 1, "{run:#?}");
        assert!(
            run.stderr.contains(&format!("$.governance.{section}"))
                && run.stderr.contains(&format!("did you mean {near}?")),
            "{run:#?}"
        );
        tollgate.succeed(&["reconcile", "config", "--file", &path, "--allow-unread"]);
    }
    let known = said(&json!({ "routing_rules": [{ "id": "r" }], "virtual_keys": [] }));
    let path = known.path().display().to_string();
    let (code, report) = tollgate.json(&["reconcile", "config", "--file", &path]);
    assert_eq!(code, 0, "{report:#}");
    let told: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["table"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["$.governance.routing_rules"]);
    let check = ["reconcile", "config", "--file", &path, "--check"];
    assert_eq!(tollgate.run(&check).code, 3);
}

#[rstest]
#[tokio::test]
async fn a_limit_of_a_new_row_is_written_or_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate().on(&database.url);
    let key = |more: Value| {
        let mut key = json!({ "id": "vk-1", "name": "one", "value": "sk-bf-1" });
        key.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "virtual_keys": [key] })
    };
    for (governance, path) in [
        (
            key(json!({ "expires_at": "2026-01-01T00:00:00Z" })),
            "$.governance.virtual_keys[0].expires_at",
        ),
        (
            json!({ "customers": [{ "id": "c", "name": "c", "budgets": [{ "max_limit": 1, "reset_duration": "1d" }] }] }),
            "$.governance.customers[0].budgets",
        ),
        (
            key(
                json!({ "rate_limit": { "request_max_limit": 1, "request_reset_duration": "1m" } }),
            ),
            "$.governance.virtual_keys[0].rate_limit",
        ),
    ] {
        let file = said(&governance);
        let name = file.path().display().to_string();
        let run = tollgate.run(&["reconcile", "config", "--file", &name]);
        assert_eq!(run.code, 1, "{run:#?}");
        assert!(run.stderr.contains(path), "{run:#?}");
        assert_eq!(database.count("governance_virtual_keys").await, 0);
        assert_eq!(database.count("governance_customers").await, 0);
    }
    let file = said(&key(json!({
        "rate_limit": { "id": "rl-1", "request_max_limit": 60, "request_reset_duration": "1m" },
        "provider_configs": [{
            "provider": "openai", "allowed_models": ["*"], "key_ids": ["*"],
            "rate_limit": { "id": "rl-2", "token_max_limit": 1000, "token_reset_duration": "1h" },
        }],
    })));
    let name = file.path().display().to_string();
    tollgate.succeed(&["reconcile", "config", "--file", &name]);
    assert_eq!(
        database
            .column(
                "SELECT v.rate_limit_id || ' ' || r.request_max_limit || ' ' || r.request_reset_duration \
                 FROM governance_virtual_keys v JOIN governance_rate_limits r ON r.id = v.rate_limit_id"
            )
            .await,
        ["rl-1 60 1m"]
    );
    assert_eq!(
        database
            .column(
                "SELECT p.rate_limit_id || ' ' || r.token_max_limit || ' ' || CASE WHEN p.allow_all_keys THEN 'all' ELSE 'none' END \
                 FROM governance_virtual_key_provider_configs p JOIN governance_rate_limits r ON r.id = p.rate_limit_id"
            )
            .await,
        ["rl-2 1000 all"]
    );
    assert_eq!(
        tollgate
            .run(&["reconcile", "config", "--file", &name, "--check"])
            .code,
        0
    );
}

#[rstest]
#[tokio::test]
async fn a_value_in_the_place_of_an_id_is_cut_short_everywhere(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate().on(&database.url);
    let value = "sk-bf-vk-prod-eu-01";
    let file =
        said(&json!({ "virtual_keys": [{ "id": value, "name": "prod-eu", "value": value }] }));
    let name = file.path().display().to_string();
    let done = tollgate.succeed(&["reconcile", "config", "--file", &name]);
    assert!(done.stdout.contains("sk-bf-vk-pr…"), "{done:#?}");
    let mut outputs = vec![done];
    outputs.push(tollgate.succeed(&["history"]));
    outputs.push(tollgate.succeed(&["history", "--run", "2"]));
    for output in outputs {
        assert!(
            !output.stdout.contains(value) && !output.stderr.contains(value),
            "{output:#?}"
        );
    }
    let recorded = database.column("SELECT report FROM tollgate_runs").await;
    assert!(recorded.iter().all(|report| !report.contains(value)));
    let twice = said(&json!({ "virtual_keys": [
        { "id": value, "name": "a", "value": "sk-bf-a" }, { "id": value, "name": "b", "value": "sk-bf-b" },
    ] }));
    let name = twice.path().display().to_string();
    let refused = tollgate.run(&["reconcile", "config", "--file", &name]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(!refused.stderr.contains(value), "{refused:#?}");
}

/// In a file of version 1 an empty list means all, an absent one too, and a key without provider configs may use every
/// provider of the file; from version 2 on they mean none.
#[rstest]
#[tokio::test]
async fn the_version_says_what_an_empty_list_means(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate().on(&database.url);
    let file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().display().to_string();
    let apply = |version: Option<Value>, id: &str| {
        let mut root = json!({
            "governance": { "virtual_keys": [
                { "id": format!("{id}-listed"), "name": format!("{id}-listed"), "value": format!("sk-bf-{id}-listed"),
                  "provider_configs": [
                      { "provider": "openai", "key_ids": [] },
                      { "provider": "azure", "allowed_models": [], "allow_all_keys": false },
                      { "provider": "bedrock", "allowed_models": ["claude"], "key_ids": ["*"] },
                  ] },
                { "id": format!("{id}-bare"), "name": format!("{id}-bare"), "value": format!("sk-bf-{id}-bare") },
            ] },
            "providers": { "openai": { "keys": [] }, "vertex": { "keys": [] } },
        });
        if let Some(version) = version {
            root["version"] = version;
        }
        std::fs::write(file.path(), root.to_string()).unwrap();
        tollgate.run(&["reconcile", "config", "--file", &name])
    };
    let may = async |id: &str| {
        database
            .column(&format!(
                "SELECT substr(virtual_key_id, {}) || ' ' || provider || ' ' || allowed_models || ' ' || \
                 CASE WHEN allow_all_keys THEN 'all' ELSE 'none' END FROM governance_virtual_key_provider_configs \
                 WHERE virtual_key_id LIKE '{id}-%' ORDER BY 1",
                id.len() + 2
            ))
            .await
    };
    assert_eq!(apply(Some(json!(1)), "one").code, 0);
    assert_eq!(
        may("one").await,
        [
            "bare openai [\"*\"] all",
            "bare vertex [\"*\"] all",
            "listed azure [\"*\"] all",
            "listed bedrock [\"claude\"] all",
            "listed openai [\"*\"] all",
        ]
    );
    assert_eq!(apply(Some(json!(1)), "one").code, 0);
    for (version, id) in [
        (None, "none"),
        (Some(json!(2)), "two"),
        (Some(Value::Null), "null"),
    ] {
        assert_eq!(apply(version, id).code, 0);
        assert_eq!(
            may(id).await,
            [
                "listed azure [] none",
                "listed bedrock [\"claude\"] all",
                "listed openai [] none",
            ]
        );
    }
    for version in [json!(3), json!("1"), json!(1.5)] {
        let run = apply(Some(version), "other");
        assert_eq!(run.code, 1, "{run:#?}");
        assert!(run.stderr.contains("$.version"), "{run:#?}");
    }
    assert_eq!(database.count("governance_virtual_keys").await, 8);
}

#[rstest]
#[tokio::test]
async fn prune_says_how_much_it_may_delete(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate().on(&database.url);
    let key = |id: &str| json!({ "id": id, "name": id, "value": format!("sk-bf-{id}") });
    let both = said(&json!({ "virtual_keys": [key("a"), key("b")] }));
    let name = both.path().display().to_string();
    tollgate.succeed(&["reconcile", "config", "--file", &name]);
    let one = said(&json!({ "virtual_keys": [key("a")] }));
    let name = one.path().display().to_string();
    let prune = ["reconcile", "config", "--prune", "--file", &name];
    let run = tollgate.run(&prune);
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("--max-changes"), "{run:#?}");
    let with = |more: &[&str]| tollgate.run(&[&prune[..], more].concat());
    assert_eq!(with(&["--dry-run"]).code, 0);
    assert_eq!(with(&["--check"]).code, 3);
    assert_eq!(with(&["--max-changes", "0"]).code, 4);
    assert_eq!(database.count("governance_virtual_keys").await, 2);
    assert_eq!(with(&["--max-changes", "1"]).code, 0);
    assert_eq!(database.count("governance_virtual_keys").await, 1);
}

/// Values come from a file that only the job can read; what is wrong in it is told without what it says.
#[rstest]
#[tokio::test]
async fn references_are_looked_up_in_a_file(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let tollgate = tollgate()
        .on(&database.url)
        .with("VK_A", "sk-bf-of-the-environment")
        .with("VK_C", "sk-bf-c");
    let key = |id: &str, value: &str| json!({ "id": id, "name": id, "value": value });
    let file = said(&json!({ "virtual_keys": [
        key("a", "env.VK_A"), key("b", "env.VK_B"), key("c", "env.VK_C"),
    ] }));
    let name = file.path().display().to_string();
    let variables = tempfile::NamedTempFile::new().unwrap();
    let from = variables.path().display().to_string();
    let apply =
        |path: &str| tollgate.run(&["reconcile", "config", "--file", &name, "--env-file", path]);
    std::fs::write(
        variables.path(),
        "\u{feff}# keys\nVK_A=sk-bf-a\n\nsk-bf-secret with no name\n",
    )
    .unwrap();
    let run = apply(&from);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("NAME=value"), "{run:#?}");
    assert!(!run.stderr.contains("sk-bf-"), "{run:#?}");
    std::fs::write(variables.path(), "VK_A=sk-bf-abc$def\n").unwrap();
    let run = apply(&from);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("line 1"), "{run:#?}");
    assert!(!run.stderr.contains("sk-bf-"), "{run:#?}");
    assert_eq!(apply("/nonexistent").code, 1);
    assert_eq!(database.count("governance_virtual_keys").await, 0);
    std::fs::write(
        variables.path(),
        "\u{feff}# keys\nVK_A=sk-bf-a\n\nexport VK_B='sk-bf-b'\n",
    )
    .unwrap();
    assert_eq!(apply(&from).code, 0);
    assert_eq!(
        database
            .column("SELECT id || ' ' || value FROM governance_virtual_keys ORDER BY 1")
            .await,
        ["a sk-bf-a", "b sk-bf-b", "c sk-bf-c"]
    );
}

/// A list of keys is complete: by id, else by name, each a key of that provider.
#[rstest]
#[tokio::test]
async fn key_ids_are_the_keys_that_a_config_may_use(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    database
        .execute(
            "INSERT INTO config_providers (id, name, created_at, updated_at) VALUES \
             (1, 'openai', '2026-01-01', '2026-01-01'), (2, 'azure', '2026-01-01', '2026-01-01'); \
             INSERT INTO config_keys (id, name, provider_id, provider, key_id, value, created_at, updated_at) VALUES \
             (1, 'first', 1, 'openai', 'k-1', 'x', '2026-01-01', '2026-01-01'), \
             (2, 'second', 1, 'openai', 'k-2', 'x', '2026-01-01', '2026-01-01'), \
             (3, 'k-2', 1, 'openai', 'k-3', 'x', '2026-01-01', '2026-01-01'), \
             (4, 'other', 2, 'azure', 'k-4', 'x', '2026-01-01', '2026-01-01')",
        )
        .await;
    let tollgate = tollgate().on(&database.url);
    let file = |ids: &Value| {
        said(&json!({ "virtual_keys": [
            { "id": "a", "name": "a", "value": "sk-bf-a", "provider_configs": [{ "provider": "openai", "key_ids": ids }] },
            { "id": "b", "name": "b", "value": "sk-bf-b", "provider_configs": [{ "provider": "azure" }] },
        ] }))
    };
    let run = |ids: &Value, more: &[&str]| {
        let file = file(ids);
        let name = file.path().display().to_string();
        tollgate.run(&[&["reconcile", "config", "--file", &name], more].concat())
    };
    let may = async || {
        database
            .column(
                "SELECT c.virtual_key_id || ' ' || CASE WHEN c.allow_all_keys THEN 'all' ELSE 'listed' END || ' ' || \
                 COALESCE(k.key_id, '-') FROM governance_virtual_key_provider_configs c \
                 LEFT JOIN governance_virtual_key_provider_config_keys j ON j.table_virtual_key_provider_config_id = c.id \
                 LEFT JOIN config_keys k ON k.id = j.table_key_id ORDER BY 1",
            )
            .await
    };
    // Of another provider, and of none.
    for unknown in ["k-4", "nobody"] {
        let refused = run(&json!(["k-1", unknown]), &[]);
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(
            refused
                .stderr
                .contains("$.governance.virtual_keys[0].provider_configs[0].key_ids"),
            "{refused:#?}"
        );
        assert!(refused.stderr.contains(unknown), "{refused:#?}");
        assert_eq!(database.count("governance_virtual_keys").await, 0);
    }
    // By id before name, twice the same once.
    let listed = json!(["k-2", "first", "k-1"]);
    let planned = run(&listed, &["--dry-run"]);
    assert_eq!(planned.code, 0, "{planned:#?}");
    assert!(
        planned
            .stdout
            .contains("governance_virtual_key_provider_config_keys: insert 2 rows"),
        "{planned:#?}"
    );
    assert_eq!(run(&listed, &[]).code, 0);
    assert_eq!(may().await, ["a listed k-1", "a listed k-2", "b listed -"]);
    assert_eq!(run(&listed, &["--check"]).code, 0);
    // An edit made elsewhere stays while the list is the same, and goes with the next one.
    database
        .execute("INSERT INTO governance_virtual_key_provider_config_keys VALUES ((SELECT min(id) FROM governance_virtual_key_provider_configs), 3)")
        .await;
    assert_eq!(run(&listed, &["--check"]).code, 0);
    let fewer = run(&json!(["second"]), &[]);
    assert_eq!(fewer.code, 0, "{fewer:#?}");
    assert!(fewer.stdout.contains("_keys: delete 2 rows"), "{fewer:#?}");
    assert_eq!(may().await, ["a listed k-2", "b listed -"]);
    // What is not there is named, and the rest is done, where that is asked for.
    let partly = run(&json!(["k-1", "nobody"]), &["--allow-unread"]);
    assert_eq!(partly.code, 0, "{partly:#?}");
    assert!(partly.stdout.contains("R015"), "{partly:#?}");
    assert_eq!(may().await, ["a listed k-1", "b listed -"]);
    // A list that has not changed still speaks of a row that it never described.
    database
        .execute("DELETE FROM governance_virtual_keys WHERE id = 'a'")
        .await;
    let renamed = said(&json!({ "virtual_keys": [
        { "id": "a", "name": "again", "value": "sk-bf-a", "provider_configs": [{ "provider": "openai", "key_ids": ["k-1"] }] },
    ] }));
    let name = renamed.path().display().to_string();
    let planned = tollgate.run(&["reconcile", "config", "--file", &name, "--dry-run"]);
    assert!(
        planned.stdout.contains("_keys: insert 1 row"),
        "{planned:#?}"
    );
    tollgate.succeed(&["reconcile", "config", "--file", &name]);
    assert_eq!(may().await, ["a listed k-1", "b listed -"]);
    assert_eq!(run(&json!(["*"]), &[]).code, 0);
    assert_eq!(may().await, ["a all -", "b listed -"]);
    assert_eq!(run(&json!([]), &[]).code, 0);
    assert_eq!(may().await, ["a listed -", "b listed -"]);
}
