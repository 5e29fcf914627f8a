//! The backfill engine: ranges of the physical order of the referring table, each a short transaction of its own.
//!
//! The bound is fixed when a pass begins, so that inserts cannot keep it going; the checkpoint is written in the batch's
//! own transaction, so that a killed run goes on exactly behind its last commit; a repeat of a range changes nothing.

use std::time::{Duration, Instant};

use crate::connection::Connection;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Dialect;
use tollgate_migration::plan::{Backfill, Blocks};

use super::checkpoint::{self, Checkpoint};
use super::lock_timer::LockTimer;
use super::patience::Patience;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, Progress};
use crate::retry::{for_rows, is_busy, is_foreign_key_violation};
use crate::shutdown::ShutdownSignal;

/// What the engine needs besides the pass.
pub(super) struct Engine<'a> {
    pub connection: &'a Connection,
    pub dialect: Dialect,
    pub version: &'a str,
    pub batch: Duration,
    pub observer: &'a dyn Observer,
    pub patience: Patience<'a>,
    pub stop: &'a ShutdownSignal,
    pub held: &'a LockTimer,
}

/// The first batch, in blocks or rowids; from there a batch sizes itself.
const FIRST: i64 = 16;
/// A repeat that leaves fewer rows than this is left to contract's catch-up.
const ONE_BATCH: i64 = 500;
/// Rows that somebody keeps locked are tried this often before they are left to contract.
const REPEATS: usize = 5;

impl Engine<'_> {
    /// Runs a pass to its end, then repeats it until less than a batch is left. Returns the rows changed, and those
    /// that are left to contract because somebody keeps them locked or has just written them.
    ///
    /// `is_still_planned` is asked when gateways could migrate meanwhile.
    pub(super) async fn run(
        &self,
        pass: &Backfill,
        is_still_planned: &impl AsyncFn() -> Result<bool>,
    ) -> Result<(u64, u64)> {
        let mut total = 0;
        let mut left = 0;
        for repeat in 0..=REPEATS {
            let changed = self.walk(pass, is_still_planned).await?;
            total += changed;
            left = self.remaining(pass).await.map_err(|e| self.failed(e))?;
            if left == 0 || (left < ONE_BATCH && repeat > 0) {
                break;
            }
            tracing::debug!(
                pass = pass.name,
                left,
                "another round for what was locked or new"
            );
        }
        Ok((total, left.unsigned_abs()))
    }

    fn failed(&self, source: DbErr) -> Error {
        Error::migration(self.version, source)
    }

    async fn number(&self, sql: String) -> std::result::Result<i64, DbErr> {
        let row = self
            .connection
            .query_one_raw(Statement::from_string(self.dialect.backend(), sql))
            .await?;
        row.map_or(Ok(0), |row| {
            row.try_get::<Option<i64>>("", "number")
                .map(Option::unwrap_or_default)
        })
    }

    async fn remaining(&self, pass: &Backfill) -> std::result::Result<i64, DbErr> {
        self.number(pass.remaining.clone()).await
    }

    /// The end of the table's physical order, and the file it lies in.
    async fn extent(&self, pass: &Backfill) -> std::result::Result<(i64, i64), DbErr> {
        let table = self.dialect.quote(&pass.table);
        match self.dialect {
            Dialect::Postgres => {
                let literal = self.dialect.text(&table);
                let file = self
                    .number(format!(
                        "SELECT pg_relation_filenode({literal}::regclass)::bigint AS number"
                    ))
                    .await?;
                let blocks = self
                    .number(format!(
                        "SELECT pg_relation_size({literal}::regclass) / current_setting('block_size')::bigint AS number"
                    ))
                    .await?;
                Ok((blocks, file))
            }
            Dialect::Sqlite => {
                let last = self
                    .number(format!("SELECT max(rowid) AS number FROM {table}"))
                    .await;
                match last {
                    Ok(last) => Ok((last.saturating_add(1), 0)),
                    // WITHOUT ROWID: there is no physical order to walk, so the table is one batch.
                    Err(error) if error.to_string().contains("no such column: rowid") => {
                        Ok((1, -1))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn range(&self, pass: &Backfill, at: &Checkpoint, to: i64) -> String {
        let (alias, from) = (&pass.alias, at.position);
        match self.dialect {
            Dialect::Sqlite if at.file < 0 => "1 = 1".to_owned(),
            Dialect::Postgres => {
                format!("{alias}.ctid >= '({from},0)'::tid AND {alias}.ctid < '({to},0)'::tid")
            }
            // The last rowid that there can be is in the last range.
            Dialect::Sqlite if to == i64::MAX => format!("{alias}.rowid >= {from}"),
            Dialect::Sqlite => format!("{alias}.rowid >= {from} AND {alias}.rowid < {to}"),
        }
    }

    /// SQLite: the next rowid that is there. Rowids are anybody's choice, and a gap may be longer than any walk.
    async fn next_row(
        &self,
        pass: &Backfill,
        position: i64,
    ) -> std::result::Result<Option<i64>, DbErr> {
        let row = self
            .connection
            .query_one_raw(Statement::from_string(
                self.dialect.backend(),
                format!(
                    "SELECT min(rowid) AS number FROM {} WHERE rowid >= {position}",
                    self.dialect.quote(&pass.table)
                ),
            ))
            .await?;
        row.map_or(Ok(None), |row| row.try_get("", "number"))
    }

    async fn walk(
        &self,
        pass: &Backfill,
        is_still_planned: &impl AsyncFn() -> Result<bool>,
    ) -> Result<u64> {
        let (bound, file) = self.extent(pass).await.map_err(|e| self.failed(e))?;
        let stored = checkpoint::read(self.connection, self.dialect, self.version, &pass.name)
            .await
            .map_err(|e| self.failed(e))?;
        // A pass that was interrupted goes on; one that had ended, or whose table was rewritten, begins again.
        let mut at = match stored {
            Some(stored) if stored.file == file && stored.position < stored.bound => stored,
            _ => Checkpoint {
                // rowids may be negative, blocks never are.
                position: match self.dialect {
                    Dialect::Postgres => 0,
                    Dialect::Sqlite if file < 0 => 0,
                    Dialect::Sqlite => self
                        .number(format!(
                            "SELECT min(rowid) AS number FROM {}",
                            self.dialect.quote(&pass.table)
                        ))
                        .await
                        .map_err(|e| self.failed(e))?,
                },
                bound,
                file,
                rows: 0,
            },
        };
        let before = at.rows;
        let begun = Instant::now();
        let mut step = FIRST;
        // Below this a batch is all commit and no work, however short it is wished.
        let floor = match self.dialect {
            Dialect::Postgres => 4,
            Dialect::Sqlite => 128,
        };
        while at.position < at.bound {
            self.stop.check()?;
            if self.dialect == Dialect::Sqlite && file >= 0 {
                match self
                    .next_row(pass, at.position)
                    .await
                    .map_err(|e| self.failed(e))?
                {
                    Some(next) if next < at.bound || at.bound == i64::MAX => at.position = next,
                    _ => {
                        // The pass has ended, and a repeat begins again at the first row.
                        at.position = at.bound;
                        checkpoint::save(
                            self.connection,
                            self.dialect,
                            self.version,
                            &pass.name,
                            &at,
                        )
                        .await
                        .map_err(|e| self.failed(e))?;
                        break;
                    }
                }
            }
            let to = at.position.saturating_add(step).min(at.bound);
            let sql = pass.batch(&self.range(pass, &at, to));
            let started = Instant::now();
            let mut poll = self.patience.poll();
            let next = loop {
                let error = match self.batch(pass, &sql, &at, to).await {
                    Ok(next) => break next,
                    Err(error) => error,
                };
                // An owner that was deleted between the look and the write is not there for the next look.
                if !(is_busy(&error) || is_foreign_key_violation(&error))
                    || !self.patience.rest(&mut poll).await?
                {
                    return Err(self.failed(error));
                }
                tracing::debug!(%error, "a batch backs off");
                if !is_still_planned().await? {
                    return Err(Error::Moved {
                        version: self.version.to_owned(),
                    });
                }
            };
            let took = started.elapsed();
            at = next;
            step = next_step(step, took, self.batch).max(floor);
            self.observer
                .note(Event::Backfill(progress(pass, &at, begun)));
        }
        self.observer
            .note(Event::BackfillDone(progress(pass, &at, begun)));
        Ok((at.rows - before).unsigned_abs())
    }

    async fn batch(
        &self,
        pass: &Backfill,
        sql: &str,
        at: &Checkpoint,
        to: i64,
    ) -> std::result::Result<Checkpoint, DbErr> {
        let begun = Instant::now();
        let transaction = self.connection.begin().await?;
        // A crash of the server may take the last batches with their checkpoints, which then happen again; the
        // migration's record is committed durably, and all before it with it.
        // The batch is a few hundred rows whatever the planner believes of tables it has never analysed: only a
        // nested loop over primary keys stays linear.
        let settings = match self.dialect {
            Dialect::Postgres => format!(
                "{}; SET LOCAL synchronous_commit = off; SET LOCAL enable_hashjoin = off; \
                 SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off; ",
                for_rows()
            ),
            Dialect::Sqlite => String::new(),
        };
        // One message for all of it: what a batch waits for most, on a server far away, is answers.
        let changed = transaction
            .execute_unprepared(&format!("{settings}{sql}"))
            .await?
            .rows_affected();
        let next = Checkpoint {
            position: to,
            rows: at.rows.saturating_add_unsigned(changed),
            ..at.clone()
        };
        transaction
            .commit_with(&checkpoint::saving(
                self.dialect,
                self.version,
                &pass.name,
                &next,
            ))
            .await?;
        self.held.since(begun, Blocks::Rows);
        Ok(next)
    }
}

fn progress(pass: &Backfill, at: &Checkpoint, begun: Instant) -> Progress {
    Progress {
        purpose: pass.purpose.clone(),
        position: at.position.unsigned_abs(),
        bound: at.bound.unsigned_abs(),
        rows: at.rows.unsigned_abs(),
        elapsed: begun.elapsed(),
    }
}

/// Grows or shrinks a batch toward its time, at most by half or double, so that one slow batch does not throw it off.
fn next_step(step: i64, took: Duration, target: Duration) -> i64 {
    let took = took.as_secs_f64().max(0.000_1);
    let factor = (target.as_secs_f64() / took).clamp(0.5, 2.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a batch is far below 2^52 blocks, and the result is clamped"
    )]
    let next = (step as f64 * factor) as i64;
    next.clamp(1, 1 << 40)
}
