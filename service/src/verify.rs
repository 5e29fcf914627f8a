//! `verify`: what must hold of a database, and with a snapshot, that nothing of what it held was lost.

pub(crate) mod broken;
pub(crate) mod explained;
pub(crate) mod invariant;
pub(crate) mod invariants;
mod preservation;
pub(crate) mod rewrite;

use std::path::Path;

use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::report::result::{Compared, VerifyResult};
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::{Session, idle};
use crate::runs;
use crate::shutdown::ShutdownSignal;
use crate::snapshot::file::Snapshot;
use crate::snapshot::{live, view};
pub(crate) use broken::finding;
pub use invariant::Invariant;
pub(crate) use invariant::RESTORE;

/// Verifies every track, read-only; with a snapshot every track of it too.
///
/// # Errors
/// [`Error::Refused`] with the findings where something is broken or lost; [`Error::Rejected`] for a file that is no
/// snapshot of this version or of another backend; what connecting and reading may answer.
pub async fn verify(
    session: &Session,
    snapshot: Option<&Path>,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let taken = snapshot.map(Snapshot::read).transpose()?;
    if let Some(taken) = &taken
        && taken.backend != session.dialect().name()
    {
        return Err(Error::Rejected {
            what: format!(
                "the snapshot is of a {} database, and this is {}",
                taken.backend,
                session.dialect().name()
            ),
        });
    }
    let connection = session.connect(Access::Read).await?;
    view(&connection, session.dialect()).await?;
    let mut report = Report::default();
    let mut compared = Vec::new();
    let mut tracks = session.tracks(&connection).await?;
    if let Some(taken) = &taken {
        // A track that is gone altogether is the greatest loss of all.
        for part in &taken.tracks {
            if session.tracks.is_empty() && !tracks.iter().any(|(track, _)| *track == part.track) {
                tracks.push((part.track, false));
            }
        }
    }
    for (track, exists) in tracks {
        stop.check()?;
        environment::refuse_hidden(&connection, track).await?;
        let (live, history) = live(session, &connection, track, exists).await?;
        let before = taken
            .as_ref()
            .and_then(|taken| taken.tracks.iter().find(|part| part.track == track));
        let past: Vec<Finding> = environment::ledger::examine(track, &live)
            .into_iter()
            .filter(|finding| finding.code == "G016")
            .collect();
        if !past.is_empty() {
            // Nothing of what is there now can be held against what is known.
            report.findings.extend(past);
            report.tracks.push(idle(track, &history));
            continue;
        }
        let mut found = invariants::examine(&connection, track, &live, &history).await?;
        if let (Some(taken), Some(before)) = (&taken, before) {
            for finding in &mut found {
                let was = before.broken.iter().find(|broken| {
                    broken.code == finding.code
                        && broken.table == finding.table
                        && broken.column == finding.column
                });
                if was.is_some_and(|was| finding.rows <= was.rows) {
                    finding.severity = Severity::Info;
                    finding.effect = format!("{}; it was so in the snapshot", finding.effect);
                }
            }
            let salted = taken.salted()?;
            let undone = match crate::instant::parse(&taken.taken_at) {
                Some(at) => runs::any_since(&connection, session.dialect(), "migrate down", at)
                    .await
                    .map_err(Error::database(format!("read {}", runs::TABLE)))?,
                None => false,
            };
            let (mut lost, sections) = preservation::examine(
                &connection,
                &preservation::Comparison {
                    before,
                    live: &live,
                    history: &history,
                    salted: &salted,
                    undone,
                    observer,
                    stop,
                },
                &found,
            )
            .await?;
            if let Some(then) = &before.ledger {
                let gained = explained::gained(then, live.ledger(track));
                explained::explain(&connection, track, &live, &gained, &mut lost).await?;
            }
            found.extend(lost);
            compared.extend(sections);
        }
        report.findings.extend(found);
        report.tracks.push(idle(track, &history));
    }
    report.result = Some(CommandResult::Verified(VerifyResult {
        snapshot: snapshot.map(|path| path.display().to_string()),
        taken_at: taken.as_ref().map(|taken| taken.taken_at.clone()),
        compared,
    }));
    Ok(report)
}

/// The refusal where anything is broken or lost.
pub fn failure(report: &Report) -> Option<Error> {
    report.is_blocked().then(|| {
        let mut codes: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Blocking)
            .map(|finding| finding.code.as_str())
            .collect();
        codes.sort_unstable();
        codes.dedup();
        Error::Refused {
            code: "verify_failed",
            message: format!("the database is not as it should be: {}", codes.join(", ")),
            hint: "the findings name table, column and rows; nothing was changed".to_owned(),
            findings: Vec::new(),
        }
    })
}
