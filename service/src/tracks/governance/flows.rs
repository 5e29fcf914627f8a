//! `reconcile flows`: flows that ran out go, and with `--orphan-ttl` credentials that have been orphaned for longer
//! (`docs/upstream/bifrost.md` §4.11).
//!
//! Deletes from `oauth_user_sessions` (`pending` and `claiming`) and `mcp_per_user_header_flows` (`pending`) what is past
//! `expires_at`, of every mode; with a TTL, from both tables of credentials what is `orphaned` and was last updated before
//! it. Touches nothing else. Gateways read these tables live.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::mcp::Kind;
use tollgate_migration::{Dialect, Track};

use super::credentials::{counted, unbounded};
use crate::connection::Connection;
use crate::database::columns_of;
use crate::error::{Error, Result};
use crate::instant;
use crate::reconcile::part::Part;
use crate::reconcile::{Options, Routine, count, run};
use crate::report::{Finding, Outcome, Report, Severity};
use crate::retry::in_turns;
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

/// Rows of one transaction.
const PAGE: usize = 5000;

struct Flows<'a> {
    part: Part,
    ttl: Option<Duration>,
    now: DateTime<Utc>,
    stop: &'a ShutdownSignal,
}

/// A table, the rows `r` of it that are due, and those whose time cannot be read.
struct Due {
    table: &'static str,
    condition: String,
    unreadable: Option<(&'static str, String)>,
}

fn before(dialect: Dialect, column: &str, at: DateTime<Utc>) -> String {
    let compared = |time: &str| instant::compared(dialect, time);
    format!(
        "{} < {}",
        compared(&format!("r.{column}")),
        compared(&instant::literal(dialect, at))
    )
}

impl Flows<'_> {
    async fn due(&self, connection: &Connection, dialect: Dialect) -> Result<Vec<Due>> {
        let mut names = Vec::new();
        for kind in Kind::ALL {
            names.extend([kind.flows(), kind.credentials()]);
        }
        let columns = columns_of(connection, dialect, &names)
            .await
            .map_err(db_context())?;
        let has = |table: &str, wanted: &[&str]| {
            wanted
                .iter()
                .all(|column| columns.contains(&(table.to_owned(), (*column).to_owned())))
        };
        let mut due = Vec::new();
        let unreadable = |column: &'static str, status: &str| match dialect {
            Dialect::Postgres => None,
            Dialect::Sqlite => Some((
                column,
                format!("{status} AND r.{column} IS NOT NULL AND julianday(r.{column}) IS NULL"),
            )),
        };
        for kind in Kind::ALL {
            if !kind.is_in_force(|table, column| has(table, &[column])) {
                continue;
            }
            let flows = kind.flows();
            if has(flows, &["id", "status", "expires_at"]) {
                let status = match kind {
                    Kind::OAuth | Kind::MergedOAuth => "r.status IN ('pending', 'claiming')",
                    Kind::Headers => "r.status = 'pending'",
                };
                due.push(Due {
                    table: flows,
                    condition: format!("{status} AND {}", before(dialect, "expires_at", self.now)),
                    unreadable: unreadable("expires_at", status),
                });
            }
            let credentials = kind.credentials();
            if let Some(ttl) = self.ttl
                && has(credentials, &["id", "status", "updated_at"])
            {
                let since = chrono::Duration::from_std(ttl)
                    .ok()
                    .and_then(|ttl| self.now.checked_sub_signed(ttl));
                let Some(since) = since else {
                    continue;
                };
                // Beside tokens of the gateway itself, which are nobody's grant.
                let status = match kind {
                    Kind::MergedOAuth => {
                        "r.status = 'orphaned' AND r.auth_mode IN ('vk', 'user', 'session')"
                    }
                    Kind::OAuth | Kind::Headers => "r.status = 'orphaned'",
                };
                due.push(Due {
                    table: credentials,
                    condition: format!("{status} AND {}", before(dialect, "updated_at", since)),
                    unreadable: unreadable("updated_at", status),
                });
            }
        }
        let in_part = self.part.condition(dialect, "r.id");
        for item in &mut due {
            item.condition = format!("{} AND {in_part}", item.condition);
        }
        if due.is_empty() {
            return Err(Error::MissingSchema {
                what: format!(
                    "{}; `tollgate migrate up --to mcp_credentials` makes it",
                    Kind::OAuth.flows()
                ),
            });
        }
        Ok(due)
    }

    /// Times that nobody can read: never taken for past.
    async fn unreadable(
        &self,
        connection: &Connection,
        dialect: Dialect,
        due: &[Due],
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for item in due {
            let Some((column, condition)) = &item.unreadable else {
                continue;
            };
            let mut found = Vec::new();
            counted(
                connection,
                dialect,
                item.table,
                "'unreadable'",
                condition,
                &unbounded(),
                &mut found,
            )
            .await
            .map_err(db_context())?;
            findings.extend(found.into_iter().map(|change| Finding {
                code: "R001".to_owned(),
                severity: Severity::Warning,
                title: "a time that cannot be read".to_owned(),
                table: change.table,
                column: Some((*column).to_owned()),
                rows: change.rows,
                sample_ids: change.sample_ids,
                effect: "the row is neither past nor to come, and is left alone".to_owned(),
                resolve:
                    "write the time as 2026-03-29 10:11:12+00:00, or delete the row".to_owned(),
            }));
        }
        Ok(findings)
    }
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("reconcile flows")
}

impl Routine for Flows<'_> {
    fn over(&self, part: &Part) -> Option<Self> {
        Some(Self {
            part: part.clone(),
            ..*self
        })
    }

    fn name(&self) -> &'static str {
        "flows"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let dialect = connection.dialect();
        let due = self.due(connection, dialect).await?;
        let mut report = Report {
            findings: self.unreadable(connection, dialect, &due).await?,
            ..Report::default()
        };
        for item in &due {
            counted(
                connection,
                dialect,
                item.table,
                "'delete'",
                &item.condition,
                &unbounded(),
                &mut report.changes,
            )
            .await
            .map_err(db_context())?;
        }
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        let dialect = connection.dialect();
        let due = self.due(connection, dialect).await?;
        report.findings = self.unreadable(connection, dialect, &due).await?;
        for item in due {
            // Each round deletes a page of what was due when the routine began: the time does not move.
            loop {
                self.stop.check()?;
                let ids = in_turns(connection, || page(connection, dialect, &item))
                    .await
                    .map_err(db_context())?;
                let rows = ids.len();
                count(
                    &mut report.changes,
                    item.table,
                    "delete",
                    rows as u64,
                    ids.into_iter().take(crate::reconcile::SAMPLES),
                );
                if rows < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Deletes a page and returns its ids. Rows that a gateway is writing wait for the next run.
async fn page(
    connection: &Connection,
    dialect: Dialect,
    due: &Due,
) -> std::result::Result<Vec<String>, DbErr> {
    let (table, condition) = (due.table, &due.condition);
    let locked = match dialect {
        Dialect::Postgres => " FOR UPDATE OF r SKIP LOCKED",
        Dialect::Sqlite => "",
    };
    let rows = connection
        .query_all_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "DELETE FROM {table} AS r WHERE r.id IN (SELECT r.id FROM {table} r WHERE {condition} \
                 ORDER BY r.id LIMIT {PAGE}{locked}) AND {condition} RETURNING r.id AS id"
            )
            .replace("RETURNING r.id", if dialect == Dialect::Sqlite { "RETURNING id" } else { "RETURNING r.id" }),
        ))
        .await?;
    let mut ids = rows
        .iter()
        .map(|row| {
            row.try_get::<Option<String>>("", "id")
                .map(Option::unwrap_or_default)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    ids.sort();
    Ok(ids)
}

/// Runs the routine. `ttl` is how long an orphaned credential is kept; for ever when absent.
pub async fn flows(
    session: &Session,
    ttl: Option<Duration>,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    run(
        session,
        options,
        now,
        stop,
        &Flows {
            part: Part::default(),
            ttl,
            now,
            stop,
        },
    )
    .await
}
