//! One value as bytes that do not depend on how a backend writes it: 100 and 100.00 are equal, 100 and 100.01 are not;
//! times are instants.

use std::borrow::Cow;

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, TypeInfo, ValueRef};
use tollgate_migration::Dialect;

use crate::instant;

/// How the values of a column are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// As numbers.
    Number,
    /// As points in time.
    Instant,
    /// Byte by byte.
    Text,
    /// Byte by byte in a form of its track's own, which its routines may write without changing anything that counts.
    Canonical(Canonical),
}

/// Makes the form in which a text counts.
pub type Canonical = fn(&str) -> Cow<'_, str>;

const NULL: u8 = 0;
const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const BYTES: u8 = 3;
const INSTANT: u8 = 4;

/// How values of a declared type are compared.
pub(crate) fn kind(dialect: Dialect, declared: &str) -> Kind {
    let declared = declared.to_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| declared.starts_with(word));
    if starts(&["timestamp", "datetime", "date"]) {
        Kind::Instant
    } else if dialect == Dialect::Postgres
        && starts(&[
            "numeric", "decimal", "double", "real", "bigint", "integer", "smallint",
        ])
    {
        Kind::Number
    } else {
        // SQLite values say for themselves whether they are numbers.
        Kind::Text
    }
}

/// The expression that a PostgreSQL query selects for a column.
pub(crate) fn postgres_expression(declared: &str, column: &str) -> String {
    let declared = declared.to_lowercase();
    if declared.starts_with("numeric") || declared.starts_with("decimal") {
        format!("trim_scale({column})::text")
    } else if declared.starts_with("timestamp with time zone") {
        format!(
            "CASE WHEN isfinite({column}) THEN trim_scale(extract(epoch FROM {column}))::text ELSE {column}::text END"
        )
    } else if declared == "bytea" {
        format!("encode({column}, 'hex')")
    } else {
        format!("{column}::text")
    }
}

fn number(value: f64) -> String {
    // The shortest text that reads back as the same number; zero has one sign here.
    if value == 0.0 {
        "0".to_owned()
    } else {
        value.to_string()
    }
}

fn seconds(at: chrono::DateTime<chrono::Utc>) -> String {
    let nanos =
        i128::from(at.timestamp()) * 1_000_000_000 + i128::from(at.timestamp_subsec_nanos());
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, part) = (nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').to_owned()
}

/// Writes the canonical bytes of a cell, from what [`postgres_expression`] answers.
pub(crate) fn postgres(text: Option<&[u8]>, kind: Kind, out: &mut Vec<u8>) {
    out.clear();
    let Some(bytes) = text else {
        out.push(NULL);
        return;
    };
    match kind {
        Kind::Number => {
            out.push(NUMBER);
            let floating = bytes.iter().any(|byte| matches!(byte, b'e' | b'E'));
            let value = floating
                .then(|| std::str::from_utf8(bytes).ok()?.parse::<f64>().ok())
                .flatten()
                .filter(|value| value.is_finite());
            match value {
                Some(value) => out.extend(number(value).as_bytes()),
                None => out.extend(bytes),
            }
        }
        Kind::Instant => {
            out.push(INSTANT);
            out.extend(bytes);
        }
        Kind::Text => {
            out.push(TEXT);
            out.extend(bytes);
        }
        Kind::Canonical(canonical) => {
            out.push(TEXT);
            match std::str::from_utf8(bytes) {
                Ok(text) => out.extend(canonical(text).as_bytes()),
                Err(_) => out.extend(bytes),
            }
        }
    }
}

/// Writes the canonical bytes of a cell; returns the number where it is one.
pub(crate) fn sqlite(
    row: &SqliteRow,
    position: usize,
    kind: Kind,
    out: &mut Vec<u8>,
) -> Result<Option<f64>, sqlx::Error> {
    out.clear();
    let value = row.try_get_raw(position)?;
    if value.is_null() {
        out.push(NULL);
        return Ok(None);
    }
    let undecodable = |error| sqlx::Error::ColumnDecode {
        index: position.to_string(),
        source: error,
    };
    let stored = value.type_info().name().to_owned();
    match stored.as_str() {
        "REAL" => {
            let value = <f64 as Decode<sqlx::Sqlite>>::decode(value).map_err(undecodable)?;
            out.push(NUMBER);
            out.extend(number(value).as_bytes());
            Ok(Some(value))
        }
        "INTEGER" => {
            let value = <i64 as Decode<sqlx::Sqlite>>::decode(value).map_err(undecodable)?;
            out.push(NUMBER);
            out.extend(value.to_string().as_bytes());
            #[expect(
                clippy::cast_precision_loss,
                reason = "a sum of amounts is one of floats on SQLite"
            )]
            Ok(Some(value as f64))
        }
        other => {
            // As bytes: SQLite's text may be none in any encoding.
            let bytes = <&[u8] as Decode<sqlx::Sqlite>>::decode(value).map_err(undecodable)?;
            let text = (other == "TEXT")
                .then(|| std::str::from_utf8(bytes).ok())
                .flatten();
            match (kind, text.and_then(instant::parse)) {
                (Kind::Instant, Some(at)) => {
                    out.push(INSTANT);
                    out.extend(seconds(at).as_bytes());
                }
                _ if let (Kind::Canonical(canonical), Some(text)) = (kind, text) => {
                    out.push(TEXT);
                    out.extend(canonical(text).as_bytes());
                }
                _ => {
                    out.push(if other == "TEXT" { TEXT } else { BYTES });
                    out.extend(bytes);
                }
            }
            Ok(None)
        }
    }
}

/// The sum of floats, correctly rounded whatever their order: the partial sums never overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactSum(Vec<f64>);

impl ExactSum {
    pub(crate) fn add(&mut self, value: f64) {
        let mut carried = value;
        let mut kept = 0;
        for position in 0..self.0.len() {
            let mut other = self.0[position];
            if carried.abs() < other.abs() {
                std::mem::swap(&mut carried, &mut other);
            }
            let high = carried + other;
            let low = other - (high - carried);
            if low != 0.0 {
                self.0[kept] = low;
                kept += 1;
            }
            carried = high;
        }
        self.0.truncate(kept);
        self.0.push(carried);
    }

    pub(crate) fn text(&self) -> String {
        number(self.0.iter().rev().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_does_not_depend_on_the_order() {
        let values = [0.1, 1e16, 0.2, -1e16, 0.3, 12345.678];
        let mut forth = ExactSum::default();
        let mut back = ExactSum::default();
        for value in values {
            forth.add(value);
        }
        for value in values.into_iter().rev() {
            back.add(value);
        }
        assert_eq!(forth.text(), back.text());
        assert_eq!(forth.text(), "12346.278");
    }

    #[test]
    fn a_number_has_one_text() {
        assert_eq!(number(100.0), "100");
        assert_eq!(number(-0.0), "0");
        assert_eq!(number(0.1 + 0.2), "0.30000000000000004");
    }

    #[test]
    fn an_instant_is_written_in_seconds() {
        let at = instant::parse("1969-12-31 23:59:59.5Z").map(seconds);
        assert_eq!(at.as_deref(), Some("-0.5"));
        let at = instant::parse("2026-03-29 10:11:12.120Z").map(seconds);
        assert_eq!(at.as_deref(), Some("1774779072.12"));
    }
}
