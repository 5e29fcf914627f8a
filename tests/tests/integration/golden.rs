//! The golden schemas are what the migrations make, step by step, on both backends.

use std::collections::BTreeSet;

use rstest::rstest;
use tollgate_migration::{Track, schema};
use tollgate_tests::fixture::{Calendar, Shape, every_track, own};
use tollgate_tests::{Backend, TestDatabase};

use crate::{tollgate, tollgate_of};

fn file(track: Track, backend: Backend, version: &str) -> std::path::PathBuf {
    let folder = match backend {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    let schemas = if track == seats::TRACK {
        "../examples/seats/schema".to_owned()
    } else {
        format!("../migration/schema/{track}")
    };
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(schemas)
        .join(folder)
        .join(format!("{version}.txt"))
}

/// The canonical form of everything in the database that is not Tollgate's own.
async fn live(database: &TestDatabase) -> schema::Schema {
    let catalog = database.catalog().await;
    let tables: Vec<&str> = catalog
        .tables
        .keys()
        .map(String::as_str)
        .filter(|name| !name.starts_with("tollgate_"))
        .collect();
    schema::canonical(&catalog, tables)
}

#[rstest]
#[tokio::test]
async fn every_step_makes_its_golden_schema_and_down_makes_the_one_before(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // `just golden` writes them; whoever does reads the diff.
    let write = std::env::var("TOLLGATE_GOLDEN").is_ok_and(|word| word == "write");
    for track in every_track() {
        let database = TestDatabase::new(backend).await;
        let tollgate = tollgate_of(track).on(&database.url);
        let mut texts = Vec::new();
        for migration in track.migrations() {
            tollgate.succeed(&[
                "--track",
                track.name(),
                "migrate",
                "up",
                "--to",
                migration.slug(),
            ]);
            let text = schema::text(&live(&database).await);
            let path = file(track, backend, migration.version);
            if write {
                std::fs::write(&path, &text).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap();
            assert_eq!(
                text,
                golden,
                "{} differs; `just golden` writes it anew",
                path.display()
            );
            texts.push(text);
        }
        for (migration, text) in track.migrations().iter().zip(&texts).rev().skip(1) {
            tollgate.succeed(&["--track", track.name(), "migrate", "down"]);
            assert_eq!(
                &schema::text(&live(&database).await),
                text,
                "down to {}",
                migration.slug()
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn an_upgraded_database_has_all_of_a_fresh_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Calendar::Flag, Calendar::None)] calendar: Calendar,
) {
    let database = own(backend, Shape::Full, calendar).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    let (_, diff) = tollgate.json(&["schema", "diff", "--check"]);
    assert_eq!(diff["result"]["differences"], serde_json::json!([]));
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
}

/// What a boot of Bifrost 1.5.8 on an empty PostgreSQL makes of the track's tables: a column or an index in each line.
const NAMES_OF_1_5_8: &str = include_str!("../../fixtures/bifrost/1.5.8.names.txt");

/// Where a fresh database differs from one of 1.5.8: teams still point to their budgets, as before 1.5.0.
const TEAMS_OF_BEFORE: [&str; 2] = [
    "governance_teams index idx_governance_teams_budget_id",
    "governance_teams.budget_id",
];
const TEAMS_OF_1_5_8: [&str; 4] = [
    "governance_budgets index idx_governance_budgets_team_id",
    "governance_budgets.team_id",
    "governance_teams index idx_governance_teams_name",
    "governance_teams.calendar_aligned",
];
/// For the question of which configs a virtual key has, which upstream answers by reading the whole table.
const OURS: &str = "governance_virtual_key_provider_configs index idx_governance_virtual_key_provider_configs_virtual_key_id";

#[rstest]
#[tokio::test]
async fn a_fresh_database_has_the_columns_and_indexes_of_bifrost_1_5_8(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let up = ["--track", "governance", "migrate", "up"];
    tollgate().on(&database.url).succeed(&up);
    let catalog = database.catalog().await;
    let mut names = BTreeSet::new();
    for (name, table) in &catalog.tables {
        if name.starts_with("tollgate_") {
            continue;
        }
        names.extend(
            table
                .columns
                .iter()
                .map(|column| format!("{name}.{}", column.name)),
        );
        names.extend(
            table
                .indexes
                .iter()
                // Of a primary key, whose index the server names.
                .filter(|index| {
                    !index.name.ends_with("_pkey") && !index.name.starts_with("sqlite_autoindex_")
                })
                .map(|index| format!("{name} index {}", index.name)),
        );
    }
    let theirs: BTreeSet<String> = NAMES_OF_1_5_8.lines().map(str::to_owned).collect();
    let lacking: Vec<&String> = theirs.difference(&names).collect();
    let beyond: Vec<&String> = names
        .difference(&theirs)
        .filter(|name| *name != OURS)
        .collect();
    assert_eq!(lacking, TEAMS_OF_1_5_8);
    assert_eq!(beyond, TEAMS_OF_BEFORE);
}
