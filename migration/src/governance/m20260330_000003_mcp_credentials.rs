//! The tables of MCP clients, grants and per-user credentials: what is missing is created, on real databases column by
//! column and index by index (`reference/bifrost.md` §1, §4.1 to §4.5).
//!
//! The silent foreign keys that some databases have on the credential tables (§4.5) are neither created nor dropped.

use crate::catalog::Table;
use crate::ddl::{IndexSpec, TableSpec};
use crate::golden::golden;
use crate::migration::{Context, Migration, Phase};
use crate::plan::{Blocks, Created, Loss};
use crate::schema::{canonical, differences};
use crate::script::Script;

use super::mcp::{self, DERIVED_MODE};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000003_mcp_credentials",
    phase: Phase::Expand,
    summary: "the tables of MCP clients, grants and per-user credentials",
    up,
    down,
    losses,
};

fn up(context: &Context, script: &mut Script) {
    let tables = mcp::all();
    let there: Vec<&TableSpec> = tables
        .iter()
        .filter(|spec| context.catalog.has_table(&spec.name))
        .collect();
    for spec in &tables {
        if there.iter().any(|known| known.name == spec.name) {
            complete(script, spec);
        } else {
            script.create_table(spec);
        }
    }
    // How an existing table differs from a fresh one besides is no drift: it was so before Tollgate came.
    let names = there.iter().map(|spec| spec.name.as_str());
    let dialect = script.dialect();
    let mut expected = golden(dialect, MIGRATION.version).unwrap_or_default();
    expected.retain(|object, _| {
        there
            .iter()
            .any(|spec| object.split(' ').next() == Some(spec.name.as_str()))
    });
    let live = canonical(&script.catalog, names);
    script.tolerate(&differences(&expected, &live));
}

/// Adds the columns and indexes that the table lacks.
fn complete(script: &mut Script, spec: &TableSpec) {
    for column in &spec.columns {
        let mut column = column.clone();
        // There is no value for the rows that exist.
        column.not_null &= column.default.is_some();
        let missing = !script.catalog.has_column(&spec.name, &column.name);
        script.add_column(&spec.name, &column, None, None);
        let derivable = ["virtual_key_id", "user_id"]
            .iter()
            .all(|known| script.catalog.has_column(&spec.name, known));
        if missing && column.name == "auth_mode" && derivable {
            script.execute(
                &spec.name,
                format!(
                    "UPDATE {} SET auth_mode = {DERIVED_MODE} WHERE auth_mode IS NULL",
                    spec.name
                ),
                "rows from before there were modes get theirs",
                Blocks::Rows,
            );
        }
    }
    for index in &spec.indexes {
        let equal = script
            .catalog
            .table(&spec.name)
            .is_some_and(|table| serves(table, index));
        if !equal {
            script.create_index(&spec.name, index);
        }
    }
}

/// Whether an index of whatever name does what this one is for: upgraded databases have other names for some.
fn serves(table: &Table, wanted: &IndexSpec) -> bool {
    table.indexes.iter().any(|index| {
        index.valid
            && index.name != wanted.name
            && index.columns == wanted.columns
            && (index.unique || !wanted.unique)
            && index.predicate.is_none()
            && wanted.predicate.is_none()
    })
}

fn down(_context: &Context, created: &Created, script: &mut Script) {
    script.undo(created);
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
