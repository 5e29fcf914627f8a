//! `tollgate migrate …`

use std::time::Duration;

use tollgate_service::runner::{adopt, down, plan, resolve, status, up};
use tollgate_service::{Outcome, ShutdownSignal};
use tollgate_service::{handover, prepare};

use crate::arguments::{Arguments, Choice, Migrate, StateWord};
use crate::commands::schema::has_drift;
use crate::commands::session;
use crate::output::{Answer, View};
use crate::progress::Progress;

pub(super) async fn run(arguments: &Arguments, command: &Migrate, stop: &ShutdownSignal) -> Answer {
    let name = arguments.command.name();
    let wait = match command {
        Migrate::Up(up) => up.wait.duration(),
        Migrate::Prepare(prepare) => prepare.wait.duration(),
        Migrate::Down { wait, .. }
        | Migrate::Adopt { wait, .. }
        | Migrate::Handover { wait }
        | Migrate::Resolve { wait, .. } => wait.duration(),
        Migrate::Status { .. } | Migrate::Plan { .. } => Duration::ZERO,
    };
    let session = match session(arguments, wait) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let progress = Progress::new(arguments);
    let (outcome, view, check) = match command {
        Migrate::Status { check, .. } => (
            Outcome::from(status::status(&session).await),
            View::Own,
            *check,
        ),
        Migrate::Plan { check, sql, choice } => (
            Outcome::from(plan::plan(&session, &options(choice)).await),
            View::Plan { sql: *sql },
            *check,
        ),
        Migrate::Up(arguments) => {
            let options = up::Options {
                backup: arguments.backup.clone(),
                batch: arguments.batch_ms.map(Duration::from_millis),
                ..options(&arguments.choice)
            };
            (
                up::up(&session, &options, &progress, stop).await,
                View::Own,
                false,
            )
        }
        Migrate::Down {
            to,
            allow_data_loss,
            ..
        } => {
            let options = down::Options {
                to: to.clone(),
                allow_data_loss: *allow_data_loss,
                steps: None,
            };
            (
                down::down(&session, &options, &progress, stop).await,
                View::Own,
                false,
            )
        }
        Migrate::Resolve {
            step,
            state,
            dry_run,
            ..
        } => {
            let settled = match state {
                StateWord::Applied => resolve::Settled::Applied,
                StateWord::Pending => resolve::Settled::Pending,
            };
            (
                Outcome::from(resolve::resolve(&session, step, settled, *dry_run, stop).await),
                View::Own,
                false,
            )
        }
        Migrate::Prepare(chosen) => {
            let options = prepare::Options {
                finish: chosen.finish,
                choices: chosen.resolutions.choices.clone(),
            };
            (
                prepare::prepare(&session, options, stop).await,
                View::Own,
                false,
            )
        }
        Migrate::Handover { .. } => (
            Outcome::from(handover::handover(&session, stop).await),
            View::Own,
            false,
        ),
        Migrate::Adopt { dry_run, .. } => (
            Outcome::from(adopt::adopt(&session, *dry_run, stop).await),
            View::Own,
            false,
        ),
    };
    progress.finish();
    let found = check && (outcome.report.is_pending() || has_drift(&outcome));
    Answer::new(name, outcome, view).exiting_with_3_when(found)
}

pub(super) fn options(choice: &Choice) -> up::Options {
    up::Options {
        phase: choice.phase.map(Into::into),
        to: choice.to.clone(),
        steps: None,
        adopt: choice.adopt,
        choices: choice.resolutions.choices.clone(),
        ..up::Options::default()
    }
}
