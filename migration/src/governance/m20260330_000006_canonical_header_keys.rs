//! Header keys in lower case and without spaces around them, as every writer of today writes them
//! (`docs/upstream/bifrost.md` §4.12).

use crate::context::Context;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::Created;
use crate::plan_builder::PlanBuilder;

use super::header_names::NormalizeHeaderNames;
use super::mcp::{CLIENTS, HEADERS};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000006_canonical_header_keys",
    phase: Phase::Backfill,
    summary: "header keys in lower case, in rows that are not encrypted",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    for fold in folds(context) {
        builder.paged(fold);
    }
}

/// The columns that hold header keys, as far as this database has them.
pub(super) fn folds(context: &Context) -> Vec<NormalizeHeaderNames> {
    [
        (CLIENTS, "per_user_header_keys_json", true),
        (HEADERS, "headers_json", false),
    ]
    .into_iter()
    .filter(|(table, column, _)| {
        context.catalog.has_column(table, column) && context.catalog.has_column(table, "id")
    })
    .map(|(table, column, list)| NormalizeHeaderNames {
        purpose: format!("header keys of {table} in lower case, in pages"),
        table,
        column,
        list,
        // The list of key names is never encrypted, whatever the row's other columns are.
        encrypted: !list && context.catalog.has_column(table, "encryption_status"),
    })
    .collect()
}

/// Names that differ in case only are one name to every reader: there is nothing to bring back.
fn down(_context: &Context, _created: &Created, _script: &mut PlanBuilder) {}

fn losses(_context: &Context, _created: &Created) -> Vec<Loss> {
    Vec::new()
}
