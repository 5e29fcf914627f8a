//! Indexes over the owner columns, CASCADE foreign keys to the owners, and the check of at most one owner
//! (`reference/bifrost.md` §2.1, 2 and 6), without blocking a running gateway.

use crate::ddl::index;
use crate::migration::{Context, Migration, Phase};
use crate::plan::{Created, Loss};
use crate::script::Script;

use super::BUDGETS;
use super::owners::{self, Owner};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000005_multi_budget_constraints",
    phase: Phase::Backfill,
    summary: "indexes, cascading foreign keys and the one-owner check on budgets",
    up,
    down,
    losses,
};

fn up(_context: &Context, script: &mut Script) {
    for owner in Owner::BOTH {
        script.create_index(BUDGETS, &index(&owner.index(), &[owner.column()]));
    }
    for owner in Owner::BOTH {
        script.add_foreign_key(BUDGETS, &owner.foreign_key());
    }
    script.add_check(BUDGETS, &owners::one_owner());
}

fn down(_context: &Context, created: &Created, script: &mut Script) {
    script.undo(created);
}

fn losses(_context: &Context, _created: &Created) -> Vec<Loss> {
    Vec::new()
}
