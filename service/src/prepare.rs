//! `migrate prepare`: for gateways that migrate themselves. While every gateway is stopped it repairs the rows on which the
//! gateway's own migration would stop or lose something, and remembers what that migration cannot carry; `--finish`, after
//! the boot, puts back what was remembered.
//!
//! It changes rows only, and can be repeated.

pub(crate) mod work;

pub use work::{Options, Preparation, Work};

use std::collections::BTreeMap;

use tollgate_migration::{Context, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::{Gateway, Lock};
use crate::module::Module;
use crate::report::result::PrepareResult;
use crate::report::{CommandResult, Finding, Outcome, Report, Severity};
use crate::runner::target::gateway;
use crate::runner::{Session, context, idle, prove_writable};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;

/// Prepares, or finishes.
///
/// The outcome's error is [`Error::Usage`] where there is no ledger; [`Error::Refused`] where something is left that rows
/// cannot mend or a flag is missing for, and for `finish` before the ledger has moved; [`Error::Locked`].
pub async fn prepare(session: &Session, options: Options, stop: &ShutdownSignal) -> Outcome {
    let mut report = Report::default();
    let error = run(session, options, stop, &mut report).await.err();
    Outcome { report, error }
}

async fn run(
    session: &Session,
    options: Options,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let started = session.clock.now();
    let connection = session.connect(Access::Write).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    session.check_target(&names)?;
    let live = read(&connection).await?;
    let owned: Vec<Track> = names
        .iter()
        .copied()
        .filter(|track| live.ledger(*track).owns())
        .collect();
    if owned.is_empty() {
        return Err(Error::usage(
            format!(
                "{} has no ledger of a gateway: none will migrate it at boot",
                session.location.display
            ),
            "`tollgate migrate up` does the migration itself",
        ));
    }
    for &track in &owned {
        environment::refuse_hidden(&connection, track).await?;
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(session, connection, &owned, Gateway::Waits, stop).await?;
    let finish = options.finish;
    let work = Work {
        session,
        connection: &connection,
        options,
    };
    let outcome = work.tracks(&owned, report).await;
    if !report.changes.is_empty() {
        let kind = if finish {
            "migrate prepare --finish"
        } else {
            "migrate prepare"
        };
        let ended = RunOutcome::of(&outcome);
        session
            .record_run(&connection, kind, started, ended, report)
            .await;
    }
    lock.release().await;
    outcome
}

async fn read(connection: &Connection) -> Result<Context> {
    context(connection, &History::default()).await
}

pub(crate) fn not_moved(track: Track) -> Error {
    Error::refused(
        "not_moved",
        format!(
            "{} has not done its migration yet: its ledger is where it was",
            track.gateway()
        ),
        "start the new gateway first; nothing was changed",
    )
}

fn codes(left: &[Finding]) -> String {
    let mut codes: Vec<&str> = left
        .iter()
        .filter(|found| found.severity == Severity::Blocking)
        .map(|found| found.code.as_str())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

pub(crate) fn note(
    table: &str,
    ids: Vec<String>,
    title: &str,
    effect: &str,
    resolve: &str,
) -> Finding {
    Finding {
        code: "prepare".to_owned(),
        severity: Severity::Info,
        title: title.to_owned(),
        table: table.to_owned(),
        column: None,
        rows: ids.len() as u64,
        sample_ids: ids.into_iter().take(10).collect(),
        effect: effect.to_owned(),
        resolve: resolve.to_owned(),
    }
}

impl Work<'_> {
    async fn tracks(&self, tracks: &[Track], report: &mut Report) -> Result<()> {
        let mut gateways = Vec::new();
        let mut left = Vec::new();
        let mut states = BTreeMap::new();
        for &track in tracks {
            let mut history = History::read(self.connection, self.session.dialect(), track)
                .await
                .map_err(Error::database("read the history"))?;
            let mut live = context(self.connection, &history).await?;
            live.choices = self.options.choices.clone();
            self.session.aim(track, &live, &mut history)?;
            gateways.extend(gateway(track, &live, &history));
            report.tracks.push(idle(track, &history));
            let refused = environment::ledger::forbidding_rows(track, &live);
            if !refused.is_empty() {
                left.extend(refused);
                continue;
            }
            let module = Module::of(track);
            let work = if self.options.finish {
                module.finish
            } else {
                module.prepare
            };
            let state = work(self, &live, report, &mut left).await?;
            let is_left = left
                .iter()
                .any(|found| found.severity == Severity::Blocking);
            let state = if is_left {
                "not prepared: what the findings name is left"
            } else {
                state
            };
            states.insert(track.name(), state);
        }
        report.result = Some(CommandResult::Prepared(PrepareResult {
            gateways,
            state: states,
            finish: self.options.finish,
        }));
        if left
            .iter()
            .any(|found| found.severity == Severity::Blocking)
        {
            return Err(Error::Refused {
                code: "not_prepared",
                message: format!(
                    "{} is left, and the gateway's own migration would stop on it or lose it",
                    codes(&left)
                ),
                hint: "resolve what the findings name, then run the command again; the gateway has not been touched".to_owned(),
                findings: left,
            });
        }
        report.findings.extend(left);
        Ok(())
    }
}
