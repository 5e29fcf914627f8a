//! Credentials follow grants: every combination by a table written by hand, and row for row as a plain loop does it.

#![expect(
    clippy::disallowed_methods,
    reason = "a gateway that embeds the hooks has connections and transactions of its own"
)]

mod flows_and_headers;
mod hooks;
mod oracle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use rstest::rstest;
use sea_orm::{ConnectionTrait, TransactionTrait};
use tollgate_service::governance::credentials::{
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
