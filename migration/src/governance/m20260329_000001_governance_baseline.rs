//! The legacy tables, for a fresh database; `adopt` marks it on a real one.

use crate::migration::{Context, Migration, Phase};
use crate::plan::{Created, Loss};
use crate::script::Script;

use super::tables;

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260329_000001_governance_baseline",
    phase: Phase::Expand,
    summary: "the legacy tables, where there are none",
    up,
    down,
    losses,
};

fn up(_context: &Context, script: &mut Script) {
    for table in tables::legacy() {
        script.create_table(&table);
    }
}

fn down(_context: &Context, created: &Created, script: &mut Script) {
    script.undo(created);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    created
        .tables
        .iter()
        .filter(|table| context.catalog.has_table(table))
        .map(|table| Loss {
            table: table.clone(),
            what: "the table is dropped with its rows".to_owned(),
            sql: {
                let dialect = context.catalog.dialect;
                let key = context
                    .catalog
                    .table(table)
                    .and_then(|table| table.primary_key.first())
                    .map_or_else(|| "1".to_owned(), |key| dialect.quote(key));
                format!("SELECT {key} AS id FROM {}", dialect.quote(table))
            },
        })
        .collect()
}
