//! `reconcile config`: the file and the database agree (`docs/upstream/bifrost.md` §3.5, §5).

mod edits;
mod mistakes;
mod oracle;
mod owners;
mod secrets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;
use serde_json::{Value, json};
use tollgate_service::governance::config::{ConfigFile, config};
use tollgate_service::reconcile::Options;
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
            { "id": "b-core", "max_limit": 500.25, "reset_duration": "1w" },
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
            "- 1w 500.25 0 2026-11-24T10:00:00Z",
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
                { "id": "never-seen", "max_limit": 90, "reset_duration": "30d" },
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
            "vk-1 30d 90 42 2026-11-24T10:00:00Z",
            "vk-1/openai 12h 3.25 1 2026-11-24T10:00:00Z",
        ]
    );
    // The row of the same window keeps its id, whatever the file calls it.
    assert_eq!(
        world
            .one("SELECT id FROM governance_budgets WHERE reset_duration = '30d'")
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
    let report = world.apply(spelt("1d", "720h")).await;
    assert_eq!(did(&report), ["budgets update 2"]);
    assert_eq!(
        world.budgets().await,
        [
            "vk-1 1d 10 9 2026-11-24T10:00:00Z",
            "vk-1 720h 100 99 2026-11-24T10:00:00Z",
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
