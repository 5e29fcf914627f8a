//! Snapshot, verify and rehearse from the command line.

use rstest::rstest;
use tollgate_migration::Track;
use tollgate_tests::fixture::{Calendar, Shape, every_track, legacy, populated};
use tollgate_tests::{Backend, TestDatabase, Tollgate};

use crate::{tollgate, tollgate_of};

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Codes of findings that say something is wrong.
fn wrong(tollgate: &Tollgate, file: &str) -> (i32, Vec<String>) {
    let (code, json) = tollgate.json(&["verify", "--snapshot", file]);
    let found = json["findings"].as_array().unwrap().iter();
    let blocking = found.filter(|finding| finding["severity"] == "blocking");
    (code, blocking.map(ToString::to_string).collect())
}

#[rstest]
#[tokio::test]
async fn every_phase_there_and_back_keeps_what_the_snapshot_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "200",
        "--hazards",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "before.json");
    tollgate.succeed(&["snapshot", "-o", &file]);
    assert_eq!(wrong(&tollgate, &file), (0, vec![]));
    let up = [
        "migrate",
        "up",
        "--adopt",
        "--shared-budgets",
        "clone",
        "--phase",
    ];
    for phase in ["expand", "backfill", "contract"] {
        tollgate.succeed(&[&up[..], &[phase]].concat());
        assert_eq!(wrong(&tollgate, &file), (0, vec![]), "{phase}");
    }
    // The planted hazards lose a flag on the way down, and say so; one that is lost there was announced there.
    tollgate.succeed(&["migrate", "down"]);
    assert_eq!(wrong(&tollgate, &file), (0, vec![]), "contract undone");
    for _ in 0..2 {
        tollgate.succeed(&["migrate", "down"]);
        let (code, found) = wrong(&tollgate, &file);
        assert_eq!((code, found), (0, vec![]), "one step down");
    }
}

#[rstest]
#[tokio::test]
async fn a_sound_database_of_any_shape_verifies_without_a_snapshot(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let fresh = TestDatabase::new(backend).await;
        let tollgate = tollgate_of(track).on(&fresh.url);
        tollgate.succeed(&["--track", track.name(), "migrate", "up"]);
        tollgate.succeed(&["verify"]);
        let populated = populated(backend, track).await;
        let tollgate = tollgate.on(&populated.url);
        tollgate.succeed(&["verify"]);
        tollgate.succeed(&["migrate", "up", "--adopt"]);
        tollgate.succeed(&["verify"]);
    }
    let required = legacy(backend, Shape::Required, Calendar::None).await;
    let tollgate = crate::tollgate().on(&required.url);
    tollgate.succeed(&["verify"]);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    tollgate.succeed(&["verify"]);
}

#[rstest]
#[tokio::test]
async fn what_was_broken_before_is_no_loss(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    let aside = match backend {
        Backend::Sqlite => "PRAGMA foreign_keys = OFF",
        Backend::Postgres => "SET session_replication_role = replica",
    };
    database
        .execute(&format!(
            "{aside}; INSERT INTO governance_virtual_key_provider_config_keys VALUES (77, 1)"
        ))
        .await;
    let tollgate = tollgate().on(&database.url);
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "before.json");
    tollgate.succeed(&["snapshot", "-o", &file]);
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    let (code, json) = tollgate.json(&["verify"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["error"]["code"], "verify_failed");
    let (code, json) = tollgate.json(&["verify", "--snapshot", &file]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["findings"][0]["severity"], "info", "{json:#}");
    assert_eq!(json["findings"][0]["sample_ids"][0], "77,1");
    // One more of the same is a loss.
    database
        .execute("INSERT INTO governance_virtual_key_provider_config_keys VALUES (78, 1)")
        .await;
    assert_eq!(wrong(&tollgate, &file).0, 4);
}

#[rstest]
#[tokio::test]
async fn a_snapshot_holds_no_secret_and_is_its_owners_alone(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (track, secrets) in [
        (
            Track::GOVERNANCE,
            &["sk-bf-alice", "vh-alice", "env.OPENAI_KEY", "hash-alice"][..],
        ),
        (Track::BILLING, &["made-up-openai", "made-up-slack"]),
    ] {
        let database = populated(backend, track).await;
        let file = path(&folder, track.name());
        let again = path(&folder, &format!("{track}-again"));
        let tollgate = tollgate().on(&database.url);
        let run = tollgate.succeed(&["snapshot", "-o", &file]);
        tollgate.succeed(&["snapshot", "-o", &again]);
        let (one, other) = (
            std::fs::read_to_string(&file).unwrap(),
            std::fs::read_to_string(&again).unwrap(),
        );
        for secret in secrets {
            assert!(!one.contains(secret), "{secret}");
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret));
        }
        let digests = |text: &str| -> serde_json::Value {
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            json["tracks"][0]["tables"].clone()
        };
        assert_ne!(digests(&one), digests(&other), "the salt is the file's own");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_file_that_is_no_snapshot_is_rejected() {
    let database = legacy(Backend::Sqlite, Shape::Full, Calendar::None).await;
    let tollgate = tollgate().on(&database.url);
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "snapshot");
    for (text, reason) in [
        ("", "is no snapshot"),
        ("{}", "is no snapshot"),
        (r#"{"format":"tollgate-snapshot","version":3}"#, "version 3"),
        (
            r#"{"format":"tollgate-snapshot","version":2}"#,
            "is damaged",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, json) = tollgate.json(&["verify", "--snapshot", &file]);
        assert_eq!(code, 1, "{json:#}");
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
    }
    let (code, _) = tollgate.json(&["verify", "--snapshot", &path(&folder, "missing")]);
    assert_eq!(code, 1);
    let (code, json) = tollgate.json(&["snapshot", "-o", &path(&folder, "no/such/folder")]);
    assert_eq!((code, &json["error"]["code"]), (1, &"file".into()));
    tollgate.succeed(&["snapshot", "-o", &file]);
    let postgres = legacy(Backend::Postgres, Shape::Full, Calendar::None).await;
    let (code, json) = tollgate
        .on(&postgres.url)
        .json(&["verify", "--snapshot", &file]);
    assert_eq!(code, 1);
    assert!(
        json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("sqlite"),
        "{json:#}"
    );
}

/// A rehearsal's arguments, with a scratch database where the backend wants one.
fn rehearse<'a>(scratch: &'a Option<TestDatabase>, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["rehearse"];
    arguments.extend(more);
    if let Some(scratch) = scratch {
        arguments.extend(["--scratch-url", &scratch.url]);
    }
    arguments
}

#[rstest]
#[tokio::test]
async fn a_rehearsal_proves_and_touches_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "300",
        "--hazards",
    ]);
    let scratch = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(TestDatabase::new(backend).await),
    };
    // A pause is for the database itself: its copy is nobody's to resume.
    tollgate.succeed(&["migrate", "pause"]);
    let before = (
        database.everything(|_, _| true).await,
        database.schema().await,
    );
    let (code, json) = tollgate.json(&rehearse(&scratch, &["--adopt"]));
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(json["error"]["code"], "blocked");
    let (code, json) = tollgate.json(&rehearse(&scratch, &["--shared-budgets", "clone"]));
    assert_eq!(
        (code, &json["error"]["code"]),
        (4, &"not_adopted".into()),
        "{json:#}"
    );
    let (code, json) = tollgate.json(&rehearse(
        &scratch,
        &["--adopt", "--shared-budgets", "clone"],
    ));
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(
        json["tracks"][0]["to"],
        "m20260330_000007_multi_budget_contract"
    );
    let result = &json["result"];
    assert!(
        result["longest_lock"]["ms"].as_u64().is_some(),
        "{result:#}"
    );
    let budgets = result["compared"]
        .as_array()
        .unwrap()
        .iter()
        .find(|part| part["name"] == "governance_budgets")
        .unwrap();
    assert_eq!(budgets["rows"], budgets["rows_before"]);
    assert_eq!(budgets["sums"], budgets["sums_before"]);
    assert_eq!(
        (
            database.everything(|_, _| true).await,
            database.schema().await
        ),
        before,
        "the source was only read"
    );
    if let Some(scratch) = &scratch {
        let schemas = scratch
            .column("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tollgate%'")
            .await;
        assert!(schemas.is_empty(), "{schemas:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_rehearsal_of_every_fixture_passes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    for track in every_track() {
        let database = populated(backend, track).await;
        let scratch = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(TestDatabase::new(backend).await),
        };
        tollgate_of(track)
            .on(&database.url)
            .succeed(&rehearse(&scratch, &["--adopt"]));
    }
}

#[tokio::test]
async fn a_rehearsal_on_postgres_wants_another_database() {
    let database = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    let tollgate = tollgate().on(&database.url);
    for arguments in [
        &["rehearse", "--adopt"][..],
        &["rehearse", "--adopt", "--scratch-url", &database.url],
        &["rehearse", "--adopt", "--scratch-url", "sqlite:///tmp/x.db"],
    ] {
        let (code, json) = tollgate.json(arguments);
        assert_eq!(code, 2, "{json:#}");
    }
    // What is not copied is seen on the source.
    database
        .execute("CREATE VIEW spending AS SELECT id, budget_id FROM governance_virtual_keys")
        .await;
    let scratch = TestDatabase::new(Backend::Postgres).await;
    let (code, json) = tollgate.json(&["rehearse", "--adopt", "--scratch-url", &scratch.url]);
    assert_eq!(code, 4, "{json:#}");
    let mut codes = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| &finding["code"]);
    assert!(codes.any(|code| code == "G018"), "{json:#}");
}
