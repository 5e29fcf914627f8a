//! The entries of a gateway's ledger, as a snapshot keeps them.

use tollgate_migration::Ledger;

/// The entries of a ledger, as a snapshot keeps them.
pub(crate) fn entries(ledger: &Ledger) -> Option<Vec<String>> {
    match ledger {
        Ledger::Ids(entries) | Ledger::Files(entries) => Some(entries.clone()),
        Ledger::Number { version, .. } => Some(vec![version.to_string()]),
        Ledger::None | Ledger::Anothers(_) => None,
    }
}
