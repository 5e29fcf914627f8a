//! `migrate status`: what is applied and what is pending, read-only.

use crate::database::Access;
use crate::error::Result;
use crate::report::{Applied, Report};

use super::{Session, idle};

/// Reads the history of every track.
///
/// # Errors
/// What connecting and reading may answer; nothing is written.
pub async fn status(session: &Session) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let mut report = Report::default();
    for (track, exists) in session.tracks(&connection).await? {
        let history = session.history(&connection, track, exists).await?;
        let mut entry = idle(track, &history);
        for migration in track.migrations() {
            if let Some(applied) = history.entries.get(migration.version) {
                entry.applied.push(Applied {
                    version: migration.version.to_owned(),
                    phase: migration.phase,
                    duration_ms: applied.duration_ms.unsigned_abs(),
                    rows: applied.rows.unsigned_abs(),
                    left: 0,
                });
            }
        }
        report.tracks.push(entry);
    }
    Ok(report)
}
