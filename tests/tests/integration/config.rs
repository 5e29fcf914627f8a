//! `reconcile config`: the file and the database agree (`docs/upstream/bifrost.md` §3.5, §5).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;
use serde_json::{Value, json};
use tollgate_service::reconcile::Options;
use tollgate_service::reconcile::config::{ConfigFile, config};
use tollgate_service::runner::Session;
use tollgate_service::{Location, Outcome, Report, ShutdownSignal, Track};
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// A Tuesday.
const NOW: &str = "2026-11-24T10:00:00Z";

/// A database with a folder for files.
struct World {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl World {
    async fn empty(backend: Backend) -> Self {
        let database = TestDatabase::new(backend).await;
        tollgate()
            .on(&database.url)
            .succeed(&["migrate", "up", "--track", "governance"]);
        Self {
            database,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, governance: &Value) -> PathBuf {
        let path = self.folder.path().join("config.json");
        std::fs::write(&path, json!({ "governance": governance }).to_string()).unwrap();
        path
    }

    async fn run(&self, file: ConfigFile, options: Options) -> Outcome {
        let session = Session::new(Location::parse(&self.database.url).unwrap())
            .on(&[Track::GOVERNANCE])
            .waiting(Duration::from_secs(30));
        let now = DateTime::parse_from_rfc3339(NOW)
            .unwrap()
            .with_timezone(&Utc);
        config(&session, &file, options, now, &ShutdownSignal::default()).await
    }

    async fn applied(&self, file: ConfigFile) -> Report {
        let load = Options::dry_run();
        let before = self.database.everything(|_, _| true).await;
        let planned = self.run(file.clone(), load).await;
        assert!(planned.error.is_none(), "{:?}", planned.error);
        assert_eq!(
            before,
            self.database.everything(|_, _| true).await,
            "looking changes nothing"
        );
        let outcome = self.run(file.clone(), Options::default()).await;
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert_eq!(planned.report, outcome.report, "the plan and what was done");
        let again = self.run(file, Options::default()).await;
        assert!(again.error.is_none(), "{:?}", again.error);
        assert_eq!(again.report.changes, [], "a second run finds nothing");
        outcome.report
    }

    async fn apply(&self, governance: Value) -> Report {
        self.applied(ConfigFile {
            name: "the file".to_owned(),
            path: self.file(&governance),
            ..ConfigFile::default()
        })
        .await
    }

    async fn force(&self, governance: Value) -> Report {
        self.applied(ConfigFile {
            name: "the file".to_owned(),
            path: self.file(&governance),
            force: true,
            ..ConfigFile::default()
        })
        .await
    }

    async fn prune(&self, governance: Value) -> Report {
        self.applied(ConfigFile {
            name: "the file".to_owned(),
            path: self.file(&governance),
            prune: true,
            ..ConfigFile::default()
        })
        .await
    }

    /// The message of a file that is refused, with nothing changed.
    async fn reject(&self, governance: Value) -> String {
        let before = self.database.everything(|_, _| true).await;
        let file = ConfigFile {
            name: "the file".to_owned(),
            path: self.file(&governance),
            ..ConfigFile::default()
        };
        let outcome = self.run(file, Options::default()).await;
        assert_eq!(before, self.database.everything(|_, _| true).await);
        assert_eq!(outcome.report.changes, []);
        outcome.error.unwrap().to_string()
    }

    async fn execute(&self, sql: &str) {
        self.database.execute(sql).await;
    }

    /// Budgets as `owner duration limit usage last`, sorted.
    async fn budgets(&self) -> Vec<String> {
        let last = match self.database.backend {
            Backend::Sqlite => "strftime('%Y-%m-%dT%H:%M:%SZ', b.last_reset)",
            Backend::Postgres => {
                "to_char(b.last_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            }
        };
        let number = |column: &str| match self.database.backend {
            Backend::Sqlite => format!("printf('%g', {column})"),
            Backend::Postgres => format!("CAST(CAST({column} AS double precision) AS text)"),
        };
        self.database
            .column(&format!(
                "SELECT COALESCE(b.virtual_key_id, c.virtual_key_id || '/' || c.provider, '-') || ' ' || b.reset_duration || ' ' || \
                 {} || ' ' || {} || ' ' || {last} FROM governance_budgets b \
                 LEFT JOIN governance_virtual_key_provider_configs c ON c.id = b.provider_config_id ORDER BY 1",
                number("b.max_limit"),
                number("b.current_usage")
            ))
            .await
    }

    async fn one(&self, sql: &str) -> String {
        self.database.one(sql).await
    }
}

/// What was done: table, action and number.
fn did(report: &Report) -> Vec<String> {
    report
        .changes
        .iter()
        .map(|change| {
            format!(
                "{} {} {}",
                change.table.trim_start_matches("governance_"),
                change.action,
                change.rows
            )
        })
        .collect()
}

/// What was noticed: code and ids, but for the reminder that every change brings.
fn noticed(report: &Report) -> Vec<String> {
    report
        .findings
        .iter()
        .filter(|finding| finding.code != "R003")
        .map(|finding| format!("{} {}", finding.code, finding.sample_ids.join(" ")))
        .collect()
}

/// One virtual key with two budgets, one of a provider.
fn one() -> Value {
    json!({ "virtual_keys": [{
        "id": "vk-1", "name": "one", "value": "sk-bf-1",
        "budgets": [{ "id": "b-day", "max_limit": 10, "reset_duration": "1d" }, { "max_limit": 100, "reset_duration": "1M" }],
        "provider_configs": [{ "provider": "openai", "weight": 0.5, "allowed_models": ["*"], "budgets": [{ "max_limit": 3.25, "reset_duration": "12h" }] }],
    }] })
}

/// The key of [`one`], changed.
fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut file = one();
    change(&mut file["virtual_keys"][0]);
    file
}

#[rstest]
#[tokio::test]
async fn everything_of_a_file_is_made_and_found_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let file = json!({
        "rate_limits": [{ "id": "r-1", "token_max_limit": 1000, "token_reset_duration": "1d", "request_max_limit": 5, "request_reset_duration": "1m" }],
        "customers": [{ "id": "c-1", "name": "Acme", "budget_id": "b-acme" }],
        "teams": [{ "id": "t-1", "name": "Core", "customer_id": "c-1", "budget_id": "b-core" }],
        "budgets": [
            { "id": "b-acme", "max_limit": 1000, "reset_duration": "1M" },
            { "id": "b-core", "max_limit": 500.25, "reset_duration": "weekly" },
            { "id": "b-two", "max_limit": 5, "reset_duration": "1d", "virtual_key_id": "vk-2" },
        ],
        "virtual_keys": [
            { "id": "vk-1", "name": "one", "description": "first", "value": "sk-bf-1", "team_id": "t-1", "rate_limit_id": "r-1",
              "calendar_aligned": true, "budgets": [{ "max_limit": 10, "reset_duration": "1d" }, { "id": "b-month", "max_limit": 100, "reset_duration": "1M" }],
              "provider_configs": [{ "provider": "openai", "weight": 0.5, "allowed_models": ["gpt-4o", "o3"], "allow_all_keys": true,
                "rate_limit_id": "r-1", "budgets": [{ "max_limit": 3.25, "reset_duration": "12h" }, { "max_limit": 7, "reset_duration": "1w" }] }] },
            { "id": "vk-2", "name": "two", "value": "sk-bf-2", "customer_id": "c-1", "is_active": false },
        ],
    });
    let report = world.apply(file).await;
    assert_eq!(
        did(&report),
        [
            "budgets insert 7",
            "customers insert 1",
            "virtual_key_provider_configs insert 1",
            "rate_limits insert 1",
            "teams insert 1",
            "virtual_keys insert 2"
        ]
    );
    assert_eq!(noticed(&report), [""; 0]);
    assert_eq!(
        world.budgets().await,
        [
            "- 1M 1000 0 2026-11-24T10:00:00Z",
            "- weekly 500.25 0 2026-11-24T10:00:00Z",
            // The calendar's month, day and week; what does not align begins now.
            "vk-1 1M 100 0 2026-11-01T00:00:00Z",
            "vk-1 1d 10 0 2026-11-24T00:00:00Z",
            "vk-1/openai 12h 3.25 0 2026-11-24T10:00:00Z",
            "vk-1/openai 1w 7 0 2026-11-23T00:00:00Z",
            "vk-2 1d 5 0 2026-11-24T10:00:00Z",
        ]
    );
    assert_eq!(
        world
            .database
            .rows(
                "governance_virtual_keys",
                &[
                    "id",
                    "name",
                    "description",
                    "value",
                    "team_id",
                    "customer_id",
                    "rate_limit_id",
                    "config_hash",
                    "encryption_status",
                    "value_hash"
                ]
            )
            .await,
        [
            // SHA-256 as sha256sum has it.
            "'vk-1'|'one'|'first'|'sk-bf-1'|'t-1'|NULL|'r-1'|NULL|'plain_text'|'319ade04a8ea9c06d51524e78fcc6a20e771b27341ac0c6fc975037d4438d966'",
            "'vk-2'|'two'|''|'sk-bf-2'|NULL|'c-1'|NULL|NULL|'plain_text'|'6bf17ab9d16b90f76bc688815a9b75d29d1f65cfb142a8d3c1b7b911895467f9'",
        ]
    );
    assert_eq!(
        world.one("SELECT provider || ' ' || allowed_models || ' ' || rate_limit_id FROM governance_virtual_key_provider_configs").await,
        "openai [\"gpt-4o\",\"o3\"] r-1"
    );
    assert_eq!(
        world
            .database
            .count("governance_virtual_keys WHERE id = 'vk-1' AND is_active = TRUE AND calendar_aligned = TRUE")
            .await,
        1
    );
    assert_eq!(
        world
            .database
            .count("governance_virtual_keys WHERE id = 'vk-2' AND is_active = FALSE AND calendar_aligned = FALSE")
            .await,
        1
    );
    // What the governance track promises holds.
    tollgate().on(&world.database.url).succeed(&["verify"]);
}

#[rstest]
#[tokio::test]
async fn usage_is_kept_and_a_new_duration_starts_from_the_closest_shorter(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("UPDATE governance_budgets SET current_usage = 7.5 WHERE id = 'b-day'; \
                  UPDATE governance_budgets SET current_usage = 42 WHERE virtual_key_id = 'vk-1' AND reset_duration = '1M'; \
                  UPDATE governance_budgets SET current_usage = 1 WHERE provider_config_id IS NOT NULL")
        .await;
    let id = world
        .one("SELECT id FROM governance_budgets WHERE virtual_key_id = 'vk-1' AND reset_duration = '1M'")
        .await;
    // By id, by owner and duration, a new one between two, one below all, one above all; a limit below what was spent.
    let report = world
        .apply(with(|key| {
            key["budgets"] = json!([
                { "id": "b-day", "max_limit": 5, "reset_duration": "1d" },
                { "id": "never-seen", "max_limit": 90, "reset_duration": "monthly" },
                { "max_limit": 30, "reset_duration": "1w" },
                { "max_limit": 2, "reset_duration": "1h" },
                { "max_limit": 1000, "reset_duration": "1Y" },
            ]);
        }))
        .await;
    assert_eq!(did(&report), ["budgets insert 3", "budgets update 2"]);
    assert_eq!(noticed(&report), ["R008 b-day"]);
    assert_eq!(
        world.budgets().await,
        [
            "vk-1 1Y 1000 42 2026-11-24T10:00:00Z",
            "vk-1 1d 5 7.5 2026-11-24T10:00:00Z",
            "vk-1 1h 2 0 2026-11-24T10:00:00Z",
            "vk-1 1w 30 7.5 2026-11-24T10:00:00Z",
            "vk-1 monthly 90 42 2026-11-24T10:00:00Z",
            "vk-1/openai 12h 3.25 1 2026-11-24T10:00:00Z",
        ]
    );
    // The row of the same window keeps its id, whatever the file calls it.
    assert_eq!(
        world
            .one("SELECT id FROM governance_budgets WHERE reset_duration = 'monthly'")
            .await,
        id
    );
}

/// `24h` and `1d` are one length: another spelling is no new budget, and opens nothing that was spent.
#[rstest]
#[tokio::test]
async fn another_spelling_of_a_duration_keeps_the_budget_with_its_usage(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let spelt = |day: &str, month: &str| {
        with(|key| {
            key["budgets"] = json!([
                { "max_limit": 10, "reset_duration": day },
                { "max_limit": 100, "reset_duration": month },
            ]);
        })
    };
    world.apply(spelt("24h", "30d")).await;
    world
        .execute(
            "UPDATE governance_budgets SET current_usage = 9 WHERE reset_duration = '24h'; \
                  UPDATE governance_budgets SET current_usage = 99 WHERE reset_duration = '30d'",
        )
        .await;
    let report = world.apply(spelt("1d", "monthly")).await;
    assert_eq!(did(&report), ["budgets update 2"]);
    assert_eq!(
        world.budgets().await,
        [
            "vk-1 1d 10 9 2026-11-24T10:00:00Z",
            "vk-1 monthly 100 99 2026-11-24T10:00:00Z",
            "vk-1/openai 12h 3.25 0 2026-11-24T10:00:00Z",
        ]
    );
}

/// The database may hold two budgets of one length, which no file may.
#[rstest]
#[tokio::test]
async fn of_two_rows_of_one_length_a_word_means_its_own(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let key = json!({ "id": "vk-1", "name": "one", "value": "sk-bf-1" });
    world.apply(json!({ "virtual_keys": [key] })).await;
    world
        .execute("INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, virtual_key_id, created_at, updated_at) \
                  VALUES ('b-24', 10, '24h', 5, 'vk-1', '2026-01-01', '2026-01-01'), ('b-1d', 10, '1d', 2, 'vk-1', '2026-01-01', '2026-01-01')")
        .await;
    let mut listed = key;
    listed["budgets"] = json!([{ "max_limit": 10, "reset_duration": "1d" }]);
    let report = world.apply(json!({ "virtual_keys": [listed] })).await;
    assert_eq!(did(&report), ["budgets delete 1"]);
    assert_eq!(world.one("SELECT id FROM governance_budgets").await, "b-1d");
}

#[rstest]
#[tokio::test]
async fn a_present_list_is_complete_and_an_absent_one_is_left_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    let untouched = world.budgets().await;
    // Absent, or null.
    let report = world
        .apply(with(|key| {
            key.as_object_mut().unwrap().remove("budgets");
            key["provider_configs"] = Value::Null;
        }))
        .await;
    assert_eq!(did(&report), [""; 0]);
    assert_eq!(world.budgets().await, untouched);
    // A key that the file lacks.
    assert_eq!(
        did(&world.apply(json!({ "virtual_keys": [] })).await),
        [""; 0]
    );
    assert_eq!(world.budgets().await, untouched);
    // One that lacks one of two.
    let report = world
        .apply(with(|key| {
            key["budgets"].as_array_mut().unwrap().remove(0);
        }))
        .await;
    assert_eq!(did(&report), ["budgets delete 1"]);
    // Empty ones.
    let report = world
        .apply(with(|key| {
            key["budgets"] = json!([]);
            key["provider_configs"][0]["budgets"] = json!([]);
        }))
        .await;
    assert_eq!(did(&report), ["budgets delete 2"]);
    assert_eq!(world.budgets().await, [""; 0]);
    let report = world
        .apply(with(|key| {
            key["budgets"] = json!([]);
            key["provider_configs"] = json!([]);
        }))
        .await;
    assert_eq!(did(&report), ["virtual_key_provider_configs delete 1"]);
}

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
                { "id": "b-nobody", "max_limit": 0, "reset_duration": "1d" },
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
            "- 1d 0 0 2026-11-24T10:00:00Z",
            "vk-1 1d 11 2 2026-11-24T10:00:00Z",
            "vk-1/openai 12h 4 2 2026-11-24T10:00:00Z",
        ]
    );
}

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

#[rstest]
#[tokio::test]
async fn pruning_takes_what_the_file_lacks_and_leaves_what_others_need(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let mut two = one();
    let mut other = two["virtual_keys"][0].clone();
    other["id"] = json!("vk-2");
    other["name"] = json!("two");
    other["value"] = json!("sk-bf-2");
    other["rate_limit_id"] = json!("r-1");
    other["budgets"][0]["id"] = json!("b-other");
    two["virtual_keys"].as_array_mut().unwrap().push(other);
    two["rate_limits"] =
        json!([{ "id": "r-1", "request_max_limit": 5, "request_reset_duration": "1h" }]);
    world.apply(two).await;
    world
        .execute("INSERT INTO governance_teams (id, name, budget_id, created_at, updated_at) VALUES ('t-1', 'Core', 'b-other', '2026-01-01', '2026-01-01')")
        .await;
    // Without the flag it stays; without the list nothing is lacking.
    assert_eq!(did(&world.apply(one()).await), [""; 0]);
    assert_eq!(did(&world.prune(json!({ "teams": [] })).await), [""; 0]);
    // The name goes to another key at once.
    let report = world
        .prune(with(|key| {
            key["name"] = json!("two");
            key["provider_configs"] = json!([]);
        }))
        .await;
    assert_eq!(
        did(&report),
        [
            "virtual_keys update 1",
            "budgets detach 1",
            "budgets delete 3",
            "virtual_key_provider_configs delete 2",
            "rate_limits delete 1",
            "virtual_keys delete 1",
        ]
    );
    assert_eq!(noticed(&report), ["R004 b-other"]);
    assert_eq!(
        world.budgets().await,
        [
            "- 1d 10 0 2026-11-24T10:00:00Z",
            "vk-1 1M 100 0 2026-11-24T10:00:00Z",
            "vk-1 1d 10 0 2026-11-24T10:00:00Z",
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

#[rstest]
#[tokio::test]
async fn encrypted_values_are_compared_by_their_hash(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("UPDATE governance_virtual_keys SET value = 'ciphertext', encryption_status = 'encrypted'")
        .await;
    let same = with(|key| key["description"] = json!("new"));
    let report = world.apply(same).await;
    assert_eq!(did(&report), ["virtual_keys update 1"]);
    assert_eq!(noticed(&report), [""; 0]);
    let other = with(|key| key["value"] = json!("sk-bf-other"));
    let report = world.apply(other.clone()).await;
    assert_eq!(noticed(&report), ["R011 vk-1"]);
    assert_eq!(
        world
            .database
            .rows("governance_virtual_keys", &["value", "value_hash"])
            .await,
        [format!(
            "'ciphertext'|'{}'",
            "319ade04a8ea9c06d51524e78fcc6a20e771b27341ac0c6fc975037d4438d966"
        )]
    );
    let mut new = other;
    new["virtual_keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "id": "vk-9", "name": "nine", "value": "sk-bf-9" }));
    let message = world.reject(new).await;
    assert!(
        message.contains("$.governance.virtual_keys[1]") && message.contains("encrypts"),
        "{message}"
    );
    assert!(!message.contains("sk-bf"), "{message}");
}

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
                json!([{ "max_limit": 1, "reset_duration": "1d" }, { "max_limit": 2, "reset_duration": "Daily" }]),
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
async fn the_environment_gives_values_and_nobody_prints_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let file = world.file(&json!({ "virtual_keys": [{ "id": "vk-1", "name": "one", "value": "env.THE_KEY" }, { "id": "vk-2", "name": "two" }] }));
    let arguments = [
        "-vvv",
        "reconcile",
        "config",
        "--file",
        file.to_str().unwrap(),
    ];
    let run = tollgate()
        .on(&world.database.url)
        .with("THE_KEY", "sk-bf-from-the-environment")
        .run(&arguments);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(
        world
            .one("SELECT value FROM governance_virtual_keys WHERE id = 'vk-1'")
            .await,
        "sk-bf-from-the-environment"
    );
    // A key that is made says that it is, and not what it is.
    let made = world
        .one("SELECT value FROM governance_virtual_keys WHERE id = 'vk-2'")
        .await;
    assert!(made.starts_with("sk-bf-") && made.len() == 42, "{made}");
    let history = tollgate()
        .on(&world.database.url)
        .run(&["history", "--run", "2", "--output", "json"]);
    for text in [&run.stdout, &run.stderr, &history.stdout] {
        assert!(
            !text.contains("from-the-environment") && !text.contains(&made),
            "{text}"
        );
        assert!(
            !text.contains("dbcb4f650d4a8b6177782c8470d2067dfebcdb7b523fc308158c1ea2ab88e7a7"),
            "{text}"
        );
    }
    assert!(run.stdout.contains("R012"), "{run:#?}");
}

/// A key's value in the place of something else is not repeated, and ids may be any text.
#[rstest]
#[tokio::test]
async fn a_value_in_the_wrong_place_is_not_repeated(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    for file in [
        json!({ "virtual_keys": ["sk-bf-leak"] }),
        json!({ "virtual_keys": "sk-bf-leak" }),
        json!({ "virtual_keys": [{ "id": "k", "name": "k", "value": 13572468 }] }),
        json!({ "virtual_keys": [{ "id": "k", "name": "k", "is_active": "sk-bf-leak" }] }),
    ] {
        let message = world.reject(file).await;
        assert!(
            !message.contains("leak")
                && !message.contains("13572468")
                && message.contains("expected"),
            "{message}"
        );
    }
    let report = world
        .apply(json!({ "virtual_keys": [{ "id": "@é", "name": "at", "value": "sk-bf-at" }, { "id": "@v3p9", "name": "like a place", "value": "sk-bf-place" }] }))
        .await;
    assert_eq!(report.changes[0].sample_ids, ["@v3p9", "@é"]);
}

/// The values of encrypted rows are known by their hash alone, and are as taken as others.
#[rstest]
#[tokio::test]
async fn an_encrypted_value_is_taken_too(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    // SHA-256 of sk-bf-2, as sha256sum has it.
    world
        .execute(
            "INSERT INTO governance_virtual_keys (id, name, value, value_hash, encryption_status, created_at, updated_at) VALUES \
             ('vk-x', 'x', 'cipher', '6bf17ab9d16b90f76bc688815a9b75d29d1f65cfb142a8d3c1b7b911895467f9', 'encrypted', '2026-01-01', '2026-01-01')",
        )
        .await;
    let message = world
        .reject(with(|key| key["value"] = json!("sk-bf-2")))
        .await;
    assert!(
        message.contains("$.governance.virtual_keys[0].value") && message.contains("vk-x"),
        "{message}"
    );
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

    // A key that was deleted elsewhere and has changed in the file is made anew with all that hangs on it.
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

/// One edit of a file.
#[derive(Clone, Debug)]
enum Edit {
    Limit(usize, u32),
    Duration(usize, usize),
    AddBudget(usize, usize, u32),
    DropBudget(usize),
    DropList(usize),
    EmptyList(usize),
    Rename(usize, u32),
    Align(usize),
    AddKey(u32),
    DropKey(usize),
    AddConfig(usize, usize),
    DropConfigs(usize),
    Weigh(usize, u32),
}

const DURATIONS: [&str; 8] = ["1h", "12h", "1d", "24h", "7d", "1w", "1M", "1Y"];

/// Whether a list has a budget whose window is as long as that of a word.
fn has_length(list: &[Value], word: &str) -> bool {
    let length = |word: &str| match word {
        "24h" => "1d".to_owned(),
        "7d" => "1w".to_owned(),
        word => word.to_owned(),
    };
    list.iter()
        .any(|budget| length(budget["reset_duration"].as_str().unwrap()) == length(word))
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<usize>(), 0u32..500).prop_map(|(a, b)| Edit::Limit(a, b)),
        2 => (any::<usize>(), 0usize..8).prop_map(|(a, b)| Edit::Duration(a, b)),
        4 => (any::<usize>(), 0usize..8, 0u32..500).prop_map(|(a, b, c)| Edit::AddBudget(a, b, c)),
        2 => any::<usize>().prop_map(Edit::DropBudget),
        1 => any::<usize>().prop_map(Edit::DropList),
        1 => any::<usize>().prop_map(Edit::EmptyList),
        1 => (any::<usize>(), 0u32..9).prop_map(|(a, b)| Edit::Rename(a, b)),
        1 => any::<usize>().prop_map(Edit::Align),
        2 => (0u32..6).prop_map(Edit::AddKey),
        1 => any::<usize>().prop_map(Edit::DropKey),
        2 => (any::<usize>(), 0usize..3).prop_map(|(a, b)| Edit::AddConfig(a, b)),
        1 => any::<usize>().prop_map(Edit::DropConfigs),
        1 => (any::<usize>(), 0u32..100).prop_map(|(a, b)| Edit::Weigh(a, b)),
    ]
}

/// Every list of budgets in a file.
fn lists(file: &mut Value) -> Vec<&mut Vec<Value>> {
    let mut lists = Vec::new();
    for key in file["virtual_keys"].as_array_mut().unwrap() {
        let key = key.as_object_mut().unwrap();
        let mut both: Vec<&mut Value> = Vec::new();
        for (name, value) in key.iter_mut() {
            match name.as_str() {
                "budgets" => both.push(value),
                "provider_configs" => {
                    for config in value.as_array_mut().unwrap() {
                        both.extend(config.get_mut("budgets"));
                    }
                }
                _ => {}
            }
        }
        lists.extend(both.into_iter().filter_map(Value::as_array_mut));
    }
    lists
}

fn change(file: &mut Value, edit: &Edit, number: usize) {
    let keys = file["virtual_keys"].as_array().unwrap().len();
    let budget = |file: &mut Value, which: usize, act: &dyn Fn(&mut Vec<Value>, usize)| {
        let mut lists: Vec<&mut Vec<Value>> = lists(file)
            .into_iter()
            .filter(|list| !list.is_empty())
            .collect();
        if !lists.is_empty() {
            let place = which % lists.len();
            let inside = (which / 7) % lists[place].len();
            act(lists[place], inside);
        }
    };
    let key = |file: &mut Value, which: usize, act: &dyn Fn(&mut Value)| {
        if keys > 0 {
            act(&mut file["virtual_keys"][which % keys]);
        }
    };
    match edit {
        Edit::Limit(which, limit) => budget(file, *which, &|list, i| {
            list[i]["max_limit"] = json!(f64::from(*limit) / 4.0)
        }),
        Edit::Duration(which, duration) => budget(file, *which, &|list, i| {
            let word = DURATIONS[*duration];
            let others: Vec<Value> = (0..list.len())
                .filter(|other| *other != i)
                .map(|other| list[other].clone())
                .collect();
            if !has_length(&others, word) {
                list[i]["reset_duration"] = json!(word);
            }
        }),
        Edit::AddBudget(which, duration, limit) => {
            let mut lists = lists(file);
            if !lists.is_empty() {
                let place = which % lists.len();
                let word = DURATIONS[*duration];
                if !has_length(lists[place], word) {
                    let mut budget = json!({ "max_limit": limit, "reset_duration": word });
                    if limit % 2 == 0 {
                        budget["id"] = json!(format!("b-{number}"));
                    }
                    lists[place].push(budget);
                }
            }
        }
        Edit::DropBudget(which) => budget(file, *which, &|list, i| {
            list.remove(i);
        }),
        Edit::DropList(which) => key(file, *which, &|key| {
            key.as_object_mut().unwrap().remove("budgets");
        }),
        Edit::EmptyList(which) => key(file, *which, &|key| key["budgets"] = json!([])),
        Edit::Rename(which, name) => key(file, *which, &|key| {
            key["name"] = json!(format!("{} {name}", key["id"]))
        }),
        Edit::Align(which) => key(file, *which, &|key| {
            key["calendar_aligned"] = json!(key["calendar_aligned"] != json!(true))
        }),
        Edit::AddKey(which) => {
            let id = format!("vk-{which}");
            let keys = file["virtual_keys"].as_array_mut().unwrap();
            if keys.iter().all(|key| key["id"] != id.as_str()) {
                keys.push(json!({ "id": id, "name": format!("{id} new"), "budgets": [{ "max_limit": 9, "reset_duration": "1d" }], "provider_configs": [] }));
            }
        }
        Edit::DropKey(which) => {
            if keys > 0 {
                file["virtual_keys"]
                    .as_array_mut()
                    .unwrap()
                    .remove(which % keys);
            }
        }
        Edit::AddConfig(which, provider) => key(file, *which, &|key| {
            let provider = ["openai", "anthropic", "bedrock"][*provider];
            if !key["provider_configs"].is_array() {
                key["provider_configs"] = json!([]);
            }
            let configs = key["provider_configs"].as_array_mut().unwrap();
            if configs.iter().all(|config| config["provider"] != provider) {
                configs.push(json!({ "provider": provider, "budgets": [{ "max_limit": 4, "reset_duration": "1w" }] }));
            }
        }),
        Edit::DropConfigs(which) => key(file, *which, &|key| key["provider_configs"] = json!([])),
        Edit::Weigh(which, weight) => key(file, *which, &|key| {
            if let Some(configs) = key["provider_configs"].as_array_mut() {
                for config in configs {
                    config["weight"] = json!(f64::from(*weight) / 8.0);
                }
            }
        }),
    }
}

/// What the file says of the budgets whose list is present: owner, duration and limit.
fn said(file: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |owner: &str, list: &Value| {
        for budget in list.as_array().into_iter().flatten() {
            said.push(format!(
                "{owner} {} {}",
                budget["reset_duration"].as_str().unwrap(),
                budget["max_limit"].as_f64().unwrap()
            ));
        }
    };
    for key in file["virtual_keys"].as_array().unwrap() {
        let id = key["id"].as_str().unwrap();
        say(id, &key["budgets"]);
        for config in key["provider_configs"].as_array().into_iter().flatten() {
            say(
                &format!("{id}/{}", config["provider"].as_str().unwrap()),
                &config["budgets"],
            );
        }
    }
    said.sort();
    said
}

impl World {
    /// The usage of every budget.
    async fn usage(&self) -> BTreeMap<String, f64> {
        self.database
            .column("SELECT id || '|' || CAST(COALESCE(current_usage, 0) AS text) FROM governance_budgets")
            .await
            .into_iter()
            .map(|row| {
                let (id, usage) = row.rsplit_once('|').unwrap();
                (id.to_owned(), usage.parse().unwrap())
            })
            .collect()
    }

    /// A file that is edited ten times, with usage recorded in between.
    async fn edited(&self, edits: &[Edit]) {
        let mut file = one();
        self.apply(file.clone()).await;
        for (number, edit) in edits.iter().enumerate() {
            self.execute(&format!(
                "UPDATE governance_budgets SET current_usage = current_usage + {number}.25"
            ))
            .await;
            let before = self.usage().await;
            change(&mut file, edit, number);
            self.apply(file.clone()).await;
            let after = self.usage().await;
            for (id, usage) in &after {
                if let Some(was) = before.get(id) {
                    assert!(usage >= was, "{id}: {was} -> {usage} by {edit:?}");
                }
            }
            // Nobody but the file has touched a budget, so the database has what it says, and for lists that it does not
            // have nothing is lost.
            let there: Vec<String> = self
                .budgets()
                .await
                .iter()
                .map(|row| row.split(' ').take(3).collect::<Vec<_>>().join(" "))
                .collect();
            for one in said(&file) {
                assert!(
                    there.contains(&one),
                    "{one} is not in {there:#?} after {edit:?}"
                );
            }
            let absent = matches!(edit, Edit::DropKey(_) | Edit::DropList(_));
            if absent {
                assert!(
                    before.keys().all(|id| after.contains_key(id)),
                    "{edit:?} deletes nothing"
                );
            }
        }
    }
}

/// The same edits every time.
fn files(seed: u8, number: usize) -> Vec<Vec<Edit>> {
    let mut runner = TestRunner::new_with_rng(
        Runs::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
    );
    (0..number)
        .map(|_| {
            proptest::collection::vec(edit(), 10)
                .new_tree(&mut runner)
                .unwrap()
                .current()
        })
        .collect()
}

#[rstest]
#[case(Backend::Sqlite, 8)]
#[case(Backend::Postgres, 3)]
#[tokio::test]
async fn no_edit_of_a_file_loses_usage(#[case] backend: Backend, #[case] number: usize) {
    for edits in files(11, number) {
        World::empty(backend).await.edited(&edits).await;
    }
}

#[rstest]
#[tokio::test]
async fn statements_do_not_grow_with_the_entries(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let mark = world.folder.path().join("count");
    let file = |keys: usize| {
        let keys: Vec<Value> = (0..keys)
            .map(|i| {
                json!({ "id": format!("vk-{i}"), "name": format!("key {i}"), "value": format!("sk-bf-{i}"),
                        "budgets": [{ "max_limit": 1, "reset_duration": "1d" }, { "max_limit": 2, "reset_duration": "1w" }, { "max_limit": 3, "reset_duration": "1M" }] })
            })
            .collect();
        json!({ "virtual_keys": keys })
    };
    let mut counted = Vec::new();
    // The first run makes Tollgate's own tables.
    for keys in [1, 20, 3000] {
        let path = world.file(&file(keys));
        tollgate()
            .on(&world.database.url)
            .with("TOLLGATE_FAULT", "count:0")
            .with("TOLLGATE_FAULT_MARK", &mark.display().to_string())
            .succeed(&["reconcile", "config", "--file", path.to_str().unwrap()]);
        counted.push(
            std::fs::read_to_string(&mark)
                .unwrap()
                .parse::<u32>()
                .unwrap(),
        );
    }
    assert_eq!(world.database.count("governance_budgets").await, 9000);
    assert_eq!(counted[1], counted[2], "{counted:?}");
    crate::say(&format!(
        "reconcile config, {}: {} statements",
        backend_name(backend),
        counted[2]
    ));
}

fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Sqlite => "SQLite",
        Backend::Postgres => "PostgreSQL",
    }
}
