//! The keys with which gateway replicas authenticate (`docs/upstream/coder.md` §A5).

use crate::context::Context;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::Created;
use crate::plan_builder::PlanBuilder;
use crate::track::Track;

use super::adoption::GATEWAY_KEYS_BEFORE;
use super::tables;

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260510_000002_gateway_keys",
    phase: Phase::Expand,
    summary: "keys with which gateway replicas authenticate, as hashes",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    // Coder's own migration 514 finds neither the table nor its indexes, or fails.
    if context.ledger(Track::PROVIDERS).owns() {
        builder.leave_to_gateway();
        return;
    }
    // Upstream renames its own table; two of them would each hold half of the keys.
    if !context.catalog.has_table(GATEWAY_KEYS_BEFORE) {
        builder.create_table(&tables::gateway_keys(builder.dialect()));
    }
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    Loss::of_tables(context, created)
}
