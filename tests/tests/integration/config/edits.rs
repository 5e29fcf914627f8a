//! Who wins where the file and somebody else have changed the same row.

use super::*;

#[rstest]
#[tokio::test]
async fn an_unchanged_entry_never_overrides_an_edit_and_a_changed_one_does(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    let edit = "UPDATE governance_budgets SET max_limit = 77 WHERE id = 'b-day'; \
                UPDATE governance_virtual_keys SET name = 'renamed', team_id = NULL WHERE id = 'vk-1'; \
                UPDATE governance_virtual_key_provider_configs SET weight = 0.75";
    world.execute(edit).await;
    let report = world.apply(one()).await;
    assert_eq!(did(&report), [""; 0]);
    let config = world
        .one("SELECT CAST(id AS text) FROM governance_virtual_key_provider_configs")
        .await;
    assert_eq!(
        noticed(&report),
        ["R005 b-day", &format!("R005 {config}"), "R005 vk-1"]
    );
    // A change of the key's description lets the file win for the key, and for nothing else.
    let described = with(|key| key["description"] = json!("changed"));
    let report = world.apply(described.clone()).await;
    assert_eq!(did(&report), ["virtual_keys update 1"]);
    assert_eq!(
        world.one("SELECT name FROM governance_virtual_keys").await,
        "one"
    );
    assert_eq!(noticed(&report), ["R005 b-day", &format!("R005 {config}")]);
    // A change of the limit lets it win there.
    let limited = |limit: i64| {
        with(|key| {
            key["description"] = json!("changed");
            key["budgets"][0]["max_limit"] = json!(limit);
        })
    };
    let report = world.apply(limited(12)).await;
    assert_eq!(did(&report), ["budgets update 1"]);
    assert_eq!(noticed(&report), [format!("R005 {config}")]);
    // --force wins everywhere.
    let report = world.force(limited(12)).await;
    assert_eq!(did(&report), ["virtual_key_provider_configs update 1"]);
    assert_eq!(noticed(&report), [""; 0]);
}

#[rstest]
#[tokio::test]
async fn rows_that_were_added_or_deleted_elsewhere_stay_so(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("DELETE FROM governance_budgets WHERE id = 'b-day'; \
                  INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, virtual_key_id, created_at, updated_at) \
                  VALUES ('b-added', 1, '1w', 0.5, 'vk-1', '2026-01-01', '2026-01-01')")
        .await;
    let report = world.apply(one()).await;
    assert_eq!(did(&report), [""; 0]);
    assert_eq!(noticed(&report), ["R006 b-added", "R007 b-day"]);
    // The whole key, with what hangs on it.
    world
        .execute("DELETE FROM governance_budgets; DELETE FROM governance_virtual_key_provider_configs; DELETE FROM governance_virtual_keys")
        .await;
    let report = world.apply(one()).await;
    assert_eq!(did(&report), [""; 0]);
    assert!(
        noticed(&report).contains(&"R007 vk-1".to_owned()),
        "{:?}",
        noticed(&report)
    );
    // A changed budget of a key that is gone brings nobody back.
    let limited = with(|key| key["budgets"][0]["max_limit"] = json!(12));
    assert_eq!(did(&world.apply(limited.clone()).await), [""; 0]);
    let report = world.force(limited).await;
    assert_eq!(
        did(&report),
        [
            "budgets insert 3",
            "virtual_key_provider_configs insert 1",
            "virtual_keys insert 1"
        ]
    );
    // What leaves the file and comes back is new to it.
    world.apply(with(|key| key["budgets"] = json!([]))).await;
    assert_eq!(did(&world.apply(one()).await), ["budgets insert 2"]);
}

#[rstest]
#[tokio::test]
async fn what_the_file_said_and_says_no_more_is_taken_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let teams = json!([{ "id": "t-1", "name": "Core" }]);
    let limits = json!([{ "id": "r-1", "request_max_limit": 5, "request_reset_duration": "1h" }]);
    let full = json!({ "teams": teams, "rate_limits": limits, "customers": [{ "id": "c-1", "name": "Acme" }], "virtual_keys": [
        { "id": "vk-1", "name": "one", "value": "sk-bf-1", "team_id": "t-1", "rate_limit_id": "r-1", "calendar_aligned": true }] });
    world.apply(full.clone()).await;
    // Never said: left alone.
    world
        .execute("UPDATE governance_virtual_keys SET description = 'by hand'")
        .await;
    let mut less = full.clone();
    less["virtual_keys"][0] = json!({ "id": "vk-1", "name": "one" });
    assert_eq!(did(&world.apply(less).await), ["virtual_keys update 1"]);
    assert_eq!(
        world
            .database
            .rows(
                "governance_virtual_keys",
                &["description", "value", "team_id", "rate_limit_id"]
            )
            .await,
        ["'by hand'|'sk-bf-1'|NULL|NULL"]
    );
    assert_eq!(
        world
            .database
            .count("governance_virtual_keys WHERE calendar_aligned = TRUE")
            .await,
        0
    );
    // Whoever moves to a customer leaves the team.
    world.apply(full.clone()).await;
    let mut moved = full.clone();
    moved["virtual_keys"][0] = json!({ "id": "vk-1", "name": "one", "customer_id": "c-1" });
    world.apply(moved).await;
    assert_eq!(
        world
            .database
            .rows("governance_virtual_keys", &["team_id", "customer_id"])
            .await,
        ["NULL|'c-1'"]
    );
}

#[rstest]
#[tokio::test]
async fn older_forms_are_lifted_and_reported(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let report = world
        .apply(json!({
            "budgets": [
                { "id": "b-1", "max_limit": 10, "reset_duration": "1d", "calendar_aligned": true },
                { "id": "b-2", "max_limit": 20, "reset_duration": "1M", "calendar_aligned": false },
            ],
            "virtual_keys": [
                { "id": "vk-1", "name": "one", "value": "sk-bf-1", "budget_id": "b-1",
                  "provider_configs": [{ "provider": "openai", "budget_id": "b-2" }] },
                { "id": "vk-2", "name": "two", "value": "sk-bf-2", "budget": { "max_limit": 5, "reset_duration": "1d" },
                  "provider_configs": [{ "provider": "openai", "budget": { "max_limit": 6, "reset_duration": "1w", "calendar_aligned": true } }] },
                // The key's own word counts.
                { "id": "vk-3", "name": "three", "value": "sk-bf-3", "calendar_aligned": false,
                  "budgets": [{ "max_limit": 5, "reset_duration": "1d", "calendar_aligned": true }] },
            ],
        }))
        .await;
    assert_eq!(
        noticed(&report),
        [
            "R009 $.governance.budgets[0].calendar_aligned $.governance.budgets[1].calendar_aligned \
             $.governance.virtual_keys[1].provider_configs[0].budget.calendar_aligned $.governance.virtual_keys[2].budgets[0].calendar_aligned",
            "R009 $.governance.virtual_keys[0].budget_id",
            "R009 $.governance.virtual_keys[0].provider_configs[0].budget_id",
            "R009 $.governance.virtual_keys[1].budget",
            "R009 $.governance.virtual_keys[1].provider_configs[0].budget",
        ]
    );
    assert_eq!(
        world.budgets().await,
        [
            "vk-1 1d 10 0 2026-11-24T00:00:00Z",
            "vk-1/openai 1M 20 0 2026-11-01T00:00:00Z",
            "vk-2 1d 5 0 2026-11-24T00:00:00Z",
            "vk-2/openai 1w 6 0 2026-11-23T00:00:00Z",
            "vk-3 1d 5 0 2026-11-24T10:00:00Z",
        ]
    );
    assert_eq!(
        world
            .database
            .column(
                "SELECT id FROM governance_virtual_keys WHERE calendar_aligned = TRUE ORDER BY id"
            )
            .await,
        ["vk-1", "vk-2"]
    );
}

/// What a partial file does not speak of is not forgotten, and what the file says in another spelling is no change.
#[rstest]
#[tokio::test]
async fn an_edit_survives_files_that_do_not_speak_of_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("UPDATE governance_budgets SET max_limit = 99 WHERE id = 'b-day'")
        .await;
    for file in [
        json!({ "virtual_keys": [{ "id": "vk-2", "name": "two", "value": "sk-bf-2" }] }),
        json!({ "teams": [] }),
        with(|key| {
            key.as_object_mut().unwrap().remove("budgets");
        }),
        with(|key| key["budgets"][0]["max_limit"] = serde_json::from_str("10.00").unwrap()),
        one(),
    ] {
        let report = world.apply(file).await;
        assert!(
            world
                .budgets()
                .await
                .iter()
                .any(|row| row.starts_with("vk-1 1d 99 ")),
            "{report:?}"
        );
    }
}

/// Rows of a gateway with NULL where Tollgate would write a default agree with a file that says nothing of it.
#[rstest]
#[tokio::test]
async fn nothing_said_is_nothing_changed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world
        .execute(
            "INSERT INTO governance_virtual_keys (id, name, value, description, is_active, created_at, updated_at) \
             VALUES ('vk-1', 'one', 'sk-bf-1', NULL, NULL, '2026-01-01', '2026-01-01'); \
             INSERT INTO governance_virtual_key_provider_configs (virtual_key_id, provider, weight) VALUES ('vk-1', 'openai', 1)",
        )
        .await;
    let file = json!({ "virtual_keys": [{ "id": "vk-1", "name": "one", "value": "sk-bf-1", "provider_configs": [{ "provider": "openai", "weight": 1 }] }] });
    assert_eq!(did(&world.apply(file.clone()).await), [""; 0]);
    assert_eq!(did(&world.force(file).await), [""; 0]);
    // A name that is named no more stays; what is taken back is taken back by force too.
    let told = |key: Value| json!({ "virtual_keys": [key] });
    world
        .apply(told(
            json!({ "id": "vk-1", "name": "one", "description": "x", "is_active": false }),
        ))
        .await;
    let report = world.force(told(json!({ "id": "vk-1" }))).await;
    assert_eq!(did(&report), ["virtual_keys update 1"]);
    assert_eq!(
        world
            .database
            .count("governance_virtual_keys WHERE name = 'one' AND description = '' AND is_active = TRUE")
            .await,
        1
    );
}
