//! What holds of every migration of every track; a new one joins by being listed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rstest::rstest;
use tollgate_migration::{Phase, Track};
use tollgate_tests::fixture::{every_track, populated};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate_of;

/// The arguments, for one track.
fn on<'a>(track: Track, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--track", track.name()], arguments].concat()
}

/// Rows and schema, without Tollgate's own tables.
async fn state(database: &TestDatabase) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let schema = database
        .schema()
        .await
        .into_iter()
        .filter(|line| !line.starts_with("tollgate_"))
        .collect();
    (database.everything(|_, _| true).await, schema)
}

#[rstest]
#[tokio::test]
async fn every_table_of_the_fixtures_has_rows(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let database = populated(backend, track).await;
        tollgate_of(track)
            .on(&database.url)
            .succeed(&on(track, &["migrate", "up", "--adopt"]));
        for table in database.catalog().await.tables.keys() {
            if !table.starts_with("tollgate_") {
                assert!(
                    database.count(table).await > 0,
                    "no fixture fills {table} of {track}"
                );
            }
        }
    }
}

#[rstest]
#[tokio::test]
async fn every_step_applied_twice_is_applied_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let database = populated(backend, track).await;
        let tollgate = tollgate_of(track).on(&database.url);
        tollgate.succeed(&on(track, &["migrate", "adopt"]));
        for migration in track.migrations() {
            let up = on(track, &["migrate", "up", "--to", migration.slug()]);
            tollgate.succeed(&up);
            let once = state(&database).await;
            let adopted = database
                .count(&format!(
                    "{} WHERE version = '{}' AND adopted",
                    track.history_table(),
                    migration.version
                ))
                .await;
            if adopted == 1 {
                continue;
            }
            // As if the record had been lost: everything is there, and nothing may be done again.
            database
                .execute(&format!(
                    "DELETE FROM {} WHERE version = '{}'",
                    track.history_table(),
                    migration.version
                ))
                .await;
            tollgate.succeed(&up);
            assert_eq!(state(&database).await, once, "{}", migration.version);
        }
    }
}

#[rstest]
#[tokio::test]
async fn up_down_up_ends_where_up_did(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let database = populated(backend, track).await;
        let tollgate = tollgate_of(track).on(&database.url);
        tollgate.succeed(&on(track, &["migrate", "adopt"]));
        let mut states = vec![state(&database).await];
        let mut applied = Vec::new();
        for migration in track.migrations() {
            tollgate.succeed(&on(track, &["migrate", "up", "--to", migration.slug()]));
            let reached = state(&database).await;
            if states.last() != Some(&reached) {
                states.push(reached);
            }
            applied.push(migration.version);
        }
        let first = database
            .one(&format!(
                "SELECT max(version) FROM {} WHERE adopted",
                track.history_table()
            ))
            .await;
        tollgate.succeed(&on(
            track,
            &["migrate", "down", "--to", &first, "--allow-data-loss"],
        ));
        // Column order is no part of a schema: what comes back comes last.
        assert_eq!(
            state(&database).await.1,
            states[0].1,
            "{track}: the schema as it was"
        );
        tollgate.succeed(&on(track, &["migrate", "up"]));
        assert_eq!(
            Some(&state(&database).await),
            states.last(),
            "{track}: the second time"
        );
    }
}

fn folder(track: Track) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("checks")
        .join(track.name())
}

/// One line of a check, and the rows it expects.
struct Check {
    when: String,
    sql: String,
    rows: Vec<String>,
}

fn checks(path: &std::path::Path) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        if let Some(row) = line.strip_prefix("= ") {
            checks.last_mut().unwrap().rows.push(row.to_owned());
        } else if let Some((when, sql)) = line.split_once(' ')
            && when != "#"
        {
            checks.push(Check {
                when: when.to_owned(),
                sql: sql.to_owned(),
                rows: Vec::new(),
            });
        }
    }
    checks
}

async fn hold(database: &TestDatabase, checks: &[Check], when: &str) {
    for check in checks.iter().filter(|check| check.when == when) {
        if when == "between" {
            database.execute(&check.sql).await;
        } else {
            assert_eq!(
                database.column(&check.sql).await,
                check.rows,
                "{}",
                check.sql
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn every_migration_that_moves_data_does_what_its_check_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let mut files: BTreeSet<PathBuf> = std::fs::read_dir(folder(track))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let database = populated(backend, track).await;
        let tollgate = tollgate_of(track).on(&database.url);
        tollgate.succeed(&on(track, &["migrate", "adopt"]));
        for migration in track.migrations() {
            let file = folder(track).join(format!("{}.txt", migration.slug()));
            let checks = if files.remove(&file) {
                checks(&file)
            } else {
                // Indexes and constraints move nothing.
                assert!(
                    migration.phase == Phase::Expand || migration.slug().ends_with("constraints"),
                    "{} moves data and has no check",
                    migration.version
                );
                Vec::new()
            };
            hold(&database, &checks, "before").await;
            hold(&database, &checks, "between").await;
            tollgate.succeed(&on(track, &["migrate", "up", "--to", migration.slug()]));
            hold(&database, &checks, "after").await;
        }
        assert!(files.is_empty(), "no migration runs {files:?}");
    }
}
