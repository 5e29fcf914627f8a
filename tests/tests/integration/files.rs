//! Files beside a database, inputs and outputs: owners, modes, links, pipes that close, and what an operator mistypes.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, Run, TestDatabase};

use crate::tollgate;

async fn sqlite() -> TestDatabase {
    legacy(Backend::Sqlite, Shape::Full, Calendar::Flag).await
}

fn path(database: &TestDatabase) -> PathBuf {
    database.folder().unwrap().join("gateway.db")
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_lock_file_has_the_owner_and_the_mode_of_the_database() {
    let database = sqlite().await;
    let file = path(&database);
    mode(&file, 0o660);
    // Only root can give a file away; anybody else's stays its own.
    let mine = std::fs::metadata(&file).unwrap().uid();
    let owner = if mine == 0 { 1000 } else { mine };
    chown(&file, Some(owner), None).unwrap();
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let lock = std::fs::metadata(file.with_extension("db.lock")).unwrap();
    assert_eq!(lock.uid(), owner);
    assert_eq!(lock.mode() & 0o777, 0o660);
}

#[rstest]
#[case::link(true)]
#[case::not_its_own(false)]
#[tokio::test]
async fn a_lock_file_that_is_not_its_own_is_left_alone(#[case] link: bool) {
    let database = sqlite().await;
    let lock = path(&database).with_extension("db.lock");
    let precious = database.folder().unwrap().join("precious");
    std::fs::write(&precious, "somebody's notes, no lock\n".repeat(20)).unwrap();
    if link {
        symlink(&precious, &lock).unwrap();
    } else {
        std::fs::rename(&precious, &lock).unwrap();
    }
    let run = tollgate()
        .on(&database.url)
        .run(&["migrate", "up", "--adopt"]);
    assert_eq!(run.code, 4, "{run:#?}");
    assert!(run.stderr.contains("gateway.db.lock"), "{run:#?}");
    assert!(
        std::fs::read_to_string(&lock)
            .unwrap()
            .starts_with("somebody's notes"),
        "it is as it was"
    );
    assert!(!database.has_table("tollgate_governance_migrations").await);
}

/// As root an owner that cannot write is not seen: the command runs as somebody else where this test runs as root.
fn as_gateway(database: &TestDatabase, arguments: &[&str]) -> Run {
    let mut command = tollgate().on(&database.url).command(arguments);
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        std::os::unix::process::CommandExt::uid(&mut command, 1000);
        std::os::unix::process::CommandExt::gid(&mut command, 1000);
    }
    Run::from(command.output().unwrap())
}

fn give(database: &TestDatabase) {
    let folder = database.folder().unwrap();
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        for entry in std::fs::read_dir(folder).unwrap() {
            chown(entry.unwrap().path(), Some(1000), Some(1000)).unwrap();
        }
        chown(folder, Some(1000), Some(1000)).unwrap();
    }
}

/// Root looks first, an init container or an operator; then the gateway's user works.
#[tokio::test]
async fn reading_leaves_no_log_that_the_gateway_cannot_write() {
    let database = sqlite().await;
    database.execute("PRAGMA journal_mode = WAL").await;
    database.connection.clone().close().await.unwrap();
    give(&database);
    for command in [
        &["doctor"][..],
        &["migrate", "plan", "--adopt"],
        &[
            "budget",
            "check",
            "--virtual-key",
            "vk-alice",
            "--provider",
            "openai",
        ],
    ] {
        tollgate().on(&database.url).run(command);
    }
    let owner = std::fs::metadata(path(&database)).unwrap().uid();
    for entry in std::fs::read_dir(database.folder().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().uid(), owner, "{entry:?}");
    }
    let run = as_gateway(&database, &["migrate", "up", "--adopt"]);
    assert_eq!(run.code, 0, "{run:#?}");
    tollgate().on(&database.url).succeed(&["verify"]);
    let run = as_gateway(&database, &["reconcile", "all"]);
    assert_eq!(run.code, 0, "{run:#?}");
}

#[tokio::test]
async fn a_log_in_a_folder_that_nobody_may_write_is_read() {
    let database = sqlite().await;
    database.execute("PRAGMA journal_mode = WAL").await;
    database.connection.clone().close().await.unwrap();
    give(&database);
    let folder = database.folder().unwrap();
    mode(folder, 0o555);
    let run = as_gateway(&database, &["doctor"]);
    let refused = as_gateway(&database, &["migrate", "up", "--adopt"]);
    mode(folder, 0o755);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.stderr.contains("hint: "), "{refused:#?}");
}

#[tokio::test]
async fn no_folder_for_temporary_files_is_needed() {
    let database = sqlite().await;
    let tollgate = tollgate()
        .on(&database.url)
        .with("TMPDIR", "/nowhere")
        .with("SQLITE_TMPDIR", "/nowhere");
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    tollgate.succeed(&["verify"]);
    tollgate.succeed(&["reconcile", "all"]);
}

#[rstest]
#[case("sqlite:///dev/null")]
#[case("sqlite:///proc/self/status")]
#[case("sqlite:///tmp")]
fn what_is_no_regular_file_is_refused_at_once(#[case] url: &str) {
    let begun = std::time::Instant::now();
    let run = tollgate()
        .on(url)
        .run(&["migrate", "up", "--track", "governance"]);
    assert!(matches!(run.code, 1 | 2), "{run:#?}");
    assert!(run.stderr.contains("hint: "), "{run:#?}");
    assert!(begun.elapsed().as_secs() < 3);
}

#[rstest]
#[case(&["doctor"])]
#[case(&["migrate", "plan", "--adopt"])]
#[case(&["doctor", "--output", "json"])]
#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_failure(#[case] command: &[&str]) {
    let database = sqlite().await;
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = tollgate()
        .on(&database.url)
        .command(command)
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut child = tollgate()
        .on(&database.url)
        .command(command)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[rstest]
#[tokio::test]
async fn an_id_that_nothing_has_is_an_error(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database =
        tollgate_tests::fixture::populated(backend, tollgate_migration::Track::GOVERNANCE).await;
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
    ]);
    for command in [
        &["reconcile", "credentials", "--virtual-key", "TYPO"][..],
        &[
            "reconcile",
            "credentials",
            "--mcp-client",
            "TYPO",
            "--check",
        ],
        &["reconcile", "header-requirements", "--mcp-client", "TYPO"],
        &[
            "budget",
            "check",
            "--virtual-key",
            "TYPO",
            "--provider",
            "openai",
        ],
        &["virtual-key", "delete", "TYPO"],
        &["virtual-key", "delete", "\\' OR true -- "],
        &["provider-config", "delete", "999999"],
        &["history", "--run", "999999"],
    ] {
        let run = tollgate().on(&database.url).run(command);
        assert_eq!(run.code, 1, "{command:?}: {run:#?}");
    }
    assert!(database.count("governance_virtual_keys").await > 1);
}

#[tokio::test]
async fn empty_variables_count_as_unset() {
    let database = sqlite().await;
    let mut tollgate = tollgate().on(&database.url);
    for name in [
        "TOLLGATE_TRACK",
        "TOLLGATE_OUTPUT",
        "TOLLGATE_LOG_FORMAT",
        "TOLLGATE_LOCK_TIMEOUT",
        "TOLLGATE_CONNECT_TIMEOUT",
        "TOLLGATE_WAIT_LOCK",
        "TOLLGATE_DATABASE_URL_FILE",
        "TOLLGATE_SHARED_BUDGETS",
        "TOLLGATE_ACCEPT_POLICY_CHANGE",
    ] {
        tollgate = tollgate.with(name, "");
    }
    tollgate.succeed(&["migrate", "plan", "--adopt"]);
}

#[rstest]
#[case("1")]
#[case("true")]
#[case("yes")]
#[tokio::test]
async fn a_switch_in_a_variable_is_read(#[case] value: &str) {
    let database =
        tollgate_tests::fixture::populated(Backend::Sqlite, tollgate_migration::Track::PROVIDERS)
            .await;
    tollgate()
        .on(&database.url)
        .with("TOLLGATE_ACCEPT_POLICY_CHANGE", value)
        .succeed(&["migrate", "up", "--adopt"]);
}

/// A config file with a byte order mark, and one on standard input.
#[tokio::test]
async fn a_config_is_read_with_a_mark_and_from_standard_input() {
    let database = sqlite().await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let config = "\u{feff}{\"governance\": {\"virtual_keys\": [{\"id\": \"vk-alice\", \"name\": \"Alice\", \"value\": \"sk-bf-alice\", \
        \"budgets\": [{\"id\": \"b-alice\", \"max_limit\": 77.5, \"reset_duration\": \"1d\"}]}]}}";
    let file = database.folder().unwrap().join("config.json");
    std::fs::write(&file, config).unwrap();
    let check = ["reconcile", "config", "--dry-run", "--file"];
    tollgate()
        .on(&database.url)
        .succeed(&[&check[..], &[file.to_str().unwrap()]].concat());
    let mut child = Command::new("sh")
        .arg("-c")
        .arg("cat \"$0\" | exec \"$@\"")
        .arg(&file)
        .arg(env!("CARGO_BIN_EXE_tollgate-under-test"))
        .args(["reconcile", "config", "--file", "-"])
        .env("DATABASE_URL", &database.url)
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let limit = database
        .one("SELECT CAST(max_limit AS text) FROM governance_budgets WHERE id = 'b-alice'")
        .await;
    assert_eq!(limit, "77.5");
}

/// Rowids far apart, below zero too.
#[rstest]
#[case(&[(1_i64 << 62), -7, -(1_i64 << 61)])]
#[tokio::test]
async fn rowids_far_apart_take_no_time(#[case] rowids: &[i64]) {
    let database = sqlite().await;
    for (rowid, id) in rowids.iter().zip(["vk-alice", "vk-dave", "vk-carol"]) {
        database
            .execute(&format!(
                "UPDATE governance_virtual_keys SET rowid = {rowid} WHERE id = '{id}'"
            ))
            .await;
    }
    let begun = std::time::Instant::now();
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    tollgate().on(&database.url).succeed(&["verify"]);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

/// A backup without Tollgate's tables, taken between two phases, is adopted at the step that its schema shows.
#[rstest]
#[tokio::test]
async fn a_restored_database_is_adopted_at_its_step(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("governance", "providers", "billing")] name: &str,
) {
    let track: tollgate_migration::Track = name.parse().unwrap();
    for migration in track.migrations() {
        let database = tollgate_tests::fixture::populated(backend, track).await;
        let tollgate = tollgate().on(&database.url);
        let flags: &[&str] = &["--shared-budgets", "clone", "--accept-policy-change"];
        tollgate.succeed(
            &[
                &["migrate", "up", "--adopt", "--to", migration.slug()],
                flags,
            ]
            .concat(),
        );
        let own: Vec<String> = database
            .catalog()
            .await
            .tables
            .keys()
            .filter(|table| table.starts_with("tollgate_"))
            .cloned()
            .collect();
        for table in own {
            database.execute(&format!("DROP TABLE {table}")).await;
        }
        let run = tollgate.run(&[&["migrate", "up", "--adopt"], flags].concat());
        assert_eq!(run.code, 0, "{}: {run:#?}", migration.slug());
        let run = tollgate.run(&["verify"]);
        assert_eq!(run.code, 0, "{}: {run:#?}", migration.slug());
        let run = tollgate.run(&["migrate", "status", "--check"]);
        assert_eq!(run.code, 0, "{}: {run:#?}", migration.slug());
    }
}
