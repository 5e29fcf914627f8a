//! Watches over a statement: notices a server that has gone silent, names who is in the way, and ends a wait when a signal
//! asks for it. sqlx can do none of this, having neither keepalives nor cancel requests.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row};

use super::query_error::{Blocker, Cause, QueryError, of_driver};
use super::settings::Settings;
use super::work::Work;

/// The server's process on the other end, and when its transaction began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    pub pid: i32,
    pub since: String,
}

/// How often a statement that lasts is looked after.
const TICK: Duration = Duration::from_secs(10);
/// How soon the first look of a run's statement is.
const EARLY: Duration = Duration::from_millis(300);
/// How long a look may take before nobody answers any more. Two looks and a tick are less than a minute.
const PATIENCE: Duration = Duration::from_secs(15);
/// How soon a wait is looked at again once a signal has asked to stop.
const AFTER_A_SIGNAL: Duration = Duration::from_millis(200);
/// How long an answer that was sent may take to arrive.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How long a server, or a pooler with no server free, may take to begin a transaction.
const TO_BEGIN: Duration = Duration::from_secs(60);
/// How long nobody answers a look at a concurrent build before it is given up.
const SILENT: Duration = Duration::from_secs(60);
/// How often a concurrent build is looked at.
const BUILDING: Duration = Duration::from_secs(1);

/// Whoever watches over one statement at a time.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(super) settings: Arc<Settings>,
    pub(super) work: Option<Arc<Work>>,
    pub(super) backend: Backend,
}

/// What a look found.
enum Seen {
    /// It works, or cannot be seen.
    Working,
    /// It waits for a lock, and for whom.
    Waiting(Option<Blocker>),
    /// The server has no such process, has long answered it, or does not answer.
    Gone(String),
}

/// What the other end is doing. A server that has answered and waits for the next statement is `idle…`.
const LOOK: &str = "SELECT a.state AS state, a.wait_event_type AS waits, \
    extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS age, \
    b.pid AS pid, COALESCE(b.application_name, '') AS application, COALESCE(b.state, '') AS how, \
    COALESCE(extract(epoch FROM clock_timestamp() - b.xact_start), 0)::bigint AS since \
    FROM pg_stat_activity a LEFT JOIN LATERAL (SELECT x.pid, s.application_name, s.state, s.xact_start \
    FROM unnest(pg_blocking_pids(a.pid)) x (pid) LEFT JOIN pg_stat_activity s ON s.pid = x.pid \
    ORDER BY s.xact_start NULLS LAST LIMIT 1) b ON true WHERE ";

/// Ends a statement that only waits, and no other.
const CANCEL: &str = "SELECT pg_cancel_backend(a.pid) AS done FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND ";

/// Which process is meant: the transaction, by process and beginning; a statement without one, by its text.
enum Whom<'a> {
    Transaction(&'a Backend),
    Statement(&'a str),
}

impl Whom<'_> {
    fn condition(&self) -> &'static str {
        match self {
            Self::Transaction(_) => "a.pid = $1::int AND ($2 = '' OR a.xact_start::text = $2)",
            Self::Statement(_) => {
                "a.query = $1 AND starts_with(a.application_name, $2) AND a.datname = current_database()"
            }
        }
    }

    async fn ask(
        &self,
        wire: &mut PgConnection,
        text: &str,
    ) -> Result<Option<sqlx::postgres::PgRow>, sqlx::Error> {
        let sql = format!("{text}{}", self.condition());
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        match self {
            Self::Transaction(backend) => query
                .bind(backend.pid.to_string())
                .bind(backend.since.clone()),
            Self::Statement(sql) => query
                .bind((*sql).to_owned())
                .bind(crate::process::application_name()),
        }
        .fetch_optional(wire)
        .await
    }
}

fn seen(row: Option<&sqlx::postgres::PgRow>) -> Result<Seen, sqlx::Error> {
    let Some(row) = row else {
        return Ok(Seen::Gone(
            "the server has no such session any more".to_owned(),
        ));
    };
    let state: Option<String> = row.try_get("state")?;
    let waits: Option<String> = row.try_get("waits")?;
    let age: Option<f64> = row.try_get("age")?;
    if state.is_some_and(|state| state.starts_with("idle"))
        && age.unwrap_or_default() > TICK.as_secs_f64()
    {
        return Ok(Seen::Gone(
            "the server has answered, and the answer did not arrive".to_owned(),
        ));
    }
    if waits.as_deref() != Some("Lock") {
        return Ok(Seen::Working);
    }
    let pid: Option<i32> = row.try_get("pid")?;
    let application: String = row.try_get("application")?;
    Ok(Seen::Waiting(match pid {
        None => None,
        Some(pid) => Some(Blocker {
            pid,
            ours: crate::process::is_ours(&application),
            application,
            state: row.try_get("how")?,
            age: row.try_get("since")?,
        }),
    }))
}

impl Watch {
    /// Waits for a statement inside a transaction.
    pub(crate) async fn over<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        // Soon enough to see who is in the way before the server gives up waiting. A run takes its strong locks within
        // half a second.
        let first = if self.work.is_some() {
            EARLY
        } else {
            (self.settings.lock_timeout * 3 / 5).min(TICK)
        };
        self.attend(&Whom::Transaction(&self.backend), first, None, statement)
            .await
    }

    /// Waits for the message that begins a transaction. No process is known to answer it yet, and behind a pooler it may wait
    /// for one.
    pub(crate) async fn over_beginning<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        match tokio::time::timeout(TO_BEGIN, statement).await {
            Ok(answered) => answered.map_err(|error| of_driver(error, None)),
            Err(_) => Err(QueryError::new(
                Cause::Silent,
                format!(
                    "the connection is dead: no transaction began within {} s",
                    TO_BEGIN.as_secs()
                ),
            )
            .into()),
        }
    }

    /// Waits for a statement without a transaction, which no timeout of the server bounds: it may work without limit, and
    /// wait for others as long as the run waits for a lock.
    pub(crate) async fn over_alone<T>(
        &self,
        sql: &str,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let most = self.work.as_ref().map(|work| work.wait_lock);
        self.attend(&Whom::Statement(sql), BUILDING, most, statement)
            .await
    }

    async fn attend<T>(
        &self,
        whom: &Whom<'_>,
        first: Duration,
        most: Option<Duration>,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let mut statement = pin!(statement);
        let mut pause = first;
        let mut blocker = None;
        let mut waiting: Option<Instant> = None;
        let mut stopped = None;
        let mut cancelled = false;
        let mut silent: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                done = &mut statement => return done.map_err(|error| self.name(error, blocker, stopped, cancelled)),
                signal = self.signal(), if stopped.is_none() => {
                    stopped = Some(signal);
                }
                () = tokio::time::sleep(pause) => {}
            }
            let looked = async {
                if cancelled {
                    return Ok(Seen::Working);
                }
                self.inspect(whom).await
            };
            let found = tokio::select! {
                biased;
                done = &mut statement => return done.map_err(|error| self.name(error, blocker, stopped, cancelled)),
                looked = looked => looked,
            };
            pause = match (stopped, most) {
                (Some(_), _) => AFTER_A_SIGNAL,
                (None, Some(_)) => BUILDING,
                (None, None) => TICK,
            };
            if !matches!(found, Ok(Seen::Gone(_))) {
                silent = None;
            }
            match found {
                // Its look is a connection of its own, and that one cannot be made is no sign of what the build's is like.
                Ok(Seen::Gone(_))
                    if matches!(whom, Whom::Statement(_))
                        && silent.get_or_insert_with(Instant::now).elapsed() < SILENT => {}
                Ok(Seen::Gone(why)) => {
                    // Its transaction may have ended just before the look, and the answer be on its way.
                    if let Ok(done) = tokio::time::timeout(ON_ITS_WAY, &mut statement).await {
                        return done.map_err(|error| self.name(error, blocker, stopped, cancelled));
                    }
                    return Err(QueryError::new(
                        Cause::Silent,
                        format!("the connection is dead: {why}"),
                    )
                    .into());
                }
                Ok(Seen::Waiting(whom_for)) => {
                    blocker = whom_for.map(|whom| (whom, Instant::now())).or(blocker);
                    let since = *waiting.get_or_insert_with(Instant::now);
                    let too_long = most.is_some_and(|most| since.elapsed() >= most);
                    if (stopped.is_some() || too_long) && !cancelled {
                        cancelled = self.cancel(whom).await;
                    }
                }
                Ok(Seen::Working) => waiting = None,
                // A role may have no connection left for a look, or no right to one; the server is there.
                Err(error) => {
                    tracing::debug!(%error, "the server could not be asked about a statement")
                }
            }
        }
    }

    /// The error of a statement, with what is known besides.
    fn name(
        &self,
        error: sqlx::Error,
        blocker: Option<(Blocker, Instant)>,
        stopped: Option<u8>,
        cancelled: bool,
    ) -> sqlx::Error {
        // Its transaction has grown older since it was seen.
        let blocker = blocker.map(|(blocker, seen)| Blocker {
            age: blocker.age + i64::try_from(seen.elapsed().as_secs()).unwrap_or_default(),
            ..blocker
        });
        let ended = error
            .as_database_error()
            .and_then(|said| said.code())
            .is_some_and(|code| code == "57014");
        match stopped {
            Some(signal) if ended && cancelled => {
                QueryError::new(Cause::Stopped(signal), "a wait was ended by a signal").into()
            }
            _ => of_driver(error, blocker),
        }
    }

    async fn signal(&self) -> u8 {
        match &self.work {
            Some(work) => work.stop.requested().await,
            None => self.settings.stop.requested().await,
        }
    }

    /// Asks another connection: the lock's where there is one, or one for this question.
    ///
    /// A concurrent build is never asked about on the lock's: it waits for whoever has a snapshot at that moment, and then for
    /// the end of their transaction, which is the run's.
    async fn inspect(&self, whom: &Whom<'_>) -> Result<Seen, sqlx::Error> {
        self.elsewhere(whom, LOOK)
            .await
            .and_then(|row| match row {
                Elsewhere::Answered(row) => seen(row.as_ref()),
                Elsewhere::Silent(why) => Ok(Seen::Gone(why)),
            })
            // A concurrent build behind a pooler may not have begun when it is first looked for.
            .map(|seen| match (whom, seen) {
                (Whom::Statement(_), Seen::Gone(why)) if why.starts_with("the server has no") => {
                    Seen::Working
                }
                (_, seen) => seen,
            })
    }

    async fn cancel(&self, whom: &Whom<'_>) -> bool {
        let asked = match (self.elsewhere(whom, CANCEL).await, &self.work) {
            // No connection is left for it, and whether the build waits for this one does not matter any more.
            (Err(_), Some(work)) => Self::on_the_locks(work, whom, CANCEL).await,
            (asked, _) => asked,
        };
        match asked {
            Ok(Elsewhere::Answered(Some(row))) => row.try_get("done").unwrap_or_default(),
            _ => false,
        }
    }

    async fn elsewhere(&self, whom: &Whom<'_>, text: &str) -> Result<Elsewhere, sqlx::Error> {
        match (&self.work, whom) {
            (Some(work), Whom::Transaction(_)) => Self::on_the_locks(work, whom, text).await,
            (None, _) | (_, Whom::Statement(_)) => self.on_another(whom, text).await,
        }
    }

    async fn on_the_locks(
        work: &Work,
        whom: &Whom<'_>,
        text: &str,
    ) -> Result<Elsewhere, sqlx::Error> {
        let asked = async {
            let mut wire = work.aside().await?;
            let (connection, _) = wire.parts();
            whom.ask(connection, text).await
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Err(_) => Ok(Elsewhere::Silent(format!(
                "nobody answered within {} s",
                PATIENCE.as_secs()
            ))),
            Ok(Err(sqlx::Error::Io(error))) => Ok(Elsewhere::Silent(error.to_string())),
            Ok(answered) => answered.map(Elsewhere::Answered),
        }
    }

    /// Asks on a connection for this one question. That it cannot be opened is a sign; that a pooler then has no server for
    /// it is none.
    async fn on_another(&self, whom: &Whom<'_>, text: &str) -> Result<Elsewhere, sqlx::Error> {
        let opening = PgConnection::connect_with(&self.settings.options);
        let mut wire = match tokio::time::timeout(PATIENCE, opening).await {
            Err(_) => {
                return Ok(Elsewhere::Silent(format!(
                    "nobody answered within {} s",
                    PATIENCE.as_secs()
                )));
            }
            Ok(Err(sqlx::Error::Io(error))) => return Ok(Elsewhere::Silent(error.to_string())),
            Ok(opened) => opened?,
        };
        let asked = async {
            sqlx::Executor::execute(&mut wire, "BEGIN READ ONLY").await?;
            whom.ask(&mut wire, text).await
        };
        let answered = tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| sqlx::Error::Protocol("no server is free to be asked".to_owned()))?;
        let _ = wire.close().await;
        answered.map(Elsewhere::Answered)
    }
}

/// What another connection came to.
enum Elsewhere {
    Answered(Option<sqlx::postgres::PgRow>),
    Silent(String),
}
