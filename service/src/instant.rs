//! Times as instants, whatever their spelling. PostgreSQL has one; on SQLite a time is the text that some driver wrote
//! (`docs/upstream/bifrost.md` §0).

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use tollgate_migration::Dialect;

/// A time as the gateway's driver writes it on SQLite, and as PostgreSQL reads it.
pub(crate) fn text(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.9f+00:00").to_string()
}

/// A time in a statement.
pub(crate) fn literal(dialect: Dialect, at: DateTime<Utc>) -> String {
    of_text(dialect, &dialect.text(&text(at)))
}

/// The time that a text expression of a statement says, such as a parameter that holds a [`text`].
pub(crate) fn of_text(dialect: Dialect, expression: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST({expression} AS timestamptz)"),
        Dialect::Sqlite => expression.to_owned(),
    }
}

/// The text of a time in a statement, which [`parse`] reads: on SQLite as it is written there.
pub(crate) fn as_text(dialect: Dialect, time: &str) -> String {
    match dialect {
        Dialect::Postgres => {
            format!("to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        }
        Dialect::Sqlite => format!("CAST({time} AS text)"),
    }
}

/// A time as it is compared in a statement: SQLite's are texts of many spellings, read to the millisecond; NULL where it reads none.
pub(crate) fn compared(dialect: Dialect, time: &str) -> String {
    match dialect {
        Dialect::Postgres => time.to_owned(),
        Dialect::Sqlite => format!("julianday({time})"),
    }
}

/// Reads a time as SQLite's drivers write it: `2026-03-29 10:11:12.123456789+00:00`, with a `T`, a `Z`, no fraction, no
/// seconds, another offset, none (UTC), Go's ` +0000 UTC m=+0.1` behind it, or a bare date.
///
/// `None` for a text that is no time.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let date = NaiveDate::parse_from_str(text.get(..10)?, "%Y-%m-%d").ok()?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(Utc.from_utc_datetime(&date.and_time(NaiveTime::MIN)));
    }
    let rest = rest.strip_prefix([' ', 'T', 't'])?;
    let end = rest.find(['+', '-', 'Z', 'z', ' ']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(end);
    let time = NaiveTime::parse_from_str(clock, "%H:%M:%S%.f")
        .or_else(|_| NaiveTime::parse_from_str(clock, "%H:%M"))
        .ok()?;
    let zone = zone.trim().split(' ').next().unwrap_or_default();
    let local: NaiveDateTime = date.and_time(time);
    let offset = offset(zone)?;
    offset
        .from_local_datetime(&local)
        .single()
        .map(|instant| instant.with_timezone(&Utc))
}

fn offset(zone: &str) -> Option<FixedOffset> {
    if matches!(zone, "" | "Z" | "z" | "UTC" | "GMT") {
        return FixedOffset::east_opt(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 2 | 4 | 6) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize| {
        digits
            .get(from..from + 2)
            .map_or(Some(0), |two| two.parse().ok())
    };
    let (hours, minutes, seconds): (i32, i32, i32) = (part(0)?, part(2)?, part(4)?);
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_instant_is_that_instant() {
        let wanted = Utc.with_ymd_and_hms(2026, 3, 29, 10, 11, 12).single();
        for text in [
            "2026-03-29 10:11:12+00:00",
            "2026-03-29T10:11:12Z",
            "2026-03-29 10:11:12",
            "2026-03-29 12:11:12+02:00",
            "2026-03-29 05:11:12-0500",
            "2026-03-29 05:41:12-04:30",
            "2026-03-29 10:11:12.000000000+00:00",
            "2026-03-29 12:11:12 +0200 CEST",
            "2026-03-29 10:11:12 +0000 UTC m=+0.012",
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn fractions_count_to_the_nanosecond() {
        let parsed = parse("2026-03-29 10:11:12.123456789+00:00");
        assert_eq!(
            parsed.map(|instant| instant.timestamp_subsec_nanos()),
            Some(123_456_789)
        );
    }

    #[test]
    fn a_bare_date_is_its_midnight() {
        assert_eq!(parse("2026-03-29"), parse("2026-03-29 00:00"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "soon",
            "2026-13-01",
            "2026-03-29 25:00:00",
            "2026-03-29x",
            "1774779072",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
