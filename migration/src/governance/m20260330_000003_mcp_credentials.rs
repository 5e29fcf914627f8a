//! The tables of MCP clients, grants and per-user credentials: what is missing is created, on real databases column by
//! column and index by index (`docs/upstream/bifrost.md` §1, §4.1 to §4.5). With them come the columns of the other tables that
//! releases of that time describe something in.
//!
//! The silent foreign keys that some databases have on the credential tables (§4.5) are neither created nor dropped.

use crate::context::Context;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Blocks, Created};
use crate::plan_builder::PlanBuilder;
use crate::track::Track;

use super::mcp::{self, DERIVED_MODE};
use super::tables;

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000003_mcp_credentials",
    phase: Phase::Expand,
    summary: "the tables of MCP clients, grants and per-user credentials",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    // Their shapes differ by version, and each of the gateway's migrations takes what is there for its own.
    if context.ledger(Track::GOVERNANCE).owns() {
        builder.leave_to_gateway();
        return;
    }
    builder.add_missing(&tables::described_since());
    builder.ensure_tables(MIGRATION.version, &mcp::all(), |builder, spec, column| {
        let derivable = ["virtual_key_id", "user_id"]
            .iter()
            .all(|known| builder.catalog.has_column(&spec.name, known));
        if column == "auth_mode" && derivable {
            builder.update(
                &spec.name,
                format!(
                    "UPDATE {} SET auth_mode = {DERIVED_MODE} WHERE auth_mode IS NULL",
                    spec.name
                ),
                "rows from before there were modes get theirs",
                Blocks::Rows,
            );
        }
    });
}

fn down(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    let mut losses = Loss::of_tables(context, created);
    let derived = format!("{}.auth_mode", mcp::TOKENS);
    let columns: Vec<String> = created
        .columns
        .iter()
        .filter(|column| **column != derived)
        .cloned()
        .collect();
    losses.extend(Loss::of_columns(context, &columns));
    losses
}
