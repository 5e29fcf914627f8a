//! The entities describe the newest schema: each reads the rows of a migrated database.

use rstest::rstest;
use sea_orm::{ColumnTrait, EntityTrait, IdenStatic, Iterable, QueryFilter, prelude::Decimal};
use tollgate_entity::governance::{
    budget, customer, header_credential, header_flow, key, mcp_client, mcp_grant, oauth_flow,
    oauth_token, provider, provider_config, provider_config_key, rate_limit, team, virtual_key,
};
use tollgate_entity::{billing, providers};
use tollgate_migration::Track;
use tollgate_migration::governance::{KEYS, OF_PROVIDERS, described_since};
use tollgate_tests::fixture::{SilentKeys, coder, populated, with_credentials};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// The columns of a fresh newest table, by the catalog.
async fn columns(database: &TestDatabase, table: &str) -> Vec<String> {
    let mut names: Vec<String> = database
        .catalog()
        .await
        .table(table)
        .unwrap()
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    names.sort();
    names
}

fn described<E: EntityTrait>() -> (String, Vec<String>)
where
    E::Column: Iterable + IdenStatic,
{
    let mut names: Vec<String> = E::Column::iter()
        .map(|column| column.as_str().to_owned())
        .collect();
    names.sort();
    (E::default().table_name().to_owned(), names)
}

#[rstest]
#[tokio::test]
async fn entities_name_every_column_of_a_fresh_database(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    tollgate()
        .on(&database.url)
        .succeed(&["--track", "governance", "migrate", "up"]);
    for (table, names) in [
        described::<budget::Entity>(),
        described::<customer::Entity>(),
        described::<key::Entity>(),
        described::<provider::Entity>(),
        described::<provider_config::Entity>(),
        described::<provider_config_key::Entity>(),
        described::<rate_limit::Entity>(),
        described::<team::Entity>(),
        described::<virtual_key::Entity>(),
        described::<mcp_client::Entity>(),
        described::<mcp_grant::Entity>(),
        described::<oauth_token::Entity>(),
        described::<oauth_flow::Entity>(),
        described::<header_credential::Entity>(),
        described::<header_flow::Entity>(),
    ] {
        let mut columns = columns(&database, &table).await;
        // Older gateways have not all of them, and nothing here reads them.
        columns.retain(|column| {
            let of_a_provider =
                table == KEYS && OF_PROVIDERS.iter().any(|(name, _)| name == column);
            let since = described_since().iter().any(|addition| {
                addition.name == table && addition.columns.iter().any(|known| known.name == *column)
            });
            names.contains(column) || !(of_a_provider || since)
        });
        assert_eq!(names, columns, "{table}");
    }
}

#[rstest]
#[tokio::test]
async fn entities_of_the_other_tracks_name_the_columns_they_have(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    for track in ["providers", "billing"] {
        tollgate()
            .on(&database.url)
            .succeed(&["--track", track, "migrate", "up"]);
    }
    for (table, names) in [
        described::<providers::crypt_key::Entity>(),
        described::<providers::gateway_key::Entity>(),
        described::<providers::model_config::Entity>(),
        described::<providers::provider::Entity>(),
        described::<providers::provider_key::Entity>(),
        described::<providers::user_key::Entity>(),
        described::<providers::user::Entity>(),
        described::<billing::global_secret::Entity>(),
        described::<billing::workspace::Entity>(),
        described::<billing::workspace_secret::Entity>(),
    ] {
        let mut columns = columns(&database, &table).await;
        // Of the products' own widest tables the entities have what the tracks read.
        if matches!(table.as_str(), "users" | "workspaces") {
            columns.retain(|column| names.contains(column));
        }
        assert_eq!(names, columns, "{table}");
    }
}

#[rstest]
#[tokio::test]
async fn entities_read_migrated_providers_in_every_spelling_of_an_id(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = coder(backend).await;
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--adopt",
        "--name-conflicts",
        "retire",
        "--orphaned-models",
        "retire",
        "--accept-policy-change",
    ]);
    let db = &database.connection;
    let found = providers::provider::Entity::find()
        .filter(providers::provider::Column::Name.eq("agents-openai"))
        .one(db)
        .await
        .unwrap()
        .unwrap();
    if backend == Backend::Sqlite {
        // Older rows of a hand-made database: the same id in upper case and without hyphens.
        database
            .execute(
                "PRAGMA foreign_keys = OFF; UPDATE ai_providers SET id = upper(replace(id, '-', '')) \
                 WHERE name = 'agents-openai'",
            )
            .await;
    }
    let again = providers::provider::Entity::find()
        .filter(providers::provider::Column::Name.eq("agents-openai"))
        .one(db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.id, found.id);
    let keys = providers::provider_key::Entity::find()
        .filter(found.id.is(providers::provider_key::Column::ProviderId))
        .all(db)
        .await
        .unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].api_key.0, "cipher-openai");
    assert!(!format!("{keys:?}").contains("cipher-openai"));
    assert_eq!(
        providers::user_key::Entity::find()
            .all(db)
            .await
            .unwrap()
            .len(),
        2
    );
    let model = providers::model_config::Entity::find()
        .filter(found.id.is(providers::model_config::Column::AiProviderId))
        .one(db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(model.provider, "openai");
}

#[rstest]
#[tokio::test]
async fn entities_read_migrated_workspaces(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, Track::BILLING).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt", "--garbled-modes", "clear"]);
    let db = &database.connection;
    let workspaces = billing::workspace::Entity::find().all(db).await.unwrap();
    assert!(!workspaces.is_empty());
    let secrets = billing::workspace_secret::Entity::find()
        .all(db)
        .await
        .unwrap();
    let global = billing::global_secret::Entity::find()
        .all(db)
        .await
        .unwrap();
    assert_eq!(
        (secrets.len(), global.len()),
        (
            database.count("workspace_secrets").await as usize,
            database.count("global_secrets").await as usize
        )
    );
    assert!(!secrets.is_empty() && !global.is_empty());
    let owners: Vec<_> = secrets
        .iter()
        .filter_map(|secret| secret.workspace_id)
        .collect();
    assert!(!owners.is_empty());
    for owner in owners {
        assert!(workspaces.iter().any(|workspace| workspace.id == owner));
    }
}

#[rstest]
#[tokio::test]
async fn entities_read_a_migrated_gateway(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    // An embedding program's own: Tollgate makes every column.
    database.execute("DROP TABLE migrations").await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    let db = &database.connection;
    let bob = virtual_key::Entity::find_by_id("vk-bob")
        .one(db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bob.calendar_aligned, Some(true));
    assert_eq!(bob.is_active, Some(true));
    let alice = budget::Entity::find_by_id("b-alice")
        .one(db)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alice.virtual_key_id.as_deref(), Some("vk-alice"));
    assert_eq!(alice.max_limit, Decimal::new(1005, 1));
    // 2026-03-29 10:11:12.123456789 UTC; PostgreSQL keeps microseconds and rounds when the row is written.
    let nanoseconds = match backend {
        Backend::Sqlite => 123_456_789,
        Backend::Postgres => 123_457_000,
    };
    assert_eq!(
        alice.last_reset.unwrap().timestamp_nanos_opt(),
        Some(1_774_779_072_000_000_000 + nanoseconds)
    );
    assert_eq!(budget::Entity::find().all(db).await.unwrap().len(), 10);
    assert_eq!(customer::Entity::find().all(db).await.unwrap().len(), 1);
    assert_eq!(team::Entity::find().all(db).await.unwrap().len(), 1);
    assert_eq!(key::Entity::find().all(db).await.unwrap().len(), 2);
    assert_eq!(provider::Entity::find().all(db).await.unwrap().len(), 2);
    assert_eq!(
        provider_config::Entity::find().all(db).await.unwrap().len(),
        4
    );
    assert_eq!(
        provider_config_key::Entity::find()
            .all(db)
            .await
            .unwrap()
            .len(),
        4
    );
    assert_eq!(rate_limit::Entity::find().all(db).await.unwrap().len(), 2);
    let mut clients = mcp_client::Entity::find().all(db).await.unwrap();
    clients.sort_by_key(|client| client.id);
    assert_eq!(
        clients
            .iter()
            .map(|client| client.allow_on_all_virtual_keys == Some(true))
            .collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(mcp_grant::Entity::find().all(db).await.unwrap().len(), 2);
    assert_eq!(oauth_token::Entity::find().all(db).await.unwrap().len(), 6);
    assert_eq!(oauth_flow::Entity::find().all(db).await.unwrap().len(), 2);
    assert_eq!(
        header_credential::Entity::find()
            .all(db)
            .await
            .unwrap()
            .len(),
        5
    );
    assert_eq!(header_flow::Entity::find().all(db).await.unwrap().len(), 2);
}
