//! What is said where a hazard stops a command.

use super::hazard::Hazard;
use crate::error::Error;
use crate::report::{Finding, Severity};
use crate::tracks;

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

/// The hazard of that code, of any track.
pub(super) fn hazard_of(code: &str) -> Option<&'static Hazard> {
    tracks::all()
        .iter()
        .flat_map(|module| module.hazards)
        .find(|hazard| hazard.code == code)
}
