//! `tollgate seed`

use std::time::Duration;

use tollgate_service::{Error, Outcome, seed};

use crate::arguments::{Arguments, Seed};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(arguments: &Arguments, options: &Seed) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    // The parser has let no other word through.
    let known = seed::seeds().into_iter();
    let Some(profile) = known.into_iter().find(|seed| seed.name == options.profile) else {
        let error = Error::usage(
            format!("there is no profile {:?}", options.profile),
            "see --help",
        );
        return Answer::failed(name, error);
    };
    let mut wanted = seed::Options::of(profile, options.virtual_keys);
    wanted.rng_seed = options.rng_seed;
    wanted.hazards = options.hazards.clone().unwrap_or_default();
    let outcome = Outcome::from(seed::seed(&session, &wanted).await);
    Answer::new(name, outcome, View::Own)
}
