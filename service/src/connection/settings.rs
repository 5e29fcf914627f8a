//! What every transaction on PostgreSQL says first. Behind a pooler nothing that was set at connect lasts, so that each
//! transaction sets it for itself, in one message with its BEGIN.

use std::fmt::Write as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tollgate_migration::Dialect;

use crate::shutdown::ShutdownSignal;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// One view of the data for a reading command's whole life.
    Read,
    /// Reads and writes; each statement sees what is committed when it begins.
    Work,
    /// Holds a lock and does nothing, for as long as the run lasts.
    Lock,
}

/// How sessions of one address are set.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The address that was reached.
    pub options: PgConnectOptions,
    /// The schemas that the address names in the place of the usual ones.
    pub search_path: Option<String>,
    /// How long a statement waits for a lock before the server ends it.
    pub lock_timeout: Duration,
    /// The server's version as a number, 150018 for 15.18.
    pub version: u32,
    /// What ends a wait for somebody else's lock.
    pub stop: ShutdownSignal,
}

/// The keys of a run in each transaction of its work, as `(class, key)`.
pub(crate) type Keys = [(i32, i32)];

impl Settings {
    /// The message that opens a transaction. Its last statement answers `pid`, `since` and, where there are keys, `held`.
    pub(crate) fn opening(&self, opening: Opening, keys: &Keys) -> String {
        let mut sql = match opening {
            Opening::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
            Opening::Work | Opening::Lock => "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned(),
        };
        // The first is for the whole file: a row that a policy hides is an error and never a silent loss.
        for (name, value) in [
            ("row_security", "off"),
            ("standard_conforming_strings", "on"),
            ("quote_all_identifiers", "off"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "1"),
            // Compiling these queries takes the server longer than running them.
            ("jit", "off"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
        ] {
            let _ = write!(sql, "; SET LOCAL {name} = {value}");
        }
        if self.version >= 140_000 {
            // Ends a statement whose client is gone, be it one that only waits.
            sql.push_str("; SET LOCAL client_connection_check_interval = '1s'");
        }
        let _ = write!(
            sql,
            "; SET LOCAL lock_timeout = {}",
            self.lock_timeout.as_millis()
        );
        if opening == Opening::Lock {
            // An idle transaction is a lock's whole life; PostgreSQL can end one in two ways, from 17 on in three.
            sql.push_str(
                "; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0",
            );
            if self.version >= 170_000 {
                sql.push_str("; SET LOCAL transaction_timeout = 0");
            }
        }
        if let Some(path) = &self.search_path {
            let _ = write!(
                sql,
                "; SELECT set_config('search_path', {}, true)",
                Dialect::Postgres.text(path)
            );
        }
        sql.push_str("; SELECT pg_backend_pid() AS pid, now()::text AS since");
        if !keys.is_empty() {
            let tried: Vec<String> = keys
                .iter()
                .map(|(class, key)| format!("pg_try_advisory_xact_lock_shared({class}, {key})"))
                .collect();
            let _ = write!(sql, ", {} AS held", tried.join(" AND "));
        }
        sql
    }
}

/// How long a statement waits for a lock unless the operator says otherwise.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
