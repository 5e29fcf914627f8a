//! Credentials follow grants: every combination by a table written by hand, and row for row as a plain loop does it.

#![expect(
    clippy::disallowed_methods,
    reason = "a gateway that embeds the hooks has connections and transactions of its own"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use rstest::rstest;
use sea_orm::{ConnectionTrait, TransactionTrait};
use tollgate_service::reconcile::credentials::{
    after_mcp_client_change, after_virtual_key_change, delete_rows_of_virtual_key,
};
use tollgate_tests::fixture::{
    Calendar, Shape, SilentKeys, credentials_schema, schema, with_credentials,
};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// When every row of these tests was written.
const WRITTEN: &str = "2026-03-01 00:00:00+00:00";

/// One kind: its credentials, its flows, the status that no grant speaks for, and the ends of its flows.
struct Kind {
    credentials: &'static str,
    flows: &'static str,
    stale: &'static str,
    ended: &'static [&'static str],
}

const KINDS: [Kind; 2] = [
    Kind {
        credentials: "oauth_user_tokens",
        flows: "oauth_user_sessions",
        stale: "needs_reauth",
        ended: &["authorized", "claiming", "failed", "expired"],
    },
    Kind {
        credentials: "mcp_per_user_header_credentials",
        flows: "mcp_per_user_header_flows",
        stale: "needs_update",
        ended: &["completed", "expired"],
    },
];

/// What becomes of a credential, first match: the key's grant on the client of the row, whether it has another grant, the
/// row's mode, its virtual key, its client, its status, and the status afterwards.
const CREDENTIALS: &str = "
    *        *     user    *    *    *        same
    *        *     session *    *    *        same
    *        *     null    *    *    *        same
    *        *     vk      null *    *        same
    *        *     vk      ''   *    *        same
    *        *     vk      key  *    stale    same
    explicit *     vk      key  c    active   same
    explicit *     vk      key  c    orphaned active
    all      *     vk      key  c    active   same
    all      *     vk      key  c    orphaned active
    none     *     vk      key  c    active   orphaned
    none     *     vk      key  c    orphaned same
    revoked  *     vk      key  c    active   orphaned
    revoked  *     vk      key  c    orphaned same
    *        *     vk      key  ''   active   orphaned
    *        *     vk      key  ''   orphaned same
    explicit *     vk      key  null active   same
    all      *     vk      key  null active   same
    none     other vk      key  null active   same
    revoked  other vk      key  null active   same
    none     empty vk      key  null active   orphaned
    revoked  empty vk      key  null active   orphaned
    *        *     vk      key  null orphaned same
";

/// The same of a flow; `pending` or one of the ends.
const FLOWS: &str = "
    *        *     user    *    *    *        same
    *        *     session *    *    *        same
    *        *     none    *    *    *        same
    *        *     vk      null *    *        same
    *        *     vk      ''   *    *        same
    *        *     vk      key  *    ended    same
    explicit *     vk      key  c    pending  same
    all      *     vk      key  c    pending  same
    none     *     vk      key  c    pending  gone
    revoked  *     vk      key  c    pending  gone
    *        *     vk      key  ''   pending  gone
    explicit *     vk      key  null pending  same
    all      *     vk      key  null pending  same
    none     other vk      key  null pending  same
    revoked  other vk      key  null pending  same
    none     empty vk      key  null pending  gone
    revoked  empty vk      key  null pending  gone
";

/// What the table says of a combination.
fn outcome<'a>(table: &'a str, combination: &[&str]) -> &'a str {
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<&str>>())
        .find(|words| {
            words.len() == combination.len() + 1
                && words
                    .iter()
                    .zip(combination)
                    .all(|(word, value)| *word == "*" || word == value)
        })
        .unwrap_or_else(|| panic!("the table says nothing of {combination:?}"))
        .last()
        .unwrap()
}

/// The tables as later versions have them, where a client may be NULL, empty.
async fn empty(backend: Backend) -> TestDatabase {
    let database = TestDatabase::new(backend).await;
    database
        .execute(&schema(backend, Shape::Full, Calendar::Flag))
        .await;
    let credentials = credentials_schema(backend, SilentKeys::Absent);
    let mut relaxed = String::new();
    for line in credentials.lines() {
        let loose = line.contains("mcp_client_id") && !line.contains("INDEX")
            || line.contains("auth_mode") && !line.contains("INDEX");
        relaxed.push_str(&if loose {
            line.replace(" NOT NULL", "")
        } else {
            line.to_owned()
        });
        relaxed.push('\n');
    }
    database.execute(&relaxed).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    for (number, name) in [(1, "c"), (2, "d"), (3, "e")] {
        database
            .execute(&format!(
                "INSERT INTO config_mcp_clients (id, client_id, name, connection_type, allow_on_all_virtual_keys, created_at, updated_at) \
                 VALUES ({number}, '{name}', '{name}', 'http', false, '{WRITTEN}', '{WRITTEN}')"
            ))
            .await;
    }
    database
}

fn text(value: &str) -> String {
    match value {
        "null" => "NULL".to_owned(),
        "''" => "''".to_owned(),
        other => format!("'{other}'"),
    }
}

/// Rows to be inserted in few statements.
#[derive(Default)]
struct Rows {
    keys: Vec<String>,
    grants: Vec<String>,
    credentials: [Vec<String>; 2],
    flows: [Vec<String>; 2],
}

impl Rows {
    fn key(&mut self, id: &str) {
        self.keys.push(format!(
            "('{id}', '{id}', 'sk-bf-{id}', '{WRITTEN}', '{WRITTEN}')"
        ));
    }

    fn grant(&mut self, key: &str, client: u32) {
        self.grants.push(format!("('{key}', {client}, '[]')"));
    }

    fn credential(
        &mut self,
        kind: usize,
        id: &str,
        key: &str,
        client: &str,
        mode: &str,
        status: &str,
    ) {
        let tail = if kind == 0 {
            "'o', 'at', 'Bearer'"
        } else {
            "'{}'"
        };
        self.credentials[kind].push(format!(
            "('{id}', {}, {}, {}, '{status}', '{WRITTEN}', '{WRITTEN}', {tail})",
            text(key),
            text(client),
            text(mode)
        ));
    }

    fn flow(&mut self, kind: usize, id: &str, key: &str, client: &str, mode: &str, status: &str) {
        let tail = if kind == 0 {
            format!(", 'o', 'state {id}'")
        } else {
            String::new()
        };
        self.flows[kind].push(format!(
            "('{id}', {}, {}, '{mode}', '{status}', '2027-01-01 00:00:00+00:00', '{WRITTEN}', '{WRITTEN}'{tail})",
            text(key),
            text(client)
        ));
    }

    async fn insert(self, database: &TestDatabase) {
        let stamps = "created_at, updated_at";
        let owner = "id, virtual_key_id, mcp_client_id";
        let [tokens, headers] = self.credentials;
        let [sessions, flows] = self.flows;
        for (into, rows) in [
            (format!("governance_virtual_keys (id, name, value, {stamps})"), self.keys),
            (
                "governance_virtual_key_mcp_configs (virtual_key_id, mcp_client_id, tools_to_execute)".to_owned(),
                self.grants,
            ),
            (
                format!("oauth_user_tokens ({owner}, auth_mode, status, {stamps}, oauth_config_id, access_token, token_type)"),
                tokens,
            ),
            (
                format!("mcp_per_user_header_credentials ({owner}, auth_mode, status, {stamps}, headers_json)"),
                headers,
            ),
            (
                format!("oauth_user_sessions ({owner}, flow_mode, status, expires_at, {stamps}, oauth_config_id, state)"),
                sessions,
            ),
            (
                format!("mcp_per_user_header_flows ({owner}, flow_mode, status, expires_at, {stamps})"),
                flows,
            ),
        ] {
            for page in rows.chunks(500) {
                database
                    .execute(&format!("INSERT INTO {into} VALUES {}", page.join(", ")))
                    .await;
            }
        }
        // A server that works has statistics; a moment after the first insert it has none.
        database.execute("ANALYZE").await;
    }
}

/// Id, status, and whether `updated_at` moved, of every credential and flow.
async fn state(database: &TestDatabase) -> Vec<String> {
    let mut all = Vec::new();
    for kind in &KINDS {
        for table in [kind.credentials, kind.flows] {
            let same = match database.backend {
                Backend::Sqlite => format!("updated_at = '{WRITTEN}'"),
                Backend::Postgres => format!("updated_at = timestamptz '{WRITTEN}'"),
            };
            all.extend(
                database
                    .column(&format!(
                        "SELECT '{table} ' || id || ' ' || status || CASE WHEN {same} THEN '' ELSE ' moved' END \
                         FROM {table} ORDER BY 1"
                    ))
                    .await,
            );
        }
    }
    all
}

/// The reconcile of `docs/upstream/bifrost.md` §4.7, key by key, statement by statement.
async fn plain_loop(database: &TestDatabase, kind: &Kind, keys: &BTreeSet<String>) {
    for key in keys.iter().filter(|key| !key.is_empty()) {
        let allowlist = database
            .column(&format!(
                "SELECT c.client_id FROM governance_virtual_key_mcp_configs g \
                 JOIN config_mcp_clients c ON c.id = g.mcp_client_id WHERE g.virtual_key_id = '{key}' \
                 UNION SELECT client_id FROM config_mcp_clients WHERE {}",
                database.dialect().is_true("allow_on_all_virtual_keys")
            ))
            .await;
        let list = allowlist
            .iter()
            .map(|client| format!("'{client}'"))
            .collect::<Vec<_>>()
            .join(", ");
        let outside = if allowlist.is_empty() {
            String::new()
        } else {
            format!(" AND mcp_client_id NOT IN ({list})")
        };
        let (credentials, flows) = (kind.credentials, kind.flows);
        database
            .execute(&format!(
                "UPDATE {credentials} SET status = 'orphaned', updated_at = '2026-04-01 00:00:00+00:00' \
                 WHERE auth_mode = 'vk' AND virtual_key_id = '{key}' AND status = 'active'{outside}"
            ))
            .await;
        if !allowlist.is_empty() {
            database
                .execute(&format!(
                    "UPDATE {credentials} SET status = 'active', updated_at = '2026-04-01 00:00:00+00:00' \
                     WHERE auth_mode = 'vk' AND virtual_key_id = '{key}' AND status = 'orphaned' \
                     AND mcp_client_id IN ({list})"
                ))
                .await;
        }
        database
            .execute(&format!(
                "DELETE FROM {flows} WHERE flow_mode = 'vk' AND virtual_key_id = '{key}' \
                 AND status = 'pending'{outside}"
            ))
            .await;
    }
}

/// Every virtual key with a row of that kind, of one client or of any.
async fn holders(database: &TestDatabase, kind: &Kind, client: Option<&str>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for table in [kind.credentials, kind.flows] {
        let of = client.map_or_else(String::new, |client| {
            format!(" AND mcp_client_id = '{client}'")
        });
        keys.extend(
            database
                .column(&format!(
                    "SELECT DISTINCT virtual_key_id FROM {table} WHERE virtual_key_id <> ''{of}"
                ))
                .await,
        );
    }
    keys
}

#[rstest]
#[tokio::test]
async fn every_combination_ends_as_the_table_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(&["explicit", "none", "revoked"], &["all"])] grants: &[&str],
) {
    let database = empty(backend).await;
    let mut rows = Rows::default();
    let mut expected = Vec::new();
    let mut revoked = Vec::new();
    let mut number = 0;
    let stamp = |status: &str, after: &str| {
        if after == "same" {
            status.to_owned()
        } else {
            format!("{after} moved")
        }
    };
    let key_of = |key: &str, number: u32| {
        if key == "key" {
            format!("vk-{number:05}")
        } else {
            key.to_owned()
        }
    };
    for grant in grants {
        for other in ["empty", "other"] {
            for mode in ["vk", "user", "session", "null", "none"] {
                for key in ["key", "null", "''"] {
                    for client in ["c", "''", "null"] {
                        for (at, kind) in KINDS.iter().enumerate() {
                            let mut stand = |rows: &mut Rows| {
                                number += 1;
                                // A key of its own for each row: the bindings are unique.
                                let id = format!("vk-{number:05}");
                                rows.key(&id);
                                if other == "other" {
                                    rows.grant(&id, 2);
                                }
                                if *grant == "explicit" || *grant == "revoked" {
                                    rows.grant(&id, 1);
                                }
                                if *grant == "revoked" {
                                    revoked.push(format!("'{id}'"));
                                }
                                number
                            };
                            let statuses = ["active", "orphaned", kind.stale];
                            for status in statuses.into_iter().filter(|_| mode != "none") {
                                let number = stand(&mut rows);
                                let id = format!("row-{number:05}");
                                rows.credential(
                                    at,
                                    &id,
                                    &key_of(key, number),
                                    client,
                                    mode,
                                    status,
                                );
                                let word = if status == kind.stale {
                                    "stale"
                                } else {
                                    status
                                };
                                let after =
                                    outcome(CREDENTIALS, &[grant, other, mode, key, client, word]);
                                expected.push(format!(
                                    "{} {id} {}",
                                    kind.credentials,
                                    stamp(status, after)
                                ));
                            }
                            let statuses =
                                std::iter::once("pending").chain(kind.ended.iter().copied());
                            for status in statuses.filter(|_| mode != "null") {
                                let number = stand(&mut rows);
                                let id = format!("row-{number:05}");
                                rows.flow(at, &id, &key_of(key, number), client, mode, status);
                                let word = if status == "pending" { status } else { "ended" };
                                let after =
                                    outcome(FLOWS, &[grant, other, mode, key, client, word]);
                                if after != "gone" {
                                    expected.push(format!(
                                        "{} {id} {}",
                                        kind.flows,
                                        stamp(status, after)
                                    ));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    rows.insert(&database).await;
    if grants.contains(&"all") {
        database
            .execute("UPDATE config_mcp_clients SET allow_on_all_virtual_keys = true WHERE client_id = 'c'")
            .await;
    }
    if !revoked.is_empty() {
        database
            .execute(&format!(
                "DELETE FROM governance_virtual_key_mcp_configs WHERE mcp_client_id = 1 AND virtual_key_id IN ({})",
                revoked.join(", ")
            ))
            .await;
    }
    let order = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    let expected = order(expected);
    assert!(expected.len() > 500, "{}", expected.len());
    let template = database.freeze().await;

    // By the command, over everything.
    let swept = template.copy().await;
    let tool = tollgate().on(&swept.url);
    let (code, planned) = tool.json(&["reconcile", "credentials", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    let (code, done) = tool.json(&["reconcile", "credentials"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(
        done["changes"], planned["changes"],
        "what was announced is what was done"
    );
    assert_eq!(order(state(&swept).await), expected);
    assert_eq!(tool.run(&["reconcile", "credentials", "--check"]).code, 0);

    // By the plain loop.
    let looped = template.copy().await;
    for kind in &KINDS {
        let keys = holders(&looped, kind, None).await;
        plain_loop(&looped, kind, &keys).await;
    }
    assert_eq!(order(state(&looped).await), expected);
}

/// Small numbers from a seed, the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let number = usize::try_from(self.0 >> 33).unwrap();
        of[number % of.len()]
    }
}

/// 120 keys with whatever rows on three clients and some that are not there.
async fn random(backend: Backend, seed: u64) -> TestDatabase {
    let database = empty(backend).await;
    let mut dice = Dice(seed);
    let mut rows = Rows::default();
    for number in 0..120 {
        let key = format!("vk-{number:03}");
        rows.key(&key);
        for client in 1..=3 {
            if dice.roll(&["yes", "no", "no"]) == "yes" {
                rows.grant(&key, client);
            }
        }
        for (at, kind) in KINDS.iter().enumerate() {
            for client in ["c", "d", "e", "gone", "''", "null"] {
                let id = format!("{key}-{}", client.replace("''", "empty"));
                if dice.roll(&["yes", "no"]) == "yes" {
                    rows.credential(
                        at,
                        &id,
                        dice.roll(&[&key, &key, &key, "null", "nobody"]),
                        client,
                        dice.roll(&["vk", "vk", "vk", "user", "session"]),
                        dice.roll(&["active", "active", "orphaned", "orphaned", kind.stale]),
                    );
                }
                if dice.roll(&["yes", "no", "no"]) == "yes" {
                    let status = dice.roll(&["pending", "pending", kind.ended[0]]);
                    let key = dice.roll(&[&key, &key, "null", "nobody"]);
                    rows.flow(
                        at,
                        &id,
                        key,
                        client,
                        dice.roll(&["vk", "vk", "user"]),
                        status,
                    );
                }
            }
        }
    }
    // One binding, one credential.
    for (at, table) in rows.credentials.iter_mut().enumerate() {
        let mut seen = BTreeSet::new();
        table.retain(|row| {
            !row.contains("'nobody'")
                || seen.insert((at, row.split_once(',').unwrap().1.to_owned()))
        });
        let mut nobody = BTreeSet::new();
        table.retain(|row| {
            let parts: Vec<&str> = row.split(", ").collect();
            parts[1] != "'nobody'" || nobody.insert((parts[2].to_owned(), parts[3].to_owned()))
        });
    }
    rows.insert(&database).await;
    if dice.roll(&["yes", "no"]) == "yes" {
        database
            .execute("UPDATE config_mcp_clients SET allow_on_all_virtual_keys = true WHERE client_id = 'e'")
            .await;
    }
    database
}

#[rstest]
#[tokio::test]
async fn sets_end_row_for_row_as_the_plain_loop_does(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(1, 2, 3)] seed: u64,
) {
    let template = random(backend, seed).await.freeze().await;
    for scope in [
        None,
        Some(("--mcp-client", "c")),
        Some(("--mcp-client", "gone")),
        Some(("--virtual-key", "vk-007")),
    ] {
        let looped = template.copy().await;
        for kind in &KINDS {
            let keys = match scope {
                Some(("--virtual-key", key)) => BTreeSet::from([key.to_owned()]),
                other => holders(&looped, kind, other.map(|(_, client)| client)).await,
            };
            plain_loop(&looped, kind, &keys).await;
        }
        let expected = state(&looped).await;

        let set = template.copy().await;
        let mut arguments = vec!["reconcile", "credentials"];
        arguments.extend(scope.iter().flat_map(|(option, id)| [*option, *id]));
        tollgate().on(&set.url).succeed(&arguments);
        assert_eq!(state(&set).await, expected, "{scope:?}");

        let hooked = template.copy().await;
        let gateway = sea_orm::Database::connect(&hooked.url).await.unwrap();
        match scope {
            None => {}
            Some(("--virtual-key", key)) => {
                after_virtual_key_change(&gateway, key, Utc::now())
                    .await
                    .unwrap();
                assert_eq!(state(&hooked).await, expected, "{scope:?}");
            }
            Some((_, client)) => {
                after_mcp_client_change(&gateway, client, Utc::now())
                    .await
                    .unwrap();
                assert_eq!(state(&hooked).await, expected, "{scope:?}");
            }
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_clients_change_takes_as_many_statements_for_a_thousand_keys_as_for_one(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mut counts = Vec::new();
    for keys in [1, 1000] {
        let database = empty(backend).await;
        let mut rows = Rows::default();
        for number in 0..keys {
            let key = format!("vk-{number:04}");
            rows.key(&key);
            for kind in [0, 1] {
                rows.credential(kind, &format!("{key}-c"), &key, "c", "vk", "active");
                rows.flow(kind, &format!("{key}-c"), &key, "c", "vk", "pending");
            }
        }
        rows.insert(&database).await;
        let mut connection = sea_orm::Database::connect(&database.url).await.unwrap();
        let issued = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&issued);
        connection.set_metric_callback(move |info| {
            let sql = &info.statement.sql;
            if sql.contains("oauth_user_") || sql.contains("mcp_per_user_") {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let changes = after_mcp_client_change(&connection, "c", Utc::now())
            .await
            .unwrap();
        assert_eq!(
            changes.iter().map(|change| change.rows).sum::<u64>(),
            4 * keys
        );
        counts.push(issued.load(Ordering::SeqCst));
    }
    assert_eq!(counts[0], counts[1]);
    assert!((4..=14).contains(&counts[0]), "{counts:?}");
}

#[rstest]
#[tokio::test]
async fn a_hook_is_part_of_the_callers_transaction(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
    tollgate()
        .on(&database.url)
        .succeed(&["reconcile", "credentials"]);
    let before = state(&database).await;
    let connection = sea_orm::Database::connect(&database.url).await.unwrap();
    let revoke = "DELETE FROM governance_virtual_key_mcp_configs WHERE virtual_key_id = 'vk-alice'";

    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared(revoke).await.unwrap();
    let changes = after_virtual_key_change(&transaction, "vk-alice", Utc::now())
        .await
        .unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].action, "orphan");
    assert_eq!(changes[0].sample_ids, ["tok-alice"]);
    transaction.rollback().await.unwrap();
    assert_eq!(state(&database).await, before, "rolled back with it");

    // A hook that fails leaves the caller's transaction as it was: the caller logs it, and the sweep repairs.
    let guard = match backend {
        Backend::Sqlite => {
            "CREATE TRIGGER guard BEFORE UPDATE ON oauth_user_tokens BEGIN SELECT RAISE(ABORT, 'not now'); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$; \
             CREATE TRIGGER guard BEFORE UPDATE ON oauth_user_tokens FOR EACH ROW EXECUTE FUNCTION guard()"
        }
    };
    database.execute(guard).await;
    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared(revoke).await.unwrap();
    let failed = after_virtual_key_change(&transaction, "vk-alice", Utc::now()).await;
    assert!(failed.unwrap_err().to_string().contains("not now"));
    transaction.commit().await.unwrap();
    assert_eq!(
        database
            .count("governance_virtual_key_mcp_configs WHERE virtual_key_id = 'vk-alice'")
            .await,
        0,
        "the caller's own write is there"
    );
    match backend {
        Backend::Sqlite => database.execute("DROP TRIGGER guard").await,
        Backend::Postgres => database.execute("DROP FUNCTION guard CASCADE").await,
    }
    let (_, swept) = tollgate()
        .on(&database.url)
        .json(&["reconcile", "credentials"]);
    assert_eq!(
        swept["changes"][0]["sample_ids"],
        serde_json::json!(["tok-alice"])
    );
    // Nobody and a stranger are nothing to do.
    for id in ["", "nobody"] {
        assert!(
            after_virtual_key_change(&connection, id, Utc::now())
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            after_mcp_client_change(&connection, id, Utc::now())
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_hook_leaves_the_settings_of_the_transaction_around_it() {
    let database = empty(Backend::Postgres).await;
    let mut rows = Rows::default();
    rows.key("vk-1");
    rows.credential(0, "token", "vk-1", "c", "vk", "active");
    rows.insert(&database).await;
    let connection = sea_orm::Database::connect(&database.url).await.unwrap();
    let outer = sea_orm::TransactionTrait::begin(&connection).await.unwrap();
    outer
        .execute_unprepared("SET LOCAL lock_timeout = '7s'")
        .await
        .unwrap();
    let changes = after_virtual_key_change(&outer, "vk-1", Utc::now())
        .await
        .unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    let set = outer
        .query_one_raw(sea_orm::Statement::from_string(
            sea_orm::DbBackend::Postgres,
            "SELECT current_setting('lock_timeout')",
        ))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(set.try_get_by_index::<String>(0).unwrap(), "7s");
    outer.rollback().await.unwrap();
    assert_eq!(
        database.one("SELECT status FROM oauth_user_tokens").await,
        "active"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reconciles_in_opposite_directions_never_deadlock() {
    const KEYS: u32 = 60;
    let database = empty(Backend::Postgres).await;
    let mut rows = Rows::default();
    for number in 0..KEYS {
        let key = format!("vk-{number:03}");
        rows.key(&key);
        for kind in [0, 1] {
            for client in ["c", "d", "e"] {
                rows.credential(
                    kind,
                    &format!("{key}-{client}"),
                    &key,
                    client,
                    "vk",
                    "active",
                );
            }
        }
    }
    rows.insert(&database).await;
    let url = database.url.clone();
    let over = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let task = |what: u32| {
        let (url, over, rounds) = (url.clone(), Arc::clone(&over), Arc::clone(&rounds));
        tokio::spawn(async move {
            let connection = sea_orm::Database::connect(&url).await.unwrap();
            let mut dice = Dice(u64::from(what));
            let mut round = 0u32;
            while !over.load(Ordering::Relaxed) {
                round += 1;
                // One walks the keys upwards, another downwards; a third takes whole clients.
                let upwards = format!("vk-{:03}", round % KEYS);
                let downwards = format!("vk-{:03}", KEYS - 1 - round % KEYS);
                let client = dice.roll(&["c", "d", "e"]);
                match what {
                    0 => drop(
                        after_virtual_key_change(&connection, &upwards, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    1 => drop(
                        after_virtual_key_change(&connection, &downwards, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    2 | 3 => drop(
                        after_mcp_client_change(&connection, client, Utc::now())
                            .await
                            .unwrap(),
                    ),
                    _ => {
                        // Somebody edits grants: half of all keys gain or lose a client.
                        let number = dice.roll(&["1", "2", "3"]);
                        let odd = dice.roll(&["0", "1"]);
                        let half = format!("CAST(substr(id, 4) AS integer) % 2 = {odd}");
                        let sql = if dice.roll(&["give", "take"]) == "give" {
                            format!(
                                "INSERT INTO governance_virtual_key_mcp_configs (virtual_key_id, mcp_client_id, tools_to_execute) \
                                 SELECT id, {number}, '[]' FROM governance_virtual_keys WHERE {half} ORDER BY id ON CONFLICT DO NOTHING"
                            )
                        } else {
                            format!(
                                "DELETE FROM governance_virtual_key_mcp_configs WHERE mcp_client_id = {number} \
                                 AND virtual_key_id IN (SELECT id FROM governance_virtual_keys WHERE {half})"
                            )
                        };
                        connection.execute_unprepared(&sql).await.unwrap();
                        // And a token is asked for again: one more pending flow.
                        connection
                            .execute_unprepared(&format!(
                                "INSERT INTO mcp_per_user_header_flows (id, virtual_key_id, mcp_client_id, flow_mode, status, expires_at, created_at, updated_at) \
                                 VALUES ('flow-{round}', '{upwards}', '{client}', 'vk', 'pending', '2027-01-01', now(), now())"
                            ))
                            .await
                            .unwrap();
                    }
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let tasks: Vec<_> = (0..5).map(task).collect();
    tokio::time::sleep(Duration::from_secs(10) * crate::scale()).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let tool = tollgate().on(&url);
    tool.succeed(&["reconcile", "credentials"]);
    let last = tool.run(&["reconcile", "credentials", "--check"]);
    assert_eq!(last.code, 0, "{last:#?}");
    let deadlocks = database
        .one("SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()")
        .await;
    crate::say(&format!(
        "{} hooks and edits; deadlocks that the server saw: {deadlocks}",
        rounds.load(Ordering::Relaxed)
    ));
    assert!(rounds.load(Ordering::Relaxed) > 100);
    assert_eq!(deadlocks, "0", "rows are locked in one order");
}

#[rstest]
#[tokio::test]
async fn an_mcp_client_goes_with_all_that_hangs_on_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(SilentKeys::There, SilentKeys::Absent)] keys: SilentKeys,
) {
    let database = with_credentials(backend, keys).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&["migrate", "up", "--adopt"]);
    let untouched = database.everything(|_, _| true).await;
    let (code, planned) = tool.json(&["mcp-client", "delete", "mcp-files", "--dry-run"]);
    assert_eq!(code, 0, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, untouched);
    let (code, missing) = tool.json(&["mcp-client", "delete", "mcp-nowhere"]);
    assert_eq!(code, 1, "{missing:#}");
    assert_eq!(database.everything(|_, _| true).await, untouched);
    let (code, deleted) = tool.json(&["mcp-client", "delete", "mcp-files"]);
    assert_eq!(code, 0, "{deleted:#}");
    let rows = |json: &serde_json::Value| -> Vec<String> {
        json["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| format!("{} {}", change["table"].as_str().unwrap(), change["rows"]))
            .collect()
    };
    assert_eq!(rows(&planned), rows(&deleted));
    assert_eq!(
        rows(&deleted),
        [
            "governance_virtual_key_mcp_configs 2",
            "oauth_user_tokens 1",
            "mcp_per_user_header_flows 1",
            "mcp_per_user_header_credentials 2",
            "config_mcp_clients 1",
        ]
    );
    assert_eq!(
        database
            .column("SELECT id FROM oauth_user_tokens ORDER BY 1")
            .await,
        [
            "tok-alice-mail",
            "tok-bob",
            "tok-dave",
            "tok-session",
            "tok-user"
        ]
    );
    assert_eq!(tool.run(&["verify"]).code, 0);
    // A virtual key's rows, for whoever deletes the key.
    let changes = delete_rows_of_virtual_key(&database.connection, "vk-alice")
        .await
        .unwrap();
    assert_eq!(
        changes
            .iter()
            .map(|change| format!("{} {}", change.table, change.rows))
            .collect::<Vec<_>>(),
        [
            "oauth_user_sessions 1",
            "oauth_user_tokens 1",
            "mcp_per_user_header_flows 1",
            "mcp_per_user_header_credentials 1",
        ]
    );
}

#[rstest]
#[tokio::test]
async fn a_client_that_something_else_refers_to_stays_with_all_its_rows(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&["migrate", "up", "--adopt"]);
    database
        .execute(
            "CREATE TABLE audit (client varchar(255) REFERENCES config_mcp_clients(client_id))",
        )
        .await;
    database
        .execute("INSERT INTO audit VALUES ('mcp-files')")
        .await;
    let before = database.everything(|_, _| true).await;
    let (code, refused) = tool.json(&["mcp-client", "delete", "mcp-files"]);
    assert_eq!(code, 1, "{refused:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
}

#[rstest]
#[tokio::test]
async fn flows_that_ran_out_go_and_orphans_by_their_age(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = empty(backend).await;
    let mut rows = Rows::default();
    for kind in [0, 1] {
        for status in [
            "pending",
            "claiming",
            "authorized",
            "completed",
            "failed",
            "expired",
        ] {
            for mode in ["vk", "user", "session"] {
                for when in ["past", "future"] {
                    rows.flow(
                        kind,
                        &format!("{when}-{mode}-{status}"),
                        "null",
                        "c",
                        mode,
                        status,
                    );
                }
            }
        }
        for status in ["active", "orphaned", "needs_reauth", "needs_update"] {
            for when in ["old", "new"] {
                rows.credential(
                    kind,
                    &format!("{when}-{status}"),
                    "null",
                    "c",
                    "user",
                    status,
                );
            }
        }
    }
    rows.insert(&database).await;
    for table in ["oauth_user_sessions", "mcp_per_user_header_flows"] {
        // As text of another shape on SQLite: an instant is what counts.
        database
            .execute(&format!(
                "UPDATE {table} SET expires_at = '2026-03-29T10:11:12Z' WHERE id LIKE 'past-%'"
            ))
            .await;
    }
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        database
            .execute(&format!(
                "UPDATE {table} SET updated_at = '2099-01-01 00:00:00+00:00' WHERE id LIKE 'new-%'"
            ))
            .await;
    }
    let tool = tollgate().on(&database.url);
    let before = database.everything(|_, _| true).await;
    let (code, planned) = tool.json(&["reconcile", "flows", "--orphan-ttl", "30d", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    tool.succeed(&["reconcile", "flows"]);
    let gone = |table: &'static str, of: &'static str| {
        let database = &database;
        async move {
            database
                .column(&format!(
                    "SELECT id FROM {table} WHERE id LIKE '{of}-%' ORDER BY 1"
                ))
                .await
        }
    };
    let left = |dead: &[&str]| -> Vec<String> {
        let mut left = Vec::new();
        for mode in ["session", "user", "vk"] {
            for status in [
                "authorized",
                "claiming",
                "completed",
                "expired",
                "failed",
                "pending",
            ] {
                if !dead.contains(&status) {
                    left.push(format!("past-{mode}-{status}"));
                }
            }
        }
        left
    };
    assert_eq!(
        gone("oauth_user_sessions", "past").await,
        left(&["claiming", "pending"])
    );
    assert_eq!(
        gone("mcp_per_user_header_flows", "past").await,
        left(&["pending"])
    );
    assert_eq!(
        database
            .count("oauth_user_sessions WHERE id LIKE 'future-%'")
            .await,
        18
    );
    assert_eq!(
        database
            .count("mcp_per_user_header_flows WHERE id LIKE 'future-%'")
            .await,
        18
    );
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        assert_eq!(database.count(table).await, 8, "without a TTL orphans stay");
    }
    let (code, done) = tool.json(&["reconcile", "flows", "--orphan-ttl", "30d"]);
    assert_eq!(code, 0, "{done:#}");
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        assert_eq!(
            database
                .column(&format!("SELECT id FROM {table} WHERE status = 'orphaned'"))
                .await,
            ["new-orphaned"]
        );
        assert_eq!(database.count(table).await, 7);
    }
    assert_eq!(
        tool.run(&["reconcile", "flows", "--orphan-ttl", "30d", "--check"])
            .code,
        0
    );
}

#[tokio::test]
async fn a_time_that_nobody_can_read_is_not_past() {
    let database = empty(Backend::Sqlite).await;
    let mut rows = Rows::default();
    rows.flow(0, "flow-1", "vk-1", "c", "vk", "pending");
    rows.insert(&database).await;
    database
        .execute("UPDATE oauth_user_sessions SET expires_at = 'soon'")
        .await;
    let (code, json) = tollgate().on(&database.url).json(&["reconcile", "flows"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["findings"][0]["code"], "R001");
    assert_eq!(
        json["findings"][0]["sample_ids"],
        serde_json::json!(["flow-1"])
    );
    assert_eq!(database.count("oauth_user_sessions").await, 1);
}

#[rstest]
#[tokio::test]
async fn header_keys_written_since_the_migration_are_folded(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::Absent).await;
    let tool = tollgate().on(&database.url);
    let (_, up) = tool.json(&["migrate", "up", "--adopt"]);
    let said = |json: &serde_json::Value, table: &str| -> Vec<String> {
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["code"] == "G012" && finding["table"] == table)
            .map(|finding| {
                format!(
                    "{} {}",
                    finding["title"].as_str().unwrap(),
                    finding["sample_ids"]
                )
            })
            .collect()
    };
    let headers = "mcp_per_user_header_credentials";
    let reported = [
        "header keys that fold to the same name [\"hdr-bob\"]",
        "header keys that are no JSON [\"hdr-dave\"]",
        "encrypted header keys, which cannot be folded [\"hdr-user\"]",
    ];
    assert_eq!(
        said(&up, headers),
        reported,
        "the migration reports them: {up:#}"
    );
    assert_eq!(
        said(&up, "config_mcp_clients"),
        ["header keys that fold to the same name [\"2\"]"]
    );
    assert_eq!(tool.run(&["reconcile", "header-keys", "--check"]).code, 0);
    database
        .execute("UPDATE mcp_per_user_header_credentials SET headers_json = '{\"A\":\"1\", \"b \":2.50, \"a\":\"3\"}' WHERE id = 'hdr-alice'")
        .await;
    let updated = "SELECT CAST(updated_at AS text) FROM mcp_per_user_header_credentials WHERE id = 'hdr-alice'";
    let at = database.one(updated).await;
    let (code, planned) = tool.json(&["reconcile", "header-keys", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    let (code, done) = tool.json(&["reconcile", "header-keys"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(done["changes"], planned["changes"]);
    assert_eq!(
        said(&done, headers)[0],
        "header keys that fold to the same name [\"hdr-alice\"]"
    );
    assert_eq!(
        database
            .one("SELECT headers_json FROM mcp_per_user_header_credentials WHERE id = 'hdr-alice'")
            .await,
        "{\"a\":\"3\",\"b\":2.50}"
    );
    assert_eq!(database.one(updated).await, at, "orphans age on it");
    assert_eq!(tool.run(&["reconcile", "header-keys", "--check"]).code, 0);
}

#[rstest]
#[tokio::test]
async fn a_header_more_asks_for_an_update(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&["migrate", "up", "--adopt"]);
    let route = [
        "reconcile",
        "header-requirements",
        "--mcp-client",
        "mcp-wide",
    ];
    // hdr-alice and hdr-bob have both headers.
    let (code, none) = tool.json(&route);
    assert_eq!(code, 0, "{none:#}");
    assert_eq!(none["changes"], serde_json::json!([]));
    // One fewer asks nobody for anything, one more does, whatever its case.
    for (keys, lacking) in [
        (r#"["tenant"]"#, &[][..]),
        (r#"["tenant", "X-Region"]"#, &["hdr-alice", "hdr-bob"]),
    ] {
        database
            .execute(&format!(
                "UPDATE config_mcp_clients SET per_user_header_keys_json = '{keys}' WHERE client_id = 'mcp-wide'"
            ))
            .await;
        tool.succeed(&route);
        assert_eq!(
            database
                .column("SELECT id FROM mcp_per_user_header_credentials WHERE status = 'needs_update' AND id <> 'hdr-user' ORDER BY 1")
                .await,
            lacking
        );
    }
    assert_eq!(
        database
            .count("mcp_per_user_header_credentials WHERE updated_at <> created_at")
            .await,
        2,
        "updated_at moves on the rows that change"
    );
    let (code, missing) = tool.json(&[
        "reconcile",
        "header-requirements",
        "--mcp-client",
        "mcp-none",
    ]);
    assert_eq!(code, 1, "{missing:#}");
    // Encrypted ones are counted and left.
    database
        .execute(
            "UPDATE mcp_per_user_header_credentials SET status = 'active' WHERE id = 'hdr-user'",
        )
        .await;
    let (_, left) = tool.json(&route);
    assert_eq!(
        left["findings"][0]["sample_ids"],
        serde_json::json!(["hdr-user"])
    );
    assert_eq!(left["changes"], serde_json::json!([]));
}

#[rstest]
#[tokio::test]
async fn the_doctor_sees_the_drift_and_reconcile_closes_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&["migrate", "up", "--adopt"]);
    database
        .execute("UPDATE oauth_user_tokens SET auth_mode = 'vk' WHERE id = 'tok-user'")
        .await;
    let ids = |json: &serde_json::Value, code: &str| -> Vec<String> {
        let mut ids: Vec<String> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["code"] == code)
            .flat_map(|finding| finding["sample_ids"].as_array().unwrap())
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let (code, said) = tool.json(&["doctor", "--code", "G013", "--code", "G014"]);
    assert_eq!(code, 0, "warnings: {said:#}");
    // Alice's mail and Carol's files have no grant; Dave's wide client is open to all, his files granted.
    assert_eq!(
        ids(&said, "G013"),
        ["hdr-carol", "hdr-dave", "tok-alice-mail", "tok-dave"]
    );
    assert_eq!(ids(&said, "G014"), ["tok-user"]);
    tool.succeed(&["reconcile", "credentials"]);
    let (_, said) = tool.json(&["doctor"]);
    assert_eq!(ids(&said, "G013"), Vec::<String>::new());
    assert_eq!(ids(&said, "G014"), ["tok-user"]);
}

#[rstest]
#[tokio::test]
async fn the_change_limit_holds_before_the_first_write(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tool = tollgate().on(&database.url);
    // Without the tables in their migrated form there is nothing to go by.
    tool.succeed(&["migrate", "up", "--adopt"]);
    let before = database.everything(|_, _| true).await;
    let (code, held) = tool.json(&["reconcile", "credentials", "--max-changes", "3"]);
    assert_eq!(code, 4, "{held:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    for arguments in [
        &[
            "reconcile",
            "credentials",
            "--virtual-key",
            "a",
            "--mcp-client",
            "b",
        ][..],
        &["reconcile", "credentials", "--virtual-key", ""],
        &["reconcile", "flows", "--orphan-ttl", "0d"],
        &["reconcile", "flows", "--orphan-ttl", "soon"],
        &["reconcile", "header-requirements"],
    ] {
        let run = tool.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?} {run:#?}");
    }
    let nothing = TestDatabase::new(backend).await;
    for arguments in [
        &["reconcile", "credentials"][..],
        &["reconcile", "flows"],
        &["reconcile", "header-keys"],
        &["reconcile", "header-requirements", "--mcp-client", "c"],
    ] {
        let run = tollgate().on(&nothing.url).run(arguments);
        assert_eq!(run.code, 1, "{arguments:?} {run:#?}");
    }
}
