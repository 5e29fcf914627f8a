//! What a run does while somebody else's lock is in its way: it backs off, and lets gateways in meanwhile.

use std::time::Duration;

use crate::error::Result;
use crate::lock::{Lock, Poll};
use crate::shutdown::ShutdownSignal;

/// How a run waits.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    /// The run's lock.
    pub lock: &'a Lock,
    /// How long it tries in all.
    pub wait: Duration,
    /// Asked before each try.
    pub stop: &'a ShutdownSignal,
}

impl Patience<'_> {
    /// The tries of one transaction.
    pub(super) fn poll(&self) -> Poll {
        Poll::new(self.wait)
    }

    /// Rests before the next try; false when the time is over. Nothing of a gateway's is held meanwhile, so that one may
    /// have migrated when this returns: whoever goes on looks at the schema again.
    ///
    /// # Errors
    /// [`crate::Error::Stopped`], [`crate::Error::Locked`], [`crate::Error::LockLost`].
    pub(super) async fn rest(&self, poll: &mut Poll) -> Result<bool> {
        self.lock.let_gateway_in().await?;
        let again = poll.again(self.stop).await;
        self.lock.keep_gateway_out(self.stop).await?;
        again
    }

    /// Looks, again while somebody's lock is in the way.
    ///
    /// # Errors
    /// Those of the look, and of [`Self::rest`].
    pub(super) async fn load<T>(&self, mut load: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut poll = self.poll();
        let mut said = false;
        loop {
            match load().await {
                Err(error) if error.is_busy() => {
                    if !said {
                        tracing::info!("{error}; backing off and looking again");
                    }
                    said = true;
                    if !self.rest(&mut poll).await? {
                        return Err(error);
                    }
                }
                ended => return ended,
            }
        }
    }
}
