//! `verify`: what must hold of a database, and with a snapshot, that nothing of what it held was lost.

pub(crate) mod broken;
pub(crate) mod explained;
pub(crate) mod invariant;
pub(crate) mod invariants;
mod preservation;
pub(crate) mod rewrite;

use std::path::Path;

use tollgate_migration::Track;

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::report::result::{Compared, VerifyResult};
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::{Session, idle};
use crate::runs;
use crate::shutdown::ShutdownSignal;
use crate::snapshot::file::{Snapshot, TrackSnapshot};
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
    for (track, exists) in tracks(session, &connection, taken.as_ref()).await? {
        stop.check()?;
        environment::refuse_hidden(&connection, track).await?;
        let (live, history) = live(session, &connection, track, exists).await?;
        report.tracks.push(idle(track, &history));
        let past = environment::ledger::past(track, &live);
        if !past.is_empty() {
            report.findings.extend(past);
            continue;
        }
        let mut found = invariants::examine(&connection, track, &live, &history).await?;
        let before = taken.as_ref().and_then(|taken| {
            let part = taken.tracks.iter().find(|part| part.track == track)?;
            Some((taken, part))
        });
        if let Some((taken, before)) = before {
            excuse(&mut found, before);
            let comparison = preservation::Comparison {
                before,
                live: &live,
                history: &history,
                salted: &taken.salted()?,
                undone: is_undone_since(&connection, taken).await?,
                observer,
                stop,
            };
            let (lost, sections) = preserved(&connection, track, &comparison, &found).await?;
            found.extend(lost);
            compared.extend(sections);
        }
        report.findings.extend(found);
    }
    report.result = Some(CommandResult::Verified(VerifyResult {
        snapshot: snapshot.map(|path| path.display().to_string()),
        taken_at: taken.as_ref().map(|taken| taken.taken_at.clone()),
        compared,
    }));
    Ok(report)
}

/// The tracks of the session, and those of the snapshot: one that is gone altogether is the greatest loss of all.
async fn tracks(
    session: &Session,
    connection: &Connection,
    taken: Option<&Snapshot>,
) -> Result<Vec<(Track, bool)>> {
    let mut tracks = session.tracks(connection).await?;
    for part in taken.into_iter().flat_map(|taken| &taken.tracks) {
        if session.tracks.is_empty() && !tracks.iter().any(|(track, _)| *track == part.track) {
            tracks.push((part.track, false));
        }
    }
    Ok(tracks)
}

/// What was broken in the snapshot already, and is no worse, is no fault of what happened since.
fn excuse(found: &mut [Finding], before: &TrackSnapshot) {
    for finding in found {
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
}

/// Whether a `down` has run since the snapshot.
async fn is_undone_since(connection: &Connection, taken: &Snapshot) -> Result<bool> {
    let Some(at) = crate::instant::parse(&taken.taken_at) else {
        return Ok(false);
    };
    runs::any_since(connection, connection.dialect(), "migrate down", at)
        .await
        .map_err(Error::database(format!("read {}", runs::TABLE)))
}

/// What of the snapshot is not there any more, and what was compared; without what the gateway's own migrations explain.
async fn preserved(
    connection: &Connection,
    track: Track,
    comparison: &preservation::Comparison<'_>,
    broken: &[Finding],
) -> Result<(Vec<Finding>, Vec<Compared>)> {
    let (mut lost, sections) = preservation::examine(connection, comparison, broken).await?;
    if let Some(then) = &comparison.before.ledger {
        let gained = explained::gained(then, comparison.live.ledger(track));
        explained::explain(connection, track, comparison.live, &gained, &mut lost).await?;
    }
    Ok((lost, sections))
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
