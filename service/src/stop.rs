//! A request to stop, made by a signal and heeded between batches and transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};

/// Shared between the signal handler and the work.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks the work to stop at the next safe place; `signal` is the number the exit code is made from.
    pub fn request(&self, signal: u8) {
        self.0.store(signal, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    ///
    /// # Errors
    /// [`Error::Stopped`] when it was.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Error::Stopped { signal }),
        }
    }
}
