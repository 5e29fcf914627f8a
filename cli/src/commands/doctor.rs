//! `tollgate doctor`

use std::time::Duration;

use tollgate_service::{Outcome, doctor};

use crate::arguments::{Arguments, Doctor};
use crate::commands::session;
use crate::output::{Answer, View};
use crate::progress::Progress;

pub(super) async fn run(arguments: &Arguments, options: &Doctor) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let mut asked = doctor::Options::default();
    asked.codes = options
        .codes
        .iter()
        .map(|code| code.to_uppercase())
        .collect();
    asked.samples = options.samples;
    let progress = Progress::new(arguments);
    let outcome = Outcome::from(doctor::doctor(&session, &asked).await);
    progress.finish();
    Answer::new(name, outcome, View::Own)
}
