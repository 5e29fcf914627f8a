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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_end_the_one_change_and_go_no_further() {
        let ids = |ids: &[&str]| Ledger::Ids(ids.iter().map(|id| (*id).to_owned()).collect());
        let governance = |ledger: &Ledger| Target::of(Track::GOVERNANCE, ledger).words;
        assert_eq!(governance(&Ledger::None), "1.5.6 to 1.5.8");
        assert_eq!(
            governance(&ids(&["add_budget_calendar_aligned_column"])),
            "1.5.6 to 1.5.8"
        );
        assert_eq!(
            governance(&ids(&["drop_allow_direct_keys_column_ddl"])),
            "1.5.1 to 1.5.2"
        );
        let providers = |version| {
            Target::of(
                Track::PROVIDERS,
                &Ledger::Number {
                    version,
                    dirty: false,
                },
            )
            .at
        };
        assert_eq!(
            [459, 502, 504, 505, 532].map(providers),
            [459, 505, 505, 505, 532]
        );
    }

    #[test]
    fn what_a_track_does_not_know_is_refused() {
        for (track, word) in [
            (Track::GOVERNANCE, "1.5.9"),
            (Track::GOVERNANCE, "1.4.99"),
            (Track::PROVIDERS, "533"),
            (Track::PROVIDERS, "2.35"),
            (Track::BILLING, "20260630120000"),
            (Track::BILLING, "abc"),
        ] {
            assert!(Target::parse(track, word).is_err(), "{track} {word}");
        }
        assert!(Target::parse(Track::GOVERNANCE, "v1.5.8").is_ok());
        assert!(Target::parse(Track::PROVIDERS, "2.34.1").is_ok_and(|target| target.at == 509));
    }
}
