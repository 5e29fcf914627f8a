//! Every hazard planted, found, and named with its rows.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::Value;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

fn by_code(json: &Value) -> BTreeMap<(String, String), (String, u64, Vec<String>)> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            let ids = finding["sample_ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap().to_owned())
                .collect();
            (
                (text("code"), text("table")),
                (text("severity"), finding["rows"].as_u64().unwrap(), ids),
            )
        })
        .collect()
}

#[rstest]
#[tokio::test]
async fn every_planted_hazard_is_found_where_it_was_planted(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let tollgate = tollgate().on(&database.url);
    let (code, seeded) = tollgate.json(&[
        "seed",
        "--profile",
        "bifrost-legacy",
        "--virtual-keys",
        "40",
        "--hazards",
    ]);
    assert_eq!(code, 0, "{seeded:#}");
    let (code, found) = tollgate.json(&["doctor", "--samples", "all"]);
    assert_eq!(code, 4, "G001 and G002 block");
    let found = by_code(&found);
    // By hand: what the plants are, whatever the seed put beside them.
    for (hazard, table, severity, ids) in [
        (
            "G001",
            "governance_budgets",
            "blocking",
            &["planted-shared"][..],
        ),
        ("G002", "governance_budgets", "blocking", &["planted-team"]),
        (
            "G003",
            "governance_virtual_keys",
            "warning",
            &["planted-vk-4"],
        ),
        ("G004", "governance_virtual_keys", "info", &["planted-vk-5"]),
        (
            "G005",
            "governance_budgets",
            "info",
            &["planted-nobody", "planted-placeless"],
        ),
        ("G006", "governance_budgets", "info", &["planted-promoted"]),
        (
            "G007",
            "governance_budgets",
            "warning",
            &["planted-also-aligned"],
        ),
        (
            "G009",
            "governance_budgets",
            "warning",
            &["planted-endless", "planted-negative"],
        ),
        (
            "G011",
            "governance_virtual_keys",
            "warning",
            &["planted-vk-10"],
        ),
        (
            "G017",
            "governance_budgets",
            "warning",
            &["planted-placeless"],
        ),
    ] {
        let (weight, rows, named) = &found[&(hazard.to_owned(), table.to_owned())];
        assert_eq!(weight, severity, "{hazard}");
        let planted: Vec<&String> = named
            .iter()
            .filter(|id| id.starts_with("planted"))
            .collect();
        assert_eq!(planted, ids, "{hazard}");
        assert_eq!(*rows, named.len() as u64, "{hazard} with --samples all");
    }
    for (planted, ids) in seeded["result"]["planted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|planted| (planted["code"].as_str().unwrap(), &planted["ids"]))
    {
        let named: Vec<&String> = found
            .iter()
            .filter(|((code, _), _)| code == planted)
            .flat_map(|(_, (_, _, ids))| ids)
            .collect();
        for id in ids.as_array().unwrap() {
            assert!(
                named.iter().any(|found| *found == id.as_str().unwrap()),
                "{planted} {id}"
            );
        }
    }
    assert_eq!(
        database.count("governance_virtual_keys").await,
        40 + 10,
        "nothing was changed"
    );
}

#[rstest]
#[tokio::test]
async fn doctor_narrows_limits_and_says_nothing_of_a_clean_database(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    let tollgate = tollgate().on(&database.url);
    // The full fixture without flags: b-nobody has no owner, and three keys have hashes over their budgets.
    let (code, found) = tollgate.json(&["doctor"]);
    assert_eq!(code, 0, "{found:#}");
    let codes: Vec<String> = by_code(&found).into_keys().map(|(code, _)| code).collect();
    assert_eq!(codes, ["G005", "G011"]);
    let (_, found) = tollgate.json(&["doctor", "--code", "g011", "--samples", "1"]);
    let found = by_code(&found);
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        [("warning".to_owned(), 2, vec!["vk-alice".to_owned()])]
    );
    let run = tollgate.run(&["doctor", "--code", "G099"]);
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("G001"), "{run:#?}");
    // After the migration there is nothing left to warn of.
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    let (code, found) = tollgate.json(&["doctor"]);
    assert_eq!(
        (code, found["findings"].as_array().unwrap().len()),
        (0, 0),
        "{found:#}"
    );
}

#[rstest]
#[case::view(
    "CREATE VIEW spend AS SELECT v.id, b.current_usage FROM governance_virtual_keys v JOIN governance_budgets b ON b.id = v.budget_id",
    "view spend"
)]
#[case::trigger(
    "CREATE TRIGGER moved AFTER UPDATE OF budget_id ON governance_virtual_keys BEGIN SELECT 1; END",
    "trigger moved"
)]
#[tokio::test]
async fn what_depends_on_a_column_that_goes_blocks_contract_only(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] dependent: &str,
    #[case] name: &str,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    if backend == Backend::Postgres && name.starts_with("trigger") {
        database
            .execute(
                "CREATE FUNCTION noticed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
                 CREATE TRIGGER moved AFTER UPDATE OF budget_id ON governance_virtual_keys FOR EACH ROW EXECUTE FUNCTION noticed()",
            )
            .await;
    } else {
        database.execute(dependent).await;
    }
    let tollgate = tollgate().on(&database.url);
    let (code, refused) = tollgate.json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    let found = by_code(&refused);
    let (_, _, ids) = &found[&("G018".to_owned(), "governance_virtual_keys".to_owned())];
    assert_eq!(ids, &[name]);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "backfill"]);
    assert_eq!(tollgate.run(&["migrate", "up"]).code, 4);
}

#[rstest]
#[tokio::test]
async fn a_database_past_what_the_track_knows_is_refused_with_its_hazard(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    database
        .execute("ALTER TABLE governance_budgets ADD COLUMN model_config_id varchar(255)")
        .await;
    let (code, refused) = tollgate().on(&database.url).json(&["doctor"]);
    assert_eq!(code, 4, "{refused:#}");
    assert_eq!(refused["findings"][0]["code"], "G016");
    assert_eq!(
        tollgate()
            .on(&database.url)
            .run(&["migrate", "up", "--adopt"])
            .code,
        4
    );
}

#[rstest]
#[tokio::test]
async fn a_duration_of_any_text_is_a_value_and_never_a_piece_of_the_query(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::None).await;
    let (odd, budget) = (r#"it's \' OR "1"='1' -- 雪"#, "b-dave");
    database
        .execute(&format!(
            "UPDATE governance_budgets SET reset_duration = '{}' WHERE id = '{budget}'",
            odd.replace('\'', "''")
        ))
        .await;
    let before = by_code(&{
        let healthy = legacy(backend, Shape::Full, Calendar::None).await;
        tollgate().on(&healthy.url).json(&["doctor"]).1
    });
    let (_, report) = tollgate()
        .on(&database.url)
        .json(&["doctor", "--samples", "all"]);
    let place = ("G009".to_owned(), "governance_budgets".to_owned());
    let (_, rows, ids) = &by_code(&report)[&place];
    let known = before.get(&place).map_or(0, |(_, rows, _)| *rows);
    assert_eq!(*rows, known + 1, "{report:#}");
    assert!(ids.contains(&budget.to_owned()), "{ids:?}");
}

#[rstest]
#[tokio::test]
async fn owners_that_violate_the_coming_keys_block(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Required, Calendar::None).await;
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["migrate", "up", "--adopt", "--phase", "expand"]);
    // Upstream's own migration ran, and somebody wrote an owner that does not exist and two budgets of equal length.
    for sql in [
        "CREATE TABLE migrations (id varchar(255) PRIMARY KEY)",
        "INSERT INTO migrations VALUES ('add_multi_budget_tables')",
        "PRAGMA foreign_keys = OFF",
        "UPDATE governance_budgets SET virtual_key_id = 'vk-nobody' WHERE id = 'b-nobody'",
        "UPDATE governance_budgets SET virtual_key_id = 'vk-dave', reset_duration = 'daily' WHERE id = 'b-dave-openai'",
        "UPDATE governance_budgets SET virtual_key_id = 'vk-dave', reset_duration = '24h' WHERE id = 'b-dave'",
    ] {
        if backend == Backend::Sqlite || !sql.starts_with("PRAGMA") {
            database.execute(sql).await;
        }
    }
    let (code, refused) = tollgate.json(&["doctor", "--samples", "all"]);
    assert_eq!(code, 4, "{refused:#}");
    let found = by_code(&refused);
    let ids = |code: &str| {
        let (_, _, ids) = &found[&(code.to_owned(), "governance_budgets".to_owned())];
        ids.clone()
    };
    assert_eq!(ids("G015"), ["b-nobody"]);
    assert_eq!(ids("G010"), ["b-dave", "b-dave-openai"]);
}

#[rstest]
#[tokio::test]
async fn durations_in_words_are_found_in_every_phase(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    database
        .execute(
            "UPDATE governance_budgets SET reset_duration = 'Monthly' WHERE id = 'b-bob'; \
             UPDATE governance_rate_limits SET token_reset_duration = 'daily' WHERE id = 'rl-1'",
        )
        .await;
    let tollgate = tollgate().on(&database.url);
    for migrated in [false, true] {
        if migrated {
            tollgate.succeed(&["migrate", "up", "--adopt"]);
        }
        let (code, json) = tollgate.json(&["doctor", "--code", "G020"]);
        assert_eq!(code, 0, "{json:#}");
        let found: Vec<_> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| {
                (
                    found["table"].as_str().unwrap(),
                    found["sample_ids"].clone(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("governance_budgets", serde_json::json!(["b-bob"])),
                ("governance_rate_limits", serde_json::json!(["rl-1"])),
            ]
        );
    }
}
