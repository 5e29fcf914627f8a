//! `reconcile header-requirements`: credentials that lack a header their client now requires need an update
//! (`docs/upstream/bifrost.md` §4.11).
//!
//! Reads one client's `per_user_header_keys_json`; sets `mcp_per_user_header_credentials.status` of active rows that lack
//! one of them, of every mode, to `needs_update`. Encrypted rows are counted and left: what they hold nobody here can say.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::governance::header_names::{Entries, canonical};
use tollgate_migration::governance::mcp::{CLIENTS, HEADERS};
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::database::columns_of;
use crate::error::{Error, Result};
use crate::instant;
use crate::reconcile::{Options, Routine, count, run};
use crate::report::{Finding, Outcome, Report, Severity};
use crate::retry::{self, in_turns};
use crate::rows;
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

/// Rows of one transaction.
const PAGE: usize = 500;

struct Requirements<'a> {
    client: &'a str,
    now: DateTime<Utc>,
    stop: &'a ShutdownSignal,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("reconcile header requirements")
}

/// A row of one client's headers.
#[derive(FromQueryResult)]
struct Headers {
    id: String,
    json: Option<String>,
    encrypted: i32,
}

impl Requirements<'_> {
    /// The names that the client requires.
    async fn required(
        &self,
        connection: &Connection,
        dialect: Dialect,
    ) -> Result<BTreeSet<String>> {
        let columns = columns_of(connection, dialect, &[CLIENTS, HEADERS])
            .await
            .map_err(db_context())?;
        let has =
            |table: &str, column: &str| columns.contains(&(table.to_owned(), column.to_owned()));
        if !has(CLIENTS, "per_user_header_keys_json") || !has(HEADERS, "headers_json") {
            return Err(Error::MissingSchema {
                what: format!(
                    "{HEADERS} with its clients; `tollgate migrate up --to mcp_credentials` makes them"
                ),
            });
        }
        let json: Option<String> = rows::scalar(
            connection,
            Statement::from_sql_and_values(
                dialect.backend(),
                format!(
                    "SELECT per_user_header_keys_json AS json FROM {CLIENTS} WHERE client_id = {}",
                    dialect.parameter(1)
                ),
                [self.client.into()],
            ),
        )
        .await
        .map_err(db_context())?
        .ok_or_else(|| Error::NotFound {
            what: format!("MCP client {:?}", self.client),
        })?;
        let json = json.unwrap_or_default();
        if json.trim().is_empty() {
            return Ok(BTreeSet::new());
        }
        let names: Option<Vec<String>> =
            serde_json::from_str(&json).map_err(|_| Error::Rejected {
                what: format!(
                    "{CLIENTS}.per_user_header_keys_json of client {:?} is no list of names",
                    self.client
                ),
            })?;
        Ok(names
            .unwrap_or_default()
            .iter()
            .map(|name| canonical(name))
            .filter(|name| !name.is_empty())
            .collect())
    }

    async fn run(&self, connection: &Connection, write: bool, report: &mut Report) -> Result<()> {
        let dialect = connection.dialect();
        let required = self.required(connection, dialect).await?;
        if required.is_empty() {
            return Ok(());
        }
        let (mut unreadable, mut unreadable_ids) = (0, Vec::new());
        let mut behind = String::new();
        // A page at a time, of one client's rows: a statement or two per page.
        loop {
            self.stop.check()?;
            let page = self.page(connection, dialect, &behind).await?;
            let read = page.len();
            let mut lacking = Vec::new();
            for Headers {
                id,
                json,
                encrypted,
            } in page
            {
                let json = json.unwrap_or_default();
                behind.clone_from(&id);
                if encrypted == 1 {
                    unreadable += 1;
                    if unreadable_ids.len() < crate::reconcile::SAMPLES {
                        unreadable_ids.push(id);
                    }
                } else if lacks(&json, &required) {
                    lacking.push((id, json));
                }
            }
            if !lacking.is_empty() {
                let changed = if write {
                    in_turns(connection, || self.write(connection, dialect, &lacking))
                        .await
                        .map_err(db_context())?
                } else {
                    lacking.len() as u64
                };
                count(
                    &mut report.changes,
                    HEADERS,
                    "needs_update",
                    changed,
                    lacking.into_iter().map(|(id, _)| id),
                );
            }
            if read < PAGE {
                break;
            }
        }
        if unreadable > 0 {
            report.findings.push(encrypted(unreadable, unreadable_ids));
        }
        Ok(())
    }

    /// The client's active rows behind that id.
    async fn page(
        &self,
        connection: &Connection,
        dialect: Dialect,
        behind: &str,
    ) -> Result<Vec<Headers>> {
        rows::all(
                connection,
                Statement::from_sql_and_values(
                    dialect.backend(),
                    format!(
                        "SELECT id, headers_json AS json, \
                         CASE WHEN COALESCE(encryption_status, '') IN ('', 'plain_text') THEN 0 ELSE 1 END AS encrypted \
                         FROM {HEADERS} WHERE mcp_client_id = {} AND status = 'active' AND id > {} ORDER BY id LIMIT {PAGE}",
                        dialect.parameter(1),
                        dialect.parameter(2)
                    ),
                    [self.client.into(), behind.into()],
                ),
            )
            .await
            .map_err(db_context())
    }

    async fn write(
        &self,
        connection: &Connection,
        dialect: Dialect,
        lacking: &[(String, String)],
    ) -> std::result::Result<u64, DbErr> {
        let at = instant::literal(dialect, self.now);
        let mut rows = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        for (id, json) in lacking {
            values.extend([id.clone().into(), json.clone().into()]);
            let n = values.len();
            rows.push(format!(
                "({}, {})",
                dialect.parameter(n - 1),
                dialect.parameter(n)
            ));
        }
        let transaction = retry::begin(connection).await?;
        // Headers that were submitted meanwhile are other headers.
        let written = transaction
            .execute_raw(Statement::from_sql_and_values(
                dialect.backend(),
                format!(
                    "WITH lacking (id, was) AS (VALUES {}) UPDATE {HEADERS} SET status = 'needs_update', updated_at = {at} \
                     FROM lacking WHERE {HEADERS}.id = lacking.id AND {HEADERS}.status = 'active' \
                     AND COALESCE({HEADERS}.headers_json, '') = lacking.was",
                    rows.join(", ")
                ),
                values,
            ))
            .await?
            .rows_affected();
        transaction.commit().await?;
        Ok(written)
    }
}

/// Whether a submission lacks a required header. What is no JSON has none.
fn lacks(json: &str, required: &BTreeSet<String>) -> bool {
    let Ok(Entries(entries)) = serde_json::from_str::<Entries>(json) else {
        return true;
    };
    let there: BTreeSet<String> = entries.iter().map(|(name, _)| canonical(name)).collect();
    !required.is_subset(&there)
}

impl Routine for Requirements<'_> {
    fn name(&self) -> &'static str {
        "header-requirements"
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

/// Runs the routine for one client. The outcome's error is [`Error::NotFound`] where there is no such client.
pub async fn header_requirements(
    session: &Session,
    client: &str,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let requirements = Requirements { client, now, stop };
    run(session, options, now, stop, &requirements).await
}

/// The rows of which nobody can say whether a header is missing.
fn encrypted(rows: u64, sample_ids: Vec<String>) -> Finding {
    Finding {
        code: "G012".to_owned(),
        severity: Severity::Warning,
        title: "encrypted headers, of which nobody can say whether one is missing".to_owned(),
        table: HEADERS.to_owned(),
        column: Some("headers_json".to_owned()),
        rows,
        sample_ids,
        effect: "left active; the gateway notices a missing header when it decrypts them"
            .to_owned(),
        resolve: "nothing to do".to_owned(),
    }
}
