//! `tollgate schema …`

use std::time::Duration;

use tollgate_service::{Outcome, ShutdownSignal, drift, repair};

use crate::arguments::Arguments;
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn diff(arguments: &Arguments, check: bool) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let outcome = Outcome::from(drift::diff(&session).await);
    let drifted = check && has_drift(&outcome);
    Answer::new(name, outcome, View::Own).exiting_with_3_when(drifted)
}

pub(super) async fn repair(
    arguments: &Arguments,
    dry_run: bool,
    wait: Duration,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, wait) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let outcome = repair::repair(&session, dry_run, stop).await;
    Answer::new(name, outcome, View::Own)
}

/// Whether the report names a difference that nobody has accounted for.
pub(super) fn has_drift(outcome: &Outcome) -> bool {
    outcome
        .report
        .result
        .iter()
        .flat_map(|result| result.drift())
        .any(|drift| !drift.tolerated)
}
