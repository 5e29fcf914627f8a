//! Copies of shared budgets beside their originals.

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::Context;
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::governance::clones::CLONES;

use crate::connection::Connection;
use crate::doctor::{Samples, ids};
use crate::error::{Error, Result};
use crate::instant;
use crate::reconcile::SAMPLES;
use crate::report::Finding;
use crate::rows;
use crate::verify::finding;

/// Copies that were made since are what they were made as.
pub(super) async fn compare(connection: &Connection, live: &Context) -> Result<Vec<Finding>> {
    let db_context = || Error::database("compare the copies of shared budgets");
    let mut found = Vec::new();
    for (column, sql) in unlike_their_original(live) {
        let rows = connection
            .query_all_raw(Statement::from_string(live.catalog.dialect.backend(), sql))
            .await
            .map_err(db_context())?;
        let mut ids = Vec::new();
        for row in rows {
            let text = |name| row.try_get::<Option<String>>("", name);
            let (copied, original) = (
                text("copied").map_err(db_context())?,
                text("original").map_err(db_context())?,
            );
            let at = |text: Option<String>| text.as_deref().and_then(instant::parse);
            let same_instant = at(copied).is_some_and(|copied| Some(copied) == at(original));
            if column != "last_reset" || !same_instant {
                ids.push(text("id").map_err(db_context())?.unwrap_or_default());
            }
        }
        if !ids.is_empty() {
            let rows = ids.len() as u64;
            ids.truncate(SAMPLES);
            found.push(finding("V107", BUDGETS, Some(column), rows, ids));
        }
    }
    if let Some(sql) = lost_copies(live) {
        let (rows, ids) = ids(connection, sql, Samples::default())
            .await
            .map_err(db_context())?;
        if rows > 0 {
            found.push(finding("V102", BUDGETS, None, rows, ids));
        }
    }
    Ok(found)
}

/// Copies that may not be what their original is: `id`, and both values as text. They are made with the original's limit,
/// duration, window and usage. SQLite's times differ as texts where the instant is one.
fn unlike_their_original(context: &Context) -> Vec<(&'static str, String)> {
    if !context.catalog.has_table(CLONES) {
        return Vec::new();
    }
    let differs = match context.catalog.dialect {
        tollgate_migration::Dialect::Postgres => "IS DISTINCT FROM",
        tollgate_migration::Dialect::Sqlite => "IS NOT",
    };
    ["max_limit", "reset_duration", "last_reset", "current_usage"]
        .into_iter()
        .filter(|column| context.catalog.has_column(BUDGETS, column))
        .map(|column| {
            (
                column,
                format!(
                    "SELECT k.id AS id, CAST(k.{column} AS text) AS copied, CAST(o.{column} AS text) AS original \
                     FROM {} c JOIN {BUDGETS} k ON k.id = c.copy JOIN {BUDGETS} o ON o.id = c.original \
                     WHERE k.{column} {differs} o.{column} ORDER BY k.id",
                    CLONES
                ),
            )
        })
        .collect()
}

/// Copies that are recorded and not there: `id`.
fn lost_copies(context: &Context) -> Option<String> {
    context.catalog.has_table(CLONES).then(|| {
        format!(
            "SELECT c.copy AS id FROM {} c LEFT JOIN {BUDGETS} k ON k.id = c.copy \
             WHERE c.copy IS NOT NULL AND k.id IS NULL",
            CLONES
        )
    })
}

/// How many copies of shared budgets there are.
pub(crate) async fn count(connection: &Connection, live: &Context) -> Result<u64> {
    if !live.catalog.has_table(CLONES) {
        return Ok(0);
    }
    let db_context = || Error::database("count the copies of shared budgets");
    rows::count(
        connection,
        Statement::from_string(
            live.catalog.dialect.backend(),
            format!("SELECT count(*) FROM {CLONES} WHERE copy IS NOT NULL"),
        ),
    )
    .await
    .map_err(db_context())
}
