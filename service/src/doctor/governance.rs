//! The hazards of the governance track (`reference/bifrost.md` §2.2).

use tollgate_migration::Context;
use tollgate_migration::governance::owners::{self, Owner};
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};

use super::Hazard;
use crate::report::Severity;

const MOVES: &[&str] = &["multi_budget_backfill", "multi_budget_contract"];

pub(super) const HAZARDS: &[Hazard] = &[
    Hazard {
        code: "G001",
        severity: Severity::Blocking,
        title: "a budget has several owners",
        table: BUDGETS,
        effect: "the new schema gives a budget one owner; the others would be left without a limit",
        resolve: "give each virtual key and provider config a budget of its own",
        concerns: MOVES,
        query: owners::shared,
    },
    Hazard {
        code: "G002",
        severity: Severity::Blocking,
        title: "a budget also belongs to a team, customer, provider or model config",
        table: BUDGETS,
        effect: "deleting the virtual key would delete the other owner's budget with it",
        resolve: "give the virtual key or provider config a budget of its own",
        concerns: MOVES,
        query: owners::claimed_elsewhere,
    },
    Hazard {
        code: "G003",
        severity: Severity::Warning,
        title: "a reference to a budget that does not exist",
        table: VIRTUAL_KEYS,
        effect: "the reference is dropped with its column; its owner has no limit now and none afterwards",
        resolve: "nothing to do, or create the budget before the migration",
        concerns: MOVES,
        query: dangling,
    },
    Hazard {
        code: "G004",
        severity: Severity::Info,
        title: "a budget reference that is an empty text",
        table: VIRTUAL_KEYS,
        effect: "treated as no reference",
        resolve: "nothing to do",
        concerns: MOVES,
        query: empty,
    },
];

fn dangling(context: &Context) -> Option<String> {
    let references = owners::references(context)?;
    Some(format!(
        "SELECT r.owner AS id FROM ({references}) r \
         WHERE NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = r.budget)"
    ))
}

fn empty(context: &Context) -> Option<String> {
    let arms: Vec<String> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            format!(
                "SELECT CAST(id AS text) AS id FROM {} WHERE budget_id = ''",
                owner.table()
            )
        })
        .collect();
    (!arms.is_empty()).then(|| arms.join(" UNION ALL "))
}
