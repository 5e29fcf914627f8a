//! Calls per second on a warm connection of what a gateway asks at run time: `provider_key`, `gateway_key` and `budget`
//! beside the bare queries, written by hand.
//!
//! `cargo bench -p tollgate-tests --bench runtime`; `TOLLGATE_TEST_SCALE=10` for a million users and virtual keys.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and its figures are what it is run for"
)]

use std::time::{Duration, Instant};

use chrono::Utc;
use sea_orm::{ConnectionTrait, Statement, Value};
use sha2::{Digest, Sha256};
use tollgate_migration::{Dialect, Track};
use tollgate_service::budget::Budgets;
use tollgate_service::gateway_key::GatewayKeys;
use tollgate_service::provider_key::{Request, Resolver, Target};
use tollgate_service::runner::{Session, up};
use tollgate_service::seed::{self, Profile};
use tollgate_service::{Location, SharedBudgets, Silent, Stop};
use tollgate_tests::{Backend, TestDatabase};

/// How long each is called.
const LONG: Duration = Duration::from_secs(3);

/// Calls until the time is over.
async fn calls<F: Future<Output = ()>>(what: &str, mut call: impl FnMut(usize) -> F) -> f64 {
    // Statements are prepared, pages are cached.
    for number in 0..200 {
        call(number).await;
    }
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < LONG {
        call(number).await;
        number += 1;
    }
    let rate = f64::from(u32::try_from(number).unwrap()) / start.elapsed().as_secs_f64();
    println!("  {what:<44} {rate:>8.0} calls/s");
    rate
}

async fn bare(database: &TestDatabase, sql: &str, values: Vec<Value>) {
    let rows = database
        .connection
        .query_all_raw(Statement::from_sql_and_values(
            database.dialect().backend(),
            sql,
            values,
        ))
        .await
        .unwrap();
    assert!(!rows.is_empty());
}

/// A migrated database of a profile.
async fn seeded(backend: Backend, track: Track, profile: Profile, number: u32) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    let session = Session {
        tracks: vec![track],
        ..Session::new(Location::parse(&database.url).unwrap())
    };
    let options = seed::Options {
        profile,
        virtual_keys: number,
        rng_seed: 1,
        hazards: Vec::new(),
    };
    seed::seed(&session, &options).await.unwrap();
    let options = up::Options {
        adopt: true,
        shared_budgets: SharedBudgets::Clone,
        ..up::Options::default()
    };
    let outcome = up::up(&session, &options, &Silent, &Stop::default()).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    database.execute("ANALYZE").await;
    database
}

async fn keys(backend: Backend, users: u32) {
    let database = seeded(backend, Track::Providers, Profile::CoderLegacy, users).await;
    let dialect = database.dialect();
    println!("{}, {users} users' keys", dialect.name());

    let config = database
        .one("SELECT CAST(c.id AS text) FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id WHERE p.enabled AND c.enabled AND NOT c.deleted LIMIT 1")
        .await;
    let some = database
        .column(&format!("SELECT CAST(k.user_id AS text) FROM user_ai_provider_keys k JOIN chat_model_configs c ON c.ai_provider_id = k.ai_provider_id WHERE c.id = '{config}' LIMIT 1000"))
        .await;
    let (config, some) = (config.as_str(), some.as_slice());
    let resolver = Resolver::look(&database.connection, dialect).await.unwrap();
    let (uuid_1, uuid_2) = match dialect {
        Dialect::Postgres => ("CAST($1 AS uuid)", "CAST($2 AS uuid)"),
        Dialect::Sqlite => ("?1", "?2"),
    };
    let hand = &format!(
        "SELECT CAST(p.id AS text) AS provider, CAST(u.id AS text) AS user_key, u.api_key, CAST(k.id AS text) AS central, k.api_key AS central_key \
         FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id \
         LEFT JOIN user_ai_provider_keys u ON u.ai_provider_id = p.id AND u.user_id = {uuid_2} \
         LEFT JOIN ai_provider_keys k ON k.id = (SELECT o.id FROM ai_provider_keys o WHERE o.provider_id = p.id ORDER BY o.created_at, o.id LIMIT 1) \
         WHERE c.id = {uuid_1} AND c.enabled AND NOT c.deleted AND p.enabled AND NOT p.deleted"
    );
    let (database, resolver) = (&database, &resolver);
    let limit = calls("resolve by hand, one query", |number| async move {
        let user = &some[number % some.len()];
        bare(database, hand, vec![config.into(), user.as_str().into()]).await;
    })
    .await;
    let ours = calls("provider_key::Resolver::resolve", |number| async move {
        let request = Request {
            target: Target::ModelConfig(config.to_owned()),
            user: Some(&some[number % some.len()]),
            byok: true,
            fallback: None,
        };
        resolver
            .resolve(&database.connection, &request)
            .await
            .unwrap();
    })
    .await;
    println!("  {:<44} {:>8.2}", "of the bare query's rate", ours / limit);

    let keys = GatewayKeys::look(&database.connection, dialect)
        .await
        .unwrap();
    let created = keys
        .create(
            &database.connection,
            &"replica-1".parse().unwrap(),
            &mut rand::rng(),
        )
        .await
        .unwrap();
    let (parameter, now) = (dialect.parameter(1), dialect.now());
    let select =
        &format!("SELECT id, hashed_secret FROM ai_gateway_keys WHERE hashed_secret = {parameter}");
    let update = &format!(
        "UPDATE ai_gateway_keys SET last_used_at = {now} WHERE hashed_secret = {parameter} RETURNING name"
    );
    let (secret, keys) = (created.secret(), &keys);
    let limit = calls("authenticate by hand, two queries", |_| async move {
        let hash = Sha256::digest(secret.as_bytes()).to_vec();
        bare(database, select, vec![hash.clone().into()]).await;
        bare(database, update, vec![hash.into()]).await;
    })
    .await;
    let ours = calls("gateway_key::GatewayKeys::authenticate", |_| async move {
        keys.authenticate(&database.connection, secret.as_bytes())
            .await
            .unwrap();
    })
    .await;
    println!(
        "  {:<44} {:>8.2}",
        "of the bare queries' rate",
        ours / limit
    );
}

async fn budgets(backend: Backend, virtual_keys: u32) {
    let database = seeded(
        backend,
        Track::Governance,
        Profile::BifrostLegacy,
        virtual_keys,
    )
    .await;
    let dialect = database.dialect();
    println!("{}, {virtual_keys} virtual keys", dialect.name());
    let some = database
        .column("SELECT v.id FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id WHERE t.budget_id IS NOT NULL ORDER BY v.id LIMIT 1000")
        .await;
    let (key, provider) = (dialect.parameter(1), dialect.parameter(2));
    let budget = "SELECT b.id, b.max_limit, b.current_usage, b.last_reset, b.reset_duration";
    let hand = &format!(
        "{budget} FROM governance_virtual_key_provider_configs c JOIN governance_budgets b ON b.provider_config_id = c.id WHERE c.virtual_key_id = {key} AND c.provider = {provider} \
         UNION ALL {budget} FROM governance_budgets b WHERE b.virtual_key_id = {key} \
         UNION ALL {budget} FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id JOIN governance_budgets b ON b.id = t.budget_id WHERE v.id = {key} \
         UNION ALL {budget} FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id JOIN governance_customers o ON o.id = t.customer_id JOIN governance_budgets b ON b.id = o.budget_id WHERE v.id = {key} \
         UNION ALL {budget} FROM governance_virtual_keys v JOIN governance_customers o ON o.id = v.customer_id JOIN governance_budgets b ON b.id = o.budget_id WHERE v.id = {key}"
    );
    let (database, some) = (&database, some.as_slice());
    let limit = calls("check by hand, one query", |number| async move {
        let key = &some[number % some.len()];
        bare(database, hand, vec![key.as_str().into(), "openai".into()]).await;
    })
    .await;
    let budgets = &Budgets::look(&database.connection, dialect).await.unwrap();
    let ours = calls("budget::Budgets::check", |number| async move {
        let key = &some[number % some.len()];
        budgets
            .check(&database.connection, key, "openai", None, Utc::now())
            .await
            .unwrap();
    })
    .await;
    println!("  {:<44} {:>8.2}", "of the bare query's rate", ours / limit);
}

fn main() {
    let scale: u32 = std::env::var("TOLLGATE_TEST_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            keys(backend, 100_000 * scale).await;
            budgets(backend, 100_000 * scale).await;
        }
    });
}
