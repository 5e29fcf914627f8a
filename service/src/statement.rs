//! What a statement of our own does to tables, read off its text.

/// The tables that a statement names, by what it does to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Altered, indexed, dropped or locked.
    pub altered: Vec<String>,
    /// Referred to by a foreign key that it makes.
    pub referred: Vec<String>,
    /// Rows are written into them.
    pub written: Vec<String>,
    /// What kind of thing it creates in the schema, where it does.
    pub created: String,
    /// Its command tag, as event triggers know it; empty for what is no DDL.
    pub tag: &'static str,
}

/// A name without quotes and without its schema.
fn name(word: &str) -> String {
    let word = word.rsplit_once("\".\"").map_or(word, |(_, name)| name);
    word.trim_matches(['"', '`']).replace("\"\"", "\"")
}

impl Touched {
    /// Reads a statement in the spelling of the migration crate, keywords in capitals.
    pub(crate) fn by(sql: &str) -> Self {
        let words: Vec<&str> = sql
            .split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';'))
            .filter(|word| !word.is_empty())
            .collect();
        let behind = |keyword: &str| -> Vec<String> {
            words
                .windows(2)
                .filter(|pair| pair[0] == keyword)
                .map(|pair| name(pair[1]))
                .collect()
        };
        let first_name = || -> Vec<String> {
            words
                .iter()
                .skip(2)
                .find(|word| !matches!(**word, "IF" | "EXISTS" | "NOT" | "ONLY"))
                .map(|word| name(word))
                .into_iter()
                .collect()
        };
        let first = words.first().copied().unwrap_or_default();
        let second = words.get(1).copied().unwrap_or_default();
        let made = |created: &str, tag, altered| Self {
            created: created.to_owned(),
            ..Self::ddl(tag, altered)
        };
        let on = || behind("ON").into_iter().take(1).collect();
        let touched = match (first, second) {
            ("CREATE", "TABLE") => made("table", "CREATE TABLE", Vec::new()),
            ("CREATE", "TYPE") => made("type", "CREATE TYPE", Vec::new()),
            ("CREATE", "INDEX" | "UNIQUE") => made("index", "CREATE INDEX", on()),
            ("CREATE", "FUNCTION" | "OR") => made("function", "CREATE FUNCTION", Vec::new()),
            ("CREATE", "TRIGGER") => Self::ddl("CREATE TRIGGER", on()),
            ("ALTER", "TABLE") => Self::ddl("ALTER TABLE", first_name()),
            ("ALTER", "TYPE") => Self::ddl("ALTER TYPE", Vec::new()),
            ("DROP", "TABLE") => Self::ddl("DROP TABLE", first_name()),
            ("DROP", "TRIGGER") => Self::ddl("DROP TRIGGER", behind("ON")),
            ("DROP", "INDEX") => Self::ddl("DROP INDEX", Vec::new()),
            ("DROP", "FUNCTION") => Self::ddl("DROP FUNCTION", Vec::new()),
            ("DROP", "TYPE") => Self::ddl("DROP TYPE", Vec::new()),
            ("LOCK", "TABLE") => Self::ddl(
                "",
                words[2..]
                    .iter()
                    .take_while(|word| **word != "IN")
                    .map(|word| name(word))
                    .collect(),
            ),
            _ => {
                let mut written = behind("UPDATE");
                written.extend(behind("INTO"));
                if sql.contains("DELETE FROM ") {
                    written.extend(behind("FROM"));
                }
                return Self {
                    written,
                    ..Self::default()
                };
            }
        };
        Self {
            referred: behind("REFERENCES"),
            ..touched
        }
    }

    fn ddl(tag: &'static str, altered: Vec<String>) -> Self {
        Self {
            tag,
            altered,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Touched;

    #[test]
    fn a_statement_says_what_it_does_to_which_tables() {
        let altered = |sql: &str| Touched::by(sql).altered;
        assert_eq!(altered("ALTER TABLE \"a\" ADD COLUMN \"x\" text"), ["a"]);
        assert_eq!(
            altered("CREATE UNIQUE INDEX CONCURRENTLY \"i\" ON \"s\".\"b\"(\"x\")"),
            ["b"]
        );
        assert_eq!(altered("DROP TABLE IF EXISTS \"c\""), ["c"]);
        assert_eq!(
            altered("LOCK TABLE \"a\", \"b\" IN ACCESS EXCLUSIVE MODE"),
            ["a", "b"]
        );
        assert_eq!(
            Touched::by("ALTER TABLE \"a\" ADD FOREIGN KEY (\"x\") REFERENCES \"p\"(\"id\")")
                .referred,
            ["p"]
        );
        assert_eq!(
            Touched::by("WITH due AS (SELECT 1 FROM c) UPDATE \"d\" SET x = 1 FROM due").written,
            ["d"]
        );
        assert_eq!(Touched::by("DELETE FROM e WHERE x = 1").written, ["e"]);
    }
}
