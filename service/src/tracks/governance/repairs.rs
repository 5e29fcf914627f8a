//! What `schema repair` puts right on Bifrost's tables: indexes that a rebuild of its has lost (SQLite), a column that a boot
//! drops and stops without (G025), and columns of providers' keys that an earlier release did not make.

use tollgate_migration::ddl::{IndexSpec, TableSpec, column, index};
use tollgate_migration::governance::{
    BUDGETS, KEYS, OF_PROVIDERS, VIRTUAL_KEYS, described_since, legacy_tables, mcp, owners::Owner,
};
use tollgate_migration::plan::Created;
use tollgate_migration::{Context, Dialect, Track};

use super::boots;
use crate::module::Repair;

/// Whether a replicate key calls its deployments: a flag, which an earlier release made as text.
const ENDPOINT: &str = "replicate_use_deployments_endpoint";

/// All of them but the indexes, whose values have to be looked at first.
pub(super) fn repairs(live: &Context) -> Vec<Repair> {
    if live.ledger(Track::GOVERNANCE).owns() {
        boots::dropped_flags(live)
            .into_iter()
            .map(|table| dropped_flag(live, table))
            .collect()
    } else {
        bare_keys(live)
    }
}

/// Indexes of the track's tables that are not there and whose columns are, by name or over the same columns.
pub(super) fn lost_indexes(live: &Context) -> Vec<(String, IndexSpec)> {
    let catalog = &live.catalog;
    // What PostgreSQL lacks, nobody's rebuild has taken: an upgraded database never had it.
    if catalog.dialect == Dialect::Postgres {
        return Vec::new();
    }
    let shaped = live
        .ledger(Track::GOVERNANCE)
        .has("add_oauth_auth_mode_columns");
    let mut specs: Vec<TableSpec> = legacy_tables(catalog.dialect);
    specs.extend(described_since());
    if shaped {
        specs.extend(mcp::all());
    }
    let mut wanted: Vec<(String, Vec<IndexSpec>)> = specs
        .into_iter()
        .map(|spec| (spec.name, spec.indexes))
        .collect();
    wanted.push((
        BUDGETS.to_owned(),
        Owner::BOTH
            .map(|owner| {
                index(
                    &format!("idx_{BUDGETS}_{}", owner.column()),
                    &[owner.column()],
                )
            })
            .to_vec(),
    ));
    wanted.extend(mcp::lost_by_rebuild(shaped));
    let mut lost = Vec::new();
    for (name, indexes) in wanted {
        let Some(table) = catalog.table(&name) else {
            continue;
        };
        for index in indexes {
            let there = table.index(&index.name).is_some()
                || table.indexes.iter().any(|live| {
                    live.columns == index.columns
                        && live.unique == index.unique
                        && live.predicate.is_some() == index.predicate.is_some()
                });
            let possible = index
                .columns
                .iter()
                .all(|column| table.column(column).is_some());
            if !there && possible {
                lost.push((name.clone(), index));
            }
        }
    }
    lost
}

/// What an earlier release left out of the table of providers' keys where it made it: a gateway that boots on PostgreSQL
/// reads every column of it, and stops at the first that is not there.
fn bare_keys(live: &Context) -> Vec<Repair> {
    let catalog = &live.catalog;
    let ours = |created: &Created| created.tables.iter().any(|table| table == KEYS);
    if !catalog.has_table(KEYS) || !live.history.values().any(ours) {
        return Vec::new();
    }
    let repair = |action, column: &str, change: String| {
        let statement = format!("ALTER TABLE {KEYS} {change}");
        Repair::plain(KEYS, action, column, vec![statement])
    };
    let mut repairs: Vec<Repair> = OF_PROVIDERS
        .into_iter()
        .filter(|(name, _)| !catalog.has_column(KEYS, name))
        .map(|(name, kind)| {
            let column = column(name, kind).sql(catalog.dialect);
            repair("add column", name, format!("ADD COLUMN {column}"))
        })
        .collect();
    let texts = catalog
        .column(KEYS, ENDPOINT)
        .is_some_and(|live| live.kind == "text");
    if texts && catalog.dialect == Dialect::Postgres {
        repairs.push(repair(
            "change type",
            ENDPOINT,
            format!("ALTER COLUMN {ENDPOINT} TYPE boolean USING CAST({ENDPOINT} AS boolean)"),
        ));
    }
    repairs
}

/// The flag that a boot drops, and stops without: as `migrate_calendar_aligned` fills it, through keys that are aligned
/// (`docs/upstream/bifrost.md` §9.3).
fn dropped_flag(live: &Context, table: &str) -> Repair {
    let catalog = &live.catalog;
    let dialect = catalog.dialect;
    let mut statements = vec![format!(
        "ALTER TABLE {table} ADD COLUMN calendar_aligned boolean DEFAULT false"
    )];
    let through = if table == BUDGETS {
        catalog
            .has_column(BUDGETS, "virtual_key_id")
            .then(|| format!("v.id = {BUDGETS}.virtual_key_id"))
    } else {
        catalog
            .has_column(VIRTUAL_KEYS, "rate_limit_id")
            .then(|| format!("v.rate_limit_id = {table}.id"))
    };
    if let Some(through) = through
        && catalog.has_column(VIRTUAL_KEYS, "calendar_aligned")
    {
        statements.push(format!(
            "UPDATE {table} SET calendar_aligned = {} WHERE EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {through} AND {})",
            dialect.true_literal(),
            dialect.is_true("v.calendar_aligned"),
        ));
    }
    Repair::plain(table, "add column", "calendar_aligned", statements)
}
