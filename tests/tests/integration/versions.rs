//! The table of docs/gateways.md, held against a database of every version: what it says of each is what the commands do.

use rstest::rstest;
use serde_json::Value;
use tollgate_migration::Track;
use tollgate_tests::fixture::populated;
use tollgate_tests::versions::{bifrost, coder_at};
use tollgate_tests::{Backend, TestDatabase};

use crate::gateways::{ask, said};

const PAGE: &str = include_str!("../../../docs/gateways.md");

/// What the page says of a database: its cells, behind the first.
fn row(database: &str) -> Vec<&'static str> {
    let line = PAGE
        .lines()
        .find(|line| line.starts_with(&format!("| {database} |")))
        .unwrap_or_else(|| panic!("docs/gateways.md has no row {database:?}"));
    line.split('|').skip(2).map(str::trim).collect()
}

/// What becomes of a database, read off the page: its second column is what `up` may do, its third whether it can be watched.
async fn holds(database: &TestDatabase, named: &str, words: &str) {
    let cells = row(named);
    let (take_over, watched) = (cells[0], cells[1]);
    let refused = ["G016", "P013", "P014", "B003"]
        .into_iter()
        .find(|code| take_over.contains(code));
    let known = watched != "no";
    let before = (
        database.everything(|_, _| true).await,
        database.schema().await,
    );
    let (code, json) = ask(database, &["migrate", "status"]);
    assert_eq!(code, 0, "{named}: {json:#}");
    let gateway = &json["result"]["gateways"][0];
    assert_eq!(gateway["version"], words, "{named}: {json:#}");
    let adopt = if known { 0 } else { 4 };
    let (code, json) = ask(database, &["migrate", "adopt", "--dry-run"]);
    assert_eq!(code, adopt, "{named}: {json:#}");
    let (code, json) = ask(database, &["doctor"]);
    match refused {
        Some(refused) => {
            assert_eq!(code, 4, "{named}: {json:#}");
            assert!(!said(&json, refused).is_empty(), "{named}: {json:#}");
        }
        None => assert!(
            blocking(&json).iter().all(|code| *code == "P004"),
            "{named}: {json:#}"
        ),
    }
    let (code, json) = ask(database, &["migrate", "plan", "--adopt"]);
    assert_eq!(code, adopt, "{named}: {json:#}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let (code, json) = ask(database, &["snapshot", "-o", &file]);
    assert_eq!(code, adopt, "{named}: {json:#}");
    assert_eq!(
        (
            database.everything(|_, _| true).await,
            database.schema().await
        ),
        before,
        "{named}: whoever looks changes nothing"
    );
    let up = [
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--accept-policy-change",
    ];
    if refused.is_some() {
        let (code, json) = ask(database, &up);
        assert_eq!(code, 4, "{named}: {json:#}");
        assert_eq!(
            (
                database.everything(|_, _| true).await,
                database.schema().await
            ),
            before,
            "{named}: a refusal changes nothing"
        );
    } else {
        for phase in ["expand", "backfill", "contract"] {
            let words = [&up[..], &["--phase", phase]].concat();
            let (code, json) = ask(database, &words);
            assert_eq!(code, 0, "{named}: {phase}: {json:#}");
        }
        for command in [
            &["verify", "--snapshot", &file][..],
            &["migrate", "status", "--check"],
        ] {
            let (code, json) = ask(database, command);
            assert_eq!(code, 0, "{named}: {command:?}: {json:#}");
        }
        let (code, json) = ask(database, &["migrate", "up"]);
        assert_eq!(code, 0, "{named}: {json:#}");
        let applied = json["tracks"][0]["applied"].as_array().map(Vec::len);
        assert_eq!(applied, Some(0), "{named}: {json:#}");
    }
    let (code, json) = ask(database, &["migrate", "prepare", "--accept-policy-change"]);
    let expected = if known { 0 } else { 4 };
    assert_eq!(code, expected, "{named}: {json:#}");
}

fn blocking(json: &Value) -> Vec<&str> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["severity"] == "blocking")
        .map(|found| found["code"].as_str().unwrap())
        .collect()
}

#[rstest]
#[case(
    "1.4.0",
    "Bifrost 1.4.0 to 1.4.24, 1.5.0-prerelease1",
    "1.4.0 to 1.4.1"
)]
#[case(
    "1.4.24",
    "Bifrost 1.4.0 to 1.4.24, 1.5.0-prerelease1",
    "1.4.18 to 1.4.24"
)]
#[case(
    "1.5.0-prerelease1",
    "Bifrost 1.4.0 to 1.4.24, 1.5.0-prerelease1",
    "1.5.0-prerelease1"
)]
#[case(
    "1.5.0-prerelease7",
    "Bifrost 1.5.0-prerelease4 to 1.5.8",
    "1.5.0-prerelease7"
)]
#[case("1.5.2", "Bifrost 1.5.0-prerelease4 to 1.5.8", "1.5.1 to 1.5.2")]
#[case("1.5.8", "Bifrost 1.5.0-prerelease4 to 1.5.8", "1.5.6 to 1.5.8")]
#[case("1.5.9", "Bifrost 1.5.9 to 2.0.0-prerelease3", "1.5.9 to 1.5.11")]
#[case("1.5.16", "Bifrost 1.5.9 to 2.0.0-prerelease3", "1.5.14 to 1.5.16")]
#[case(
    "2.0.0-prerelease3",
    "Bifrost 1.5.9 to 2.0.0-prerelease3",
    "2.0.0-prerelease1 to 2.0.0-prerelease3"
)]
#[case("2.1.0", "Bifrost 2.1 and later", "2.1.0")]
#[tokio::test]
async fn a_bifrost_of_every_version_is_what_the_page_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] version: &str,
    #[case] named: &str,
    #[case] words: &str,
) {
    holds(&bifrost(backend, version).await, named, words).await;
}

#[rstest]
#[case(459, "Coder 422 to 501 (2.32 is 462, 2.33 is 483)", "459")]
#[case(502, "Coder 502 to 504", "502")]
#[case(503, "Coder 502 to 504", "503")]
#[case(504, "Coder 502 to 504", "504")]
#[case(505, "Coder 505 to 532 (2.34 is 509)", "505")]
#[case(514, "Coder 505 to 532 (2.34 is 509)", "514")]
#[case(532, "Coder 505 to 532 (2.34 is 509)", "532")]
#[tokio::test]
async fn a_coder_of_every_number_is_what_the_page_says(
    #[case] number: i64,
    #[case] named: &str,
    #[case] words: &str,
) {
    holds(&coder_at(number).await, named, words).await;
}

#[tokio::test]
async fn a_molecule_is_what_the_page_says() {
    let database = populated(Backend::Postgres, Track::BILLING).await;
    database
        .execute(
            "CREATE TABLE schema_migrations (filename text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()); \
             INSERT INTO schema_migrations (filename) VALUES ('001_workspaces.sql'), ('004_secrets.sql'), ('009_activity_logs.sql'), \
             ('012_global_secrets.sql'), ('042_workspace_skills.up.sql'), ('20260417000000_workflow_checkpoints.up.sql')",
        )
        .await;
    let cells = row("Molecule up to 043");
    assert_eq!(cells[0], "yes");
    let (code, json) = ask(&database, &["migrate", "status"]);
    assert_eq!(code, 0, "{json:#}");
    let version = &json["result"]["gateways"][0]["version"];
    assert_eq!(version, "042_workspace_skills", "{json:#}");
    let (code, json) = ask(
        &database,
        &["migrate", "up", "--adopt", "--garbled-modes", "clear"],
    );
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
}
