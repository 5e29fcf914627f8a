//! `reconcile header-keys`: header keys in lower case and without spaces around them (`docs/upstream/bifrost.md` §4.12).
//!
//! Reads and writes `config_mcp_clients.per_user_header_keys_json`, a list of names, and
//! `mcp_per_user_header_credentials.headers_json`, an object by name, in rows that are not encrypted. Of names that fold to
//! one the last keeps its value. What is no JSON is reported and left. `updated_at` stays: orphaned rows age on it.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::header_keys;
use tollgate_migration::governance::header_names::{
    self, Folded, FoldedRow, HeaderNames, NormalizeHeaderNames, PAGE,
};
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::doctor::{Samples, ids};
use crate::error::{Error, Result};
use crate::reconcile::{Options, Routine, count, run};
use crate::report::{Finding, Outcome, Report, Severity};
use crate::retry::{self, in_turns};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

/// What a walk over one column found and did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    /// Rows that were, or would be, folded.
    pub folded: u64,
    /// The first of their ids.
    pub folded_ids: Vec<String>,
    /// Rows in which names fell together.
    pub collided: Vec<String>,
    /// Rows that are no JSON.
    pub malformed: Vec<String>,
}

/// How a walk goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// Whether rows without anything to fold are read too, for the sake of those that are no JSON.
    pub all: bool,
    /// Whether it writes.
    pub write: bool,
}

/// Walks a column page by page, each page a transaction of its own. A statement or two per page: the pages are bounded,
/// and what is JSON no SQL of PostgreSQL 15 can say without failing.
pub(crate) async fn walk(
    connection: &Connection,
    dialect: Dialect,
    fold: &NormalizeHeaderNames,
    how: How,
    stop: &ShutdownSignal,
) -> Result<Walked> {
    let db_context = || Error::database(format!("fold the header keys of {}", fold.table));
    let mut walked = Walked::default();
    let mut behind = fold.start().to_owned();
    loop {
        stop.check()?;
        let rows = connection
            .query_all_raw(Statement::from_sql_and_values(
                dialect.backend(),
                fold.read_page(dialect, how.all, PAGE),
                [behind.clone().into()],
            ))
            .await
            .map_err(db_context())?;
        let mut due: Vec<FoldedRow> = Vec::new();
        for row in &rows {
            let HeaderNames { id, json } =
                HeaderNames::from_query_result(row, "").map_err(db_context())?;
            behind.clone_from(&id);
            match header_names::fold(&json, fold.list) {
                Folded::Same => {}
                Folded::Malformed => walked.malformed.push(id),
                Folded::Changed(folded, collided) => {
                    if collided {
                        walked.collided.push(id.clone());
                    }
                    due.push((id, json, folded));
                }
            }
        }
        if !due.is_empty() {
            let rows = if how.write {
                in_turns(connection, || write(connection, dialect, fold, &due))
                    .await
                    .map_err(db_context())?
            } else {
                due.len() as u64
            };
            walked.folded += rows;
            let room = crate::reconcile::SAMPLES.saturating_sub(walked.folded_ids.len());
            walked
                .folded_ids
                .extend(due.into_iter().take(room).map(|(id, ..)| id));
        }
        if rows.len() < PAGE {
            return Ok(walked);
        }
    }
}

async fn write(
    connection: &Connection,
    dialect: Dialect,
    fold: &NormalizeHeaderNames,
    due: &[FoldedRow],
) -> std::result::Result<u64, DbErr> {
    let transaction = retry::begin(connection).await?;
    let written = transaction
        .execute_raw(fold.write_rows(dialect, due))
        .await?
        .rows_affected();
    transaction.commit().await?;
    Ok(written)
}

/// G012, in three forms.
fn hazard(
    fold: &NormalizeHeaderNames,
    title: &str,
    effect: &str,
    resolve: &str,
    ids: Vec<String>,
) -> Finding {
    Finding {
        code: "G012".to_owned(),
        severity: Severity::Warning,
        title: title.to_owned(),
        table: fold.table.to_owned(),
        column: Some(fold.column.to_owned()),
        rows: ids.len() as u64,
        sample_ids: ids,
        effect: effect.to_owned(),
        resolve: resolve.to_owned(),
    }
}

fn findings(fold: &NormalizeHeaderNames, walked: &Walked, samples: Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    if !walked.collided.is_empty() {
        found.push(hazard(
            fold,
            "header keys that fold to the same name",
            "the last of them keeps its value, and the others are dropped",
            "write each header once",
            walked.collided.clone(),
        ));
    }
    if !walked.malformed.is_empty() {
        found.push(hazard(
            fold,
            "header keys that are no JSON",
            "the text is left as it is, and no reader can use it",
            "submit the headers again, or delete the row",
            walked.malformed.clone(),
        ));
    }
    if let Samples::First(most) = samples {
        for finding in &mut found {
            finding.sample_ids.truncate(most as usize);
        }
    }
    found
}

/// Encrypted rows, which nobody here can read.
async fn encrypted(
    connection: &impl ConnectionTrait,
    fold: &NormalizeHeaderNames,
    samples: Samples,
) -> Result<Option<Finding>> {
    if !fold.encrypted {
        return Ok(None);
    }
    let sql = format!(
        "SELECT id FROM {} WHERE COALESCE(encryption_status, '') NOT IN ('', 'plain_text')",
        fold.table
    );
    let (rows, sample_ids) = ids(connection, sql, samples)
        .await
        .map_err(Error::database("count encrypted headers"))?;
    Ok((rows > 0).then(|| Finding {
        rows,
        ..hazard(
            fold,
            "encrypted header keys, which cannot be folded",
            "left as they are; a name in mixed case is not found by today's readers",
            "let the gateway write them again",
            sample_ids,
        )
    }))
}

/// Hazard G012: read-only, one pass over the columns.
pub(crate) async fn examine(
    connection: &Connection,
    context: &Context,
    samples: Samples,
) -> Result<Vec<Finding>> {
    let how = How {
        all: true,
        write: false,
    };
    let mut found = Vec::new();
    for fold in header_keys(context) {
        let walked = walk(
            connection,
            context.catalog.dialect,
            &fold,
            how,
            &ShutdownSignal::default(),
        )
        .await?;
        found.extend(findings(&fold, &walked, samples));
        found.extend(encrypted(connection, &fold, samples).await?);
    }
    Ok(found)
}

struct HeaderKeys<'a> {
    stop: &'a ShutdownSignal,
}

impl HeaderKeys<'_> {
    async fn run(&self, connection: &Connection, write: bool, report: &mut Report) -> Result<()> {
        let context = Context::read(connection)
            .await
            .map_err(Error::database("read the catalog"))?;
        let folds = header_keys(&context);
        if folds.is_empty() {
            return Err(Error::MissingSchema {
                what: "table that holds header keys; `tollgate migrate up --to mcp_credentials` makes them".to_owned(),
            });
        }
        let how = How { all: false, write };
        for fold in folds {
            let walked = walk(connection, context.catalog.dialect, &fold, how, self.stop).await?;
            count(
                &mut report.changes,
                fold.table,
                "update",
                walked.folded,
                walked.folded_ids.clone(),
            );
            let samples = Samples::default();
            report.findings.extend(findings(&fold, &walked, samples));
            report
                .findings
                .extend(encrypted(connection, &fold, samples).await?);
        }
        Ok(())
    }
}

impl Routine for HeaderKeys<'_> {
    fn name(&self) -> &'static str {
        "header-keys"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let mut report = Report::default();
        self.run(connection, false, &mut report).await?;
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        self.run(connection, true, report).await
    }
}

/// Runs the routine.
pub async fn fold_header_keys(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    run(session, options, now, stop, &HeaderKeys { stop }).await
}
