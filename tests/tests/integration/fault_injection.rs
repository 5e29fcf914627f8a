//! A failure at every statement: the n-th statement of a run fails, or the process dies in its place, for every n; the
//! next run ends where an undisturbed one does, row for row.
//!
//! Every migration of every track is tried, up and down, and every routine of [`ROUTINES`]. The standing suite tries a
//! sample with a fixed seed; `just faults` tries every point.

use std::collections::BTreeMap;

use rstest::rstest;
use tollgate_migration::Track;
use tollgate_tests::fixture::{every_track, populated};
use tollgate_tests::{Backend, Template, TestDatabase};

use crate::tollgate_of;

/// Points that the standing suite tries of each subject and kind of fault: a database of PostgreSQL costs more to copy.
fn points(backend: Backend) -> usize {
    match backend {
        Backend::Sqlite => 2,
        Backend::Postgres => 1,
    }
}

/// What a routine is tried on: the track, statements after its migrations, and the command.
const ROUTINES: &[(Track, &str, &str, &[&str])] = &[
    (
        seats::TRACK,
        "UPDATE seats SET holder = ' ' WHERE id = 's-1'",
        "seat_flag_contract",
        &["reconcile", "run", "vacant-seats"],
    ),
    (
        Track::BILLING,
        "UPDATE workspaces SET llm_billing_mode = 'byokk'",
        "llm_billing_mode",
        &["reconcile", "billing"],
    ),
    (
        Track::PROVIDERS,
        "UPDATE chat_providers SET api_key = 'newer', display_name = 'Newer', updated_at = '2027-01-01 00:00:00+00:00'; \
         UPDATE user_chat_provider_keys SET api_key = 'newer', updated_at = '2027-01-01 00:00:00+00:00' \
         WHERE api_key = 'plain-bob'; DELETE FROM user_ai_provider_keys WHERE api_key = 'cipher-alice'; \
         UPDATE chat_model_configs SET ai_provider_id = NULL; DELETE FROM ai_provider_keys WHERE api_key = 'plain-anthropic'",
        "provider_key_backfill",
        &["reconcile", "provider-keys"],
    ),
    (
        Track::GOVERNANCE,
        "UPDATE oauth_user_sessions SET status = 'pending'",
        "multi_budget_contract",
        &["reconcile", "credentials"],
    ),
    (
        Track::GOVERNANCE,
        "UPDATE mcp_per_user_header_flows SET status = 'pending'",
        "multi_budget_contract",
        &["reconcile", "flows", "--orphan-ttl", "1d"],
    ),
    (
        Track::GOVERNANCE,
        "UPDATE mcp_per_user_header_credentials SET headers_json = '{\"A\":\"1\",\"a\":\"2\"}' WHERE status <> 'needs_update'",
        "multi_budget_contract",
        &["reconcile", "header-keys"],
    ),
    (
        Track::GOVERNANCE,
        "UPDATE config_mcp_clients SET per_user_header_keys_json = '[\"region\"]'",
        "multi_budget_contract",
        &[
            "reconcile",
            "header-requirements",
            "--mcp-client",
            "mcp-wide",
        ],
    ),
];

/// A command, the database it begins with, and how it is repeated.
struct Subject {
    track: Track,
    name: String,
    template: Template,
    command: Vec<String>,
    /// What undoes the command where it was cut off; none for what is one transaction, whatever happens.
    opposite: Option<Vec<String>>,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The populated database, with what the operator's flags are for.
async fn base(backend: Backend, track: Track) -> TestDatabase {
    let database = populated(backend, track).await;
    if track == Track::GOVERNANCE {
        database
            .execute(
                "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'",
            )
            .await;
    }
    if track == Track::PROVIDERS {
        database
            .execute(
                "DROP TABLE ai_gateway_keys; UPDATE chat_providers SET central_api_key_enabled = false, \
                 allow_user_api_key = true WHERE provider = 'anthropic'",
            )
            .await;
    }
    database
}

pub(crate) fn up(track: Track, to: &str) -> Vec<String> {
    let mut command = words(&[
        "--track",
        track.name(),
        "migrate",
        "up",
        "--adopt",
        "--to",
        to,
    ]);
    for choice in track.choices() {
        command.push(format!("--{}", choice.flag));
        command.extend(choice.word.map(|(word, _)| word.to_owned()));
    }
    command
}

async fn run(track: Track, database: &TestDatabase, command: &[String]) {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    tollgate_of(track).on(&database.url).succeed(&command);
}

async fn subjects(backend: Backend, track: Track) -> Vec<Subject> {
    let mut all = Vec::new();
    {
        let first = track.migrations()[0];
        all.push(Subject {
            track,
            name: format!("up   {}", first.version),
            template: TestDatabase::new(backend).await.freeze().await,
            command: up(track, first.slug()),
            opposite: None,
        });
        all.push(Subject {
            track,
            name: format!("adopt {track}"),
            template: base(backend, track).await.freeze().await,
            command: words(&["--track", track.name(), "migrate", "adopt"]),
            opposite: None,
        });
        for pair in track.migrations().windows(2) {
            let (before, migration) = (pair[0], pair[1]);
            let database = base(backend, track).await;
            run(track, &database, &up(track, before.slug())).await;
            all.push(Subject {
                track,
                name: format!("up   {}", migration.version),
                template: database.freeze().await,
                command: up(track, migration.slug()),
                opposite: Some(words(&[
                    "--track",
                    track.name(),
                    "migrate",
                    "down",
                    "--allow-data-loss",
                ])),
            });
            let database = base(backend, track).await;
            run(track, &database, &up(track, migration.slug())).await;
            all.push(Subject {
                track,
                name: format!("down {}", migration.version),
                template: database.freeze().await,
                command: words(&[
                    "--track",
                    track.name(),
                    "migrate",
                    "down",
                    "--to",
                    before.slug(),
                    "--allow-data-loss",
                ]),
                opposite: Some(up(track, migration.slug())),
            });
        }
    }
    for (_, sql, to, command) in ROUTINES.iter().filter(|(of, ..)| *of == track) {
        let database = base(backend, track).await;
        run(track, &database, &up(track, to)).await;
        // Checks stand aside: what a routine repairs is what they would refuse.
        if backend == Backend::Sqlite {
            database
                .execute("PRAGMA ignore_check_constraints = ON")
                .await;
        } else if track == Track::BILLING {
            database
                .execute("ALTER TABLE workspaces DROP CONSTRAINT IF EXISTS workspaces_llm_billing_mode_check")
                .await;
        }
        database.execute(sql).await;
        all.push(Subject {
            track,
            name: command.join(" "),
            template: database.freeze().await,
            command: words(command),
            opposite: None,
        });
    }
    all
}

/// Rows by table, and the schema.
pub(crate) type State = (Vec<(String, Vec<String>)>, Vec<String>);

/// The lines that only one of two states has.
pub(crate) fn difference(expected: &State, reached: &State) -> String {
    let lines = |state: &State| -> std::collections::BTreeSet<String> {
        let rows = state.0.iter();
        let rows =
            rows.flat_map(|(table, rows)| rows.iter().map(move |row| format!("{table}: {row}")));
        rows.chain(state.1.iter().cloned()).collect()
    };
    let (expected, reached) = (lines(expected), lines(reached));
    let lost = expected
        .difference(&reached)
        .map(|line| format!("\n  - {line}"));
    let new = reached
        .difference(&expected)
        .map(|line| format!("\n  + {line}"));
    lost.chain(new).collect()
}

/// Rows, schema, and what the histories say was created.
pub(crate) async fn state(database: &TestDatabase) -> State {
    state_without(database, &[]).await
}

/// The same without the rows' values of some columns.
pub(crate) async fn state_without(database: &TestDatabase, columns: &[(&str, &str)]) -> State {
    let catalog = database.catalog().await;
    // A routine writes when it ran.
    let credentials = |table: &str| table.starts_with("oauth_") || table.starts_with("mcp_");
    let mut rows = database
        .everything(|table, column| {
            (column != "updated_at" || !credentials(table)) && !columns.contains(&(table, column))
        })
        .await;
    for track in every_track() {
        let table = track.history_table();
        if catalog.has_table(&table) {
            rows.push((
                table.clone(),
                database.rows(&table, &["version", "created"]).await,
            ));
        }
    }
    for left in ["tollgate_backfills", "tollgate_clones"] {
        if catalog.has_table(left) {
            let columns: Vec<&str> = match left {
                "tollgate_clones" => vec!["original", "kind", "owner", "copy", "settled"],
                _ => vec!["migration", "pass"],
            };
            rows.push((left.to_owned(), database.rows(left, &columns).await));
        }
    }
    // Which of Tollgate's own tables exist depends on how far a run came before it failed.
    rows.retain(|(table, rows)| !(table.starts_with("tollgate_") && rows.is_empty()));
    let schema = database
        .schema()
        .await
        .into_iter()
        .filter(|line| !line.starts_with("tollgate_"))
        .collect();
    (rows, schema)
}

pub(crate) fn without_headers(state: &State, folds: bool) -> State {
    let mut state = state.clone();
    if folds {
        state.0.retain(|(table, _)| {
            table != "config_mcp_clients" && !table.starts_with("mcp_per_user")
        });
    }
    state
}

/// What the points of one subject came to.
#[derive(Default)]
struct Tally {
    points: u64,
    failed: u64,
    killed: u64,
    survived: u64,
    turned: u64,
    differing: Vec<String>,
}

/// A fixed sequence, so that every run of the suite tries the same points.
fn sample(seed: &str, count: u64, points: usize) -> Vec<u64> {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (0..points)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % count + 1
        })
        .collect()
}

impl Subject {
    /// Runs the command under a fault; whether the fault struck, and the run.
    fn under(&self, database: &TestDatabase, fault: &str) -> (Option<String>, tollgate_tests::Run) {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let run = tollgate_of(self.track)
            .on(&database.url)
            .with("TOLLGATE_FAULT", fault)
            .with("TOLLGATE_FAULT_MARK", &mark.display().to_string())
            .run(&command);
        (std::fs::read_to_string(mark).ok(), run)
    }

    /// Undoes what the fault has cut off, where the status says that a step is half done.
    async fn turn(&self, fault: &str, ends: &[State], tally: &mut Tally) {
        let Some(opposite) = &self.opposite else {
            return;
        };
        let database = self.template.copy().await;
        self.under(&database, fault);
        let (_, status) = tollgate_of(self.track)
            .on(&database.url)
            .json(&["migrate", "status"]);
        if status["result"]["in_progress"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            return;
        }
        tally.turned += 1;
        let opposite: Vec<&str> = opposite.iter().map(String::as_str).collect();
        let run = tollgate_of(self.track).on(&database.url).run(&opposite);
        if run.code != 0 {
            tally.differing.push(format!(
                "{} after {fault} cannot be undone: {}",
                self.name, run.stderr
            ));
            return;
        }
        let reached = state(&database).await;
        // Header keys that are folded stay so, as many as there are by then.
        let folds = self.name.ends_with("canonical_header_keys");
        let ends: Vec<State> = ends.iter().map(|end| without_headers(end, folds)).collect();
        let reached = without_headers(&reached, folds);
        if !ends.contains(&reached) {
            tally.differing.push(format!(
                "{} after {fault}, undone, is not as before: {}",
                self.name,
                difference(&ends[0], &reached)
            ));
        }
    }

    async fn fail_everywhere(&self, backend: Backend, all: bool) -> Tally {
        let calm = self.template.copy().await;
        let mut ends = vec![state(&calm).await];
        let (counted, run) = self.under(&calm, "count:0");
        assert_eq!(run.code, 0, "{}: {run:#?}", self.name);
        let count: u64 = counted.unwrap().parse().unwrap();
        let expected = state(&calm).await;
        if let Some(opposite) = &self.opposite {
            // Copies of shared budgets stay: a gateway works on with them.
            self::run(self.track, &calm, opposite).await;
            ends.push(state(&calm).await);
        }
        let mut tally = Tally::default();
        for kind in ["fail", "kill"] {
            let chosen = sample(
                &format!("{}{kind}{backend:?}", self.name),
                count,
                points(backend),
            );
            let mut point = 0;
            loop {
                point += 1;
                if !all && point > count {
                    break;
                }
                if !all && !chosen.contains(&point) {
                    continue;
                }
                let database = self.template.copy().await;
                let (struck, run) = self.under(&database, &format!("{kind}:{point}"));
                if struck.is_none() {
                    assert_eq!(run.code, 0, "{} without a fault: {run:#?}", self.name);
                    break;
                }
                tally.points += 1;
                match (kind, run.code) {
                    ("kill", _) => tally.killed += 1,
                    (_, 0) => tally.survived += 1,
                    _ => tally.failed += 1,
                }
                if kind == "fail" && !matches!(run.code, 0 | 1) {
                    tally.differing.push(format!(
                        "{} {kind}:{point} exits {}: {}",
                        self.name, run.code, run.stderr
                    ));
                }
                let (_, again) = self.under(&database, "none:0");
                if again.code != 0 {
                    tally.differing.push(format!(
                        "{} after {kind}:{point} cannot be repeated: {}",
                        self.name, again.stderr
                    ));
                } else {
                    let reached = state(&database).await;
                    if reached != expected {
                        tally.differing.push(format!(
                            "{} after {kind}:{point} ends elsewhere: {}",
                            self.name,
                            difference(&expected, &reached)
                        ));
                    }
                }
                self.turn(&format!("{kind}:{point}"), &ends, &mut tally)
                    .await;
            }
        }
        tally
    }
}

#[rstest]
#[tokio::test]
async fn whatever_statement_fails_the_next_run_ends_as_if_it_had_not(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Track::GOVERNANCE, Track::PROVIDERS, Track::BILLING, seats::TRACK)] track: Track,
) {
    // `all`, or the end of one subject's name: all of its points, and no other subject.
    let wish = std::env::var("TOLLGATE_FAULTS").ok();
    let all = wish.is_some();
    let mut table = BTreeMap::new();
    let mut differing = Vec::new();
    for subject in subjects(backend, track).await {
        if wish
            .as_ref()
            .is_some_and(|wish| wish != "all" && !subject.name.ends_with(wish.as_str()))
        {
            continue;
        }
        let tally = subject.fail_everywhere(backend, all).await;
        crate::say(&format!(
            "{:<9} {:<52} {:>4} points: {:>4} failed, {:>4} killed, {:>3} survived, {:>4} undone, {} ended elsewhere",
            format!("{backend:?}"),
            subject.name,
            tally.points,
            tally.failed,
            tally.killed,
            tally.survived,
            tally.turned,
            tally.differing.len()
        ));
        table.insert(subject.name, tally.points);
        differing.extend(tally.differing);
    }
    let points: u64 = table.values().sum();
    crate::say(&format!(
        "{backend:?} {track}: {points} points, {} differences",
        differing.len()
    ));
    assert!(table.values().all(|points| *points > 0), "{table:?}");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
