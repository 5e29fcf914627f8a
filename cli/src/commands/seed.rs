//! `tollgate seed`

use std::time::Duration;

use tollgate_service::{Outcome, seed};

use crate::arguments::{Arguments, ProfileWord, Seed};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(arguments: &Arguments, options: &Seed) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let profile = match options.profile {
        ProfileWord::BifrostLegacy => seed::Profile::BifrostLegacy,
        ProfileWord::BifrostCredentials => seed::Profile::BifrostCredentials,
        ProfileWord::CoderLegacy => seed::Profile::CoderLegacy,
        ProfileWord::Molecule => seed::Profile::Molecule,
    };
    let mut wanted = seed::Options::of(profile, options.virtual_keys);
    wanted.rng_seed = options.rng_seed;
    wanted.hazards = options.hazards.clone().unwrap_or_default();
    let outcome = Outcome::from(seed::seed(&session, &wanted).await);
    Answer::new(name, outcome, View::Own)
}
