//! Budgets at work (`docs/upstream/bifrost.md` §3, §4.10): windows, the chain, what a request cost, clean deletion.

mod deletion;
mod reset;
mod windows;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use jiff::civil::Weekday;
use jiff::tz::TimeZone as Zone;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;
use tollgate_service::governance::budget::window::{Alignment, Due, Unit, Window};
use tollgate_service::governance::budget::{Asked, Budgets, Cost};
use tollgate_service::governance::resets::resets;
use tollgate_service::reconcile::Options;
use tollgate_service::runner::Session;
use tollgate_service::{Location, Report, ShutdownSignal, Track};
use tollgate_tests::fixture::{Calendar, Shape, SilentKeys, legacy, with_credentials};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("{}Z", text.replace(' ', "T")))
        .unwrap()
        .with_timezone(&Utc)
}

async fn migrated(backend: Backend) -> TestDatabase {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    database
}

/// Runs the routine at an instant.
async fn sweep(database: &TestDatabase, now: &str) -> Report {
    let session = Session::new(Location::parse(&database.url).unwrap())
        .on(&[Track::GOVERNANCE])
        .waiting(Duration::from_secs(30));
    let day = Duration::from_secs(86_400);
    let planned = resets(
        &session,
        day,
        Options::dry_run(),
        at(now),
        &ShutdownSignal::default(),
    )
    .await;
    assert!(planned.error.is_none(), "{:?}", planned.error);
    let outcome = resets(
        &session,
        day,
        Options::default(),
        at(now),
        &ShutdownSignal::default(),
    )
    .await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(planned.report, outcome.report, "the plan and what was done");
    let again = resets(
        &session,
        day,
        Options::default(),
        at(now),
        &ShutdownSignal::default(),
    )
    .await;
    assert_eq!(again.report.changes, [], "a second run finds nothing");
    outcome.report
}

/// What a sweep did: table, action and ids.
fn did(report: &Report) -> Vec<String> {
    report
        .changes
        .iter()
        .map(|change| {
            format!(
                "{} {} {}: {}",
                change.table.trim_start_matches("governance_"),
                change.action,
                change.rows,
                change.sample_ids.join(" ")
            )
        })
        .collect()
}

/// Budgets as `id usage last`.
async fn budgets(database: &TestDatabase, condition: &str) -> Vec<String> {
    let last = match database.backend {
        Backend::Sqlite => "strftime('%Y-%m-%d %H:%M:%S', last_reset)",
        Backend::Postgres => "to_char(last_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')",
    };
    let usage = match database.backend {
        Backend::Sqlite => "printf('%g', current_usage)",
        Backend::Postgres => "CAST(CAST(current_usage AS double precision) AS text)",
    };
    database
        .column(&format!(
            "SELECT id || ' ' || {usage} || ' ' || COALESCE({last}, '-') FROM governance_budgets WHERE {condition} ORDER BY id"
        ))
        .await
}

/// A migrated gateway whose windows are all open at the instant, with a budget at every step of Alice's chain.
async fn chains(backend: Backend, now: &str) -> TestDatabase {
    let database = migrated(backend).await;
    database
        .execute(&format!(
            "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, provider_config_id, created_at, updated_at) \
             VALUES ('b-alice-openai', 10, '1d', 0, 1, '{now}+00:00', '{now}+00:00'); \
             UPDATE governance_budgets SET last_reset = '{now}+00:00', current_usage = 0, max_limit = 10, reset_duration = '1d'"
        ))
        .await;
    database
}

#[rstest]
#[tokio::test]
async fn the_first_budget_that_is_spent_is_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let now = "2026-03-29 12:00:00";
    let database = chains(backend, now).await;
    let runtime = Budgets::load(&database.connection, database.dialect())
        .await
        .unwrap();
    let check = async |key: &str, provider: &str, at: DateTime<Utc>| {
        runtime
            .check(&database.connection, &Asked::of(key, provider), None, at)
            .await
            .unwrap()
            .blocked_by
            .map(|by| format!("{} of {}", by.budget_id, by.owner))
    };
    database
        .execute("UPDATE governance_budgets SET current_usage = 10")
        .await;
    for (budget, owner) in [
        ("b-provider", "provider openai"),
        ("b-alice-openai", "provider_config 1"),
        ("b-alice", "virtual_key vk-alice"),
        ("b-team", "team t-1"),
        ("b-customer", "customer c-1"),
    ] {
        assert_eq!(
            check("vk-alice", "openai", at(now)).await,
            Some(format!("{budget} of {owner}"))
        );
        database
            .execute(&format!(
                "UPDATE governance_budgets SET current_usage = 9.999999 WHERE id = '{budget}'"
            ))
            .await;
    }
    assert_eq!(check("vk-alice", "openai", at(now)).await, None);
    // Another provider's budget is not asked; a key's own customer is.
    assert_eq!(
        check("vk-dave", "bedrock", at(now)).await,
        Some("b-dave-bedrock of provider_config 4".to_owned())
    );
    database
        .execute("UPDATE governance_budgets SET current_usage = 0 WHERE id IN ('b-dave', 'b-bob'); UPDATE governance_budgets SET current_usage = 10 WHERE id IN ('b-customer', 'b-dave-bedrock', 'b-dave-openai')")
        .await;
    assert_eq!(check("vk-dave", "vertex", at(now)).await, None);
    assert_eq!(
        check("vk-bob", "openai", at(now)).await,
        Some("b-customer of customer c-1".to_owned())
    );
    // A window that is over counts as zero, to the instant; a limit of zero always blocks.
    assert_eq!(
        check("vk-bob", "openai", at("2026-03-30 11:59:59")).await,
        Some("b-customer of customer c-1".to_owned())
    );
    assert_eq!(
        check("vk-bob", "openai", at("2026-03-30 12:00:00")).await,
        None
    );
    database
        .execute("UPDATE governance_budgets SET max_limit = 0, current_usage = 0 WHERE id = 'b-customer'")
        .await;
    assert_eq!(
        check("vk-bob", "openai", at("2026-03-31 12:00:00")).await,
        Some("b-customer of customer c-1".to_owned())
    );
    // One whose duration nobody can read is never over.
    database
        .execute("UPDATE governance_budgets SET max_limit = 1, current_usage = 1, reset_duration = 'soon' WHERE id = 'b-customer'")
        .await;
    let verdict = runtime
        .check(
            &database.connection,
            &Asked::of("vk-bob", "openai"),
            None,
            at("2036-03-31 12:00:00"),
        )
        .await
        .unwrap();
    assert!(!verdict.allowed);
    assert_eq!(verdict.blocked_by.unwrap().resets_at, None);
}

#[rstest]
#[tokio::test]
async fn the_command_line_checks_records_and_lists(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let now = Utc::now().format("%Y-%m-%d %H:%M:%S").to_string();
    let database = chains(backend, &now).await;
    database
        .execute("UPDATE governance_budgets SET max_limit = 3 WHERE id = 'b-alice-openai'")
        .await;
    let tollgate = tollgate().on(&database.url);
    let on = ["--virtual-key", "vk-alice", "--provider", "openai"];
    let run = |command: &str, more: &[&str]| {
        tollgate.json(&[&["budget", command][..], &on, more].concat())
    };
    let (code, json) = run("check", &[]);
    assert_eq!((code, &json["result"]["allowed"]), (0, &true.into()));
    assert_eq!(json["result"]["blocked_by"], Value::Null);
    for (id, recorded) in [("r-1", true), ("r-1", false), ("r-2", true), ("r-1", false)] {
        let (code, json) = run("record", &["--cost", "1.25", "--request-id", id]);
        assert_eq!(
            (code, &json["result"]["recorded"]),
            (0, &recorded.into()),
            "{json:#}"
        );
    }
    let (code, json) = run("record", &["--cost", "0.5"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["result"]["budgets"][1]["current_usage"], 3.0);
    let (code, json) = run("check", &[]);
    assert_eq!(code, 4, "{json:#}");
    let by = &json["result"]["blocked_by"];
    assert_eq!(json["error"]["code"], "budget_exceeded");
    assert_eq!(
        (&by["budget_id"], &by["owner"]),
        (&"b-alice-openai".into(), &"provider_config 1".into())
    );
    assert_eq!(by["max_limit"], 3.0, "{json:#}");
    assert_eq!(by["current_usage"], 3.0);
    assert!(by["resets_at"].is_string(), "{json:#}");
    let (_, json) = tollgate.json(&["budget", "list", "--virtual-key", "vk-alice"]);
    let ids: Vec<&Value> = json["result"]["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|budget| &budget["budget_id"])
        .collect();
    assert_eq!(
        ids,
        [
            "b-provider",
            "b-alice-openai",
            "b-alice",
            "b-team",
            "b-customer"
        ]
    );
    assert_eq!(
        budgets(
            &database,
            "id IN ('b-alice', 'b-team', 'b-customer', 'b-bob')"
        )
        .await
        .iter()
        .map(|row| row.rsplitn(3, ' ').last().unwrap().to_owned())
        .collect::<Vec<_>>(),
        ["b-alice 3", "b-bob 0", "b-customer 3", "b-team 3"]
    );
    // A cost that is known beforehand.
    let other = ["--virtual-key", "vk-bob", "--provider", "openai"];
    for (cost, code) in [("7", 0), ("7.000001", 4)] {
        let (found, json) =
            tollgate.json(&[&["budget", "check"][..], &other, &["--cost", cost]].concat());
        assert_eq!(found, code, "{json:#}");
    }
    for cost in ["-1", "NaN", "1e999", "much", ""] {
        let (code, json) = run("record", &["--cost", cost]);
        assert_eq!(
            (code, &json["error"]["code"]),
            (2, &"usage".into()),
            "{cost:?} {json:#}"
        );
    }
    for command in [
        &["budget", "check"][..],
        &["budget", "record", "--cost", "1"],
        &["budget", "record", "--cost", "1", "--request-id", "r-9"],
        &["budget", "list"],
    ] {
        let (code, json) = tollgate.json(
            &[
                command,
                &["--virtual-key", "nobody", "--provider", "openai"],
            ]
            .concat(),
        );
        assert_eq!(
            (code, &json["error"]["code"]),
            (1, &"not_found".into()),
            "{json:#}"
        );
    }
    assert_eq!(
        database.count("tollgate_requests").await,
        2,
        "who failed is not noted"
    );
    // Ids are kept for a while.
    database
        .execute("UPDATE tollgate_requests SET recorded_at = '2026-01-01 00:00:00+00:00' WHERE request_id = 'r-1'")
        .await;
    let (code, json) = tollgate.json(&["reconcile", "resets"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        database
            .column("SELECT request_id FROM tollgate_requests")
            .await,
        ["r-2"]
    );
    assert_eq!(
        run("record", &["--cost", "1", "--request-id", "r-2"]).1["result"]["recorded"],
        false
    );
    tollgate.succeed(&["verify"]);
}

/// Whoever records into a window that is over begins it again, and no sweep wipes that.
#[rstest]
#[tokio::test]
async fn a_cost_behind_the_end_of_a_window_stays(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = chains(backend, "2026-03-29 12:00:00").await;
    database
        .execute("UPDATE governance_budgets SET current_usage = 10; UPDATE governance_virtual_keys SET calendar_aligned = true WHERE id = 'vk-alice'")
        .await;
    let runtime = Budgets::load(&database.connection, database.dialect())
        .await
        .unwrap();
    let cost: Cost = "0.1".parse().unwrap();
    runtime
        .record(
            &database.connection,
            &Asked::of("vk-alice", "openai"),
            &cost,
            None,
            at("2026-03-30 13:00:00"),
        )
        .await
        .unwrap();
    let chain = "id IN ('b-alice', 'b-alice-openai', 'b-team', 'b-customer')";
    let after = [
        "b-alice 0.1 2026-03-30 00:00:00",
        "b-alice-openai 0.1 2026-03-30 00:00:00",
        "b-customer 0.1 2026-03-30 13:00:00",
        "b-team 0.1 2026-03-30 13:00:00",
    ];
    assert_eq!(budgets(&database, chain).await, after);
    let report = sweep(&database, "2026-03-30 13:00:00").await;
    assert!(!did(&report).is_empty(), "the others' windows");
    assert_eq!(budgets(&database, chain).await, after);
}

/// 64 writers on PostgreSQL, eight on SQLite, against keys that share teams, with a sweep running beside them.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_add_up_exactly(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (writers, costs) = match backend {
        Backend::Sqlite => (8, 2_000 * crate::scale() as usize),
        Backend::Postgres => (64, 2_000 * crate::scale() as usize),
    };
    let database = migrated(backend).await;
    let mut rows = String::new();
    for team in 0..4 {
        rows += &format!(
            "INSERT INTO governance_budgets (id, max_limit, reset_duration, last_reset, current_usage, created_at, updated_at) \
             VALUES ('team-{team}', 1000, '1h', '2026-01-01 00:00:00+00:00', 777, '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00'); \
             INSERT INTO governance_teams (id, name, customer_id, budget_id, created_at, updated_at) \
             VALUES ('team-{team}', 'Team {team} of many', 'c-1', 'team-{team}', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00');"
        );
    }
    for key in 0..16 {
        rows += &format!(
            "INSERT INTO governance_virtual_keys (id, name, value, team_id, created_at, updated_at) VALUES \
             ('key-{key}', 'Key {key} of many', 'sk-bf-many-{key}', 'team-{}', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00'); \
             INSERT INTO governance_budgets (id, max_limit, reset_duration, last_reset, current_usage, virtual_key_id, created_at, updated_at) \
             VALUES ('{}-of-{key}', 1000, '1h', '2026-01-01 00:00:00+00:00', 777, 'key-{key}', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00');",
            key % 4,
            // Before and behind the teams' in the order of ids.
            if key % 2 == 0 { "a" } else { "z" },
        );
    }
    database.execute(&rows).await;
    let session = Session::new(Location::parse(&database.url).unwrap())
        .on(&[Track::GOVERNANCE])
        .waiting(Duration::from_secs(30));
    let now = Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sweeper = {
        let (session, done) = (session.clone(), done.clone());
        tokio::spawn(async move {
            let mut sweeps = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let outcome = resets(
                    &session,
                    Duration::from_secs(86_400),
                    Options::default(),
                    now,
                    &ShutdownSignal::default(),
                )
                .await;
                assert!(outcome.error.is_none(), "{:?}", outcome.error);
                sweeps += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            sweeps
        })
    };
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let connection = database.another().await;
        tasks.push(tokio::spawn(async move {
            let runtime = Budgets::load(&connection, connection.dialect())
                .await
                .unwrap();
            for number in (writer..costs).step_by(writers) {
                let key = format!("key-{}", number % 16);
                // Each request comes twice every tenth time.
                for _ in 0..if number % 10 == 0 { 2 } else { 1 } {
                    runtime
                        .record(
                            &connection,
                            &Asked::of(&key, "openai"),
                            &"0.1".parse().unwrap(),
                            Some(&format!("request-{number}")),
                            now,
                        )
                        .await
                        .unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(sweeper.await.unwrap() > 0);
    let sum = |condition: &str| {
        format!("SELECT CAST(sum(current_usage) AS text) FROM governance_budgets WHERE {condition}")
    };
    // Each cost once on its key's budget, once on its team's, once on the customer's.
    let expected = costs as f64 / 10.0;
    for condition in [
        "virtual_key_id LIKE 'key-%'",
        "id LIKE 'team-%'",
        "id = 'b-customer'",
    ] {
        let found: f64 = database.one(&sum(condition)).await.parse().unwrap();
        match backend {
            Backend::Postgres => assert_eq!(
                database
                    .one(&format!(
                        "SELECT CAST(sum(current_usage) = {costs} * 0.1::numeric AS text) FROM governance_budgets WHERE {condition}"
                    ))
                    .await,
                "true",
                "{condition}: {found}"
            ),
            Backend::Sqlite => assert!((found - expected).abs() < 1e-9, "{condition}: {found}"),
        }
    }
}

/// The table of requests is made when it is needed first, which may be while somebody writes for longer than SQLite waits.
#[tokio::test]
async fn the_first_request_waits_for_whoever_writes() {
    let database = migrated(Backend::Sqlite).await;
    let connection = database.another().await;
    let runtime = Budgets::load(&connection, connection.dialect())
        .await
        .unwrap();
    database.execute("BEGIN IMMEDIATE").await;
    let cost: Cost = "1".parse().unwrap();
    let asked = Asked::of("vk-alice", "none");
    let record = runtime.record(
        &connection,
        &asked,
        &cost,
        Some("r-1"),
        at("2026-03-30 12:00:00"),
    );
    let release = async {
        tokio::time::sleep(Duration::from_millis(5500)).await;
        database.execute("COMMIT").await;
    };
    let (recorded, ()) = tokio::join!(record, release);
    assert!(recorded.unwrap().recorded);
}

/// A later gateway keeps budgets and tokens where this version does not look.
#[rstest]
#[tokio::test]
async fn a_database_past_what_is_known_is_not_answered_for(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute("ALTER TABLE governance_budgets ADD COLUMN model_config_id varchar(255)")
        .await;
    for command in [
        &[
            "budget",
            "check",
            "--virtual-key",
            "vk-alice",
            "--provider",
            "openai",
        ][..],
        &["budget", "list", "--virtual-key", "vk-alice"],
        &["virtual-key", "delete", "vk-alice"],
        &["virtual-key", "delete", "vk-alice", "--dry-run"],
        &["provider-config", "delete", "1"],
    ] {
        let (code, json) = tollgate().on(&database.url).json(command);
        assert_eq!(
            (code, &json["error"]["code"]),
            (4, &Value::from("past_known")),
            "{json:#}"
        );
    }
}
