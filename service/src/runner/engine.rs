//! The backfill engine: ranges of the physical order of the referring table, each a short transaction of its own.
//!
//! The bound is fixed when a pass begins, so that inserts cannot keep it going; the checkpoint is written in the batch's
//! own transaction, so that a killed run goes on exactly behind its last commit; a repeat of a range changes nothing.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tokio::sync::{RwLock, RwLockReadGuard};
use tollgate_migration::Dialect;
use tollgate_migration::plan::{Backfill, Blocks};

use super::checkpoint::{self, Checkpoint};
use super::lock_timer::LockTimer;
use super::pace::{Pace, SAY, keep_alive};
use super::patience::Patience;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, Progress};
use crate::retry::{for_rows, is_busy, is_foreign_key_violation};
use crate::shutdown::ShutdownSignal;

/// What the engine needs besides the pass.
pub(super) struct Engine<'a> {
    pub connection: &'a Connection,
    /// Further connections of the run, each of which walks a part of the table of its own.
    pub workers: &'a [Connection],
    pub dialect: Dialect,
    pub version: &'a str,
    pub batch: Duration,
    pub observer: &'a dyn Observer,
    pub patience: Patience<'a>,
    pub pace: &'a Pace<'a>,
    pub stop: &'a ShutdownSignal,
    pub held: &'a LockTimer,
}

/// The first batch, in blocks or rowids; from there a batch sizes itself.
const FIRST: i64 = 16;
/// A repeat that leaves fewer rows than this is left to contract's catch-up.
const ONE_BATCH: i64 = 500;
/// Rows that somebody keeps locked are tried this often before they are left to contract.
const REPEATS: usize = 5;

/// What those who walk the parts of one pass share.
struct Walk<'p> {
    pass: &'p Backfill,
    begun: Instant,
    /// Held by whoever writes, and by none while gateways are let in.
    gate: RwLock<()>,
    /// How often they were: whoever goes on looks at the schema again.
    let_in: AtomicU64,
    /// Blocks or rowids that were walked, and rows that were changed.
    walked: AtomicI64,
    extent: i64,
    rows: AtomicI64,
}

impl Walk<'_> {
    fn progress(&self) -> Progress {
        Progress {
            purpose: self.pass.purpose.clone(),
            position: self.walked.load(Ordering::Relaxed).unsigned_abs(),
            bound: self.extent.unsigned_abs(),
            rows: self.rows.load(Ordering::Relaxed).unsigned_abs(),
            elapsed: self.begun.elapsed(),
        }
    }

    fn note(&self, blocks: i64, rows: i64) {
        self.walked.fetch_add(blocks, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// A part of a table, and the connection that walks it.
struct Part<'c> {
    connection: &'c Connection,
    /// The name of its checkpoint.
    name: String,
    from: i64,
    to: i64,
    file: i64,
}

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
        // rowids may be negative, blocks never are.
        let first = match self.dialect {
            Dialect::Sqlite if file >= 0 => self
                .number(format!(
                    "SELECT min(rowid) AS number FROM {}",
                    self.dialect.quote(&pass.table)
                ))
                .await
                .map_err(|e| self.failed(e))?,
            _ => 0,
        };
        let walk = Walk {
            pass,
            begun: Instant::now(),
            gate: RwLock::default(),
            let_in: AtomicU64::default(),
            walked: AtomicI64::default(),
            extent: bound.saturating_sub(first),
            rows: AtomicI64::default(),
        };
        let parts = self.parts(pass, first, bound, file);
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        checkpoint::keep_only(
            self.connection,
            self.dialect,
            self.version,
            &pass.name,
            &names,
        )
        .await
        .map_err(|e| self.failed(e))?;
        let changed = try_join_all(
            parts
                .iter()
                .map(|part| self.walk_part(&walk, part, is_still_planned)),
        )
        .await?;
        self.observer.note(Event::BackfillDone(walk.progress()));
        Ok(changed.into_iter().sum())
    }

    /// The whole table, or as many parts as there are connections. Whatever their number, a part has a checkpoint of its own.
    fn parts(&self, pass: &Backfill, first: i64, bound: i64, file: i64) -> Vec<Part<'_>> {
        let connections: Vec<&Connection> = std::iter::once(self.connection)
            .chain(self.workers)
            .collect();
        let number = i64::try_from(connections.len()).unwrap_or(1);
        let size = bound.saturating_sub(first) / number;
        connections
            .into_iter()
            .zip(0..)
            .map(|(connection, part)| Part {
                connection,
                name: if number == 1 {
                    pass.name.clone()
                } else {
                    format!("{} {}/{number}", pass.name, part + 1)
                },
                from: first + part * size,
                to: if part + 1 == number {
                    bound
                } else {
                    first + (part + 1) * size
                },
                file,
            })
            .collect()
    }

    async fn walk_part(
        &self,
        walk: &Walk<'_>,
        part: &Part<'_>,
        is_still_planned: &impl AsyncFn() -> Result<bool>,
    ) -> Result<u64> {
        let pass = walk.pass;
        let stored = checkpoint::read(self.connection, self.dialect, self.version, &part.name)
            .await
            .map_err(|e| self.failed(e))?;
        // A pass that was interrupted goes on; one that had ended, or whose table was rewritten, begins again.
        let mut at = match stored {
            Some(stored) if stored.file == part.file && stored.position < stored.bound => stored,
            _ => Checkpoint {
                position: part.from,
                bound: part.to,
                file: part.file,
                rows: 0,
            },
        };
        let before = at.rows;
        walk.note(at.position.saturating_sub(part.from), at.rows);
        let mut step = FIRST;
        // Below this a batch is all commit and no work, however short it is wished.
        let floor = match self.dialect {
            Dialect::Postgres => 4,
            Dialect::Sqlite => 128,
        };
        let mut looked = 0;
        while at.position < at.bound {
            self.stop.check()?;
            if self.dialect == Dialect::Sqlite && part.file >= 0 {
                match self
                    .next_row(pass, at.position)
                    .await
                    .map_err(|e| self.failed(e))?
                {
                    Some(next) if next < at.bound || at.bound == i64::MAX => {
                        walk.note(next.saturating_sub(at.position), 0);
                        at.position = next;
                    }
                    _ => {
                        // The pass has ended, and a repeat begins again at the first row.
                        at.position = at.bound;
                        checkpoint::save(
                            self.connection,
                            self.dialect,
                            self.version,
                            &part.name,
                            &at,
                        )
                        .await
                        .map_err(|e| self.failed(e))?;
                        break;
                    }
                }
            }
            let to = at.position.saturating_add(step).min(at.bound);
            let started = Instant::now();
            let next = self
                .until_free(walk, part, &at, to, &mut looked, is_still_planned)
                .await?;
            let took = started.elapsed();
            walk.note(to.saturating_sub(at.position), next.rows - at.rows);
            at = next;
            step = next_step(step, took, self.batch).max(floor);
            self.observer.note(Event::Backfill(walk.progress()));
            if at.position < at.bound {
                self.keep_pace(walk, part).await?;
            }
        }
        Ok((at.rows - before).unsigned_abs())
    }

    /// Nobody writes while a run holds, whoever notices the reason first.
    async fn keep_pace(&self, walk: &Walk<'_>, part: &Part<'_>) -> Result<()> {
        self.pace.rest_after_a_batch().await?;
        if !self.pace.is_due() {
            return Ok(());
        }
        let _closed = walk.gate.write().await;
        let idle = (!self.workers.is_empty()).then_some(part.connection);
        if self.pace.hold(idle).await? {
            walk.let_in.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One batch, again while somebody's lock is in its way.
    async fn until_free(
        &self,
        walk: &Walk<'_>,
        part: &Part<'_>,
        at: &Checkpoint,
        to: i64,
        looked: &mut u64,
        is_still_planned: &impl AsyncFn() -> Result<bool>,
    ) -> Result<Checkpoint> {
        let sql = walk.pass.batch(&self.range(walk.pass, at, to));
        let mut poll = None;
        loop {
            let open = self.opened(walk, part).await?;
            // Behind the gate, so that nobody is let in between the look and the batch.
            let let_in = walk.let_in.load(Ordering::Relaxed);
            if *looked != let_in {
                *looked = let_in;
                if !is_still_planned().await? {
                    return Err(Error::Moved {
                        version: self.version.to_owned(),
                    });
                }
            }
            let poll = poll.get_or_insert_with(|| self.patience.poll());
            let error = match self.batch(part, &sql, at, to).await {
                Ok(next) => return Ok(next),
                Err(error) => error,
            };
            drop(open);
            // An owner that was deleted between the look and the write is not there for the next look.
            if !(is_busy(&error) || is_foreign_key_violation(&error)) {
                return Err(self.failed(error));
            }
            let closed = walk.gate.write().await;
            walk.let_in.fetch_add(1, Ordering::Relaxed);
            if !self.patience.rest(poll).await? {
                return Err(self.failed(error));
            }
            drop(closed);
            tracing::debug!(%error, "a batch backs off");
        }
    }

    /// Waits until nobody holds, without letting the connection be forgotten meanwhile.
    async fn opened<'w>(
        &self,
        walk: &'w Walk<'_>,
        part: &Part<'_>,
    ) -> Result<RwLockReadGuard<'w, ()>> {
        loop {
            tokio::select! {
                biased;
                open = walk.gate.read() => return Ok(open),
                () = tokio::time::sleep(SAY) => {}
            }
            self.stop.check()?;
            keep_alive(part.connection).await?;
        }
    }

    async fn batch(
        &self,
        part: &Part<'_>,
        sql: &str,
        at: &Checkpoint,
        to: i64,
    ) -> std::result::Result<Checkpoint, DbErr> {
        let begun = Instant::now();
        let transaction = part.connection.begin().await?;
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
                &part.name,
                &next,
            ))
            .await?;
        self.held.since(begun, Blocks::Rows);
        Ok(next)
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
