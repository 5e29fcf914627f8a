//! What a gateway asks for every request is found by indexes, however many rows there are: the plan of each statement.

use std::sync::Mutex;

use chrono::Utc;
use rstest::rstest;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, Value as Bound,
};
use tollgate_service::governance::budget::{Asked, Budgets};
use tollgate_service::providers::gateway_key::GatewayKeys;
use tollgate_service::providers::provider_key::{Request, Resolver, Target};
use tollgate_service::{Connection, Error};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

const ID: &str = "d1000000-0000-4000-8000-000000000001";

/// A connection that keeps what it is asked.
struct Listening<'a> {
    connection: &'a Connection,
    heard: Mutex<Vec<Statement>>,
}

impl Listening<'_> {
    fn hear(&self, statement: &Statement) {
        self.heard.lock().unwrap().push(statement.clone());
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Listening<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.hear(&statement);
        self.connection.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.connection.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.hear(&statement);
        self.connection.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.hear(&statement);
        self.connection.query_all_raw(statement).await
    }
}

/// The lines of a plan that read all of something: a table, or an index from one end to the other. Where no index serves,
/// PostgreSQL does so even when it is told not to; where one does, a small table would be read whole in spite of it.
async fn whole(database: &TestDatabase, statement: &Statement) -> Vec<String> {
    let (word, column) = match database.backend {
        Backend::Postgres => ("EXPLAIN", 0),
        Backend::Sqlite => ("EXPLAIN QUERY PLAN", 3),
    };
    let values: Vec<Bound> = statement
        .values
        .iter()
        .flat_map(|values| values.0.clone())
        .collect();
    let lines = database
        .connection
        .query_all_raw(Statement::from_sql_and_values(
            statement.db_backend,
            format!("{word} {}", statement.sql),
            values,
        ))
        .await
        .unwrap();
    assert!(!lines.is_empty());
    let lines: Vec<String> = lines
        .iter()
        .map(|row| row.try_get_by_index(column).unwrap())
        .collect();
    let next = lines.iter().skip(1).map(String::as_str).chain([""]);
    lines
        .iter()
        .zip(next)
        .filter(|(line, next)| match database.backend {
            Backend::Postgres => {
                line.contains("Seq Scan")
                    || line.contains("Index")
                        && line.contains(" Scan ")
                        && !next.contains("Index Cond")
            }
            // `a` is what a statement made for itself: a row for each thing that was asked for.
            Backend::Sqlite => {
                line.contains("AUTOMATIC")
                    || line.starts_with("SCAN") && !matches!(&line[5..], "a" | "CONSTANT ROW")
            }
        })
        .map(|(line, _)| line.clone())
        .collect()
}

#[rstest]
#[tokio::test]
async fn what_is_asked_for_every_request_reads_no_table_whole(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    tollgate().on(&database.url).succeed(&[
        "migrate",
        "up",
        "--track",
        "governance",
        "--track",
        "providers",
    ]);
    if backend == Backend::Postgres {
        database.execute("SET enable_seqscan = off").await;
    }
    let dialect = database.dialect();
    let resolver = Resolver::load(&database.connection, dialect).await.unwrap();
    let keys = GatewayKeys::load(&database.connection, dialect)
        .await
        .unwrap();
    let budgets = Budgets::load(&database.connection, dialect).await.unwrap();
    let secret = keys
        .create(
            &database.connection,
            &"replica-1".parse().unwrap(),
            &mut rand::rng(),
        )
        .await
        .unwrap();

    let listening = Listening {
        connection: &database.connection,
        heard: Mutex::default(),
    };
    for target in [
        Target::ModelConfig(ID.to_owned()),
        Target::Provider(ID.to_owned()),
    ] {
        for user in [None, Some(ID)] {
            let request = Request {
                target: target.clone(),
                user,
                byok: user.is_some(),
                fallback: None,
            };
            let refused = resolver.resolve(&listening, &request).await;
            assert!(
                matches!(refused, Err(Error::Unusable { .. })),
                "{refused:?}"
            );
        }
    }
    keys.authenticate(&listening, secret.secret().as_bytes())
        .await
        .unwrap();
    let refused = budgets
        .check(&listening, &Asked::of("vk-1", "openai"), None, Utc::now())
        .await;
    assert!(
        matches!(refused, Err(Error::NotFound { .. })),
        "{refused:?}"
    );

    let heard = listening.heard.into_inner().unwrap();
    // Four keys, a lookup and its note, the chain and whether the key is there.
    assert_eq!(heard.len(), 8);
    for statement in &heard {
        assert_eq!(
            whole(&database, statement).await,
            [] as [&str; 0],
            "{}",
            statement.sql
        );
    }

    // Without its index, a chain reads every provider config, and this test would say so.
    database
        .execute("DROP INDEX idx_governance_virtual_key_provider_configs_virtual_key_id")
        .await;
    assert_eq!(whole(&database, &heard[6]).await.len(), 1);
}
