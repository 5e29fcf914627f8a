//! Molecule's workspaces and how they pay for their models.

mod boot;
mod bypass;
pub mod environment;
mod hazards;
pub mod mode;
pub mod reconcile;
pub mod secret;
mod seed;

pub use bypass::BYPASS_KEYS;

use tollgate_migration::billing::{MODE, WORKSPACE_SECRETS, WORKSPACES, is_garbled, molecule};
use tollgate_migration::ledger::SCHEMA_MIGRATIONS;
use tollgate_migration::{Context, Ledger, Track};

use crate::doctor::trouble::{Trouble, VersionTrouble};
use crate::module::{Module, NamedRoutine};
use crate::report::{Finding, Severity};
use crate::snapshot::scan::Reading;
use crate::tracks::billing::reconcile::billing;
use crate::verify::Invariant;
use crate::verify::invariant::Question;

pub(super) static MODULE: Module = Module {
    troubles: &[PAST],
    hazards: hazards::HAZARDS,
    parents: &[(WORKSPACE_SECRETS, "workspace_id", WORKSPACES)],
    codes: &[Invariant {
        code: "V008",
        title: "a stored value is none of the legal ones",
        effect: "whoever reads it falls back to a default",
        resolve: "`tollgate reconcile billing` clears it",
    }],
    invariants,
    versions,
    reading,
    routines: &[NamedRoutine {
        name: "billing",
        about: "stored billing modes outside the three become NULL",
        run: |session, options, now, stop| Box::pin(billing(session, options, now, stop)),
    }],
    boot: |connection, _| Box::pin(boot::boot(connection)),
    seeds: &[&seed::MOLECULE],
    ..Module::of_track(Track::BILLING)
};

fn invariants(live: &Context) -> Vec<Question> {
    (live.catalog.has_column(WORKSPACES, MODE) && live.created("llm_billing_mode").is_some())
        .then(|| Question {
            code: "V008",
            table: WORKSPACES.to_owned(),
            column: Some(MODE.to_owned()),
            sql: format!(
                "SELECT CAST(id AS text) AS id FROM {WORKSPACES} WHERE {}",
                is_garbled(live.catalog.dialect)
            ),
        })
        .into_iter()
        .collect()
}

const PAST: VersionTrouble = VersionTrouble {
    trouble: Trouble {
        code: "B003",
        severity: Severity::Blocking,
        title: "Molecule is past the feature: its own migration has dropped the column of billing modes",
        effect: "a column that nobody reads would only mislead",
        resolve: "nothing to do: modes are derived from the provider now",
    },
    contradicts: true,
    spares_rows: false,
};

fn versions(live: &Context) -> Vec<Finding> {
    match live.ledger(Track::BILLING) {
        Ledger::Files(files) if molecule::is_past(files) => {
            let newest = files.last().cloned().unwrap_or_default();
            vec![PAST.trouble.found(SCHEMA_MIGRATIONS, vec![newest])]
        }
        _ => Vec::new(),
    }
}

/// What is none of the three modes counts as nothing, before it is cleared and after.
fn reading(context: &Context, table: &str) -> Reading {
    if table != WORKSPACES || !context.catalog.has_column(WORKSPACES, MODE) {
        return Reading::default();
    }
    let garbled = is_garbled(context.catalog.dialect).replace(MODE, &format!("t.{MODE}"));
    Reading {
        instead: [(
            MODE,
            format!("CASE WHEN {garbled} THEN NULL ELSE t.{MODE} END"),
        )]
        .into(),
        ..Reading::default()
    }
}
