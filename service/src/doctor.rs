//! Finds what would make a migration fail, lose something or change behaviour, before it runs.

pub(crate) mod environment;
mod query;

use futures_util::future::BoxFuture;
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::ledger::Target;
use tollgate_migration::{Context, Migration, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::report::result::DoctorResult;
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::target::gateway;
use crate::runner::{Session, adopt, context, idle, pending, pending_report};

pub use query::{Queries, Query};

/// What some hazards need to know of the data before they can be put into SQL.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Every distinct reset duration, and its nanoseconds where it can be read.
    pub durations: Vec<(String, Option<i64>)>,
}

/// A question about the data or the schema.
pub struct Hazard {
    /// Its stable code.
    pub code: &'static str,
    /// How much a finding weighs.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// What would happen.
    pub effect: &'static str,
    /// The flag or command that resolves it.
    pub resolve: &'static str,
    /// The slugs of the migrations it concerns; it is asked while one of them is to run. Without any it speaks of drift,
    /// and is asked by `doctor` alone, always.
    pub concerns: &'static [&'static str],
    /// One query per table it can be found in; none where this schema cannot have the hazard.
    pub queries: fn(&Context, &Facts) -> Queries,
    /// Whether it speaks of what is dropped or cleared: the record of a run then lists every row.
    pub drops: bool,
    /// Whether it can come back when its migration is done: the doctor asks for it always.
    pub returns: bool,
    /// What the operator's choice makes of it, and the choice; `None` where there is none.
    pub choice: fn(&Context) -> Option<(&'static str, &'static str)>,
    /// What would happen to these very rows, where one line for all is not enough.
    pub detail: Option<Detail>,
    /// Findings that no query makes.
    pub more: Option<More>,
    /// Whether a boot of the gateway's, up to this version, stops on it.
    pub stops_boot: fn(i64) -> bool,
}

/// Says what would happen to the rows of a table that a hazard names.
pub type Detail =
    for<'a> fn(&'a Connection, &'a Context, &'a str, Samples) -> BoxFuture<'a, Result<String>>;

/// Looks for a hazard in another way than by a query.
pub type More =
    for<'a> fn(&'a Connection, &'a Context, Samples) -> BoxFuture<'a, Result<Vec<Finding>>>;

impl Hazard {
    /// A hazard of which nothing more is to be said; to be completed by what it is.
    pub const PLAIN: Self = Self {
        code: "",
        severity: Severity::Warning,
        title: "",
        effect: "",
        resolve: "",
        concerns: &[],
        queries: |_, _| Queries::none(),
        drops: false,
        returns: false,
        choice: |_| None,
        detail: None,
        more: None,
        stops_boot: |_| false,
    };
}

/// How many ids a finding lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// The first few.
    First(u32),
    /// Every one.
    All,
}

impl Default for Samples {
    fn default() -> Self {
        Self::First(10)
    }
}

/// What the doctor is asked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Only these hazards; all when empty.
    pub codes: Vec<String>,
    /// How many ids a finding lists.
    pub samples: Samples,
}

fn hazards(track: Track) -> &'static [Hazard] {
    Module::of(track).hazards
}

/// Every code that `--code` may name.
pub fn codes() -> Vec<&'static str> {
    let environment = environment::TROUBLES.iter().map(|trouble| trouble.code);
    Track::all()
        .iter()
        .flat_map(|&track| hazards(track))
        .map(|hazard| hazard.code)
        .chain(environment)
        .collect()
}

/// The refusal (E004) where the tables of a track are in another schema than the one that is used, which has none of them.
///
/// # Errors
/// What connecting and reading may answer.
pub async fn misplaced(session: &Session, tracks: &[Track]) -> Result<Option<Error>> {
    let connection = session.connect(Access::Read).await?;
    let mut missing = Vec::new();
    for &track in tracks {
        let names: Vec<String> = track
            .marker_tables()
            .iter()
            .map(|&mark| mark.to_owned())
            .collect();
        let found = crate::database::existing(&connection, session.dialect(), &names)
            .await
            .map_err(Error::database("look for the tables of the tracks"))?;
        if found.is_empty() {
            missing.push(track);
        }
    }
    environment::elsewhere(&connection, &missing).await
}

/// Looks for the hazards of everything that is pending, read-only. A database without history is looked at as
/// `migrate adopt` would take it.
///
/// # Errors
/// [`Error::Usage`] for an unknown code; [`Error::Refused`] with the findings when one blocks.
pub async fn doctor(session: &Session, options: &Options) -> Result<Report> {
    if let Some(unknown) = options
        .codes
        .iter()
        .find(|code| !codes().contains(&code.as_str()))
    {
        return Err(Error::usage(
            format!("there is no hazard {unknown}"),
            format!("the codes are {}", codes().join(", ")),
        ));
    }
    let connection = session.connect(Access::Read).await?;
    let mut report = Report::default();
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    session.check_target(&names)?;
    let mut gateways = Vec::new();
    for (track, exists) in tracks {
        environment::refuse_hidden(&connection, track).await?;
        let mut history = session.history(&connection, track, exists).await?;
        let mut live = context(&connection, &history).await?;
        let contradictory = !environment::ledger::contradictions(track, &live).is_empty();
        if history.entries.is_empty() && track.is_carried_by(&live.catalog) && !contradictory {
            history = adopt::recognised_history(track, &live)?;
            live.history = history.created();
        }
        session.aim(track, &live, &mut history)?;
        gateways.extend(gateway(track, &live, &history));
        let contradictions = environment::ledger::contradictions(track, &live);
        if !contradictions.is_empty() {
            report.findings.extend(contradictions);
            report.tracks.push(idle(track, &history));
            continue;
        }
        let pending = pending(track, &history);
        let wanted = |code: &str| {
            options.codes.is_empty() || options.codes.iter().any(|named| named == code)
        };
        let asked: Vec<&str> = hazards(track)
            .iter()
            .filter(|hazard| {
                hazard.concerns.is_empty() || hazard.returns || concerns(hazard, &pending)
            })
            .map(|hazard| hazard.code)
            .filter(|code| wanted(code))
            .collect();
        let plans = environment::plans(&live, &pending);
        let mut found = environment::examine(&connection, track, &live, &plans).await?;
        found.retain(|finding| wanted(&finding.code));
        found.extend(examine_only(&connection, &live, track, &asked, options.samples).await?);
        weigh(session, history.target.as_ref(), &mut found);
        report.findings.extend(found);
        let mut entry = idle(track, &history);
        entry.pending = pending_report(&pending);
        report.tracks.push(entry);
    }
    report.result = Some(CommandResult::Examined(DoctorResult { gateways }));
    if report.is_blocked() {
        return Err(refusal(report.findings));
    }
    Ok(report)
}

/// With a version that boots next, what stops that boot blocks. Nothing changes where the operator named none.
fn weigh(session: &Session, target: Option<&Target>, found: &mut [Finding]) {
    let (Some(_), Some(target)) = (&session.target, target) else {
        return;
    };
    for finding in found {
        let stops = hazard_of(&finding.code).is_some_and(|hazard| (hazard.stops_boot)(target.at));
        if stops || finding.code == "E008" {
            finding.severity = Severity::Blocking;
        }
    }
}

/// What the migrations that are to run would meet, and what would stop the boot of the version that the operator named: once
/// the steps are done, nothing here can mend that.
pub(crate) async fn before_up(
    session: &Session,
    connection: &Connection,
    context: &Context,
    track: Track,
    migrations: &[&'static Migration],
    target: Option<&Target>,
) -> Result<Vec<Finding>> {
    let mut found = examine(connection, context, track, migrations, Samples::default()).await?;
    if let (Some(_), Some(target), false) = (&session.target, target, migrations.is_empty()) {
        let codes: Vec<&str> = hazards(track)
            .iter()
            .filter(|hazard| !concerns(hazard, migrations) && (hazard.stops_boot)(target.at))
            .map(|hazard| hazard.code)
            .collect();
        found.extend(examine_only(connection, context, track, &codes, Samples::default()).await?);
        weigh(session, Some(target), &mut found);
    }
    Ok(found)
}

/// Looks for the hazards of the migrations that are to run. One statement per hazard and table; nothing is written.
///
/// # Errors
/// [`Error::Database`] naming the hazard whose question failed.
pub(crate) async fn examine(
    connection: &Connection,
    context: &Context,
    track: Track,
    migrations: &[&'static Migration],
    samples: Samples,
) -> Result<Vec<Finding>> {
    let concerned: Vec<&str> = hazards(track)
        .iter()
        .filter(|hazard| concerns(hazard, migrations))
        .map(|hazard| hazard.code)
        .collect();
    let plans = environment::plans(context, migrations);
    let mut found = environment::examine(connection, track, context, &plans).await?;
    found.extend(examine_only(connection, context, track, &concerned, samples).await?);
    Ok(found)
}

/// Whether a hazard is one of these migrations'.
fn concerns(hazard: &Hazard, migrations: &[&'static Migration]) -> bool {
    hazard
        .concerns
        .iter()
        .any(|slug| migrations.iter().any(|migration| migration.slug() == *slug))
}

/// The findings of what will be dropped or cleared, with every id.
pub(crate) async fn dropped(
    connection: &Connection,
    context: &Context,
    track: Track,
    found: &[Finding],
) -> Result<Vec<Finding>> {
    let codes: Vec<&str> = hazards(track)
        .iter()
        .filter(|hazard| hazard.drops)
        .map(|hazard| hazard.code)
        .filter(|code| found.iter().any(|finding| finding.code == *code))
        .collect();
    examine_only(connection, context, track, &codes, Samples::All).await
}

pub(crate) async fn examine_only(
    connection: &Connection,
    context: &Context,
    track: Track,
    codes: &[&str],
    samples: Samples,
) -> Result<Vec<Finding>> {
    // A fresh database has no rows to be in danger.
    if codes.is_empty() || !track.is_carried_by(&context.catalog) {
        return Ok(Vec::new());
    }
    let facts = (Module::of(track).known)(connection, context, codes)
        .await
        .map_err(Error::database("read what the hazards ask about"))?;
    let mut findings = Vec::new();
    for hazard in hazards(track)
        .iter()
        .filter(|hazard| codes.contains(&hazard.code))
    {
        if let Some(more) = hazard.more {
            findings.extend(more(connection, context, samples).await?);
        }
        for (table, query) in (hazard.queries)(context, &facts) {
            let (rows, sample_ids) = ids(connection, query, samples)
                .await
                .map_err(Error::database(format!("look for hazard {}", hazard.code)))?;
            if rows > 0 {
                let mut found = finding(hazard, context, table, rows, sample_ids);
                if let Some(detail) = hazard.detail {
                    found.effect = detail(connection, context, table, samples).await?;
                }
                findings.push(found);
            }
        }
    }
    Ok(findings)
}

fn finding(
    hazard: &Hazard,
    context: &Context,
    table: &str,
    rows: u64,
    sample_ids: Vec<String>,
) -> Finding {
    let chosen = (hazard.choice)(context);
    Finding {
        code: hazard.code.to_owned(),
        severity: if chosen.is_some() {
            Severity::Info
        } else {
            hazard.severity
        },
        title: hazard.title.to_owned(),
        table: table.to_owned(),
        column: None,
        rows,
        sample_ids,
        effect: chosen
            .map_or(hazard.effect, |(effect, _)| effect)
            .to_owned(),
        resolve: chosen
            .map_or(hazard.resolve, |(_, resolve)| resolve)
            .to_owned(),
    }
}

/// Counts what a query names, and lists the first of it.
pub(crate) async fn ids<C: ConnectionTrait>(
    connection: &C,
    query: impl Into<Query>,
    samples: Samples,
) -> std::result::Result<(u64, Vec<String>), DbErr> {
    let limit = match samples {
        Samples::First(count) => format!(" LIMIT {}", count.max(1)),
        Samples::All => String::new(),
    };
    let query = query.into();
    let sql = format!(
        "SELECT CAST(found.id AS text) AS id, count(*) OVER () AS total FROM ({}) found ORDER BY found.id{limit}",
        query.sql()
    );
    let rows = connection
        .query_all_raw(query.within(connection.get_database_backend(), sql))
        .await?;
    let total: i64 = rows.first().map_or(Ok(0), |row| row.try_get("", "total"))?;
    let mut ids = rows
        .iter()
        .map(|row| {
            row.try_get::<Option<String>>("", "id")
                .map(Option::unwrap_or_default)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if samples == Samples::First(0) {
        ids.clear();
    }
    Ok((total.unsigned_abs(), ids))
}

/// The hazard of that code, of any track.
fn hazard_of(code: &str) -> Option<&'static Hazard> {
    Track::all()
        .iter()
        .flat_map(|&track| hazards(track))
        .find(|hazard| hazard.code == code)
}

/// A finding that is known from the schema alone.
pub(crate) fn schema_finding(code: &str, table: &str, object: &str) -> Finding {
    let hazard = hazard_of(code);
    let text = |pick: fn(&Hazard) -> &'static str| hazard.map(pick).unwrap_or_default().to_owned();
    Finding {
        code: code.to_owned(),
        severity: hazard.map_or(Severity::Blocking, |hazard| hazard.severity),
        title: text(|hazard| hazard.title),
        table: table.to_owned(),
        column: None,
        rows: 1,
        sample_ids: vec![object.to_owned()],
        effect: text(|hazard| hazard.effect),
        resolve: text(|hazard| hazard.resolve),
    }
}

/// The refusal for what blocks.
pub(crate) fn refusal(findings: Vec<Finding>) -> Error {
    let mut codes: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Blocking)
        .map(|finding| finding.code.as_str())
        .collect();
    codes.dedup();
    let verb = if codes.len() == 1 { "blocks" } else { "block" };
    let message = format!("{} {verb} the migration", codes.join(", "));
    Error::Refused {
        code: "blocked",
        message,
        hint: "resolve what the findings name, then run the command again; nothing was changed"
            .to_owned(),
        findings,
    }
}

/// The refusal for a hazard that has come up since the doctor looked, found under the migration's own lock.
pub(crate) fn refusal_under_lock(code: &str, table: &str, ids: Vec<String>) -> Error {
    let found = hazard_of(code).map(|hazard| Finding {
        code: hazard.code.to_owned(),
        severity: hazard.severity,
        title: hazard.title.to_owned(),
        table: table.to_owned(),
        column: None,
        rows: ids.len() as u64,
        sample_ids: ids.into_iter().take(10).collect(),
        effect: hazard.effect.to_owned(),
        resolve: hazard.resolve.to_owned(),
    });
    Error::Refused {
        code: "blocked",
        message: format!(
            "{code} has come up since the doctor looked; the migration was rolled back"
        ),
        hint: "resolve what the finding names, then run the command again".to_owned(),
        findings: found.into_iter().collect(),
    }
}
