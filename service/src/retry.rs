//! Which failures are worth another try.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use sea_orm::{ConnectionTrait, DbErr};

use tollgate_migration::Dialect;

use crate::connection::{Connection, Transaction};
pub(crate) use crate::sqlstate::{is_busy, is_foreign_key_violation, is_transient};

/// How long a statement of a routine waits for a row: below `deadlock_timeout`, so that Tollgate backs off and not the
/// gateway. Whoever sets it tries again as [`Turns`] says.
pub(crate) const ROW_TIMEOUT: &str = "500ms";

/// Sets it for the rest of the transaction.
pub(crate) fn for_rows() -> String {
    format!("SET LOCAL lock_timeout = '{ROW_TIMEOUT}'")
}

/// Begins a transaction whose statements wait for a row no longer than that. On SQLite one writes at a time, and has the file.
///
/// # Errors
/// Those of [`Connection::begin`], and what the server says to the setting.
pub(crate) async fn begin(connection: &Connection) -> Result<Transaction, DbErr> {
    let transaction = connection.begin().await?;
    if connection.dialect() == Dialect::Postgres {
        transaction.execute_unprepared(&for_rows()).await?;
    }
    Ok(transaction)
}

/// The tries of a transaction that waits half a second at a time: again after every deadlock, and after a wait for as long
/// as `--lock-timeout` says.
pub(crate) struct Turns {
    begun: Instant,
    patience: Duration,
}

impl Turns {
    /// Begins to count.
    pub(crate) fn of(connection: &Connection) -> Self {
        Self {
            begun: Instant::now(),
            patience: connection.lock_timeout(),
        }
    }

    /// Whether the transaction is worth another try.
    pub(crate) fn again(&self, error: &DbErr) -> bool {
        is_transient(error) || (is_busy(error) && self.begun.elapsed() < self.patience)
    }
}

/// A transaction, again while [`Turns`] says so.
///
/// # Errors
/// The last of what it answered.
pub(crate) async fn in_turns<T, F: Future<Output = Result<T, DbErr>>>(
    connection: &Connection,
    attempt: impl FnMut() -> F,
) -> Result<T, DbErr> {
    let turns = Turns::of(connection);
    attempt
        .retry(backoff())
        .when(|error| turns.again(error))
        .await
}

/// Backs off for about a minute in all before it gives up.
pub(crate) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        // A signal is heeded between two tries.
        .with_max_delay(Duration::from_secs(1))
        .with_factor(1.7)
        .with_max_times(60)
        .with_jitter()
}
