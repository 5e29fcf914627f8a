//! The legacy tables, for a fresh database; `adopt` marks it on a real one.

use crate::context::Context;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::Created;
use crate::plan_builder::PlanBuilder;

use super::tables;

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260329_000001_governance_baseline",
    phase: Phase::Expand,
    summary: "the legacy tables, where there are none",
    up,
    down,
    losses,
};

fn up(_context: &Context, builder: &mut PlanBuilder) {
    for table in tables::legacy(builder.dialect()) {
        builder.create_table(&table);
    }
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    Loss::of_tables(context, created)
}
