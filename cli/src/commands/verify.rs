//! `tollgate snapshot`, `verify` and `rehearse`.

use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use tollgate_service::rehearse::{self, Rehearsal};
use tollgate_service::{Error, Location, Outcome, ShutdownSignal, snapshot, verify};

use crate::arguments::{Arguments, Rehearse};
use crate::commands::migrate;
use crate::commands::session;
use crate::output::{Answer, View};
use crate::progress::Progress;

pub(super) async fn snapshot(arguments: &Arguments, file: &Path, stop: &ShutdownSignal) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let progress = Progress::new(arguments);
    let taken = snapshot::snapshot(&session, file, Utc::now(), &progress, stop).await;
    progress.finish();
    Answer::new(name, Outcome::from(taken), View::Own)
}

pub(super) async fn verify(
    arguments: &Arguments,
    file: Option<&Path>,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let progress = Progress::new(arguments);
    let verified = verify::verify(&session, file, &progress, stop).await;
    progress.finish();
    let mut outcome = Outcome::from(verified);
    outcome.error = outcome.error.or_else(|| verify::failure(&outcome.report));
    Answer::new(name, outcome, View::Own)
}

pub(super) async fn rehearse(
    arguments: &Arguments,
    options: &Rehearse,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, Duration::ZERO) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let scratch = match options
        .scratch_url
        .as_deref()
        .map(Location::parse)
        .transpose()
    {
        Ok(scratch) => scratch,
        Err(error) => return Answer::failed(name, error),
    };
    let folder = match tempfile::Builder::new()
        .prefix("tollgate-rehearsal-")
        .tempdir()
    {
        Ok(folder) => folder,
        Err(source) => {
            let path = std::env::temp_dir().display().to_string();
            return Answer::failed(name, Error::File { path, source });
        }
    };
    let mut up = migrate::options(&options.choice);
    up.batch = options.batch_ms.map(Duration::from_millis);
    let mut rehearsed = rehearse::Options::of(up);
    rehearsed.scratch = scratch;
    rehearsed.gateway = options.gateway;
    let progress = Progress::new(arguments);
    let outcome = Rehearsal {
        session: &session,
        options: &rehearsed,
        folder: folder.path(),
        now: Utc::now(),
        observer: &progress,
        stop,
    }
    .run()
    .await;
    progress.finish();
    Answer::new(name, outcome, View::Own)
}
