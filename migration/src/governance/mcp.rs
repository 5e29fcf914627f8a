//! The tables of MCP clients, of the grants that virtual keys have on them, and of per-user credentials
//! (`docs/upstream/bifrost.md` §1, §4.1 to §4.4).

use crate::context::Context;
use crate::ddl::Type::{BigInt, Serial, Text, Time, Varchar};
use crate::ddl::{IndexSpec, TableSpec, column, foreign_key, index, unique_index};

use super::VIRTUAL_KEYS;
use super::tables::{encryption, flag, hash, id, name, plain, reference, stamped, table};

/// The MCP servers.
pub const CLIENTS: &str = "config_mcp_clients";
/// Which virtual key may use which server.
pub const GRANTS: &str = "governance_virtual_key_mcp_configs";
/// OAuth tokens.
pub const TOKENS: &str = "oauth_user_tokens";
/// OAuth flows under way.
pub const SESSIONS: &str = "oauth_user_sessions";
/// Header credentials.
pub const HEADERS: &str = "mcp_per_user_header_credentials";
/// Submissions of headers under way.
pub const HEADER_FLOWS: &str = "mcp_per_user_header_flows";

/// OAuth tokens of every mode, from 2.0 on (`docs/upstream/bifrost.md` §12.2).
pub const MERGED_TOKENS: &str = "mcp_oauth_tokens";
/// OAuth flows of every mode.
pub const MERGED_FLOWS: &str = "mcp_oauth_flows";

/// One of the kinds of per-user credentials, which are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OAuth tokens and their flows, before 2.0.
    OAuth,
    /// The same from 2.0 on, beside tokens of other modes. The older tables stay there, and nobody reads them.
    MergedOAuth,
    /// Headers and their flows.
    Headers,
}

impl Kind {
    /// OAuth before headers, as the gateway does. A database may have the tables of all of them.
    pub const ALL: [Self; 3] = [Self::OAuth, Self::MergedOAuth, Self::Headers];

    /// The table of credentials.
    pub fn credentials(self) -> &'static str {
        match self {
            Self::OAuth => TOKENS,
            Self::MergedOAuth => MERGED_TOKENS,
            Self::Headers => HEADERS,
        }
    }

    /// The table of flows.
    pub fn flows(self) -> &'static str {
        match self {
            Self::OAuth => SESSIONS,
            Self::MergedOAuth => MERGED_FLOWS,
            Self::Headers => HEADER_FLOWS,
        }
    }

    /// Whether the gateway of this database goes by this kind's tables, where they are there.
    pub fn is_in_force(self, has_column: impl Fn(&str, &str) -> bool) -> bool {
        self != Self::OAuth || !has_column(MERGED_TOKENS, "id")
    }

    /// Whether the database has this kind, in the form that `mcp_credentials` gives it, and the gateway goes by it.
    pub fn is_present(self, has_column: impl Fn(&str, &str) -> bool) -> bool {
        self.is_in_force(&has_column)
            && ["auth_mode", "status", "virtual_key_id", "mcp_client_id"]
                .iter()
                .all(|column| has_column(self.credentials(), column))
            && ["flow_mode", "status", "virtual_key_id", "mcp_client_id"]
                .iter()
                .all(|column| has_column(self.flows(), column))
    }
}

/// The tables in an order in which each one's parents come first.
pub fn all() -> Vec<TableSpec> {
    vec![
        clients(),
        grants(),
        tokens(),
        sessions(),
        headers(),
        header_flows(),
    ]
}

/// Tokens of the gateway itself, which are its own to make.
const SHARED_TOKENS: &str = "oauth_tokens";

/// Indexes that the rebuild of `make_oauth_token_expiry_nullable` loses on SQLite, by table, in the shape of before 1.5.3
/// (`docs/upstream/bifrost.md` §9.3). Those of the later shape are in [`all`].
pub fn lost_by_rebuild(shaped: bool) -> Vec<(String, Vec<IndexSpec>)> {
    let times = [
        "expires_at",
        "last_refreshed_at",
        "created_at",
        "updated_at",
    ];
    let mut lost = vec![(SHARED_TOKENS.to_owned(), plain(SHARED_TOKENS, &times))];
    if !shaped {
        let mut tokens = plain(TOKENS, &["oauth_config_id", "session_token_hash"]);
        tokens.extend(plain(TOKENS, &times));
        tokens.extend([
            index("idx_vk_mcp", &["virtual_key_id", "mcp_client_id"]),
            index("idx_user_mcp", &["user_id", "mcp_client_id"]),
        ]);
        lost.push((TOKENS.to_owned(), tokens));
    }
    lost
}

fn clients() -> TableSpec {
    let mut columns = vec![
        column("id", Serial).not_null(),
        column("client_id", Varchar(255)).not_null(),
        name(),
        flag("is_code_mode_client", "false"),
        column("connection_type", Varchar(20)).not_null(),
        column("connection_string", Text),
        column("stdio_config_json", Text),
        column("tools_to_execute_json", Text),
        column("tools_to_auto_execute_json", Text),
        column("headers_json", Text),
        column("allowed_extra_headers_json", Text),
        column("tool_pricing_json", Text),
        flag("is_ping_available", "true"),
        column("tool_sync_interval", BigInt).default("0"),
        column("auth_type", Varchar(20)).default("'headers'"),
        reference("oauth_config_id"),
        flag("allow_on_all_virtual_keys", "false"),
        column("discovered_tools_json", Text),
        column("tool_name_mapping_json", Text),
        flag("disabled", "false"),
        column("per_user_header_keys_json", Text),
        column("tls_config_json", Text),
    ];
    columns.extend([hash(), encryption()]);
    let mut indexes = vec![
        unique_index("idx_config_mcp_clients_client_id", &["client_id"]),
        unique_index("idx_config_mcp_clients_name", &["name"]),
    ];
    indexes.extend(plain(
        CLIENTS,
        &["oauth_config_id", "created_at", "updated_at"],
    ));
    table(CLIENTS, &[], stamped(columns), vec![], indexes)
}

fn grants() -> TableSpec {
    table(
        GRANTS,
        &[],
        vec![
            column("id", Serial).not_null(),
            reference("virtual_key_id").not_null(),
            column("mcp_client_id", BigInt).not_null(),
            column("tools_to_execute", Text),
        ],
        vec![
            foreign_key(
                "fk_governance_virtual_keys_mcp_configs",
                "virtual_key_id",
                VIRTUAL_KEYS,
                "id",
            )
            .cascade(),
            foreign_key(
                "fk_governance_virtual_key_mcp_configs_mcp_client",
                "mcp_client_id",
                CLIENTS,
                "id",
            ),
        ],
        vec![unique_index(
            "idx_vk_mcpclient",
            &["virtual_key_id", "mcp_client_id"],
        )],
    )
}

/// One credential per binding, for each of the three modes.
fn bindings(table: &str) -> Vec<crate::ddl::IndexSpec> {
    [
        ("user", "user", "user_id"),
        ("vk", "vk", "virtual_key_id"),
        ("session", "session", "session_id"),
    ]
    .into_iter()
    .map(|(word, mode, column)| {
        unique_index(
            &format!("idx_{table}_{word}_mcp"),
            &[column, "mcp_client_id"],
        )
        .only_where(&format!(
            "auth_mode = '{mode}' AND {column} IS NOT NULL AND {column} <> ''"
        ))
    })
    .collect()
}

fn tokens() -> TableSpec {
    let columns = vec![
        id(),
        reference("session_id"),
        reference("virtual_key_id"),
        reference("user_id"),
        reference("mcp_client_id").not_null(),
        column("auth_mode", Varchar(20)).not_null(),
        column("status", Varchar(20)).not_null().default("'active'"),
        reference("oauth_config_id").not_null(),
        column("access_token", Text).not_null(),
        column("refresh_token", Text),
        column("token_type", Varchar(50)).not_null(),
        column("expires_at", Time),
        column("scopes", Text),
        column("last_refreshed_at", Time),
        encryption(),
    ];
    let mut indexes = bindings(TOKENS);
    indexes.push(
        index("idx_oauth_user_tokens_orphaned", &["status"]).only_where("status = 'orphaned'"),
    );
    indexes.extend(plain(
        TOKENS,
        &[
            "session_id",
            "virtual_key_id",
            "user_id",
            "mcp_client_id",
            "oauth_config_id",
            "expires_at",
            "last_refreshed_at",
            "created_at",
            "updated_at",
        ],
    ));
    table(TOKENS, &["id"], stamped(columns), vec![], indexes)
}

fn sessions() -> TableSpec {
    let columns = vec![
        id(),
        reference("mcp_client_id").not_null(),
        reference("oauth_config_id").not_null(),
        reference("state").not_null(),
        column("redirect_uri", Text),
        column("code_verifier", Text),
        reference("session_id"),
        reference("virtual_key_id"),
        reference("user_id"),
        column("flow_mode", Varchar(20)).not_null().default("'vk'"),
        column("status", Varchar(50)).not_null(),
        encryption(),
        column("expires_at", Time).not_null(),
    ];
    let mut indexes = vec![unique_index("idx_oauth_user_sessions_state", &["state"])];
    indexes.extend(plain(
        SESSIONS,
        &[
            "mcp_client_id",
            "oauth_config_id",
            "session_id",
            "virtual_key_id",
            "user_id",
            "status",
            "expires_at",
            "created_at",
            "updated_at",
        ],
    ));
    table(SESSIONS, &["id"], stamped(columns), vec![], indexes)
}

fn headers() -> TableSpec {
    let columns = vec![
        id(),
        reference("session_id"),
        reference("virtual_key_id"),
        reference("user_id"),
        reference("mcp_client_id").not_null(),
        column("auth_mode", Varchar(20)).not_null(),
        column("status", Varchar(20)).not_null().default("'active'"),
        column("headers_json", Text).not_null(),
        encryption(),
    ];
    let mut indexes = bindings(HEADERS);
    indexes.push(
        index("idx_mcp_per_user_header_credentials_orphaned", &["status"])
            .only_where("status = 'orphaned'"),
    );
    indexes.push(
        index(
            "idx_mcp_per_user_header_credentials_needs_update",
            &["mcp_client_id"],
        )
        .only_where("status = 'needs_update'"),
    );
    indexes.extend(plain(
        HEADERS,
        &[
            "session_id",
            "virtual_key_id",
            "user_id",
            "mcp_client_id",
            "created_at",
            "updated_at",
        ],
    ));
    table(HEADERS, &["id"], stamped(columns), vec![], indexes)
}

fn header_flows() -> TableSpec {
    let columns = vec![
        id(),
        reference("mcp_client_id").not_null(),
        reference("session_id"),
        reference("virtual_key_id"),
        reference("user_id"),
        column("flow_mode", Varchar(20)).not_null().default("'vk'"),
        column("status", Varchar(50)).not_null(),
        column("expires_at", Time).not_null(),
    ];
    table(
        HEADER_FLOWS,
        &["id"],
        stamped(columns),
        vec![],
        plain(
            HEADER_FLOWS,
            &[
                "mcp_client_id",
                "session_id",
                "virtual_key_id",
                "user_id",
                "status",
                "expires_at",
                "created_at",
                "updated_at",
            ],
        ),
    )
}

/// The mode of a row of a table from before `add_oauth_auth_mode_columns`: a virtual key wins over a user over a session.
pub(super) const DERIVED_MODE: &str = "CASE WHEN virtual_key_id IS NOT NULL AND virtual_key_id <> '' THEN 'vk' \
     WHEN user_id IS NOT NULL AND user_id <> '' THEN 'user' ELSE 'session' END";

/// Credentials that another one of the same binding stands beside, older ones first in line: `id`. The partial unique
/// indexes could not be built.
pub fn duplicate_bindings(context: &Context, kind: Kind) -> Option<String> {
    let catalog = &context.catalog;
    let credentials = kind.credentials();
    let there = |column: &str| catalog.has_column(credentials, column);
    if !["id", "virtual_key_id", "user_id", "mcp_client_id"]
        .into_iter()
        .all(there)
    {
        return None;
    }
    let mode = if there("auth_mode") {
        "auth_mode"
    } else {
        DERIVED_MODE
    };
    let mut arms = Vec::new();
    for (word, column) in [
        ("vk", "virtual_key_id"),
        ("user", "user_id"),
        ("session", "session_id"),
    ] {
        let indexed = catalog.table(credentials).is_some_and(|table| {
            table
                .index(&format!("idx_{credentials}_{word}_mcp"))
                .is_some_and(|index| index.unique && index.valid)
        });
        if there(column) && !indexed {
            arms.push(format!(
                "SELECT id FROM (SELECT id, count(*) OVER (PARTITION BY {column}, mcp_client_id) AS together \
                 FROM {credentials} WHERE {mode} = '{word}' AND {column} IS NOT NULL AND {column} <> '') counted \
                 WHERE together > 1"
            ));
        }
    }
    (!arms.is_empty()).then(|| arms.join(" UNION "))
}
