//! Which version of the governance schema a database without history stands at.

use crate::catalog::Catalog;
use crate::catalog::sqlite_ddl::CreateTable;
use crate::migration::Context;

use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

/// What a database was recognised as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The shape in words.
    pub shape: &'static str,
    /// The slugs of the migrations it already stands behind.
    pub applied: Vec<&'static str>,
}

/// Columns that the track's migrations read or write. Everything else on a real database is optional.
const REQUIRED: [(&str, &[&str]); 3] = [
    (
        BUDGETS,
        &[
            "id",
            "max_limit",
            "reset_duration",
            "last_reset",
            "current_usage",
        ],
    ),
    (VIRTUAL_KEYS, &["id"]),
    (PROVIDER_CONFIGS, &["id", "virtual_key_id"]),
];

/// Recognises a database.
///
/// # Errors
/// One line per difference from the nearest version that is known.
pub fn recognise(context: &Context) -> Result<Recognised, Vec<String>> {
    let catalog = &context.catalog;
    let mut differences = missing(catalog);
    for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS] {
        if catalog.has_table(table) && !catalog.has_column(table, "budget_id") {
            differences.push(format!("{table} has no column budget_id"));
        }
    }
    for (table, column) in [
        (BUDGETS, "virtual_key_id"),
        (BUDGETS, "provider_config_id"),
        (VIRTUAL_KEYS, "calendar_aligned"),
    ] {
        if catalog.has_column(table, column) {
            differences.push(format!(
                "{table} has a column {column}, which the legacy schema does not have"
            ));
        }
    }
    if !differences.is_empty() {
        return Err(differences);
    }
    Ok(Recognised {
        shape: if catalog.has_column(BUDGETS, "calendar_aligned") {
            "legacy, with the calendar flag on budgets (v1.5.0-prerelease1)"
        } else {
            "legacy, without a calendar flag on budgets (v1.4.x)"
        },
        applied: vec!["governance_baseline"],
    })
}

fn missing(catalog: &Catalog) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, columns) in REQUIRED {
        let Some(live) = catalog.table(table) else {
            differences.push(format!("there is no table {table}"));
            continue;
        };
        for column in columns {
            if live.column(column).is_none() {
                differences.push(format!("{table} has no column {column}"));
            }
        }
        let strict = live
            .sql
            .as_deref()
            .and_then(CreateTable::parse)
            .is_some_and(|create| create.options.to_lowercase().contains("strict"));
        if strict {
            differences.push(format!(
                "{table} is STRICT, and the gateway's own types are none of SQLite's strict ones"
            ));
        }
        let keyed = live.primary_key == ["id"]
            || live
                .indexes
                .iter()
                .any(|index| index.unique && index.predicate.is_none() && index.columns == ["id"]);
        if !keyed {
            differences.push(format!("{table} has no unique key over id"));
        }
    }
    differences
}
