//! One run per track and database at a time, across processes and hosts.

pub(crate) mod gateway;
pub(crate) mod poll;
mod postgres;
pub(crate) mod running;
mod sqlite;

use tollgate_migration::Track;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::reconcile::Shard;
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

/// A shard of a routine that is to run.
pub(crate) struct Claim {
    pub(crate) track: Track,
    pub(crate) routine: &'static str,
    pub(crate) shard: Shard,
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
        let taken = Self::acquire(session, connection, tracks, gateway, stop).await?;
        match gateway {
            Gateway::Boots => Self::refusing_unknown(taken, tracks).await,
            Gateway::Waits => Ok(taken),
        }
    }

    async fn refusing_unknown(
        (lock, connection): (Self, Connection),
        tracks: &[Track],
    ) -> Result<(Self, Connection)> {
        for &track in tracks {
            if let Err(refusal) =
                crate::doctor::environment::refuse_unknown(&connection, track).await
            {
                lock.release().await;
                return Err(refusal);
            }
        }
        Ok((lock, connection))
    }

    async fn with_worker(self, session: &Session) -> Result<(Self, Connection)> {
        match self.worker(session).await {
            Ok(worker) => Ok((self, worker)),
            Err(error) => {
                self.release().await;
                Err(error)
            }
        }
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
                Self::Postgres(lock).with_worker(session).await
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

    /// Takes the lock of one shard of a routine. Other shards may run, and nothing else on the track may.
    ///
    /// # Errors
    /// Those of [`Self::take`]; [`Error::Locked`] also where shards of another number run.
    pub(crate) async fn take_shard(
        session: &Session,
        connection: Connection,
        claim: Claim,
        stop: &ShutdownSignal,
    ) -> Result<(Self, Connection)> {
        let track = claim.track;
        let taken = match connection.into_server() {
            Ok(server) => {
                let lock = postgres::PostgresLock::take_shard(session, server, claim, stop).await?;
                Self::Postgres(lock).with_worker(session).await?
            }
            // One file has one writer: shards come one after another.
            Err(connection) => {
                Self::acquire(session, connection, &[track], Gateway::Boots, stop).await?
            }
        };
        Self::refusing_unknown(taken, &[track]).await
    }

    /// What a run that works on so many connections needs besides the one that it has.
    ///
    /// # Errors
    /// What connecting may answer.
    pub(crate) async fn workers(&self, session: &Session, all: usize) -> Result<Vec<Connection>> {
        let mut workers = Vec::new();
        for _ in 1..all {
            workers.push(self.worker(session).await?);
        }
        Ok(workers)
    }

    /// A further connection of the run, whose transactions carry its keys and prove its lock.
    ///
    /// # Errors
    /// What connecting may answer.
    async fn worker(&self, session: &Session) -> Result<Connection> {
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
