//! `migrate status`: what is applied, what is pending, and what a hand has changed since; read-only.

use crate::database::Access;
use crate::drift;
use crate::error::Result;
use crate::report::{Applied, Report};

use super::{Session, context, idle};

/// Reads the history of every track.
///
/// # Errors
/// What connecting and reading may answer; nothing is written.
pub async fn status(session: &Session) -> Result<Report> {
    let connection = session.connect(Access::Read).await?;
    let mut report = Report::default();
    let mut found = Vec::new();
    for (track, exists) in session.tracks(&connection).await? {
        let history = session.history(&connection, track, exists).await?;
        if exists {
            let live = context(&connection, &history).await?;
            found.extend(
                drift::examine(&live.catalog, track, &history)
                    .into_iter()
                    .filter(|drift| !drift.tolerated),
            );
        }
        let mut entry = idle(track, &history);
        for migration in track.migrations() {
            if let Some(applied) = history.entries.get(migration.version) {
                entry.applied.push(Applied {
                    version: migration.version.to_owned(),
                    phase: migration.phase,
                    duration_ms: applied.duration_ms.unsigned_abs(),
                    rows: applied.rows.unsigned_abs(),
                    left: 0,
                    longest_lock_ms: 0,
                    blocks: tollgate_migration::plan::Blocks::Nothing,
                });
            }
        }
        report.tracks.push(entry);
    }
    report.result = Some(serde_json::json!({ "drift": found }));
    Ok(report)
}
