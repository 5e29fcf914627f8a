//! Budgets at work (`docs/upstream/bifrost.md` §3, §4.10): windows, the chain, what a request cost, clean deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use jiff::civil::Weekday;
use jiff::tz::TimeZone as Zone;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;
use tollgate_service::budget::window::{Alignment, Due, Unit, Window};
use tollgate_service::budget::{Budgets, Cost};
use tollgate_service::reconcile::Options;
use tollgate_service::reconcile::resets::resets;
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

#[rstest]
#[tokio::test]
async fn windows_roll_over_on_time(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let database = migrated(backend).await;
    // A Sunday. What has never begun is over; a token limit of a minute too.
    assert_eq!(
        did(&sweep(&database, "2026-03-29 12:00:00").await),
        [
            "budgets reset 1: b-dave-bedrock",
            "rate_limits reset 2: rl-1 rl-2"
        ]
    );
    // A Wednesday, the first of April.
    let report = sweep(&database, "2026-04-01 00:00:00").await;
    assert_eq!(
        did(&report),
        [
            "budgets reset 7: b-alice b-bob b-carol-openai b-dave-bedrock b-dave-openai b-nobody b-team",
            "rate_limits reset 2: rl-1 rl-2",
        ]
    );
    assert_eq!(
        budgets(&database, "1 = 1").await,
        [
            "b-alice 0 2026-04-01 00:00:00",
            // On the calendar: from the first, and from Monday.
            "b-bob 0 2026-04-01 00:00:00",
            "b-carol-openai 0 2026-03-30 00:00:00",
            "b-customer 33.5 2026-03-05 12:00:00",
            // A year that rolls goes on.
            match backend {
                Backend::Sqlite => "b-dave 1e+06 2026-01-01 00:00:00",
                Backend::Postgres => "b-dave 999999.75 2026-01-01 00:00:00",
            },
            "b-dave-bedrock 0 2026-04-01 00:00:00",
            "b-dave-openai 0 2026-04-01 00:00:00",
            "b-nobody 0 2026-04-01 00:00:00",
            "b-provider 4 2026-03-25 12:00:00",
            "b-team 0 2026-04-01 00:00:00",
        ]
    );
    assert!(
        report.findings.iter().any(|finding| finding.code == "R003"),
        "a running gateway does not notice, and the report says so"
    );
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["reconcile", "resets", "--check"]);
    assert_eq!(code, 3, "{json:#}");
    tollgate()
        .on(&database.url)
        .succeed(&["reconcile", "resets"]);
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["reconcile", "resets", "--dry-run"]);
    assert_eq!((code, &json["error"]), (0, &Value::Null), "{json:#}");
}

#[rstest]
#[tokio::test]
async fn alignment_that_is_turned_on_keeps_what_was_used(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "UPDATE governance_virtual_keys SET calendar_aligned = true, updated_at = '2026-03-29 09:00:00+00:00' WHERE id IN ('vk-alice', 'vk-dave'); \
             UPDATE governance_rate_limits SET token_reset_duration = '1d', token_current_usage = 7, token_last_reset = '2026-03-28 15:00:00+00:00', \
             request_reset_duration = '1w', request_current_usage = 3, request_last_reset = '2026-03-20 15:00:00+00:00' WHERE id = 'rl-1'; \
             UPDATE governance_rate_limits SET token_reset_duration = NULL WHERE id <> 'rl-1'; \
             UPDATE governance_budgets SET last_reset = '2026-03-28 15:00:00+00:00', current_usage = 12 WHERE id = 'b-alice'; \
             UPDATE governance_budgets SET last_reset = '2026-03-28 15:00:00+00:00' WHERE id = 'b-dave-openai'; \
             UPDATE governance_budgets SET last_reset = '2026-03-29 09:30:00+00:00' WHERE id = 'b-dave-bedrock'",
        )
        .await;
    assert_eq!(
        did(&sweep(&database, "2026-03-29 10:00:00").await),
        [
            "budgets align 1: b-alice",
            // The key's rate limit follows it: a day that has not run out, and a week that has.
            "rate_limits reset 1: rl-1",
        ]
    );
    assert_eq!(
        budgets(
            &database,
            "id IN ('b-alice', 'b-dave-openai', 'b-dave-bedrock')"
        )
        .await,
        [
            "b-alice 12 2026-03-29 00:00:00",
            "b-dave-bedrock 0 2026-03-29 09:30:00",
            // 24h may not align, whatever the flag says.
            "b-dave-openai 7.25 2026-03-28 15:00:00",
        ]
    );
    assert_eq!(
        did(&sweep(&database, "2026-03-30 00:00:00").await),
        [
            "budgets reset 5: b-alice b-carol-openai b-dave-bedrock b-dave-openai b-nobody",
            // Its tokens and its requests: a new day, and a new week.
            "rate_limits reset 1: rl-1",
        ]
    );
    assert_eq!(
        budgets(&database, "id = 'b-alice'").await,
        ["b-alice 0 2026-03-30 00:00:00"]
    );
}

/// The flag was on when the calendar's window ended, so what was used counts no more, wherever the last one began.
#[rstest]
#[tokio::test]
async fn alignment_that_was_on_lets_the_window_end(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "UPDATE governance_virtual_keys SET calendar_aligned = true, created_at = '2026-03-01 00:00:00+00:00', \
             updated_at = '2026-03-28 15:00:00+00:00' WHERE id = 'vk-alice'; \
             UPDATE governance_budgets SET reset_duration = '1M', last_reset = '2026-03-28 15:00:00+00:00', current_usage = 12 WHERE id = 'b-alice'; \
             UPDATE governance_rate_limits SET token_reset_duration = NULL, request_reset_duration = NULL",
        )
        .await;
    let alice = "id = 'b-alice'";
    sweep(&database, "2026-03-31 23:59:59").await;
    assert_eq!(
        budgets(&database, alice).await,
        ["b-alice 12 2026-03-28 15:00:00"]
    );
    sweep(&database, "2026-04-01 00:00:01").await;
    assert_eq!(
        budgets(&database, alice).await,
        ["b-alice 0 2026-04-01 00:00:00"]
    );
}

/// SQLite's owners were written by Go too, in spellings that SQLite does not read: of those in UTC it is known when, and the others
/// may have been in this period.
#[rstest]
#[case::long_ago(
    "2026-03-28 15:00:00.25 +0000 UTC m=+0.1",
    "b-alice 0 2026-04-01 00:00:00"
)]
#[case::in_this_period("2026-04-01 08:00:00 +0000 UTC", "b-alice 12 2026-04-01 00:00:00")]
#[case::who_knows("2026-03-28 15:00:00 +0200 CEST", "b-alice 12 2026-04-01 00:00:00")]
#[tokio::test]
async fn alignment_that_goes_spelling_may_hide_wipes_nothing(
    #[case] written: &str,
    #[case] left: &str,
) {
    let database = migrated(Backend::Sqlite).await;
    database
        .execute(&format!(
            "UPDATE governance_virtual_keys SET calendar_aligned = true, created_at = '2026-03-01 00:00:00 +0000 UTC', \
             updated_at = '{written}' WHERE id = 'vk-alice'; \
             UPDATE governance_budgets SET reset_duration = '1M', last_reset = '2026-03-28 15:00:00+00:00', current_usage = 12 WHERE id = 'b-alice'"
        ))
        .await;
    sweep(&database, "2026-04-01 09:00:00").await;
    assert_eq!(budgets(&database, "id = 'b-alice'").await, [left]);
}

/// What never comes is no end of a window: a check and a sweep say the same.
#[tokio::test]
async fn a_window_from_infinity_is_never_over() {
    let database = migrated(Backend::Postgres).await;
    database
        .execute("UPDATE governance_budgets SET last_reset = 'infinity', max_limit = 5, current_usage = 5, reset_duration = '1d' WHERE id = 'b-alice'")
        .await;
    let (code, json) = tollgate().on(&database.url).json(&[
        "budget",
        "check",
        "--virtual-key",
        "vk-alice",
        "--provider",
        "none",
    ]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["result"]["blocked_by"]["budget_id"], "b-alice");
    sweep(&database, "2027-01-01 00:00:00").await;
    assert_eq!(
        database
            .one("SELECT CAST(CAST(current_usage AS integer) AS text) FROM governance_budgets WHERE id = 'b-alice'")
            .await,
        "5"
    );
}

/// Later versions own a team's budgets by a column of the budget, and keep the flag on the team.
#[rstest]
#[tokio::test]
async fn budgets_of_teams_follow_their_team(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let flag = match backend {
        Backend::Sqlite => "numeric",
        Backend::Postgres => "boolean",
    };
    database
        .execute(&format!(
            "ALTER TABLE governance_budgets ADD COLUMN team_id varchar(255); \
             ALTER TABLE governance_teams ADD COLUMN calendar_aligned {flag}; \
             UPDATE governance_budgets SET team_id = 't-1' WHERE id IN ('b-team', 'b-nobody'); \
             UPDATE governance_teams SET budget_id = NULL, calendar_aligned = true; \
             UPDATE governance_budgets SET last_reset = '2026-03-29 00:00:00+00:00' WHERE last_reset IS NULL OR id = 'b-dave-bedrock'; \
             UPDATE governance_rate_limits SET token_reset_duration = NULL"
        ))
        .await;
    let report = sweep(&database, "2026-03-30 00:00:00").await;
    assert!(
        did(&report)[0].contains("b-nobody") && !did(&report)[0].contains("b-team"),
        "{report:?}"
    );
    sweep(&database, "2026-04-03 08:00:00").await;
    assert_eq!(
        budgets(&database, "team_id = 't-1'").await,
        [
            "b-nobody 0 2026-04-03 00:00:00",
            "b-team 0 2026-04-01 00:00:00"
        ]
    );
}

#[rstest]
#[tokio::test]
async fn what_cannot_be_read_is_reported_and_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute("UPDATE governance_budgets SET reset_duration = '1 week' WHERE id = 'b-alice'; UPDATE governance_budgets SET reset_duration = '0h' WHERE id = 'b-bob'")
        .await;
    if backend == Backend::Sqlite {
        database
            .execute("UPDATE governance_budgets SET last_reset = 'yesterday' WHERE id = 'b-nobody'")
            .await;
    }
    let report = sweep(&database, "2027-03-29 12:00:00").await;
    let found: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.code != "R003")
        .map(|finding| format!("{} {}", finding.code, finding.sample_ids.join(" ")))
        .collect();
    match backend {
        Backend::Sqlite => assert_eq!(found, ["R002 b-alice b-bob", "R001 b-nobody"]),
        Backend::Postgres => assert_eq!(found, ["R002 b-alice b-bob"]),
    }
    let left = budgets(&database, "id IN ('b-alice', 'b-bob')").await;
    assert_eq!(left[1], "b-bob 249.99 2026-03-01 00:00:00");
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
            .check(&database.connection, key, provider, None, at)
            .await
            .unwrap()
            .blocked_by
            .map(|by| format!("{} of {}", by.budget_id, by.owner))
    };
    database
        .execute("UPDATE governance_budgets SET current_usage = 10")
        .await;
    for (budget, owner) in [
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
            "vk-bob",
            "openai",
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
    assert_eq!(json["result"]["budgets"][0]["current_usage"], 3.0);
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
    assert_eq!(ids, ["b-alice-openai", "b-alice", "b-team", "b-customer"]);
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

/// Whoever records into a window that is over begins it anew, and no sweep wipes that.
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
            "vk-alice",
            "openai",
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
                            &key,
                            "openai",
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
    let record = runtime.record(
        &connection,
        "vk-alice",
        "none",
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

/// Every text of a table that names the key.
async fn traces(database: &TestDatabase, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (table, rows) in database.everything(|_, _| true).await {
        for row in rows {
            if needles.iter().any(|needle| row.contains(needle)) {
                found.push(format!("{table}: {row}"));
            }
        }
    }
    found
}

fn counted(json: &Value) -> BTreeMap<String, u64> {
    json["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            (
                format!(
                    "{} {}",
                    change["action"].as_str().unwrap(),
                    change["table"].as_str().unwrap()
                ),
                change["rows"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn expected(changes: &[(&str, u64)]) -> BTreeMap<String, u64> {
    changes
        .iter()
        .map(|(what, rows)| ((*what).to_owned(), *rows))
        .collect()
}

#[rstest]
#[tokio::test]
async fn a_deleted_key_leaves_nothing_behind(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        "governance_baseline",
        "multi_budget_backfill",
        "multi_budget_contract"
    )]
    to: &str,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tollgate = tollgate().on(&database.url);
    if to == "governance_baseline" {
        tollgate.succeed(&["migrate", "adopt"]);
    } else {
        tollgate.succeed(&["migrate", "up", "--adopt", "--to", to]);
    }
    let before = database.everything(|_, _| true).await;
    let (code, planned) = tollgate.json(&["virtual-key", "delete", "vk-dave", "--dry-run"]);
    assert_eq!(code, 0, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    let (code, done) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(
        counted(&done),
        expected(&[
            ("delete governance_virtual_keys", 1),
            ("delete governance_virtual_key_provider_configs", 2),
            ("delete governance_virtual_key_provider_config_keys", 2),
            ("delete governance_virtual_key_mcp_configs", 1),
            ("delete governance_budgets", 3),
            ("delete oauth_user_tokens", 1),
            ("delete mcp_per_user_header_credentials", 1),
        ])
    );
    assert_eq!(planned["changes"], done["changes"]);
    assert_eq!(traces(&database, &["dave"]).await, Vec::<String>::new());
    // What is not theirs is as it was.
    for (table, rows) in database.everything(|_, _| true).await {
        let kept: Vec<String> = before
            .iter()
            .find(|(name, _)| *name == table)
            .map(|(_, rows)| {
                rows.iter()
                    .filter(|row| !row.contains("dave"))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        if table != "governance_virtual_key_provider_config_keys" {
            assert_eq!(rows, kept, "{table}");
        }
    }
    let (code, json) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"not_found".into()),
        "{json:#}"
    );
    if to != "governance_baseline" {
        tollgate.succeed(&["verify"]);
    }
}

#[rstest]
#[tokio::test]
async fn what_somebody_else_refers_to_stays(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "UPDATE config_providers SET budget_id = 'b-dave' WHERE id = 2; \
             UPDATE governance_virtual_keys SET rate_limit_id = 'rl-1' WHERE id = 'vk-dave'",
        )
        .await;
    let tollgate = tollgate().on(&database.url);
    let (code, json) = tollgate.json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{json:#}");
    let found: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["code"].as_str().unwrap(),
                finding["sample_ids"][0].as_str().unwrap(),
                finding["effect"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("R004", "b-dave", "it is referred to by config_providers 2"),
            (
                "R004",
                "rl-1",
                "it is referred to by governance_virtual_keys vk-alice"
            ),
        ]
    );
    assert_eq!(
        database
            .column("SELECT COALESCE(virtual_key_id, 'nobody') FROM governance_budgets WHERE id = 'b-dave'")
            .await,
        ["nobody"]
    );
    assert_eq!(database.count("governance_rate_limits").await, 2);

    // A provider config goes with its budget; its rate limit is the customer's too.
    let (code, planned) = tollgate.json(&["provider-config", "delete", "2", "--dry-run"]);
    assert_eq!(code, 0, "{planned:#}");
    let (code, json) = tollgate.json(&["provider-config", "delete", "2"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(planned["changes"], json["changes"]);
    assert_eq!(
        counted(&json),
        expected(&[
            ("delete governance_virtual_key_provider_config_keys", 1),
            ("delete governance_virtual_key_provider_configs", 1),
            ("delete governance_budgets", 1),
        ])
    );
    assert_eq!(
        json["findings"][0]["sample_ids"],
        serde_json::json!(["rl-2"])
    );
    assert_eq!(
        database
            .count("governance_virtual_keys WHERE id = 'vk-carol'")
            .await,
        1
    );
    let (code, json) = tollgate.json(&["provider-config", "delete", "2"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"not_found".into()),
        "{json:#}"
    );
    tollgate.succeed(&["verify"]);
}

/// A table of a later version that nobody here knows refuses the deletion, and nothing is gone.
/// Upstream's backfill sets both owner columns of a budget that a key and a config shared.
#[rstest]
#[tokio::test]
async fn a_key_without_configs_leaves_a_configs_budget_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    let config = database
        .one("SELECT CAST(min(provider_config_id) AS text) FROM governance_budgets WHERE id = 'b-dave-openai'")
        .await;
    let drop = match backend {
        Backend::Sqlite => String::new(),
        Backend::Postgres => "ALTER TABLE governance_budgets DROP CONSTRAINT IF EXISTS chk_governance_budgets_one_owner; ".to_owned(),
    };
    if backend == Backend::Sqlite {
        database
            .execute("PRAGMA ignore_check_constraints = ON")
            .await;
    }
    database
        .execute(&format!(
            "{drop}INSERT INTO governance_virtual_keys (id, name, value, created_at, updated_at) \
             VALUES ('vk-lone', 'Lone', 'sk-bf-lone', '2026-01-01', '2026-01-01'); \
             UPDATE governance_budgets SET virtual_key_id = 'vk-lone' WHERE id = 'b-dave-openai'"
        ))
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-lone"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["findings"][0]["code"], "R004", "{json:#}");
    assert_eq!(
        database
            .one("SELECT COALESCE(virtual_key_id, '-') || ' ' || CAST(provider_config_id AS text) FROM governance_budgets WHERE id = 'b-dave-openai'")
            .await,
        format!("- {config}")
    );
}

/// What a database may still have from before provider configs.
#[rstest]
#[tokio::test]
async fn the_keys_of_old_virtual_keys_go_with_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "CREATE TABLE governance_virtual_key_keys (table_virtual_key_id varchar(255) REFERENCES governance_virtual_keys (id), table_key_id bigint); \
             INSERT INTO governance_virtual_key_keys VALUES ('vk-dave', 1), ('vk-alice', 1)",
        )
        .await;
    let (_, planned) =
        tollgate()
            .on(&database.url)
            .json(&["virtual-key", "delete", "vk-dave", "--dry-run"]);
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(counted(&planned), counted(&json));
    assert_eq!(counted(&json)["delete governance_virtual_key_keys"], 1);
    assert_eq!(database.count("governance_virtual_key_keys").await, 1);
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

/// SQLite keeps times as texts; each of these is an instant, or none, whoever asks.
#[tokio::test]
async fn sqlites_times_are_read_as_they_are_meant() {
    let database = migrated(Backend::Sqlite).await;
    let spellings = [
        ("2026-03-29 10:00:00 +0200 CEST", true),
        ("2026-03-29 08:00:00 +0000 UTC", true),
        ("2026-03-29t08:00:00z", true),
        ("2026-03-28 12:00:00-2000", true),
        ("2026-03-29 08:00", true),
        ("2026-02-30 08:00:00", false),
        ("2026-03-28 24:00:00", false),
        ("08:00", false),
        ("now", false),
        ("2461000.5", false),
    ];
    // Nothing else is due.
    let mut rows = String::from(
        "UPDATE governance_budgets SET last_reset = '2026-03-30 07:59:00+00:00'; \
         UPDATE governance_rate_limits SET token_reset_duration = NULL, request_reset_duration = NULL;",
    );
    for (number, (text, _)) in spellings.iter().enumerate() {
        rows += &format!(
            "INSERT INTO governance_budgets (id, max_limit, reset_duration, last_reset, current_usage, created_at, updated_at) \
             VALUES ('b-{number}', 10, '1d', '{text}', 10, '2026-01-01', '2026-01-01');"
        );
    }
    database.execute(&rows).await;
    let early = sweep(&database, "2026-03-30 07:59:59").await;
    assert_eq!(did(&early), [""; 0], "a second before the day is over");
    let late = sweep(&database, "2026-03-30 08:00:00").await;
    assert_eq!(
        did(&late),
        ["budgets reset 5: b-0 b-1 b-2 b-3 b-4"],
        "{late:?}"
    );
    let unread: Vec<_> = late
        .findings
        .iter()
        .filter(|finding| finding.code == "R001")
        .map(|finding| finding.sample_ids.join(" "))
        .collect();
    assert_eq!(unread, ["b-5 b-6 b-7 b-8 b-9"]);
}

#[rstest]
#[tokio::test]
async fn a_reference_that_nobody_knows_stops_the_deletion(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "CREATE TABLE audit (id integer, virtual_key varchar(255) REFERENCES governance_virtual_keys(id)); \
             INSERT INTO audit VALUES (1, 'vk-dave')",
        )
        .await;
    let before = database.everything(|_, _| true).await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["virtual-key", "delete", "vk-dave"]);
    assert_eq!(
        (code, &json["error"]["code"]),
        (1, &"database".into()),
        "{json:#}"
    );
    assert_eq!(database.everything(|_, _| true).await, before);
}

fn unit() -> impl Strategy<Value = (Unit, &'static str)> {
    prop_oneof![
        Just((Unit::Day, "1d")),
        Just((Unit::Week, "1w")),
        Just((Unit::Month, "1M")),
        Just((Unit::Year, "1Y")),
    ]
}

/// The beginning of a unit by another library's calendar.
fn oracle(unit: Unit, at: DateTime<Utc>) -> i64 {
    let zoned = jiff::Timestamp::from_second(at.timestamp())
        .unwrap()
        .to_zoned(Zone::UTC);
    let day = zoned.date();
    let first = match unit {
        Unit::Day => day,
        Unit::Week if day.weekday() == Weekday::Monday => day,
        Unit::Week => day.nth_weekday(-1, Weekday::Monday).unwrap(),
        Unit::Month => day.first_of_month(),
        Unit::Year => day.first_of_year(),
    };
    first.to_zoned(Zone::UTC).unwrap().timestamp().as_second()
}

proptest! {
    /// Years, leap days and month ends, against a calendar that is not ours.
    #[test]
    fn aligned_windows_are_the_calendars((unit, word) in unit(), second in -2_208_988_800i64..4_102_444_800, fraction in 0u32..1_000_000_000, before in 0i64..40_000_000) {
        let now = Utc.timestamp_opt(second, fraction).unwrap();
        let start = unit.start(now);
        prop_assert_eq!(start.timestamp(), oracle(unit, now));
        prop_assert_eq!(start.timestamp_subsec_nanos(), 0);
        // The next one begins where the calendar's does, and what lies between is this one.
        let next = unit.next(start);
        prop_assert!(next > now);
        prop_assert_eq!(oracle(unit, next), next.timestamp());
        prop_assert_eq!(unit.start(next - chrono::Duration::nanoseconds(1)), start);
        let window = Window::parse(word).unwrap();
        prop_assert_eq!(window.ends(Some(start), Alignment::On, now), next);
        // What began with a unit is over with it.
        let began = unit.start(now - chrono::Duration::seconds(before));
        for alignment in [Alignment::On, Alignment::TurnedOn] {
            let due = window.due(Some(began), alignment, now);
            prop_assert_eq!(due, if began == start { Due::Nothing } else { Due::Reset(start) });
        }
        // Wherever it began, a window that followed the calendar is over with its unit.
        let began = now - chrono::Duration::seconds(before);
        let due = window.due(Some(began), Alignment::On, now);
        prop_assert_eq!(due, if began >= start { Due::Nothing } else { Due::Reset(start) });
        // A rolling one is over to the nanosecond.
        let length = jiff::SignedDuration::from_hours(match unit { Unit::Day => 24, Unit::Week => 168, Unit::Month => 720, Unit::Year => 8760 });
        let edge = now - chrono::Duration::nanoseconds(i64::try_from(length.as_nanos()).unwrap());
        prop_assert_eq!(window.due(Some(edge), Alignment::Off, now), Due::Reset(now));
        prop_assert_eq!(window.due(Some(edge + chrono::Duration::nanoseconds(1)), Alignment::Off, now), Due::Nothing);
    }

    /// Durations in Go's syntax and in days, against sums of hours.
    #[test]
    fn durations_are_sums(hours in 0u32..5000, minutes in 0u32..60, seconds in 0u32..60, days in 1u32..4000) {
        let now = Utc.timestamp_opt(1_800_000_000, 0).unwrap();
        let total = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
        let parsed = Window::parse(&format!("{hours}h{minutes}m{seconds}s"));
        prop_assert_eq!(parsed.map(|window| window.cutoff(now).timestamp()), (total > 0).then_some(1_800_000_000 - total));
        let parsed = Window::parse(&format!("{days}d")).unwrap();
        prop_assert_eq!(parsed.cutoff(now).timestamp(), 1_800_000_000 - i64::from(days) * 86_400);
    }
}
