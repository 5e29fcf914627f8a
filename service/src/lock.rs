//! One run per track and database at a time, across processes and hosts.

pub(crate) mod bifrost;
mod postgres;
mod sqlite;

use std::time::{Duration, Instant};

use tollgate_migration::{Dialect, Track};

use crate::database::Location;
use crate::error::{Error, Result};
use crate::stop::Stop;

/// How often the lock is tried. It is polled, never waited in: a blocked waiter on PostgreSQL holds a snapshot and
/// deadlocks with the holder's concurrent index build.
const POLL: Duration = Duration::from_millis(50);
const POLL_AT_MOST: Duration = Duration::from_secs(2);

/// The lock of one track, held until dropped or released.
pub(crate) enum Lock {
    Postgres(postgres::PostgresLock),
    Sqlite(sqlite::SqliteLock),
}

/// One try for the lock.
enum Try {
    Held(Lock),
    Busy(String),
}

impl Lock {
    /// Takes the lock, or gives up after `wait`.
    ///
    /// # Errors
    /// [`Error::Locked`] naming the holder, or [`Error::Stopped`].
    pub(crate) async fn take(
        location: &Location,
        track: Track,
        wait: Duration,
        connect_timeout: Duration,
        stop: &Stop,
    ) -> Result<Self> {
        let deadline = Instant::now() + wait;
        let mut pause = POLL;
        let mut polled = match location.dialect() {
            Dialect::Postgres => Some(postgres::Poll::connect(location, connect_timeout).await?),
            Dialect::Sqlite => None,
        };
        loop {
            let tried = match polled.take() {
                Some(poll) => match poll.try_lock(track).await? {
                    postgres::Tried::Held(lock) => Try::Held(Self::Postgres(lock)),
                    postgres::Tried::Busy(poll, holder) => {
                        polled = Some(poll);
                        Try::Busy(holder)
                    }
                },
                None => sqlite::try_lock(location)?,
            };
            match tried {
                Try::Held(lock) => return Ok(lock),
                Try::Busy(holder) => {
                    if Instant::now() + pause > deadline {
                        return Err(Error::Locked { track, holder });
                    }
                    tracing::debug!(%track, %holder, "waiting for the lock");
                }
            }
            stop.check()?;
            // Replicas that start together must not try together.
            let jitter = pause.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0);
            tokio::time::sleep(pause / 2 + jitter).await;
            pause = (pause * 2).min(POLL_AT_MOST);
        }
    }

    /// Proves that the lock is still held.
    ///
    /// # Errors
    /// [`Error::LockLost`].
    pub(crate) async fn prove(&self, track: Track) -> Result<()> {
        match self {
            Self::Postgres(lock) => lock.prove().await.map_err(|error| Error::LockLost {
                track,
                reason: error.to_string(),
            }),
            // The kernel holds a file lock as long as the file is open.
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Lets the lock go.
    pub(crate) async fn release(self) {
        match self {
            Self::Postgres(lock) => lock.release().await,
            Self::Sqlite(lock) => drop(lock),
        }
    }
}
