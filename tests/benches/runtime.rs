//! Calls per second on a warm connection of what a gateway asks at run time: `provider_key`, `gateway_key` and `budget`
//! beside the bare queries, written by hand for the one schema that is there.
//!
//! The connection is a gateway's, a pool of one as the driver makes it, whose cache keeps statements prepared; both sides use
//! the same one, in turns, and the middle of the rounds counts.
//!
//! `cargo bench -p tollgate-tests --bench runtime`; `TOLLGATE_TEST_SCALE=10` for a million users and virtual keys.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, its figures are what it is run for, and the pool is a gateway's own"
)]

use std::time::{Duration, Instant};

use chrono::Utc;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, Statement, Value};
use sha2::{Digest, Sha256};
use tollgate_migration::{Dialect, Phase, Track};
use tollgate_service::governance::budget::{Asked, Budgets};
use tollgate_service::providers::gateway_key::GatewayKeys;
use tollgate_service::providers::provider_key::{Request, Resolver, Target};
use tollgate_service::runner::{Session, up};
use tollgate_service::seed;
use tollgate_service::{
    Choices, Connection, Error, Location, SHARED_BUDGETS, ShutdownSignal, Silent,
};
use tollgate_tests::{Backend, TestDatabase};

/// How often each side is called for a while.
const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_millis(700);

/// Calls per second until the time is over.
async fn rate<F: Future<Output = ()>>(call: &mut impl FnMut(usize) -> F) -> f64 {
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < LONG {
        call(number).await;
        number += 1;
    }
    f64::from(u32::try_from(number).unwrap()) / start.elapsed().as_secs_f64()
}

/// Both sides in turns, so that neither has the quieter machine.
async fn compare<B: Future<Output = ()>, O: Future<Output = ()>>(
    what: &str,
    mut bare: impl FnMut(usize) -> B,
    mut ours: impl FnMut(usize) -> O,
) {
    for number in 0..200 {
        bare(number).await;
        ours(number).await;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        rates[0].push(rate(&mut bare).await);
        rates[1].push(rate(&mut ours).await);
    }
    let [limit, ours] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!(
        "  {what:<40} {limit:>9.0} {ours:>9.0} {:>6.2}",
        ours / limit
    );
}

async fn bare(gateway: &Connection, sql: &str, values: Vec<Value>, rows: bool) {
    let found = gateway
        .query_all_raw(Statement::from_sql_and_values(
            gateway.get_database_backend(),
            sql,
            values,
        ))
        .await
        .unwrap();
    assert_eq!(!found.is_empty(), rows);
}

/// A database of a profile, migrated as far as a phase, and a gateway's connection to it.
async fn seeded(
    backend: Backend,
    track: Track,
    profile: &str,
    number: u32,
    phase: Option<Phase>,
) -> (TestDatabase, Connection) {
    let database = TestDatabase::new(backend).await;
    let session = Session::new(Location::parse(&database.url).unwrap()).on(&[track]);
    let profile = seed::seeds()
        .into_iter()
        .find(|seed| seed.name == profile)
        .unwrap();
    let options = seed::Options::of(profile, number);
    seed::seed(&session, &options).await.unwrap();
    let mut options = up::Options::default();
    options.adopt = true;
    options.choices = Choices::none().with(&SHARED_BUDGETS);
    options.phase = phase;
    let outcome = up::up(&session, &options, &Silent, &ShutdownSignal::default()).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    // What autovacuum does there. A gateway's SQLite is hardly ever analysed, and one that is plans each call again.
    if backend == Backend::Postgres {
        database.execute("ANALYZE").await;
    }
    let mut options = ConnectOptions::new(&database.url);
    options.max_connections(1).sqlx_logging(false);
    let gateway = Connection::try_from(Database::connect(options).await.unwrap()).unwrap();
    (database, gateway)
}

fn heading(dialect: Dialect, what: &str) {
    println!(
        "{:<42} {:>9} {:>9} {:>6}",
        format!("{}, {what}", dialect.name()),
        "bare/s",
        "ours/s",
        "ratio"
    );
}

async fn keys(backend: Backend, users: u32) {
    // Before contract, when a model config may still be without a provider.
    let (database, gateway) = seeded(
        backend,
        Track::PROVIDERS,
        "coder-legacy",
        users,
        Some(Phase::Backfill),
    )
    .await;
    let (gateway, dialect) = (&gateway, database.dialect());
    heading(dialect, &format!("{users} users' keys"));

    let configs = database
        .column("SELECT CAST(c.id AS text) FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id WHERE p.enabled AND c.enabled AND NOT c.deleted AND CAST(p.type AS text) = 'openai' ORDER BY c.id")
        .await;
    let [config, unlinked, ..] = &configs[..] else {
        unreachable!("the seed has model configs of openai")
    };
    database
        .execute(&format!(
            "UPDATE chat_model_configs SET ai_provider_id = NULL WHERE id = '{unlinked}'"
        ))
        .await;
    let users = database
        .column(&format!("SELECT CAST(k.user_id AS text) FROM user_ai_provider_keys k JOIN chat_model_configs c ON c.ai_provider_id = k.ai_provider_id JOIN users u ON u.id = k.user_id WHERE c.id = '{config}' AND NOT u.deleted ORDER BY k.id LIMIT 1000"))
        .await;
    let (config, unlinked, users) = (config.as_str(), unlinked.as_str(), users.as_slice());
    let resolver = &Resolver::load(gateway, dialect).await.unwrap();
    let ours = async |target: Target, user: Option<&str>| {
        let request = Request {
            target,
            user,
            byok: user.is_some(),
            fallback: None,
        };
        resolver.resolve(gateway, &request).await.unwrap();
    };
    let ours = &ours;
    let uuid = |position: usize| match dialect {
        Dialect::Postgres => format!("CAST(${position} AS uuid)"),
        Dialect::Sqlite => format!("?{position}"),
    };
    let central = "CAST(k.id AS text) AS central, k.api_key AS central_key";
    let oldest = "LEFT JOIN ai_provider_keys k ON k.id = (SELECT o.id FROM ai_provider_keys o WHERE o.provider_id = p.id ORDER BY o.created_at, o.id LIMIT 1)";
    let of_config = &format!(
        "SELECT CAST(p.id AS text) AS provider, CAST(u.id AS text) AS user_key, u.api_key, {central} \
         FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id \
         LEFT JOIN user_ai_provider_keys u ON u.ai_provider_id = p.id AND u.user_id = {} {oldest} \
         WHERE c.id = {} AND c.enabled AND NOT c.deleted AND p.enabled AND NOT p.deleted",
        uuid(2),
        uuid(1),
    );
    compare(
        "resolve: a user's own key",
        |number| async move {
            let user = &users[number % users.len()];
            bare(
                gateway,
                of_config,
                vec![config.into(), user.as_str().into()],
                true,
            )
            .await;
        },
        |number| async move {
            let user = &users[number % users.len()];
            ours(Target::ModelConfig(config.to_owned()), Some(user)).await;
        },
    )
    .await;
    let of_config = &format!(
        "SELECT CAST(p.id AS text) AS provider, {central} \
         FROM chat_model_configs c JOIN ai_providers p ON p.id = c.ai_provider_id {oldest} \
         WHERE c.id = {} AND c.enabled AND NOT c.deleted AND p.enabled AND NOT p.deleted",
        uuid(1),
    );
    compare(
        "resolve: the oldest central key",
        |_| async move { bare(gateway, of_config, vec![config.into()], true).await },
        |_| async move { ours(Target::ModelConfig(config.to_owned()), None).await },
    )
    .await;
    let of_type = &format!(
        "SELECT CAST(p.id AS text) AS provider, {central} FROM ai_providers p {oldest} \
         WHERE CAST(p.type AS text) = {} AND p.enabled AND NOT p.deleted",
        dialect.parameter(1)
    );
    compare(
        "resolve: by provider type",
        |_| async move { bare(gateway, of_type, vec!["openai".into()], true).await },
        |_| async move { ours(Target::Type("openai".to_owned()), None).await },
    )
    .await;
    let family = &format!(
        "SELECT provider FROM chat_model_configs c WHERE c.id = {} AND c.enabled AND NOT c.deleted",
        uuid(1)
    );
    compare(
        "resolve: a config without provider (two)",
        |_| async move {
            bare(gateway, family, vec![unlinked.into()], true).await;
            bare(gateway, of_type, vec!["openai".into()], true).await;
        },
        |_| async move { ours(Target::ModelConfig(unlinked.to_owned()), None).await },
    )
    .await;

    let keys = GatewayKeys::load(gateway, dialect).await.unwrap();
    let created = keys
        .create(gateway, &"replica-1".parse().unwrap(), &mut rand::rng())
        .await
        .unwrap();
    let (parameter, now) = (dialect.parameter(1), dialect.now());
    let select =
        &format!("SELECT id, hashed_secret FROM ai_gateway_keys WHERE hashed_secret = {parameter}");
    let update = &format!(
        "UPDATE ai_gateway_keys SET last_used_at = {now} WHERE hashed_secret = {parameter} RETURNING name"
    );
    let (secret, keys) = (created.secret(), &keys);
    compare(
        "authenticate: a key that is there (two)",
        |_| async move {
            let hash = Sha256::digest(secret.as_bytes()).to_vec();
            bare(gateway, select, vec![hash.clone().into()], true).await;
            bare(gateway, update, vec![hash.into()], true).await;
        },
        |_| async move {
            keys.authenticate(gateway, secret.as_bytes()).await.unwrap();
        },
    )
    .await;
    compare(
        "authenticate: one that is not",
        |_| async move {
            let hash = Sha256::digest(&secret.as_bytes()[1..]).to_vec();
            bare(gateway, select, vec![hash.into()], false).await;
        },
        |_| async move {
            let refused = keys.authenticate(gateway, &secret.as_bytes()[1..]).await;
            assert!(matches!(refused, Err(Error::NotAuthenticated)));
        },
    )
    .await;
}

async fn budgets(backend: Backend, virtual_keys: u32) {
    let (database, gateway) = seeded(
        backend,
        Track::GOVERNANCE,
        "bifrost-legacy",
        virtual_keys,
        None,
    )
    .await;
    let (gateway, dialect) = (&gateway, database.dialect());
    heading(dialect, &format!("{virtual_keys} virtual keys"));
    let some = database
        .column("SELECT v.id FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id WHERE t.budget_id IS NOT NULL ORDER BY v.id LIMIT 1000")
        .await;
    let some = some.as_slice();
    let (key, provider) = (dialect.parameter(1), dialect.parameter(2));
    // What a caller needs who decides by himself: the flag of the key, and the text of the last reset.
    let budget = "SELECT b.id, CAST(b.max_limit AS text) AS max_limit, CAST(b.current_usage AS text) AS current_usage, CAST(b.last_reset AS text) AS last_reset, b.reset_duration";
    let hand = &format!(
        "{budget}, v.calendar_aligned AS aligned FROM governance_virtual_keys v JOIN governance_virtual_key_provider_configs c ON c.virtual_key_id = v.id JOIN governance_budgets b ON b.provider_config_id = c.id WHERE v.id = {key} AND c.provider = {provider} \
         UNION ALL {budget}, v.calendar_aligned FROM governance_virtual_keys v JOIN governance_budgets b ON b.virtual_key_id = v.id WHERE v.id = {key} \
         UNION ALL {budget}, NULL FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id JOIN governance_budgets b ON b.id = t.budget_id WHERE v.id = {key} \
         UNION ALL {budget}, NULL FROM governance_virtual_keys v JOIN governance_teams t ON t.id = v.team_id JOIN governance_customers o ON o.id = t.customer_id JOIN governance_budgets b ON b.id = o.budget_id WHERE v.id = {key} \
         UNION ALL {budget}, NULL FROM governance_virtual_keys v JOIN governance_customers o ON o.id = v.customer_id JOIN governance_budgets b ON b.id = o.budget_id WHERE v.id = {key}"
    );
    let budgets = &Budgets::load(gateway, dialect).await.unwrap();
    compare(
        "check",
        |number| async move {
            let key = &some[number % some.len()];
            bare(
                gateway,
                hand,
                vec![key.as_str().into(), "openai".into()],
                true,
            )
            .await;
        },
        |number| async move {
            let key = &some[number % some.len()];
            budgets
                .check(gateway, &Asked::of(key, "openai"), None, Utc::now())
                .await
                .unwrap();
        },
    )
    .await;
}

fn main() {
    let scale: u32 = std::env::var("TOLLGATE_TEST_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    // `cargo bench … -- budgets` or `-- keys`, as with any bench.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            if wants("keys") {
                keys(backend, 100_000 * scale).await;
            }
            if wants("budgets") {
                budgets(backend, 100_000 * scale).await;
            }
        }
    });
}
