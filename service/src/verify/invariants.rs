//! What must hold of a database whatever it held before.

use std::collections::BTreeSet;

use tollgate_migration::catalog::{ForeignKey, Table};
use tollgate_migration::{Context, Dialect, Track};

use super::broken::finding;
use super::invariant::Question;
use crate::connection::Connection;
use crate::doctor::{Samples, environment, ids};
use crate::drift;
use crate::drift::tables_of as tables;
use crate::error::{Error, Result};
use crate::history::History;
use crate::module::Module;
use crate::report::Finding;
use crate::runner::status::unfinished;

/// Looks for every broken invariant of a track. Statements grow with the schema, not with the rows.
pub(crate) async fn examine(
    connection: &Connection,
    track: Track,
    live: &Context,
    history: &History,
) -> Result<Vec<Finding>> {
    let names = tables(track, live);
    let mut found = schema(track, live, history, &names);
    found.extend(environment::lost_parents(track, &live.catalog));
    let mut questions = Vec::new();
    for name in &names {
        if let Some(table) = live.catalog.table(name) {
            questions.extend(
                table
                    .foreign_keys
                    .iter()
                    // A key to a table that is gone says nothing of its rows.
                    .filter(|key| live.catalog.has_table(&key.parent))
                    .map(|key| childless(live, name, table, key)),
            );
        }
    }
    for (child, column, parent) in Module::of(track).parents {
        questions.extend(orphans(live, child, column, parent));
    }
    questions.extend((Module::of(track).invariants)(live));
    for question in questions {
        let (rows, sample_ids) = ids(connection, question.sql.as_str(), Samples::default())
            .await
            .map_err(Error::database(format!(
                "check {} of {}",
                question.code, question.table
            )))?;
        if rows > 0 {
            found.push(finding(
                question.code,
                &question.table,
                question.column.as_deref(),
                rows,
                sample_ids,
            ));
        }
    }
    Ok(found)
}

/// What the catalog alone says: drift from the golden schema, indexes and constraints that are not in force.
fn schema(track: Track, live: &Context, history: &History, names: &[String]) -> Vec<Finding> {
    if let Some(step) = &history.in_progress {
        // Everything else that the catalog could say is that step's.
        return vec![unfinished(track, step)];
    }
    let mut found = Vec::new();
    let mut named = BTreeSet::new();
    for name in names {
        let Some(table) = live.catalog.table(name) else {
            continue;
        };
        for index in table.indexes.iter().filter(|index| !index.valid) {
            named.insert(format!("{name} index {}", index.name));
            let column = index.columns.first().map(String::as_str);
            found.push(finding("V002", name, column, 1, vec![index.name.clone()]));
        }
        let keys = table.foreign_keys.iter().filter(|key| !key.validated);
        for key in keys {
            let label = key.name.clone().unwrap_or_else(|| key.columns.join("_"));
            named.insert(format!("{name} foreign key {label}"));
            let column = key.columns.first().map(String::as_str);
            found.push(finding("V003", name, column, 1, vec![label]));
        }
        for check in table.checks.iter().filter(|check| !check.validated) {
            let label = check.name.clone().unwrap_or_default();
            named.insert(format!("{name} check {label}"));
            found.push(finding("V003", name, None, 1, vec![label]));
        }
    }
    for (table, column) in (Module::of(track).left_by_contract)(live) {
        if let Some(column) = column {
            named.insert(format!("{table} column {column}"));
        }
        let object = column.unwrap_or(table).to_owned();
        found.push(finding("V007", table, column, 1, vec![object]));
    }
    for drift in drift::examine(live, track, history) {
        if drift.tolerated {
            continue;
        }
        // What is only not in force has been named as that.
        let only_not_in_force = named.contains(&drift.object)
            && match (&drift.expected, &drift.live) {
                (Some(expected), Some(live)) => {
                    live.trim_end_matches(", invalid")
                        .trim_end_matches(", not valid")
                        == expected
                }
                _ => true,
            };
        if only_not_in_force {
            continue;
        }
        let column = drift.object.split(" column ").nth(1);
        let mut broken = finding("V001", &drift.table, column, 1, vec![drift.object.clone()]);
        broken.effect = drift.line.clone();
        found.push(broken);
    }
    found
}

/// How a row is named: by its key.
fn id(dialect: Dialect, table: &Table) -> String {
    let columns: Vec<&str> = if table.primary_key.is_empty() {
        table
            .columns
            .iter()
            .take(2)
            .map(|column| column.name.as_str())
            .collect()
    } else {
        table.primary_key.iter().map(String::as_str).collect()
    };
    let parts: Vec<String> = columns
        .iter()
        .map(|column| format!("COALESCE(CAST(t.{} AS text), '')", dialect.quote(column)))
        .collect();
    parts.join(" || ',' || ")
}

/// Rows whose parent is not there although a key says so.
fn childless(live: &Context, name: &str, table: &Table, key: &ForeignKey) -> Question {
    let dialect = live.catalog.dialect;
    let parent = live.catalog.table(&key.parent);
    let referred: Vec<String> = match (&key.parent_columns, parent) {
        (columns, _) if !columns.is_empty() => columns.clone(),
        (_, Some(parent)) => parent.primary_key.clone(),
        _ => Vec::new(),
    };
    let given: Vec<String> = key
        .columns
        .iter()
        .map(|column| format!("t.{} IS NOT NULL", dialect.quote(column)))
        .collect();
    let missing = if parent.is_none() || referred.len() != key.columns.len() {
        // A key to nowhere: every row that uses it hangs in the air.
        String::new()
    } else {
        let equal: Vec<String> = key
            .columns
            .iter()
            .zip(&referred)
            .map(|(column, referred)| {
                format!(
                    "p.{} = t.{}",
                    dialect.quote(referred),
                    dialect.quote(column)
                )
            })
            .collect();
        format!(
            " AND NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
            dialect.quote(&key.parent),
            equal.join(" AND ")
        )
    };
    Question {
        code: "V004",
        table: name.to_owned(),
        column: key.columns.first().cloned(),
        sql: format!(
            "SELECT {} AS id FROM {} t WHERE {}{missing}",
            id(dialect, table),
            dialect.quote(name),
            given.join(" AND ")
        ),
    }
}

/// Rows without their parent, where no key says so.
fn orphans(live: &Context, child: &str, column: &str, parent: &str) -> Option<Question> {
    let catalog = &live.catalog;
    let dialect = catalog.dialect;
    let table = catalog.table(child)?;
    if !catalog.has_column(child, column)
        || !catalog.has_column(parent, "id")
        || table.foreign_keys_on(column).next().is_some()
    {
        return None;
    }
    Some(Question {
        code: "V006",
        table: child.to_owned(),
        column: Some(column.to_owned()),
        sql: format!(
            "SELECT {} AS id FROM {} t WHERE t.{column} IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM {} p WHERE p.id = t.{column})",
            id(dialect, table),
            dialect.quote(child),
            dialect.quote(parent)
        ),
    })
}
