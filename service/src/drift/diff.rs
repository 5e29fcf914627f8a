//! `schema diff`.

use super::examine;
use crate::database::Access;
use crate::error::Result;
use crate::report::result::DiffResult;
use crate::report::{CommandResult, Report};
use crate::runner::{Session, adopt, context, idle};

/// `schema diff`: the live schema against the expected one, read-only. A database without history is compared with the
/// version that `migrate adopt` would recognise.
///
/// # Errors
/// What connecting and reading may answer, and the refusals of `adopt`.
pub async fn diff(session: &Session) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let mut report = Report::default();
    let mut found = Vec::new();
    for (track, exists) in session.tracks(&connection).await? {
        let mut history = session.history(&connection, track, exists).await?;
        let live = context(&connection, &history).await?;
        if history.entries.is_empty() && track.is_carried_by(&live.catalog) {
            history = adopt::recognised_history(session.clock.now(), track, &live)?;
        }
        session.aim(track, &live, &mut history)?;
        found.extend(examine(&live, track, &history));
        report.tracks.push(idle(track, &history));
    }
    report.result = Some(CommandResult::Compared(DiffResult { differences: found }));
    Ok(report)
}
