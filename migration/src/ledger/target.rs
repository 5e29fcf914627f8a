//! Which steps a gateway version can live with: each step stands for something of the gateway's, and runs for a target at or
//! past it.

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
