//! The tables of `docs/upstream/molecule.md` §B1.

use crate::ddl::Type::{BigInt, Bytes, Enum, Float, Int, Json, Text, Time, Uuid, Varchar};
use crate::ddl::{CheckSpec, ColumnSpec, TableSpec, column, foreign_key, index, unique_index};
use crate::dialect::Dialect;

use super::{GLOBAL_SECRETS, WORKSPACE_SECRETS, WORKSPACES};

/// The native enum of a workspace's status.
pub(super) const STATUS: (&str, [&str; 8]) = (
    "workspace_status",
    [
        "provisioning",
        "online",
        "offline",
        "degraded",
        "failed",
        "removed",
        "paused",
        "hibernated",
    ],
);

/// A key that PostgreSQL makes up; SQLite has no function for it, so the caller gives one there.
fn id(dialect: Dialect) -> ColumnSpec {
    let id = column("id", Uuid).not_null();
    match dialect {
        Dialect::Postgres => id.default("gen_random_uuid()"),
        Dialect::Sqlite => id,
    }
}

fn now(dialect: Dialect, name: &str) -> ColumnSpec {
    column(name, Time).default(match dialect {
        Dialect::Postgres => "now()",
        Dialect::Sqlite => "CURRENT_TIMESTAMP",
    })
}

pub(super) fn all(dialect: Dialect) -> Vec<TableSpec> {
    vec![
        workspaces(dialect),
        workspace_secrets(dialect),
        global_secrets(dialect),
    ]
}

fn workspaces(dialect: Dialect) -> TableSpec {
    let mut checks = vec![CheckSpec {
        name: "workspaces_workspace_access_check".to_owned(),
        expression: "workspace_access IN ('none', 'read_only', 'read_write')".to_owned(),
    }];
    if dialect == Dialect::Sqlite {
        checks.push(CheckSpec {
            name: "workspaces_status_check".to_owned(),
            expression: format!("status IN ('{}')", STATUS.1.join("', '")),
        });
    }
    TableSpec {
        name: WORKSPACES.to_owned(),
        primary_key: vec!["id".to_owned()],
        columns: vec![
            id(dialect),
            column("name", Text).not_null(),
            column("role", Text),
            column("tier", Int).default("1"),
            column("status", Enum(STATUS.0)).default("'provisioning'"),
            column("source_bundle_id", Text),
            column("agent_card", Json),
            column("url", Text),
            column("parent_id", Uuid),
            column("forwarded_to", Uuid),
            column("last_heartbeat_at", Time),
            column("last_error_rate", Float).default("0"),
            column("last_sample_error", Text),
            column("active_tasks", Int).default("0"),
            column("uptime_seconds", Int).default("0"),
            now(dialect, "created_at"),
            now(dialect, "updated_at"),
            column("current_task", Text),
            column("awareness_namespace", Text),
            column("runtime", Text).default("'langgraph'"),
            column("workspace_dir", Text),
            column("workspace_access", Varchar(20))
                .not_null()
                .default("'none'"),
            column("budget_limit", BigInt),
            column("monthly_spend", BigInt).not_null().default("0"),
            column("hibernation_idle_minutes", Int),
            column("last_outbound_at", Time),
            column("max_concurrent_tasks", Int).not_null().default("1"),
            column("instance_id", Text),
        ],
        foreign_keys: vec![
            foreign_key("workspaces_parent_id_fkey", "parent_id", WORKSPACES, "id"),
            foreign_key(
                "workspaces_forwarded_to_fkey",
                "forwarded_to",
                WORKSPACES,
                "id",
            ),
        ],
        checks,
        indexes: vec![
            index("idx_workspaces_parent_id", &["parent_id"]),
            index("idx_workspaces_status", &["status"]),
            index("idx_workspaces_hibernation", &["hibernation_idle_minutes"])
                .only_where("hibernation_idle_minutes IS NOT NULL"),
            index("idx_workspaces_instance_id", &["instance_id"])
                .only_where("instance_id IS NOT NULL"),
        ],
    }
}

fn secret(dialect: Dialect, mut columns: Vec<ColumnSpec>, stamped: bool) -> Vec<ColumnSpec> {
    let stamp = |name: &str| {
        let column = now(dialect, name);
        if stamped { column.not_null() } else { column }
    };
    columns.push(column("key", Text).not_null());
    columns.push(column("encrypted_value", Bytes).not_null());
    columns.push(stamp("created_at"));
    columns.push(stamp("updated_at"));
    columns.push(column("encryption_version", Int).not_null().default("0"));
    columns
}

fn workspace_secrets(dialect: Dialect) -> TableSpec {
    TableSpec {
        name: WORKSPACE_SECRETS.to_owned(),
        primary_key: vec!["id".to_owned()],
        columns: secret(
            dialect,
            vec![id(dialect), column("workspace_id", Uuid)],
            false,
        ),
        foreign_keys: vec![foreign_key(
            "workspace_secrets_workspace_id_fkey",
            "workspace_id",
            WORKSPACES,
            "id",
        )],
        checks: Vec::new(),
        indexes: vec![unique_index(
            "workspace_secrets_workspace_id_key_key",
            &["workspace_id", "key"],
        )],
    }
}

fn global_secrets(dialect: Dialect) -> TableSpec {
    TableSpec {
        name: GLOBAL_SECRETS.to_owned(),
        primary_key: vec!["id".to_owned()],
        columns: secret(dialect, vec![id(dialect)], true),
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        indexes: vec![unique_index("global_secrets_key_key", &["key"])],
    }
}
