//! The keys with which gateway replicas authenticate (`docs/upstream/coder.md` §A5).

mod secrets;

use std::io::Write as _;

use rstest::rstest;
use sea_orm::ConnectionTrait;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tollgate_tests::fixture::coder;
use tollgate_tests::{Backend, Run, TestDatabase};

use crate::tollgate;

async fn fresh(backend: Backend) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--track",
        "providers",
        "--to",
        "gateway_keys",
    ]);
    database
}

fn create(database: &TestDatabase, name: &str) -> Value {
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["gateway-key", "create", name]);
    assert_eq!(code, 0, "{json:#}");
    json["result"].clone()
}

fn authenticate(database: &TestDatabase, presented: &[u8], more: &[&str]) -> Run {
    let mut child = tollgate()
        .on(&database.url)
        .command(&[&["gateway-key", "authenticate"], more].concat())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(presented).unwrap();
    Run::from(child.wait_with_output().unwrap())
}

fn list(database: &TestDatabase) -> Vec<Value> {
    let (code, json) = tollgate().on(&database.url).json(&["gateway-key", "list"]);
    assert_eq!(code, 0, "{json:#}");
    json["result"]["keys"].as_array().unwrap().clone()
}

/// A blob of the hexadecimal digits.
fn blob(backend: Backend, hex: &str) -> String {
    match backend {
        Backend::Sqlite => format!("x'{hex}'"),
        Backend::Postgres => format!("'\\x{hex}'::bytea"),
    }
}

fn insert(backend: Backend, number: u32, name: &str, prefix: &str, hash: &str) -> String {
    format!(
        "INSERT INTO ai_gateway_keys (id, created_at, name, secret_prefix, hashed_secret) VALUES \
         ('e1000000-0000-4000-8000-{number:012}', '2026-02-01 00:00:00+00:00', '{name}', '{prefix}', {})",
        blob(backend, hash)
    )
}

#[rstest]
#[tokio::test]
async fn the_constraints_hold_by_themselves(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    database
        .execute(&insert(backend, 1, "replica-1", "abcdefghijk", "01"))
        .await;
    let (of_64, of_65) = ("a".repeat(64), "a".repeat(65));
    let rows: [(&str, &str, &str, bool); 27] = [
        ("replica-2", "00000000001", "02", true),
        ("a", "00000000002", "03", true),
        ("7", "00000000003", "04", true),
        ("a1-b2-c3", "00000000004", "05", true),
        (&of_64, "00000000005", "06", true),
        (&of_65, "00000000006", "07", false),
        ("", "00000000006", "07", false),
        ("-", "00000000006", "07", false),
        ("-leading", "00000000006", "07", false),
        ("trailing-", "00000000006", "07", false),
        ("double--dash", "00000000006", "07", false),
        ("under_score", "00000000006", "07", false),
        ("a space", "00000000006", "07", false),
        (" a", "00000000006", "07", false),
        ("line\n", "00000000006", "07", false),
        ("a.b", "00000000006", "07", false),
        ("Upper", "00000000006", "07", false),
        ("REPLICA-1", "00000000006", "07", false),
        ("ключ", "00000000006", "07", false),
        ("é", "00000000006", "07", false),
        ("鍵", "00000000006", "07", false),
        ("replica-1", "00000000006", "07", false),
        ("prefix-short", "0000000006", "07", false),
        ("prefix-long", "000000000006", "07", false),
        ("prefix-taken", "abcdefghijk", "07", false),
        ("hash-taken", "00000000006", "01", false),
        ("hash-empty", "00000000006", "", false),
    ];
    for (number, (name, prefix, hash, accepted)) in (10..).zip(rows) {
        let inserted = database
            .connection
            .execute_unprepared(&insert(backend, number, name, prefix, hash))
            .await;
        assert_eq!(
            inserted.is_ok(),
            accepted,
            "{name:?} {prefix:?} {hash:?}: {inserted:?}"
        );
        // Each by the constraint that is meant for it, which the error names; SQLite names columns of an index instead.
        if let Err(error) = inserted {
            let error = error.to_string();
            let by = match (name, backend) {
                ("replica-1", Backend::Postgres) => "ai_gateway_keys_name_idx",
                ("replica-1", Backend::Sqlite) => "ai_gateway_keys_name_idx",
                ("prefix-short", _) => "ai_gateway_keys_secret_prefix_check",
                // The type is as long as the check.
                ("prefix-long", Backend::Postgres) => "character varying(11)",
                ("prefix-long", Backend::Sqlite) => "ai_gateway_keys_secret_prefix_check",
                ("prefix-taken", Backend::Postgres) => "ai_gateway_keys_secret_prefix_idx",
                ("prefix-taken", Backend::Sqlite) => "ai_gateway_keys.secret_prefix",
                ("hash-taken", Backend::Postgres) => "ai_gateway_keys_hashed_secret_idx",
                ("hash-taken", Backend::Sqlite) => "ai_gateway_keys.hashed_secret",
                ("hash-empty", _) => "ai_gateway_keys_hashed_secret_check",
                _ => "ai_gateway_keys_name_check",
            };
            assert!(error.contains(by), "{name:?} {prefix:?} {hash:?}: {error}");
        }
    }
    assert_eq!(database.count("ai_gateway_keys").await, 6);
    // Names are unique whatever their case, also where the check on case is gone.
    let without = match backend {
        Backend::Sqlite => "PRAGMA ignore_check_constraints = ON",
        Backend::Postgres => {
            "ALTER TABLE ai_gateway_keys DROP CONSTRAINT ai_gateway_keys_name_check"
        }
    };
    database.execute(without).await;
    let other_case = database
        .connection
        .execute_unprepared(&insert(backend, 90, "REPLICA-1", "00000000009", "99"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        other_case.contains("ai_gateway_keys_name_idx"),
        "{other_case}"
    );
}

/// A table that lost its unique index takes a name once all the same.
#[rstest]
#[tokio::test]
async fn a_name_is_taken_once_without_the_index_too(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    database
        .execute("DROP INDEX ai_gateway_keys_name_idx")
        .await;
    create(&database, "replica");
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["gateway-key", "create", "REPLICA"]);
    assert_eq!(code, 1, "{json:#}");
    database
        .execute(&insert(backend, 2, "replica", "00000000002", "02"))
        .await;
    let (code, json) = tollgate()
        .on(&database.url)
        .json(&["gateway-key", "delete", "replica"]);
    assert_eq!(code, 1, "{json:#}");
    assert!(
        json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("by its id"),
        "{json:#}"
    );
    assert_eq!(database.count("ai_gateway_keys").await, 2);
}

#[rstest]
#[tokio::test]
async fn a_key_lives_from_create_to_delete(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    assert!(list(&database).is_empty());
    let created = create(&database, "US-East-1");
    let secret = created["secret"].as_str().unwrap();
    assert_eq!(created["name"], "us-east-1");
    assert_eq!(secret.len(), 43);
    assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(created["secret_prefix"], secret[..11]);
    // The database holds the hash of the whole secret, and the secret nowhere.
    let hash = match backend {
        Backend::Sqlite => "SELECT lower(hex(hashed_secret)) FROM ai_gateway_keys",
        Backend::Postgres => "SELECT encode(hashed_secret, 'hex') FROM ai_gateway_keys",
    };
    let expected: String = Sha256::digest(secret.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(database.one(hash).await, expected);

    let key = &list(&database)[0];
    for field in ["id", "name", "secret_prefix", "created_at"] {
        assert_eq!(key[field], created[field], "{field}");
    }
    assert_eq!(key["last_used_at"], Value::Null);
    assert_eq!(key.as_object().unwrap().len(), 5, "{key:#}");

    for presented in [
        secret.to_owned(),
        format!("{secret}\n"),
        format!("{secret}\r\n"),
    ] {
        let run = authenticate(&database, presented.as_bytes(), &["--output", "json"]);
        assert_eq!(run.code, 0, "{run:#?}");
        let json = run.json();
        assert_eq!(json["result"]["name"], "us-east-1");
        assert!(json["result"]["last_used_at"].is_string(), "{json:#}");
    }
    let used = list(&database)[0]["last_used_at"].clone();
    assert!(
        used.as_str() >= created["created_at"].as_str(),
        "{used} {created}"
    );

    // A name in another case is the same name.
    let second = create(&database, "eu-west");
    for taken in ["us-east-1", "US-EAST-1", "EU-West"] {
        let (code, json) = tollgate()
            .on(&database.url)
            .json(&["gateway-key", "create", taken]);
        assert_eq!(
            (code, &json["error"]["code"]),
            (1, &"rejected".into()),
            "{json:#}"
        );
    }
    let names: Vec<Value> = list(&database)
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["us-east-1", "eu-west"]);

    let delete = |key: &str| {
        tollgate()
            .on(&database.url)
            .json(&["gateway-key", "delete", key])
    };
    let (code, json) = delete(second["id"].as_str().unwrap());
    assert_eq!((code, &json["result"]["name"]), (0, &"eu-west".into()));
    let (code, _) = delete("US-EAST-1");
    assert_eq!(code, 0);
    assert!(list(&database).is_empty());
    for missing in ["us-east-1", second["id"].as_str().unwrap(), "nobody", ""] {
        let (code, json) = delete(missing);
        assert_eq!(
            (code, &json["error"]["code"]),
            (1, &"not_found".into()),
            "{json:#}"
        );
    }
    // A name may be given again once its key is gone, and the old secret opens nothing.
    create(&database, "us-east-1");
    assert_eq!(authenticate(&database, secret.as_bytes(), &[]).code, 1);
}

#[rstest]
#[tokio::test]
async fn whoever_is_refused_is_not_told_why(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let kept = create(&database, "kept")["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let deleted = create(&database, "gone")["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    tollgate()
        .on(&database.url)
        .succeed(&["gateway-key", "delete", "gone"]);
    let mut other = kept.clone().into_bytes();
    other[42] = if other[42] == b'a' { b'b' } else { b'a' };
    let long = "x".repeat(10_000);
    let mut answers = Vec::new();
    for presented in [
        deleted.as_bytes(),
        &other,
        &kept.as_bytes()[..42],
        &kept.as_bytes()[..11],
        format!("{kept}x").as_bytes(),
        format!(" {kept}").as_bytes(),
        b"",
        b"\n",
        b"\xff\xfe\x00",
        b"' OR 1 = 1 --",
        long.as_bytes(),
    ] {
        let text = authenticate(&database, presented, &[]);
        let mut json = authenticate(&database, presented, &["--output", "json"]).json();
        json["duration_ms"] = 0.into();
        answers.push((text.code, text.stdout, text.stderr, json));
    }
    assert_eq!(answers[0].0, 1, "{answers:#?}");
    assert_eq!(answers[0].3["error"]["code"], "invalid_key");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
    assert_eq!(list(&database)[0]["last_used_at"], Value::Null);
    assert_eq!(authenticate(&database, kept.as_bytes(), &[]).code, 0);
}

#[rstest]
#[tokio::test]
async fn a_name_is_checked_before_the_database_sees_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    for name in [
        "",
        "-",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a b",
        "ключ",
        "é",
        &"a".repeat(65),
    ] {
        let (code, json) = tollgate()
            .on(&database.url)
            .json(&["gateway-key", "create", name]);
        assert_eq!(
            (code, &json["error"]["code"]),
            (2, &"usage".into()),
            "{name:?} {json:#}"
        );
    }
    assert!(list(&database).is_empty());
    create(&database, &"A".repeat(64));
    assert_eq!(list(&database)[0]["name"], "a".repeat(64));
}

#[rstest]
#[tokio::test]
async fn of_two_that_take_one_name_one_gets_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let children: Vec<_> = (0..6)
        .map(|number| {
            tollgate()
                .on(&database.url)
                .command(&[
                    "gateway-key",
                    "create",
                    if number % 2 == 0 { "same" } else { "SAME" },
                ])
                .spawn()
                .unwrap()
        })
        .collect();
    let mut codes: Vec<i32> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().status.code().unwrap())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 1, 1, 1, 1, 1]);
    assert_eq!(list(&database).len(), 1);
}

/// The table under the name it had before, with what it lacked then.
#[rstest]
#[tokio::test]
async fn the_table_of_an_older_server_is_used_as_it_is(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    let (id, time, bytes, rule) = match backend {
        Backend::Sqlite => (
            "text",
            "datetime",
            "blob",
            "name NOT GLOB '*[^a-z0-9-]*' AND name <> '' AND name NOT LIKE '-%' AND name NOT LIKE '%-' AND name NOT LIKE '%--%'",
        ),
        Backend::Postgres => (
            "uuid",
            "timestamp with time zone",
            "bytea",
            "name ~ '^[a-z0-9]+(-[a-z0-9]+)*$'",
        ),
    };
    database
        .execute(&format!(
            "DROP TABLE ai_gateway_keys; \
             CREATE TABLE ai_gateway_coderd_keys (id {id} NOT NULL PRIMARY KEY, created_at {time} NOT NULL, name varchar(64) NOT NULL, \
             secret_prefix varchar(11) NOT NULL CHECK (length(secret_prefix) = 11), hashed_secret {bytes} NOT NULL, last_used_at {time}, \
             CONSTRAINT ai_gateway_coderd_keys_name_check CHECK ({rule})); \
             CREATE UNIQUE INDEX ai_gateway_coderd_keys_name_idx ON ai_gateway_coderd_keys (lower(name)); \
             CREATE UNIQUE INDEX ai_gateway_coderd_keys_secret_prefix_idx ON ai_gateway_coderd_keys (secret_prefix); \
             CREATE UNIQUE INDEX ai_gateway_coderd_keys_hashed_secret_idx ON ai_gateway_coderd_keys (hashed_secret);"
        ))
        .await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let created = create(&database, "replica");
    let secret = created["secret"].as_str().unwrap();
    assert_eq!(database.count("ai_gateway_coderd_keys").await, 1);
    assert_eq!(authenticate(&database, secret.as_bytes(), &[]).code, 0);
    assert!(list(&database)[0]["last_used_at"].is_string());
    tollgate()
        .on(&database.url)
        .succeed(&["gateway-key", "delete", "replica"]);
    assert!(!database.catalog().await.has_table("ai_gateway_keys"));
    tollgate().on(&database.url).succeed(&["verify"]);
}

#[rstest]
#[tokio::test]
async fn a_database_without_the_table_says_so(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let said = |json: Value, code| {
        assert_eq!(
            (code, &json["error"]["code"]),
            (1, &"not_found".into()),
            "{json:#}"
        );
    };
    for arguments in [
        &["gateway-key", "create", "a"][..],
        &["gateway-key", "list"],
        &["gateway-key", "delete", "a"],
    ] {
        let (code, json) = tollgate().on(&database.url).json(arguments);
        said(json, code);
    }
    let run = authenticate(&database, b"abc", &["--output", "json"]);
    said(serde_json::from_str(&run.stdout).unwrap(), run.code);
}

/// A database that takes no writes is that, and not a failed statement.
#[tokio::test]
async fn a_database_that_takes_no_writes_says_so() {
    let database = fresh(Backend::Postgres).await;
    let name = database.one("SELECT current_database()").await;
    database
        .execute(&format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on"
        ))
        .await;
    for arguments in [
        &["gateway-key", "create", "a"][..],
        &["gateway-key", "delete", "a"],
    ] {
        let (code, json) = tollgate().on(&database.url).json(arguments);
        assert_eq!(
            (code, &json["error"]["code"]),
            (1, &"read_only".into()),
            "{json:#}"
        );
    }
}

/// Upstream renames the column of the last use after adoption; that is no drift.
#[rstest]
#[tokio::test]
async fn the_column_that_upstream_renames_is_no_drift(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    create(&database, "replica");
    database
        .execute("ALTER TABLE ai_gateway_keys RENAME COLUMN last_used_at TO last_heartbeat_at")
        .await;
    tollgate().on(&database.url).succeed(&["verify"]);
    tollgate()
        .on(&database.url)
        .succeed(&["schema", "diff", "--check"]);
    assert_eq!(list(&database).len(), 1);
}
