//! Reports as text.

mod verify;
mod work;

use std::fmt::Write;

use tollgate_service::report::result::{
    AdoptResult, HandoverResult, HistoryResult, PlanResult, PlannedMigration, PrepareResult,
    ResolveResult,
};
use tollgate_service::{Blocks, CommandResult, Finding, Report, Severity, TrackReport};

use super::View;

/// The whole answer.
pub(super) fn render(report: &Report, view: &View, failed: bool) -> String {
    let mut out = String::new();
    place(&mut out, report);
    gateways(&mut out, report);
    match view {
        View::Plain(text) => return text.clone(),
        View::Raw(_) => return String::new(),
        View::Own => own(&mut out, report, failed),
        View::Plan { sql } => {
            if let Some(CommandResult::Plan(result)) = &report.result {
                plan(&mut out, report, result, *sql);
            }
        }
    }
    waiting(&mut out, report);
    for change in &report.changes {
        line(
            &mut out,
            &format!(
                "{}: {} {} {}{}",
                change.table,
                change.action,
                change.rows,
                if change.rows == 1 { "row" } else { "rows" },
                samples(&change.sample_ids, change.rows)
            ),
        );
    }
    findings(&mut out, &report.findings);
    // What only changes rows has nothing else to say.
    let changes_rows = matches!(
        report.result,
        None | Some(
            CommandResult::Up(_)
                | CommandResult::Routines(_)
                | CommandResult::Cleared(_)
                | CommandResult::Deleted(_)
        )
    );
    if !failed && out.is_empty() && changes_rows {
        line(&mut out, "nothing to do");
    }
    out
}

/// As the command's result says it; without one, what the tracks say.
fn own(out: &mut String, report: &Report, failed: bool) {
    match &report.result {
        Some(CommandResult::Status(result)) => {
            for track in &report.tracks {
                status(out, track);
                work::at_work(out, result, track.track);
                drifted(out, report, track);
            }
        }
        Some(CommandResult::Adopted(result)) => adopted(out, report, result),
        Some(CommandResult::Resolved(result)) => settled(out, result),
        Some(CommandResult::Paused(result)) => work::paused(out, result),
        Some(CommandResult::Prepared(result)) => prepared(out, result),
        Some(CommandResult::HandedOver(result)) => handed_over(out, result),
        Some(CommandResult::Examined(_)) => {
            for track in &report.tracks {
                let _ = writeln!(
                    out,
                    "{}: {} migrations pending, {} findings",
                    track.track,
                    track.pending.len(),
                    report.findings.len()
                );
            }
        }
        Some(CommandResult::Compared(_)) => {
            for track in &report.tracks {
                heading(out, track);
                if !drifted(out, report, track) {
                    line(out, "  no differences");
                }
            }
        }
        Some(CommandResult::Snapshot(result)) => verify::snapshot(out, result),
        Some(CommandResult::Verified(result)) => verify::verified(out, report, result, failed),
        Some(CommandResult::Rehearsed(result)) => {
            for track in &report.tracks {
                moved(out, track, failed);
            }
            verify::rehearsed(out, result, failed);
        }
        Some(CommandResult::Booted(result)) => {
            for track in &report.tracks {
                moved(out, track, failed);
            }
            verify::beside_the_gateway(out, result);
        }
        Some(CommandResult::History(result)) => history(out, result),
        Some(CommandResult::Planted(_)) => {}
        _ => {
            for track in &report.tracks {
                moved(out, track, failed);
            }
        }
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Which database, and which schema of it.
fn place(out: &mut String, report: &Report) {
    let Some(place) = report.result.as_ref().and_then(CommandResult::place) else {
        return;
    };
    let database = place.database.as_deref().unwrap_or_default();
    let address = &place.address;
    match &place.schema {
        // An address may leave the name to the server.
        Some(schema) if !names(address, database) => line(
            out,
            &format!("{address}, database {database}, schema {schema}"),
        ),
        Some(schema) => line(out, &format!("{address}, schema {schema}")),
        None => line(out, address),
    }
}

/// Whether an address says which database it means.
fn names(address: &str, database: &str) -> bool {
    let path = address
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(_, path)| path);
    path.map_or_else(
        || address.contains("dbname="),
        |path| path.starts_with(database),
    )
}

/// What each gateway has recorded of its own migrations.
pub(crate) fn gateways(out: &mut String, report: &Report) {
    for found in report.result.iter().flat_map(CommandResult::gateways) {
        let _ = writeln!(
            out,
            "{}: {} {}, says its ledger {}",
            found.track, found.gateway, found.version, found.ledger,
        );
    }
}

/// Steps that are past the gateway that boots next.
fn waiting(out: &mut String, report: &Report) {
    for step in report.result.iter().flat_map(CommandResult::waiting) {
        let _ = writeln!(out, "  waits for {}: {}", step.waits_for, step.version);
    }
}

fn heading(out: &mut String, track: &TrackReport) {
    let at = track.to.as_deref().unwrap_or("nothing applied");
    let _ = writeln!(out, "{}: {at}", track.track);
}

fn prepared(out: &mut String, result: &PrepareResult) {
    for (track, state) in &result.state {
        let _ = writeln!(out, "{track}: {state}");
    }
}

fn handed_over(out: &mut String, result: &HandoverResult) {
    match (result.from, result.to) {
        (Some(from), Some(to)) if result.moved => {
            let _ = writeln!(
                out,
                "Coder's ledger: {from} -> {to}; no server of before can restart from now on"
            );
        }
        (Some(number), _) => {
            let _ = writeln!(out, "Coder's ledger is at {number}, nothing to move");
        }
        _ => line(out, "there is no ledger of Coder's, nothing to move"),
    }
}

fn settled(out: &mut String, result: &ResolveResult) {
    for (lines, what) in [
        (&result.against_applied, "differs from what the step makes"),
        (
            &result.against_pending,
            "differs from what the step before makes",
        ),
    ] {
        let _ = writeln!(out, "the schema {what} in {} places", lines.len());
        for difference in lines {
            let _ = writeln!(out, "  {difference}");
        }
    }
    let _ = writeln!(out, "{}: {} -> {}", result.version, result.was, result.is);
}

fn status(out: &mut String, track: &TrackReport) {
    heading(out, track);
    for applied in &track.applied {
        let _ = writeln!(
            out,
            "  applied   {:<9} {}",
            applied.phase.name(),
            applied.version
        );
    }
    for pending in &track.pending {
        let _ = writeln!(
            out,
            "  pending   {:<9} {}  {}",
            pending.phase.name(),
            pending.version,
            pending.summary
        );
    }
}

fn history(out: &mut String, result: &HistoryResult) {
    for run in &result.runs {
        let _ = writeln!(
            out,
            "{:>5}  {:.19}  {:<8} {:<22} {} on {}",
            run.id, run.started_at, run.outcome, run.kind, run.tool_version, run.host
        );
        if let Some(report) = &run.report {
            let shown = serde_json::to_string_pretty(report).unwrap_or_default();
            line(out, &shown);
        }
    }
    if result.runs.is_empty() {
        line(out, "no run of Tollgate's has changed this database");
    }
}

/// The differences of a track; whether there were any.
fn drifted(out: &mut String, report: &Report, track: &TrackReport) -> bool {
    let mut any = false;
    for difference in report
        .result
        .iter()
        .flat_map(CommandResult::drift)
        .filter(|difference| difference.track == track.track)
    {
        any = true;
        let word = if difference.tolerated {
            "tolerated"
        } else {
            "drift"
        };
        let _ = writeln!(out, "  {word:<9} {}", difference.line);
    }
    any
}

fn moved(out: &mut String, track: &TrackReport, failed: bool) {
    let from = track.from.as_deref().unwrap_or("nothing");
    let to = track.to.as_deref().unwrap_or("nothing");
    if track.applied.is_empty() && failed {
        let _ = writeln!(out, "{}: still {to}", track.track);
    } else if track.applied.is_empty() {
        let _ = writeln!(out, "{}: {to}, nothing to do", track.track);
    } else {
        let _ = writeln!(out, "{}: {from} -> {to}", track.track);
    }
    for applied in &track.applied {
        let _ = writeln!(
            out,
            "  {:<9} {:<44} {:>9} rows {:>8} ms",
            applied.phase.name(),
            applied.version,
            applied.rows,
            applied.duration_ms
        );
        if applied.left > 0 {
            let _ = writeln!(
                out,
                "            {} rows were busy or new to the end; contract catches up with them",
                applied.left
            );
        }
    }
    for pending in &track.pending {
        let _ = writeln!(
            out,
            "  {:<9} {:<44}   pending",
            pending.phase.name(),
            pending.version
        );
    }
}

fn adopted(out: &mut String, report: &Report, result: &AdoptResult) {
    for track in &report.tracks {
        let name = track.track.name();
        let found = result
            .recognised
            .iter()
            .find(|found| found.track == track.track);
        match found {
            Some(found) => {
                let verb = if result.dry_run {
                    "would adopt"
                } else {
                    "adopted"
                };
                let _ = writeln!(out, "{name}: {verb} as {}", found.shape);
                for applied in &track.applied {
                    let _ = writeln!(out, "  {}", applied.version);
                }
            }
            None => {
                let at = track.to.as_deref().unwrap_or("nothing applied");
                let _ = writeln!(out, "{name}: has a history already, at {at}");
            }
        }
        if !track.pending.is_empty() {
            let _ = writeln!(
                out,
                "  {} migrations pending; look with `tollgate migrate plan`",
                track.pending.len()
            );
        }
    }
}

fn plan(out: &mut String, report: &Report, result: &PlanResult, sql: bool) {
    for track in &report.tracks {
        heading(out, track);
        if track.pending.is_empty() {
            line(out, "  nothing pending");
        }
        for migration in &result.migrations {
            if migration.track == track.track {
                planned(out, migration, sql);
            }
        }
    }
}

fn planned(out: &mut String, migration: &PlannedMigration, sql: bool) {
    let _ = writeln!(
        out,
        "  {:<9} {}\n            {}\n            about {} rows; {}",
        migration.phase.name(),
        migration.version,
        migration.summary,
        migration.rows,
        blocking(migration.blocks, migration.blocks_for_ms)
    );
    for step in &migration.steps {
        if sql {
            let note = match step.transaction {
                _ if step.batched => "in batches, {range} is each batch's".to_owned(),
                Some(number) => format!("transaction {number}"),
                None => "outside a transaction".to_owned(),
            };
            let _ = writeln!(out, "    -- {} ({note})\n    {};", step.purpose, step.sql);
        } else if !step.detail {
            let _ = writeln!(out, "            - {}", step.purpose);
        }
    }
}

/// What a running gateway will notice.
fn blocking(who: Blocks, millis: u64) -> String {
    let about = match millis {
        millis @ 0..1000 => format!("about {millis} ms"),
        millis => format!(
            "about {:.1} s",
            std::time::Duration::from_millis(millis).as_secs_f64()
        ),
    };
    match who {
        Blocks::Rows => format!("writers of a batch's rows wait, {about} at a time"),
        Blocks::Writers => format!("writers of the table wait, {about}"),
        Blocks::Everyone => format!("readers and writers of the table wait, {about}"),
        Blocks::Nothing => "nobody waits".to_owned(),
    }
}

/// Findings, the heaviest first.
fn findings(out: &mut String, findings: &[Finding]) {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    for finding in sorted {
        let word = match finding.severity {
            Severity::Blocking => "BLOCKING",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let _ = writeln!(
            out,
            "{:<8} {}  {}: {}{}{}{}",
            word,
            finding.code,
            finding.title,
            if finding.rows == 0 {
                String::new()
            } else {
                format!("{} of ", counted(&finding.code, finding.rows))
            },
            if finding.table.is_empty() {
                "the database"
            } else {
                &finding.table
            },
            finding
                .column
                .as_ref()
                .map_or_else(String::new, |column| format!(".{column}")),
            samples(&finding.sample_ids, finding.rows)
        );
        let _ = writeln!(out, "              {}", finding.effect);
        let _ = writeln!(out, "              -> {}", finding.resolve);
    }
}

/// Findings about the schema and the server count objects, all others rows.
fn counted(code: &str, number: u64) -> String {
    let schema = [
        "tolerated",
        "handover",
        "G016",
        "G018",
        "V001",
        "V101",
        "V002",
        "V003",
        "V007",
        "V013",
        "P013",
        "P014",
        "B003",
    ];
    let word = if code.starts_with('E') || schema.contains(&code) {
        "object"
    } else {
        "row"
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

/// How many ids a line shows; JSON has all that were asked for.
const SHOWN: usize = 10;

fn samples(ids: &[String], rows: u64) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let hidden = rows.max(ids.len() as u64) - ids.len().min(SHOWN) as u64;
    let more = if hidden > 0 {
        format!(", … {hidden} more")
    } else {
        String::new()
    };
    let ids = &ids[..ids.len().min(SHOWN)];
    // Ids are data: a control character in one must not reach a terminal.
    let shown: Vec<String> = ids
        .iter()
        .map(|id| {
            id.chars()
                .flat_map(|c| {
                    let escaped = c.is_control();
                    let plain = (!escaped).then_some(c);
                    escaped
                        .then(|| c.escape_default())
                        .into_iter()
                        .flatten()
                        .chain(plain)
                })
                .collect()
        })
        .collect();
    format!(" ({}{more})", shown.join(", "))
}
