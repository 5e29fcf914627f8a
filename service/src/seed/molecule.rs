//! A Molecule with workspaces and secrets.

use tollgate_migration::Dialect;
use tollgate_migration::billing::{
    GLOBAL_SECRETS, WORKSPACE_SECRETS, WORKSPACES, status, tables as all,
};
use tollgate_migration::ddl::TableSpec;

use super::{Fill, Maker};

pub(super) fn tables(dialect: Dialect) -> Vec<TableSpec> {
    all(dialect)
}

/// Native enums, which come before the tables.
pub(super) fn types(dialect: Dialect) -> Vec<String> {
    let (name, labels) = status();
    match dialect {
        Dialect::Postgres => vec![format!(
            "CREATE TYPE {name} AS ENUM ('{}')",
            labels.join("', '")
        )],
        Dialect::Sqlite => Vec::new(),
    }
}

fn bytes(maker: &Maker, text: &str) -> String {
    match maker.dialect {
        Dialect::Postgres => format!("convert_to({text}, 'UTF8')"),
        Dialect::Sqlite => format!("CAST({text} AS blob)"),
    }
}

pub(super) fn fills(maker: &Maker, workspaces: u32) -> Vec<Fill> {
    let status = match maker.dialect {
        Dialect::Postgres => {
            "(CASE WHEN i % 20 = 0 THEN 'removed' ELSE 'online' END)::workspace_status"
        }
        Dialect::Sqlite => "CASE WHEN i % 20 = 0 THEN 'removed' ELSE 'online' END",
    };
    vec![
        maker.insert(
            WORKSPACES,
            workspaces,
            &[
                ("id", maker.uuid(1, "i")),
                ("name", "'Workspace ' || i".to_owned()),
                ("status", status.to_owned()),
                (
                    "runtime",
                    maker.pick(1, &["langgraph", "claude-code", "hermes"]),
                ),
                ("monthly_spend", maker.random(2, 100_000)),
            ],
            "1 = 1",
        ),
        maker.insert(
            WORKSPACE_SECRETS,
            workspaces,
            &[
                ("id", maker.uuid(2, "i")),
                ("workspace_id", maker.uuid(1, "i")),
                (
                    "key",
                    maker.pick(
                        3,
                        &[
                            "OPENAI_API_KEY",
                            "ANTHROPIC_API_KEY",
                            "SLACK_TOKEN",
                            "DATABASE_URL",
                        ],
                    ),
                ),
                ("encrypted_value", bytes(maker, "'made up ' || i")),
            ],
            "i % 3 = 0",
        ),
        maker.insert(
            GLOBAL_SECRETS,
            1,
            &[
                ("id", maker.uuid(3, "i")),
                ("key", "'SENTRY_DSN'".to_owned()),
                ("encrypted_value", bytes(maker, "'made up'")),
            ],
            "1 = 1",
        ),
    ]
}
