//! Across the gateway's own moves: snapshots, rehearsals, and what was remembered.

use super::*;

/// Across the gateway's own move: budgets and rate limits have their owners through model configs, and one that has lost its own
/// is found.
#[rstest]
#[tokio::test]
async fn a_snapshot_of_before_the_move_holds_behind_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let (code, json) = ask(&bifrost(backend, "1.5.8").await, &["snapshot", "-o", &file]);
    assert_eq!(code, 0, "{json:#}");
    let verify = ["verify", "--snapshot", &file];
    for version in ["1.5.9", "1.5.16", "2.0.0-prerelease3"] {
        let database = bifrost(backend, version).await;
        let (code, json) = ask(&database, &verify);
        assert_eq!(code, 0, "{version}: {json:#}");
        for lost in [
            "UPDATE governance_budgets SET model_config_id = NULL WHERE id = 'b-alice'",
            "UPDATE governance_model_configs SET rate_limit_id = NULL WHERE id = 'm-vk-carol-openai'",
            "UPDATE governance_budgets SET model_config_id = NULL WHERE id = 'b-provider'",
            "UPDATE governance_budgets SET customer_id = NULL WHERE id = 'b-customer'; \
             UPDATE governance_customers SET budget_id = NULL",
        ] {
            database.execute(lost).await;
            let (code, json) = ask(&database, &verify);
            assert_eq!(code, 4, "{version}: {lost}: {json:#}");
            assert!(
                !said(&json, "V105").is_empty(),
                "{version}: {lost}: {json:#}"
            );
        }
    }
}

/// Flags that were remembered before the move go to the very row that stands for their owner.
#[rstest]
#[tokio::test]
async fn remembered_flags_find_their_owners_behind_the_move(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "1.5.16").await;
    database
        .execute(
            "UPDATE governance_model_configs SET calendar_aligned = false; \
             UPDATE governance_virtual_keys SET calendar_aligned = false; \
             CREATE TABLE tollgate_remembered (kind varchar(20) NOT NULL, owner varchar(255) NOT NULL, budget varchar(255) NOT NULL, \
             virtual_key varchar(255), PRIMARY KEY (kind, owner)); \
             INSERT INTO tollgate_remembered VALUES ('provider_config', '3', 'b-dave-openai', 'vk-dave'), ('team', 't-1', 'b-team', NULL), \
             ('customer', 'c-1', 'b-customer', NULL), ('provider', '1', 'b-provider', NULL), ('budget', 'b-nobody', 'b-nobody', NULL), \
             ('provider', '2', 'b-nobody', NULL), ('team', 't-gone', 'b-gone', NULL)",
        )
        .await;
    let (code, json) = ask(&database, &["migrate", "prepare", "--finish"]);
    assert_eq!(code, 0, "{json:#}");
    let flagged = async |table: &str| {
        let on = match backend {
            Backend::Sqlite => "calendar_aligned = 1",
            Backend::Postgres => "calendar_aligned",
        };
        database
            .column(&format!("SELECT id FROM {table} WHERE {on} ORDER BY id"))
            .await
    };
    assert_eq!(
        flagged("governance_model_configs").await,
        ["m-openai", "m-vk-dave-openai"]
    );
    assert_eq!(flagged("governance_teams").await, ["t-1"]);
    assert_eq!(flagged("governance_customers").await, ["c-1"]);
    assert_eq!(
        flagged("governance_virtual_keys").await,
        Vec::<String>::new()
    );
    assert_eq!(
        database
            .column("SELECT kind || ' ' || owner FROM tollgate_remembered ORDER BY 1")
            .await,
        ["budget b-nobody", "provider 2"],
        "what has no place stays"
    );
    assert_eq!(json.to_string().matches("G017").count(), 2, "{json:#}");
}

#[rstest]
#[tokio::test]
async fn a_budget_of_two_owners_of_any_kind_is_found(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "1.5.16").await;
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 0, "{json:#}");
    database
        .execute("UPDATE governance_budgets SET team_id = 't-1' WHERE id = 'b-provider'")
        .await;
    let (code, json) = ask(&database, &["verify"]);
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "V005")[0]["sample_ids"], json!(["b-provider"]));
}

/// What the gateway's own boots would do, on copies: prepared, nothing is lost; alone, what upstream loses is named.
#[rstest]
#[tokio::test]
async fn a_rehearsal_goes_through_the_gateways_own_moves(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("1.5.9", "1.5.16", "2.0.0-prerelease3")] version: &str,
) {
    let database = bifrost(backend, "1.4.24").await;
    let before = database.everything(|_, _| true).await;
    let mut words = vec!["rehearse", "--gateway", "--for", version];
    let scratch = TestDatabase::new(backend).await;
    if backend == Backend::Postgres {
        words.extend(["--scratch-url", &scratch.url]);
    }
    let (code, json) = ask(&database, &words);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
}

/// The jobs around such a boot: everything that a 1.4.24 says is there behind it, flags of customers too.
#[rstest]
#[tokio::test]
async fn from_1_4_to_the_newest_with_nothing_lost(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = bifrost(backend, "1.4.24").await;
    let (code, json) = ask(
        &database,
        &["migrate", "up", "--adopt", "--for", "2.0.0-prerelease3"],
    );
    assert_eq!(code, 0, "{json:#}");
    let (code, json) = ask(
        &database,
        &["migrate", "status", "--check", "--for", "2.0.0-prerelease3"],
    );
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["tracks"][0]["pending"], json!([]));
    // A budget of a customer and of a team stops the boot of 1.5.9, and so `up` for it.
    let shared = bifrost(backend, "1.4.24").await;
    shared
        .execute("UPDATE governance_teams SET budget_id = 'b-customer'")
        .await;
    let up = ["migrate", "up", "--adopt", "--for"];
    let (code, json) = ask(&shared, &[&up[..], &["1.5.9"]].concat());
    assert_eq!(code, 4, "{json:#}");
    assert_eq!(said(&json, "G021")[0]["severity"], "blocking", "{json:#}");
    let (code, json) = ask(&shared, &["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "nobody has said that it boots next: {json:#}");
}
