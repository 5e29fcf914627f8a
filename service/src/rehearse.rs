//! `rehearse`: the whole migration on a copy, in one exit code. The source is only read.

pub(crate) mod boot;
mod copy;
mod gateway;

use std::path::Path;
use std::time::Instant;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::database::{Access, Location};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, Silent};
use crate::prepare;
use crate::report::result::{CopyResult, LongestLock, RehearseResult};
use crate::report::{CommandResult, Outcome, Report};
use crate::runner::{Session, pauses, plan, up};
use crate::shutdown::ShutdownSignal;
use crate::snapshot::snapshot;
use crate::verify::{failure, verify};

/// What the operator chose.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The flags of `up`.
    pub up: up::Options,
    /// PostgreSQL: a database that a schema of its own is made in, and dropped from, for the copy.
    pub scratch: Option<Location>,
    /// Whether the gateway does the migration, and not Tollgate.
    pub gateway: bool,
    /// The flags of `prepare`, where it does.
    pub prepare: prepare::Options,
}

impl Options {
    /// Of `up` with these flags, and of `prepare` with the same choices.
    pub fn of(up: up::Options) -> Self {
        let prepare = prepare::Options {
            finish: false,
            choices: up.choices.clone(),
        };
        Self {
            up,
            scratch: None,
            gateway: false,
            prepare,
        }
    }
}

/// A rehearsal to come.
pub struct Rehearsal<'a> {
    /// The source.
    pub session: &'a Session,
    /// What the operator chose.
    pub options: &'a Options,
    /// A temporary folder for SQLite's copy and the snapshot; the caller removes it.
    pub folder: &'a Path,
    /// The time that the snapshot is taken at.
    pub now: DateTime<Utc>,
    /// Told what happens.
    pub observer: &'a dyn Observer,
    /// Asked between tables and batches.
    pub stop: &'a ShutdownSignal,
}

impl Rehearsal<'_> {
    /// Copies, takes a snapshot, migrates with the same flags, and verifies.
    ///
    /// The outcome's error is a refusal of `up`, [`Error::Refused`] with what `verify` found, or what failed.
    pub async fn run(&self) -> Outcome {
        let mut report = Report::default();
        let error = self.all(&mut report).await.err();
        Outcome { report, error }
    }

    async fn all(&self, report: &mut Report) -> Result<()> {
        self.check()?;
        if self.options.gateway {
            return self.beside_the_gateway(report).await;
        }
        // What depends on the tables and is not copied, views above all, is seen on the source only.
        let planned = plan::plan(self.session, &self.options.up).await?;
        if planned.is_blocked() {
            return Err(crate::doctor::refusal(planned.findings));
        }
        let begun = Instant::now();
        let source = self.session.connect(Access::Read).await?;
        self.on_a_copy(&source, "rehearsal", async |location, copied| {
            self.migrate(location, &copied, begun, report).await
        })
        .await
    }

    /// Copies the source, works on the copy, and leaves nothing of it.
    async fn on_a_copy<T>(
        &self,
        source: &Connection,
        name: &str,
        work: impl AsyncFnOnce(Location, copy::Copied) -> Result<T>,
    ) -> Result<T> {
        self.observer
            .note(Event::Step("copy the database".to_owned()));
        let Some(scratch) = &self.options.scratch else {
            let file = self.folder.join(format!("{name}.db"));
            copy::file(source, &file).await?;
            let location = Location::parse(&format!("sqlite://{}", file.display()))?;
            return work(location, copy::Copied::default()).await;
        };
        let admin = scratch
            .connect(Access::Write, self.session.connect_timeout)
            .await?;
        if server_and_database(&admin).await? == server_and_database(source).await? {
            return Err(Error::usage(
                "--scratch-url names the database itself",
                "name another one: the source is only read",
            ));
        }
        let schema = format!("tollgate_rehearsal_{}", uuid::Uuid::new_v4().simple());
        execute(&admin, &format!("CREATE SCHEMA {schema}")).await?;
        let location = scratch.within(&schema);
        let outcome = async {
            let copied = self.copy_tables(source, &location).await?;
            work(location, copied).await
        }
        .await;
        // Whatever it came to, nothing of the copy stays.
        let dropped = execute(&admin, &format!("DROP SCHEMA {schema} CASCADE")).await;
        let outcome = outcome?;
        dropped.map(|()| outcome)
    }

    fn check(&self) -> Result<()> {
        match (self.session.dialect(), &self.options.scratch) {
            (Dialect::Sqlite, Some(_)) => Err(Error::usage(
                "--scratch-url is for PostgreSQL; a SQLite file is copied to a temporary folder",
                "leave it out, and set TMPDIR for another folder",
            )),
            (Dialect::Postgres, None) => Err(Error::usage(
                "a rehearsal of a PostgreSQL database needs a place for the copy",
                "pass --scratch-url postgres://user@host/scratch: a database in which a schema may be made and dropped",
            )),
            (Dialect::Postgres, Some(scratch)) if scratch.dialect() != Dialect::Postgres => {
                Err(Error::usage(
                    "--scratch-url is no PostgreSQL address",
                    "the copy of a PostgreSQL database is one, too",
                ))
            }
            _ => Ok(()),
        }
    }

    async fn copy_tables(&self, source: &Connection, location: &Location) -> Result<copy::Copied> {
        let target = location
            .connect(Access::Write, self.session.connect_timeout)
            .await?;
        let tracks: Vec<Track> = self
            .session
            .tracks(source)
            .await?
            .into_iter()
            .map(|(track, _)| track)
            .collect();
        let copied = copy::tables(source, &target, &tracks, self.observer, self.stop).await?;
        target
            .close()
            .await
            .map_err(Error::database("end the copying"))?;
        Ok(copied)
    }

    async fn migrate(
        &self,
        location: Location,
        copied: &copy::Copied,
        begun: Instant,
        report: &mut Report,
    ) -> Result<()> {
        let (observer, stop) = (self.observer, self.stop);
        let copy_ms = millis(begun);
        let scratch = Session {
            location,
            ..self.session.clone()
        };
        let file = self.folder.join("rehearsal.snapshot");
        let started = Instant::now();
        snapshot(&scratch, &file, self.now, observer, stop).await?;
        let snapshot_ms = millis(started);

        // A pause came along with the rows, and nobody would ever resume the copy.
        pauses::resume(&scratch).await?;
        let started = Instant::now();
        let migrated = up::up(&scratch, &self.options.up, observer, stop).await;
        let up_ms = millis(started);
        *report = migrated.report;
        if let Some(error) = migrated.error {
            // Where it worked is gone with the copy.
            report.result = None;
            return Err(error);
        }

        let started = Instant::now();
        let verified = verify(&scratch, Some(&file), observer, stop).await?;
        let verify_ms = millis(started);
        report.findings.extend(verified.findings.iter().cloned());

        let again = up::up(&scratch, &self.options.up, &Silent, stop).await;
        let applied = report.tracks.iter().flat_map(|track| &track.applied);
        let longest = applied
            .filter(|applied| applied.longest_lock_ms > 0)
            .max_by_key(|applied| applied.longest_lock_ms)
            .map(|applied| LongestLock {
                version: applied.version.clone(),
                ms: applied.longest_lock_ms,
                blocks: applied.blocks,
            });
        report.result = Some(CommandResult::Rehearsed(RehearseResult {
            copy: CopyResult {
                tables: copied.tables,
                rows: copied.rows,
                ms: copy_ms,
                left_out: copied.left_out.clone(),
            },
            snapshot_ms,
            up_ms,
            verify_ms,
            longest_lock: longest,
            compared: verified
                .result
                .as_ref()
                .map(|result| result.compared().to_vec())
                .unwrap_or_default(),
        }));
        if let Some(error) = failure(&verified) {
            return Err(error);
        }
        if let Some(error) = again.error {
            return Err(error);
        }
        let repeated = again.report.tracks.iter().flat_map(|track| &track.applied);
        match repeated.count() {
            0 => Ok(()),
            repeated => Err(Error::refused(
                "not_idempotent",
                format!("a second `up` on the copy applied {repeated} migrations again"),
                "this is a defect of Tollgate; please report it",
            )),
        }
    }
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection
        .execute_unprepared(sql)
        .await
        .map(|_| ())
        .map_err(Error::database(format!(
            "run {sql} in the scratch database"
        )))
}

/// What tells two databases apart whatever their addresses say.
async fn server_and_database(connection: &Connection) -> Result<String> {
    let db_context = || Error::database("tell the scratch database from the source");
    let row = connection
        .query_one_raw(Statement::from_string(
            Dialect::Postgres.backend(),
            "SELECT concat(pg_postmaster_start_time(), ' ', (SELECT oid FROM pg_database \
             WHERE datname = current_database())) AS name",
        ))
        .await
        .map_err(db_context())?;
    row.map_or(Ok(String::new()), |row| row.try_get("", "name"))
        .map_err(db_context())
}
