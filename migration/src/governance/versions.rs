//! Bifrost's versions (`docs/upstream/bifrost.md` §8, §9.1): each step runs for those that have its work.

use crate::catalog::Catalog;
use crate::ledger::target::{Target, UnknownVersion, Versions};
use crate::ledger::{Ledger, Ledgers, MIGRATIONS};

use super::bifrost;

pub(super) const VERSIONS: Versions = Versions {
    read,
    of,
    parse,
    since,
    words: |at| format!("Bifrost {}", at_stage(at).words),
    said: |ledger| match ledger {
        Ledger::Ids(ids) => Some(bifrost::words(ids)),
        _ => None,
    },
};

/// The last of the versions on which virtual keys own budgets: as far as Tollgate goes by itself.
const NEWEST: &str = "1.5.8";
/// The last of the versions that are known. What comes behind [`NEWEST`] is the gateway's own work.
const KNOWN: &str = "2.0.0-prerelease3";

fn stage(release: &str) -> i64 {
    bifrost::parse(release).map_or(i64::MAX, |stage| i64::try_from(stage).unwrap_or(i64::MAX))
}

fn at_stage(at: i64) -> Target {
    let words = usize::try_from(at)
        .ok()
        .and_then(|at| bifrost::STAGES.get(at))
        .map(bifrost::Stage::words)
        .unwrap_or_default();
    Target { at, words }
}

fn read(ledgers: &Ledgers, catalog: &Catalog) -> Ledger {
    match &ledgers.ids {
        None if catalog.has_table(MIGRATIONS) => Ledger::Anothers(MIGRATIONS),
        None => Ledger::None,
        Some(ids) if ids.is_empty() => Ledger::None,
        Some(ids) if ids.iter().any(|id| bifrost::is_known(id)) => Ledger::Ids(ids.clone()),
        Some(_) => Ledger::Anothers(MIGRATIONS),
    }
}

fn of(ledger: &Ledger) -> Target {
    let Ledger::Ids(ids) = ledger else {
        return at_stage(stage(NEWEST));
    };
    let shown = bifrost::stage_of(ids).map_or(0, |stage| i64::try_from(stage).unwrap_or(0));
    at_stage(if shown < stage("1.5.0-prerelease2") {
        stage(NEWEST)
    } else {
        shown
    })
}

fn parse(word: &str) -> Result<Target, UnknownVersion> {
    bifrost::parse(word)
        .map(|stage| i64::try_from(stage).unwrap_or(i64::MAX))
        .filter(|&at| at <= stage(KNOWN))
        .map(|at| Target {
            at,
            words: word.strip_prefix('v').unwrap_or(word).to_owned(),
        })
        .ok_or_else(|| UnknownVersion {
            known: format!("Bifrost 1.4.0 to {KNOWN}, prereleases included"),
        })
}

fn since(slug: &str) -> i64 {
    match slug {
        "multi_budget_expand"
        | "multi_budget_backfill"
        | "multi_budget_constraints"
        | "multi_budget_contract" => stage("1.5.0-prerelease2"),
        "mcp_credentials" | "canonical_header_keys" => stage("1.5.6"),
        _ => 0,
    }
}
