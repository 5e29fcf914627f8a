//! What a track's gateway has recorded, and which of its versions each step waits for.

use crate::catalog::Catalog;
use crate::ledger::target::UnknownVersion;
use crate::ledger::{Ledger, Ledgers, Target};
use crate::track::Track;

impl Ledgers {
    /// The ledger of a track's gateway.
    pub fn of(&self, track: Track, catalog: &Catalog) -> Ledger {
        (track.versions().read)(self, catalog)
    }

    /// Whether the database carries another track whose gateway keeps a table of the same name.
    pub fn is_of_another_track(&self, track: Track, catalog: &Catalog) -> bool {
        Track::all().iter().any(|other| {
            *other != track
                && other.ledger_table() == track.ledger_table()
                && other.is_carried_by(catalog)
        })
    }
}

impl Target {
    /// From what the gateway has recorded.
    pub fn of(track: Track, ledger: &Ledger) -> Self {
        (track.versions().of)(ledger)
    }

    /// A version that somebody named.
    ///
    /// # Errors
    /// [`UnknownVersion`] with what is known.
    pub fn parse(track: Track, word: &str) -> Result<Self, UnknownVersion> {
        (track.versions().parse)(word.trim())
    }

    /// Whether a step runs for this version.
    pub fn reaches(&self, track: Track, slug: &str) -> bool {
        (track.versions().since)(slug) <= self.at
    }
}

/// The version that a step waits for.
pub fn waits_for(track: Track, slug: &str) -> String {
    let versions = track.versions();
    (versions.words)((versions.since)(slug))
}
