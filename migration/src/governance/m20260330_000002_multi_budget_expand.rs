//! Owner columns on budgets and the calendar flag on virtual keys; nothing else (`docs/upstream/bifrost.md` §2.1, 1 and 2).
//!
//! On SQLite the columns come with their foreign keys and the check, since `ADD COLUMN` can add those and anything
//! later would have to rebuild the table. On PostgreSQL they follow in `multi_budget_constraints`, validated online.

use crate::context::Context;
use crate::ddl::Type;
use crate::ddl::column;
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::Created;
use crate::plan_builder::PlanBuilder;

use super::owners::{self, Owner};
use super::{BUDGETS, VIRTUAL_KEYS};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000002_multi_budget_expand",
    phase: Phase::Expand,
    summary: "owner columns on budgets, the calendar flag on virtual keys",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    for owner in Owner::BOTH {
        // An owner column holds its parent's key, whatever type an old version gave that key.
        let live = context.catalog.column(owner.table(), "id");
        let kind = match (dialect, owner, live) {
            (Dialect::Postgres, _, Some(column)) => Type::Live(column.kind.clone()),
            (_, Owner::VirtualKey, _) => Type::Varchar(255),
            (_, Owner::ProviderConfig, _) => Type::BigInt,
        };
        // The check speaks of both columns, so it comes with the second.
        let check = (owner == Owner::ProviderConfig).then(owners::one_owner);
        builder.add_column(
            BUDGETS,
            &column(owner.column(), kind),
            Some(&owner.loose_foreign_key()),
            check.as_ref(),
        );
    }
    builder.add_column(
        VIRTUAL_KEYS,
        &column("calendar_aligned", Type::Bool).default("false"),
        None,
        None,
    );
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    owners::flags_without_a_column(context, created)
}
