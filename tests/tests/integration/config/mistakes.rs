//! What is refused: exit 1, the place named, nothing changed.

use super::*;

#[rstest]
#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("INSERT INTO governance_budgets (id, max_limit, reset_duration, created_at, updated_at) VALUES ('b-team', 1, '1d', '2026-01-01', '2026-01-01'); \
                  INSERT INTO governance_teams (id, name, budget_id, created_at, updated_at) VALUES ('t-1', 'Core', 'b-team', '2026-01-01', '2026-01-01'); \
                  INSERT INTO governance_virtual_keys (id, name, value, created_at, updated_at) VALUES ('vk-x', 'taken', 'sk-bf-taken', '2026-01-01', '2026-01-01')")
        .await;
    let budgets = |budgets: Value| with(|key| key["budgets"] = budgets);
    let key = |key: Value| json!({ "virtual_keys": [key] });
    for (file, path, words) in [
        (
            json!({ "virtual_keys": {} }),
            "$.governance.virtual_keys",
            "expected a list",
        ),
        (
            key(json!({ "id": 7 })),
            "$.governance.virtual_keys[0].id",
            "expected a string",
        ),
        (
            key(json!({ "name": "x" })),
            "$.governance.virtual_keys[0]",
            "missing field `id`",
        ),
        (
            key(json!({ "id": "" , "name": "x" })),
            "$.governance.virtual_keys[0].id",
            "is empty",
        ),
        (
            key(json!({ "id": "vk-7" })),
            "$.governance.virtual_keys[0].name",
            "is missing",
        ),
        (
            key(json!({ "id": "vk-7", "name": "x", "is_active": "yes" })),
            "$.governance.virtual_keys[0].is_active",
            "expected a boolean",
        ),
        (
            budgets(json!([{ "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0]",
            "missing field `max_limit`",
        ),
        (
            budgets(json!([{ "max_limit": 0, "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "0 blocks for ever",
        ),
        (
            budgets(json!([{ "max_limit": -0.0, "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "0 blocks for ever",
        ),
        (
            budgets(json!([{ "max_limit": 5, "reset_duration": "Monthly" }])),
            "$.governance.virtual_keys[0].budgets[0].reset_duration",
            "write 1M",
        ),
        (
            json!({ "rate_limits": [{ "id": "r", "token_max_limit": 5, "token_reset_duration": "daily" }] }),
            "$.governance.rate_limits[0].token_reset_duration",
            "write 1d",
        ),
        (
            budgets(json!([{ "max_limit": "5", "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "expected a number",
        ),
        (
            budgets(json!([{ "max_limit": -0.01, "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "negative",
        ),
        (
            budgets(json!([{ "max_limit": 1, "reset_duration": "0d" }])),
            "$.governance.virtual_keys[0].budgets[0].reset_duration",
            "no duration",
        ),
        (
            budgets(json!([{ "max_limit": 1, "reset_duration": "-1h" }])),
            "$.governance.virtual_keys[0].budgets[0].reset_duration",
            "no duration",
        ),
        (
            budgets(json!([{ "max_limit": 1, "reset_duration": "1D" }])),
            "$.governance.virtual_keys[0].budgets[0].reset_duration",
            "no duration",
        ),
        (
            budgets(
                json!([{ "max_limit": 1, "reset_duration": "1d" }, { "max_limit": 2, "reset_duration": "1d" }]),
            ),
            "$.governance.virtual_keys[0].budgets[1].reset_duration",
            "same duration",
        ),
        (
            budgets(
                json!([{ "max_limit": 1, "reset_duration": "1d" }, { "max_limit": 2, "reset_duration": "24h" }]),
            ),
            "$.governance.virtual_keys[0].budgets[1].reset_duration",
            "same duration",
        ),
        (
            budgets(
                json!([{ "id": "b-day", "max_limit": 1, "reset_duration": "1d" }, { "id": "b-24", "max_limit": 2, "reset_duration": "24h" }]),
            ),
            "$.governance.virtual_keys[0].budgets[1].reset_duration",
            "same duration",
        ),
        (
            json!({ "budgets": [{ "id": "b-x", "max_limit": 1, "reset_duration": "1d" }],
                    "teams": [{ "id": "t-8", "name": "a", "budget_id": "b-x" }, { "id": "t-9", "name": "b", "budget_id": "b-x" }] }),
            "$.governance.teams[1].budget_id",
            "two owners",
        ),
        (
            json!({ "teams": [{ "id": "t-8", "name": "a", "budget_id": "b-day" }] }),
            "$.governance.teams[0].budget_id",
            "belongs to virtual key",
        ),
        (
            budgets(
                json!([{ "max_limit": serde_json::from_str::<Value>("1e-20000").unwrap(), "reset_duration": "1d" }]),
            ),
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "too small",
        ),
        (
            key(json!({ "id": "k".repeat(256), "name": "x" })),
            "$.governance.virtual_keys[0].id",
            "256 characters",
        ),
        (
            budgets(
                json!([{ "max_limit": 1, "reset_duration": "1M" }, { "max_limit": 2, "reset_duration": "30d" }]),
            ),
            "$.governance.virtual_keys[0].budgets[1].reset_duration",
            "same duration",
        ),
        (
            budgets(
                json!([{ "id": "b", "max_limit": 1, "reset_duration": "1d" }, { "id": "b", "max_limit": 2, "reset_duration": "1w" }]),
            ),
            "$.governance.virtual_keys[0].budgets[1].id",
            "$.governance.virtual_keys[0].budgets[0].id",
        ),
        (
            budgets(
                json!([{ "id": "b", "max_limit": 1, "reset_duration": "1d", "virtual_key_id": "vk-x" }]),
            ),
            "$.governance.virtual_keys[0].budgets[0].virtual_key_id",
            "another owner",
        ),
        (
            budgets(json!([{ "id": "b-team", "max_limit": 1, "reset_duration": "1d" }])),
            "$.governance.virtual_keys[0].budgets[0].id",
            "belongs to a team",
        ),
        (
            json!({ "budgets": [{ "max_limit": 1, "reset_duration": "1d" }] }),
            "$.governance.budgets[0].id",
            "is missing",
        ),
        (
            json!({ "budgets": [{ "id": "b", "max_limit": 1, "reset_duration": "1d", "virtual_key_id": "vk-1", "provider_config_id": 1 }] }),
            "$.governance.budgets[0].provider_config_id",
            "second owner",
        ),
        (
            json!({ "budgets": [{ "id": "b", "max_limit": 1, "reset_duration": "1d", "virtual_key_id": "vk-1" }], "virtual_keys": [{ "id": "vk-x", "budget_id": "b" }] }),
            "$.governance.virtual_keys[0].budget_id",
            "two owners",
        ),
        (
            json!({ "virtual_keys": [{ "id": "vk-x", "budget_id": "b" }, { "id": "vk-1", "budget_id": "b" }], "budgets": [{ "id": "b", "max_limit": 1, "reset_duration": "1d" }] }),
            "$.governance.virtual_keys[1].budget_id",
            "two owners",
        ),
        (
            json!({ "budgets": [{ "id": "b", "max_limit": 1, "reset_duration": "1d", "virtual_key_id": "vk-9" }] }),
            "$.governance.budgets[0].virtual_key_id",
            "neither in the file nor in the database",
        ),
        (
            json!({ "budgets": [{ "id": "b", "max_limit": 1, "reset_duration": "1d", "provider_config_id": 99 }] }),
            "$.governance.budgets[0].provider_config_id",
            "neither in the file nor in the database",
        ),
        (
            key(json!({ "id": "vk-1", "budget_id": "b-9" })),
            "$.governance.virtual_keys[0].budget_id",
            "neither in the file",
        ),
        (
            key(json!({ "id": "vk-1", "team_id": "t-9" })),
            "$.governance.virtual_keys[0].team_id",
            "neither in the file nor in the database",
        ),
        (
            key(json!({ "id": "vk-1", "customer_id": "c-9" })),
            "$.governance.virtual_keys[0].customer_id",
            "neither in the file nor in the database",
        ),
        (
            key(json!({ "id": "vk-1", "rate_limit_id": "r-9" })),
            "$.governance.virtual_keys[0].rate_limit_id",
            "neither in the file nor in the database",
        ),
        (
            with(|key| key["provider_configs"][0]["rate_limit_id"] = json!("r-9")),
            "$.governance.virtual_keys[0].provider_configs[0].rate_limit_id",
            "neither in the file nor in the database",
        ),
        (
            json!({ "teams": [{ "id": "t-1", "customer_id": "c-9" }] }),
            "$.governance.teams[0].customer_id",
            "neither in the file nor in the database",
        ),
        (
            json!({ "teams": [{ "id": "t-1", "budget_id": "b-9" }] }),
            "$.governance.teams[0].budget_id",
            "neither in the file nor in the database",
        ),
        (
            json!({ "customers": [{ "id": "c-1", "name": "x", "rate_limit_id": "r-9" }] }),
            "$.governance.customers[0].rate_limit_id",
            "neither in the file nor in the database",
        ),
        (
            key(json!({ "id": "vk-1", "team_id": "t-1", "customer_id": "c-1" })),
            "$.governance.virtual_keys[0].customer_id",
            "not both",
        ),
        (
            json!({ "virtual_keys": [{ "id": "vk-1" }, { "id": "vk-1" }] }),
            "$.governance.virtual_keys[1].id",
            "$.governance.virtual_keys[0].id",
        ),
        (
            json!({ "virtual_keys": [{ "id": "vk-1", "name": "x" }, { "id": "vk-x", "name": "x" }] }),
            "$.governance.virtual_keys[1].name",
            "$.governance.virtual_keys[0].name",
        ),
        (
            key(json!({ "id": "vk-7", "name": "taken" })),
            "$.governance.virtual_keys[0].name",
            "\"vk-x\" has this name",
        ),
        (
            key(json!({ "id": "vk-7", "name": "x", "value": "sk-bf-taken" })),
            "$.governance.virtual_keys[0].value",
            "\"vk-x\" has this value",
        ),
        (
            key(json!({ "id": "vk-1", "value": "env.TOLLGATE_NOBODY_SETS_THIS" })),
            "$.governance.virtual_keys[0].value",
            "TOLLGATE_NOBODY_SETS_THIS",
        ),
        (
            with(|key| key["provider_configs"] = json!([{ "provider": "" }])),
            "$.governance.virtual_keys[0].provider_configs[0].provider",
            "is empty",
        ),
        (
            json!({ "rate_limits": [{ "id": "r", "token_max_limit": 0, "token_reset_duration": "1d" }] }),
            "$.governance.rate_limits[0].token_max_limit",
            "not above zero",
        ),
        (
            json!({ "rate_limits": [{ "id": "r", "token_max_limit": 5 }] }),
            "$.governance.rate_limits[0].token_reset_duration",
            "needs a duration",
        ),
        (
            json!({ "rate_limits": [{ "id": "r", "request_max_limit": 5, "request_reset_duration": "soon" }] }),
            "$.governance.rate_limits[0].request_reset_duration",
            "no duration",
        ),
        (
            key(json!({ "id": "vk-1", "name": "a\u{0}b" })),
            "$.governance.virtual_keys[0].name",
            "NUL",
        ),
    ] {
        let message = world.reject(file.clone()).await;
        assert!(
            message.contains(&format!("{path}: ")),
            "{message}\nof {file}"
        );
        assert!(message.contains(words), "{message}\nof {file}");
        assert!(!message.contains("sk-bf"), "{message}");
    }
    // What is no JSON, or none that this is about, and what is beyond every number.
    for (text, path, words) in [
        ("{", "$", "EOF"),
        ("[]", "$", "expected an object with a governance section"),
        ("{}", "$", "missing field `governance`"),
        (
            "{\"governance\": {\"budgets\": [{]}}",
            "$.governance.budgets[0]",
            "line 1",
        ),
        ("{\"governance\": {}} x", "$", "trailing"),
        (
            "{\"governance\": {\"virtual_keys\": [{\"id\": \"vk-1\", \"budgets\": [{\"max_limit\": 1e999, \"reset_duration\": \"1d\"}]}]}}",
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "not finite",
        ),
        (
            "{\"governance\": {\"virtual_keys\": [{\"id\": \"vk-1\", \"budgets\": [{\"max_limit\": NaN, \"reset_duration\": \"1d\"}]}]}}",
            "$.governance.virtual_keys[0].budgets[0].max_limit",
            "line 1",
        ),
    ] {
        let path_of_file = world.folder.path().join("bad.json");
        std::fs::write(&path_of_file, text).unwrap();
        let (code, json) = tollgate().on(&world.database.url).json(&[
            "reconcile",
            "config",
            "--file",
            path_of_file.to_str().unwrap(),
        ]);
        let message = json["error"]["message"].as_str().unwrap();
        assert_eq!(
            (code, json["error"]["code"].as_str()),
            (1, Some("rejected")),
            "{json:#}"
        );
        assert!(
            message.contains(&format!("{path}: ")) && message.contains(words),
            "{message}"
        );
    }
    let (code, json) = tollgate().on(&world.database.url).json(&[
        "reconcile",
        "config",
        "--file",
        "no-such-file.json",
    ]);
    assert_eq!(code, 1, "{json:#}");
}

#[rstest]
#[tokio::test]
async fn a_database_whose_move_is_not_finished_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let folder = tempfile::tempdir().unwrap();
    let world = World { database, folder };
    let file = world.file(&one());
    let file = file.to_str().unwrap();
    let (code, json) =
        tollgate()
            .on(&world.database.url)
            .json(&["reconcile", "config", "--file", file]);
    assert_eq!(
        (code, json["error"]["code"].as_str()),
        (1, Some("not_found")),
        "{json:#}"
    );
    tollgate()
        .on(&world.database.url)
        .succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    let (code, json) =
        tollgate()
            .on(&world.database.url)
            .json(&["reconcile", "config", "--file", file]);
    assert_eq!(
        (code, json["error"]["code"].as_str()),
        (4, Some("not_contracted")),
        "{json:#}"
    );
    tollgate()
        .on(&world.database.url)
        .succeed(&["migrate", "up"]);
    let (code, json) = tollgate().on(&world.database.url).json(&[
        "reconcile",
        "config",
        "--file",
        file,
        "--max-changes",
        "4",
    ]);
    assert_eq!(
        (code, json["error"]["code"].as_str()),
        (4, Some("max_changes")),
        "{json:#}"
    );
    let (code, _) = tollgate().on(&world.database.url).json(&[
        "reconcile",
        "config",
        "--file",
        file,
        "--check",
    ]);
    assert_eq!(code, 3);
    tollgate()
        .on(&world.database.url)
        .succeed(&["reconcile", "config", "--file", file]);
    let (code, _) = tollgate().on(&world.database.url).json(&[
        "reconcile",
        "config",
        "--file",
        file,
        "--check",
    ]);
    assert_eq!(code, 0);
    // Owners that the file does not know are where they were.
    assert!(
        world
            .budgets()
            .await
            .iter()
            .any(|budget| budget.starts_with("vk-alice ")),
        "{:?}",
        world.budgets().await
    );
}
