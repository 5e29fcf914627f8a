//! `reconcile all`: every routine of the tracks present that needs no file and no argument, one after another.
//!
//! A routine whose tables are missing is skipped. One that fails does not keep the others from running: stale credentials
//! are closed although a budget's duration is garbled. The first failure is the run's.

use chrono::{DateTime, Utc};

use super::{Options, count};
use crate::database::{Access, existing};
use crate::error::Error;
use crate::module::{Module, NamedRoutine};
use crate::report::result::{RoutineOutcome, RoutineRun, RoutinesResult};
use crate::report::{CommandResult, Finding, Outcome, Report, Severity};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;
use crate::tracks;

/// The code of the refusal where a routine would misunderstand the rows of a later version: the others go on.
pub(crate) const NOT_ON_THIS_VERSION: &str = "not_on_this_version";

/// The modules of the tracks that the session works on.
fn modules(session: &Session) -> impl Iterator<Item = &'static Module> {
    tracks::all()
        .iter()
        .copied()
        .filter(|module| session.tracks.is_empty() || session.tracks.contains(&module.track))
}

/// The routine of that name, of a track that the session works on.
///
/// # Errors
/// [`Error::Usage`] with the names that there are.
pub fn named(session: &Session, name: &str) -> crate::error::Result<&'static NamedRoutine> {
    let all = || modules(session).flat_map(|module| module.routines);
    all().find(|routine| routine.name == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|routine| routine.name).collect();
        Error::usage(
            format!("there is no routine {name:?}"),
            format!("the routines are {}", names.join(", ")),
        )
    })
}

/// Runs them. The change limit holds for all of them together: nothing is changed when their sum is more.
pub async fn all(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    if options.shard.is_some() {
        return Outcome {
            report: Report::default(),
            error: Some(super::undivided("all")),
        };
    }
    let load = Options {
        dry_run: true,
        max_changes: None,
        ..options
    };
    let held = |planned: &Outcome| {
        let most = options.max_changes?;
        let rows = planned.report.rows();
        (rows > most).then(|| Outcome {
            report: Report::default(),
            error: Some(super::held(rows, most)),
        })
    };
    if options.dry_run {
        let planned = each(session, load, now, stop).await;
        return held(&planned).unwrap_or(planned);
    }
    if options.max_changes.is_some() {
        let planned = each(session, load, now, stop).await;
        if let Some(held) = held(&planned) {
            return held;
        }
    }
    let apply = Options {
        max_changes: None,
        ..options
    };
    each(session, apply, now, stop).await
}

async fn each(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let mut report = Report::default();
    let mut failed: Option<Error> = None;
    let mut refused: Option<Error> = None;
    let mut ran = Vec::new();
    for routine in modules(session).flat_map(|module| module.routines) {
        let outcome = (routine.run)(session, options, now, stop).await;
        let rows = outcome.report.rows();
        for change in outcome.report.changes {
            count(
                &mut report.changes,
                &change.table,
                &change.action,
                change.rows,
                change.sample_ids,
            );
        }
        report.findings.extend(outcome.report.findings);
        let came = match outcome.error {
            None => RoutineOutcome::Done,
            Some(Error::MissingSchema { .. }) => RoutineOutcome::Skipped,
            Some(Error::Refused {
                code: NOT_ON_THIS_VERSION,
                message,
                hint,
                ..
            }) => {
                refused.get_or_insert_with(|| {
                    Error::refused(NOT_ON_THIS_VERSION, message.clone(), hint.clone())
                });
                report.findings.push(Finding {
                    effect: message,
                    resolve: hint,
                    ..Finding::new(
                        "R014",
                        Severity::Warning,
                        "a routine that is not done on this version of the gateway",
                        routine.name,
                    )
                });
                RoutineOutcome::Skipped
            }
            Some(error) => {
                let ends = !is_of_the_routine(&error);
                failed.get_or_insert(error);
                if ends {
                    break;
                }
                RoutineOutcome::Failed
            }
        };
        ran.push(RoutineRun {
            routine: routine.name,
            outcome: came,
            rows,
        });
    }
    let all_skipped = ran.iter().all(|one| one.outcome == RoutineOutcome::Skipped);
    if all_skipped {
        failed = failed.or(refused);
    }
    if failed.is_none() && all_skipped {
        match over(session).await {
            Ok(Some(finding)) => report.findings.push(finding),
            Ok(None) => {
                failed = Some(Error::MissingSchema {
                    what: "table of any routine here".to_owned(),
                });
            }
            Err(error) => failed = Some(error),
        }
    }
    report.result = Some(CommandResult::Routines(RoutinesResult { routines: ran }));
    Outcome {
        report,
        error: failed,
    }
}

/// That every routine's work is over: a database behind a cutover has nothing left to be copied.
async fn over(session: &Session) -> crate::error::Result<Option<Finding>> {
    let ends: Vec<_> = modules(session).filter_map(|module| module.over).collect();
    if ends.is_empty() {
        return Ok(None);
    }
    let connection = session.connect(Access::Read).await?;
    let names: Vec<String> = ends
        .iter()
        .flat_map(|(there, gone)| [(*there).to_owned(), (*gone).to_owned()])
        .collect();
    let found = existing(&connection, session.dialect(), &names)
        .await
        .map_err(Error::database("look for the tables of the tracks"))?;
    let has = |name: &str| found.iter().any(|found| found == name);
    let over = ends
        .into_iter()
        .find(|(there, gone)| has(there) && !has(gone));
    Ok(over.map(|(table, _)| Finding {
        code: "R020".to_owned(),
        severity: Severity::Info,
        title: "the routines of this database are over".to_owned(),
        table: table.to_owned(),
        column: None,
        rows: 0,
        sample_ids: Vec::new(),
        effect: "the cutover is done: there are no legacy rows to follow any more".to_owned(),
        resolve: "take the job out of cron".to_owned(),
    }))
}

/// Whether another routine may fare better: not where the database is out of reach or somebody has said stop.
fn is_of_the_routine(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused { .. }
            | Error::Database { .. }
            | Error::Rejected { .. }
            | Error::Locked { .. }
    )
}
