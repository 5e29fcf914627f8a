//! Coder's versions (`docs/upstream/coder.md` A8, A10): the numbers of its migrations.

use crate::catalog::Catalog;
use crate::ledger::target::{Target, UnknownVersion, Versions};
use crate::ledger::{Ledger, Ledgers, SCHEMA_MIGRATIONS};
use crate::track::Track;

use super::coder;

pub(super) const VERSIONS: Versions = Versions {
    read,
    of,
    parse,
    since,
    words: |at| format!("Coder {}", coder::words(at)),
    said: |ledger| ledger.number().map(coder::words),
};

fn at(number: i64) -> Target {
    Target {
        at: number,
        words: coder::words(number),
    }
}

fn read(ledgers: &Ledgers, catalog: &Catalog) -> Ledger {
    let carried = Track::PROVIDERS.is_carried_by(catalog);
    match (ledgers.number, &ledgers.files) {
        (Some((version, _)), _) if !coder::is_plausible(version, carried) => {
            Ledger::Anothers(SCHEMA_MIGRATIONS)
        }
        (Some((version, dirty)), _) => Ledger::Number { version, dirty },
        // The other gateway that has a table of this name.
        (None, Some(_)) if ledgers.is_of_another_track(Track::PROVIDERS, catalog) => Ledger::None,
        (None, Some(_)) => Ledger::Anothers(SCHEMA_MIGRATIONS),
        (None, None) => Ledger::odd(catalog),
    }
}

fn of(ledger: &Ledger) -> Target {
    match ledger {
        Ledger::Number { version, .. } if (coder::BEFORE..coder::FINISHED).contains(version) => {
            at(coder::FINISHED)
        }
        Ledger::Number { version, .. } => at(*version),
        _ => at(coder::NEWEST),
    }
}

fn parse(word: &str) -> Result<Target, UnknownVersion> {
    coder::parse(word)
        .filter(|number| (coder::FIRST..=coder::NEWEST).contains(number))
        .map(at)
        .ok_or_else(|| UnknownVersion {
            known: format!(
                "Coder's migrations {} to {}, or the releases 2.32 to 2.34",
                coder::FIRST,
                coder::NEWEST
            ),
        })
}

fn since(slug: &str) -> i64 {
    match slug {
        "provider_key_expand" => coder::EXPANDED,
        "provider_key_backfill" => coder::COPIED,
        "provider_key_contract" => coder::FINISHED,
        "gateway_keys" => coder::GATEWAY_KEYS,
        _ => 0,
    }
}
