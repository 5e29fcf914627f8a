//! Where a command works, and how it connects.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::DatabaseConnection;
use tollgate_migration::{Dialect, Track};

use crate::clock::Clock;
use crate::connection::Connection;
use crate::database::{Access, Location, columns, existing};
use crate::doctor::environment::place;
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::gateway::migrating;
use crate::lock::poll::Poll;
use crate::report::Report;
use crate::runner::abandoned;
use crate::runs::{self, Run, RunOutcome};

/// What every command of the runner needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Session {
    /// Where the database is.
    pub location: Location,
    /// The tracks that were named; empty means those that the database carries.
    pub tracks: Vec<Track>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a busy lock is waited for.
    pub wait_lock: Duration,
    /// The gateway version that boots next, as the operator named it.
    pub target: Option<String>,
    /// What time it is, for what is recorded.
    pub clock: Clock,
}

impl Session {
    /// A session with the command line's defaults.
    pub fn new(location: Location) -> Self {
        Self {
            location,
            tracks: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            wait_lock: Duration::from_secs(60),
            target: None,
            clock: Clock::default(),
        }
    }

    /// A session with the database that a pool of sea-orm's is of. It opens connections of its own: locks are held by one,
    /// and work is done on others.
    ///
    /// # Errors
    /// [`Error::Usage`] for a database in memory, which has no other connection, and for one of another product.
    pub fn of(pool: &DatabaseConnection) -> Result<Self> {
        Location::of(pool).map(Self::new)
    }

    /// The same, on these tracks alone.
    #[must_use]
    pub fn on(mut self, tracks: &[Track]) -> Self {
        self.tracks = tracks.to_vec();
        self
    }

    /// The same, waiting so long for a busy lock.
    #[must_use]
    pub fn waiting(mut self, wait_lock: Duration) -> Self {
        self.wait_lock = wait_lock;
        self
    }

    /// The same, with connections whose statements give up waiting soon: whoever has them backs off and tries again.
    pub(crate) fn briefly(&self) -> Self {
        const BRIEFLY: Duration = Duration::from_secs(1);
        let mut quick = self.clone();
        quick.location.lock_timeout = quick.location.lock_timeout.min(BRIEFLY);
        quick
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.location.dialect()
    }

    /// Connects and asks for no gateway's key: for what a gateway's own process asks at run time, and for Tollgate's own record.
    pub(crate) async fn connect_at_once(&self, access: Access) -> Result<Connection> {
        self.location.connect(access, self.connect_timeout).await
    }

    /// Connects. Whoever only reads waits, as long as for a lock, for a gateway that is migrating the database: it keeps its
    /// ledger locked, and what it has half done is no state to be reported on. Tollgate's own runs are read past.
    ///
    /// # Errors
    /// What connecting may answer, and [`Error::Locked`].
    pub(crate) async fn connect(&self, access: Access) -> Result<Connection> {
        let patience = if access == Access::Read {
            self.location.lock_timeout
        } else {
            self.wait_lock
        };
        let mut poll = Poll::new(patience);
        let stop = &self.location.stop;
        loop {
            let connection = match self.location.connect(access, self.connect_timeout).await {
                Ok(connection) => connection,
                // A file that a writer keeps readers out of, too.
                Err(error) if error.is_busy() && self.dialect() == Dialect::Sqlite => {
                    if access == Access::Read || !poll.again(stop).await? {
                        return Err(error);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if access != Access::Read || self.dialect() == Dialect::Sqlite {
                return Ok(connection);
            }
            // The look is the transaction's first statement, so that all that follows is of a later moment than the key.
            let Some((track, holder)) = migrating(&connection).await? else {
                return Ok(connection);
            };
            connection.close().await.ok();
            if !poll.again(stop).await? {
                return Err(Error::Locked { track, holder });
            }
        }
    }

    /// The tracks this command works on, and which of them have a history table. One statement.
    ///
    /// # Errors
    /// [`Error::Usage`] when none was named and the database carries none.
    pub(crate) async fn tracks(&self, connection: &Connection) -> Result<Vec<(Track, bool)>> {
        let mut names: Vec<String> = Vec::new();
        for track in Track::all() {
            names.push(track.history_table());
            names.extend(track.marker_tables().iter().map(|&mark| mark.to_owned()));
        }
        let found = existing(connection, self.dialect(), &names)
            .await
            .map_err(Error::database("look for the tables of the tracks"))?;
        let has = |name: &str| found.iter().any(|found| found == name);
        let foreign = if self.tracks.is_empty() {
            self.foreign(connection, &found).await?
        } else {
            Vec::new()
        };
        let carried: Vec<Track> = if self.tracks.is_empty() {
            Track::all()
                .iter()
                .copied()
                .filter(|track| {
                    has(&track.history_table())
                        || track
                            .marker_tables()
                            .iter()
                            .any(|mark| has(mark) && !foreign.contains(&(*track, *mark)))
                })
                .collect()
        } else {
            let mut named = self.tracks.clone();
            named.sort();
            named.dedup();
            named
        };
        let lacking: Vec<Track> = if self.tracks.is_empty() {
            if carried.is_empty() {
                Track::all().to_vec()
            } else {
                Vec::new()
            }
        } else {
            carried
                .iter()
                .copied()
                .filter(|track| {
                    !has(&track.history_table())
                        && !track.marker_tables().iter().any(|mark| has(mark))
                })
                .collect()
        };
        if !lacking.is_empty()
            && let Some(refusal) = place::elsewhere(connection, &lacking).await?
        {
            return Err(refusal);
        }
        if carried.is_empty() {
            return Err(Error::usage(
                format!(
                    "{} carries none of the tracks {}",
                    self.location.display,
                    Track::names()
                ),
                "name one with --track to create its tables here, or check the database URL",
            ));
        }
        Ok(carried
            .into_iter()
            .map(|track| (track, has(&track.history_table())))
            .collect())
    }

    /// Marker tables that bear their name by chance: other products have one too.
    async fn foreign(
        &self,
        connection: &Connection,
        found: &[String],
    ) -> Result<Vec<(Track, &'static str)>> {
        let mut foreign = Vec::new();
        // As many as the tracks declare: a name or none.
        for &track in Track::all() {
            for &name in track.common_names() {
                if !found.iter().any(|found| found == name) {
                    continue;
                }
                let columns = columns(connection, self.dialect(), name)
                    .await
                    .map_err(Error::database("look whose tables these are"))?;
                if track.is_foreign_table(name, columns.iter().map(String::as_str)) {
                    foreign.push((track, name));
                }
            }
        }
        Ok(foreign)
    }

    /// Reads a track's history where its table is known to exist.
    pub(crate) async fn history(
        &self,
        connection: &Connection,
        track: Track,
        exists: bool,
    ) -> Result<History> {
        let history = if exists {
            History::read_existing(connection, self.dialect(), track).await
        } else {
            Ok(History::default())
        }
        .map_err(Error::database(format!("read {}", track.history_table())))?;
        let unknown = history.unknown(track);
        if !unknown.is_empty() {
            return Err(Error::refused(
                "newer_history",
                format!(
                    "{} names migrations that this tollgate {} does not know: {}",
                    track.history_table(),
                    env!("CARGO_PKG_VERSION"),
                    unknown.join(", ")
                ),
                "use the tollgate that applied them, or a newer one",
            ));
        }
        abandoned::settle(connection, track, history).await
    }

    /// Records a run that changed something. A failure to record is said, and does not undo what was done.
    pub(crate) async fn record_run(
        &self,
        connection: &Connection,
        kind: &str,
        started_at: DateTime<Utc>,
        outcome: RunOutcome,
        report: &Report,
    ) {
        let run = Run {
            kind: kind.to_owned(),
            routine: None,
            started_at,
            finished_at: self.clock.now(),
            outcome,
            report: serde_json::to_string(report).unwrap_or_default(),
        };
        if let Err(error) = runs::record(connection, self.dialect(), &run).await {
            tracing::warn!(%error, "the run is done but could not be recorded in {}", runs::TABLE);
        }
    }
}

impl FromStr for Session {
    type Err = Error;

    /// From an address, as `--database-url` takes it.
    fn from_str(address: &str) -> Result<Self> {
        Location::parse(address).map(Self::new)
    }
}
