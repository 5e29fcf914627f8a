//! One function per command: arguments in, an answer out.

mod billing;
mod budget;
mod demo;
mod doctor;
mod gateway_key;
mod history;
mod migrate;
mod provider_key;
mod reconcile;
mod schema;
mod seed;
mod verify;

use std::time::Duration;

use clap::CommandFactory;
use tollgate_service::runner::Session;
use tollgate_service::{
    CommandResult, Error, Location, Outcome, Report, Result, ShutdownSignal, Track,
};

use crate::arguments::{Arguments, Command, Schema};
use crate::output::{Answer, View};
use crate::words;

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments, stop: &ShutdownSignal) -> Answer {
    let answer = answer(arguments, stop).await;
    if answer.is_not_found()
        && let Some(refusal) = misplaced(arguments).await
    {
        return Answer::failed(arguments.command.name(), refusal);
    }
    answer
}

/// Where a command misses tables that are in another schema than the one it looks in, that is the answer.
async fn misplaced(arguments: &Arguments) -> Option<Error> {
    let name = arguments.command.name();
    let tracks = match (&arguments.command, words::track_of(name)) {
        // Both make the database that they are about.
        (Command::Seed(_) | Command::Demo(_), _) => return None,
        (_, Some(track)) => vec![track],
        (Command::Reconcile(_), None) if arguments.tracks.is_empty() => Track::all().to_vec(),
        (Command::Reconcile(_), None) => arguments.tracks.clone(),
        (_, None) => return None,
    };
    let session = session(arguments, Duration::ZERO).ok()?;
    tollgate_service::doctor::misplaced(&session, &tracks)
        .await
        .ok()
        .flatten()
}

async fn answer(arguments: &Arguments, stop: &ShutdownSignal) -> Answer {
    let name = arguments.command.name();
    match &arguments.command {
        Command::Migrate(command) => migrate::run(arguments, command, stop).await,
        Command::Doctor(options) => doctor::run(arguments, options).await,
        Command::Snapshot { file } => verify::snapshot(arguments, file, stop).await,
        Command::Verify { snapshot, .. } => {
            verify::verify(arguments, snapshot.as_deref(), stop).await
        }
        Command::Rehearse(options) => verify::rehearse(arguments, options, stop).await,
        Command::Schema(Schema::Diff { check }) => schema::diff(arguments, *check).await,
        Command::Schema(Schema::Repair { dry_run, wait }) => {
            schema::repair(arguments, *dry_run, wait.duration(), stop).await
        }
        Command::Reconcile(command) => reconcile::run(arguments, command, stop).await,
        Command::VirtualKey(command) => reconcile::virtual_key(arguments, command, stop).await,
        Command::ProviderConfig(command) => {
            reconcile::provider_config(arguments, command, stop).await
        }
        Command::Budget(command) => budget::run(arguments, command, stop).await,
        Command::McpClient(command) => reconcile::mcp_client(arguments, command, stop).await,
        Command::BillingMode(command) => billing::mode(arguments, command).await,
        Command::ProviderKey(command) => provider_key::run(arguments, command).await,
        Command::GatewayKey(command) => gateway_key::run(arguments, command).await,
        Command::WorkspaceSecret(command) => billing::secret(arguments, command).await,
        Command::History { run, limit } => history::run(arguments, *run, *limit).await,
        Command::Seed(options) => seed::run(arguments, options).await,
        Command::Demo(options) => demo::run(arguments, options, stop).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "tollgate", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            let result = CommandResult::answer(serde_json::json!({ "script": script }));
            let outcome = Outcome::from(Report::answering(result));
            Answer::new(name, outcome, View::Plain(script))
        }
    }
}

/// The session that the arguments describe. There is no default database: a deploy that forgot its URL must not
/// migrate an empty file.
pub(crate) fn session(arguments: &Arguments, wait_lock: Duration) -> Result<Session> {
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|url| !url.trim().is_empty())
    };
    let given = match (&arguments.database_url, &arguments.database_url_file) {
        (Some(url), _) => Some(url.clone()).filter(|url| !url.trim().is_empty()),
        (None, Some(file)) => Some(crate::input::text(file)?).filter(|url| !url.trim().is_empty()),
        (None, None) => variable("TOLLGATE_DATABASE_URL").or_else(|| variable("DATABASE_URL")),
    };
    let Some(url) = given else {
        return Err(Error::usage(
            "no database was named",
            "pass --database-url URL or set DATABASE_URL; `tollgate demo` needs none",
        ));
    };
    let mut location = Location::parse(url.trim())?;
    location.lock_timeout = arguments.lock_timeout;
    location.stop = arguments.stop.clone();
    let mut session = Session::new(location)
        .on(&arguments.tracks)
        .waiting(wait_lock);
    session.connect_timeout = Duration::from_secs(arguments.connect_timeout);
    session.target = arguments.command.next().map(str::to_owned);
    Ok(session)
}
