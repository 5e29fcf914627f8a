//! Polls with growing pauses.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::shutdown::ShutdownSignal;

/// How often the lock is tried. It is polled, never waited in: a blocked waiter on PostgreSQL holds a snapshot and
/// deadlocks with the holder's concurrent index build.
const POLL: Duration = Duration::from_millis(50);

const POLL_AT_MOST: Duration = Duration::from_secs(2);

/// Polls with growing pauses, and jitter: replicas that start together must not try together.
pub(crate) struct Poll {
    deadline: Instant,
    pause: Duration,
}

impl Poll {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            deadline: Instant::now() + wait,
            pause: POLL,
        }
    }

    /// Waits a while; false when the time is over.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(crate) async fn again(&mut self, stop: &ShutdownSignal) -> Result<bool> {
        stop.check()?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let jitter = self
            .pause
            .mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0);
        // The last try is at the end of the time, and not before.
        let pause = (self.pause / 2 + jitter).min(left);
        stop.rest(pause).await?;
        self.pause = (self.pause * 2).min(POLL_AT_MOST);
        Ok(true)
    }
}
