//! When a window ends, and what then counts from zero.

use super::*;

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
