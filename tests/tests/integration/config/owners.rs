//! Whose a budget is, in every spelling of the file.

use super::*;

#[rstest]
#[tokio::test]
async fn budgets_at_the_top_are_the_list_of_their_owner(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("UPDATE governance_budgets SET current_usage = 2")
        .await;
    let config = world
        .one("SELECT CAST(id AS text) FROM governance_virtual_key_provider_configs")
        .await;
    let config: i64 = config.parse().unwrap();
    let report = world
        .apply(json!({
            "budgets": [
                { "id": "b-day", "max_limit": 11, "reset_duration": "1d", "virtual_key_id": "vk-1" },
                { "id": "b-half", "max_limit": 4, "reset_duration": "12h", "provider_config_id": config },
                { "id": "b-nobody", "max_limit": 7, "reset_duration": "1d" },
            ],
        }))
        .await;
    // The month is not in the list of vk-1 any more.
    assert_eq!(
        did(&report),
        ["budgets insert 1", "budgets update 2", "budgets delete 1"]
    );
    assert_eq!(
        world.budgets().await,
        [
            "- 1d 7 0 2026-11-24T10:00:00Z",
            "vk-1 1d 11 2 2026-11-24T10:00:00Z",
            "vk-1/openai 12h 4 2 2026-11-24T10:00:00Z",
        ]
    );
}

#[rstest]
#[tokio::test]
async fn names_and_values_change_hands(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let keys = |a: &str, b: &str| {
        json!({ "virtual_keys": [
            { "id": "vk-1", "name": a, "value": format!("sk-bf-{a}") },
            { "id": "vk-2", "name": b, "value": format!("sk-bf-{b}") },
        ] })
    };
    world.apply(keys("one", "two")).await;
    assert_eq!(
        did(&world.apply(keys("two", "one")).await),
        ["virtual_keys update 2"]
    );
    assert_eq!(
        world
            .database
            .rows("governance_virtual_keys", &["id", "name", "value"])
            .await,
        ["'vk-1'|'two'|'sk-bf-two'", "'vk-2'|'one'|'sk-bf-one'"]
    );
    assert_eq!(
        world
            .one("SELECT value_hash FROM governance_virtual_keys WHERE id = 'vk-1'")
            .await,
        "2b7d2f291bdc6f243deaa9de0d621be6b4cd34e4cbafce3e00101d7522d645a7"
    );
}

/// What the file speaks of outlives its owner, with what was spent.
#[rstest]
#[tokio::test]
async fn a_listed_budget_stays_when_its_owner_goes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let budget = json!({ "id": "a", "max_limit": 10, "reset_duration": "1d" });
    let key = |id: &str| json!({ "id": id, "name": id, "value": format!("sk-bf-{id}") });
    let with = |mut key: Value, field: &str, value: Value| {
        key[field] = value;
        key
    };
    let configs = json!([{ "provider": "openai", "budgets": [budget] }]);
    for (before, after) in [
        // Of a key that is pruned, of a config whose list is empty now, and moved on to another key.
        (
            json!({ "virtual_keys": [with(key("k1"), "budgets", json!([budget])), key("k2")] }),
            json!({ "virtual_keys": [key("k2")], "budgets": [budget] }),
        ),
        (
            json!({ "virtual_keys": [with(key("k1"), "provider_configs", configs), key("k2")] }),
            json!({ "virtual_keys": [with(key("k1"), "provider_configs", json!([])), key("k2")], "budgets": [budget] }),
        ),
        (
            json!({ "virtual_keys": [with(key("k1"), "budgets", json!([budget])), key("k2")] }),
            json!({ "virtual_keys": [with(key("k2"), "budgets", json!([budget]))] }),
        ),
    ] {
        let world = World::empty(backend).await;
        world.apply(before).await;
        world
            .execute("UPDATE governance_budgets SET current_usage = 6")
            .await;
        world.prune(after).await;
        assert_eq!(
            world
                .one("SELECT id || ' ' || CAST(CAST(current_usage AS integer) AS text) FROM governance_budgets")
                .await,
            "a 6"
        );
        tollgate().on(&world.database.url).succeed(&["verify"]);
    }
    // Given to a key that the file lacks and that is pruned, it would go with it.
    let world = World::empty(backend).await;
    world
        .apply(json!({ "virtual_keys": [with(key("k1"), "budgets", json!([budget])), key("k2")] }))
        .await;
    let mut owned = budget.clone();
    owned["virtual_key_id"] = json!("k1");
    let file = ConfigFile {
        name: "the file".to_owned(),
        path: world.file(&json!({ "virtual_keys": [key("k2")], "budgets": [owned] })),
        prune: true,
        ..ConfigFile::default()
    };
    let refused = world.run(file, Options::default()).await.error.unwrap();
    assert!(
        refused
            .to_string()
            .contains("$.governance.budgets[0].virtual_key_id"),
        "{refused}"
    );
    assert_eq!(world.database.count("governance_virtual_keys").await, 2);
}

/// A limit that the file names is in force afterwards, whatever was there.
#[rstest]
#[tokio::test]
async fn nobody_is_left_without_the_limit_that_the_file_names(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let key = |more: Value| {
        let mut key = json!({ "id": "k", "name": "k", "value": "sk-bf-k" });
        for (field, value) in more.as_object().unwrap() {
            key[field] = value.clone();
        }
        json!({ "virtual_keys": [key] })
    };
    let day = json!({ "id": "a", "max_limit": 10, "reset_duration": "1d" });

    // An ownerless budget that goes to a provider config which is new itself.
    let world = World::empty(backend).await;
    let mut file = key(json!({}));
    file["budgets"] = json!([day]);
    world.apply(file).await;
    world
        .apply(key(
            json!({ "provider_configs": [{ "provider": "openai", "budgets": [day] }] }),
        ))
        .await;
    let limits = |budgets: Vec<String>| -> Vec<String> {
        budgets
            .iter()
            .map(|row| row.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(limits(world.budgets().await), ["k/openai 1d 10"]);

    // A key that was deleted elsewhere and has changed in the file is made again with all that hangs on it.
    let world = World::empty(backend).await;
    let all = json!({ "budgets": [day], "provider_configs": [{ "provider": "openai", "budgets": [{ "max_limit": 3, "reset_duration": "1w" }] }] });
    world.apply(key(all.clone())).await;
    world.execute("DELETE FROM governance_virtual_keys").await;
    let mut described = key(all);
    described["virtual_keys"][0]["description"] = json!("again");
    world.apply(described).await;
    assert_eq!(limits(world.budgets().await), ["k 1d 10", "k/openai 1w 3"]);

    // A budget that is named by its id beside a list is one of the list.
    let world = World::empty(backend).await;
    world.apply(key(json!({ "budgets": [day] }))).await;
    world
        .apply(key(
            json!({ "budget_id": "a", "budgets": [{ "max_limit": 90, "reset_duration": "1w" }] }),
        ))
        .await;
    assert_eq!(limits(world.budgets().await), ["k 1d 10", "k 1w 90"]);

    // One without an id whose duration somebody edited stays the one that the file means.
    let world = World::empty(backend).await;
    let five = json!({ "max_limit": 5, "reset_duration": "1d" });
    world.apply(key(json!({ "budgets": [five] }))).await;
    world
        .execute("UPDATE governance_budgets SET reset_duration = '1w', current_usage = 4")
        .await;
    let report = world
        .apply(key(
            json!({ "budgets": [five, { "max_limit": 50, "reset_duration": "1M" }] }),
        ))
        .await;
    assert_eq!(did(&report), ["budgets insert 1"]);
    assert_eq!(noticed(&report).len(), 1, "{report:?}");
    assert_eq!(limits(world.budgets().await), ["k 1M 50", "k 1w 5"]);
}

/// Two configs of one provider keep their budgets, whichever comes first.
#[rstest]
#[tokio::test]
async fn configs_of_one_provider_may_change_places(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let small = json!({ "provider": "openai", "weight": 0.1, "budgets": [{ "max_limit": 2, "reset_duration": "1d" }] });
    let large = json!({ "provider": "openai", "weight": 0.9, "budgets": [{ "max_limit": 100, "reset_duration": "1d" }] });
    let key = |configs: Value| json!({ "virtual_keys": [{ "id": "k", "name": "k", "value": "sk-bf-k", "provider_configs": configs }] });
    world.apply(key(json!([small, large]))).await;
    world
        .execute("UPDATE governance_budgets SET current_usage = CASE WHEN max_limit = 2 THEN 1 ELSE 50 END")
        .await;
    let spent = [
        "k/openai 1d 100 50 2026-11-24T10:00:00Z",
        "k/openai 1d 2 1 2026-11-24T10:00:00Z",
    ];
    world.apply(key(json!([large, small]))).await;
    assert_eq!(world.budgets().await, spent);
    // The first goes, and the second is not taken for it.
    world.apply(key(json!([small]))).await;
    assert_eq!(world.budgets().await, spent[1..]);
}

/// Budgets in every form of one list: what is taken out of it goes.
#[rstest]
#[tokio::test]
async fn a_budget_beside_the_list_is_one_of_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let day = json!({ "id": "a", "max_limit": 1, "reset_duration": "1d" });
    for more in ["top", "singular"] {
        let world = World::empty(backend).await;
        let key = json!({ "id": "k", "name": "k", "value": "sk-bf-k", "budgets": [day] });
        let mut both = json!({ "virtual_keys": [key] });
        let other = json!({ "id": "b", "max_limit": 2, "reset_duration": "1w" });
        if more == "top" {
            both["budgets"] = json!([other]);
            both["budgets"][0]["virtual_key_id"] = json!("k");
        } else {
            both["virtual_keys"][0]["budget"] = other;
        }
        world.apply(both).await;
        assert_eq!(world.database.count("governance_budgets").await, 2);
        let report = world.apply(json!({ "virtual_keys": [key] })).await;
        assert_eq!(did(&report), ["budgets delete 1"], "{more}: {report:?}");
    }
}

/// Customers and teams refer to budgets, and budgets to them: whatever the order, no key is violated.
#[rstest]
#[tokio::test]
async fn references_go_both_ways(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let world = World::empty(backend).await;
    world
        .execute(
            "ALTER TABLE governance_budgets ADD COLUMN customer_id varchar(255) REFERENCES governance_customers (id) ON DELETE CASCADE",
        )
        .await;
    let report = world
        .apply(json!({
            "customers": [{ "id": "c-1", "name": "Acme", "budget_id": "b-c" }],
            "budgets": [{ "id": "b-c", "max_limit": 10, "reset_duration": "1M", "customer_id": "c-1" }],
        }))
        .await;
    assert_eq!(did(&report), ["budgets insert 1", "customers insert 1"]);
    assert_eq!(
        world
            .one("SELECT c.budget_id || ' ' || b.customer_id FROM governance_customers c JOIN governance_budgets b ON b.id = c.budget_id")
            .await,
        "b-c c-1"
    );
    // A budget that was moved to another key whose own key is gone stays with it.
    let key = |id: &str, budgets: Value| json!({ "id": id, "name": id, "value": format!("sk-bf-{id}"), "budgets": budgets });
    let a = |limit: u32| json!([{ "id": "a", "max_limit": limit, "reset_duration": "1d" }]);
    let bare = json!({ "id": "k2", "name": "k2", "value": "sk-bf-k2" });
    world
        .apply(json!({ "virtual_keys": [key("k1", a(10)), bare] }))
        .await;
    world
        .execute("UPDATE governance_budgets SET virtual_key_id = 'k2' WHERE id = 'a'; DELETE FROM governance_virtual_keys WHERE id = 'k1'")
        .await;
    world
        .apply(json!({ "virtual_keys": [key("k1", a(11)), bare] }))
        .await;
    assert_eq!(
        world
            .one("SELECT virtual_key_id FROM governance_budgets WHERE id = 'a'")
            .await,
        "k2"
    );
}

/// Names of teams are unique where the database says so, and may change hands.
#[rstest]
#[tokio::test]
async fn names_of_teams_change_hands(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world
        .execute("CREATE UNIQUE INDEX idx_governance_teams_name ON governance_teams (name)")
        .await;
    let teams = |one: &str, two: &str| json!({ "teams": [{ "id": "t-1", "name": one }, { "id": "t-2", "name": two }] });
    world.apply(teams("A", "B")).await;
    assert_eq!(did(&world.apply(teams("B", "A")).await), ["teams update 2"]);
    let message = world.reject(teams("C", "C")).await;
    assert!(message.contains("$.governance.teams[1].name"), "{message}");
    world
        .execute("INSERT INTO governance_teams (id, name, created_at, updated_at) VALUES ('t-9', 'Taken', '2026-01-01', '2026-01-01')")
        .await;
    let message = world.reject(teams("Taken", "A")).await;
    assert!(
        message.contains("$.governance.teams[0].name") && message.contains("t-9"),
        "{message}"
    );
}
