//! What a run under a lock carries into each of its transactions.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::query_error::{Cause, QueryError};
use super::server::{Server, Wire};
use crate::shutdown::ShutdownSignal;

/// How long the lock's connection may take to prove that it lives.
const PROOF: Duration = Duration::from_secs(20);

/// A run under a lock, on PostgreSQL.
pub(crate) struct Work {
    /// The work keys, shared, in each transaction of the run: a dead run's COMMIT may still be under way when its lock is
    /// free, and as long as it is, so is its key.
    pub(crate) keys: Vec<(i32, i32)>,
    /// The connection that holds the lock in one open transaction.
    pub(crate) lock: Server,
    /// Asked while a statement waits.
    pub(crate) stop: ShutdownSignal,
    /// How long a statement that no timeout bounds may wait for others.
    pub(crate) wait_lock: Duration,
}

impl Work {
    pub(crate) fn keys(&self) -> &[(i32, i32)] {
        &self.keys
    }

    /// Proves that the lock is still held. Boxed, for the proof is a statement, too.
    pub(crate) fn ensure_held(&self) -> BoxFuture<'_, Result<(), QueryError>> {
        Box::pin(async {
            let lost = |why: String| QueryError::new(Cause::LockLost, why);
            crate::fault::statement().map_err(|error| lost(error.to_string()))?;
            match tokio::time::timeout(PROOF, self.lock.simple("SELECT 1")).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(lost(error.to_string())),
                Err(_) => Err(lost(format!(
                    "it did not answer within {} s",
                    PROOF.as_secs()
                ))),
            }
        })
    }

    /// The lock's connection, in its transaction, for a question. What the server knows of sessions is seen as it is now, and
    /// not as it was when the transaction first looked.
    pub(crate) fn aside(&self) -> BoxFuture<'_, Result<Wire, sqlx::Error>> {
        Box::pin(async {
            let mut wire = self
                .lock
                .wire()
                .await
                .map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            let (connection, _) = wire.parts();
            sqlx::Executor::execute(connection, "SELECT pg_stat_clear_snapshot()").await?;
            Ok(wire)
        })
    }
}
