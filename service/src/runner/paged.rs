//! Runs a step whose pages are computed: reads a page, asks the step what to write, and commits it.

use std::time::Instant;

use backon::Retryable;
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::paged::{Page, PagedStep};
use tollgate_migration::plan::Blocks;

use super::lock_timer::LockTimer;
use super::pace::Pace;
use crate::connection::Connection;
use crate::database::existing;
use crate::error::{Error, Result};
use crate::retry::{self, backoff, is_busy};
use crate::shutdown::ShutdownSignal;

/// A step in the making.
pub(super) struct Pages<'a> {
    pub connection: &'a Connection,
    pub pace: &'a Pace<'a>,
    pub step: &'a dyn PagedStep,
    pub version: &'a str,
    pub stop: &'a ShutdownSignal,
    pub held: &'a LockTimer,
}

impl Pages<'_> {
    /// Runs the step to its end; returns how many rows it changed. `is_still_planned` is asked when gateways could migrate
    /// meanwhile.
    pub(super) async fn run(
        &self,
        is_still_planned: &impl AsyncFn() -> Result<bool>,
    ) -> Result<u64> {
        let mut changed = 0;
        for _ in 0..self.step.rounds() {
            self.stage().await.map_err(|error| self.failed(error))?;
            let in_this_round = self.round(is_still_planned).await?;
            changed += in_this_round;
            if in_this_round == 0 {
                break;
            }
        }
        Ok(changed)
    }

    fn failed(&self, source: DbErr) -> Error {
        Error::migration(self.version, source)
    }

    /// Lists what the round is about. Reads the gateway's tables once, and locks none of their rows.
    async fn stage(&self) -> std::result::Result<(), DbErr> {
        if self.step.stage().is_empty() {
            return Ok(());
        }
        let transaction = self.connection.begin().await?;
        let is_there = match self.step.own_table() {
            Some(table) => !existing(&transaction, self.connection.dialect(), &[table.to_owned()])
                .await?
                .is_empty(),
            None => false,
        };
        for statement in self.step.stage() {
            // No CREATE is sent where the table is there: it needs a right of its own.
            if is_there && statement.starts_with("CREATE ") {
                continue;
            }
            transaction.execute_unprepared(statement).await?;
        }
        transaction.commit().await
    }

    /// Every page of a round, each bounded by the step.
    async fn round(&self, is_still_planned: &impl AsyncFn() -> Result<bool>) -> Result<u64> {
        let dialect = self.connection.dialect();
        let mut changed = 0;
        let mut behind: Option<String> = None;
        loop {
            self.stop.check()?;
            let begun = Instant::now();
            let rows = self
                .connection
                .query_all_raw(self.step.read(dialect, behind.as_deref()))
                .await
                .map_err(|error| self.failed(error))?;
            let page = self
                .step
                .page(dialect, &rows)
                .map_err(|error| self.failed(error))?;
            if !page.statements.is_empty() {
                let written = (|| self.commit(&page))
                    .retry(backoff())
                    .when(is_busy)
                    .await
                    .map_err(|error| self.failed(error))?;
                self.held.since(begun, Blocks::Rows);
                changed += written;
            }
            if page.last {
                return Ok(changed);
            }
            behind = page.behind;
            self.pace.rest_after_a_batch().await?;
            if self.pace.is_due() && self.pace.hold(None).await? && !is_still_planned().await? {
                return Err(Error::Moved {
                    version: self.version.to_owned(),
                });
            }
        }
    }

    async fn commit(&self, page: &Page) -> std::result::Result<u64, DbErr> {
        let transaction = retry::begin(self.connection).await?;
        let mut changed = None;
        // As many as the step has, whatever the page.
        for statement in &page.statements {
            let rows = transaction
                .execute_raw(statement.clone())
                .await?
                .rows_affected();
            changed.get_or_insert(rows);
        }
        let changed = changed.unwrap_or_default();
        if changed == 0 && page.behind.is_none() && !page.last {
            // The same page would come again, for ever.
            return Err(DbErr::Custom(format!(
                "{}: a page changed nothing, and would be read again",
                self.step.purpose()
            )));
        }
        transaction.commit().await?;
        Ok(changed)
    }
}
