//! Runs one plan and records it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Transaction};
use backon::Retryable;
use chrono::Utc;
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::plan::{Blocks, Created, Guard, Plan, Split, Statement, Step, Unit};
use tollgate_migration::{Dialect, Migration, Track};

use super::engine::Engine;
use super::held::Held;
use super::{checkpoint, split};
use crate::error::{Error, Result};
use crate::history::{self, Entry};
use crate::lock::Lock;
use crate::observer::{Event, Observer};
use crate::reconcile::header_keys::{self, How};
use crate::report::Applied;
use crate::retry::{backoff, is_transient};
use crate::stop::Stop;

/// Below `deadlock_timeout`, so that Tollgate gives way and not the gateway.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '500ms'";

/// Rows by table and what was done to them.
pub(super) type Changes = BTreeMap<(String, &'static str), u64>;

/// What a statement does to rows: its first verb.
fn action(sql: &str) -> &'static str {
    [
        ("INSERT INTO ", "insert"),
        ("UPDATE ", "update"),
        ("DELETE FROM ", "delete"),
    ]
    .into_iter()
    .filter_map(|(verb, action)| Some((sql.find(verb)?, action)))
    .min()
    .map_or("update", |(_, action)| action)
}

/// Everything that applying needs besides the plan.
pub(super) struct Applier<'a> {
    pub connection: &'a Connection,
    pub dialect: Dialect,
    pub track: Track,
    pub lock: &'a Lock,
    pub batch: Duration,
    pub observer: &'a dyn Observer,
    pub stop: &'a Stop,
    /// What was changed, filled as transactions commit.
    pub changes: &'a std::sync::Mutex<Changes>,
}

/// Whether the plan is to be recorded as applied or taken out of the history.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Why a transaction ended without committing.
enum Abort {
    Database(DbErr),
    Guard {
        code: String,
        table: String,
        ids: Vec<String>,
    },
    Violations(String),
}

impl From<DbErr> for Abort {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

/// What one transaction does at its end.
struct Ending<'a> {
    direction: Direction,
    migration: &'a Migration,
    created: &'a Created,
    begun: Instant,
    rows_before: u64,
}

impl Applier<'_> {
    /// Applies a migration and records it, both in one transaction or the record in the last of several.
    pub(super) async fn up(&self, migration: &Migration, plan: &Plan) -> Result<Applied> {
        self.run(Direction::Up, migration, plan).await
    }

    /// Undoes a migration and takes it out of the history.
    pub(super) async fn down(&self, migration: &Migration, plan: &Plan) -> Result<Applied> {
        self.run(Direction::Down, migration, plan).await
    }

    async fn run(
        &self,
        direction: Direction,
        migration: &Migration,
        plan: &Plan,
    ) -> Result<Applied> {
        let begun = Instant::now();
        self.observer.note(Event::Migration {
            version: migration.version.to_owned(),
            summary: migration.summary.to_owned(),
        });
        let failed = |source| Error::migration(migration.version, source);
        let units = self.units(plan);
        let mut created = Created::default();
        if direction == Direction::Up {
            // A run that failed behind its last transaction leaves nothing to plan, and still something to record.
            created = checkpoint::announced(self.connection, self.dialect, migration.version)
                .await
                .map_err(failed)?;
        }
        created.merge(&plan.created);
        if units.len() > 1 || !matches!(units.first(), Some(Unit::Transaction(_)) | None) {
            checkpoint::ensure(self.connection, self.dialect)
                .await
                .map_err(failed)?;
            if direction == Direction::Up {
                checkpoint::announce(self.connection, self.dialect, migration.version, &created)
                    .await
                    .map_err(failed)?;
            }
        }
        let mut rows = 0;
        let mut left = 0;
        let held = Held::default();
        let (last, first) = match units.split_last() {
            Some((Unit::Transaction(steps), first)) => (steps.as_slice(), first),
            Some(_) => (&[][..], units.as_slice()),
            None => (&[][..], &[][..]),
        };
        for unit in first {
            self.stop.check()?;
            match unit {
                Unit::Transaction(steps) => {
                    rows += self.transaction(migration, steps, &[], None, &held).await?;
                }
                Unit::Alone(statement) => {
                    self.observer.note(Event::Step(statement.purpose.clone()));
                    let begun = Instant::now();
                    self.alone(statement).await?.map_err(failed)?;
                    held.since(begun, statement.blocks);
                }
                Unit::Split(split) => {
                    self.observer.note(Event::Step(split.purpose.clone()));
                    let copies = self.split(split, &held).await?.map_err(failed)?;
                    rows += copies;
                    self.changed(Split::TABLE, "clone", copies);
                }
                Unit::Fold(fold) => {
                    self.observer.note(Event::Step(format!(
                        "header keys of {} in lower case",
                        fold.table
                    )));
                    let how = How {
                        all: true,
                        write: true,
                    };
                    let walked =
                        header_keys::walk(self.connection, self.dialect, fold, how, self.stop)
                            .await?;
                    rows += walked.folded;
                    self.changed(fold.table, "update", walked.folded);
                }
                Unit::Backfill(pass) => {
                    let engine = Engine {
                        connection: self.connection,
                        dialect: self.dialect,
                        version: migration.version,
                        batch: self.batch,
                        observer: self.observer,
                        stop: self.stop,
                        held: &held,
                    };
                    let (changed, behind) = engine.run(pass).await?;
                    rows += changed;
                    left += behind;
                    self.changed(&pass.changes, action(&pass.sql), changed);
                }
            }
        }
        self.stop.check()?;
        let ending = Ending {
            direction,
            migration,
            created: &created,
            begun,
            rows_before: rows,
        };
        rows += self
            .transaction(migration, last, &plan.rebuilds, Some(&ending), &held)
            .await?;
        let duration = begun.elapsed();
        let (longest_lock_ms, blocks) = held.longest();
        self.observer.note(Event::Applied {
            version: migration.version.to_owned(),
            duration,
            rows,
        });
        Ok(Applied {
            version: migration.version.to_owned(),
            phase: migration.phase,
            duration_ms: millis(duration).unsigned_abs(),
            rows,
            left,
            longest_lock_ms,
            blocks,
        })
    }

    /// Runs a statement that refuses a transaction. No lock timeout: a concurrent build waits for transactions, and
    /// blocks nobody meanwhile.
    async fn alone(&self, statement: &Statement) -> Result<std::result::Result<(), DbErr>> {
        self.lock.let_gateway_in().await?;
        let outcome = self.connection.execute_alone(&statement.sql).await;
        self.lock.keep_gateway_out(self.stop).await?;
        Ok(outcome)
    }

    /// Makes the copies of shared budgets; returns how many. Looked at again until nobody needs one: an owner that gets
    /// its copy back may find somebody else there. Each round ends a sharing, so the rounds are few; the bound is for a
    /// gateway that shares faster than it is followed.
    async fn split(&self, split: &Split, held: &Held) -> Result<std::result::Result<u64, DbErr>> {
        const ROUNDS: usize = 20;
        let mut copies = 0;
        for _ in 0..ROUNDS {
            if let Err(error) = split::stage(self.connection, split).await {
                return Ok(Err(error));
            }
            let before = copies;
            loop {
                self.stop.check()?;
                let begun = Instant::now();
                match split::page(self.connection, self.dialect, split).await {
                    Ok(0) => break,
                    Ok(made) => {
                        held.since(begun, Blocks::Rows);
                        copies += made;
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            if copies == before {
                break;
            }
        }
        Ok(Ok(copies))
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

    async fn transaction(
        &self,
        migration: &Migration,
        steps: &[Step],
        rebuilds: &[String],
        ending: Option<&Ending<'_>>,
        held: &Held,
    ) -> Result<u64> {
        if !rebuilds.is_empty() {
            // The pragma is ignored inside a transaction, and dropping a parent with it on deletes its children.
            self.foreign_keys(false).await?;
        }
        let outcome = (|| self.attempt(steps, rebuilds, ending, held))
            .retry(backoff())
            .when(|abort| matches!(abort, Abort::Database(error) if is_transient(error)))
            .notify(|_, pause| {
                tracing::info!(?pause, "a table is busy; giving way and trying again");
            })
            .await;
        if !rebuilds.is_empty() {
            self.foreign_keys(true).await?;
        }
        outcome.map_err(|abort| match abort {
            Abort::Database(source) => Error::migration(migration.version, source),
            Abort::Guard { code, table, ids } => {
                crate::doctor::refusal_under_lock(&code, &table, ids)
            }
            Abort::Violations(what) => Error::refused(
                "foreign_key_violation",
                format!(
                    "{} would leave rows without their parent: {what}",
                    migration.version
                ),
                "nothing was changed; see `tollgate doctor`",
            ),
        })
    }

    async fn foreign_keys(&self, on: bool) -> Result<()> {
        let word = if on { "ON" } else { "OFF" };
        self.connection
            .execute_unprepared(&format!("PRAGMA foreign_keys = {word}"))
            .await
            .map(|_| ())
            .map_err(Error::database(format!("turn foreign keys {word}")))
    }

    async fn attempt(
        &self,
        steps: &[Step],
        rebuilds: &[String],
        ending: Option<&Ending<'_>>,
        held: &Held,
    ) -> std::result::Result<u64, Abort> {
        let begun = Instant::now();
        let transaction = self.connection.begin().await?;
        if self.dialect == Dialect::Postgres {
            transaction.execute_unprepared(LOCK_TIMEOUT).await?;
        }
        let violations = if rebuilds.is_empty() {
            BTreeMap::new()
        } else {
            expect_foreign_keys_off(&transaction).await?;
            violations(&transaction, rebuilds).await?
        };
        let mut rows = 0;
        let mut counts = Changes::new();
        if self.dialect == Dialect::Sqlite {
            // Views and triggers elsewhere are neither read nor rewritten, broken ones included; the doctor has looked
            // for those that depend on what goes.
            transaction
                .execute_unprepared("PRAGMA legacy_alter_table = ON")
                .await?;
        }
        for step in steps {
            match step {
                Step::Run(statement) => {
                    self.observer.note(Event::Step(statement.purpose.clone()));
                    let affected = transaction
                        .execute_unprepared(&statement.sql)
                        .await?
                        .rows_affected();
                    if let Some(table) = &statement.counted {
                        rows += affected;
                        *counts
                            .entry((table.clone(), action(&statement.sql)))
                            .or_default() += affected;
                    }
                }
                Step::Guard(guard) => ask(&transaction, self.dialect, guard).await?,
                Step::Mint(mint) => {
                    self.observer.note(Event::Step(mint.purpose.clone()));
                    let found = mint.made_for(&transaction, self.dialect).await?;
                    if !found.is_empty() {
                        let made = transaction
                            .execute_unprepared(&mint.statement(self.dialect, &found))
                            .await?
                            .rows_affected();
                        rows += made;
                        *counts.entry((mint.table.clone(), "insert")).or_default() += made;
                    }
                }
            }
        }
        if !rebuilds.is_empty() {
            let after = self::violations(&transaction, rebuilds).await?;
            for (place, count) in after {
                let before = violations.get(&place).copied().unwrap_or_default();
                if count > before {
                    return Err(Abort::Violations(format!(
                        "{} rows of {} whose {} is gone",
                        count - before,
                        place.0,
                        place.1
                    )));
                }
            }
        }
        if let Some(ending) = ending {
            self.end(&transaction, ending, rows).await?;
        }
        if self.dialect == Dialect::Sqlite {
            transaction
                .execute_unprepared("PRAGMA legacy_alter_table = OFF")
                .await?;
        }
        transaction.commit().await?;
        let blocks = steps
            .iter()
            .map(|step| match step {
                Step::Run(statement) => statement.blocks,
                Step::Guard(_) => Blocks::Nothing,
                Step::Mint(_) => Blocks::Rows,
            })
            .max();
        held.since(begun, blocks.unwrap_or(Blocks::Nothing));
        for ((table, action), count) in counts {
            self.changed(&table, action, count);
        }
        Ok(rows)
    }

    async fn end(
        &self,
        transaction: &Transaction,
        ending: &Ending<'_>,
        rows: u64,
    ) -> std::result::Result<(), DbErr> {
        let version = ending.migration.version;
        match ending.direction {
            Direction::Up => {
                let entry = Entry {
                    version: version.to_owned(),
                    applied_at: Utc::now().timestamp(),
                    adopted: false,
                    created: ending.created.clone(),
                    duration_ms: millis(ending.begun.elapsed()),
                    rows: i64::try_from(ending.rows_before + rows).unwrap_or(i64::MAX),
                };
                history::record(transaction, self.dialect, self.track, &entry).await?;
            }
            Direction::Down => {
                history::forget(transaction, self.dialect, self.track, version).await?;
            }
        }
        checkpoint::clear(transaction, self.dialect, version).await
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

async fn ask(
    transaction: &Transaction,
    dialect: Dialect,
    guard: &Guard,
) -> std::result::Result<(), Abort> {
    let found = transaction
        .query_all_raw(sea_orm::Statement::from_string(
            dialect.backend(),
            guard.sql.clone(),
        ))
        .await?;
    if found.is_empty() {
        return Ok(());
    }
    let ids = found
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<std::result::Result<Vec<String>, DbErr>>()?;
    Err(Abort::Guard {
        code: guard.code.clone(),
        table: guard.table.clone(),
        ids,
    })
}

async fn expect_foreign_keys_off(transaction: &Transaction) -> std::result::Result<(), DbErr> {
    let row = transaction
        .query_one_raw(sea_orm::Statement::from_string(
            Dialect::Sqlite.backend(),
            "SELECT foreign_keys AS setting FROM pragma_foreign_keys",
        ))
        .await?;
    let on: i32 = row.map_or(Ok(1), |row| row.try_get("", "setting"))?;
    if on != 0 {
        return Err(DbErr::Custom(
            "foreign keys could not be turned off, and rebuilding a table would delete its children"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Rows without their parent, by table and parent, in the rebuilt tables and in those that refer to them. A key whose
/// parent columns are not unique cannot be checked by SQLite either, and is passed over.
async fn violations(
    transaction: &Transaction,
    rebuilds: &[String],
) -> std::result::Result<BTreeMap<(String, String), i64>, DbErr> {
    let dialect = Dialect::Sqlite;
    let names: Vec<String> = rebuilds.iter().map(|name| dialect.text(name)).collect();
    let names = names.join(", ");
    let sql = format!(
        "SELECT m.name AS name FROM sqlite_schema m WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' \
         AND (m.name IN ({names}) OR EXISTS \
         (SELECT 1 FROM pragma_foreign_key_list(m.name) l WHERE l.\"table\" IN ({names})))"
    );
    let query = |sql: String| sea_orm::Statement::from_string(dialect.backend(), sql);
    let mut found = BTreeMap::new();
    // One query per table with a key to a rebuilt one: bounded by the schema, not by the rows. Together, one key that
    // cannot be checked would fail them all.
    for table in transaction.query_all_raw(query(sql)).await? {
        let child: String = table.try_get("", "name")?;
        let checked = transaction
            .query_all_raw(query(format!(
                "SELECT parent, count(*) AS violations FROM pragma_foreign_key_check({}) GROUP BY parent",
                dialect.text(&child)
            )))
            .await;
        let rows = match checked {
            Err(error) if error.to_string().contains("foreign key mismatch") => continue,
            checked => checked?,
        };
        for row in rows {
            found.insert(
                (child.clone(), row.try_get("", "parent")?),
                row.try_get("", "violations")?,
            );
        }
    }
    Ok(found)
}
