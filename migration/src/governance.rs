//! The governance track: Bifrost's budgets and who owns them (`docs/upstream/bifrost.md`).

pub mod adoption;
pub mod bifrost;
pub mod capture;
pub mod clones;
pub mod header_names;
mod m20260329_000001_governance_baseline;
mod m20260330_000002_multi_budget_expand;
mod m20260330_000003_mcp_credentials;
mod m20260330_000004_multi_budget_backfill;
mod m20260330_000005_multi_budget_constraints;
mod m20260330_000006_canonical_header_keys;
mod m20260330_000007_multi_budget_contract;
pub mod mcp;
pub mod owners;
pub mod remembered;
pub mod sharing;
mod tables;
mod versions;

pub use tables::{KEYS, OF_PROVIDERS, described_since, legacy as legacy_tables};

use crate::choice::Choice;
use crate::ledger;
use crate::migration::Migration;
use crate::track::{Definition, Track};

/// Spending limits.
pub const BUDGETS: &str = "governance_budgets";
/// The keys that callers present.
pub const VIRTUAL_KEYS: &str = "governance_virtual_keys";
/// What one virtual key may do on one provider.
pub const PROVIDER_CONFIGS: &str = "governance_virtual_key_provider_configs";

/// Budgets with several owners get a copy for each further one (G001, G002).
pub const SHARED_BUDGETS: Choice = Choice {
    flag: "shared-budgets",
    variable: "TOLLGATE_SHARED_BUDGETS",
    word: Some((
        "clone",
        "A copy for each further owner, with the same usage",
    )),
    about: "What happens to budgets with several owners: `clone` gives each further owner a copy with the same usage",
    prepares: true,
};

/// Tables beyond the track's own that the doctor looks into: who else may own a budget, and what is a sign of a later
/// upstream.
pub const READS: &[&str] = &[
    "governance_model_configs",
    "mcp_oauth_tokens",
    "mcp_oauth_flows",
];

/// The track's migrations, oldest first. Contract stays last, so that `--phase backfill` leaves nothing else undone.
pub const MIGRATIONS: &[&Migration] = &[
    &m20260329_000001_governance_baseline::MIGRATION,
    &m20260330_000002_multi_budget_expand::MIGRATION,
    &m20260330_000003_mcp_credentials::MIGRATION,
    &m20260330_000004_multi_budget_backfill::MIGRATION,
    &m20260330_000005_multi_budget_constraints::MIGRATION,
    &m20260330_000006_canonical_header_keys::MIGRATION,
    &m20260330_000007_multi_budget_contract::MIGRATION,
];

/// The columns that hold header keys, as far as a database has them.
pub fn header_keys(context: &crate::context::Context) -> Vec<header_names::NormalizeHeaderNames> {
    m20260330_000006_canonical_header_keys::folds(context)
}

const DEFINITION: Definition = Definition {
    name: "governance",
    gateway: "Bifrost",
    ledger_table: ledger::MIGRATIONS,
    versions: &versions::VERSIONS,
    gateway_lock: Some(1_000_001),
    migrations: MIGRATIONS,
    goldens: crate::goldens!("schema/governance":
        "m20260329_000001_governance_baseline",
        "m20260330_000002_multi_budget_expand",
        "m20260330_000003_mcp_credentials",
        "m20260330_000004_multi_budget_backfill",
        "m20260330_000005_multi_budget_constraints",
        "m20260330_000006_canonical_header_keys",
        "m20260330_000007_multi_budget_contract",
    ),
    marker_tables: &[BUDGETS, VIRTUAL_KEYS, PROVIDER_CONFIGS],
    signs: None,
    reads: READS,
    common_names: &[],
    is_foreign_table: |_, _| false,
    recognise: adoption::recognise,
    newer_than_supported: adoption::newer_than_supported,
    inherited_types: &[
        (
            "governance_budgets column virtual_key_id",
            (VIRTUAL_KEYS, "id"),
        ),
        (
            "governance_budgets column provider_config_id",
            (PROVIDER_CONFIGS, "id"),
        ),
    ],
    is_later_upstream: adoption::is_later_upstream,
    asks: &[capture::INTACT, capture::LEFT],
    choices: &[SHARED_BUDGETS],
};

impl Track {
    /// Bifrost's budgets, virtual keys and their owners.
    pub const GOVERNANCE: Self = Self::new(&DEFINITION);
}
