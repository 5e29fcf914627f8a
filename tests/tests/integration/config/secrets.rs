//! Values, where they come from and where they must not go.

use super::*;

#[rstest]
#[tokio::test]
async fn encrypted_values_are_compared_by_their_hash(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    world
        .execute("UPDATE governance_virtual_keys SET value = 'ciphertext', encryption_status = 'encrypted'")
        .await;
    let same = with(|key| key["description"] = json!("new"));
    let report = world.apply(same).await;
    assert_eq!(did(&report), ["virtual_keys update 1"]);
    assert_eq!(noticed(&report), [""; 0]);
    let other = with(|key| key["value"] = json!("sk-bf-other"));
    let report = world.apply(other.clone()).await;
    assert_eq!(noticed(&report), ["R011 vk-1"]);
    assert_eq!(
        world
            .database
            .rows("governance_virtual_keys", &["value", "value_hash"])
            .await,
        [format!(
            "'ciphertext'|'{}'",
            "319ade04a8ea9c06d51524e78fcc6a20e771b27341ac0c6fc975037d4438d966"
        )]
    );
    let mut new = other;
    new["virtual_keys"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "id": "vk-9", "name": "nine", "value": "sk-bf-9" }));
    let message = world.reject(new).await;
    assert!(
        message.contains("$.governance.virtual_keys[1]") && message.contains("encrypts"),
        "{message}"
    );
    assert!(!message.contains("sk-bf"), "{message}");
}

#[rstest]
#[tokio::test]
async fn the_environment_gives_values_and_nobody_prints_them(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    let file = world.file(&json!({ "virtual_keys": [{ "id": "vk-1", "name": "one", "value": "env.THE_KEY" }, { "id": "vk-2", "name": "two" }] }));
    let arguments = [
        "-vvv",
        "reconcile",
        "config",
        "--file",
        file.to_str().unwrap(),
    ];
    let run = tollgate()
        .on(&world.database.url)
        .with("THE_KEY", "sk-bf-from-the-environment")
        .run(&arguments);
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(
        world
            .one("SELECT value FROM governance_virtual_keys WHERE id = 'vk-1'")
            .await,
        "sk-bf-from-the-environment"
    );
    // A key that is made says that it is, and not what it is.
    let made = world
        .one("SELECT value FROM governance_virtual_keys WHERE id = 'vk-2'")
        .await;
    assert!(made.starts_with("sk-bf-") && made.len() == 42, "{made}");
    let history = tollgate()
        .on(&world.database.url)
        .run(&["history", "--run", "2", "--output", "json"]);
    for text in [&run.stdout, &run.stderr, &history.stdout] {
        assert!(
            !text.contains("from-the-environment") && !text.contains(&made),
            "{text}"
        );
        assert!(
            !text.contains("dbcb4f650d4a8b6177782c8470d2067dfebcdb7b523fc308158c1ea2ab88e7a7"),
            "{text}"
        );
    }
    assert!(run.stdout.contains("R012"), "{run:#?}");
}

/// A key's value in the place of something else is not repeated, and ids may be any text.
#[rstest]
#[tokio::test]
async fn a_value_in_the_wrong_place_is_not_repeated(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    for file in [
        json!({ "virtual_keys": ["sk-bf-leak"] }),
        json!({ "virtual_keys": "sk-bf-leak" }),
        json!({ "virtual_keys": [{ "id": "k", "name": "k", "value": 13572468 }] }),
        json!({ "virtual_keys": [{ "id": "k", "name": "k", "is_active": "sk-bf-leak" }] }),
    ] {
        let message = world.reject(file).await;
        assert!(
            !message.contains("leak")
                && !message.contains("13572468")
                && message.contains("expected"),
            "{message}"
        );
    }
    let report = world
        .apply(json!({ "virtual_keys": [{ "id": "@é", "name": "at", "value": "sk-bf-at" }, { "id": "@v3p9", "name": "like a place", "value": "sk-bf-place" }] }))
        .await;
    assert_eq!(report.changes[0].sample_ids, ["@v3p9", "@é"]);
}

/// The values of encrypted rows are known by their hash alone, and are as taken as others.
#[rstest]
#[tokio::test]
async fn an_encrypted_value_is_taken_too(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let world = World::empty(backend).await;
    world.apply(one()).await;
    // SHA-256 of sk-bf-2, as sha256sum has it.
    world
        .execute(
            "INSERT INTO governance_virtual_keys (id, name, value, value_hash, encryption_status, created_at, updated_at) VALUES \
             ('vk-x', 'x', 'cipher', '6bf17ab9d16b90f76bc688815a9b75d29d1f65cfb142a8d3c1b7b911895467f9', 'encrypted', '2026-01-01', '2026-01-01')",
        )
        .await;
    let message = world
        .reject(with(|key| key["value"] = json!("sk-bf-2")))
        .await;
    assert!(
        message.contains("$.governance.virtual_keys[0].value") && message.contains("vk-x"),
        "{message}"
    );
}
