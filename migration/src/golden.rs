//! The golden schemas: the canonical form of a fresh database after each migration, kept in `schema/`.
//!
//! They are generated from live databases (`just golden`), and a test fails where they differ from what the migrations
//! make.

use crate::dialect::Dialect;
use crate::schema::{self, Schema};

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
        "m20260330_000004_multi_budget_backfill",
        "m20260330_000005_multi_budget_constraints",
        "m20260330_000007_multi_budget_contract",
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
