//! Header names in one spelling: lower case, no spaces around, the last of equal ones wins (`docs/upstream/bifrost.md` §4.12).

use std::collections::HashMap;
use std::fmt;

use sea_orm::{DbErr, FromQueryResult, QueryResult, Statement, Value};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::dialect::Dialect;
use crate::paged::{Page, PagedStep};

/// Rows of one page.
pub const PAGE: usize = 500;

/// Folds the header keys of one column: lower case, no spaces around, the last of equal ones wins.
///
/// What is JSON and what is not, no SQL of PostgreSQL 15 says without failing, so pages are read, folded here and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalizeHeaderNames {
    /// What it is for, as one line.
    pub purpose: String,
    /// The table, whose key is `id`.
    pub table: &'static str,
    /// The column: JSON as text.
    pub column: &'static str,
    /// Whether it is a list of names rather than an object by name.
    pub list: bool,
    /// Whether rows may be encrypted, as `encryption_status` says.
    pub encrypted: bool,
}

impl NormalizeHeaderNames {
    /// The rows that can be read: not NULL, not empty, not encrypted.
    pub fn readable(&self) -> String {
        let plain = if self.encrypted {
            " AND COALESCE(encryption_status, '') IN ('', 'plain_text')"
        } else {
            ""
        };
        format!(
            "{column} IS NOT NULL AND {column} <> ''{plain}",
            column = self.column
        )
    }

    /// The readable rows that may have something to fold: an upper-case letter, or a space at a quotation mark.
    pub fn candidates(&self) -> String {
        let column = self.column;
        format!(
            "{} AND ({column} <> lower({column}) OR {column} LIKE '%\" %' OR {column} LIKE '% \"%' \
             OR replace({column}, '\\', '') <> {column})",
            self.readable()
        )
    }

    /// The id before the first.
    pub fn start(&self) -> &'static str {
        if self.list {
            "-9223372036854775808"
        } else {
            ""
        }
    }

    fn behind(&self, parameter: &str) -> String {
        if self.list {
            format!("CAST({parameter} AS bigint)")
        } else {
            parameter.to_owned()
        }
    }

    /// A page of rows behind an id, which is the first parameter as text: those that can be read, or only those of them
    /// that may have something to fold.
    pub fn read_page(&self, dialect: Dialect, all: bool, limit: usize) -> String {
        format!(
            "SELECT CAST(id AS text) AS id, {} AS json FROM {table} WHERE {} AND {table}.id > {} ORDER BY {table}.id LIMIT {limit}",
            self.column,
            if all {
                self.readable()
            } else {
                self.candidates()
            },
            self.behind(&dialect.parameter(1)),
            // Ordered by the column itself: by the text that is selected, every page would sort all that is left.
            table = self.table,
        )
    }

    /// Writes a page: `rows` is a list of `(id, was, is)`. A row that was written meanwhile is left.
    fn write(&self, rows: &str) -> String {
        format!(
            "WITH folded (id, was, folded) AS (VALUES {rows}) UPDATE {table} SET {column} = folded.folded FROM folded \
             WHERE {table}.id = {id} AND {table}.{column} = folded.was",
            table = self.table,
            column = self.column,
            id = self.behind("folded.id"),
        )
    }
}

/// A row that is folded: its id, what was read, and what becomes of it.
pub type FoldedRow = (String, String, String);

/// A row of a page.
#[derive(FromQueryResult)]
pub struct HeaderNames {
    /// Its key, as text.
    pub id: String,
    /// The column's text.
    pub json: String,
}

impl NormalizeHeaderNames {
    /// Writes folded rows; one that was written since it was read is left.
    pub fn write_rows(&self, dialect: Dialect, due: &[FoldedRow]) -> Statement {
        let mut rows = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        for (id, was, folded) in due {
            let mut parameters = Vec::new();
            for text in [id, was, folded] {
                values.push(text.clone().into());
                parameters.push(dialect.parameter(values.len()));
            }
            rows.push(format!("({})", parameters.join(", ")));
        }
        Statement::from_sql_and_values(dialect.backend(), self.write(&rows.join(", ")), values)
    }
}

impl PagedStep for NormalizeHeaderNames {
    fn purpose(&self) -> &str {
        &self.purpose
    }

    fn changes(&self) -> (&str, &'static str) {
        (self.table, "update")
    }

    fn read(&self, dialect: Dialect, behind: Option<&str>) -> Statement {
        Statement::from_sql_and_values(
            dialect.backend(),
            self.read_page(dialect, false, PAGE),
            [behind.unwrap_or(self.start()).into()],
        )
    }

    fn page(&self, dialect: Dialect, rows: &[QueryResult]) -> Result<Page, DbErr> {
        let mut due = Vec::new();
        let mut behind = None;
        for row in rows {
            let HeaderNames { id, json } = HeaderNames::from_query_result(row, "")?;
            if let Folded::Changed(folded, _) = fold(&json, self.list) {
                due.push((id.clone(), json, folded));
            }
            behind = Some(id);
        }
        Ok(Page {
            statements: if due.is_empty() {
                Vec::new()
            } else {
                vec![self.write_rows(dialect, &due)]
            },
            behind,
            last: rows.len() < PAGE,
        })
    }

    fn samples(&self) -> Vec<String> {
        vec![self.write("('1', 'a', 'b')")]
    }
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It is folded already.
    Same,
    /// It becomes this; whether names fell together.
    Changed(String, bool),
    /// It is not the JSON that it should be.
    Malformed,
}

/// The canonical form of a header's name.
pub fn canonical(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The entries of an object in their order, equal names and all.
pub struct Entries(pub Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Entries;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Folds a list or an object.
pub fn fold(text: &str, list: bool) -> Folded {
    if list {
        fold_list(text)
    } else {
        fold_object(text)
    }
}

fn fold_list(text: &str) -> Folded {
    let Ok(names) = serde_json::from_str::<Vec<String>>(text) else {
        return Folded::Malformed;
    };
    let mut folded: Vec<String> = Vec::new();
    for name in &names {
        let name = canonical(name);
        if !folded.contains(&name) {
            folded.push(name);
        }
    }
    if folded == names {
        return Folded::Same;
    }
    let collided = folded.len() < names.len();
    serde_json::to_string(&folded).map_or(Folded::Malformed, |json| Folded::Changed(json, collided))
}

fn fold_object(text: &str) -> Folded {
    let Ok(Entries(entries)) = serde_json::from_str::<Entries>(text) else {
        return Folded::Malformed;
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut folded: Vec<(String, &RawValue)> = Vec::new();
    let mut same = true;
    for (name, value) in &entries {
        let canonical = canonical(name);
        same &= canonical == *name;
        if let Some(&place) = places.get(&canonical) {
            folded[place].1 = value;
        } else {
            places.insert(canonical.clone(), folded.len());
            folded.push((canonical, value));
        }
    }
    let collided = folded.len() < entries.len();
    if same && !collided {
        return Folded::Same;
    }
    let parts: Option<Vec<String>> = folded
        .iter()
        .map(|(name, value)| {
            let name = serde_json::to_string(name).ok()?;
            Some(format!("{name}:{}", value.get()))
        })
        .collect();
    parts.map_or(Folded::Malformed, |parts| {
        Folded::Changed(format!("{{{}}}", parts.join(",")), collided)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Folded {
        Folded::Changed(text.to_owned(), false)
    }

    fn collided(text: &str) -> Folded {
        Folded::Changed(text.to_owned(), true)
    }

    #[test]
    fn names_are_folded_and_values_are_not() {
        assert_eq!(
            fold(r#"{"X-Api-Key": "SeCrEt", "b":1.50}"#, false),
            changed(r#"{"x-api-key":"SeCrEt","b":1.50}"#)
        );
        assert_eq!(
            fold(r#"{" x ":"é\u00e9"}"#, false),
            changed(r#"{"x":"é\u00e9"}"#)
        );
        assert_eq!(fold(r#"["X-Key", "y"]"#, true), changed(r#"["x-key","y"]"#));
    }

    #[test]
    fn what_is_folded_stays_as_it_is_written() {
        for text in [r#"{ "x" : "A" }"#, "{}", r#"{"":1}"#] {
            assert_eq!(fold(text, false), Folded::Same, "{text}");
        }
        assert_eq!(fold(r#"[ "a" ]"#, true), Folded::Same);
    }

    #[test]
    fn of_names_that_fall_together_the_last_keeps_its_value() {
        assert_eq!(
            fold(r#"{"Key":"1","other":"2","KEY":"3"}"#, false),
            collided(r#"{"key":"3","other":"2"}"#)
        );
        assert_eq!(fold(r#"["A","a"]"#, true), collided(r#"["a"]"#));
    }

    #[test]
    fn what_is_no_json_of_its_kind_is_malformed() {
        for text in ["", "{", "[1]", r#"["a"]"#, "null", r#"{"a":}"#, "{} x"] {
            assert_eq!(fold(text, false), Folded::Malformed, "{text}");
        }
        for text in ["{}", "[1]", r#"["a",null]"#, "x"] {
            assert_eq!(fold(text, true), Folded::Malformed, "{text}");
        }
    }
}
