//! A part of a sweep's rows: the shard of one process, and within it what one of its connections does.

use std::fmt;
use std::str::FromStr;

use tollgate_migration::Dialect;

/// Shard `index` of `of`, counted from one: each row is one shard's, whatever runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u8,
    of: u8,
}

impl Shard {
    /// The most shards of one sweep.
    pub const MOST: u8 = 64;

    /// Its number, from one.
    pub fn index(self) -> u8 {
        self.index
    }

    /// How many there are.
    pub fn of(self) -> u8 {
        self.of
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let numbers = word
            .split_once('/')
            .and_then(|(index, of)| Some((index.parse::<u8>().ok()?, of.parse::<u8>().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) && of <= Self::MOST => {
                Ok(Self { index, of })
            }
            _ => Err(format!(
                "I/N with I from 1 to N and N up to {}, such as 2/8",
                Self::MOST
            )),
        }
    }
}

/// A part: nested divisions, outermost first. None is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part(Vec<(u8, u8)>);

impl Part {
    /// What a shard's part is.
    pub(crate) fn of(shard: Option<Shard>) -> Self {
        Self(
            shard
                .map(|shard| (shard.index - 1, shard.of))
                .into_iter()
                .collect(),
        )
    }

    /// It in `of` pieces.
    pub(crate) fn pieces(&self, of: u8) -> Vec<Self> {
        (0..of)
            .map(|index| {
                let mut divisions = self.0.clone();
                divisions.push((index, of));
                Self(divisions)
            })
            .collect()
    }

    /// That the row with that key is in the part.
    pub fn condition(&self, dialect: Dialect, key: &str) -> String {
        let number = match dialect {
            Dialect::Postgres => format!(
                "(hashtextextended(CAST({key} AS text) COLLATE \"C\", 0) & 9223372036854775807)"
            ),
            // SQLite has no hash; the ends of ids differ more than their beginnings.
            Dialect::Sqlite => format!(
                "(COALESCE(unicode(substr({key}, -1)), 0) + 31 * COALESCE(unicode(substr({key}, -2, 1)), 0) \
                 + 997 * COALESCE(unicode(substr({key}, -3, 1)), 0))"
            ),
        };
        let mut divided = number;
        let mut conditions = Vec::new();
        for (index, of) in &self.0 {
            conditions.push(format!("{divided} % {of} = {index}"));
            divided = format!("({divided} / {of})");
        }
        if conditions.is_empty() {
            "1 = 1".to_owned()
        } else {
            conditions.join(" AND ")
        }
    }

    /// Whether it is everything.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_read_as_it_is_written() {
        let read = |word: &str| Shard::from_str(word).map(|shard| shard.to_string());
        assert_eq!(read("2/8").as_deref(), Ok("2/8"));
        for word in ["0/8", "9/8", "1/65", "2", "a/b", "-1/2", "1/2/3", ""] {
            assert!(read(word).is_err(), "{word}");
        }
    }

    #[test]
    fn pieces_divide_what_the_shard_has() {
        let part = Part::of(Some(Shard { index: 2, of: 3 }));
        let pieces = part.pieces(2);
        let sql = pieces[1].condition(Dialect::Sqlite, "k");
        assert!(
            sql.contains(" % 3 = 1 AND ") && sql.ends_with(" / 3) % 2 = 1"),
            "{sql}"
        );
        assert_eq!(Part::default().condition(Dialect::Postgres, "k"), "1 = 1");
    }
}
