//! `migrate down`: undoes the last migration, or everything behind `--to`.

use std::time::Duration;

use crate::connection::Connection;
use crate::runs::RunOutcome;
use tollgate_migration::plan::{Created, Plan};
use tollgate_migration::{Context, Migration, Track};

use super::apply::{Applier, Course};
use super::checkpoint::Direction;
use super::pace::Pace;
use super::patience::Patience;
use super::up::{self, read_again};
use super::{Session, context, find, idle, moved, pending, pending_report, prove_writable};
use crate::database::Access;
use crate::doctor::{self, Samples, environment};
use crate::error::{Error, Result};
use crate::history::{Entry, History};
use crate::lock::{Gateway, Lock};
use crate::observer::Observer;
use crate::report::{Change, Finding, Outcome, Report, Severity, TrackReport};
use crate::shutdown::ShutdownSignal;

/// What the operator chose.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The last migration that stays applied; one step when absent.
    pub to: Option<String>,
    /// So many steps, where none is named.
    pub steps: Option<u32>,
    /// Go on where rows or values cannot be kept.
    pub allow_data_loss: bool,
}

/// Undoes migrations, newest first.
///
/// The outcome's error is [`Error::Refused`] before the first write for an adopted migration, and for data that would
/// be lost unless `allow_data_loss`; [`Error::Usage`] when several tracks could be meant.
pub async fn down(
    session: &Session,
    options: &Options,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Outcome {
    let mut report = Report::default();
    let error = run(session, options, observer, stop, &mut report)
        .await
        .err();
    Outcome { report, error }
}

async fn run(
    session: &Session,
    options: &Options,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let started = session.clock.now();
    if let Some(to) = &options.to {
        find(Track::all(), to)?;
    }
    // Before the lock nothing is waited for, and under it each look is short, so that gateways are let in between.
    let quick = session.briefly();
    let connection = quick.connect(Access::Write).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    let (track, exists) = match (&options.to, tracks.as_slice()) {
        (Some(to), _) => {
            let (track, _) = find(&names, to)?;
            tracks
                .iter()
                .copied()
                .find(|(named, _)| *named == track)
                .unwrap_or((track, false))
        }
        (None, [only]) => *only,
        (None, _) => {
            return Err(Error::usage(
                "the database carries several tracks, and down undoes one step of one",
                "name it with --track",
            ));
        }
    };
    let history = session.history(&connection, track, exists).await?;
    let steps = selected(track, &history, options)?;
    if steps.is_empty() {
        environment::refuse_unknown(&connection, track).await?;
        report.tracks.push(idle(track, &history));
        return Ok(());
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(&quick, connection, &[track], Gateway::Waits, stop).await?;
    let outcome = locked(
        session,
        &connection,
        track,
        options,
        &lock,
        observer,
        stop,
        report,
    )
    .await;
    if report.tracks.iter().any(|track| !track.applied.is_empty()) {
        let ended = RunOutcome::of(&outcome);
        session
            .record_run(&connection, "migrate down", started, ended, report)
            .await;
    }
    lock.release().await;
    outcome
}

fn selected(track: Track, history: &History, options: &Options) -> Result<Vec<&'static Migration>> {
    // A step that has begun and not ended comes first, whichever way it went.
    let begun = |version: &str| {
        history
            .in_progress
            .as_ref()
            .is_some_and(|step| step.version == version)
    };
    let applied: Vec<&'static Migration> = track
        .migrations()
        .iter()
        .rev()
        .copied()
        .filter(|migration| {
            history.entries.contains_key(migration.version) || begun(migration.version)
        })
        .collect();
    let Some(to) = &options.to else {
        let steps = usize::try_from(options.steps.unwrap_or(1)).unwrap_or(usize::MAX);
        return Ok(applied.into_iter().take(steps).collect());
    };
    let (_, last) = find(&[track], to)?;
    if !history.entries.contains_key(last.version) {
        return Err(Error::usage(
            format!(
                "{} is not applied, so nothing can go down to it",
                last.version
            ),
            "`tollgate migrate status` lists what is applied",
        ));
    }
    Ok(applied
        .into_iter()
        .take_while(|migration| migration.version != last.version)
        .collect())
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call, split off so that the lock is released on every way out"
)]
async fn locked(
    session: &Session,
    connection: &Connection,
    track: Track,
    options: &Options,
    lock: &Lock,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let dialect = session.dialect();
    let patience = Patience {
        lock,
        wait: session.wait_lock,
        stop,
    };
    let choice = up::Options::default();
    let mut pace = Pace::new(connection, track, lock, &choice, observer, stop);
    // Before the look at what would be lost, and never behind it: nobody is let in who could write more of it.
    pace.hold(None).await?;
    pace.goes_on();
    let Loaded {
        mut history,
        steps,
        losses,
    } = patience
        .load(async || load(session, connection, track, options).await)
        .await?;
    accept(losses, options.allow_data_loss, report)?;
    let changes = std::sync::Mutex::default();
    let applier = Applier {
        connection,
        session,
        parallel: 1,
        pace: &pace,
        changes: &changes,
        dialect,
        track,
        lock,
        patience,
        options: &choice,
        batch: Duration::from_millis(50),
        observer,
        stop,
    };
    let mut entry = TrackReport {
        track,
        from: history.current(track),
        to: None,
        applied: Vec::new(),
        pending: Vec::new(),
    };
    let mut outcome = Ok(());
    for migration in steps {
        let course = Course::new(Direction::Down, migration, &history);
        outcome = match stop.check() {
            Ok(()) => applier
                .run(course)
                .await
                .map(|undone| entry.applied.push(undone)),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            break;
        }
        history
            .refresh(connection, dialect, track)
            .await
            .map_err(Error::database("read the history"))?;
    }
    entry.to = history.current(track);
    entry.pending = pending_report(&pending(track, &history));
    report.tracks.push(entry);
    report.changes.extend(super::up::updates(&changes));
    outcome
}

/// Puts what goes down loses into the report, or refuses to lose it.
fn accept(losses: Vec<Finding>, allowed: bool, report: &mut Report) -> Result<()> {
    if !losses.is_empty() && !allowed {
        let rows: Vec<String> = losses
            .iter()
            .map(|loss| format!("{} rows of {}", loss.rows, loss.table))
            .collect();
        return Err(Error::Refused {
            code: "data_loss",
            message: format!("going down would lose data: {}", rows.join(", ")),
            hint: "--allow-data-loss goes on all the same; nothing was changed".to_owned(),
            findings: losses,
        });
    }
    for loss in losses {
        report.changes.push(Change {
            table: loss.table.clone(),
            action: "lose".to_owned(),
            rows: loss.rows,
            sample_ids: loss.sample_ids.clone(),
        });
        report.findings.push(Finding {
            severity: Severity::Warning,
            ..loss
        });
    }
    Ok(())
}

/// What was read under the locks.
struct Loaded {
    history: History,
    steps: Vec<&'static Migration>,
    losses: Vec<Finding>,
}

/// Reads again, now that nobody else can write, and refuses what cannot be undone.
async fn load(
    session: &Session,
    connection: &Connection,
    track: Track,
    options: &Options,
) -> Result<Loaded> {
    let mut history = read_again(session, connection, track).await?;
    let steps = selected(track, &history, options)?;
    if let Some(adopted) = steps.iter().find(|step| {
        let entry = history.entries.get(step.version);
        entry.is_some_and(Entry::is_adopted)
    }) {
        return Err(Error::refused(
            "adopted",
            format!(
                "{} was adopted, not applied: what it stands for is the gateway's own",
                adopted.version
            ),
            format!(
                "go down to it and no further: --to {}; nothing was changed",
                adopted.slug()
            ),
        ));
    }
    let live = context(connection, &history).await?;
    session.aim(track, &live, &mut history)?;
    let mut number = live.ledger(track).number();
    for step in &steps {
        if let Some(entry) = history.entries.get(step.version)
            && let Some(now) = moved::since(connection, track, &live, entry, &mut number).await?
        {
            return Err(refusal(track, step, entry, &now));
        }
    }
    let plans = plans(&live, &history, &steps);
    let mut stops = environment::examine(connection, track, &live, &plans).await?;
    // What would stop a step half-way; the ledger has been asked already.
    stops.retain(|finding| {
        finding.severity == Severity::Blocking
            && ["E002", "E003", "E004"].contains(&finding.code.as_str())
    });
    if !stops.is_empty() {
        return Err(doctor::refusal(stops));
    }
    let losses = losses(connection, &history, &steps).await?;
    Ok(Loaded {
        history,
        steps,
        losses,
    })
}

/// Going down behind a gateway's back would take away what it stands on.
fn refusal(track: Track, step: &Migration, entry: &Entry, now: &str) -> Error {
    let created = &entry.created;
    let mut what: Vec<String> = [&created.tables, &created.columns, &created.indexes]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    what.extend(
        created
            .dropped
            .iter()
            .map(|dropped| format!("{} (which is back then)", dropped.table)),
    );
    what.truncate(6);
    let breaks = if what.is_empty() {
        "what it has read since".to_owned()
    } else {
        what.join(", ")
    };
    Error::refused(
        "ledger_moved",
        format!(
            "{} has migrated to {now} since {} was applied; undoing it would break what the gateway relies on: {breaks}",
            track.gateway(),
            step.version
        ),
        "go back to the gateway version of then first, with its own means or a backup; nothing was changed",
    )
}

/// What a step is recorded to have created: what it has begun with counts before what an earlier run ended with.
fn created<'a>(history: &'a History, step: &Migration) -> Option<&'a Created> {
    let begun = history
        .in_progress
        .as_ref()
        .filter(|begun| begun.version == step.version)
        .map(|begun| &begun.created);
    let recorded = history
        .entries
        .get(step.version)
        .map(|entry| &entry.created);
    begun.or(recorded)
}

/// The plans of the steps, each on what the one before leaves.
fn plans(live: &Context, history: &History, steps: &[&'static Migration]) -> Vec<Plan> {
    let mut context = live.clone();
    steps
        .iter()
        .filter_map(|step| {
            let (plan, after) = step.plan_down(&context, created(history, step)?);
            context = after;
            Some(plan)
        })
        .collect()
}

/// What the steps together would lose, each loss once.
async fn losses(
    connection: &Connection,
    history: &History,
    steps: &[&'static Migration],
) -> Result<Vec<Finding>> {
    let context = context(connection, history).await?;
    let mut asked: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for step in steps {
        let Some(created) = created(history, step) else {
            continue;
        };
        for loss in (step.losses)(&context, created) {
            if asked.contains(&loss.sql) {
                continue;
            }
            asked.push(loss.sql.clone());
            let (rows, sample_ids) =
                // Whoever goes on all the same has this list, and nothing else.
                doctor::ids(connection, loss.sql.as_str(), Samples::All)
                    .await
                    .map_err(Error::database("count what would be lost"))?;
            if rows > 0 {
                found.push(Finding {
                    code: "data_loss".to_owned(),
                    severity: Severity::Blocking,
                    title: "going down loses data".to_owned(),
                    table: loss.table,
                    column: None,
                    rows,
                    sample_ids,
                    effect: loss.what,
                    resolve: "--allow-data-loss".to_owned(),
                });
            }
        }
    }
    Ok(found)
}
