//! `tollgate reconcile …`, and the deletions that clean up: `mcp-client`, `virtual-key`, `provider-config`

use std::path::Path;

use chrono::{DateTime, Utc};
use tollgate_service::billing::reconcile::billing;
use tollgate_service::governance::config::{ConfigFile, Variables, config};
use tollgate_service::governance::credentials::{Scope, credentials};
use tollgate_service::governance::flows::flows;
use tollgate_service::governance::header_keys::fold_header_keys;
use tollgate_service::governance::header_requirements::header_requirements;
use tollgate_service::governance::mcp_client;
use tollgate_service::governance::resets::resets;
use tollgate_service::governance::virtual_key::{Deletion, delete};
use tollgate_service::providers::provider_keys::provider_keys;
use tollgate_service::reconcile::Options;
use tollgate_service::reconcile::all::{all, named};
use tollgate_service::runner::Session;
use tollgate_service::{Error, Outcome, Result, Severity, ShutdownSignal};

use crate::arguments::{Arguments, McpClient, ProviderConfig, Reconcile, VirtualKey, Wait};
use crate::commands::session;
use crate::output::{Answer, View};
use crate::progress::Progress;

pub(super) async fn run(
    arguments: &Arguments,
    command: &Reconcile,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let (Reconcile::Credentials { how: routine, .. }
    | Reconcile::Flows { how: routine, .. }
    | Reconcile::HeaderKeys(routine)
    | Reconcile::HeaderRequirements { how: routine, .. }
    | Reconcile::ProviderKeys { routine, .. }
    | Reconcile::Resets { routine, .. }
    | Reconcile::Config { routine, .. }
    | Reconcile::All(routine)
    | Reconcile::Run { how: routine, .. }
    | Reconcile::Billing(routine)) = command;
    let session = match session(arguments, routine.wait.duration()) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let mut how = Options::default();
    how.dry_run = routine.dry_run || routine.check;
    how.max_changes = routine.max_changes;
    how.shard = routine.shard;
    how.parallel = routine.parallel;
    let now = Utc::now();
    let progress = Progress::new(arguments);
    let outcome = match routine_of(command, &session, how, now, stop).await {
        Ok(outcome) => outcome,
        Err(error) => return Answer::failed(name, error),
    };
    progress.finish();
    // A part of a file that is not written is something to be seen to, as much as a row that differs.
    let unread = outcome
        .report
        .findings
        .iter()
        .any(|finding| finding.code == "R010" && finding.severity == Severity::Warning);
    let found = routine.check && (unread || !outcome.report.changes.is_empty());
    Answer::new(name, outcome, View::Own).exiting_with_3_when(found)
}

async fn routine_of(
    command: &Reconcile,
    session: &Session,
    how: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Result<Outcome> {
    Ok(match command {
        Reconcile::Credentials {
            virtual_key,
            mcp_client,
            ..
        } => {
            let scope = match (virtual_key, mcp_client) {
                (Some(id), _) => Scope::VirtualKey(id.clone()),
                (None, Some(id)) => Scope::Client(id.clone()),
                (None, None) => Scope::All,
            };
            credentials(session, &scope, how, now, stop).await
        }
        Reconcile::Flows { orphan_ttl, .. } => flows(session, *orphan_ttl, how, now, stop).await,
        Reconcile::HeaderKeys(_) => fold_header_keys(session, how, now, stop).await,
        Reconcile::HeaderRequirements { mcp_client, .. } => {
            header_requirements(session, mcp_client, how, now, stop).await
        }
        Reconcile::ProviderKeys { resolutions, .. } => {
            provider_keys(session, resolutions.choices.clone(), how, now, stop).await
        }
        Reconcile::Resets {
            request_retention, ..
        } => resets(session, *request_retention, how, now, stop).await,
        Reconcile::Config {
            file,
            env_file,
            prune,
            force,
            allow_unread,
            ..
        } => {
            if *prune && !how.dry_run && how.max_changes.is_none() {
                return Err(Error::usage(
                    "--prune deletes what the file lacks, and nothing says how much that may be",
                    "look with --dry-run, then say --max-changes N; or ask with --check",
                ));
            }
            let spooled = spooled(file)?;
            let file = ConfigFile {
                name: match spooled {
                    Some(_) => "standard input".to_owned(),
                    None => file.display().to_string(),
                },
                path: spooled
                    .as_ref()
                    .map_or_else(|| file.clone(), |spooled| spooled.path().to_path_buf()),
                prune: *prune,
                force: *force,
                allow_unread: *allow_unread,
                variables: match env_file {
                    None => Variables::default(),
                    Some(path) => looked_up_in(path)?,
                },
            };
            config(session, &file, how, now, stop).await
        }
        Reconcile::All(_) => all(session, how, now, stop).await,
        Reconcile::Run { routine, .. } => {
            let found = named(session, routine)?;
            (found.run)(session, how, now, stop).await
        }
        Reconcile::Billing(_) => billing(session, how, now, stop).await,
    })
}

/// The variables of a file, and behind them those of the environment.
fn looked_up_in(path: &Path) -> Result<Variables> {
    let known = crate::input::variables(path)?;
    let rest = Variables::default();
    Ok(Variables::new(move |name| {
        known.get(name).cloned().or_else(|| rest.get(name))
    }))
}

/// Standard input is read once, and the file may be read again.
fn spooled(file: &Path) -> Result<Option<tempfile::NamedTempFile>> {
    (file == Path::new("-"))
        .then(crate::input::spooled)
        .transpose()
}

pub(super) async fn mcp_client(
    arguments: &Arguments,
    command: &McpClient,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let McpClient::Delete { id, dry_run, wait } = command;
    let session = match session(arguments, wait.duration()) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let deleted = mcp_client::delete(&session, id, *dry_run, Utc::now(), stop).await;
    Answer::new(name, Outcome::from(deleted), View::Own)
}

pub(super) async fn virtual_key(
    arguments: &Arguments,
    command: &VirtualKey,
    stop: &ShutdownSignal,
) -> Answer {
    let VirtualKey::Delete { id, dry_run, wait } = command;
    let target = Deletion::VirtualKey(id.clone());
    owner(arguments, &target, *dry_run, wait, stop).await
}

pub(super) async fn provider_config(
    arguments: &Arguments,
    command: &ProviderConfig,
    stop: &ShutdownSignal,
) -> Answer {
    let ProviderConfig::Delete { id, dry_run, wait } = command;
    owner(
        arguments,
        &Deletion::ProviderConfig(*id),
        *dry_run,
        wait,
        stop,
    )
    .await
}

async fn owner(
    arguments: &Arguments,
    target: &Deletion,
    dry_run: bool,
    wait: &Wait,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let session = match session(arguments, wait.duration()) {
        Ok(session) => session,
        Err(error) => return Answer::failed(name, error),
    };
    let outcome = delete(&session, target, dry_run, Utc::now(), stop).await;
    Answer::new(name, Outcome::from(outcome), View::Own)
}
