//! The hazards of the governance track (`reference/bifrost.md` §2.2).

use tollgate_migration::Context;
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::governance::owners::{self, Owner};

use super::Hazard;
use crate::report::Severity;

const MOVES: &[&str] = &["multi_budget_backfill", "multi_budget_contract"];

pub(super) const HAZARDS: &[Hazard] = &[
    Hazard {
        code: "G001",
        severity: Severity::Blocking,
        title: "a budget has several owners",
        effect: "the new schema gives a budget one owner; the others would be left without a limit",
        resolve: "give each virtual key and provider config a budget of its own",
        concerns: MOVES,
        queries: |context| on_budgets(owners::shared(context)),
    },
    Hazard {
        code: "G002",
        severity: Severity::Blocking,
        title: "a budget also belongs to a team, customer, provider or model config",
        effect: "deleting the virtual key would delete the other owner's budget with it",
        resolve: "give the virtual key or provider config a budget of its own",
        concerns: MOVES,
        queries: |context| on_budgets(owners::claimed_elsewhere(context)),
    },
    Hazard {
        code: "G003",
        severity: Severity::Warning,
        title: "a reference to a budget that does not exist",
        effect: "the reference is dropped with its column; its owner has no limit now and none afterwards",
        resolve: "nothing to do, or create the budget before the migration",
        concerns: MOVES,
        queries: dangling,
    },
    Hazard {
        code: "G004",
        severity: Severity::Info,
        title: "a budget reference that is an empty text",
        effect: "treated as no reference",
        resolve: "nothing to do",
        concerns: MOVES,
        queries: empty,
    },
];

fn on_budgets(query: Option<String>) -> Vec<(&'static str, String)> {
    query.map(|query| (BUDGETS, query)).into_iter().collect()
}

fn per_owner(context: &Context, condition: &str) -> Vec<(&'static str, String)> {
    Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            let table = owner.table();
            (
                table,
                format!("SELECT r.id AS id FROM {table} r WHERE {condition}"),
            )
        })
        .collect()
}

fn dangling(context: &Context) -> Vec<(&'static str, String)> {
    per_owner(
        context,
        &format!(
            "r.budget_id <> '' AND NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = r.budget_id)"
        ),
    )
}

fn empty(context: &Context) -> Vec<(&'static str, String)> {
    per_owner(context, "r.budget_id = ''")
}
