//! What a gateway's own record of its migrations forbids: one that failed half-way, one that says what is not there, another
//! product's, and versions that are too old or too new.

use tollgate_migration::{Context, Ledger, Track};

use super::finding;
use crate::module::Module;
use crate::report::{Finding, Severity};

/// The gateway is past every version that is known here: nothing of what is there can be held against what is known.
pub(crate) fn past(track: Track, live: &Context) -> Vec<Finding> {
    track
        .newer_than_supported(live)
        .into_iter()
        .map(|(table, sign)| {
            let mut known = crate::doctor::schema_finding("G016", table, sign);
            if let Some(version) = track.words(live.ledger(track)) {
                known.title = format!("{} ({} {version})", known.title, track.gateway());
            }
            known
        })
        .collect()
}

/// Every finding of the ledger's. They do not depend on what is planned.
pub(crate) fn examine(track: Track, live: &Context) -> Vec<Finding> {
    let ledger = live.ledger(track);
    let catalog = &live.catalog;
    let past = past(track, live);
    if !past.is_empty() {
        return past;
    }
    let table = track.ledger_table();
    let mut found = Vec::new();
    match ledger {
        Ledger::None => return found,
        Ledger::Anothers(table) => {
            let mut known = finding("E007", table, vec![(*table).to_owned()]);
            known.title = format!(
                "a table {table} is there, and it is not {}'s",
                track.gateway()
            );
            found.push(known);
            return found;
        }
        _ => {}
    }
    let version = track.words(ledger).unwrap_or_default();
    if !track.is_carried_by(catalog) {
        let mut known = finding("E007", table, vec![version.clone()]);
        known.title = format!(
            "{} has migrated this database ({version}), and none of the track's tables is there",
            track.gateway()
        );
        found.push(known);
    }
    if ledger.is_dirty() {
        let mut known = finding("E006", table, vec![format!("{version}, dirty")]);
        known.title = format!("a migration of {}'s own failed half-way", track.gateway());
        known.effect = "nobody knows how much of it is there".to_owned();
        known.resolve = format!("repair it with {}'s own means first", track.gateway());
        found.push(known);
    }
    let missing: Vec<String> = (Module::of(track).relied_upon)(live)
        .into_iter()
        .filter(|(id, is_there, _)| ledger.has(id) && !is_there)
        .map(|(id, _, what)| format!("{id}: no {what}"))
        .collect();
    if !missing.is_empty() && track.is_carried_by(catalog) {
        found.push(finding("E006", table, missing));
    }
    found.extend((Module::of(track).versions)(live));
    found.extend(made_early(track, live));
    found
}

/// Those that forbid writing.
pub(crate) fn blocking(track: Track, live: &Context) -> Vec<Finding> {
    let mut found = examine(track, live);
    found.retain(|finding| finding.severity == Severity::Blocking);
    found
}

/// Those after which nothing else can be asked: what the gateway believes and what is there are two things, or it is a version
/// that nobody here knows.
pub(crate) fn contradictions(track: Track, live: &Context) -> Vec<Finding> {
    let mut found = blocking(track, live);
    let of_track = Module::of(track).troubles;
    found.retain(|finding| {
        let code = finding.code.as_str();
        ["E006", "E007", "G016"].contains(&code)
            || of_track
                .iter()
                .any(|known| known.contradicts && known.trouble.code == code)
    });
    found
}

/// Those that forbid writing rows, too: some versions forbid the track's migrations alone.
pub(crate) fn forbidding_rows(track: Track, live: &Context) -> Vec<Finding> {
    let mut found = blocking(track, live);
    let of_track = Module::of(track).troubles;
    found.retain(|finding| {
        !of_track
            .iter()
            .any(|known| known.spares_rows && known.trouble.code == finding.code)
    });
    found
}

/// What an earlier Tollgate made that is the gateway's own to make, and whose migration it has still before it.
pub(crate) fn early(track: Track, live: &Context) -> Vec<String> {
    let ledger = live.ledger(track);
    if !ledger.owns() {
        return Vec::new();
    }
    let made = |object: &str| {
        live.history.values().any(|created| {
            created
                .tables
                .iter()
                .chain(&created.enums)
                .any(|made| made == object)
        })
    };
    Module::of(track)
        .of_gateway
        .iter()
        .filter(|(object, id)| {
            let is_there =
                live.catalog.has_table(object) || live.catalog.enums.contains_key(*object);
            is_there && !ledger.has(id) && made(object)
        })
        .map(|(object, _)| (*object).to_owned())
        .collect()
}

fn made_early(track: Track, live: &Context) -> Vec<Finding> {
    early(track, live)
        .into_iter()
        .map(|object| finding("E008", &object, vec![object.clone()]))
        .collect()
}
