//! `tollgate reconcile …`

use tollgate_service::reconcile::{Options, billing};
use tollgate_service::{Outcome, Stop};

use crate::arguments::{Arguments, Reconcile};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(arguments: &Arguments, command: &Reconcile, stop: &Stop) -> Answer {
    let name = arguments.command.name();
    let Reconcile::Billing(options) = command;
    let session = match session(arguments, options.wait.duration()) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let how = Options {
        dry_run: options.dry_run || options.check,
        max_changes: options.max_changes,
    };
    let outcome = Outcome::from(billing::billing(&session, how, stop).await);
    let found = options.check && !outcome.report.changes.is_empty();
    Answer::new(name, outcome, View::Moved).exiting_with_3_when(found)
}
