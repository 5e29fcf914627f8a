//! One step of a track.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::choice::{Choice, Choices};
use crate::ledger::{Ledger, Ledgers};
use crate::plan::{Created, Loss, Plan, Step, Unit};
use crate::script::PlanBuilder;
use crate::track::Track;

/// What a migration does to a running gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Adds; old code keeps working.
    Expand,
    /// Moves data, in batches.
    Backfill,
    /// Removes what only old code used.
    Contract,
}

impl Phase {
    /// The phase's word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Backfill => "backfill",
            Self::Contract => "contract",
        }
    }
}

/// When a migration was applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedStep {
    /// In seconds since 1970.
    pub at: i64,
    /// Whether it was recognised rather than run: what it makes may be older.
    pub is_adopted: bool,
}

/// What a migration may know when it makes its plan.
#[derive(Clone, Debug)]
pub struct Context {
    /// The live schema.
    pub catalog: Catalog,
    /// Ids in upstream's own `migrations` table; empty where there is none.
    pub upstream: Vec<String>,
    /// What each track's gateway has recorded.
    pub ledgers: Vec<(Track, Ledger)>,
    /// What the track's applied migrations created here, by version.
    pub history: BTreeMap<String, Created>,
    /// What the operator chose.
    pub choices: Choices,
    /// When they were applied, by version.
    pub applied: BTreeMap<String, AppliedStep>,
    /// When each kind of run last began, in seconds since 1970; read only where a track asks for it.
    pub last_runs: BTreeMap<String, i64>,
    /// The names of the tracks' questions about the rows whose answer is yes ([`Track::asks`]).
    pub answers: BTreeSet<&'static str>,
}

impl Context {
    /// Reads the schema and upstream's record of its own migrations.
    ///
    /// # Errors
    /// Whatever the database answers; nothing is written.
    pub async fn read<C: ConnectionTrait>(connection: &C) -> Result<Self, DbErr> {
        let catalog = Catalog::read(connection).await?;
        let ledgers = Ledgers::read(connection, &catalog).await?;
        let mut answers = BTreeSet::new();
        // As many as the tracks declare.
        for (name, ask) in Track::all().iter().flat_map(|track| track.asks()) {
            let Some(sql) = ask(&catalog) else { continue };
            let sql = sea_orm::Statement::from_string(catalog.dialect.backend(), sql);
            if connection.query_one_raw(sql).await?.is_some() {
                answers.insert(*name);
            }
        }
        Ok(Self {
            upstream: ledgers.ids.clone().unwrap_or_default(),
            ledgers: Track::all()
                .iter()
                .map(|&track| (track, ledgers.of(track, &catalog)))
                .collect(),
            catalog,
            history: BTreeMap::new(),
            choices: Choices::none(),
            applied: BTreeMap::new(),
            last_runs: BTreeMap::new(),
            answers,
        })
    }

    /// What a track's gateway has recorded of its own migrations.
    pub fn ledger(&self, track: Track) -> &Ledger {
        self.ledgers
            .iter()
            .find(|(known, _)| *known == track)
            .map_or(&Ledger::None, |(_, ledger)| ledger)
    }

    /// Whether the operator chose that.
    pub fn chose(&self, choice: &Choice) -> bool {
        self.choices.has(choice)
    }

    /// When one of the track's migrations was applied here.
    pub fn applied(&self, slug: &str) -> Option<AppliedStep> {
        self.applied
            .iter()
            .find(|(version, _)| slug_of(version) == slug)
            .map(|(_, step)| *step)
    }

    /// Whether upstream has recorded one of its own migrations.
    pub fn upstream_ran(&self, id: &str) -> bool {
        self.upstream.iter().any(|found| found == id)
    }

    /// What one of the track's migrations created here; `None` while it is pending.
    pub fn created(&self, slug: &str) -> Option<&Created> {
        self.history
            .iter()
            .find(|(version, _)| slug_of(version) == slug)
            .map(|(_, created)| created)
    }
}

/// The part of a version behind its date and number.
pub fn slug_of(version: &str) -> &str {
    version.splitn(3, '_').nth(2).unwrap_or(version)
}

/// One step of a track: a function from what the database looks like to what will be done.
pub struct Migration {
    /// `mYYYYMMDD_NNNNNN_slug`.
    pub version: &'static str,
    /// What it does to a running gateway.
    pub phase: Phase,
    /// What it does, as one line.
    pub summary: &'static str,
    /// Emits the statements that are still missing.
    pub up: fn(&Context, &mut PlanBuilder),
    /// Emits the statements that undo what `up` created here.
    pub down: fn(&Context, &Created, &mut PlanBuilder),
    /// What `down` would lose, asked before its first statement. The context is that of the whole run.
    pub losses: fn(&Context, &Created) -> Vec<Loss>,
}

impl Migration {
    /// The part of the version behind its date and number.
    pub fn slug(&self) -> &'static str {
        slug_of(self.version)
    }

    /// The plan for a database, and the context as it will be afterwards.
    pub fn plan_up(&self, context: &Context) -> (Plan, Context) {
        let mut script = PlanBuilder::new(&context.catalog);
        (self.up)(context, &mut script);
        let (plan, catalog) = script.finish();
        let mut after = context.clone();
        after.catalog = catalog;
        after
            .history
            .insert(self.version.to_owned(), plan.created.clone());
        (plan, after)
    }

    /// The plan that undoes what `up` created, and the context as it will be afterwards.
    pub fn plan_down(&self, context: &Context, created: &Created) -> (Plan, Context) {
        let mut script = PlanBuilder::new(&context.catalog);
        (self.down)(context, created, &mut script);
        let (plan, catalog) = script.finish();
        let mut after = context.clone();
        after.catalog = catalog;
        after.history.remove(self.version);
        (plan, after)
    }
}

impl MigrationName for &'static Migration {
    fn name(&self) -> &str {
        self.version
    }
}

/// The way in for sea-orm's own tools: one statement after the other, without lock, doctor or batches.
#[async_trait::async_trait]
impl MigrationTrait for &'static Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let context = Context::read(connection).await?;
        // A deploy may run everything in one transaction, where PostgreSQL builds no index concurrently.
        let inside = connection.is_transaction();
        let (plan, _) = self.plan_up(&context);
        if !plan.rebuilds.is_empty() {
            return Err(DbErr::Migration(format!(
                "{} rebuilds a table, which needs foreign keys off outside the transaction; run `tollgate migrate up`",
                self.version
            )));
        }
        if plan.units.iter().any(|unit| matches!(unit, Unit::Paged(_))) {
            return Err(DbErr::Migration(format!(
                "{} computes what it writes page by page, which needs the runner; nothing was changed; run `tollgate migrate up`",
                self.version
            )));
        }
        for unit in &plan.units {
            let steps = match unit {
                Unit::Transaction(steps) => steps.clone(),
                Unit::NonTransactional(statement) => {
                    let mut statement = statement.clone();
                    if inside {
                        statement.sql = statement.sql.replace(" CONCURRENTLY", "");
                    }
                    vec![Step::Run(statement)]
                }
                Unit::Paged(_) => continue,
                Unit::Backfill(backfill) => {
                    connection
                        .execute_unprepared(&backfill.batch("1 = 1"))
                        .await?;
                    continue;
                }
            };
            for step in steps {
                match step {
                    Step::Run(statement) => {
                        connection.execute_unprepared(&statement.sql).await?;
                    }
                    Step::InsertWithUuids(insert) => {
                        let found = insert.made_for(connection, context.catalog.dialect).await?;
                        if !found.is_empty() {
                            connection
                                .execute_raw(insert.statement(context.catalog.dialect, &found))
                                .await?;
                        }
                    }
                    Step::Guard(guard) => {
                        let found = connection
                            .query_one_raw(sea_orm::Statement::from_string(
                                context.catalog.dialect.backend(),
                                guard.sql,
                            ))
                            .await?;
                        if found.is_some() {
                            return Err(DbErr::Migration(format!(
                                "{}: hazard {}; run `tollgate doctor`",
                                self.version, guard.code
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(format!(
            "what {} created here is recorded with its losses; run `tollgate migrate down`",
            self.version
        )))
    }

    fn use_transaction(&self) -> Option<bool> {
        // Concurrent index builds refuse a transaction; every statement is safe to repeat.
        Some(false)
    }
}
