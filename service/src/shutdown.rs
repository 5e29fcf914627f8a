//! A request to stop, made by a signal and heeded between batches and transactions, and by waits at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Shared between the signal handler and the work.
#[derive(Clone, Debug, Default)]
pub struct ShutdownSignal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    signal: AtomicU8,
    asked: Notify,
}

impl ShutdownSignal {
    /// Asks the work to stop at the next safe place; `signal` is the number the exit code is made from.
    pub fn request(&self, signal: u8) {
        self.0.signal.store(signal, Ordering::SeqCst);
        self.0.asked.notify_waiters();
    }

    /// Whether a stop was asked for.
    ///
    /// # Errors
    /// [`Error::Stopped`] when it was.
    pub fn check(&self) -> Result<()> {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Error::Stopped { signal }),
        }
    }

    /// Rests, for no longer than nobody asks for a stop.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(crate) async fn rest(&self, how_long: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(how_long) => Ok(()),
            _ = self.requested() => self.check(),
        }
    }

    /// Waits until a stop is asked for; answers the signal's number.
    pub async fn requested(&self) -> u8 {
        loop {
            // Registered before the look, so that a request between the two is not missed.
            let asked = self.0.asked.notified();
            match self.0.signal.load(Ordering::SeqCst) {
                0 => asked.await,
                signal => return signal,
            }
        }
    }
}
