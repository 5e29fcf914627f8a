//! Snapshots, verifications and rehearsals as text.

use std::fmt::Write;

use serde_json::Value;
use tollgate_service::Report;

fn result<'a>(report: &'a Report, key: &str) -> &'a Value {
    report
        .result
        .as_ref()
        .map_or(&Value::Null, |result| &result[key])
}

fn sums(sums: &Value) -> String {
    let words: Vec<String> = sums
        .as_object()
        .into_iter()
        .flatten()
        .map(|(column, sum)| format!("{column} {}", sum.as_str().unwrap_or_default()))
        .collect();
    words.join(", ")
}

pub(super) fn snapshot(out: &mut String, report: &Report) {
    for table in result(report, "tables").as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "  {:<46} {:>10} rows  {}",
            table["table"].as_str().unwrap_or_default(),
            table["rows"],
            sums(&table["sums"])
        );
    }
    if let Some(file) = result(report, "file").as_str() {
        let _ = writeln!(
            out,
            "{file}: {} kB; `tollgate verify --snapshot {file}` after the migration",
            result(report, "bytes").as_u64().unwrap_or_default() / 1000
        );
    }
}

fn compared(out: &mut String, report: &Report) {
    for part in result(report, "compared").as_array().into_iter().flatten() {
        let rows = if part["rows_before"] == part["rows"] {
            format!("{:>10} rows", part["rows"].to_string())
        } else {
            format!(
                "{:>10} rows, {} before",
                part["rows"].to_string(),
                part["rows_before"]
            )
        };
        let _ = writeln!(
            out,
            "  {:<46} {rows}  {}",
            part["name"].as_str().unwrap_or_default(),
            sums(&part["sums"])
        );
    }
}

pub(super) fn verified(out: &mut String, report: &Report, failed: bool) {
    for track in &report.tracks {
        let at = track.to.as_deref().unwrap_or("nothing applied");
        let _ = writeln!(out, "{}: {at}", track.track);
    }
    compared(out, report);
    if failed {
        return;
    }
    let said = match result(report, "taken_at").as_str() {
        Some(at) => format!("every invariant holds, and everything of {at} is there"),
        None => "every invariant holds; nothing was compared, for want of --snapshot".to_owned(),
    };
    let _ = writeln!(out, "{said}");
}

/// The two copies of `rehearse --gateway`.
fn beside_the_gateway(out: &mut String, report: &Report) {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let gateway = format!(
        "{} {}",
        text(result(report, "gateway")),
        text(result(report, "for"))
    );
    for (key, words) in [
        ("without_prepare", "without `migrate prepare`"),
        ("with_prepare", "with `migrate prepare`"),
    ] {
        let ended = result(report, key);
        let lost = ended["lost"].as_array().map_or(0, Vec::len);
        let came = match ended["stopped"].as_str() {
            Some(why) => format!("the boot of {gateway} stops: {why}"),
            None if lost == 0 => format!("{gateway} loses nothing"),
            None => format!(
                "{gateway} loses something: {}",
                ended["lost"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|lost| format!(
                        "{} {} of {}",
                        text(&lost["code"]),
                        text(&lost["title"]),
                        text(&lost["table"])
                    ))
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
        };
        let _ = writeln!(out, "{words}: {came}");
    }
    let _ = writeln!(out, "the source was only read");
}

pub(super) fn rehearsed(out: &mut String, report: &Report, failed: bool) {
    if report.result.is_none() {
        return;
    }
    if report
        .result
        .as_ref()
        .is_some_and(|result| !result["with_prepare"].is_null())
    {
        beside_the_gateway(out, report);
        return;
    }
    compared(out, report);
    let millis = |key: &str| result(report, key).as_u64().unwrap_or_default();
    let _ = writeln!(
        out,
        "copy {} ms, snapshot {} ms, up {} ms, verify {} ms",
        result(report, "copy")["ms"],
        millis("snapshot_ms"),
        millis("up_ms"),
        millis("verify_ms")
    );
    let longest = result(report, "longest_lock");
    if let Some(version) = longest["version"].as_str() {
        let who = match longest["blocks"].as_str() {
            Some("everyone") => "readers and writers of its tables",
            Some("writers") => "writers of its tables",
            _ => "writers of a batch's rows",
        };
        let _ = writeln!(
            out,
            "longest lock: {} ms, {who} wait ({version})",
            longest["ms"]
        );
    }
    let left_out = &result(report, "copy")["left_out"];
    for what in left_out.as_array().into_iter().flatten() {
        let _ = writeln!(out, "  not copied: {}", what.as_str().unwrap_or_default());
    }
    if !failed {
        let _ = writeln!(out, "nothing would be lost; the source was only read");
    }
}
