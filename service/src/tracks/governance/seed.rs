//! Made-up databases of Bifrost's, and of a program of its own with the same tables.

mod boot;
mod credentials;
mod grant;
mod hazards;
mod legacy;

use tollgate_migration::Dialect;
use tollgate_migration::ledger::MIGRATIONS;

use crate::seed::{AT, Seed, rows};

pub use boot::boot;
pub use grant::{give, granted_token, take};

/// Bifrost 1.4.24.
pub static LEGACY: Seed = Seed {
    name: "bifrost-legacy",
    about: "Bifrost 1.4.24, before multi-budget, with its ledger",
    ledger: MIGRATIONS,
    recorded: ledger,
    types: |_| Vec::new(),
    tables: legacy::tables,
    fills: legacy::fills,
    planted: hazards::PLANTED,
};

/// No release of the gateway has these tables side by side, so it stands for a program of its own and carries no ledger.
pub static CREDENTIALS: Seed = Seed {
    name: "bifrost-credentials",
    about: "A program of its own, without ledger: the same budgets, and per-user MCP credentials, ten to a virtual key, some of \
            which have drifted from their grants",
    ledger: MIGRATIONS,
    recorded: |_| Vec::new(),
    types: |_| Vec::new(),
    tables: credentials::tables,
    fills: credentials::fills,
    planted: hazards::PLANTED,
};

const BIFROST_1_4_24: &str = include_str!("seed/bifrost-1.4.24.txt");
const BIFROST_1_5_8: &str = include_str!("seed/bifrost-1.5.8.txt");

fn ledger(dialect: Dialect) -> Vec<String> {
    let table = match dialect {
        Dialect::Postgres => format!(
            "CREATE TABLE {MIGRATIONS} (id varchar(255) PRIMARY KEY, sequence bigint, applied_at timestamptz, status varchar(20))"
        ),
        Dialect::Sqlite => format!(
            "CREATE TABLE {MIGRATIONS} (id text, sequence integer, applied_at datetime, status text, PRIMARY KEY (id))"
        ),
    };
    vec![table, recorded(BIFROST_1_4_24, 0)]
}

/// Records what Bifrost 1.5.8 does at its first boot on a database of 1.4.24.
fn bifrost_1_5_8() -> String {
    recorded(BIFROST_1_5_8, BIFROST_1_4_24.lines().count())
}

fn recorded(ids: &str, before: usize) -> String {
    format!(
        "INSERT INTO {MIGRATIONS} (id, sequence, applied_at, status) VALUES {}",
        rows(ids, |position, id| format!(
            "('{id}', {}, {AT}, 'success')",
            before + position
        ))
    )
}
