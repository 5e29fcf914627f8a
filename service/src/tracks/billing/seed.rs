//! A Molecule with workspaces and secrets.

use tollgate_migration::Dialect;
use tollgate_migration::billing::{
    GLOBAL_SECRETS, WORKSPACE_SECRETS, WORKSPACES, status, tables as all,
};
use tollgate_migration::ddl::TableSpec;
use tollgate_migration::ledger::SCHEMA_MIGRATIONS;

use crate::seed::{AT, Fill, Maker, Seed, rows};

/// Molecule with billing modes.
pub static MOLECULE: Seed = Seed {
    name: "molecule",
    about: "Molecule with billing modes, with its ledger on PostgreSQL; --virtual-keys counts its workspaces",
    ledger: SCHEMA_MIGRATIONS,
    recorded: ledger,
    types,
    tables,
    fills,
    planted: &[],
};

/// The column of billing modes came with a later file, whose name is not known.
const MOLECULE_043: &str = include_str!("seed/molecule-043.txt");

/// Molecule runs on PostgreSQL alone.
fn ledger(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::Postgres => vec![
            format!(
                "CREATE TABLE {SCHEMA_MIGRATIONS} (filename text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            ),
            format!(
                "INSERT INTO {SCHEMA_MIGRATIONS} (filename, applied_at) VALUES {}",
                rows(MOLECULE_043, |_, name| format!("('{name}', {AT})"))
            ),
        ],
        Dialect::Sqlite => Vec::new(),
    }
}

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
