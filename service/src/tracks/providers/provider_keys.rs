//! `reconcile provider-keys`: between the copy and contract, the new tables follow what old code still writes into the
//! legacy ones (`docs/upstream/coder.md` §A3, 505's first seven steps).
//!
//! Reads `chat_providers`, `user_chat_provider_keys` and `chat_model_configs.provider`; closes `ai_providers`,
//! `ai_provider_keys`, `user_ai_provider_keys` and `chat_model_configs.ai_provider_id`. Keys are moved as the bytes they
//! are. Never touches a legacy row, nor a new one that is as new or newer. Gateways read these rows live.

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::providers::cutover::{Close, Move, NameConflicts, moves};
use tollgate_migration::{Choices, Track};

use crate::connection::Connection;
use crate::doctor::{self, Samples};
use crate::error::{Error, Result};
use crate::history::History;
use crate::reconcile::{Options, Routine, SAMPLES, count, run};
use crate::report::{Change, Outcome, Report, Severity};
use crate::retry::{self, Turns, backoff, in_turns, is_foreign_key_violation};
use crate::rows;
use crate::runner::{Session, context};
use crate::shutdown::ShutdownSignal;

/// Users' keys of one transaction.
const PAGE: usize = 1000;

/// Hazards under which nobody can say what the new tables should hold.
const BLOCKING: [&str; 5] = ["P001", "P002", "P005", "P006", "P010"];

/// Hazards that are said and do not stop it.
const SAID: [&str; 2] = ["P008", "P009"];

struct ProviderKeys<'a> {
    choices: Choices,
    stop: &'a ShutdownSignal,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("reconcile provider keys")
}

impl ProviderKeys<'_> {
    /// What differs; what is to be said besides goes into the report.
    async fn load(&self, connection: &Connection, report: &mut Report) -> Result<Vec<Move>> {
        let dialect = connection.dialect();
        let history = History::read(connection, dialect, Track::PROVIDERS)
            .await
            .map_err(db_context())?;
        let mut live = context(connection, &history).await?;
        live.choices = self.choices.clone();
        let moves = moves(&live.catalog, NameConflicts::chosen(&live));
        if moves.is_empty() || live.created("provider_key_backfill").is_none() {
            return Err(Error::MissingSchema {
                what: "provider-key cutover to keep in step here: it is not begun (`tollgate migrate up --phase backfill` \
                       begins it), or contract has ended it"
                    .to_owned(),
            });
        }
        let found = doctor::examine_only(
            connection,
            &live,
            Track::PROVIDERS,
            &[&BLOCKING[..], &SAID[..]].concat(),
            Samples::default(),
        )
        .await?;
        let (warnings, blocking): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|finding| finding.severity != Severity::Blocking);
        if !blocking.is_empty() {
            return Err(doctor::refusal(blocking));
        }
        report.findings.extend(warnings);
        Ok(moves)
    }

    /// Closes the moves that are few in one transaction: what is of one provider belongs together.
    async fn together(
        &self,
        connection: &Connection,
        moves: &[Move],
    ) -> std::result::Result<Vec<Change>, DbErr> {
        let dialect = connection.dialect();
        let transaction = retry::begin(connection).await?;
        let mut changes = Vec::new();
        for step in moves {
            let ids = names(&transaction, step.page(dialect, true, SAMPLES), None).await?;
            if ids.is_empty() {
                continue;
            }
            let statement = match &step.close {
                Close::Run(_) => step
                    .all()
                    .map(|sql| Statement::from_string(dialect.backend(), sql)),
                Close::InsertWithUuids(insert) => {
                    let found = insert.made_for(&transaction, dialect).await?;
                    (!found.is_empty()).then(|| insert.statement(dialect, &found))
                }
            };
            if let Some(statement) = statement {
                let rows = transaction.execute_raw(statement).await?.rows_affected();
                count(&mut changes, step.table, step.action, rows, ids);
            }
        }
        transaction.commit().await?;
        Ok(changes)
    }

    async fn retried(&self, connection: &Connection, moves: &[Move]) -> Result<Vec<Change>> {
        self.stop.check()?;
        in_turns(connection, || self.together(connection, moves))
            .await
            .map_err(db_context())
    }

    /// Closes a move over many rows, page by page in the order of their ids.
    async fn paged(
        &self,
        connection: &Connection,
        step: &Move,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let dialect = connection.dialect();
        let mut behind: Option<String> = None;
        loop {
            self.stop.check()?;
            let page = step.page(dialect, behind.is_none(), PAGE);
            let ids = names(connection, page, behind.as_deref())
                .await
                .map_err(db_context())?;
            let Some(last) = ids.last() else {
                return Ok(());
            };
            behind = Some(last.clone());
            let turns = Turns::of(connection);
            let rows = (|| self.page(connection, step, &ids))
                .retry(backoff())
                // A user or provider that was deleted since it was looked at is not there for the next look.
                .when(|error| turns.again(error) || is_foreign_key_violation(error))
                .await
                .map_err(db_context())?;
            count(changes, step.table, step.action, rows, ids);
        }
    }

    async fn page(
        &self,
        connection: &Connection,
        step: &Move,
        ids: &[String],
    ) -> std::result::Result<u64, DbErr> {
        let Some(statement) = step.of(connection.dialect(), ids) else {
            return Ok(0);
        };
        let transaction = retry::begin(connection).await?;
        let rows = transaction.execute_raw(statement).await?.rows_affected();
        transaction.commit().await?;
        Ok(rows)
    }
}

async fn names<C: ConnectionTrait>(
    connection: &C,
    sql: String,
    behind: Option<&str>,
) -> std::result::Result<Vec<String>, DbErr> {
    let backend = connection.get_database_backend();
    let statement = match behind {
        Some(behind) => Statement::from_sql_and_values(backend, sql, [behind.into()]),
        None => Statement::from_string(backend, sql),
    };
    rows::column(connection, statement).await
}

impl Routine for ProviderKeys<'_> {
    fn name(&self) -> &'static str {
        "provider-keys"
    }

    fn track(&self) -> Track {
        Track::PROVIDERS
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let mut report = Report::default();
        let moves = self.load(connection, &mut report).await?;
        for step in &moves {
            let (rows, ids) = doctor::ids(connection, step.due.as_str(), Samples::default())
                .await
                .map_err(db_context())?;
            count(&mut report.changes, step.table, step.action, rows, ids);
        }
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        let moves = self.load(connection, report).await?;
        let many = moves.iter().position(|step| step.paged);
        let (first, rest) = moves.split_at(many.unwrap_or(moves.len()));
        let last = rest.iter().position(|step| !step.paged);
        let (paged, last) = rest.split_at(last.unwrap_or(rest.len()));
        report
            .changes
            .extend(self.retried(connection, first).await?);
        for step in paged {
            self.paged(connection, step, &mut report.changes).await?;
        }
        report.changes.extend(self.retried(connection, last).await?);
        Ok(())
    }
}

/// Runs the routine. The outcome's error is [`Error::NotFound`] where one of the two sides is not there,
/// [`Error::Refused`] where nobody can say what the new tables should hold, or when the change limit holds.
pub async fn provider_keys(
    session: &Session,
    choices: Choices,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    run(session, options, now, stop, &ProviderKeys { choices, stop }).await
}
