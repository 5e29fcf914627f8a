//! A secret is shown once, and nowhere else.

use super::*;

/// A secret that nobody could read is a failure, however well it was stored.
#[rstest]
#[tokio::test]
async fn a_secret_that_cannot_be_printed_is_a_failure(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("text", "json")] output: &str,
) {
    let database = fresh(backend).await;
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let command = tollgate().on(&database.url).command(&[
        "gateway-key",
        "create",
        "replica",
        "--output",
        output,
    ]);
    let ended = { command }.stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert!(stderr.contains("gateway-key delete replica"), "{stderr}");
}

/// Whoever takes a secret for a name or an argument does not find it in a log.
#[rstest]
#[tokio::test]
async fn a_secret_in_the_wrong_place_is_not_repeated(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let created = create(&database, "replica");
    let secret = created["secret"].as_str().unwrap();
    let (padded, named, longer) = (
        &format!("{secret}\n"),
        &format!("key={secret}"),
        &format!("{secret}0"),
    );
    for (arguments, code) in [
        (&["gateway-key", "authenticate", secret][..], 2),
        (&["gateway-key", "list", named], 2),
        (&["gateway-key", "create", secret], 2),
        (&["gateway-key", "create", padded], 2),
        (&["gateway-key", "create", named], 2),
        (&["gateway-key", "create", longer], 2),
        (&["gateway-key", "delete", secret], 1),
        (&["gateway-key", "delete", padded], 1),
        (&["gateway-key", "delete", named], 1),
    ] {
        for output in ["text", "json"] {
            let run = tollgate()
                .on(&database.url)
                .run(&[arguments, &["--output", output, "-vvv"]].concat());
            assert_eq!(run.code, code, "{run:#?}");
            assert!(
                !(run.stdout + &run.stderr)
                    .to_lowercase()
                    .contains(&secret[11..].to_lowercase()),
                "{arguments:?}"
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn no_secret_and_no_hash_reaches_an_output(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = fresh(backend).await;
    let created = create(&database, "replica");
    let secret = created["secret"].as_str().unwrap();
    let hash = Sha256::digest(secret.as_bytes());
    let mut said = String::new();
    let mut hear = |run: Run| {
        said.push_str(&run.stdout);
        said.push_str(&run.stderr);
    };
    // Its log, where it goes well; the answer is the one place of the secret.
    let another = tollgate().on(&database.url).run(&[
        "gateway-key",
        "create",
        "another",
        "-vvv",
        "--log-format",
        "json",
        "--output",
        "json",
    ]);
    let answer: Value = serde_json::from_str(&another.stdout).unwrap();
    let printed = answer["result"]["secret"].as_str().unwrap();
    assert!(!another.stderr.contains(&printed[11..]), "{another:#?}");
    assert_eq!(answer["changes"][0]["action"], "insert");
    for arguments in [
        &["gateway-key", "list"][..],
        &["gateway-key", "list", "--output", "json"],
        // Taken: what the database says about it names no row.
        &["gateway-key", "create", "replica"],
        &["history", "--run", "1"],
        &["history", "--run", "2"],
        &["history", "--output", "json"],
        &["doctor"],
        &["verify"],
        &["gateway-key", "delete", "replica"],
        &["history", "--run", "3"],
    ] {
        hear(
            tollgate()
                .on(&database.url)
                .run(&[arguments, &["-vvv"]].concat()),
        );
        hear(
            tollgate()
                .on(&database.url)
                .run(&[arguments, &["-vvv", "--log-format", "json"]].concat()),
        );
        hear(authenticate(&database, secret.as_bytes(), &["-vvv"]));
    }
    said.push_str(
        &database
            .column("SELECT CAST(report AS text) FROM tollgate_runs")
            .await
            .join("\n"),
    );
    assert!(said.contains("gateway-key create"), "{said}");
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = format!("{:?}", hash.to_vec());
    for needle in [
        secret,
        &secret[11..],
        &hex[..16],
        &hex.to_uppercase()[..16],
        &bytes[1..30],
    ] {
        assert!(!said.contains(needle), "{needle}: {said}");
    }
}
