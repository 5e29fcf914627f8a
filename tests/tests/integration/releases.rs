//! Databases that earlier releases made: whole ones are verified, go up and go down; half-way ones are named, finished,
//! undone and settled. The dumps stand in `fixtures/releases/VERSION/BACKEND`, half-way ones by direction and step.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rstest::rstest;
use serde_json::Value;
use tollgate_migration::Track;
use tollgate_tests::{Backend, TestDatabase};

use crate::fault_injection::{State, difference, up, without_headers};
use crate::tollgate;

/// Rows and schema. A check that this release writes as upstream does reads as the earlier one's; and that one's contract
/// dropped the flag of a team's budget for good, which today's remembers.
async fn state_without(database: &TestDatabase, columns: &[(&str, &str)]) -> State {
    let mut state = crate::fault_injection::state_without(database, columns).await;
    state.0.retain(|(table, _)| table != "tollgate_remembered");
    for (table, rows) in &mut state.0 {
        let of_the_team = rows
            .iter_mut()
            .filter(|row| table == "governance_budgets" && row.contains("'b-team'"));
        for row in of_the_team {
            *row = row.replacen("'true'", "'false'", 1);
        }
        rows.sort();
    }
    for line in &mut state.1 {
        *line = line
            .replace("(((deleted = true) OR ", "((deleted OR ")
            .replace("(deleted = true OR ", "(deleted OR ");
    }
    state
}

/// A dump's file name, taken apart.
struct Dump {
    path: PathBuf,
    track: Track,
    /// `up` or `down` for a half-way one.
    half: Option<String>,
    step: String,
}

fn dumps(backend: Backend) -> Vec<Dump> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/releases/0.1.0")
        .join(match backend {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgres",
        });
    let mut found: Vec<Dump> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let parts: Vec<&str> = name.split('.').collect();
            let half = parts[1].strip_prefix("half-").map(str::to_owned);
            let step = if half.is_some() { parts[2] } else { parts[1] };
            Dump {
                track: parts[0].parse().unwrap(),
                step: step.to_owned(),
                half,
                path,
            }
        })
        .collect();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 20, "the dumps are there");
    found
}

/// The database without the gateway's ledger. That release made everything, whoever owned the database; today that is so where
/// there is no ledger, and the ends can be compared.
async fn load(backend: Backend, dump: &Dump) -> TestDatabase {
    let database = load_owned(backend, dump).await;
    if dump.track == Track::GOVERNANCE {
        database.execute("DELETE FROM migrations").await;
    }
    database
}

/// The database as it was.
async fn load_owned(backend: Backend, dump: &Dump) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    let sql = std::fs::read_to_string(&dump.path).unwrap();
    match backend {
        // A dump has children before their parents.
        Backend::Sqlite => {
            database.execute("PRAGMA foreign_keys = OFF").await;
            database.execute(&sql).await;
            database.execute("PRAGMA foreign_keys = ON").await;
        }
        Backend::Postgres => database.execute(&sql).await,
    }
    database
}

/// Columns that release 0.1.0 did not make.
const COLUMNS_SINCE: [(&str, &str); 3] = [
    ("governance_teams", "source_id"),
    ("governance_virtual_keys", "created_by_user_id"),
    (
        "governance_virtual_key_provider_configs",
        "blacklisted_models",
    ),
];

/// Rows, schema and histories without what release 0.1.0 did not make: those columns, indexes that a table gets when it is
/// made or completed, and a default that none has.
async fn comparable(database: &TestDatabase) -> State {
    let mut state = state_without(database, &COLUMNS_SINCE).await;
    let mut indexes: Vec<String> = ["oauth_user_sessions", "mcp_per_user_header_credentials"]
        .iter()
        .flat_map(|table| {
            ["created_at", "updated_at"].map(|column| format!("idx_{table}_{column}"))
        })
        .collect();
    indexes.extend([
        "idx_governance_teams_source_id".to_owned(),
        "idx_virtual_key_created_by".to_owned(),
    ]);
    let columns = COLUMNS_SINCE.map(|(table, column)| format!("{table} column {column} "));
    state.1.retain(|line| {
        !indexes.iter().any(|index| line.contains(index))
            && !columns.iter().any(|column| line.starts_with(column))
    });
    let created: Vec<String> = COLUMNS_SINCE
        .iter()
        .map(|(table, column)| format!("\"{table}.{column}\""))
        .chain(indexes.iter().map(|index| format!("\"{index}\"")))
        .collect();
    for (_, rows) in &mut state.0 {
        for row in rows {
            for name in &created {
                *row = row
                    .replace(&format!(",{name}"), "")
                    .replace(&format!("{name},"), "")
                    .replace(&format!("[{name}]"), "[]");
            }
            *row = row.replace(
                "\"mcp_per_user_header_credentials column headers_json\":\"text not null default ''{}''\",",
                "",
            );
        }
    }
    state
}

fn run(database: &TestDatabase, command: &[String]) -> (i32, Value) {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    tollgate().on(&database.url).json(&command)
}

fn down(track: Track, to: Option<&str>) -> Vec<String> {
    let mut words = vec![
        "--track",
        track.name(),
        "migrate",
        "down",
        "--allow-data-loss",
    ];
    words.extend(to.into_iter().flat_map(|to| ["--to", to]));
    words.into_iter().map(str::to_owned).collect()
}

/// Rows and schema of every whole dump, by track and step.
async fn whole(backend: Backend) -> BTreeMap<(Track, String), State> {
    let mut states = BTreeMap::new();
    for dump in dumps(backend).iter().filter(|dump| dump.half.is_none()) {
        let database = load(backend, dump).await;
        states.insert((dump.track, dump.step.clone()), comparable(&database).await);
    }
    states
}

fn whole_of<'a>(all: &'a [Dump], track: Track, step: &str) -> &'a Dump {
    all.iter()
        .find(|dump| dump.half.is_none() && dump.track == track && dump.step == step)
        .unwrap()
}

fn codes(json: &Value) -> Vec<&str> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "blocking")
        .map(|finding| finding["code"].as_str().unwrap())
        .collect()
}

#[rstest]
#[tokio::test]
async fn whole_databases_of_a_release_verify_go_up_and_go_down(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let states = whole(backend).await;
    for dump in dumps(backend).iter().filter(|dump| dump.half.is_none()) {
        let name = dump.path.display();
        let owned = load_owned(backend, dump).await;
        let last = dump.track.migrations().last().unwrap().slug();
        for command in [
            vec!["verify".to_owned()],
            up(dump.track, last),
            vec!["verify".to_owned()],
        ] {
            let (code, json) = run(&owned, &command);
            assert_eq!(code, 0, "{name}, with its ledger: {command:?}: {json:#}");
        }
        let database = load(backend, dump).await;
        let (code, json) = run(&database, &["verify".to_owned()]);
        assert_eq!(code, 0, "{name}: {json:#}");
        let last = dump.track.migrations().last().unwrap().slug();
        let (code, json) = run(&database, &up(dump.track, last));
        assert_eq!(code, 0, "{name}: {json:#}");
        let (code, json) = run(&database, &["verify".to_owned()]);
        assert_eq!(code, 0, "{name}: {json:#}");
        let expected = &states[&(dump.track, last.to_owned())];
        let reached = comparable(&database).await;
        assert!(
            reached == *expected,
            "{name} ends elsewhere: {}",
            difference(expected, &reached)
        );
        let first = dump.track.migrations()[0].slug();
        let adopted = database
            .one(&format!(
                "SELECT max(version) FROM {} WHERE adopted",
                dump.track.history_table()
            ))
            .await;
        let to = if adopted == "-" { first } else { &adopted };
        let (code, json) = run(&database, &down(dump.track, Some(to)));
        assert_eq!(code, 0, "{name}: {json:#}");
    }
}

#[rstest]
#[tokio::test]
async fn half_way_databases_of_a_release_are_named_finished_undone_and_settled(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let all = dumps(backend);
    let mut named = 0;
    let mut undisturbed: BTreeMap<(String, String), (State, [State; 2])> = BTreeMap::new();
    for (place, dump) in all.iter().enumerate() {
        let Some(way) = &dump.half else { continue };
        if !crate::is_tried(backend, place) {
            continue;
        }
        let name = dump.path.display().to_string();
        let track = dump.track;
        let slugs: Vec<&str> = track
            .migrations()
            .iter()
            .map(|migration| migration.slug())
            .collect();
        let position = slugs.iter().position(|slug| *slug == dump.step).unwrap();
        let before = slugs[position - 1];
        let database = load(backend, dump).await;
        let (_, status) = run(&database, &["migrate".to_owned(), "status".to_owned()]);
        let half_done = !status["result"]["in_progress"]
            .as_array()
            .unwrap()
            .is_empty();
        let (code, json) = run(&database, &["verify".to_owned()]);
        if half_done {
            named += 1;
            assert_eq!((code, codes(&json)), (4, vec!["V013"]), "{name}: {json:#}");
            assert_eq!(status["result"]["drift"], serde_json::json!([]), "{name}");
        } else {
            assert_eq!(code, 0, "{name}: {json:#}");
        }
        let (same, back, start) = if way == "up" {
            (up(track, &dump.step), down(track, None), before)
        } else {
            (
                down(track, Some(before)),
                up(track, &dump.step),
                dump.step.as_str(),
            )
        };
        // The same commands on a database that was not disturbed, once for all the points of a step.
        let key = (way.clone(), dump.step.clone());
        if !undisturbed.contains_key(&key) {
            let calm = load(backend, whole_of(&all, track, start)).await;
            let first = comparable(&calm).await;
            assert_eq!(run(&calm, &same).0, 0, "{name}");
            let finished = comparable(&calm).await;
            assert_eq!(run(&calm, &back).0, 0, "{name}");
            // Copies of shared budgets stay when a step goes down: a gateway works on with them.
            let ends = [first, comparable(&calm).await];
            undisturbed.insert(key.clone(), (finished, ends));
        }
        let (expected, ends) = &undisturbed[&key];
        let (code, json) = run(&database, &same);
        assert_eq!(code, 0, "{name}: {json:#}");
        let reached = comparable(&database).await;
        assert!(
            reached == *expected,
            "{name} finished: {}",
            difference(expected, &reached)
        );
        if !half_done {
            continue;
        }
        let database = load(backend, dump).await;
        let (code, json) = run(&database, &back);
        assert_eq!(code, 0, "{name} undone: {json:#}");
        // Header keys that are folded stay so, as many as there are by then.
        let folds = dump.step == "canonical_header_keys";
        let reached = without_headers(&comparable(&database).await, folds);
        assert!(
            ends.iter()
                .any(|end| without_headers(end, folds) == reached),
            "{name} undone: {}",
            ends.iter()
                .map(|end| difference(end, &reached))
                .collect::<Vec<_>>()
                .join("\n OR ")
        );
        let database = load(backend, dump).await;
        let settle = ["migrate", "resolve", &dump.step, "--as", "pending"].map(str::to_owned);
        let (code, json) = run(&database, &settle);
        assert_eq!(code, 0, "{name} settled: {json:#}");
        let (_, status) = run(&database, &["migrate".to_owned(), "status".to_owned()]);
        assert_eq!(
            status["result"]["in_progress"],
            serde_json::json!([]),
            "{name}"
        );
        assert_eq!(
            status["tracks"][0]["pending"][0]["version"]
                .as_str()
                .map(|version| { tollgate_migration::context::slug_of(version).to_owned() }),
            Some(dump.step.clone()),
            "{name}"
        );
    }
    assert!(named > 0, "some of the dumps are half-way");
}
