//! SQLite: a table is rebuilt where ALTER cannot do it, and everything around it survives.

use tollgate_tests::Backend;
use tollgate_tests::fixture::{Calendar, Shape, legacy};

use crate::tollgate;

#[tokio::test]
async fn a_rebuild_keeps_children_triggers_views_counters_and_unknown_columns() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await;
    for sql in [
        // Somebody's own additions, which no track knows.
        "ALTER TABLE governance_virtual_keys ADD COLUMN cost_centre text DEFAULT 'none'",
        "UPDATE governance_virtual_keys SET cost_centre = 'R&D, (Bob)' WHERE id = 'vk-bob'",
        "CREATE INDEX own_cost_centre ON governance_virtual_keys(cost_centre) WHERE cost_centre <> 'none'",
        "CREATE TABLE audit (at text, what text)",
        "CREATE TABLE notes (id integer PRIMARY KEY, key_id text REFERENCES governance_virtual_keys(id) ON DELETE CASCADE, \
         config_id integer REFERENCES governance_virtual_key_provider_configs(id) ON DELETE CASCADE, body text)",
        "INSERT INTO notes (key_id, config_id, body) VALUES ('vk-alice', 1, 'a'), ('vk-dave', 3, 'b'), ('vk-dave', 4, 'c')",
        "CREATE VIEW active_keys AS SELECT id, name FROM governance_virtual_keys WHERE is_active",
        "CREATE TRIGGER key_renamed AFTER UPDATE OF name ON governance_virtual_keys BEGIN \
         INSERT INTO audit VALUES ('now', NEW.name); END",
        "CREATE TRIGGER note_written AFTER INSERT ON notes BEGIN \
         INSERT INTO audit SELECT 'now', name FROM governance_virtual_keys WHERE id = NEW.key_id; END",
        // The counter stands behind the highest id: that of a deleted row must not be given out again.
        "INSERT INTO governance_virtual_key_provider_configs (id, virtual_key_id, provider) VALUES (40, 'vk-dave', 'groq')",
        "DELETE FROM governance_virtual_key_provider_configs WHERE id = 40",
    ] {
        database.execute(sql).await;
    }
    assert_eq!(
        database
            .one("SELECT CAST(foreign_keys AS text) FROM pragma_foreign_keys")
            .await,
        "1"
    );
    let names = "SELECT type || ' ' || name FROM sqlite_schema WHERE type IN ('view', 'trigger', 'index') \
         AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%budget%' AND name NOT LIKE '%mcp%' AND name NOT LIKE '%oauth%' ORDER BY 1";
    let (objects, rowids) = (
        database.column(names).await,
        database
            .column("SELECT rowid || ' ' || id FROM governance_virtual_keys ORDER BY 1")
            .await,
    );
    let planned = tollgate().on(&database.url);
    planned.succeed(&["migrate", "adopt"]);
    let (_, plan) = planned.json(&["migrate", "plan"]);
    let contract = plan["result"]["migrations"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(
        contract["rebuilds"],
        serde_json::json!([
            "governance_virtual_keys",
            "governance_virtual_key_provider_configs",
            "governance_budgets"
        ]),
        "each once: two lose a column with a foreign key, one gets its keys to cascade"
    );
    planned.succeed(&["migrate", "up"]);

    let mut expected = objects;
    expected.push("index idx_governance_virtual_key_provider_configs_virtual_key_id".to_owned());
    expected.sort();
    assert_eq!(database.column(names).await, expected);
    assert_eq!(
        database
            .column("SELECT rowid || ' ' || id FROM governance_virtual_keys ORDER BY 1")
            .await,
        rowids
    );
    assert_eq!(
        database.count("notes").await,
        3,
        "children of both rebuilt parents"
    );
    assert_eq!(
        database.count("governance_virtual_key_mcp_configs").await,
        2
    );
    assert_eq!(
        database
            .count("governance_virtual_key_provider_config_keys")
            .await,
        4
    );
    assert_eq!(
        database
            .one("SELECT cost_centre FROM governance_virtual_keys WHERE id = 'vk-bob'")
            .await,
        "R&D, (Bob)"
    );
    assert_eq!(
        database
            .column("SELECT name FROM active_keys ORDER BY 1")
            .await,
        ["Alice", "Bob", "Dave"]
    );
    database
        .execute("UPDATE governance_virtual_keys SET name = 'Bobby' WHERE id = 'vk-bob'")
        .await;
    database
        .execute("INSERT INTO notes (key_id, body) VALUES ('vk-bob', 'd')")
        .await;
    assert_eq!(
        database.column("SELECT what FROM audit").await,
        ["Bobby", "Bobby"],
        "both triggers work"
    );
    database
        .execute("INSERT INTO governance_virtual_key_provider_configs (virtual_key_id, provider) VALUES ('vk-bob', 'groq')")
        .await;
    assert_eq!(
        database
            .one("SELECT CAST(max(id) AS text) FROM governance_virtual_key_provider_configs")
            .await,
        "41"
    );
    assert_eq!(
        database
            .column("SELECT \"table\" FROM pragma_foreign_key_check")
            .await,
        [] as [&str; 0]
    );
    assert_eq!(
        database
            .one("SELECT integrity_check FROM pragma_integrity_check")
            .await,
        "ok"
    );
    // The keys elsewhere still point at the tables by name, and still bite.
    database
        .execute("DELETE FROM governance_virtual_keys WHERE id = 'vk-dave'")
        .await;
    assert_eq!(
        database.column("SELECT body FROM notes ORDER BY 1").await,
        ["a", "d"]
    );
    assert_eq!(
        database
            .count("governance_budgets WHERE id LIKE 'b-dave%'")
            .await,
        0,
        "budgets go with their owner"
    );
}
