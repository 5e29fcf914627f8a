//! Which tracks this process knows: Tollgate's own, unless a program has named others before its first command.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::choice::Choice;
use crate::dialect::Dialect;
use crate::golden::tables;
use crate::schema::{self, Schema};
use crate::track::Track;

/// Tollgate's own tracks, in the order of their output.
pub const BUILT_IN: [Track; 3] = [Track::GOVERNANCE, Track::PROVIDERS, Track::BILLING];

static INSTALLED: OnceLock<Vec<Track>> = OnceLock::new();

/// Why tracks cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    /// There is nothing to do without one.
    #[error("a program needs a track")]
    Empty,
    /// A track is known by its name: on the command line, in reports and in the name of its history.
    #[error("two tracks are called {0}")]
    Twice(&'static str),
    /// A name becomes a part of a table's.
    #[error(
        "{0:?} is no name of a track: lower-case letters, digits and underscores, a letter first"
    )]
    Unnamed(&'static str),
    /// The flags of all tracks stand on one command line.
    #[error("two tracks offer the choice --{0}")]
    ChoiceTwice(&'static str),
    /// Something has been decided by the tracks that were there.
    #[error("the tracks of this process are settled")]
    Settled,
}

/// Names the tracks of this process, once, before anything asks for them.
///
/// # Errors
/// [`NotInstalled`] where they cannot be told apart, or came too late.
pub fn install(tracks: Vec<Track>) -> Result<(), NotInstalled> {
    if tracks.is_empty() {
        return Err(NotInstalled::Empty);
    }
    let mut names = BTreeSet::new();
    let mut flags = BTreeSet::new();
    for track in &tracks {
        let name = track.name();
        let well_formed = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            });
        if !well_formed {
            return Err(NotInstalled::Unnamed(name));
        }
        if !names.insert(name) {
            return Err(NotInstalled::Twice(name));
        }
        for choice in track.choices() {
            if !flags.insert(choice.flag) {
                return Err(NotInstalled::ChoiceTwice(choice.flag));
            }
        }
    }
    INSTALLED.set(tracks).map_err(|_| NotInstalled::Settled)
}

impl Track {
    /// Every track that this process knows, in the order of their output. Asking settles them.
    pub fn all() -> &'static [Self] {
        INSTALLED.get_or_init(|| BUILT_IN.to_vec())
    }

    /// Every choice that the tracks of this process offer, in the order of the tracks.
    pub fn every_choice() -> impl Iterator<Item = &'static Choice> {
        Self::all().iter().flat_map(|track| track.choices())
    }

    /// Their names, for a message.
    pub fn names() -> String {
        let names: Vec<&str> = Self::all().iter().map(|track| track.name()).collect();
        names.join(", ")
    }
}

/// The schema of a fresh database after that migration; `None` for a version without a golden file.
pub fn golden(dialect: Dialect, version: &str) -> Option<Schema> {
    Track::all()
        .iter()
        .flat_map(|track| track.goldens())
        .find(|golden| golden.version == version)
        .map(|golden| {
            schema::parse(match dialect {
                Dialect::Postgres => golden.postgres,
                Dialect::Sqlite => golden.sqlite,
            })
        })
}

/// The tables that a fresh database has after any of a track's migrations.
pub fn tables_of(dialect: Dialect, track: Track) -> BTreeSet<String> {
    track
        .migrations()
        .iter()
        .filter_map(|migration| golden(dialect, migration.version))
        .flat_map(|golden| tables(&golden).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Target};

    #[test]
    fn every_migration_has_a_golden_schema_on_both_backends() {
        for migration in Track::all().iter().flat_map(|track| track.migrations()) {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                let golden = golden(dialect, migration.version);
                assert!(
                    golden.is_some_and(|golden| golden.len() > 10),
                    "{}",
                    migration.version
                );
            }
        }
    }

    #[test]
    fn tracks_that_cannot_be_told_apart_are_refused() {
        assert!(matches!(install(Vec::new()), Err(NotInstalled::Empty)));
        let twice = vec![Track::BILLING, Track::BILLING];
        assert!(matches!(
            install(twice),
            Err(NotInstalled::Twice("billing"))
        ));
        assert_eq!(Track::all(), BUILT_IN);
        assert!(matches!(
            install(vec![Track::BILLING]),
            Err(NotInstalled::Settled)
        ));
    }

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
            (Track::GOVERNANCE, "2.1.0"),
            (Track::GOVERNANCE, "1.4.99"),
            (Track::PROVIDERS, "533"),
            (Track::PROVIDERS, "2.35"),
            (Track::BILLING, "20260630120000"),
            (Track::BILLING, "abc"),
        ] {
            assert!(Target::parse(track, word).is_err(), "{track} {word}");
        }
        assert!(Target::parse(Track::GOVERNANCE, "v1.5.8").is_ok());
        assert!(Target::parse(Track::GOVERNANCE, "2.0.0-prerelease3").is_ok());
        assert!(Target::parse(Track::PROVIDERS, "2.34.1").is_ok_and(|target| target.at == 509));
    }
}
