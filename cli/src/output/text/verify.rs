//! Snapshots, verifications and rehearsals as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use tollgate_service::report::result::{
    BootResult, BootedCopy, Compared, RehearseResult, SnapshotResult, VerifyResult,
};
use tollgate_service::{Blocks, Report};

fn sums(sums: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = sums
        .iter()
        .map(|(column, sum)| format!("{column} {sum}"))
        .collect();
    words.join(", ")
}

pub(super) fn snapshot(out: &mut String, result: &SnapshotResult) {
    for table in &result.tables {
        let _ = writeln!(
            out,
            "  {:<46} {:>10} rows  {}",
            table.table,
            table.rows,
            sums(&table.sums)
        );
    }
    let file = &result.file;
    let _ = writeln!(
        out,
        "{file}: {} kB; `tollgate verify --snapshot {file}` after the migration",
        result.bytes / 1000
    );
}

fn compared(out: &mut String, parts: &[Compared]) {
    for part in parts {
        let rows = match part.rows_before {
            Some(before) if before == part.rows => format!("{before:>10} rows"),
            Some(before) => format!("{:>10} rows, {before} before", part.rows),
            None => format!("{:>10} rows, none before", part.rows),
        };
        let _ = writeln!(out, "  {:<46} {rows}  {}", part.name, sums(&part.sums));
    }
}

pub(super) fn verified(out: &mut String, report: &Report, result: &VerifyResult, failed: bool) {
    for track in &report.tracks {
        let at = track.to.as_deref().unwrap_or("nothing applied");
        let _ = writeln!(out, "{}: {at}", track.track);
    }
    compared(out, &result.compared);
    if failed {
        return;
    }
    let said = match &result.taken_at {
        Some(at) => format!("every invariant holds, and everything of {at} is there"),
        None => "every invariant holds; nothing was compared, for want of --snapshot".to_owned(),
    };
    let _ = writeln!(out, "{said}");
}

/// The two copies of `rehearse --gateway`.
pub(super) fn beside_the_gateway(out: &mut String, result: &BootResult) {
    let gateway = format!("{} {}", result.gateway, result.version);
    for (ended, words) in [
        (&result.without_prepare, "without `migrate prepare`"),
        (&result.with_prepare, "with `migrate prepare`"),
    ] {
        let _ = writeln!(out, "{words}: {}", came_of(&gateway, ended));
    }
    let _ = writeln!(out, "the source was only read");
}

fn came_of(gateway: &str, ended: &BootedCopy) -> String {
    if let Some(why) = &ended.stopped {
        return format!("the boot of {gateway} stops: {why}");
    }
    if ended.lost.is_empty() {
        return format!("{gateway} loses nothing");
    }
    let lost: Vec<String> = ended
        .lost
        .iter()
        .map(|lost| format!("{} {} of {}", lost.code, lost.title, lost.table))
        .collect();
    format!("{gateway} loses something: {}", lost.join("; "))
}

pub(super) fn rehearsed(out: &mut String, result: &RehearseResult, failed: bool) {
    compared(out, &result.compared);
    let _ = writeln!(
        out,
        "copy {} ms, snapshot {} ms, up {} ms, verify {} ms",
        result.copy.ms, result.snapshot_ms, result.up_ms, result.verify_ms
    );
    if let Some(longest) = &result.longest_lock {
        let who = match longest.blocks {
            Blocks::Everyone => "readers and writers of its tables",
            Blocks::Writers => "writers of its tables",
            Blocks::Rows | Blocks::Nothing => "writers of a batch's rows",
        };
        let _ = writeln!(
            out,
            "longest lock: {} ms, {who} wait ({})",
            longest.ms, longest.version
        );
    }
    for what in &result.copy.left_out {
        let _ = writeln!(out, "  not copied: {what}");
    }
    if !failed {
        let _ = writeln!(out, "nothing would be lost; the source was only read");
    }
}
