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
    let mut fills = Vec::new();
    let stamps = || {
        [
            ("created_at", maker.before("i % 5000000")),
            ("updated_at", maker.before("i % 2500000")),
        ]
    };
    let with = |columns: Vec<(&'static str, String)>| {
        let mut all = columns;
        all.extend(stamps());
        all
    };
    let client = |number: &str| maker.id("mcp", number);
    let key = maker.id("vk", KEY);
    fills.push(maker.insert(
        CLIENTS,
        COUNT,
        &with(vec![
            ("client_id", client("i")),
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
        ]),
        "1 = 1",
    ));
    fills.push(maker.insert(
        GRANTS,
        keys.saturating_mul(PER_KEY),
        &[
            ("virtual_key_id", key.clone()),
            ("mcp_client_id", CLIENT.to_owned()),
            ("tools_to_execute", "'[\"*\"]'".to_owned()),
        ],
        &format!("{CASE} = 1 OR {CASE} > 6"),
    ));
    let status = format!(
        "CASE WHEN {CASE} BETWEEN 1 AND 5 THEN 'orphaned' WHEN {CASE} = 6 THEN 'STALE' ELSE 'active' END"
    );
    fills.push(maker.insert(
        TOKENS,
        keys.saturating_mul(PER_KEY),
        &with(vec![
            ("id", maker.id("token", "i")),
            ("virtual_key_id", key.clone()),
            ("mcp_client_id", client(CLIENT)),
            ("auth_mode", "'vk'".to_owned()),
            ("status", status.replace("STALE", "needs_reauth")),
            ("oauth_config_id", "'oauth-1'".to_owned()),
            ("access_token", "'made up ' || i".to_owned()),
            ("token_type", "'Bearer'".to_owned()),
        ]),
        &format!("{CLIENT} <= 5"),
    ));
    fills.push(maker.insert(
        HEADERS,
        keys.saturating_mul(PER_KEY),
        &with(vec![
            ("id", maker.id("header", "i")),
            ("virtual_key_id", key.clone()),
            ("mcp_client_id", client(CLIENT)),
            ("auth_mode", "'vk'".to_owned()),
            ("status", status.replace("STALE", "needs_update")),
            (
                "headers_json",
                "'{\"x-api-key\":\"made up ' || i || '\"}'".to_owned(),
            ),
        ]),
        &format!("{CLIENT} > 5"),
    ));
    // Rows of users, which no grant of a virtual key speaks for.
    fills.push(maker.insert(
        TOKENS,
        keys,
        &with(vec![
            ("id", maker.id("user-token", "i")),
            ("user_id", maker.id("user", "i")),
            ("mcp_client_id", client("1")),
            ("auth_mode", "'user'".to_owned()),
            ("oauth_config_id", "'oauth-1'".to_owned()),
            ("access_token", "'made up ' || i".to_owned()),
            ("token_type", "'Bearer'".to_owned()),
        ]),
        "i % 10 = 0",
    ));
    // Flows: a pending one for every tenth credential, granted or not, and some that ended.
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
            ("virtual_key_id", key.clone()),
            ("mcp_client_id", client(CLIENT)),
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
            &with(columns),
            &condition,
        ));
    }
    fills
}
