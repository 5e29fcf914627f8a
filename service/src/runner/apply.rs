//! Runs one plan and records it.

mod transaction;
mod violations;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::plan::{Backfill, Created, Plan, Statement, Unit};
use tollgate_migration::{Dialect, Migration, Track};

use super::Session;
use super::checkpoint::{self, Direction, InProgress};
use super::engine::Engine;
use super::lock_timer::LockTimer;
use super::options::{self, live};
use super::pace::Pace;
use super::paged::Pages;
use super::patience::Patience;
use crate::connection::{Connection, Transaction};
use crate::drift;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::Lock;
use crate::observer::{Event, Observer};
use crate::report::Applied;
use crate::retry::for_rows;
use crate::shutdown::ShutdownSignal;
use transaction::{Ending, Piece};

/// Rows by table and what was done to them.
pub(super) type Changes = BTreeMap<(String, &'static str), u64>;

/// Everything that applying needs besides the step.
pub(super) struct Applier<'a> {
    pub connection: &'a Connection,
    pub session: &'a Session,
    /// On how many connections a backfill works at once.
    pub parallel: usize,
    /// What it does between two batches.
    pub pace: &'a Pace<'a>,
    pub dialect: Dialect,
    pub track: Track,
    pub lock: &'a Lock,
    /// How it waits for tables that somebody else has locked.
    pub patience: Patience<'a>,
    pub batch: Duration,
    /// What the operator chose, for plans that are made again.
    pub options: &'a options::Options,
    pub observer: &'a dyn Observer,
    pub stop: &'a ShutdownSignal,
    /// What was changed, filled as transactions commit.
    pub changes: &'a std::sync::Mutex<Changes>,
}

/// A step that is applied or undone.
pub(super) struct Course<'a> {
    pub direction: Direction,
    pub migration: &'static Migration,
    /// The history before it.
    pub history: &'a History,
    /// What an earlier run of it is on record for.
    pub before: Option<&'a InProgress>,
    /// Whether this run has put it on record already.
    pub announced: bool,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        direction: Direction,
        migration: &'static Migration,
        history: &'a History,
    ) -> Self {
        Self {
            direction,
            migration,
            history,
            before: history
                .in_progress
                .as_ref()
                .filter(|step| step.version == migration.version),
            announced: false,
        }
    }

    /// Whether the history has a row for it that this run has not taken out.
    fn is_listed(&self) -> bool {
        !self.announced
            && (self.history.entries.contains_key(self.migration.version)
                || self.before.is_some_and(|step| step.listed))
    }

    /// What a run of this step has created so far, as far as it is on record.
    fn created(&self) -> Created {
        let recorded = self
            .history
            .entries
            .get(self.migration.version)
            .map(|entry| &entry.created);
        let begun = self.before.map(|step| &step.created);
        begun.or(recorded).cloned().unwrap_or_default()
    }
}

impl Applier<'_> {
    /// The plan for the database as it is now.
    async fn plan<C: ConnectionTrait>(&self, connection: &C, course: &Course<'_>) -> Result<Plan> {
        let context = live(connection, course.history, self.options).await?;
        Ok(match course.direction {
            Direction::Up => {
                let mut plan = course.migration.plan_up(&context).0;
                // A hand-over says what the ledger will be; everything else leaves it as it is.
                if plan.created.ledger.is_none() {
                    plan.created.ledger = context.ledger(self.track).newest();
                }
                // What this step has begun with is its own, and its ledger may say so already.
                plan.created.gateway &= course.before.is_none() && !course.announced;
                if plan.created.gateway {
                    // As the gateway has them now; what a hand does to them later is drift all the same.
                    plan.created.tolerated =
                        drift::as_left(&context.catalog, self.track, course.migration.version)
                            .into_iter()
                            .map(|difference| (difference.object, difference.live))
                            .collect();
                }
                plan
            }
            Direction::Down => course.migration.plan_down(&context, &course.created()).0,
        })
    }

    /// Applies or undoes a step: all of it in one transaction with its record; or in several, on record from the first to
    /// the last as a step in progress. Where the schema moved while it waited, it is planned again.
    pub(super) async fn run(&self, mut course: Course<'_>) -> Result<Applied> {
        /// A gateway that migrates at boot does so once; more often than this somebody works against us.
        const PLANS: usize = 3;
        let begun = Instant::now();
        self.observer.note(Event::Migration {
            version: course.migration.version.to_owned(),
            summary: course.migration.summary.to_owned(),
        });
        let mut so_far = 0;
        // A run that failed behind its last transaction leaves nothing to plan, and still something to record.
        let mut created = match course.direction {
            Direction::Up => course
                .before
                .map(|step| step.created.clone())
                .unwrap_or_default(),
            Direction::Down => course.created(),
        };
        let mut round = 1;
        loop {
            let plan = self
                .patience
                .load(async || self.plan(self.connection, &course).await)
                .await?;
            if course.direction == Direction::Up {
                created.merge(&plan.created);
            }
            match self
                .once(&mut course, &plan, &created, begun, &mut so_far)
                .await
            {
                Ok(Some(applied)) => return Ok(applied),
                // It held, and gateways may have migrated meanwhile.
                Ok(None) => {}
                Err(Error::Moved { .. }) if round < PLANS => {
                    round += 1;
                    tracing::info!("the schema has changed meanwhile; planning again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a step of several transactions on record; one that goes down leaves the history here, for what is listed there
    /// stands as a whole.
    async fn announce(
        &self,
        transaction: &Transaction,
        course: &Course<'_>,
        created: &Created,
    ) -> std::result::Result<(), DbErr> {
        let version = course.migration.version;
        let step = InProgress {
            version: version.to_owned(),
            direction: course.direction,
            created: created.clone(),
            listed: false,
        };
        let turned = course
            .before
            .is_some_and(|before| before.direction != course.direction);
        checkpoint::ensure(transaction, self.dialect).await?;
        checkpoint::announce(transaction, self.dialect, &step, turned).await?;
        if course.direction == Direction::Down && course.is_listed() {
            self.forget(transaction, version).await?;
        }
        Ok(())
    }

    /// The units of a plan; none where it held, so that what is left is planned again.
    async fn once(
        &self,
        course: &mut Course<'_>,
        plan: &Plan,
        created: &Created,
        begun: Instant,
        so_far: &mut u64,
    ) -> Result<Option<Applied>> {
        let migration = course.migration;
        let failed = |source| Error::migration(migration.version, source);
        let units = self.units(plan);
        // The first transaction puts the step on record, so that one which fails at once leaves nothing.
        let mut opening =
            units.len() > 1 || !matches!(units.first(), Some(Unit::Transaction(_)) | None);
        let mut left = 0;
        let held = LockTimer::default();
        let (last, first) = match units.split_last() {
            Some((Unit::Transaction(steps), first)) => (steps.as_slice(), first),
            Some(_) => (&[][..], units.as_slice()),
            None => (&[][..], &[][..]),
        };
        for unit in first {
            if self.pace.hold(None).await? {
                return Ok(None);
            }
            if opening && !matches!(unit, Unit::Transaction(_)) {
                let transaction = self.connection.begin().await.map_err(failed)?;
                self.announce(&transaction, course, created)
                    .await
                    .map_err(failed)?;
                transaction.commit().await.map_err(failed)?;
                course.announced = true;
                opening = false;
            }
            let (changed, behind) = self
                .unit(course, unit, opening.then_some(created), &held)
                .await?;
            *so_far += changed;
            left += behind;
            if matches!(unit, Unit::Transaction(_)) {
                course.announced |= opening;
                opening = false;
            }
        }
        if self.pace.hold(None).await? {
            return Ok(None);
        }
        let ending = Ending {
            created,
            begun,
            rows_before: *so_far,
        };
        let piece = Piece {
            course,
            steps: last,
            rebuilds: &plan.rebuilds,
            opening: None,
            ending: Some(&ending),
        };
        *so_far += self.transaction(piece, &held).await?;
        let duration = begun.elapsed();
        let (longest_lock_ms, blocks) = held.longest();
        self.observer.note(Event::Applied {
            version: migration.version.to_owned(),
            duration,
            rows: *so_far,
        });
        Ok(Some(Applied {
            version: migration.version.to_owned(),
            phase: migration.phase,
            duration_ms: millis(duration).unsigned_abs(),
            rows: *so_far,
            left,
            longest_lock_ms,
            blocks,
        }))
    }

    /// One unit that is not the last: the rows that it changed, and those that it leaves to contract.
    async fn unit(
        &self,
        course: &Course<'_>,
        unit: &Unit,
        opening: Option<&Created>,
        held: &LockTimer,
    ) -> Result<(u64, u64)> {
        let version = course.migration.version;
        match unit {
            Unit::Transaction(steps) => {
                let piece = Piece {
                    course,
                    steps,
                    rebuilds: &[],
                    opening,
                    ending: None,
                };
                Ok((self.transaction(piece, held).await?, 0))
            }
            Unit::NonTransactional(statement) => {
                self.observer.note(Event::Step(statement.purpose.clone()));
                let begun = Instant::now();
                self.alone(statement)
                    .await?
                    .map_err(|source| Error::migration(version, source))?;
                held.since(begun, statement.blocks);
                Ok((0, 0))
            }
            Unit::Paged(step) => {
                self.observer.note(Event::Step(step.purpose().to_owned()));
                let pages = Pages {
                    connection: self.connection,
                    pace: self.pace,
                    step: &**step,
                    version,
                    stop: self.stop,
                    held,
                };
                let is_still_planned = async || {
                    let plan = self.plan(self.connection, course).await?;
                    Ok(plan.units.iter().any(
                        |unit| matches!(unit, Unit::Paged(planned) if planned.purpose() == step.purpose()),
                    ))
                };
                let changed = pages.run(&is_still_planned).await?;
                let (table, action) = step.changes();
                self.changed(table, action, changed);
                Ok((changed, 0))
            }
            Unit::Backfill(pass) => self.backfill(course, pass, held).await,
        }
    }

    async fn backfill(
        &self,
        course: &Course<'_>,
        pass: &Backfill,
        held: &LockTimer,
    ) -> Result<(u64, u64)> {
        let workers = self.lock.workers(self.session, self.parallel).await?;
        let engine = Engine {
            connection: self.connection,
            workers: &workers,
            dialect: self.dialect,
            version: course.migration.version,
            batch: self.batch,
            patience: self.patience,
            pace: self.pace,
            observer: self.observer,
            stop: self.stop,
            held,
        };
        let is_still_planned = async || {
            let plan = self.plan(self.connection, course).await?;
            Ok(plan
                .units
                .iter()
                .any(|unit| matches!(unit, Unit::Backfill(planned) if planned == pass)))
        };
        let (changed, behind) = engine.run(pass, &is_still_planned).await?;
        self.changed(&pass.changes, pass.action.word(), changed);
        Ok((changed, behind))
    }

    /// Runs a statement that refuses a transaction. No lock timeout: a concurrent build waits for transactions, and
    /// blocks nobody meanwhile.
    async fn alone(&self, statement: &Statement) -> Result<std::result::Result<(), DbErr>> {
        self.lock.let_gateway_in().await?;
        let outcome = self.connection.execute_alone(&statement.sql).await;
        if outcome.is_err()
            && let Some(index) = built_by(&statement.sql)
            && let Err(error) = self.drop_half_built(index).await
        {
            tracing::debug!(%error, index, "what is left of the index stays; the next run drops it");
        }
        self.lock.keep_gateway_out(self.stop).await?;
        Ok(outcome)
    }

    /// A concurrent build that was ended leaves an invalid index, which every write has to maintain and no query uses.
    async fn drop_half_built(&self, index: &str) -> std::result::Result<(), DbErr> {
        let transaction = self.connection.begin().await?;
        let invalid = transaction
            .query_one_raw(sea_orm::Statement::from_sql_and_values(
                self.dialect.backend(),
                "SELECT 1 AS one FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                 WHERE c.oid = to_regclass($1) AND NOT i.indisvalid",
                [index.into()],
            ))
            .await?;
        if invalid.is_some() {
            // Whoever the build waited for may be there still: this does not wait for them.
            transaction.execute_unprepared(&for_rows()).await?;
            transaction
                .execute_unprepared(&format!("DROP INDEX {index}"))
                .await?;
        }
        transaction.commit().await
    }

    fn changed(&self, table: &str, action: &'static str, rows: u64) {
        if rows > 0
            && let Ok(mut changes) = self.changes.lock()
        {
            *changes.entry((table.to_owned(), action)).or_default() += rows;
        }
    }

    /// On SQLite everything but batched backfills is one transaction.
    fn units(&self, plan: &Plan) -> Vec<Unit> {
        if self.dialect == Dialect::Postgres {
            return plan.units.clone();
        }
        let mut merged: Vec<Unit> = Vec::new();
        for unit in &plan.units {
            match (unit, merged.last_mut()) {
                (Unit::Transaction(steps), Some(Unit::Transaction(open))) => {
                    open.extend(steps.iter().cloned());
                }
                _ => merged.push(unit.clone()),
            }
        }
        merged
    }
}

/// The index that a statement builds, as it is written there.
fn built_by(sql: &str) -> Option<&str> {
    sql.strip_prefix("CREATE ")?
        .split(" ON ")
        .next()?
        .rsplit(' ')
        .next()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
