//! The ledgers that the made-up gateways carry: what the version that they imitate has recorded, in its order.

use tollgate_migration::Dialect;
use tollgate_migration::ledger::{MIGRATIONS, SCHEMA_MIGRATIONS};

use super::Profile;

const BIFROST_1_4_24: &str = include_str!("ledgers/bifrost-1.4.24.txt");
const BIFROST_1_5_8: &str = include_str!("ledgers/bifrost-1.5.8.txt");
/// The column of billing modes came with a later file, whose name is not known.
const MOLECULE_043: &str = include_str!("ledgers/molecule-043.txt");
/// The last migration before the cutover that is done in the gateway's stead.
const CODER: u32 = 502;

const AT: &str = "'2026-03-29 00:00:00+00:00'";

/// The statements that make a profile's ledger. Coder and Molecule run on PostgreSQL alone, and no release of Bifrost has
/// the tables of [`Profile::BifrostCredentials`] side by side: those stand for a program of its own, which has none.
pub(super) fn of(profile: Profile, dialect: Dialect) -> Vec<String> {
    match (profile, dialect) {
        (Profile::BifrostLegacy, _) => {
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
        (Profile::CoderLegacy, Dialect::Postgres) => vec![
            format!(
                "CREATE TABLE {SCHEMA_MIGRATIONS} (version bigint PRIMARY KEY, dirty boolean NOT NULL)"
            ),
            format!("INSERT INTO {SCHEMA_MIGRATIONS} (version, dirty) VALUES ({CODER}, false)"),
        ],
        (Profile::Molecule, Dialect::Postgres) => vec![
            format!(
                "CREATE TABLE {SCHEMA_MIGRATIONS} (filename text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            ),
            format!(
                "INSERT INTO {SCHEMA_MIGRATIONS} (filename, applied_at) VALUES {}",
                rows(MOLECULE_043, |_, name| format!("('{name}', {AT})"))
            ),
        ],
        (Profile::BifrostCredentials, _)
        | (Profile::CoderLegacy | Profile::Molecule, Dialect::Sqlite) => Vec::new(),
    }
}

/// Records what Bifrost 1.5.8 does at its first boot on a database of 1.4.24.
pub(super) fn bifrost_1_5_8() -> String {
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

fn rows(lines: &str, row: impl Fn(usize, &str) -> String) -> String {
    let rows: Vec<String> = lines
        .lines()
        .enumerate()
        .map(|(position, line)| row(position + 1, line))
        .collect();
    rows.join(", ")
}
