//! What can go wrong, with a stable code and what to do next.

use sea_orm::DbErr;
use tollgate_migration::Track;

use crate::connection::query_error::{self, Cause, QueryError};
use crate::doctor::trouble;
use crate::report::Finding;
use crate::sqlstate::is_busy;

/// A failure of a command. The message says what happened and where; [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command was called wrongly; nothing was connected to or changed.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The database did not answer.
    #[error("cannot reach the database at {place}: {reason}")]
    Unreachable {
        /// The address without its password.
        place: String,
        /// What the driver said.
        reason: String,
    },
    /// The SQLite file does not exist.
    #[error("there is no database file {place}")]
    NoFile {
        /// The path.
        place: String,
    },
    /// The file is something else.
    #[error("{place} is not a SQLite database")]
    NotADatabase {
        /// The path.
        place: String,
    },
    /// The database cannot be written.
    #[error("the database at {place} is read-only: {reason}")]
    ReadOnly {
        /// The address without its password.
        place: String,
        /// What the driver said.
        reason: String,
    },
    /// Tollgate declines, and nothing was changed.
    #[error("{message}")]
    Refused {
        /// A stable code.
        code: &'static str,
        /// What stands in the way.
        message: String,
        /// What resolves it.
        hint: String,
        /// The findings behind it.
        findings: Vec<Finding>,
    },
    /// Another run holds the lock.
    #[error("another run holds the lock of track {track}: {holder}")]
    Locked {
        /// The track.
        track: Track,
        /// Who holds it.
        holder: String,
    },
    /// The lock is free, and a transaction of the run that held it is still on its way.
    #[error(
        "an earlier run on track {track} is still committing: {holder}; its work may yet be kept"
    )]
    StillCommitting {
        /// The track.
        track: Track,
        /// The session whose COMMIT is under way.
        holder: String,
    },
    /// The connection that holds the lock is gone, so another run may have begun.
    #[error("the connection that held the lock is gone: {reason}")]
    LockLost {
        /// What the driver said.
        reason: String,
    },
    /// A signal asked to stop; what was committed stays, and the next run goes on from there.
    #[error("stopped by {}", if *.signal == 15 { "SIGTERM" } else { "SIGINT" })]
    Stopped {
        /// The signal's number.
        signal: u8,
    },
    /// A migration failed; its transaction was rolled back.
    #[error("{version} failed: {source}")]
    Migration {
        /// The migration.
        version: String,
        /// What the database said.
        source: DbErr,
    },
    /// The schema has changed between the look and the locks, more often than a booting gateway explains.
    #[error("the schema that {version} works on has changed while it waited")]
    Moved {
        /// The migration.
        version: String,
    },
    /// The database refused or failed a statement.
    #[error("{db_context}: {source}")]
    Database {
        /// What was being done.
        db_context: String,
        /// What the database said.
        source: DbErr,
    },
    /// A row that the command is about is not there.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// A table or column that the command is about is not there: the database has not been migrated so far, or never will.
    #[error("there is no {what}")]
    MissingSchema {
        /// What was looked for.
        what: String,
    },
    /// An input was read and is not what it should be.
    #[error("{what}")]
    Rejected {
        /// What is wrong, and where.
        what: String,
    },
    /// There is no usable provider key.
    #[error("{message}")]
    Unusable {
        /// A stable code of the reason.
        code: &'static str,
        /// The reason.
        message: String,
        /// What gives one.
        hint: &'static str,
    },
    /// A gateway's key opens nothing: it is unknown, malformed or deleted, and nobody is told which.
    #[error("the gateway key is not valid")]
    NotAuthenticated,
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps a database error with what was being done.
    pub fn database(db_context: impl Into<String>) -> impl FnOnce(DbErr) -> Self {
        let db_context = db_context.into();
        move |source| Self::known(&source).unwrap_or(Self::Database { db_context, source })
    }

    /// Wraps what made a migration fail.
    pub(crate) fn migration(version: &str, source: DbErr) -> Self {
        Self::known(&source).unwrap_or_else(|| Self::Migration {
            version: version.to_owned(),
            source,
        })
    }

    /// What a connection of ours has recognised: those are no failures of the statement.
    fn known(source: &DbErr) -> Option<Self> {
        let error = query_error::of(source)?;
        match error.cause {
            Cause::RowSecurity => {
                let found = trouble::finding("E001", &error.hidden_table(), Vec::new());
                Some(Self::row_security(vec![found]))
            }
            Cause::LockLost => Some(Self::LockLost {
                reason: error.to_string(),
            }),
            Cause::Stopped(signal) => Some(Self::Stopped { signal }),
            Cause::Server | Cause::Silent => None,
        }
    }

    /// What the server said, where a statement gave up waiting.
    fn gave_up(&self) -> Option<&QueryError> {
        let (Self::Database { source, .. } | Self::Migration { source, .. }) = self else {
            return None;
        };
        query_error::of(source).filter(|error| error.gave_up())
    }

    /// Whether somebody else's lock was waited for in vain, on either backend.
    pub(crate) fn is_busy(&self) -> bool {
        let (Self::Database { source, .. } | Self::Migration { source, .. }) = self else {
            return false;
        };
        self.gave_up().is_some() || is_busy(source)
    }

    /// A usage error.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A refusal without findings.
    pub fn refused(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Refused {
            code,
            message: message.into(),
            hint: hint.into(),
            findings: Vec::new(),
        }
    }

    /// The refusal where policies hide rows of tables.
    pub(crate) fn row_security(findings: Vec<Finding>) -> Self {
        let mut tables: Vec<&str> = findings.iter().map(|found| found.table.as_str()).collect();
        tables.dedup();
        let message = format!("row-level security hides rows of {}", tables.join(", "));
        let resolve = findings.first().map(|found| found.resolve.clone());
        Self::Refused {
            code: "row_security",
            message,
            hint: format!("{}; nothing was changed", resolve.unwrap_or_default()),
            findings,
        }
    }

    /// The stable code that machines match on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Unreachable { .. } => "unreachable",
            Self::NoFile { .. } => "no_file",
            Self::NotADatabase { .. } => "not_a_database",
            Self::ReadOnly { .. } => "read_only",
            Self::Refused { code, .. } | Self::Unusable { code, .. } => code,
            Self::Locked { .. } => "locked",
            Self::StillCommitting { .. } => "still_committing",
            Self::LockLost { .. } => "lock_lost",
            Self::Stopped { .. } => "stopped",
            Self::Migration { .. } | Self::Database { .. } if self.is_busy() => "lock_timeout",
            Self::Moved { .. } => "schema_moved",
            Self::Migration { .. } => "migration_failed",
            Self::Database { .. } => "database",
            // One code for both: what is asked for is not here.
            Self::NotFound { .. } | Self::MissingSchema { .. } => "not_found",
            Self::Rejected { .. } => "rejected",
            Self::NotAuthenticated => "invalid_key",
            Self::File { .. } => "file",
        }
    }

    /// The exit code of DESIGN's table.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Refused { .. } => 4,
            Self::Locked { .. } | Self::StillCommitting { .. } => 5,
            // Whoever is in the way is a run of ours, and will be done.
            Self::Migration { .. } | Self::Database { .. }
                if self
                    .gave_up()
                    .and_then(|error| error.blocker.as_ref())
                    .is_some_and(|blocker| blocker.ours) =>
            {
                5
            }
            Self::Stopped { signal } => 128 + signal,
            _ => 1,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Usage { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::Unreachable { place, .. } if place.starts_with("sqlite:") => {
                "check the file, its folder and this user's rights to them; nothing was changed".to_owned()
            }
            Self::Unreachable { .. } => {
                "check host, port, credentials and network; --connect-timeout SECONDS waits longer".to_owned()
            }
            Self::NoFile { .. } => {
                "check the path; `migrate up --track TRACK` creates a fresh database".to_owned()
            }
            Self::NotADatabase { .. } => "check the path of --database-url".to_owned(),
            Self::ReadOnly { .. } => {
                "connect to the primary, or make the file and its folder writable; nothing was changed".to_owned()
            }
            Self::Locked { .. } => {
                "wait for it, or pass --wait-lock SECONDS to wait longer; nothing was changed".to_owned()
            }
            Self::StillCommitting { .. } => {
                "wait for it (a COMMIT that waits for a standby ends when the standby answers); do not terminate that session: \
                 its work would be kept all the same; nothing was changed"
                    .to_owned()
            }
            Self::Migration { .. } | Self::Database { .. } if self.gave_up().is_some() => {
                "wait for that session or end it, then run the same command again; --lock-timeout waits longer; what was \
                 committed stays, and nothing is half-applied"
                    .to_owned()
            }
            Self::Migration { .. } | Self::Database { .. } if self.is_busy() => {
                "another program has a write under way in this database; wait for it or end it, then run the same command \
                 again; --wait-lock waits longer; what was committed stays, and nothing is half-applied"
                    .to_owned()
            }
            Self::LockLost { .. } | Self::Stopped { .. } | Self::Moved { .. } => {
                "run the same command again; it goes on from what is committed".to_owned()
            }
            Self::Migration { .. } => {
                "what was committed stays, and nothing is half-applied; resolve the cause and run the same command again"
                    .to_owned()
            }
            Self::Database { .. } => "see the database's own message; what was committed stays, and nothing is half-applied".to_owned(),
            Self::NotFound { .. } | Self::MissingSchema { .. } => "check the name and the database; nothing was changed".to_owned(),
            Self::Rejected { .. } => "correct the input; nothing was changed".to_owned(),
            Self::Unusable { hint, .. } => (*hint).to_owned(),
            Self::NotAuthenticated => {
                "create one with `tollgate gateway-key create NAME`, and pass its secret on standard input".to_owned()
            }
            Self::File { .. } => "check the path and its permissions".to_owned(),
        }
    }

    /// The findings that a refusal carries.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Refused { findings, .. } => findings,
            _ => &[],
        }
    }
}

/// What a command of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
