//! Bad input: a clear message with a hint, the right exit code, and nothing created or changed.

use std::path::Path;

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, Run, TestDatabase};

use crate::tollgate;

/// Runs `migrate up` with an address, in text and in JSON, and expects the same refusal of both.
fn refused(url: &str, arguments: &[&str], code: i32, error: &str) -> Run {
    let with_url = tollgate().on(url);
    let run = with_url.run(arguments);
    assert_eq!(run.code, code, "{run:#?}");
    assert!(run.stderr.contains("error: "), "{run:#?}");
    assert!(run.stderr.contains("hint: "), "{run:#?}");
    let (json_code, json) = with_url.json(arguments);
    assert_eq!(json_code, code, "{json:#}");
    assert_eq!(json["error"]["code"], error, "{json:#}");
    assert_eq!(json["ok"], false);
    assert_eq!(json["exit_code"], code);
    run
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_unreachable_server_says_where_it_tried_and_keeps_the_password() {
    // Port 1 on loopback: nothing listens there.
    let run = refused(
        "postgres://gateway:hunter2@127.0.0.1:1/bifrost",
        &["migrate", "up", "--connect-timeout", "1"],
        1,
        "unreachable",
    );
    assert!(run.stderr.contains("127.0.0.1:1/bifrost"), "{run:#?}");
    assert!(!run.stderr.contains("hunter2"), "{run:#?}");
}

#[rstest]
#[case("mysql://root@localhost/bifrost")]
#[case("bifrost.db")]
#[case("sqlite::memory:")]
#[case("postgres://[broken")]
fn an_address_that_is_none_is_a_usage_error(#[case] url: &str) {
    refused(url, &["migrate", "up"], 2, "usage");
}

#[test]
fn no_address_at_all_is_a_usage_error() {
    let run = tollgate().run(&["migrate", "up"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("DATABASE_URL"), "{run:#?}");
}

#[test]
fn an_unknown_track_or_word_is_a_usage_error_in_json_too() {
    for arguments in [
        &[
            "migrate",
            "up",
            "--track",
            "governnance",
            "--output",
            "json",
        ][..],
        &["migrate", "sideways", "--output", "json"],
        &["migrate", "up", "--phase", "late", "--output", "json"],
    ] {
        let run = tollgate().on("sqlite://nowhere.db").run(arguments);
        assert_eq!(run.code, 2, "{run:#?}");
        assert_eq!(run.json()["error"]["code"], "usage", "{run:#?}");
    }
}

#[test]
fn a_file_that_is_not_there_stays_that_way() {
    let folder = tempfile();
    let url = format!("sqlite://{}/gone.db", folder.path().display());
    refused(&url, &["migrate", "up"], 1, "no_file");
    refused(&url, &["migrate", "status"], 1, "no_file");
    refused(
        &url,
        &["migrate", "plan", "--track", "governance"],
        1,
        "no_file",
    );
    assert_eq!(files(folder.path()), [] as [&str; 0]);
}

#[test]
fn a_file_that_is_no_database_stays_as_it_is() {
    let folder = tempfile();
    let path = folder.path().join("notes.txt");
    let text = "these are notes, and nobody's database\n".repeat(40);
    std::fs::write(&path, &text).unwrap();
    let url = format!("sqlite://{}", path.display());
    refused(&url, &["migrate", "up"], 1, "not_a_database");
    refused(
        &url,
        &["migrate", "up", "--track", "governance"],
        1,
        "not_a_database",
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(files(folder.path()), ["notes.txt"]);
}

#[tokio::test]
async fn a_read_only_file_can_be_looked_at_and_not_migrated() {
    let database = legacy(Backend::Sqlite, Shape::Required, Calendar::Flag).await;
    let path = database.folder().unwrap().join("gateway.db");
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    refused(&database.url, &["migrate", "up", "--adopt"], 1, "read_only");
    refused(&database.url, &["migrate", "adopt"], 1, "read_only");
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "adopt", "--dry-run"]);
    tollgate().on(&database.url).succeed(&["migrate", "status"]);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(
        files(database.folder().unwrap()),
        ["gateway.db"],
        "no lock file either"
    );
}

#[rstest]
#[tokio::test]
async fn an_empty_database_needs_a_track(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let run = refused(&database.url, &["migrate", "up"], 2, "usage");
    assert!(run.stderr.contains("--track"), "{run:#?}");
    refused(&database.url, &["migrate", "status"], 2, "usage");
    assert!(database.catalog().await.tables.is_empty());
}

#[rstest]
#[case::table_missing(
    "DROP TABLE governance_virtual_key_provider_configs",
    "there is no table governance_virtual_key_provider_configs"
)]
#[case::owner_column_there(
    "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)",
    "virtual_key_id"
)]
#[case::reference_missing(
    "ALTER TABLE governance_virtual_keys DROP COLUMN budget_id",
    "governance_virtual_keys has no column budget_id"
)]
#[tokio::test]
async fn a_half_known_schema_is_refused_with_the_difference(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] damage: &str,
    #[case] named: &str,
) {
    let database = legacy(backend, Shape::Required, Calendar::Flag).await;
    database.execute(damage).await;
    let schema = database.schema().await;
    for arguments in [
        &["migrate", "adopt"][..],
        &["migrate", "up", "--adopt"],
        &["migrate", "up"],
    ] {
        let run = refused(&database.url, arguments, 4, "unknown_schema");
        assert!(run.stderr.contains(named), "{run:#?}");
    }
    assert_eq!(database.schema().await, schema);
}

#[rstest]
#[tokio::test]
async fn tables_without_history_point_to_adopt(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    let schema = database.schema().await;
    let run = refused(&database.url, &["migrate", "up"], 4, "not_adopted");
    assert!(run.stderr.contains("migrate adopt"), "{run:#?}");
    assert_eq!(database.schema().await, schema);
}

#[tokio::test]
async fn a_wrong_migration_name_gets_the_nearest_one() {
    let database = legacy(Backend::Sqlite, Shape::Required, Calendar::Flag).await;
    let run = refused(
        &database.url,
        &["migrate", "up", "--adopt", "--to", "multi_budget_expnd"],
        2,
        "usage",
    );
    assert!(
        run.stderr.contains("did you mean multi_budget_expand?"),
        "{run:#?}"
    );
}

#[tokio::test]
async fn a_history_from_a_newer_tollgate_is_left_alone() {
    let database = legacy(Backend::Sqlite, Shape::Required, Calendar::Flag).await;
    tollgate().on(&database.url).succeed(&["migrate", "adopt"]);
    database
        .execute("INSERT INTO tollgate_governance_migrations (version, applied_at) VALUES ('m20990101_000001_later', 1)")
        .await;
    let run = refused(&database.url, &["migrate", "up"], 4, "newer_history");
    assert!(run.stderr.contains("m20990101_000001_later"), "{run:#?}");
}

fn tempfile() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_is_not_a_terminal_gets_no_colours() {
    for arguments in [
        &["--help"][..],
        &["migrate", "up", "--help"],
        &["migrate", "sideways"],
    ] {
        let run = tollgate().run(arguments);
        assert!(
            !run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'),
            "{run:#?}"
        );
    }
}
