//! `migrate up`: applies what is pending.

use std::time::Duration;

use crate::connection::Connection;
use crate::runs::RunOutcome;
use chrono::Utc;
use tollgate_migration::{Context, Dialect, Migration, Track};

use super::adopt::{ensure_history, mark, recognise, recognised_history};
use super::apply::{Applier, Changes, Course};
use super::checkpoint::Direction;
pub use super::options::Options;
pub(super) use super::options::live;
use super::pace::{self, Pace};
use super::patience::Patience;
use super::strong::was_busy;
use super::target::gateway;
use super::{
    Session, abandoned, backup, context, find, idle, pending, pending_report, prove_writable,
};
use crate::database::{Access, existing};
use crate::doctor::{self, environment};
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::{Gateway, Lock};
use crate::module::Module;
use crate::observer::{Event, Observer};
use crate::report::result::UpResult;
use crate::report::{Change, CommandResult, Finding, Outcome, Report, TrackReport};
use crate::shutdown::ShutdownSignal;

/// The pending migrations that these options select, in order.
///
/// # Errors
/// [`Error::Usage`] where `--to` names no migration of the tracks.
pub(super) fn selected(
    tracks: &[Track],
    track: Track,
    history: &History,
    options: &Options,
) -> Result<Vec<&'static Migration>> {
    let mut selected = pending(track, history);
    if let Some(phase) = options.phase
        && let Some(end) = selected
            .iter()
            .position(|migration| migration.phase > phase)
    {
        selected.truncate(end);
    }
    if let Some(to) = &options.to {
        let (of, last) = find(tracks, to)?;
        if of == track {
            let end = track
                .migrations()
                .iter()
                .position(|migration| migration.version == last.version)
                .map_or(0, |position| position + 1);
            let kept = &track.migrations()[..end];
            selected.retain(|migration| kept.iter().any(|kept| kept.version == migration.version));
        } else {
            // `--to` names a migration of another track: this one stays where it is.
            selected.clear();
        }
    }
    if let Some(steps) = options.steps {
        selected.truncate(usize::try_from(steps).unwrap_or(usize::MAX));
    }
    Ok(selected)
}

/// What `migrate prepare` remembered is put back by every `up`, also where no step is pending.
async fn finish(
    session: &Session,
    connection: Connection,
    live: &Context,
    tracks: &[Track],
    started: chrono::DateTime<Utc>,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let remembering: Vec<Track> = tracks
        .iter()
        .copied()
        .filter(|track| {
            Module::of(*track)
                .remembers
                .is_some_and(|table| live.catalog.has_table(table))
        })
        .collect();
    if remembering.is_empty() {
        return Ok(());
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) =
        Lock::take(session, connection, &remembering, Gateway::Boots, stop).await?;
    let outcome = put_back(&connection, &remembering, report).await;
    if !report.changes.is_empty() {
        session
            .record_run(&connection, "migrate up", started, RunOutcome::Done, report)
            .await;
    }
    lock.release().await;
    outcome
}

async fn put_back(connection: &Connection, tracks: &[Track], report: &mut Report) -> Result<()> {
    for &track in tracks {
        (Module::of(track).put_back)(connection, report).await?;
    }
    Ok(())
}

/// Whether a table is there that a gateway keeps its record in.
async fn has_ledger(connection: &Connection, dialect: Dialect) -> Result<bool> {
    let names: Vec<String> = Track::all()
        .iter()
        .map(|track| track.ledger_table().to_owned())
        .collect();
    existing(connection, dialect, &names)
        .await
        .map(|found| !found.is_empty())
        .map_err(Error::database("look for the gateway's ledger"))
}

/// A ledger that forbids writing does so when nothing is pending, too.
fn refuse(track: Track, live: &Context) -> Result<()> {
    let found = environment::ledger::blocking(track, live);
    if found.is_empty() {
        Ok(())
    } else {
        Err(doctor::refusal(found))
    }
}

/// A track that is about to change.
struct Work {
    track: Track,
    history: History,
    from: Option<String>,
    selected: Vec<&'static Migration>,
    /// Whether the track is to be marked as adopted first.
    adopt: bool,
}

/// Applies what is pending: read, lock, read again, run the hazard checks, apply.
///
/// The outcome's error is [`Error::Refused`] before the first write when something stands in the way,
/// [`Error::Locked`], or [`Error::Migration`] with everything before the failed step committed and nothing of it kept.
pub async fn up(
    session: &Session,
    options: &Options,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Outcome {
    let mut report = Report::default();
    let error = run(session, options, observer, stop, &mut report)
        .await
        .err();
    Outcome { report, error }
}

async fn run(
    session: &Session,
    options: &Options,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let started = session.clock.now();
    check(session, options)?;
    // Before the lock nothing is waited for: a table that somebody has locked is waited for under it, where a signal ends
    // the wait and gateways are let in.
    let quick = session.briefly();
    let access = if session.tracks.is_empty() {
        Access::Write
    } else {
        Access::Create
    };
    let connection = quick.connect(access).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    let mut result = UpResult {
        place: session.place(&connection).await?,
        ..UpResult::default()
    };
    report.result = Some(CommandResult::Up(result.clone()));
    session.check_target(&names)?;
    let loaded = load(session, options, &connection, tracks, &mut result, report).await?;
    report.result = Some(CommandResult::Up(result.clone()));
    if loaded.waiting.is_empty() {
        if let Some(live) = &loaded.live {
            finish(session, connection, live, &names, started, stop, report).await?;
        }
        return Ok(());
    }
    prove_writable(session, &connection).await?;
    pace::check(&connection, options).await?;
    let (lock, connection) =
        Lock::take(&quick, connection, &loaded.waiting, Gateway::Waits, stop).await?;
    let mut in_full = Vec::new();
    let locked = Locked {
        session,
        connection: &connection,
        names: &names,
        options,
        observer,
        stop,
        lock: &lock,
    };
    let mut outcome = locked.run(&loaded.waiting, report, &mut in_full).await;
    if outcome.is_ok() {
        outcome = put_back(&connection, &names, report).await;
    }
    // A step of several transactions may have committed some before it failed.
    let wrote =
        !report.changes.is_empty() || report.tracks.iter().any(|track| !track.applied.is_empty());
    if wrote {
        result.dropped = Some(in_full);
        result.clones = Some(clones(&connection, &names, report).await);
        let mut recorded = report.clone();
        recorded.result = Some(CommandResult::Up(result));
        let ended = RunOutcome::of(&outcome);
        session
            .record_run(&connection, "migrate up", started, ended, &recorded)
            .await;
    }
    lock.release().await;
    outcome
}

/// What is wrong with the options, before anything is connected to.
fn check(session: &Session, options: &Options) -> Result<()> {
    if options.parallel > 1 && session.dialect() == Dialect::Sqlite {
        tracing::info!("SQLite has one writer; --parallel makes no difference here");
    }
    if let Some(path) = &options.backup {
        backup::check(session, path)?;
    }
    if let Some(to) = &options.to {
        let tracks = if session.tracks.is_empty() {
            Track::all()
        } else {
            session.tracks.as_slice()
        };
        find(tracks, to)?;
    }
    Ok(())
}

/// What a look before the locks came to.
struct Look {
    /// The schema and the ledgers, where anything asks for them and nobody has them locked.
    live: Option<Context>,
    /// The tracks that something waits to be applied to, as far as can be seen.
    waiting: Vec<Track>,
}

async fn load(
    session: &Session,
    options: &Options,
    connection: &Connection,
    tracks: Vec<(Track, bool)>,
    result: &mut UpResult,
    report: &mut Report,
) -> Result<Look> {
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    // A ledger may forbid what is pending, and what it says decides how far this goes; without one there is nothing to read.
    let owned = has_ledger(connection, session.dialect()).await?;
    let (live, busy) = if owned || session.target.is_some() {
        match context(connection, &History::default()).await {
            Ok(live) => (Some(live), false),
            Err(Error::Database { source, .. }) if was_busy(&source) => (None, true),
            Err(error) => return Err(error),
        }
    } else {
        (None, false)
    };
    let mut waiting = Vec::new();
    for (track, exists) in tracks {
        let mut history = session.history(connection, track, exists).await?;
        if let Some(live) = &live {
            session.aim(track, live, &mut history)?;
            refuse(track, live)?;
            result.gateways.extend(gateway(track, live, &history));
            result
                .waiting
                .extend(super::target::waiting(track, &history));
        }
        if !busy && selected(&names, track, &history, options)?.is_empty() {
            report.tracks.push(idle(track, &history));
        } else {
            waiting.push(track);
        }
    }
    Ok(Look { live, waiting })
}

/// The part of `up` that happens under the locks.
struct Locked<'a> {
    session: &'a Session,
    connection: &'a Connection,
    names: &'a [Track],
    options: &'a Options,
    observer: &'a dyn Observer,
    stop: &'a ShutdownSignal,
    lock: &'a Lock,
}

/// What a look under the locks came to.
struct Prepared {
    work: Work,
    found: Vec<Finding>,
    /// What will be dropped, with every id.
    in_full: Vec<Finding>,
}

impl Locked<'_> {
    fn pace(&self, track: Track) -> Pace<'_> {
        Pace::new(
            self.connection,
            track,
            self.lock,
            self.options,
            self.observer,
            self.stop,
        )
    }

    fn patience(&self) -> Patience<'_> {
        Patience {
            lock: self.lock,
            wait: self.session.wait_lock,
            stop: self.stop,
        }
    }

    async fn run(
        &self,
        tracks: &[Track],
        report: &mut Report,
        in_full: &mut Vec<Finding>,
    ) -> Result<()> {
        let mut work = Vec::new();
        // All of them before the first look: what was looked at stays as it is until the first write.
        for &track in tracks {
            self.pace(track).hold(None).await?;
        }
        for &track in tracks {
            let load = async || self.prepare(track).await;
            let prepared = self.patience().load(load).await?;
            in_full.extend(prepared.in_full);
            report.findings.extend(prepared.found);
            work.push(prepared.work);
        }
        if report.is_blocked() {
            return Err(doctor::refusal(std::mem::take(&mut report.findings)));
        }
        if let Some(path) = &self.options.backup
            && work.iter().any(|item| !item.selected.is_empty())
        {
            backup::write(self.connection, path).await?;
        }
        for item in &mut work {
            let outcome = self.apply(item, report).await;
            report.tracks.sort_by_key(|track| track.track);
            outcome?;
        }
        Ok(())
    }

    /// Reads again, now that nobody else can write, and runs the hazard checks.
    async fn prepare(&self, track: Track) -> Result<Prepared> {
        environment::refuse_hidden(self.connection, track).await?;
        let mut history = read_again(self.session, self.connection, track).await?;
        let from = history.current(track);
        let mut adopt = false;
        let mut live = live(self.connection, &history, self.options).await?;
        refuse(track, &live)?;
        if history.entries.is_empty() && track.is_carried_by(&live.catalog) {
            if !self.options.adopt {
                return Err(unadopted(track, &live));
            }
            // Marked only after the doctor has looked, so that a refusal leaves nothing behind.
            history = recognised_history(self.session.clock.now(), track, &live)?;
            live.history = history.created();
            adopt = true;
        }
        self.session.aim(track, &live, &mut history)?;
        let selected = selected(self.names, track, &history, self.options)?;
        self.observer
            .note(Event::Step("run the hazard checks".to_owned()));
        let found = doctor::before_up(
            self.session,
            self.connection,
            &live,
            track,
            &selected,
            history.target.as_ref(),
        )
        .await?;
        Ok(Prepared {
            in_full: doctor::dropped(self.connection, &live, track, &found).await?,
            found,
            work: Work {
                track,
                history,
                from,
                selected,
                adopt,
            },
        })
    }

    async fn apply(&self, item: &mut Work, report: &mut Report) -> Result<()> {
        let dialect = self.session.dialect();
        let mut entry = TrackReport {
            track: item.track,
            from: item.from.clone(),
            to: item.history.current(item.track),
            applied: Vec::new(),
            pending: Vec::new(),
        };
        let changes = std::sync::Mutex::default();
        let pace = self.pace(item.track);
        let applier = Applier {
            connection: self.connection,
            session: self.session,
            parallel: match dialect {
                Dialect::Postgres => self.options.parallel,
                Dialect::Sqlite => 1,
            },
            pace: &pace,
            changes: &changes,
            dialect,
            track: item.track,
            lock: self.lock,
            patience: self.patience(),
            options: self.options,
            batch: self.options.batch.unwrap_or(match dialect {
                Dialect::Postgres => Duration::from_millis(50),
                Dialect::Sqlite => Duration::from_millis(10),
            }),
            observer: self.observer,
            stop: self.stop,
        };
        if item.adopt {
            mark(self.session, self.connection, item.track).await?;
            item.history = History {
                target: item.history.target.take(),
                ..read_again(self.session, self.connection, item.track).await?
            };
        }
        let outcome = apply_all(&applier, item, &mut entry).await;
        entry.to = item.history.current(item.track);
        entry.pending = pending_report(&pending(item.track, &item.history));
        report.tracks.push(entry);
        report.changes.extend(updates(&changes));
        outcome
    }
}

async fn apply_all(applier: &Applier<'_>, item: &mut Work, entry: &mut TrackReport) -> Result<()> {
    if !item.selected.is_empty() {
        let context = applier
            .patience
            .load(async || context(applier.connection, &item.history).await)
            .await?;
        ensure_history(applier.connection, &context, item.track)
            .await
            .map_err(Error::database("create the history table"))?;
    }
    // The gateway goes on working, and upstream may have migrated in between: each step reads for itself.
    for migration in &item.selected {
        applier.stop.check()?;
        let course = Course::new(Direction::Up, migration, &item.history);
        entry.applied.push(applier.run(course).await?);
        item.history
            .refresh(applier.connection, applier.dialect, item.track)
            .await
            .map_err(Error::database("read the history"))?;
    }
    Ok(())
}

/// Every copy that the run made: the record has them all, the answer their number.
async fn clones(
    connection: &Connection,
    tracks: &[Track],
    report: &Report,
) -> Vec<serde_json::Value> {
    let mut made = Vec::new();
    for &track in tracks {
        made.extend((Module::of(track).copied)(connection, report).await);
    }
    made
}

/// The history as it is now that nobody else can write it.
pub(crate) async fn read_again(
    session: &Session,
    connection: &Connection,
    track: Track,
) -> Result<History> {
    let history = History::read(connection, session.dialect(), track)
        .await
        .map_err(Error::database("read the history"))?;
    abandoned::settle(connection, track, history).await
}

/// What was changed, as the report says it.
pub(super) fn updates(changes: &std::sync::Mutex<Changes>) -> Vec<Change> {
    let Ok(changes) = changes.lock() else {
        return Vec::new();
    };
    changes
        .iter()
        .filter(|(_, rows)| **rows > 0)
        .map(|((table, action), rows)| Change {
            table: table.clone(),
            action: (*action).to_owned(),
            rows: *rows,
            sample_ids: Vec::new(),
        })
        .collect()
}

/// Tables are there and no history: they are somebody's, and creating ours over them would fail or worse.
pub(super) fn unadopted(track: Track, context: &Context) -> Error {
    match recognise(track, context) {
        Ok(shape) => Error::refused(
            "not_adopted",
            format!(
                "the database has {track} tables ({}) and no history of Tollgate's",
                shape.shape
            ),
            "run `tollgate migrate adopt` first, or `tollgate migrate up --adopt` in one step; nothing was changed",
        ),
        Err(error) => error,
    }
}
