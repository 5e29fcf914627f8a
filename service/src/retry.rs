//! Which failures are worth another try.

use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use sea_orm::{ConnectionTrait, DbErr, RuntimeErr};

use tollgate_migration::Dialect;

use crate::connection::{Connection, Transaction};

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

/// PostgreSQL's deadlock and serialization failure, SQLite's busy: nothing was done, and the next try may find the way
/// free. A lock timeout is none: the wait has had its time.
pub(crate) fn is_transient(error: &DbErr) -> bool {
    let Some(code) = code(error) else {
        return false;
    };
    // SQLite's codes are numbers whose low byte is the primary code: 5 is BUSY, 6 is LOCKED.
    matches!(code.as_str(), "40P01" | "40001")
        || code
            .parse::<u32>()
            .is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 5 | 6))
}

/// The same, or a lock that was not to be had in time: for a run that backs off until `--wait-lock`.
pub(crate) fn is_busy(error: &DbErr) -> bool {
    is_transient(error) || code(error).is_some_and(|code| code == "55P03")
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

/// PostgreSQL's and SQLite's refusal of a row whose parent is not there.
pub(crate) fn is_foreign_key_violation(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "23503" | "787"))
}

/// SQLite's refusal to read, on a connection that may not write, what a killed writer left half-written: it has to be undone
/// first, from the journal (776) or the write-ahead log (264).
pub(crate) fn needs_recovery(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "776" | "264"))
}

/// The refusal of a column that is not there. SQLite has no code for it.
pub(crate) fn is_missing_column(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == "42703") || error.to_string().contains("no such column")
}

fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))
    | DbErr::Conn(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    error
        .as_database_error()
        .and_then(|error| error.code())
        .map(|code| code.into_owned())
}

/// PostgreSQL's refusal of a table that another transaction has just made, `IF NOT EXISTS` or not: of the table itself, of
/// the row type that comes with it, or of their rows in the catalog.
pub(crate) fn is_made_twice(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "23505" | "42P07" | "42710"))
}
