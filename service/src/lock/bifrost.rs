//! Bifrost's own migration lock, so that a gateway that boots meanwhile waits instead of migrating beside us
//! (`reference/bifrost.md` §7).

use std::time::{Duration, Instant};

use crate::connection::{Connection, Transaction};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::{Dialect, Track};

use crate::database::{Access, Location};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// The key that every Bifrost takes.
const KEY: i64 = 1_000_001;
const POLL: Duration = Duration::from_millis(100);

/// Bifrost's key, held by an open transaction on a connection of its own.
pub(crate) struct BifrostKey {
    connection: Connection,
    held: Option<Transaction>,
    wait: Duration,
}

impl BifrostKey {
    /// Takes the key on PostgreSQL, where Bifrost has one; on SQLite it has none.
    pub(crate) async fn take(
        location: &Location,
        wait: Duration,
        connect_timeout: Duration,
        stop: &Stop,
    ) -> Result<Option<Self>> {
        if location.dialect() == Dialect::Sqlite {
            return Ok(None);
        }
        let mut key = Self {
            connection: location.connect(Access::Write, connect_timeout).await?,
            held: None,
            wait,
        };
        key.hold(stop).await?;
        Ok(Some(key))
    }

    /// Takes the key again after [`BifrostKey::let_go`]. Polled like our own lock, and for the same reason.
    pub(crate) async fn hold(&mut self, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + self.wait;
        loop {
            match self
                .attempt()
                .await
                .map_err(Error::database("take Bifrost's migration lock"))?
            {
                Some(held) => {
                    self.held = Some(held);
                    return Ok(());
                }
                None if Instant::now() + POLL > deadline => {
                    return Err(Error::Locked {
                        track: Track::Governance,
                        holder: "a Bifrost that is migrating the database itself".to_owned(),
                    });
                }
                None => {}
            }
            stop.check()?;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn attempt(&self) -> std::result::Result<Option<Transaction>, DbErr> {
        let transaction = self.connection.begin().await?;
        super::postgres::outlive_timeouts(&transaction).await?;
        let held: bool = transaction
            .query_one_raw(Statement::from_string(
                Dialect::Postgres.backend(),
                format!("SELECT pg_try_advisory_xact_lock({KEY}) AS held"),
            ))
            .await?
            .map(|row| row.try_get("", "held"))
            .transpose()?
            .unwrap_or_default();
        if held {
            return Ok(Some(transaction));
        }
        transaction.rollback().await?;
        Ok(None)
    }

    /// Lets the key go while an index is built concurrently: an old Bifrost waits for the key in a statement that holds
    /// a snapshot, the build waits for the snapshot, and neither would end.
    pub(crate) async fn let_go(&mut self) {
        if let Some(held) = self.held.take()
            && let Err(error) = held.rollback().await
        {
            tracing::debug!(%error, "the connection with Bifrost's key was gone already");
        }
    }
}
