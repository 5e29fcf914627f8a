//! The track of `examples/seats`, as somebody who builds on Tollgate has it: its own tables, its own command line.
//!
//! The suites over every track try it too: golden schemas, what holds of every migration, snapshots, faults.

use rstest::rstest;
use tollgate_tests::fixture::populated;
use tollgate_tests::{Backend, Run, TestDatabase};

use crate::tollgate_of;

#[rstest]
#[tokio::test]
async fn a_hazard_of_its_own_blocks_until_it_is_mended(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, seats::TRACK).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    database
        .execute("UPDATE seats SET state = 'onn' WHERE id = 's-2'; UPDATE seats SET state = 'on' WHERE id = 's-3'")
        .await;
    let (code, report) = seats.json(&["doctor"]);
    assert_eq!(code, 4, "{report:#}");
    let found: Vec<(&str, &str)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["code"].as_str().unwrap(),
                finding["sample_ids"][0].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("S001", "s-2"), ("S002", "s-3")]);
    let up = ["migrate", "up", "--adopt"];
    assert_eq!(seats.run(&up).code, 4);
    assert_eq!(database.count("seats WHERE state = 'onn'").await, 1);
    database
        .execute("UPDATE seats SET state = 'off' WHERE id = 's-2'")
        .await;
    assert_eq!(seats.run(&up).code, 4);
    let wrong = seats.run(&[&up[..], &["--vacant-seats", "on"]].concat());
    assert_eq!(wrong.code, 2, "{wrong:#?}");
    let chosen = [&up[..], &["--vacant-seats", "off"]].concat();
    let help = seats.succeed(&["migrate", "up", "--help"]);
    assert!(help.stdout.contains("--vacant-seats"), "{help:#?}");
    assert!(!help.stdout.contains("--shared-budgets"), "{help:#?}");
    let (code, plan) = seats.json(&["migrate", "plan", "--adopt", "--vacant-seats", "off"]);
    assert_eq!((code, &plan["findings"][0]["code"]), (0, &"S002".into()));
    assert_eq!(
        plan["findings"][0]["resolve"],
        "resolved by --vacant-seats off"
    );
    seats.succeed(&chosen);
    assert_eq!(database.count("seats WHERE active").await, 2);
    assert_eq!(database.count("seats WHERE badge IS NULL").await, 0);
    // Version 5 of the id, in the name space that the example says: the same in every run.
    assert_eq!(
        database
            .count("seats WHERE id = 's-1' AND substr(badge, 15, 1) = '5'")
            .await,
        1
    );
    seats.succeed(&["verify"]);
}

#[rstest]
#[tokio::test]
async fn a_word_that_comes_up_under_the_lock_stops_contract(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, seats::TRACK).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    seats.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    database
        .execute("INSERT INTO seats (id, holder, state) VALUES ('s-9', 'eve', 'maybe')")
        .await;
    let (code, report) = seats.json(&["migrate", "up"]);
    assert_eq!(code, 4, "{report:#}");
    assert_eq!(report["findings"][0]["code"], "S001");
    assert_eq!(database.count("seats WHERE state = 'maybe'").await, 1);
}

#[rstest]
#[tokio::test]
async fn its_routine_and_its_invariant_speak_of_the_same_rows(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, seats::TRACK).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    seats.succeed(&["migrate", "up", "--adopt"]);
    let routine = ["reconcile", "run", "vacant-seats"];
    assert_eq!(seats.run(&[&routine[..], &["--check"]].concat()).code, 0);
    database
        .execute("UPDATE seats SET holder = ' ' WHERE id IN ('s-1', 's-3')")
        .await;
    let (code, broken) = seats.json(&["verify"]);
    assert_eq!(code, 4, "{broken:#}");
    assert_eq!(broken["findings"][0]["code"], "S101");
    assert_eq!(
        broken["findings"][0]["title"],
        "a seat in use that nobody holds"
    );
    assert_eq!(broken["findings"][0]["sample_ids"][0], "s-1");
    assert_eq!(seats.run(&[&routine[..], &["--check"]].concat()).code, 3);
    let limited = seats.run(&[&routine[..], &["--max-changes", "0"]].concat());
    assert_eq!(limited.code, 4, "{limited:#?}");
    assert_eq!(database.count("seats WHERE active").await, 2);
    let (code, done) = seats.json(&["reconcile", "all"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(done["changes"][0]["sample_ids"][0], "s-1");
    assert_eq!(done["result"]["routines"][0]["routine"], "vacant-seats");
    assert_eq!(database.count("seats WHERE active").await, 1);
    seats.succeed(&["verify"]);
    let history = seats.succeed(&["history"]);
    assert!(
        history.stdout.contains("reconcile vacant-seats"),
        "{history:#?}"
    );
    let unknown = seats.run(&["reconcile", "run", "credentials"]);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    assert!(unknown.stderr.contains("vacant-seats"), "{unknown:#?}");
}

#[rstest]
#[tokio::test]
async fn five_replicas_start_at_once_and_one_does_the_work(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, seats::TRACK).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    let up = ["migrate", "up", "--adopt", "--output", "json"];
    let children: Vec<_> = (0..5)
        .map(|_| seats.command(&up).spawn().unwrap())
        .collect();
    let mut applied = 0;
    for child in children {
        let run = Run::from(child.wait_with_output().unwrap());
        assert_eq!(run.code, 0, "{run:#?}");
        applied += run.json()["tracks"][0]["applied"].as_array().unwrap().len();
    }
    assert_eq!(applied, 3);
    assert_eq!(database.count("seats WHERE active").await, 2);
}

#[rstest]
#[tokio::test]
async fn its_command_line_knows_its_track_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    let help = seats.succeed(&["--help"]).stdout;
    assert!(help.contains("Usage: seats "), "{help}");
    for absent in ["budget", "gateway-key", "billing-mode", "demo"] {
        assert!(!help.contains(&format!("\n  {absent} ")), "{help}");
    }
    let nothing = seats.run(&["migrate", "up"]);
    assert_eq!(nothing.code, 2, "{nothing:#?}");
    assert!(
        nothing.stderr.contains("none of the tracks seats"),
        "{nothing:#?}"
    );
    let nobodys = seats.run(&["--track", "seats", "seed", "--profile", "bifrost-legacy"]);
    assert_eq!(nobodys.code, 2, "{nobodys:#?}");
    let unknown = seats.run(&["--track", "governance", "migrate", "up"]);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    seats.succeed(&["--track", "seats", "migrate", "up"]);
    assert_eq!(
        database.catalog().await.tables["seats"]
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>(),
        ["id", "holder", "last_seen", "active", "badge"]
    );
    let plan = seats.succeed(&["migrate", "plan"]);
    assert!(plan.stdout.contains("nothing"), "{plan:#?}");
    let (_, status) = seats.json(&["migrate", "status"]);
    assert_eq!(status["tracks"][0]["track"], "seats");
}

#[rstest]
#[tokio::test]
async fn its_made_up_database_goes_up_and_comes_down(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let seats = tollgate_of(seats::TRACK).on(&database.url);
    seats.succeed(&[
        "--track",
        "seats",
        "seed",
        "--profile",
        "seats",
        "--virtual-keys",
        "1200",
    ]);
    let on = database.count("seats WHERE state = 'on'").await;
    assert!(on > 100 && on < 1100, "{on}");
    seats.succeed(&["migrate", "up", "--adopt"]);
    assert_eq!(database.count("seats WHERE active").await, on);
    // More than two pages of badges, each another one.
    assert_eq!(
        database
            .count("(SELECT DISTINCT badge FROM seats WHERE badge IS NOT NULL) b")
            .await,
        1200
    );
    seats.succeed(&["migrate", "down", "--to", "seats_baseline"]);
    assert_eq!(database.count("seats WHERE state = 'on'").await, on);
}
