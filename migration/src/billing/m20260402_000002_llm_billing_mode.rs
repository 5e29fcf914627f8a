//! The nullable column with its check (`docs/upstream/molecule.md` §B1).
//!
//! Upstream's `ADD COLUMN IF NOT EXISTS` keeps whatever check an existing column has; here it is replaced, and what it
//! let through is a hazard (B001).

use crate::context::Context;
use crate::ddl::{CheckSpec, Type, column};
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Blocks, Created};
use crate::plan_builder::PlanBuilder;

use super::{MODE, MODES, WORKSPACES, is_garbled, is_guarded, is_over_mode};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260402_000002_llm_billing_mode",
    phase: Phase::Expand,
    summary: "how a workspace pays for its models: one of three modes, or the organisation's default",
    up,
    down,
    losses,
};

/// NULL, or one of the three.
fn check() -> CheckSpec {
    CheckSpec {
        name: "workspaces_llm_billing_mode_check".to_owned(),
        expression: format!("{MODE} IS NULL OR {MODE} IN ('{}')", MODES.join("', '")),
    }
}

fn up(context: &Context, builder: &mut PlanBuilder) {
    if !context.catalog.has_column(WORKSPACES, MODE) {
        builder.add_column(WORKSPACES, &column(MODE, Type::Text), None, Some(&check()));
        builder.add_check(WORKSPACES, &check());
        return;
    }
    if context.chose(&super::GARBLED_MODES) {
        builder.update(
            WORKSPACES,
            format!(
                "UPDATE {WORKSPACES} SET {MODE} = NULL WHERE {}",
                is_garbled(builder.dialect())
            ),
            "modes outside the three are cleared: they inherit the organisation's default",
            Blocks::Rows,
        );
    }
    let right = context.catalog.table(WORKSPACES).is_some_and(is_guarded);
    if !right {
        builder.replace_checks(WORKSPACES, &check(), is_over_mode);
    }
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    if !created.has_column(WORKSPACES, MODE) || !context.catalog.has_column(WORKSPACES, MODE) {
        return Vec::new();
    }
    vec![Loss {
        table: WORKSPACES.to_owned(),
        what: "the billing mode is dropped; the workspace pays as its organisation does".to_owned(),
        sql: format!("SELECT id FROM {WORKSPACES} WHERE {MODE} IS NOT NULL"),
    }]
}
