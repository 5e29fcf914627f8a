//! What `migrate prepare` does before a Bifrost migrates itself, and behind it.

use tollgate_migration::governance::SHARED_BUDGETS;
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};
use tollgate_migration::{Context, Track};

use super::{clones, remembered};
use crate::connection::Connection;
use crate::database::existing;
use crate::doctor::{self, Samples, environment};
use crate::error::{Error, Result};
use crate::history::History;
use crate::prepare::{Work, not_moved, note};
use crate::report::{Change, Finding, Report, Severity};
use crate::runner::context;

/// Budgets that are shared get copies; flags without a place in the next schema are remembered.
pub(super) async fn prepare(
    work: &Work<'_>,
    live: &Context,
    report: &mut Report,
    left: &mut Vec<Finding>,
) -> Result<&'static str> {
    if !clones::is_legacy(live) {
        return Ok("the gateway has done its migration; `--finish` puts back what was remembered");
    }
    let mut stops = environment::lost_parents(Track::GOVERNANCE, &live.catalog);
    stops.extend(
        doctor::examine_only(
            work.connection,
            live,
            Track::GOVERNANCE,
            &["G015", "G018", "G022"],
            Samples::default(),
        )
        .await?,
    );
    left.extend(stops.into_iter().map(|found| Finding {
        severity: Severity::Blocking,
        ..found
    }));
    if !left.is_empty() {
        return Ok("something is left that rows cannot mend");
    }
    if live.chose(&SHARED_BUDGETS) {
        let made = clones::make(work.connection, live)
            .await
            .map_err(Error::database("copy shared budgets"))?;
        if !made.copies.is_empty() {
            report.findings.push(note(
                BUDGETS,
                made.originals.clone(),
                "budgets that were shared have copies now",
                "a config file that still names a budget of theirs for another owner would share it again at the next boot",
                "give each owner in the file a budget of its own, or leave its budget out",
            ));
        }
        changed(report, "clone", made.copies);
        changed(report, "raise", made.raised);
    }
    let shared = clones::shared(live);
    if let Some(sql) = shared {
        let (rows, ids) = work.ids(&sql).await?;
        if rows > 0 {
            let mut found = doctor::schema_finding("G001", BUDGETS, "");
            found.rows = rows;
            found.sample_ids = ids;
            left.push(found);
        }
    }
    let noted = remembered::note(work.connection, live)
        .await
        .map_err(Error::database("remember calendar flags"))?;
    changed(report, "remember flag", noted);
    Ok("prepared: start the new gateway, then run `tollgate migrate prepare --finish`")
}

/// What was remembered is put to where its owner is now.
pub(super) async fn finish(
    work: &Work<'_>,
    live: &Context,
    report: &mut Report,
    left: &mut Vec<Finding>,
) -> Result<&'static str> {
    if clones::is_legacy(live) {
        return Err(not_moved(Track::GOVERNANCE));
    }
    let finished = remembered::finish(work.connection, live)
        .await
        .map_err(Error::database("put back calendar flags"))?;
    report.changes.extend(finished.changes);
    left.extend(finished.without_a_place);
    if report.changes.is_empty() {
        Ok("nothing was left to put back")
    } else {
        report.findings.push(note(
            VIRTUAL_KEYS,
            Vec::new(),
            "a gateway that runs does not see the flags yet",
            "it reads them when it starts",
            "restart it",
        ));
        Ok("put back")
    }
}

/// What is remembered is put back by every `up`, also where no step is pending.
pub(super) async fn put_back(connection: &Connection, report: &mut Report) -> Result<()> {
    // Most databases have nothing to be put back, and the catalog is long.
    let remembers = existing(
        connection,
        connection.dialect(),
        &[remembered::TABLE.to_owned()],
    )
    .await
    .map_err(Error::database("look for what is remembered"))?;
    if remembers.is_empty() {
        return Ok(());
    }
    let live = context(connection, &History::default()).await?;
    if clones::is_legacy(&live) {
        return Ok(());
    }
    let finished = remembered::finish(connection, &live)
        .await
        .map_err(Error::database("put back calendar flags"))?;
    report.changes.extend(finished.changes);
    // What this run has just dropped and remembered is announced already.
    let announced = report.findings.iter().any(|found| found.code == "G017");
    if !announced {
        report.findings.extend(finished.without_a_place);
    }
    Ok(())
}

fn changed(report: &mut Report, action: &str, ids: Vec<String>) {
    if !ids.is_empty() {
        report.changes.push(Change {
            table: BUDGETS.to_owned(),
            action: action.to_owned(),
            rows: ids.len() as u64,
            sample_ids: ids.into_iter().take(10).collect(),
        });
    }
}
