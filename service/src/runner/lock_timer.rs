//! How long a migration makes others wait.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tollgate_migration::plan::Blocks;

/// The longest transaction or statement so far that made anybody wait.
#[derive(Debug, Default)]
pub(super) struct LockTimer(Mutex<Option<(Duration, Blocks)>>);

impl LockTimer {
    /// Takes note of one that began then and has just ended.
    pub(super) fn since(&self, begun: Instant, blocks: Blocks) {
        self.lasted(begun.elapsed(), blocks);
    }

    fn lasted(&self, lasted: Duration, blocks: Blocks) {
        if blocks == Blocks::Nothing {
            return;
        }
        if let Ok(mut longest) = self.0.lock()
            && longest.is_none_or(|(known, _)| known < lasted)
        {
            *longest = Some((lasted, blocks));
        }
    }

    /// Milliseconds, and whom it made wait.
    pub(super) fn longest(&self) -> (u64, Blocks) {
        let longest = self.0.lock().ok().and_then(|longest| *longest);
        longest.map_or((0, Blocks::Nothing), |(lasted, blocks)| {
            (
                u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                blocks,
            )
        })
    }
}
