//! Who claims which budget, counted once for every hazard that asks about it.

use tollgate_migration::Context;
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::governance::owners::{self, LegacyColumns, Owner};

use crate::doctor::{Queries, Query};

/// The relation's name in the hazards' queries.
pub(super) const CLAIMED: &str = "claimed_budgets";

/// Budgets that are not simply one owner's: `id`, `aligned`, `unowned` (nobody's by its own columns), and how many legacy references
/// have a say (`referred`), how many virtual keys and configs claim it in all (`claimed`), and how many others do (`others`).
pub(super) fn claimed(context: &Context) -> Option<(&'static str, String)> {
    let references = owners::references(context);
    let others = owners::every_foreign_claim(context);
    if references.is_none() && others.is_none() {
        return None;
    }
    let mut arms: Vec<String> = Vec::new();
    arms.extend(references.map(|references| {
        format!("SELECT budget, 1 AS referred, 1 AS claimed, 0 AS others FROM ({references}) r")
    }));
    if !arms.is_empty() && owners::legacy(context) == LegacyColumns::Stale {
        arms.extend(owners::owned(context).map(|owned| {
            format!(
                "SELECT id AS budget, 0 AS referred, 1 AS claimed, 0 AS others FROM ({owned}) o"
            )
        }));
    }
    arms.extend(others.map(|others| {
        format!("SELECT budget, 0 AS referred, 0 AS claimed, 1 AS others FROM ({others}) f")
    }));
    let dialect = context.catalog.dialect;
    let (yes, no) = (dialect.true_literal(), dialect.false_literal());
    let said = |condition: &str| format!("CASE WHEN {condition} THEN {yes} ELSE {no} END");
    let aligned = if owners::has_legacy_flag(context) {
        said(&dialect.is_true("b.calendar_aligned"))
    } else {
        no.to_owned()
    };
    let unowned = said(&unowned(context));
    let sql = format!(
        "SELECT b.id AS id, {aligned} AS aligned, {unowned} AS unowned, COALESCE(c.referred, 0) AS referred, \
         COALESCE(c.claimed, 0) AS claimed, COALESCE(c.others, 0) AS others FROM {BUDGETS} b LEFT JOIN \
         (SELECT budget, sum(referred) AS referred, sum(claimed) AS claimed, sum(others) AS others FROM ({}) each_claim \
         GROUP BY budget) c ON c.budget = b.id WHERE COALESCE(c.referred, 0) <> 1 OR c.claimed > 1 OR c.others > 0",
        arms.join(" UNION ALL ")
    );
    Some((CLAIMED, sql))
}

/// Budgets of the relation that a condition names; none where nobody can claim one.
pub(super) fn such(context: &Context, condition: &str) -> Queries {
    if claimed(context).is_none() {
        return Queries::none();
    }
    let sql = format!("SELECT id FROM {CLAIMED} WHERE {condition}");
    Queries::on(BUDGETS, Query::over_shared(sql))
}

/// The condition that no owner column of the new schema is set. While old code writes the legacy columns the owner columns may be
/// stale, and say nothing.
pub(super) fn unowned(context: &Context) -> String {
    if owners::legacy(context) == LegacyColumns::Authoritative {
        return "1 = 1".to_owned();
    }
    let columns: Vec<String> = Owner::BOTH
        .into_iter()
        .filter(|owner| context.catalog.has_column(BUDGETS, owner.column()))
        .map(|owner| format!("b.{} IS NULL", owner.column()))
        .collect();
    if columns.is_empty() {
        "1 = 1".to_owned()
    } else {
        columns.join(" AND ")
    }
}
