//! Per-user MCP credentials: ten to a virtual key, one in twenty of which has drifted from its grant. With the tables of
//! before multi-budget beside them, which no release of the gateway has at once: a program of its own may.

use tollgate_migration::Dialect;
use tollgate_migration::ddl::TableSpec;
use tollgate_migration::governance::legacy_tables;
use tollgate_migration::governance::mcp::{
    self, CLIENTS, GRANTS, HEADER_FLOWS, HEADERS, SESSIONS, TOKENS,
};

use super::legacy;
use crate::seed::{Fill, Maker};

/// MCP clients. A virtual key has a credential for each of the first ten; the last is open to all.
const COUNT: u32 = 12;
const PER_KEY: u32 = 10;

pub(super) fn tables(dialect: Dialect) -> Vec<TableSpec> {
    let mut tables = legacy_tables(dialect);
    tables.extend(mcp::all());
    tables
}

/// The number of the virtual key of the i-th credential, and of its client.
const KEY: &str = "((i - 1) / 10 + 1)";
const CLIENT: &str = "((i - 1) % 10 + 1)";
/// What the i-th credential is an example of: 0 active without a grant, 1 orphaned with one, 2 to 5 orphaned without, 6 in
/// need of a new consent without one; the rest are active and granted.
const CASE: &str = "((i * 7 + (i - 1) / 10 * 3) % 40)";

pub(super) fn fills(maker: &Maker, keys: u32) -> Vec<Fill> {
    let mut fills = legacy::fills(maker, keys);
    fills.extend(credentials(maker, keys));
    fills
}

/// The servers, the grants, and the credentials and flows of users.
pub(super) fn credentials(maker: &Maker, keys: u32) -> Vec<Fill> {
    let mut fills = vec![clients(maker), grants(maker, keys)];
    fills.extend(of_virtual_keys(maker, keys));
    fills.push(of_users(maker, keys));
    fills.extend(flows(maker, keys));
    fills
}

/// The columns, and when the row was made and last changed.
fn stamped(maker: &Maker, mut columns: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    columns.push(("created_at", maker.before("i % 5000000")));
    columns.push(("updated_at", maker.before("i % 2500000")));
    columns
}

fn client(maker: &Maker, number: &str) -> String {
    maker.id("mcp", number)
}

fn clients(maker: &Maker) -> Fill {
    maker.insert(
        CLIENTS,
        COUNT,
        &stamped(
            maker,
            vec![
                ("client_id", client(maker, "i")),
                ("name", "'MCP ' || i".to_owned()),
                ("connection_type", "'http'".to_owned()),
                (
                    "auth_type",
                    "CASE WHEN i <= 5 THEN 'per_user_oauth' ELSE 'per_user_headers' END".to_owned(),
                ),
                (
                    "allow_on_all_virtual_keys",
                    maker.flag(&format!("i = {COUNT}")),
                ),
                (
                    "per_user_header_keys_json",
                    "CASE WHEN i <= 5 THEN NULL ELSE '[\"x-api-key\"]' END".to_owned(),
                ),
            ],
        ),
        "1 = 1",
    )
}

fn grants(maker: &Maker, keys: u32) -> Fill {
    maker.insert(
        GRANTS,
        keys.saturating_mul(PER_KEY),
        &[
            ("virtual_key_id", maker.id("vk", KEY)),
            ("mcp_client_id", CLIENT.to_owned()),
            ("tools_to_execute", "'[\"*\"]'".to_owned()),
        ],
        &format!("{CASE} = 1 OR {CASE} > 6"),
    )
}

/// What keys hold, granted or not, in every state.
fn of_virtual_keys(maker: &Maker, keys: u32) -> [Fill; 2] {
    let key = maker.id("vk", KEY);
    let status = format!(
        "CASE WHEN {CASE} BETWEEN 1 AND 5 THEN 'orphaned' WHEN {CASE} = 6 THEN 'STALE' ELSE 'active' END"
    );
    [
        maker.insert(
            TOKENS,
            keys.saturating_mul(PER_KEY),
            &stamped(
                maker,
                vec![
                    ("id", maker.id("token", "i")),
                    ("virtual_key_id", key.clone()),
                    ("mcp_client_id", client(maker, CLIENT)),
                    ("auth_mode", "'vk'".to_owned()),
                    ("status", status.replace("STALE", "needs_reauth")),
                    ("oauth_config_id", "'oauth-1'".to_owned()),
                    ("access_token", "'made up ' || i".to_owned()),
                    ("token_type", "'Bearer'".to_owned()),
                ],
            ),
            &format!("{CLIENT} <= 5"),
        ),
        maker.insert(
            HEADERS,
            keys.saturating_mul(PER_KEY),
            &stamped(
                maker,
                vec![
                    ("id", maker.id("header", "i")),
                    ("virtual_key_id", key.clone()),
                    ("mcp_client_id", client(maker, CLIENT)),
                    ("auth_mode", "'vk'".to_owned()),
                    ("status", status.replace("STALE", "needs_update")),
                    (
                        "headers_json",
                        "'{\"x-api-key\":\"made up ' || i || '\"}'".to_owned(),
                    ),
                ],
            ),
            &format!("{CLIENT} > 5"),
        ),
    ]
}

/// Rows of users, which no grant of a virtual key speaks for.
fn of_users(maker: &Maker, keys: u32) -> Fill {
    maker.insert(
        TOKENS,
        keys,
        &stamped(
            maker,
            vec![
                ("id", maker.id("user-token", "i")),
                ("user_id", maker.id("user", "i")),
                ("mcp_client_id", client(maker, "1")),
                ("auth_mode", "'user'".to_owned()),
                ("oauth_config_id", "'oauth-1'".to_owned()),
                ("access_token", "'made up ' || i".to_owned()),
                ("token_type", "'Bearer'".to_owned()),
            ],
        ),
        "i % 10 = 0",
    )
}

/// A pending flow for every tenth credential, granted or not, and some that ended.
fn flows(maker: &Maker, keys: u32) -> Vec<Fill> {
    let mut fills = Vec::new();
    for (table, extra, condition) in [
        (
            SESSIONS,
            vec![
                ("oauth_config_id", "'oauth-1'".to_owned()),
                ("state", maker.id("state", "i")),
            ],
            format!("{CLIENT} <= 5 AND i % 3 = 0 AND {CASE} < 8"),
        ),
        (
            HEADER_FLOWS,
            Vec::new(),
            format!("{CLIENT} > 5 AND i % 3 = 0 AND {CASE} < 8"),
        ),
    ] {
        let done = if table == SESSIONS {
            "authorized"
        } else {
            "completed"
        };
        let mut columns = vec![
            ("id", maker.id("flow", "i")),
            ("virtual_key_id", maker.id("vk", KEY)),
            ("mcp_client_id", client(maker, CLIENT)),
            ("flow_mode", "'vk'".to_owned()),
            (
                "status",
                format!("CASE WHEN i % 2 = 0 THEN 'pending' ELSE '{done}' END"),
            ),
            ("expires_at", maker.before("i % 100000 - 200000")),
        ];
        columns.extend(extra);
        fills.push(maker.insert(
            table,
            keys.saturating_mul(PER_KEY),
            &stamped(maker, columns),
            &condition,
        ));
    }
    fills
}
