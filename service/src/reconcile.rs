//! Reconciliation: a routine computes the difference between what rows say and what they should say, and closes it in a
//! transaction. Plan and application use the same predicate, so they cannot disagree.

pub mod all;
pub(crate) mod options;
pub(crate) mod part;
pub mod sweep;

pub use options::Options;
pub use part::{Part, Shard};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tollgate_migration::{Dialect, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::lock::{Claim, Gateway, Lock};
use crate::report::{Change, Report};
use crate::runner::{Session, prove_writable};
use crate::runs::RunOutcome;
use crate::secret;
use crate::shutdown::ShutdownSignal;

/// A routine: what differs, and how it is closed.
pub trait Routine: Sync {
    /// Its name in the record of runs.
    fn name(&self) -> &'static str;
    /// The track whose tables it writes.
    fn track(&self) -> Track;
    /// How the database is opened to see what would change.
    fn access_to_plan(&self, _dialect: Dialect) -> Access {
        Access::Read
    }
    /// Whether [`Routine::apply`] itself holds the change limit, before its first write, so that the rows need not be looked at
    /// twice.
    fn holds_limit(&self) -> bool {
        false
    }
    /// The same over a part of its rows; `None` where it is not divided.
    fn over(&self, _part: &Part) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
    /// What is said once of all parts together.
    fn conclude(&self, _report: &mut Report) {}
    /// What would change, read-only. Fails with [`Error::NotFound`] where its tables are missing.
    fn plan(&self, connection: &Connection) -> impl Future<Output = Result<Report>> + Send;
    /// Closes the difference. What was committed before an error stands in the report.
    fn apply(
        &self,
        connection: &Connection,
        report: &mut Report,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Runs a routine: under its track's lock, with the change limit, and on the record.
pub async fn run(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
    routine: &impl Routine,
) -> crate::report::Outcome {
    let mut report = Report::default();
    let part = Part::of(options.shard);
    let error = match (part.is_whole(), routine.over(&part)) {
        (true, _) => locked(session, options, now, stop, routine, &mut report).await,
        (false, Some(routine)) => locked(session, options, now, stop, &routine, &mut report).await,
        (false, None) => Err(undivided(routine.name())),
    }
    .err();
    crate::report::Outcome { report, error }
}

/// Why a routine has no shards.
pub(crate) fn undivided(routine: &str) -> Error {
    Error::usage(
        format!("--shard: {routine} is not divided"),
        "leave it out; sweeps over many rows are, and their --help says so",
    )
}

async fn locked(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
    routine: &impl Routine,
    report: &mut Report,
) -> Result<()> {
    let access = if options.dry_run {
        routine.access_to_plan(session.dialect())
    } else {
        Access::Write
    };
    let connection = session.connect(access).await?;
    environment::refuse_hidden(&connection, routine.track()).await?;
    if options.dry_run {
        environment::refuse_unknown(&connection, routine.track()).await?;
    }
    if options.dry_run || options.max_changes.is_some() && !routine.holds_limit() {
        let mut planned = routine.plan(&connection).await?;
        secret::shorten(&mut planned);
        change_limit(options, &planned)?;
        if options.dry_run {
            *report = planned;
            return Ok(());
        }
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = match options.shard {
        None => {
            let tracks = [routine.track()];
            Lock::take(session, connection, &tracks, Gateway::Boots, stop).await?
        }
        Some(shard) => {
            let claim = Claim {
                track: routine.track(),
                routine: routine.name(),
                shard,
            };
            Lock::take_shard(session, connection, claim, stop).await?
        }
    };
    let outcome = pieces(session, options, &lock, &connection, routine, report).await;
    secret::shorten(report);
    if !report.changes.is_empty() {
        session
            .record_run(
                &connection,
                &match options.shard {
                    None => format!("reconcile {}", routine.name()),
                    Some(shard) => format!("reconcile {} {shard}", routine.name()),
                },
                now,
                RunOutcome::of(&outcome),
                report,
            )
            .await;
    }
    lock.release().await;
    outcome
}

/// Applies the routine, in as many pieces at once as there are to be connections.
async fn pieces<R: Routine>(
    session: &Session,
    options: Options,
    lock: &Lock,
    connection: &Connection,
    routine: &R,
    report: &mut Report,
) -> Result<()> {
    let pieces: Vec<R> = if options.parallel > 1 && session.dialect() == Dialect::Postgres {
        let parts = Part::of(options.shard).pieces(options.parallel);
        parts.iter().filter_map(|part| routine.over(part)).collect()
    } else {
        Vec::new()
    };
    if pieces.is_empty() {
        return routine.apply(connection, report).await;
    }
    let workers = lock.workers(session, pieces.len()).await?;
    let connections = std::iter::once(connection).chain(&workers);
    let outcomes = join_all(
        pieces
            .iter()
            .zip(connections)
            .map(async |(piece, connection)| {
                let mut report = Report::default();
                let outcome = piece.apply(connection, &mut report).await;
                (report, outcome)
            }),
    )
    .await;
    let mut failed = Ok(());
    for (of_piece, outcome) in outcomes {
        merge(report, of_piece);
        failed = failed.and(outcome);
    }
    routine.conclude(report);
    failed
}

/// Adds what a piece has done. What all of them say is said once.
fn merge(report: &mut Report, of_piece: Report) {
    for change in of_piece.changes {
        count(
            &mut report.changes,
            &change.table,
            &change.action,
            change.rows,
            [],
        );
        let merged = report
            .changes
            .iter_mut()
            .find(|known| known.table == change.table && known.action == change.action);
        if let Some(merged) = merged {
            merged.sample_ids.extend(change.sample_ids);
            merged.sample_ids.sort_unstable();
            merged.sample_ids.truncate(SAMPLES);
        }
    }
    for finding in of_piece.findings {
        if !report.findings.contains(&finding) {
            report.findings.push(finding);
        }
    }
}

pub(crate) fn change_limit(options: Options, planned: &Report) -> Result<()> {
    let rows = planned.rows();
    match options.max_changes {
        Some(most) if rows > most => Err(held(rows, most)),
        _ => Ok(()),
    }
}

/// The change limit holds.
pub(crate) fn held(rows: u64, most: u64) -> Error {
    Error::refused(
        "max_changes",
        format!("{rows} rows would change, more than --max-changes {most}"),
        "look with --dry-run; nothing was changed",
    )
}

/// How many ids a change lists.
pub(crate) const SAMPLES: usize = 10;

/// Adds rows to the change of that table and action.
pub(crate) fn count(
    changes: &mut Vec<Change>,
    table: &str,
    action: &str,
    rows: u64,
    ids: impl IntoIterator<Item = String>,
) {
    if rows == 0 {
        return;
    }
    let known = changes
        .iter()
        .position(|change| change.table == table && change.action == action);
    let position = known.unwrap_or_else(|| {
        changes.push(Change {
            table: table.to_owned(),
            action: action.to_owned(),
            rows: 0,
            sample_ids: Vec::new(),
        });
        changes.len() - 1
    });
    let change = &mut changes[position];
    change.rows += rows;
    for id in ids {
        if change.sample_ids.len() < SAMPLES {
            change.sample_ids.push(id);
        }
    }
}
