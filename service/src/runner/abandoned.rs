//! Steps that release 0.1.0 left half undone: it kept the history's row to the last, so that the row says applied while part
//! of the step is gone.

use tollgate_migration::registry::golden;
use tollgate_migration::{Catalog, Dialect, Ledger, Track};

use super::checkpoint::{Direction, InProgress};
use crate::connection::Connection;
use crate::drift;
use crate::error::{Error, Result};
use crate::history::History;

/// The release that recorded so.
const RELEASE: &str = "0.1.0";

/// The history with such a step taken for what it is: one that goes down and has not ended.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn settle(
    connection: &Connection,
    track: Track,
    mut history: History,
) -> Result<History> {
    // Only there a step went down in several transactions.
    let suspect = connection.dialect() == Dialect::Postgres
        && history.in_progress.is_none()
        && history
            .current(track)
            .and_then(|version| history.entries.get(&version).cloned())
            .is_some_and(|entry| entry.tool_version == RELEASE && !entry.is_adopted());
    if !suspect {
        return Ok(history);
    }
    let catalog = Catalog::read(connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    if let Some(step) = half_undone(&catalog, track, &history) {
        history.entries.remove(&step.version);
        history.in_progress = Some(step);
    }
    Ok(history)
}

/// The last step, where every difference from what it makes is what the step before makes.
fn half_undone(catalog: &Catalog, track: Track, history: &History) -> Option<InProgress> {
    let version = history.current(track)?;
    let before = track
        .migrations()
        .iter()
        .take_while(|migration| migration.version != version)
        .last()?;
    let entry = history.entries.get(&version)?;
    let drift: Vec<_> = drift::examine_under(catalog, &Ledger::None, track, history)
        .into_iter()
        .filter(|drift| !drift.tolerated)
        .collect();
    let undone = golden(catalog.dialect, before.version)?;
    let is_undone = |drift: &drift::Drift| {
        let live = drift
            .live
            .as_deref()
            .map(|live| live.trim_end_matches(", not valid"));
        live == undone.get(&drift.object).map(String::as_str)
    };
    (!drift.is_empty() && drift.iter().all(is_undone)).then(|| InProgress {
        version,
        direction: Direction::Down,
        created: entry.created.clone(),
        listed: true,
    })
}
