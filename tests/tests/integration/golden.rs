//! The golden schemas are what the migrations make, step by step, on both backends.

use rstest::rstest;
use tollgate_migration::{Track, schema};
use tollgate_tests::fixture::{Calendar, Shape, own};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

fn file(track: Track, backend: Backend, version: &str) -> std::path::PathBuf {
    let folder = match backend {
        Backend::Sqlite => "sqlite",
        Backend::Postgres => "postgres",
    };
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../migration/schema")
        .join(track.name())
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
    for track in Track::ALL {
        let database = TestDatabase::new(backend).await;
        let tollgate = tollgate().on(&database.url);
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
    // By hand: upstream shortens the names of two keys of the join table by a digest.
    let mut objects: Vec<&str> = diff["result"]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| {
            assert_eq!(difference["tolerated"], true, "{difference:#}");
            difference["object"].as_str().unwrap()
        })
        .collect();
    objects.sort_unstable();
    assert_eq!(
        objects,
        [
            "governance_virtual_key_provider_config_keys foreign key fk_governance_virtual_key_provider_config_keys_table_k9d0b7e15",
            "governance_virtual_key_provider_config_keys foreign key fk_governance_virtual_key_provider_config_keys_table_v3f1a6c2e",
            "governance_virtual_key_provider_config_keys foreign key fk_vk_provider_config_keys_key",
            "governance_virtual_key_provider_config_keys foreign key fk_vk_provider_config_keys_provider_config",
        ]
    );
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
}
