//! Which steps a gateway version can live with: each step stands for something of the gateway's, and runs for a target at or
//! past it.

use crate::track::Track;

use super::{Ledger, Ledgers};
use crate::catalog::Catalog;

/// A gateway version, as one number that counts up, and in the gateway's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What counts the gateway's versions: a stage, the number of a migration or of a file.
    pub at: i64,
    /// As the gateway calls it.
    pub words: String,
}

/// A word that is no version which this track knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVersion {
    /// What is known, as one line.
    pub known: String,
}

/// The versions of a track's gateway.
#[derive(Debug)]
pub struct Versions {
    /// What the gateway has recorded, out of all that was found.
    pub read: fn(&Ledgers, &Catalog) -> Ledger,
    /// The version that a ledger shows, or the end of the one change that is done in the gateway's stead where it lacks that.
    pub of: fn(&Ledger) -> Target,
    /// A version that somebody named.
    pub parse: fn(&str) -> Result<Target, UnknownVersion>,
    /// From which version on the work of the step of that slug is there on a gateway's own database.
    pub since: fn(&str) -> i64,
    /// A version in the gateway's own words.
    pub words: fn(i64) -> String,
    /// What a ledger says, in the gateway's own words; `None` where it is not this gateway's.
    pub said: fn(&Ledger) -> Option<String>,
}

impl Versions {
    /// Of a track whose tables are nobody's but the program's that embeds it: no ledger, and every step runs.
    pub const NONE: Self = Self {
        read: |_, _| Ledger::None,
        of: |_| Target {
            at: i64::MAX,
            words: String::new(),
        },
        parse: |_| {
            Err(UnknownVersion {
                known: "none: this track follows no gateway".to_owned(),
            })
        },
        since: |_| 0,
        words: |_| String::new(),
        said: |_| None,
    };
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
