//! One budget begins again, for a reason.

use super::*;

/// Somebody gives a budget back before its window is over, and it is on record why.
#[rstest]
#[tokio::test]
async fn a_budget_begins_again_for_a_reason(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = migrated(backend).await;
    database
        .execute(
            "UPDATE governance_budgets SET current_usage = 7, last_reset = '2026-03-01 00:00:00+00:00', reset_duration = '1Y'; \
             UPDATE governance_virtual_keys SET calendar_aligned = (id = 'vk-bob')",
        )
        .await;
    let tollgate = tollgate().on(&database.url);
    let before = database.everything(|_, _| true).await;
    for (words, code, word) in [
        (&["b-alice"][..], 2, "usage"),
        (&["b-alice", "--reason", " "], 2, "usage"),
        (&["nobody", "--reason", "refund"], 1, "not_found"),
    ] {
        let (found, json) = tollgate.json(&[&["budget", "reset"][..], words].concat());
        assert_eq!(
            (found, &json["error"]["code"]),
            (code, &word.into()),
            "{json:#}"
        );
    }
    let reset = [
        "budget",
        "reset",
        "b-alice",
        "--reason",
        "refund of ticket 7",
    ];
    let (code, planned) = tollgate.json(&[&reset[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    let (code, done) = tollgate.json(&reset);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(planned["changes"], done["changes"]);
    assert_eq!(done["result"]["usage_before"], 7.0, "{done:#}");
    assert_eq!(done["result"]["budget"]["current_usage"], 0.0, "{done:#}");
    tollgate.succeed(&[
        "budget",
        "reset",
        "b-bob",
        "--reason",
        "sk-bf-0123456789abcdef",
    ]);
    let today = Utc::now().format("%Y-%m-%d").to_string();
    let year = Utc::now().format("%Y-01-01 00:00:00").to_string();
    let rows = budgets(&database, "id IN ('b-alice', 'b-bob', 'b-dave')").await;
    assert!(
        rows[0].starts_with(&format!("b-alice 0 {today}")),
        "{rows:?}"
    );
    assert_eq!(rows[1], format!("b-bob 0 {year}"), "of the calendar");
    assert_eq!(rows[2], "b-dave 7 2026-03-01 00:00:00");
    let (_, history) = tollgate.json(&["history"]);
    let runs: Vec<i64> = history["result"]["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["kind"] == "budget reset")
        .map(|run| run["id"].as_i64().unwrap())
        .collect();
    let recorded = tollgate
        .json(&["history", "--run", &runs[1].to_string()])
        .1
        .to_string();
    assert!(recorded.contains("refund of ticket 7"), "{recorded}");
    let recorded = tollgate
        .json(&["history", "--run", &runs[0].to_string()])
        .1
        .to_string();
    assert!(!recorded.contains("0123456789abcdef"), "{recorded}");
}
