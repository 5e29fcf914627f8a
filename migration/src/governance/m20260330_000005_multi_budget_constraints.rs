//! Indexes over the owner columns and over a provider config's key, foreign keys to the owners, and the check of at most
//! one owner (`docs/upstream/bifrost.md` §2.1, 2 and 6), without blocking a running gateway.
//!
//! The foreign keys set NULL until contract makes them cascade: an owner column can be stale until then.

use crate::context::Context;
use crate::ddl::OnDelete;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Action, Created};
use crate::plan_builder::PlanBuilder;

use super::owners::{self, LegacyColumns, Owner};
use super::sharing;
use super::tables::plain;
use super::{BUDGETS, PROVIDER_CONFIGS};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000005_multi_budget_constraints",
    phase: Phase::Backfill,
    summary: "indexes, cascading foreign keys and the one-owner check on budgets",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    for spec in plain(BUDGETS, &Owner::BOTH.map(Owner::column)) {
        builder.create_index(BUDGETS, &spec);
    }
    // Upstream has none at this version: what a key's request costs, and every deletion of a key, would read all configs.
    for spec in plain(PROVIDER_CONFIGS, &["virtual_key_id"]) {
        builder.create_index(PROVIDER_CONFIGS, &spec);
    }
    for owner in Owner::BOTH {
        let cascades = context.catalog.table(BUDGETS).is_some_and(|budgets| {
            budgets
                .foreign_keys_on(owner.column())
                .any(|key| key.on_delete == OnDelete::Cascade)
        });
        // Where upstream's own migration ran, the owners are authoritative already.
        let key = if cascades || owners::legacy(context) == LegacyColumns::Stale {
            owner.foreign_key()
        } else {
            owner.loose_foreign_key()
        };
        // Old code may have deleted an owner since the backfill; its budget has none until contract catches up.
        let orphans = (owners::legacy(context) == LegacyColumns::Authoritative).then(|| {
            let column = owner.column();
            format!(
                "UPDATE {BUDGETS} SET {column} = NULL WHERE {column} IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM {} r WHERE r.id = {BUDGETS}.{column})",
                owner.table()
            )
        });
        builder.add_foreign_key_after(BUDGETS, &key, orphans.map(|sql| (Action::Update, sql)));
    }
    let one_owner = owners::one_owner();
    let checked = context
        .catalog
        .table(BUDGETS)
        .is_some_and(|budgets| budgets.check(&one_owner.name).is_some());
    if !checked {
        if let Some(split) = sharing::split_owned_twice(context) {
            builder.paged(split);
        }
        // A check that some row breaks would stay behind unvalidated, and refuse the gateway's next write to that row.
        if let Some(twice) = owners::owned_twice(context) {
            builder.guard("G001", BUDGETS, twice);
        }
    }
    builder.add_check(BUDGETS, &one_owner);
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(_context: &Context, _created: &Created) -> Vec<Loss> {
    Vec::new()
}
