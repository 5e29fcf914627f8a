//! `migrate status`: what is applied, what is pending, and manual schema changes since; read-only.

use crate::database::Access;
use crate::doctor::environment;
use crate::drift;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::running::running;
use crate::report::result::{BegunStep, StatusResult};
use crate::report::{Applied, CommandResult, Finding, Report, Severity};
use tollgate_migration::Track;
use tollgate_migration::context::slug_of;

use super::checkpoint::{self, Direction, InProgress};
use super::pauses;
use super::target::{gateway, waiting};
use super::{Session, context, idle};

/// A step that has begun and not ended. What the schema lacks or has beyond the step before is its work, and no drift.
pub(crate) fn unfinished(track: Track, step: &InProgress) -> Finding {
    let (way, back) = match step.direction {
        Direction::Up => ("applied", "undoes"),
        Direction::Down => ("undone", "applies"),
    };
    let other = match step.direction {
        Direction::Up => Direction::Down,
        Direction::Down => Direction::Up,
    };
    let slug = slug_of(&step.version);
    Finding {
        code: "V013".to_owned(),
        severity: Severity::Blocking,
        title: format!("a step is half {way}"),
        table: track.history_table(),
        column: None,
        rows: 1,
        sample_ids: vec![step.version.clone()],
        effect: format!(
            "the run that {way_ing} it was cut off; part of it is in force",
            way_ing = if step.direction == Direction::Up {
                "applied"
            } else {
                "undid"
            }
        ),
        resolve: format!(
            "`tollgate migrate {}` finishes it, `tollgate migrate {}` {back} it; what neither can, `tollgate migrate resolve {slug}` settles",
            step.direction.word(),
            other.word()
        ),
    }
}

/// Reads the history of every track.
///
/// # Errors
/// What connecting and reading may answer; nothing is written.
pub async fn status(session: &Session) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let mut report = Report::default();
    let mut found = Vec::new();
    let mut begun = Vec::new();
    let mut passes = Vec::new();
    let mut gateways = Vec::new();
    let mut left = Vec::new();
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    session.check_target(&names)?;
    let running = running(session, &connection, &names).await?;
    for (track, exists) in tracks {
        let mut history = session.history(&connection, track, exists).await?;
        let live = context(&connection, &history).await?;
        session.aim(track, &live, &mut history)?;
        gateways.extend(gateway(track, &live, &history));
        left.extend(waiting(track, &history));
        // What forbids every write is said where people look first.
        let forbids = environment::ledger::blocking(track, &live);
        if let Some(step) = &history.in_progress {
            let mut found = unfinished(track, step);
            if let Some(run) = running.iter().find(|run| run.track == track) {
                // It may be this run that is at the step now.
                found.severity = Severity::Info;
                found.effect = format!(
                    "part of it is in force; a run is at work on the track: {}",
                    run.holder
                );
            }
            report.findings.push(found);
            passes.extend(
                checkpoint::passes(&connection, session.dialect(), &step.version)
                    .await
                    .map_err(Error::database("read how far the passes are"))?,
            );
            begun.push(BegunStep {
                track,
                version: step.version.clone(),
                direction: step.direction.word(),
            });
        } else if exists {
            found.extend(
                drift::examine(&live, track, &history)
                    .into_iter()
                    .filter(|drift| !drift.tolerated),
            );
        }
        let mut entry = idle(track, &history);
        if !environment::ledger::contradictions(track, &live).is_empty() {
            entry.pending.clear();
        }
        report.findings.extend(forbids);
        entry.applied = applied(track, &history);
        report.tracks.push(entry);
    }
    report.result = Some(CommandResult::Status(StatusResult {
        place: session.place(&connection).await?,
        drift: found,
        in_progress: begun,
        passes,
        running,
        paused: pauses::of(&connection, session.dialect(), &names)
            .await
            .map_err(Error::database("read the pauses"))?,
        gateways,
        waiting: left,
    }));
    Ok(report)
}

/// The steps on record, in their order.
fn applied(track: Track, history: &History) -> Vec<Applied> {
    let migrations = track.migrations().iter();
    migrations
        .filter_map(|migration| {
            let entry = history.entries.get(migration.version)?;
            Some(Applied {
                version: migration.version.to_owned(),
                phase: migration.phase,
                duration_ms: entry.duration_ms.unsigned_abs(),
                rows: entry.rows.unsigned_abs(),
                left: 0,
                longest_lock_ms: 0,
                blocks: tollgate_migration::plan::Blocks::Nothing,
            })
        })
        .collect()
}
