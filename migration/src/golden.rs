//! The golden schemas: the canonical form of a fresh database after each migration, kept in `schema/`.
//!
//! They are generated from live databases (`just golden`), and a test fails where they differ from what the migrations
//! make.

use std::collections::BTreeSet;

use crate::dialect::Dialect;
use crate::schema::{self, Schema};
use crate::track::Track;

macro_rules! goldens {
    ($($track:literal: [$($version:literal),* $(,)?]),* $(,)?) => {
        const GOLDENS: &[(&str, &str, &str)] = &[
            $($(
                (
                    $version,
                    include_str!(concat!("../schema/", $track, "/postgres/", $version, ".txt")),
                    include_str!(concat!("../schema/", $track, "/sqlite/", $version, ".txt")),
                ),
            )*)*
        ];
    };
}

goldens! {
    "governance": [
        "m20260329_000001_governance_baseline",
        "m20260330_000002_multi_budget_expand",
        "m20260330_000003_mcp_credentials",
        "m20260330_000004_multi_budget_backfill",
        "m20260330_000005_multi_budget_constraints",
        "m20260330_000006_canonical_header_keys",
        "m20260330_000007_multi_budget_contract",
    ],
    "providers": [
        "m20260510_000001_providers_baseline",
        "m20260510_000002_gateway_keys",
        "m20260510_000003_provider_key_expand",
        "m20260510_000004_provider_key_backfill",
        "m20260510_000005_provider_key_contract",
    ],
    "billing": [
        "m20260401_000001_billing_baseline",
        "m20260402_000002_llm_billing_mode",
    ],
}

/// The schema of a fresh database after that migration; `None` for a version without a golden file.
pub fn golden(dialect: Dialect, version: &str) -> Option<Schema> {
    GOLDENS
        .iter()
        .find(|(known, _, _)| *known == version)
        .map(|(_, postgres, sqlite)| {
            schema::parse(match dialect {
                Dialect::Postgres => postgres,
                Dialect::Sqlite => sqlite,
            })
        })
}

/// The tables that a canonical schema names.
pub fn tables(schema: &Schema) -> impl Iterator<Item = &str> {
    schema
        .keys()
        .filter_map(|object| object.strip_suffix(" table"))
}

/// The tables that a fresh database has after any of a track's migrations.
pub fn tables_of(dialect: Dialect, track: Track) -> BTreeSet<String> {
    track
        .migrations()
        .iter()
        .filter_map(|migration| golden(dialect, migration.version))
        .flat_map(|golden| tables(&golden).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_has_a_golden_schema_on_both_backends() {
        for migration in Track::ALL.iter().flat_map(|track| track.migrations()) {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let golden = golden(dialect, migration.version);
                assert!(
                    golden.is_some_and(|golden| golden.len() > 10),
                    "{}",
                    migration.version
                );
            }
        }
    }
}
