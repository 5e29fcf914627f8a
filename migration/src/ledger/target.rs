//! Which steps a gateway version can live with: each step stands for something of the gateway's, and runs for a target at or
//! past it.

use crate::track::Track;

use super::{Ledger, bifrost, coder, molecule};

/// A gateway version, as one number that counts up, and in the gateway's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bifrost: the stage; Coder: the migration; Molecule: the file's number.
    pub at: i64,
    /// As the gateway calls it.
    pub words: String,
}

/// The last of Bifrost's versions on which virtual keys own budgets.
const BIFROST: &str = "1.5.8";
/// The file of Molecule's column has no certain name; it sorts after 043 and before the one that drops it.
const COLUMN: i64 = 44;

/// A word that is no version which this track knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVersion {
    /// What is known, as one line.
    pub known: String,
}

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

fn file(name: &str) -> i64 {
    molecule::number(name).parse().unwrap_or_default()
}

impl Target {
    /// From what the gateway has recorded: the version it shows, or the end of the one change that is done in its stead where
    /// it lacks that.
    pub fn of(track: Track, ledger: &Ledger) -> Self {
        match (track, ledger) {
            (Track::Governance, Ledger::Ids(ids)) => {
                let shown =
                    bifrost::stage_of(ids).map_or(0, |stage| i64::try_from(stage).unwrap_or(0));
                at_stage(if shown < stage("1.5.0-prerelease2") {
                    stage(BIFROST)
                } else {
                    shown
                })
            }
            (Track::Governance, _) => at_stage(stage(BIFROST)),
            (Track::Providers, Ledger::Number { version, .. }) => {
                let at = if (coder::BEFORE..coder::FINISHED).contains(version) {
                    coder::FINISHED
                } else {
                    *version
                };
                Self {
                    at,
                    words: coder::words(at),
                }
            }
            (Track::Providers, _) => Self {
                at: coder::NEWEST,
                words: coder::words(coder::NEWEST),
            },
            (Track::Billing, Ledger::Files(files)) => Self {
                at: files
                    .iter()
                    .map(|name| file(name))
                    .max()
                    .unwrap_or_default()
                    .max(COLUMN),
                words: "llm_billing_mode".to_owned(),
            },
            (Track::Billing, _) => Self {
                at: COLUMN,
                words: "043 and llm_billing_mode".to_owned(),
            },
        }
    }

    /// A version that somebody named.
    ///
    /// # Errors
    /// [`UnknownVersion`] with what is known.
    pub fn parse(track: Track, word: &str) -> Result<Self, UnknownVersion> {
        let word = word.trim();
        match track {
            Track::Governance => bifrost::parse(word)
                .map(|stage| i64::try_from(stage).unwrap_or(i64::MAX))
                .filter(|&at| at <= stage(BIFROST))
                .map(|at| Self {
                    at,
                    words: word.strip_prefix('v').unwrap_or(word).to_owned(),
                })
                .ok_or_else(|| UnknownVersion {
                    known: format!("Bifrost 1.4.0 to {BIFROST}, prereleases included"),
                }),
            Track::Providers => coder::parse(word)
                .filter(|number| (coder::FIRST..=coder::NEWEST).contains(number))
                .map(|at| Self {
                    at,
                    words: coder::words(at),
                })
                .ok_or_else(|| UnknownVersion {
                    known: format!(
                        "Coder's migrations {} to {}, or the releases 2.32 to 2.34",
                        coder::FIRST,
                        coder::NEWEST
                    ),
                }),
            Track::Billing => molecule::number(word)
                .parse::<i64>()
                .ok()
                .filter(|&at| at >= 1 && at < file(molecule::DROPPED))
                .map(|at| Self {
                    at,
                    words: word.to_owned(),
                })
                .ok_or_else(|| UnknownVersion {
                    known: format!(
                        "Molecule's files 001 to 043, or a number before {}, which drops the column",
                        molecule::DROPPED
                    ),
                }),
        }
    }

    /// Whether a step runs for this version.
    pub fn reaches(&self, track: Track, slug: &str) -> bool {
        since(track, slug) <= self.at
    }
}

/// From which version on a step's work is there on a gateway's own database.
fn since(track: Track, slug: &str) -> i64 {
    match (track, slug) {
        (
            Track::Governance,
            "multi_budget_expand"
            | "multi_budget_backfill"
            | "multi_budget_constraints"
            | "multi_budget_contract",
        ) => stage("1.5.0-prerelease2"),
        (Track::Governance, "mcp_credentials" | "canonical_header_keys") => stage("1.5.6"),
        (Track::Providers, "provider_key_expand") => coder::EXPANDED,
        (Track::Providers, "provider_key_backfill") => coder::COPIED,
        (Track::Providers, "provider_key_contract") => coder::FINISHED,
        (Track::Providers, "gateway_keys") => coder::GATEWAY_KEYS,
        (Track::Billing, "llm_billing_mode") => COLUMN,
        _ => 0,
    }
}

/// The version that a step waits for.
pub fn waits_for(track: Track, slug: &str) -> String {
    let at = since(track, slug);
    match track {
        Track::Governance => format!("Bifrost {}", at_stage(at).words),
        Track::Providers => format!("Coder {}", coder::words(at)),
        Track::Billing => "Molecule's own column".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_end_the_one_change_and_go_no_further() {
        let ids = |ids: &[&str]| Ledger::Ids(ids.iter().map(|id| (*id).to_owned()).collect());
        let governance = |ledger: &Ledger| Target::of(Track::Governance, ledger).words;
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
                Track::Providers,
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
            (Track::Governance, "1.5.9"),
            (Track::Governance, "1.4.99"),
            (Track::Providers, "533"),
            (Track::Providers, "2.35"),
            (Track::Billing, "20260630120000"),
            (Track::Billing, "abc"),
        ] {
            assert!(Target::parse(track, word).is_err(), "{track} {word}");
        }
        assert!(Target::parse(Track::Governance, "v1.5.8").is_ok());
        assert!(Target::parse(Track::Providers, "2.34.1").is_ok_and(|target| target.at == 509));
    }
}
