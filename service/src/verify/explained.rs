//! What a gateway's own migrations rewrite and insert: held against each one's rule, it is no loss
//! (`docs/upstream/bifrost.md` §9.3, `coder.md` A3 and A8).

use sea_orm::{FromQueryResult, Statement};
use tollgate_migration::{Context, Ledger, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::report::{Finding, Severity};
use crate::rows;
use crate::verify::rewrite::Rewrite;

/// The entries of a ledger that were not there before. Coder's are the numbers since.
pub(super) fn gained(then: &[String], now: &Ledger) -> Vec<String> {
    match now {
        Ledger::Ids(entries) | Ledger::Files(entries) => entries
            .iter()
            .filter(|entry| !then.contains(entry))
            .cloned()
            .collect(),
        Ledger::Number { version, .. } => {
            let from = then
                .first()
                .and_then(|number| number.parse::<i64>().ok())
                .unwrap_or(*version);
            (from + 1..=*version)
                .map(|number| number.to_string())
                .collect()
        }
        Ledger::None | Ledger::Anothers(_) => Vec::new(),
    }
}

/// Turns what the gateway's migrations since explain into information.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn explain(
    connection: &Connection,
    track: Track,
    live: &Context,
    gained: &[String],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    if gained.is_empty() {
        return Ok(());
    }
    let has = |ids: &[&str]| {
        ids.iter()
            .any(|id| gained.iter().any(|gained| gained == id))
    };
    let module = Module::of(track);
    let version = track.words(live.ledger(track)).unwrap_or_default();
    for finding in findings.iter_mut() {
        let explained = match finding.code.as_str() {
            // Tables, columns and indexes are the gateway's, and change with its versions.
            "V101" => true,
            "V103" => module
                .inserted_by
                .iter()
                .any(|(table, ids)| *table == finding.table && has(ids)),
            "V104" => {
                let rule = module.rewritten_by.iter().find(|rewrite| {
                    rewrite.table == finding.table
                        && Some(rewrite.column) == finding.column.as_deref()
                        && has(rewrite.ids)
                });
                match rule {
                    None => false,
                    Some(Rewrite { value: None, .. }) => true,
                    Some(Rewrite {
                        table,
                        column,
                        value: Some(value),
                        ..
                    }) => holds(connection, live, table, column, value, finding).await?,
                }
            }
            _ => false,
        };
        if explained {
            finding.severity = Severity::Info;
            finding.effect = format!(
                "the gateway has migrated to {version} since the snapshot, which does this"
            );
            finding.resolve = "nothing to do".to_owned();
        }
    }
    fold(findings);
    Ok(())
}

/// One line for each table whose schema the gateway has changed.
fn fold(findings: &mut Vec<Finding>) {
    let mut folded: Vec<Finding> = Vec::new();
    findings.retain(|finding| {
        if finding.code != "V101" || finding.severity != Severity::Info {
            return true;
        }
        match folded.iter_mut().find(|first| first.table == finding.table) {
            Some(first) => {
                first.rows += finding.rows;
                first.sample_ids.extend(finding.sample_ids.iter().cloned());
            }
            None => folded.push(Finding {
                title: "the gateway has changed the schema".to_owned(),
                column: None,
                ..finding.clone()
            }),
        }
        false
    });
    findings.extend(folded);
}

/// Whether as many rows as differ have the value that the migration writes, the named ones among them.
async fn holds(
    connection: &Connection,
    live: &Context,
    table: &str,
    column: &str,
    value: &str,
    finding: &Finding,
) -> Result<bool> {
    let dialect = live.catalog.dialect;
    let db_context = || Error::database(format!("read {table}.{column}"));
    let ids: Vec<String> = (1..=finding.sample_ids.len())
        .map(|position| dialect.parameter(position + 1))
        .collect();
    let named = if ids.is_empty() {
        "0".to_owned()
    } else {
        format!(
            "(SELECT count(*) FROM {table} WHERE CAST(id AS text) IN ({}) AND {column} = {})",
            ids.join(", "),
            dialect.parameter(1)
        )
    };
    let mut values: Vec<sea_orm::Value> = vec![value.into()];
    values.extend(finding.sample_ids.iter().map(|id| id.clone().into()));
    let set: Option<Set> = rows::one(
        connection,
        Statement::from_sql_and_values(
            dialect.backend(),
            format!(
                "SELECT CAST((SELECT count(*) FROM {table} WHERE {column} = {}) AS bigint) AS there, CAST({named} AS bigint) AS named",
                dialect.parameter(1)
            ),
            values,
        ),
    )
    .await
    .map_err(db_context())?;
    Ok(set.is_some_and(|set| {
        set.there.unsigned_abs() >= finding.rows
            && set.named.unsigned_abs() >= finding.sample_ids.len() as u64
    }))
}

/// How many rows have a value, and how many of those that a finding names.
#[derive(FromQueryResult)]
struct Set {
    there: i64,
    named: i64,
}
