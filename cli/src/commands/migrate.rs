//! `tollgate migrate …`

use std::time::Duration;

use tollgate_service::prepare;
use tollgate_service::providers::handover;
use tollgate_service::runner::{Session, adopt, down, pauses, plan, resolve, status, up};
use tollgate_service::{Outcome, ShutdownSignal};

use crate::arguments::{Arguments, Choice, Migrate, StateWord, Up};
use crate::commands::schema::has_drift;
use crate::commands::session;
use crate::output::{Answer, View};
use crate::progress::Progress;

pub(super) async fn run(arguments: &Arguments, command: &Migrate, stop: &ShutdownSignal) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, wait(command)) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let progress = Progress::new(arguments);
    let outcome = outcome(command, &session, &progress, stop).await;
    let (view, check) = match command {
        Migrate::Status { check, .. } => (View::Own, *check),
        Migrate::Plan { check, sql, .. } => (View::Plan { sql: *sql }, *check),
        _ => (View::Own, false),
    };
    progress.finish();
    let found = check && (outcome.report.is_pending() || has_drift(&outcome));
    Answer::new(name, outcome, view).exiting_with_3_when(found)
}

async fn outcome(
    command: &Migrate,
    session: &Session,
    progress: &Progress,
    stop: &ShutdownSignal,
) -> Outcome {
    match command {
        Migrate::Status { .. } => Outcome::from(status::status(session).await),
        Migrate::Plan { choice, .. } => Outcome::from(plan::plan(session, &options(choice)).await),
        Migrate::Up(arguments) => up::up(session, &up_options(arguments), progress, stop).await,
        Migrate::Down {
            to,
            allow_data_loss,
            ..
        } => {
            let mut options = down::Options::default();
            options.to.clone_from(to);
            options.allow_data_loss = *allow_data_loss;
            down::down(session, &options, progress, stop).await
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
            Outcome::from(resolve::resolve(session, step, settled, *dry_run, stop).await)
        }
        Migrate::Pause => Outcome::from(pauses::pause(session, chrono::Utc::now()).await),
        Migrate::Resume => Outcome::from(pauses::resume(session).await),
        Migrate::Prepare(chosen) => {
            let mut options = prepare::Options::default();
            options.finish = chosen.finish;
            options.choices = chosen.resolutions.choices.clone();
            prepare::prepare(session, options, stop).await
        }
        Migrate::Handover { .. } => Outcome::from(handover::handover(session, stop).await),
        Migrate::Adopt { dry_run, .. } => {
            Outcome::from(adopt::adopt(session, *dry_run, stop).await)
        }
    }
}

/// How long a lock is waited for.
fn wait(command: &Migrate) -> Duration {
    match command {
        Migrate::Up(up) => up.wait.duration(),
        Migrate::Prepare(prepare) => prepare.wait.duration(),
        Migrate::Down { wait, .. }
        | Migrate::Adopt { wait, .. }
        | Migrate::Handover { wait }
        | Migrate::Resolve { wait, .. } => wait.duration(),
        Migrate::Status { .. } | Migrate::Plan { .. } | Migrate::Pause | Migrate::Resume => {
            Duration::ZERO
        }
    }
}

fn up_options(arguments: &Up) -> up::Options {
    let mut options = options(&arguments.choice);
    options.backup.clone_from(&arguments.backup);
    options.batch = arguments.batch_ms.map(Duration::from_millis);
    options.batch_delay = arguments.batch_delay.unwrap_or_default();
    options.max_lag = arguments.max_lag;
    options.parallel = usize::from(arguments.parallel);
    options
}

pub(super) fn options(choice: &Choice) -> up::Options {
    let mut options = up::Options::default();
    options.phase = choice.phase.map(Into::into);
    options.to.clone_from(&choice.to);
    options.adopt = choice.adopt;
    options.choices = choice.resolutions.choices.clone();
    options
}
