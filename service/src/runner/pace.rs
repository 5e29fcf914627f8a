//! What a run does between two batches: it rests as long as it was told, waits for standbys that are behind, and holds while
//! somebody has paused its track.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::{Dialect, Track};

use super::options::Options;
use super::pauses;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::observer::{Event, Observer};
use crate::rows;
use crate::shutdown::ShutdownSignal;

/// How often a run asks whether it is paused, and how far the standbys are.
const LOOK: Duration = Duration::from_millis(500);
/// How often a run that holds says so.
pub(super) const SAY: Duration = Duration::from_secs(10);
/// Moments of the log that are remembered: half an hour of them.
const MOMENTS: usize = 3600;

/// Between two batches.
pub(super) struct Pace<'a> {
    connection: &'a Connection,
    track: Track,
    lock: &'a Lock,
    observer: &'a dyn Observer,
    stop: &'a ShutdownSignal,
    delay: Duration,
    most_lag: Option<Duration>,
    /// Whether it holds for anything any more.
    heeds: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    looked: Option<Instant>,
    /// How far the log was written at a moment: a standby that replays nothing reports no lag, and falls behind these.
    moments: VecDeque<(Instant, i64)>,
}

/// A standby, and how far it has replayed the log.
#[derive(FromQueryResult)]
struct Standby {
    name: String,
    written: i64,
    replayed: Option<i64>,
    lag: Option<f64>,
}

impl<'a> Pace<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        track: Track,
        lock: &'a Lock,
        options: &Options,
        observer: &'a dyn Observer,
        stop: &'a ShutdownSignal,
    ) -> Self {
        Self {
            connection,
            track,
            lock,
            observer,
            stop,
            delay: options.batch_delay,
            most_lag: options.max_lag,
            heeds: true,
            seen: Mutex::default(),
        }
    }

    /// From here on it holds for nothing: what it has looked at must stay as it is.
    pub(super) fn goes_on(&mut self) {
        self.heeds = false;
    }

    /// Rests after a batch, as long as was asked for.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(super) async fn rest_after_a_batch(&self) -> Result<()> {
        if self.delay.is_zero() {
            return Ok(());
        }
        self.stop.rest(self.delay).await
    }

    /// Whether it is time to look for a reason to hold.
    pub(super) fn is_due(&self) -> bool {
        let Ok(mut seen) = self.seen.lock() else {
            return true;
        };
        let due = seen.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if due {
            seen.looked = Some(Instant::now());
        }
        due
    }

    /// Looks for a reason to hold, and holds while there is one. Whether it did: the lock was kept, gateways were let in, and
    /// whoever goes on looks at the schema again. `idle` is a connection that would have nothing to do meanwhile.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::LockLost`], [`Error::Locked`] where a gateway migrates and does not end in time.
    pub(super) async fn hold(&self, idle: Option<&Connection>) -> Result<bool> {
        let mut said: Option<Instant> = None;
        loop {
            self.stop.check()?;
            if !self.heeds {
                return Ok(false);
            }
            let held = said.is_some();
            let reason = self
                .reason()
                .await
                .map_err(Error::database("ask whether the run is to hold"))?;
            let Some(reason) = reason else {
                if held {
                    self.lock.keep_gateway_out(self.stop).await?;
                    self.observer.note(Event::GoesOn);
                }
                return Ok(held);
            };
            if !held {
                self.lock.let_gateway_in().await?;
            }
            if said.is_none_or(|said| said.elapsed() >= SAY) {
                said = Some(Instant::now());
                self.observer.note(Event::Holds(reason));
                if let Some(idle) = idle {
                    keep_alive(idle).await?;
                }
            }
            self.stop.rest(LOOK).await?;
        }
    }

    async fn reason(&self) -> std::result::Result<Option<String>, DbErr> {
        let dialect = self.connection.dialect();
        let paused = pauses::of(self.connection, dialect, &[self.track]).await?;
        if let Some(pause) = paused.into_iter().next() {
            return Ok(Some(format!(
                "{} is paused since {} by {}; `tollgate migrate resume` lets it go on",
                self.track, pause.since, pause.by
            )));
        }
        let Some(most) = self.most_lag.filter(|_| dialect == Dialect::Postgres) else {
            return Ok(None);
        };
        let standbys = standbys(self.connection).await?;
        let Ok(mut seen) = self.seen.lock() else {
            return Ok(None);
        };
        let now = Instant::now();
        if let Some(written) = standbys.first().map(|standby| standby.written) {
            seen.moments.push_back((now, written));
            if seen.moments.len() > MOMENTS {
                seen.moments.pop_front();
            }
        }
        Ok(standbys
            .iter()
            .map(|standby| (standby, behind(standby, &seen.moments, now)))
            .find(|(_, lag)| *lag > most)
            .map(|(standby, lag)| {
                format!(
                    "standby {} is {:.1} s behind, more than --max-lag {} s",
                    standby.name,
                    lag.as_secs_f64(),
                    most.as_secs()
                )
            }))
    }
}

/// Something is said on a connection that waits, before whoever stands between forgets it.
pub(super) async fn keep_alive(connection: &Connection) -> Result<()> {
    connection
        .execute_unprepared("SELECT 1")
        .await
        .map(|_| ())
        .map_err(Error::database("keep a connection alive"))
}

/// How long ago the log was written as far as a standby has replayed it: by what the server measured, and by what was seen.
fn behind(standby: &Standby, moments: &VecDeque<(Instant, i64)>, now: Instant) -> Duration {
    let Some(replayed) = standby.replayed else {
        return Duration::ZERO;
    };
    if replayed >= standby.written {
        return Duration::ZERO;
    }
    let measured = Duration::try_from_secs_f64(standby.lag.unwrap_or_default()).unwrap_or_default();
    // The first moment that it has not reached yet.
    let seen = moments
        .iter()
        .find(|(_, written)| *written > replayed)
        .map(|(at, _)| now.duration_since(*at));
    measured.max(seen.unwrap_or_default())
}

async fn standbys(connection: &Connection) -> std::result::Result<Vec<Standby>, DbErr> {
    rows::all(
        connection,
        Statement::from_string(
            Dialect::Postgres.backend(),
            "SELECT COALESCE(NULLIF(application_name, ''), client_addr::text, pid::text) AS name, \
             pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS written, \
             pg_wal_lsn_diff(replay_lsn, '0/0')::bigint AS replayed, extract(epoch FROM replay_lag)::float8 AS lag \
             FROM pg_stat_replication WHERE state <> 'backup'"
                .to_owned(),
        ),
    )
    .await
}

/// Refuses a wait for standbys whose lag the role may not see: it would never hold.
///
/// # Errors
/// [`Error::Usage`].
pub(super) async fn check(connection: &Connection, options: &Options) -> Result<()> {
    if options.max_lag.is_none() {
        return Ok(());
    }
    if connection.dialect() == Dialect::Sqlite {
        return Err(Error::usage(
            "--max-lag: a SQLite database has no standby",
            "leave it out",
        ));
    }
    let may: Option<bool> = rows::scalar(
        connection,
        Statement::from_string(
            Dialect::Postgres.backend(),
            "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')".to_owned(),
        ),
    )
    .await
    .map_err(Error::database("ask whether the role may see standbys"))?;
    if may == Some(true) {
        Ok(())
    } else {
        Err(Error::usage(
            "--max-lag: this role may not see how far standbys are",
            "GRANT pg_monitor to it, or leave the option out",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(written: i64, replayed: i64, lag: Option<f64>) -> Standby {
        Standby {
            name: "a".to_owned(),
            written,
            replayed: Some(replayed),
            lag,
        }
    }

    #[test]
    fn a_standby_that_replays_nothing_falls_behind_all_the_same() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let moments = VecDeque::from([(ago(9), 100), (ago(6), 200), (ago(3), 300)]);
        // It has all that was there nine seconds ago, and not what was there six ago.
        let lag = behind(&standby(400, 100, None), &moments, now);
        assert_eq!(lag, Duration::from_secs(6));
        assert_eq!(
            behind(&standby(400, 400, Some(7.0)), &moments, now),
            Duration::ZERO
        );
        assert_eq!(
            behind(&standby(400, 350, Some(7.0)), &moments, now),
            Duration::from_secs(7)
        );
    }
}
