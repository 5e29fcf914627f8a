//! A broken invariant as a finding.

use super::invariant::{INVARIANTS, Invariant};
use crate::report::{Finding, Severity};
use crate::tracks;

/// A broken invariant.
pub(crate) fn finding(
    code: &str,
    table: &str,
    column: Option<&str>,
    rows: u64,
    sample_ids: Vec<String>,
) -> Finding {
    let of_tracks = tracks::all().iter().flat_map(|module| module.codes);
    let invariant = INVARIANTS
        .iter()
        .chain(of_tracks)
        .find(|invariant| invariant.code == code);
    let text =
        |pick: fn(&Invariant) -> &'static str| invariant.map(pick).unwrap_or_default().to_owned();
    Finding {
        code: code.to_owned(),
        severity: Severity::Blocking,
        title: text(|invariant| invariant.title),
        table: table.to_owned(),
        column: column.map(str::to_owned),
        rows,
        sample_ids,
        effect: text(|invariant| invariant.effect),
        resolve: text(|invariant| invariant.resolve),
    }
}
