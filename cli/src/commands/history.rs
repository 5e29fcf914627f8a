//! `tollgate history`

use std::time::Duration;

use tollgate_service::{Outcome, runs};

use crate::arguments::Arguments;
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(arguments: &Arguments, run: Option<i64>, limit: u32) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let outcome = Outcome::from(runs::history(&session, run, limit).await);
    Answer::new(name, outcome, View::Own)
}
