//! Molecule's versions (`docs/upstream/molecule.md` B6): the numbers of its files.

use crate::catalog::Catalog;
use crate::ledger::target::{Target, UnknownVersion, Versions};
use crate::ledger::{Ledger, Ledgers, SCHEMA_MIGRATIONS};
use crate::track::Track;

use super::molecule;

pub(super) const VERSIONS: Versions = Versions {
    read,
    of,
    parse,
    since: |slug| {
        if slug == "llm_billing_mode" {
            COLUMN
        } else {
            0
        }
    },
    words: |_| "Molecule's own column".to_owned(),
    said: |ledger| match ledger {
        Ledger::Files(files) => molecule::version(files).map(molecule::words),
        _ => None,
    },
};

/// The file of Molecule's column has no certain name; it sorts after 043 and before the one that drops it.
const COLUMN: i64 = 44;

fn file(name: &str) -> i64 {
    molecule::number(name).parse().unwrap_or_default()
}

fn read(ledgers: &Ledgers, catalog: &Catalog) -> Ledger {
    match (&ledgers.files, ledgers.number) {
        (Some(files), _) if files.is_empty() => Ledger::None,
        (Some(files), _) if files.iter().any(|name| molecule::is_known(name)) => {
            Ledger::Files(files.clone())
        }
        (Some(_), _) => Ledger::Anothers(SCHEMA_MIGRATIONS),
        (None, Some(_)) if ledgers.is_of_another_track(Track::BILLING, catalog) => Ledger::None,
        (None, Some(_)) => Ledger::Anothers(SCHEMA_MIGRATIONS),
        (None, None) => Ledger::odd(catalog),
    }
}

fn of(ledger: &Ledger) -> Target {
    match ledger {
        Ledger::Files(files) => Target {
            at: files
                .iter()
                .map(|name| file(name))
                .max()
                .unwrap_or_default()
                .max(COLUMN),
            words: "llm_billing_mode".to_owned(),
        },
        _ => Target {
            at: COLUMN,
            words: "043 and llm_billing_mode".to_owned(),
        },
    }
}

fn parse(word: &str) -> Result<Target, UnknownVersion> {
    molecule::number(word)
        .parse::<i64>()
        .ok()
        .filter(|&at| at >= 1 && at < file(molecule::DROPPED))
        .map(|at| Target {
            at,
            words: word.to_owned(),
        })
        .ok_or_else(|| UnknownVersion {
            known: format!(
                "Molecule's files 001 to 043, or a number before {}, which drops the column",
                molecule::DROPPED
            ),
        })
}
