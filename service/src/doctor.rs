//! Finds what would make a migration fail, lose something or change behaviour, before it runs.

pub(crate) mod environment;
pub(crate) mod hazard;
pub(crate) mod ids;
pub(crate) mod query;
pub(crate) mod refusal;
pub(crate) mod trouble;

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
use crate::tracks;

pub use hazard::{Detail, Facts, Hazard, More, Samples};
pub(crate) use ids::ids;
use ids::ids_over;
pub use query::{Queries, Query};
use refusal::hazard_of;
pub(crate) use refusal::{refusal, schema_finding};

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
    let environment = trouble::TROUBLES.iter().chain(
        tracks::all()
            .iter()
            .flat_map(|module| module.troubles)
            .map(|known| &known.trouble),
    );
    let environment = environment.map(|trouble| trouble.code);
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
            history = adopt::recognised_history(session.clock.now(), track, &live)?;
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
    let asked: Vec<(&Hazard, Queries)> = hazards(track)
        .iter()
        .filter(|hazard| codes.contains(&hazard.code))
        .map(|hazard| (hazard, (hazard.queries)(context, &facts)))
        .collect();
    let mut shared = over_shared(connection, context, track, &asked, samples)
        .await?
        .into_iter();
    let mut findings = Vec::new();
    for (hazard, queries) in asked {
        if let Some(more) = hazard.more {
            findings.extend(more(connection, context, samples).await?);
        }
        for (table, query) in queries {
            let known = if query.reads_shared() {
                shared.next()
            } else {
                None
            };
            let (rows, sample_ids) = match known {
                Some(known) => known,
                None => ids(connection, query, samples)
                    .await
                    .map_err(Error::database(format!("look for hazard {}", hazard.code)))?,
            };
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

/// What the questions over the relation that a track's hazards share find, in their order.
async fn over_shared(
    connection: &Connection,
    context: &Context,
    track: Track,
    asked: &[(&Hazard, Queries)],
    samples: Samples,
) -> Result<Vec<(u64, Vec<String>)>> {
    let (mut codes, mut queries) = (Vec::new(), Vec::new());
    for (hazard, of_hazard) in asked {
        for query in of_hazard.iter().filter(|query| query.reads_shared()) {
            codes.push(hazard.code);
            queries.push(query);
        }
    }
    let Some((name, relation)) = (Module::of(track).shared)(context) else {
        return Ok(Vec::new());
    };
    if queries.is_empty() {
        return Ok(Vec::new());
    }
    codes.dedup();
    ids_over(connection, (name, &relation), &queries, samples)
        .await
        .map_err(Error::database(format!(
            "look for hazards {}",
            codes.join(", ")
        )))
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
