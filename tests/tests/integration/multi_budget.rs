//! The multi-budget migration on hand-written legacy databases, from the command line.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// Who owns what in both fixtures, by hand: budget, virtual key, provider config.
const OWNERS: [(&str, &str, &str); 7] = [
    ("b-alice", "vk-alice", "-"),
    ("b-bob", "vk-bob", "-"),
    ("b-carol-openai", "-", "2"),
    ("b-dave", "vk-dave", "-"),
    ("b-dave-bedrock", "-", "4"),
    ("b-dave-openai", "-", "3"),
    ("b-nobody", "-", "-"),
];

/// Budgets of the full fixture that belong to somebody else and keep no owner here.
const ELSEWHERE: [&str; 3] = ["b-customer", "b-provider", "b-team"];

/// Columns that the migration adds or drops, and the moved flag.
fn untouched(table: &str, column: &str) -> bool {
    !matches!(
        (table, column),
        (
            "governance_budgets",
            "virtual_key_id" | "provider_config_id" | "calendar_aligned"
        ) | ("governance_virtual_keys", "budget_id" | "calendar_aligned")
            | ("governance_virtual_key_provider_configs", "budget_id")
    )
}

async fn owners(database: &TestDatabase) -> Vec<String> {
    database
        .column(
            "SELECT id || ' ' || COALESCE(virtual_key_id, '-') || ' ' || COALESCE(CAST(provider_config_id AS text), '-') \
             FROM governance_budgets ORDER BY id",
        )
        .await
}

fn expected_owners(shape: Shape) -> Vec<String> {
    let mut rows: Vec<String> = OWNERS
        .iter()
        .map(|(budget, key, config)| format!("{budget} {key} {config}"))
        .collect();
    if shape == Shape::Full {
        rows.extend(ELSEWHERE.iter().map(|budget| format!("{budget} - -")));
    }
    rows.sort();
    rows
}

async fn aligned(database: &TestDatabase) -> Vec<String> {
    let condition = database.dialect().is_true("calendar_aligned");
    database
        .column(&format!(
            "SELECT id FROM governance_virtual_keys WHERE {condition} ORDER BY id"
        ))
        .await
}

#[rstest]
#[tokio::test]
async fn up_moves_owners_and_flags_and_leaves_everything_else(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Shape::Full, Shape::Required)] shape: Shape,
    #[values(Calendar::Flag, Calendar::None)] calendar: Calendar,
) {
    let database = legacy(backend, shape, calendar).await;
    let tollgate = tollgate().on(&database.url);
    let legacy_catalog = database.catalog().await;
    // Later migrations add tables and columns; what they hold is not what was there.
    let kept = |table: &str, column: &str| {
        untouched(table, column) && legacy_catalog.has_column(table, column)
    };
    let before = database.everything(kept).await;
    let legacy_rows = database.everything(|_, _| true).await;

    let (code, adopted) = tollgate.json(&["migrate", "adopt"]);
    assert_eq!(code, 0, "{adopted:#}");
    assert_eq!(
        adopted["tracks"][0]["to"],
        "m20260329_000001_governance_baseline"
    );
    assert_eq!(
        database.everything(|_, _| true).await,
        legacy_rows,
        "adopting touches nothing of the gateway's"
    );
    let (code, planned) = tollgate.json(&["migrate", "plan", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    assert_eq!(planned["tracks"][0]["pending"].as_array().unwrap().len(), 6);
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 3);

    let (code, up) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 0, "{up:#}");
    assert_eq!(up["tracks"][0]["applied"].as_array().unwrap().len(), 6);
    assert_eq!(
        up["tracks"][0]["to"],
        "m20260330_000007_multi_budget_contract"
    );

    let flagged: &[&str] = match calendar {
        // vk-bob by its own budget, vk-carol by that of her provider config, which upstream loses.
        Calendar::Flag => &["vk-bob", "vk-carol"],
        Calendar::None => &[],
    };
    assert_eq!(database.everything(kept).await, before);
    assert_eq!(owners(&database).await, expected_owners(shape));
    assert_eq!(aligned(&database).await, flagged);
    let catalog = database.catalog().await;
    for (table, column) in [
        ("governance_virtual_keys", "budget_id"),
        ("governance_virtual_key_provider_configs", "budget_id"),
        ("governance_budgets", "calendar_aligned"),
    ] {
        assert!(
            !catalog.has_column(table, column),
            "{table}.{column} stayed"
        );
    }
    let budgets = catalog.table("governance_budgets").unwrap();
    for name in [
        "fk_governance_virtual_keys_budgets",
        "fk_governance_virtual_key_provider_configs_budgets",
    ] {
        let key = budgets
            .foreign_keys
            .iter()
            .find(|key| key.name.as_deref() == Some(name))
            .unwrap_or_else(|| panic!("no {name}"));
        assert!(key.validated);
        assert_eq!(key.on_delete, tollgate_migration::ddl::OnDelete::Cascade);
    }
    for name in [
        "idx_governance_budgets_virtual_key_id",
        "idx_governance_budgets_provider_config_id",
    ] {
        assert!(
            budgets.index(name).is_some_and(|index| index.valid),
            "{name}"
        );
    }

    let migrated = database.everything(|_, _| true).await;
    let schema = database.schema().await;
    let (code, again) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 0);
    assert_eq!(again["tracks"][0]["applied"].as_array().unwrap().len(), 0);
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
    assert_eq!(database.everything(|_, _| true).await, migrated);

    let (code, down) = tollgate.json(&["migrate", "down", "--to", "governance_baseline"]);
    assert_eq!(code, 0, "{down:#}");
    assert_eq!(down["tracks"][0]["applied"].as_array().unwrap().len(), 6);
    assert_eq!(database.everything(untouched).await, before);
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(database.everything(|_, _| true).await, migrated);
    assert_eq!(database.schema().await, schema);
}

#[rstest]
#[tokio::test]
async fn down_brings_the_legacy_columns_back_with_their_constraints(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Shape::Full, Shape::Required)] shape: Shape,
) {
    let database = legacy(backend, shape, Calendar::Flag).await;
    let schema = database.schema().await;
    let references = "SELECT id || ' ' || COALESCE(budget_id, '-') FROM governance_virtual_keys \
         UNION ALL SELECT CAST(id AS text) || ' ' || COALESCE(budget_id, '-') FROM governance_virtual_key_provider_configs \
         ORDER BY 1";
    database
        .execute(&format!(
            "UPDATE governance_budgets SET calendar_aligned = {} WHERE id = 'b-nobody'",
            database.dialect().true_literal()
        ))
        .await;
    let flags = "SELECT id || ' ' || COALESCE(CAST(calendar_aligned AS text), '-') FROM governance_budgets ORDER BY id";
    let flagged = database.column(flags).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    let remembered = "SELECT kind || ' ' || owner FROM tollgate_remembered ORDER BY 1";
    let of_teams = if shape == Shape::Full {
        vec!["budget b-nobody", "team t-1"]
    } else {
        vec!["budget b-nobody"]
    };
    assert_eq!(database.column(remembered).await, of_teams);
    tollgate.succeed(&["migrate", "down", "--to", "governance_baseline"]);
    assert_eq!(database.count("tollgate_remembered").await, 0);

    let own = |line: &String| !line.starts_with("tollgate_");
    let restored: Vec<String> = database.schema().await.into_iter().filter(own).collect();
    assert_eq!(restored, schema, "every column, index and key is back");
    // What named no budget (dangling, empty) is gone, as announced; the rest refers to what it did.
    let mut expected = vec![
        "1 -",
        "2 b-carol-openai",
        "3 b-dave-openai",
        "4 b-dave-bedrock",
        "vk-alice b-alice",
        "vk-bob b-bob",
        "vk-carol -",
        "vk-dave b-dave",
    ];
    if shape == Shape::Required {
        expected.extend(["5 -", "vk-erin -"]);
    }
    expected.sort_unstable();
    assert_eq!(database.column(references).await, expected);
    // A team's flag has no place in the new schema, and was remembered.
    assert_eq!(database.column(flags).await, flagged);

    let (code, refused) = tollgate.json(&["migrate", "down", "--allow-data-loss"]);
    assert_eq!(code, 4, "an adopted migration never goes down: {refused:#}");
    assert_eq!(refused["error"]["code"], "adopted");
}

#[rstest]
#[case::two_keys(
    "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-bob'",
    "G001"
)]
#[case::key_and_config(
    "UPDATE governance_virtual_key_provider_configs SET budget_id = 'b-alice' WHERE id = 1",
    "G001"
)]
#[case::team("UPDATE governance_teams SET budget_id = 'b-alice'", "G002")]
#[case::customer("UPDATE governance_customers SET budget_id = 'b-dave-openai'", "G002")]
#[case::provider("UPDATE config_providers SET budget_id = 'b-bob'", "G002")]
#[tokio::test]
async fn a_shared_budget_refuses_before_the_first_write(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] sharing: &str,
    #[case] hazard: &str,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    database.execute(sharing).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "adopt"]);
    let (schema, rows) = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );

    let (code, refused) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 4, "{refused:#}");
    let blocking: Vec<&str> = refused["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "blocking")
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert_eq!(blocking, [hazard]);
    assert_eq!(database.schema().await, schema);
    assert_eq!(database.everything(|_, _| true).await, rows);

    // With `--adopt` in one step, not even the mark is left.
    let fresh = legacy(backend, Shape::Full, Calendar::Flag).await;
    fresh.execute(sharing).await;
    let schema = fresh.schema().await;
    let refused = tollgate.on(&fresh.url).run(&["migrate", "up", "--adopt"]);
    assert_eq!(refused.code, 4);
    assert!(refused.stdout.contains(hazard), "{refused:#?}");
    assert_eq!(fresh.schema().await, schema);
}

#[rstest]
#[tokio::test]
async fn dangling_and_empty_references_are_listed_and_do_not_block(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Required, Calendar::Flag).await;
    let (code, up) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{up:#}");
    let found: Vec<(String, String, Vec<String>)> = up["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["code"] == "G003" || finding["code"] == "G004")
        .map(|finding| {
            (
                finding["code"].as_str().unwrap().to_owned(),
                finding["table"].as_str().unwrap().to_owned(),
                finding["sample_ids"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|id| id.as_str().unwrap().to_owned())
                    .collect(),
            )
        })
        .collect();
    let expected = [
        ("G003", "governance_virtual_keys", "vk-erin"),
        ("G003", "governance_virtual_key_provider_configs", "5"),
        ("G004", "governance_virtual_keys", "vk-carol"),
    ]
    .map(|(code, table, id)| (code.to_owned(), table.to_owned(), vec![id.to_owned()]));
    assert_eq!(found, expected);
}

#[rstest]
#[tokio::test]
async fn phases_stop_where_they_say(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "expand"]);
    let catalog = database.catalog().await;
    assert!(catalog.has_column("governance_budgets", "virtual_key_id"));
    assert_eq!(
        database
            .count("governance_budgets WHERE virtual_key_id IS NOT NULL")
            .await,
        0
    );
    tollgate.succeed(&["migrate", "up", "--phase", "backfill"]);
    assert_eq!(owners(&database).await, expected_owners(Shape::Full));
    assert!(
        database
            .catalog()
            .await
            .has_column("governance_virtual_keys", "budget_id")
    );
    tollgate.succeed(&["migrate", "up", "--to", "multi_budget_contract"]);
    assert!(
        !database
            .catalog()
            .await
            .has_column("governance_virtual_keys", "budget_id")
    );
    // Bare `down` is one step.
    let (code, down) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 0, "{down:#}");
    assert_eq!(
        down["tracks"][0]["to"],
        "m20260330_000006_canonical_header_keys"
    );
}

#[rstest]
#[tokio::test]
async fn a_fresh_database_goes_up_and_all_the_way_down(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    let (code, up) = tollgate.json(&["--track", "governance", "migrate", "up"]);
    assert_eq!(code, 0, "{up:#}");
    assert_eq!(up["tracks"][0]["applied"].as_array().unwrap().len(), 7);
    database
        .execute(
            "INSERT INTO governance_virtual_keys (id, name, value, created_at, updated_at) \
             VALUES ('vk-1', 'One', 'sk-bf-1', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')",
        )
        .await;
    let (code, refused) = tollgate.json(&["migrate", "down", "--to", "multi_budget_expand"]);
    assert_eq!(code, 0, "{refused:#}");
    // The baseline's tables are ours here, but they hold a row now.
    tollgate.succeed(&["migrate", "down"]);
    let (code, refused) = tollgate.json(&["migrate", "down"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(refused["error"]["code"], "data_loss");
    assert_eq!(database.count("governance_virtual_keys").await, 1);
    tollgate.succeed(&["migrate", "down", "--allow-data-loss"]);
    assert!(
        !database
            .catalog()
            .await
            .has_table("governance_virtual_keys")
    );
}

#[rstest]
#[tokio::test]
async fn down_refuses_to_lose_budgets_and_lists_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    // The new gateway gave vk-alice a second budget, and turned alignment on for a key that has none.
    database
        .execute(
            "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, virtual_key_id, created_at, updated_at) \
             VALUES ('b-alice-second', 1, '1M', 0.5, 'vk-alice', '2026-05-01 00:00:00+00:00', '2026-05-01 00:00:00+00:00')",
        )
        .await;
    let (schema, rows) = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );
    let (code, refused) = tollgate.json(&["migrate", "down", "--to", "governance_baseline"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(refused["error"]["code"], "data_loss");
    assert_eq!(
        refused["findings"][0]["sample_ids"],
        serde_json::json!(["b-alice-second"])
    );
    assert_eq!(database.schema().await, schema);
    assert_eq!(database.everything(|_, _| true).await, rows);

    tollgate.succeed(&[
        "migrate",
        "down",
        "--to",
        "governance_baseline",
        "--allow-data-loss",
    ]);
    assert_eq!(
        database
            .one("SELECT budget_id FROM governance_virtual_keys WHERE id = 'vk-alice'")
            .await,
        "b-alice",
        "the oldest keeps the reference"
    );
    assert_eq!(
        database
            .count("governance_budgets WHERE id = 'b-alice-second'")
            .await,
        1,
        "the other stays, without an owner"
    );
}

#[rstest]
#[tokio::test]
async fn contract_ends_as_the_legacy_columns_say(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    // The old gateway goes on: set, moved, cleared, flag on, flag off, and a key that is new.
    for edit in [
        "UPDATE governance_virtual_keys SET budget_id = 'b-nobody' WHERE id = 'vk-carol'",
        "UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = 'vk-alice'",
        "UPDATE governance_virtual_key_provider_configs SET budget_id = 'b-alice' WHERE id = 1",
        "UPDATE governance_virtual_key_provider_configs SET budget_id = NULL WHERE id = 4",
        "UPDATE governance_budgets SET calendar_aligned = true WHERE id = 'b-dave-openai'",
        "UPDATE governance_budgets SET calendar_aligned = false WHERE id = 'b-bob'",
        "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, calendar_aligned, created_at, updated_at) \
         VALUES ('b-new', 3, '1d', 0.25, true, '2026-04-01 00:00:00+00:00', '2026-04-01 00:00:00+00:00')",
        "INSERT INTO governance_virtual_keys (id, name, value, budget_id, created_at, updated_at) \
         VALUES ('vk-new', 'New', 'sk-bf-new', 'b-new', '2026-04-01 00:00:00+00:00', '2026-04-01 00:00:00+00:00')",
    ] {
        database.execute(edit).await;
    }
    tollgate.succeed(&["migrate", "up"]);
    assert_eq!(
        owners(&database).await,
        [
            "b-alice - 1",
            "b-bob vk-bob -",
            "b-carol-openai - 2",
            "b-customer - -",
            "b-dave vk-dave -",
            "b-dave-bedrock - -",
            "b-dave-openai - 3",
            "b-new vk-new -",
            "b-nobody vk-carol -",
            "b-provider - -",
            "b-team - -",
        ]
    );
    assert_eq!(
        aligned(&database).await,
        ["vk-carol", "vk-dave", "vk-new"],
        "dave's and new's were turned on, bob's off, carol's stayed"
    );
}

#[rstest]
#[tokio::test]
async fn a_sharing_that_is_new_since_the_backfill_refuses_contract(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'")
        .await;
    let (code, refused) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 4, "{refused:#}");
    assert!(
        database
            .catalog()
            .await
            .has_column("governance_virtual_keys", "budget_id")
    );
}
