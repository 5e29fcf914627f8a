//! What a role must be allowed for plans to run, read off their own statements.

use std::collections::BTreeSet;

use tollgate_migration::{Context, Plan, Track};

/// Rights, by what they are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Tables that are altered, indexed or dropped, which only their owner may.
    pub owned: BTreeSet<String>,
    /// Tables that rows are written into.
    pub written: BTreeSet<String>,
    /// Whether something is created in the schema.
    pub creates: bool,
    /// The statements' command tags, as event triggers know them.
    pub tags: BTreeSet<&'static str>,
}

/// What the plans need, and the record of them.
pub(super) fn of(track: Track, live: &Context, plans: &[Plan]) -> Needs {
    let mut needs = Needs::default();
    for plan in plans {
        for sql in plan.statements() {
            needs.read(&sql);
        }
    }
    if !plans.is_empty() {
        let history = track.history_table();
        if live.catalog.has_table(&history) {
            needs.written.insert(history);
        } else {
            needs.creates = true;
            needs.tags.insert("CREATE TABLE");
        }
    }
    // What a plan makes by itself is this role's own.
    let exists = |name: &String| live.catalog.has_table(name);
    needs.owned.retain(exists);
    needs.written.retain(exists);
    needs
}

impl Needs {
    fn read(&mut self, sql: &str) {
        let words: Vec<&str> = sql
            .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';'))
            .filter(|word| !word.is_empty())
            .collect();
        // What is built outside a transaction names its schema, too.
        let name = |word: &str| {
            let word = word.rsplit_once("\".\"").map_or(word, |(_, name)| name);
            word.trim_matches('"').replace("\"\"", "\"")
        };
        let behind = |keyword: &str| -> Option<String> {
            let at = words.iter().position(|word| *word == keyword)?;
            words.get(at + 1).map(|word| name(word))
        };
        let first = words.first().copied().unwrap_or_default();
        let second = words.get(1).copied().unwrap_or_default();
        match (first, second) {
            ("CREATE", "TABLE") => {
                self.creates = true;
                self.tags.insert("CREATE TABLE");
            }
            ("CREATE", "TYPE") => {
                self.creates = true;
                self.tags.insert("CREATE TYPE");
            }
            ("CREATE", "INDEX" | "UNIQUE") => {
                self.creates = true;
                self.tags.insert("CREATE INDEX");
                self.owned.extend(behind("ON"));
            }
            ("ALTER", "TABLE") => {
                self.tags.insert("ALTER TABLE");
                self.owned.extend(
                    words[2..]
                        .iter()
                        .find(|word| !matches!(**word, "IF" | "EXISTS" | "ONLY"))
                        .map(|word| name(word)),
                );
            }
            ("ALTER", "TYPE") => {
                self.tags.insert("ALTER TYPE");
            }
            ("DROP", "TABLE") => {
                self.tags.insert("DROP TABLE");
                self.owned.extend(
                    words[2..]
                        .iter()
                        .find(|word| !matches!(**word, "IF" | "EXISTS"))
                        .map(|word| name(word)),
                );
            }
            ("DROP", "INDEX") => {
                self.tags.insert("DROP INDEX");
            }
            _ => {
                for pair in words.windows(2) {
                    if matches!(pair[0], "UPDATE" | "INTO" | "FROM") && sql_writes(pair[0], sql) {
                        self.written.insert(name(pair[1]));
                    }
                }
            }
        }
    }
}

/// `FROM` names a table that is written only behind `DELETE`.
fn sql_writes(keyword: &str, sql: &str) -> bool {
    keyword != "FROM" || sql.contains("DELETE FROM ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_say_what_they_need() {
        let mut needs = Needs::default();
        for sql in [
            "ALTER TABLE \"a\" ADD COLUMN \"x\" text",
            "CREATE INDEX CONCURRENTLY \"i\" ON \"b\" (\"x\")",
            "WITH due AS (SELECT 1 FROM c) UPDATE \"d\" SET x = 1 FROM due",
            "DELETE FROM e WHERE x = 1",
            "DROP TABLE IF EXISTS \"f\"",
        ] {
            needs.read(sql);
        }
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(&needs.owned), ["a", "b", "f"]);
        assert_eq!(names(&needs.written), ["d", "e"]);
        assert!(needs.creates);
        assert_eq!(
            needs.tags.iter().copied().collect::<Vec<_>>(),
            ["ALTER TABLE", "CREATE INDEX", "DROP TABLE"]
        );
    }
}
