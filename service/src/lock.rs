//! One run per track and database at a time, across processes and hosts.

pub(crate) mod gateway;
pub(crate) mod poll;
mod postgres;
pub(crate) mod running;
mod sqlite;

use tollgate_migration::Track;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::shutdown::ShutdownSignal;
pub(crate) use poll::Poll;

/// The lock of a run, held until released; on PostgreSQL until its connection ends, at the latest.
pub(crate) enum Lock {
    Postgres(postgres::PostgresLock),
    Sqlite {
        /// The kernel holds it as long as the file is open.
        _file: sqlite::SqliteLock,
    },
}

/// Whether a gateway that boots meanwhile is kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// Its migrations and ours would change the same tables.
    Waits,
    /// Rows only: it may boot.
    Boots,
}

impl Lock {
    /// Takes the locks of the tracks, all or none; what writes rows and migrates nothing refuses under them where the
    /// gateway's ledger forbids it, and answers the connection to work on: on PostgreSQL the one given becomes
    /// the lock's, so that whoever waits holds one connection, and whoever works two.
    ///
    /// # Errors
    /// [`Error::Locked`] naming the holder, [`Error::StillCommitting`], or [`Error::Stopped`].
    pub(crate) async fn take(
        session: &Session,
        connection: Connection,
        tracks: &[Track],
        gateway: Gateway,
        stop: &ShutdownSignal,
    ) -> Result<(Self, Connection)> {
        let (lock, connection) = Self::acquire(session, connection, tracks, gateway, stop).await?;
        if gateway == Gateway::Boots {
            for &track in tracks {
                if let Err(refusal) =
                    crate::doctor::environment::refuse_unknown(&connection, track).await
                {
                    lock.release().await;
                    return Err(refusal);
                }
            }
        }
        Ok((lock, connection))
    }

    async fn acquire(
        session: &Session,
        connection: Connection,
        tracks: &[Track],
        gateway: Gateway,
        stop: &ShutdownSignal,
    ) -> Result<(Self, Connection)> {
        match connection.into_server() {
            Ok(server) => {
                let lock =
                    postgres::PostgresLock::take(session, server, tracks, gateway, stop).await?;
                let worker = match session.connect(crate::database::Access::Write).await {
                    Ok(worker) => worker,
                    Err(error) => {
                        lock.release().await;
                        return Err(error);
                    }
                };
                let worker = worker.under(lock.work());
                Ok((Self::Postgres(lock), worker))
            }
            Err(connection) => {
                let mut poll = Poll::new(session.wait_lock);
                loop {
                    let holder = match sqlite::try_lock(&session.location)? {
                        sqlite::Tried::Held(_file) => {
                            return Ok((Self::Sqlite { _file }, connection));
                        }
                        sqlite::Tried::Busy(holder) => holder,
                    };
                    tracing::debug!(%holder, "waiting for the lock");
                    if !poll.again(stop).await? {
                        return Err(Error::Locked {
                            track: tracks.first().copied().unwrap_or(Track::all()[0]),
                            holder,
                        });
                    }
                }
            }
        }
    }

    /// A further connection of the run, whose transactions carry its keys and prove its lock.
    ///
    /// # Errors
    /// What connecting may answer.
    pub(crate) async fn worker(&self, session: &Session) -> Result<Connection> {
        let worker = session.connect(crate::database::Access::Write).await?;
        Ok(match self {
            Self::Postgres(lock) => worker.under(lock.work()),
            Self::Sqlite { .. } => worker,
        })
    }

    /// Lets a booting gateway in while an index is built concurrently: an old Bifrost waits for its key in a statement that
    /// holds a snapshot, the build waits for the snapshot, and neither would end.
    ///
    /// # Errors
    /// [`Error::LockLost`].
    pub(crate) async fn let_gateway_in(&self) -> Result<()> {
        match self {
            Self::Postgres(lock) => lock.let_gateway_in().await,
            Self::Sqlite { .. } => Ok(()),
        }
    }

    /// Keeps gateways out again.
    ///
    /// # Errors
    /// [`Error::Locked`] where one migrates and does not end in time; [`Error::LockLost`]; [`Error::Stopped`].
    pub(crate) async fn keep_gateway_out(&self, stop: &ShutdownSignal) -> Result<()> {
        match self {
            Self::Postgres(lock) => lock.keep_gateway_out(stop).await,
            Self::Sqlite { .. } => Ok(()),
        }
    }

    /// Lets the lock go.
    pub(crate) async fn release(self) {
        match self {
            Self::Postgres(lock) => lock.release().await,
            Self::Sqlite { .. } => {}
        }
    }
}
