//! `migrate plan`: what `up` would do on this database, statement by statement, read-only.

use sea_orm::Statement;
use tollgate_migration::paged::PagedStep;
use tollgate_migration::plan::{Blocks, Guard, Plan, Step, Unit};
use tollgate_migration::{Migration, Track};

use super::adopt::recognised_history;
use super::target::{gateway, waiting};
use super::up::{Options, live, selected, unadopted};
use super::{Session, idle, pending_report};
use crate::database::Access;
use crate::doctor::{self, Samples, environment};
use crate::error::{Error, Result};
use crate::report::result::{PlanResult, PlannedMigration, PlannedStep};
use crate::report::{CommandResult, Report};
use crate::rows;

/// Plans what `up` with these options would do.
///
/// # Errors
/// What connecting and reading may answer, and the refusals of `up` for a database without history.
pub async fn plan(session: &Session, options: &Options) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    let mut report = Report::default();
    session.check_target(&names)?;
    let mut planned = Vec::new();
    let mut gateways = Vec::new();
    let mut left = Vec::new();
    for (track, exists) in tracks {
        environment::refuse_hidden(&connection, track).await?;
        let mut history = session.history(&connection, track, exists).await?;
        let mut context = live(&connection, &history, options).await?;
        let contradictions = environment::ledger::contradictions(track, &context);
        if !contradictions.is_empty() {
            return Err(doctor::refusal(contradictions));
        }
        if history.entries.is_empty() && track.is_carried_by(&context.catalog) {
            if !options.adopt {
                return Err(unadopted(track, &context));
            }
            history = recognised_history(session.clock.now(), track, &context)?;
            context.history = history.created();
        }
        session.aim(track, &context, &mut history)?;
        gateways.extend(gateway(track, &context, &history));
        left.extend(waiting(track, &history));
        let mut stored = 0;
        for table in track
            .marker_tables()
            .iter()
            .filter(|mark| context.catalog.has_table(mark))
        {
            stored += number(
                &connection,
                &context,
                &format!("SELECT count(*) AS number FROM {table}"),
            )
            .await?;
        }
        let run = selected(&names, track, &history, options)?;
        report
            .findings
            .extend(doctor::examine(&connection, &context, track, &run, Samples::default()).await?);
        // Nothing is there yet whose rows could be counted.
        let fresh = !track.is_carried_by(&context.catalog);
        let mut entry = idle(track, &history);
        entry.pending = pending_report(&run);
        report.tracks.push(entry);
        for migration in run {
            let (plan, after) = migration.plan_up(&context);
            let mut described = describe(track, migration, &plan);
            for unit in plan.units.iter().filter(|_| !fresh) {
                let estimate = match unit {
                    Unit::Backfill(pass) => Some(pass.estimate.as_str()),
                    Unit::Paged(step) => step.estimate(),
                    Unit::Transaction(_) | Unit::NonTransactional(_) => None,
                };
                if let Some(estimate) = estimate {
                    described.rows += number(&connection, &context, estimate).await?;
                }
            }
            described.blocks_for_ms = blocks_for_ms(&plan, &described, stored, options);
            planned.push(described);
            context = after;
        }
    }
    report.result = Some(CommandResult::Plan(PlanResult {
        place: session.place(&connection).await?,
        migrations: planned,
        gateways,
        waiting: left,
    }));
    Ok(report)
}

/// Rows that one statement under an exclusive lock walks in a millisecond: catch-up and table rebuilds, measured at a
/// million virtual keys and 4.3 million rows in all, on two cores with the data in memory (PostgreSQL 15).
const ROWS_PER_MS: u64 = 500;

/// About how long the longest of the migration's blocking transactions lasts.
fn blocks_for_ms(plan: &Plan, described: &PlannedMigration, stored: u64, options: &Options) -> u64 {
    let walks = plan.units.iter().any(|unit| match unit {
        Unit::Transaction(steps) => steps.iter().any(|step| {
            matches!(step, Step::Run(statement)
                if statement.blocks == Blocks::Everyone && (statement.counted.is_some() || statement.detail))
        }),
        _ => false,
    });
    match described.blocks {
        Blocks::Nothing => 0,
        _ if walks => 5 + stored / ROWS_PER_MS,
        Blocks::Rows => options
            .batch
            .map_or(50, |batch| u64::try_from(batch.as_millis()).unwrap_or(50)),
        Blocks::Writers | Blocks::Everyone => 5,
    }
}

/// A number from the live data. Asked on the schema as it is now, which every estimate can be.
async fn number(
    connection: &crate::connection::Connection,
    context: &tollgate_migration::Context,
    sql: &str,
) -> Result<u64> {
    rows::count(
        connection,
        Statement::from_string(context.catalog.dialect.backend(), sql),
    )
    .await
    .map_err(Error::database("estimate the rows"))
}

fn describe(track: Track, migration: &Migration, plan: &Plan) -> PlannedMigration {
    let mut steps = Vec::new();
    let mut transactions = 0;
    for unit in &plan.units {
        match unit {
            Unit::Transaction(inner) => {
                transactions += 1;
                steps.extend(inner.iter().map(|step| PlannedStep {
                    transaction: Some(transactions),
                    ..in_transaction(step)
                }));
            }
            Unit::NonTransactional(statement) => steps.push(planned(statement)),
            Unit::Paged(step) => steps.extend(paged(&**step)),
            Unit::Backfill(pass) => steps.push(batched(&pass.purpose, pass.sql.clone())),
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
        blocks_for_ms: 0,
        rows: 0,
        rebuilds: plan.rebuilds.clone(),
        steps,
    }
}

fn planned(statement: &tollgate_migration::plan::Statement) -> PlannedStep {
    PlannedStep {
        purpose: statement.purpose.clone(),
        sql: statement.sql.clone(),
        blocks: statement.blocks,
        transaction: None,
        batched: false,
        detail: statement.detail,
    }
}

/// A step whose transaction the caller numbers.
fn in_transaction(step: &Step) -> PlannedStep {
    let (purpose, sql, blocks) = match step {
        Step::Run(statement) => return planned(statement),
        Step::InsertWithUuids(insert) => (
            insert.purpose.clone(),
            insert.insert.replace(
                tollgate_migration::plan::InsertWithUuids::IDS,
                "(…, UUID version 5 of it)",
            ),
            Blocks::Rows,
        ),
        Step::Guard(guard) => (
            if guard.code == Guard::AGAIN {
                "begin again when this finds a row".to_owned()
            } else {
                format!("stop when this finds a row ({})", guard.code)
            },
            guard.sql.clone(),
            Blocks::Nothing,
        ),
    };
    PlannedStep {
        purpose,
        sql,
        blocks,
        transaction: None,
        batched: false,
        detail: false,
    }
}

/// What goes over its rows batch by batch.
fn batched(purpose: &str, sql: String) -> PlannedStep {
    PlannedStep {
        purpose: purpose.to_owned(),
        sql,
        blocks: Blocks::Rows,
        transaction: None,
        batched: true,
        detail: false,
    }
}

/// What is done once, and what for each page.
fn paged(step: &dyn PagedStep) -> Vec<PlannedStep> {
    let stage = step.stage();
    let mut shown = Vec::new();
    if !stage.is_empty() {
        shown.push(batched(step.purpose(), stage.join(";\n")));
    }
    for sql in step.samples() {
        shown.push(if shown.is_empty() {
            batched(step.purpose(), sql)
        } else {
            PlannedStep {
                detail: true,
                ..batched("for each page", sql)
            }
        });
    }
    shown
}
