//! Reports as text.

mod proof;

use std::fmt::Write;

use tollgate_service::{Finding, Report, Severity, TrackReport};

use super::View;

/// The whole answer.
pub(super) fn render(report: &Report, view: &View, failed: bool) -> String {
    let mut out = String::new();
    if matches!(view, View::Status | View::Plan { .. } | View::Moved) {
        place(&mut out, report);
    }
    gateways(&mut out, report);
    match view {
        View::Plain(text) => return text.clone(),
        View::Raw(_) => return String::new(),
        View::Status => {
            for track in &report.tracks {
                status(&mut out, track);
                drifted(&mut out, report, track, "drift");
            }
        }
        View::Plan { sql } => {
            plan(&mut out, report, *sql);
        }
        View::Moved => {
            for track in &report.tracks {
                moved(&mut out, track, failed);
            }
        }
        View::Adopted => adopted(&mut out, report),
        View::Settled => settled(&mut out, report),
        View::Prepared => prepared(&mut out, report),
        View::HandedOver => handed_over(&mut out, report),
        View::Examined => {
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
        View::Diff => {
            for track in &report.tracks {
                heading(&mut out, track);
                if !drifted(&mut out, report, track, "differences") {
                    line(&mut out, "  no differences");
                }
            }
        }
        View::Snapshot => proof::snapshot(&mut out, report),
        View::Verified => proof::verified(&mut out, report, failed),
        View::Rehearsed => {
            for track in &report.tracks {
                moved(&mut out, track, failed);
            }
            proof::rehearsed(&mut out, report, failed);
        }
        View::History => history(&mut out, report),
        View::Seeded | View::Repaired => {}
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
    if !failed && out.is_empty() && matches!(view, View::Moved | View::Repaired) {
        line(&mut out, "nothing to do");
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Which database, and which schema of it.
fn place(out: &mut String, report: &Report) {
    let Some(result) = &report.result else { return };
    let Some(address) = result["address"].as_str() else {
        return;
    };
    let database = result["database"].as_str().unwrap_or_default();
    match result["schema"].as_str() {
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

/// The entries of a list in the result.
fn listed<'a>(report: &'a Report, key: &str) -> impl Iterator<Item = &'a serde_json::Value> {
    report
        .result
        .as_ref()
        .and_then(|result| result[key].as_array())
        .into_iter()
        .flatten()
}

/// What each gateway has recorded of its own migrations.
pub(crate) fn gateways(out: &mut String, report: &Report) {
    for found in listed(report, "gateways") {
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "{}: {} {}, says its ledger {}",
            text("track"),
            text("gateway"),
            text("version"),
            text("ledger"),
        );
    }
}

/// Steps that are past the gateway that boots next.
fn waiting(out: &mut String, report: &Report) {
    for step in listed(report, "waiting") {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "  waits for {}: {}",
            text("waits_for"),
            text("version"),
        );
    }
}

fn heading(out: &mut String, track: &TrackReport) {
    let at = track.to.as_deref().unwrap_or("nothing applied");
    let _ = writeln!(out, "{}: {at}", track.track);
}

fn prepared(out: &mut String, report: &Report) {
    let states = report
        .result
        .as_ref()
        .and_then(|result| result["state"].as_object());
    for (track, state) in states.into_iter().flatten() {
        let _ = writeln!(out, "{track}: {}", state.as_str().unwrap_or_default());
    }
}

fn handed_over(out: &mut String, report: &Report) {
    let Some(result) = &report.result else { return };
    match (result["from"].as_i64(), result["to"].as_i64()) {
        (Some(from), Some(to)) if result["moved"] == true => {
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

fn settled(out: &mut String, report: &Report) {
    let Some(result) = &report.result else { return };
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    for (key, what) in [
        ("against_applied", "differs from what the step makes"),
        ("against_pending", "differs from what the step before makes"),
    ] {
        let lines = result[key]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let _ = writeln!(out, "the schema {what} in {} places", lines.len());
        for difference in lines.iter().filter_map(|line| line.as_str()) {
            let _ = writeln!(out, "  {difference}");
        }
    }
    let _ = writeln!(
        out,
        "{}: {} -> {}",
        text("version"),
        text("was"),
        text("is")
    );
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

fn history(out: &mut String, report: &Report) {
    let runs = report
        .result
        .as_ref()
        .and_then(|result| result["runs"].as_array());
    for run in runs.into_iter().flatten() {
        let text = |key: &str| run[key].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "{:>5}  {:.19}  {:<8} {:<22} {} on {}",
            run["id"],
            text("started_at"),
            text("outcome"),
            text("kind"),
            text("tool_version"),
            text("host")
        );
        if !run["report"].is_null() {
            let shown = serde_json::to_string_pretty(&run["report"]).unwrap_or_default();
            line(out, &shown);
        }
    }
    if runs.is_none_or(Vec::is_empty) {
        line(out, "no run of Tollgate's has changed this database");
    }
}

/// The differences of a track; whether there were any.
fn drifted(out: &mut String, report: &Report, track: &TrackReport, key: &str) -> bool {
    let differences = report
        .result
        .as_ref()
        .and_then(|result| result[key].as_array());
    let mut any = false;
    for difference in differences
        .into_iter()
        .flatten()
        .filter(|difference| difference["track"] == track.track.name())
    {
        any = true;
        let word = if difference["tolerated"] == true {
            "tolerated"
        } else {
            "drift"
        };
        let _ = writeln!(
            out,
            "  {word:<9} {}",
            difference["line"].as_str().unwrap_or_default()
        );
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

fn adopted(out: &mut String, report: &Report) {
    let dry = report
        .result
        .as_ref()
        .and_then(|result| result["dry_run"].as_bool())
        .unwrap_or_default();
    let recognised = report
        .result
        .as_ref()
        .and_then(|result| result["recognised"].as_array());
    for track in &report.tracks {
        let name = track.track.name();
        let shape = recognised
            .into_iter()
            .flatten()
            .find(|found| found["track"] == name)
            .and_then(|found| found["shape"].as_str());
        match shape {
            Some(shape) => {
                let verb = if dry { "would adopt" } else { "adopted" };
                let _ = writeln!(out, "{name}: {verb} as {shape}");
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

fn plan(out: &mut String, report: &Report, sql: bool) {
    let migrations = report
        .result
        .as_ref()
        .and_then(|result| result["migrations"].as_array());
    for track in &report.tracks {
        heading(out, track);
        if track.pending.is_empty() {
            line(out, "  nothing pending");
        }
        for migration in migrations.into_iter().flatten() {
            if migration["track"] != track.track.name() {
                continue;
            }
            let word = |key: &str| migration[key].as_str().unwrap_or_default();
            let _ = writeln!(out, "  {:<9} {}", word("phase"), word("version"));
            let _ = writeln!(
                out,
                "            {}\n            about {} rows; {}",
                word("summary"),
                migration["rows"],
                blocking(word("blocks"), migration["blocks_for_ms"].as_u64())
            );
            let steps = migration["steps"].as_array();
            for step in steps.into_iter().flatten() {
                let text = |key: &str| step[key].as_str().unwrap_or_default();
                if sql {
                    let note = if step["batched"] == true {
                        "in batches, {range} is each batch's".to_owned()
                    } else {
                        step["transaction"].as_u64().map_or_else(
                            || "outside a transaction".to_owned(),
                            |number| format!("transaction {number}"),
                        )
                    };
                    let _ = writeln!(out, "    -- {} ({note})", text("purpose"));
                    let _ = writeln!(out, "    {};", text("sql"));
                } else if step["detail"] != true {
                    let _ = writeln!(out, "            - {}", text("purpose"));
                }
            }
        }
    }
}

/// What a running gateway will notice.
fn blocking(who: &str, millis: Option<u64>) -> String {
    let about = match millis.unwrap_or_default() {
        millis @ 0..1000 => format!("about {millis} ms"),
        millis => format!(
            "about {:.1} s",
            std::time::Duration::from_millis(millis).as_secs_f64()
        ),
    };
    match who {
        "rows" => format!("writers of a batch's rows wait, {about} at a time"),
        "writers" => format!("writers of the table wait, {about}"),
        "everyone" => format!("readers and writers of the table wait, {about}"),
        _ => "nobody waits".to_owned(),
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
