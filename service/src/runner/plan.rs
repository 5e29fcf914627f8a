//! `migrate plan`: what `up` would do on this database, statement by statement, read-only.

use serde::Serialize;
use tollgate_migration::plan::{Blocks, Plan, Step, Unit};
use tollgate_migration::{Migration, Phase, Track};

use super::up::{Options, live, selected, unadopted};
use super::{Session, idle, pending_report};
use crate::database::Access;
use crate::doctor::{self, Samples};
use crate::error::Result;
use crate::report::Report;

/// One step of a planned migration.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStep {
    /// What it is for.
    pub purpose: String,
    /// The statement.
    pub sql: String,
    /// What it makes a running gateway wait for.
    pub blocks: Blocks,
    /// The number of the transaction it belongs to, counted from one; absent where it runs outside of any.
    pub transaction: Option<usize>,
    /// Whether it runs once per batch.
    pub batched: bool,
    /// Whether it is a part of the step before it.
    pub detail: bool,
}

/// A planned migration.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedMigration {
    /// The track.
    pub track: Track,
    /// The migration.
    pub version: String,
    /// Its phase.
    pub phase: Phase,
    /// What it does.
    pub summary: String,
    /// What its most exclusive step makes a running gateway wait for.
    pub blocks: Blocks,
    /// SQLite tables that are rebuilt.
    pub rebuilds: Vec<String>,
    /// Its steps, in order.
    pub steps: Vec<PlannedStep>,
}

/// Plans what `up` with these options would do.
///
/// # Errors
/// What connecting and reading may answer, and the refusals of `up` for a database without history.
pub async fn plan(session: &Session, options: &Options) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    let mut report = Report::default();
    let mut planned = Vec::new();
    for (track, exists) in tracks {
        let history = session.history(&connection, track, exists).await?;
        let mut context = live(&connection, &history, options).await?;
        if history.entries.is_empty() && track.is_carried_by(&context.catalog) {
            return Err(unadopted(track, &context));
        }
        let run = selected(&names, track, &history, options)?;
        report
            .findings
            .extend(doctor::examine(&connection, &context, track, &run, Samples::default()).await?);
        let mut entry = idle(track, &history);
        entry.pending = pending_report(&run);
        report.tracks.push(entry);
        for migration in run {
            let (plan, after) = migration.plan_up(&context);
            planned.push(describe(track, migration, &plan));
            context = after;
        }
    }
    report.result = Some(serde_json::json!({ "migrations": planned }));
    Ok(report)
}

fn describe(track: Track, migration: &Migration, plan: &Plan) -> PlannedMigration {
    let mut steps = Vec::new();
    let mut transactions = 0;
    for unit in &plan.units {
        match unit {
            Unit::Transaction(inner) => {
                transactions += 1;
                steps.extend(inner.iter().map(|step| match step {
                    Step::Run(statement) => PlannedStep {
                        purpose: statement.purpose.clone(),
                        sql: statement.sql.clone(),
                        blocks: statement.blocks,
                        transaction: Some(transactions),
                        batched: false,
                        detail: statement.detail,
                    },
                    Step::Guard(guard) => PlannedStep {
                        purpose: format!("stop when this finds a row ({})", guard.code),
                        sql: guard.sql.clone(),
                        blocks: Blocks::Nothing,
                        transaction: Some(transactions),
                        batched: false,
                        detail: false,
                    },
                }));
            }
            Unit::Alone(statement) => steps.push(PlannedStep {
                purpose: statement.purpose.clone(),
                sql: statement.sql.clone(),
                blocks: statement.blocks,
                transaction: None,
                batched: false,
                detail: statement.detail,
            }),
            Unit::Backfill(pass) => steps.push(PlannedStep {
                purpose: pass.purpose.clone(),
                sql: pass.sql.clone(),
                blocks: Blocks::Rows,
                transaction: None,
                batched: true,
                detail: false,
            }),
        }
    }
    PlannedMigration {
        track,
        version: migration.version.to_owned(),
        phase: migration.phase,
        summary: migration.summary.to_owned(),
        blocks: steps
            .iter()
            .map(|step| step.blocks)
            .max()
            .unwrap_or(Blocks::Nothing),
        rebuilds: plan.rebuilds.clone(),
        steps,
    }
}
