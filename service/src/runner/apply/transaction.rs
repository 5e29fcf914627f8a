//! One transaction of a step: lock, look again, work, record.

use std::collections::BTreeMap;
use std::time::Instant;

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::plan::{Blocks, Created, Guard, Step, Unit};
use tollgate_migration::{Dialect, Migration};

use super::violations::{expect_foreign_keys_off, violations};
use super::{Applier, Changes, Course, millis};
use crate::connection::Transaction;
use crate::error::{Error, Result};
use crate::history::{self, Entry, Origin};
use crate::observer::Event;
use crate::retry::{for_rows, is_busy};
use crate::runner::checkpoint::{self, Direction};
use crate::runner::lock_timer::LockTimer;
use crate::runner::strong::{Strong, was_busy};

/// Why a transaction ended without committing.
enum Abort {
    Database(DbErr),
    /// The tables were not to be had in time.
    Busy(DbErr),
    Guard {
        code: String,
        table: String,
        ids: Vec<String>,
    },
    Violations(String),
    Error(Error),
}

impl From<DbErr> for Abort {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl Abort {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => is_busy(error),
            Self::Busy(_) => true,
            _ => false,
        }
    }

    fn into_error(self, migration: &Migration) -> Error {
        match self {
            Self::Database(source) | Self::Busy(source) => {
                Error::migration(migration.version, source)
            }
            Self::Guard { code, .. } if code == Guard::AGAIN => Error::Moved {
                version: migration.version.to_owned(),
            },
            Self::Guard { code, table, ids } => {
                crate::doctor::refusal_under_lock(&code, &table, ids)
            }
            Self::Violations(what) => Error::refused(
                "foreign_key_violation",
                format!(
                    "{} would leave rows without their parent: {what}",
                    migration.version
                ),
                "nothing was changed; see `tollgate doctor`",
            ),
            Self::Error(error) => error,
        }
    }
}

/// What a transaction does at its end, where it is the step's last.
pub(super) struct Ending<'a> {
    pub created: &'a Created,
    pub begun: Instant,
    pub rows_before: u64,
}

/// One transaction of a step.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub course: &'a Course<'a>,
    pub steps: &'a [Step],
    pub rebuilds: &'a [String],
    /// What the step creates, where this transaction is its first of several.
    pub opening: Option<&'a Created>,
    pub ending: Option<&'a Ending<'a>>,
}

impl Applier<'_> {
    /// Runs it, again while somebody is in the way.
    pub(super) async fn transaction(&self, piece: Piece<'_>, held: &LockTimer) -> Result<u64> {
        if !piece.rebuilds.is_empty() {
            // The pragma is ignored inside a transaction, and dropping a parent with it on deletes its children.
            self.foreign_keys(false).await?;
        }
        let outcome = self.until_free(piece, held).await;
        if !piece.rebuilds.is_empty() {
            self.foreign_keys(true).await?;
        }
        outcome
    }

    async fn until_free(&self, piece: Piece<'_>, held: &LockTimer) -> Result<u64> {
        let mut poll = self.patience.poll();
        loop {
            let abort = match self.attempt(piece, held).await {
                Ok(rows) => return Ok(rows),
                Err(abort) => abort,
            };
            if !abort.is_transient() || !self.patience.rest(&mut poll).await? {
                return Err(abort.into_error(piece.course.migration));
            }
            tracing::info!("a table is busy; backing off and trying again");
        }
    }

    async fn foreign_keys(&self, on: bool) -> Result<()> {
        let word = if on { "ON" } else { "OFF" };
        self.connection
            .execute_unprepared(&format!("PRAGMA foreign_keys = {word}"))
            .await
            .map(|_| ())
            .map_err(Error::database(format!("turn foreign keys {word}")))
    }

    /// Whether the plan is still what this database needs, now that nobody can change it. Between the plan and the locks a
    /// gateway may have migrated.
    async fn is_still_planned(
        &self,
        transaction: &Transaction,
        piece: Piece<'_>,
    ) -> std::result::Result<bool, Abort> {
        let plan = self
            .plan(transaction, piece.course)
            .await
            .map_err(Abort::Error)?;
        let units = self.units(&plan);
        let same = |unit: &Unit| matches!(unit, Unit::Transaction(steps) if steps == piece.steps);
        Ok(match piece.ending {
            None => units.iter().any(same),
            Some(_) if piece.steps.is_empty() => {
                !matches!(units.last(), Some(Unit::Transaction(_)))
            }
            Some(_) => units.last().is_some_and(same),
        })
    }

    async fn attempt(&self, piece: Piece<'_>, held: &LockTimer) -> std::result::Result<u64, Abort> {
        let mut begun = Instant::now();
        let transaction = self.connection.begin().await?;
        if self.dialect == Dialect::Postgres {
            let strong = Strong::of(piece.steps, &transaction).await?;
            if strong.is_empty() {
                transaction.execute_unprepared(&for_rows()).await?;
            } else {
                strong.take(&transaction).await.map_err(|error| {
                    if was_busy(&error) {
                        Abort::Busy(error)
                    } else {
                        Abort::Database(error)
                    }
                })?;
                begun = Instant::now();
            }
        }
        if !self.is_still_planned(&transaction, piece).await? {
            return Err(Abort::Error(Error::Moved {
                version: piece.course.migration.version.to_owned(),
            }));
        }
        if let Some(created) = piece.opening {
            self.announce(&transaction, piece.course, created).await?;
        }
        let before = if piece.rebuilds.is_empty() {
            BTreeMap::new()
        } else {
            expect_foreign_keys_off(&transaction).await?;
            violations(&transaction, piece.rebuilds).await?
        };
        if self.dialect == Dialect::Sqlite {
            // Views and triggers elsewhere are neither read nor rewritten, broken ones included; the doctor has looked
            // for those that depend on what goes.
            transaction
                .execute_unprepared("PRAGMA legacy_alter_table = ON")
                .await?;
        }
        let (rows, counts) = self.work(&transaction, piece.steps).await?;
        if !piece.rebuilds.is_empty() {
            for (place, count) in violations(&transaction, piece.rebuilds).await? {
                let known = before.get(&place).copied().unwrap_or_default();
                if count > known {
                    return Err(Abort::Violations(format!(
                        "{} rows of {} whose {} is gone",
                        count - known,
                        place.0,
                        place.1
                    )));
                }
            }
        }
        if let Some(ending) = piece.ending {
            self.end(&transaction, piece.course, ending, rows).await?;
        }
        if self.dialect == Dialect::Sqlite {
            transaction
                .execute_unprepared("PRAGMA legacy_alter_table = OFF")
                .await?;
        }
        transaction.commit().await?;
        let blocks = piece
            .steps
            .iter()
            .map(|step| match step {
                Step::Run(statement) => statement.blocks,
                Step::Guard(_) => Blocks::Nothing,
                Step::InsertWithUuids(_) => Blocks::Rows,
            })
            .max();
        held.since(begun, blocks.unwrap_or(Blocks::Nothing));
        for ((table, action), count) in counts {
            self.changed(&table, action, count);
        }
        Ok(rows)
    }

    async fn work(
        &self,
        transaction: &Transaction,
        steps: &[Step],
    ) -> std::result::Result<(u64, Changes), Abort> {
        let mut rows = 0;
        let mut counts = Changes::new();
        for step in steps {
            match step {
                Step::Run(statement) => {
                    self.observer.note(Event::Step(statement.purpose.clone()));
                    let affected = transaction
                        .execute_unprepared(&statement.sql)
                        .await?
                        .rows_affected();
                    if let Some((table, action)) = &statement.counted {
                        rows += affected;
                        *counts.entry((table.clone(), action.word())).or_default() += affected;
                    }
                }
                Step::Guard(guard) => ask(transaction, self.dialect, guard).await?,
                Step::InsertWithUuids(insert) => {
                    self.observer.note(Event::Step(insert.purpose.clone()));
                    let found = insert.made_for(transaction, self.dialect).await?;
                    if !found.is_empty() {
                        let made = transaction
                            .execute_raw(insert.statement(self.dialect, &found))
                            .await?
                            .rows_affected();
                        rows += made;
                        *counts.entry((insert.table.clone(), "insert")).or_default() += made;
                    }
                }
            }
        }
        Ok((rows, counts))
    }

    /// Records the step, or takes it out of the history: exactly one row, or what is recorded is not what was read.
    async fn end(
        &self,
        transaction: &Transaction,
        course: &Course<'_>,
        ending: &Ending<'_>,
        rows: u64,
    ) -> std::result::Result<(), DbErr> {
        let version = course.migration.version;
        match course.direction {
            Direction::Up => {
                if course.before.is_some_and(|step| step.listed) {
                    self.forget(transaction, version).await?;
                }
                let entry = Entry {
                    version: version.to_owned(),
                    applied_at: self.session.clock.now().timestamp(),
                    origin: if ending.created.gateway {
                        Origin::Gateway
                    } else {
                        Origin::Tollgate
                    },
                    created: ending.created.clone(),
                    duration_ms: millis(ending.begun.elapsed()),
                    rows: i64::try_from(ending.rows_before + rows).unwrap_or(i64::MAX),
                    tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                history::record(transaction, self.track, &entry).await?;
            }
            // A step of several transactions has gone out of the history with its first.
            Direction::Down if course.is_listed() => {
                self.forget(transaction, version).await?;
            }
            Direction::Down => {}
        }
        checkpoint::clear(transaction, self.dialect, version).await
    }

    pub(super) async fn forget(
        &self,
        transaction: &Transaction,
        version: &str,
    ) -> std::result::Result<(), DbErr> {
        match history::forget(transaction, self.track, version).await? {
            1 => Ok(()),
            other => Err(DbErr::Custom(format!(
                "the history had {other} rows for {version}, and should have one"
            ))),
        }
    }
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
