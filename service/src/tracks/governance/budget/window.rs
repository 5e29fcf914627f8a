//! When a budget or rate limit resets (`docs/upstream/bifrost.md` §3.1 to §3.3, with the design's correction of what may
//! align).
//!
//! UTC; weeks begin on Monday, months and years on their first day. Alignment applies to `1d`, `1w`, `1M`, `1Y` and their
//! aliases; any other duration rolls, whatever the flag says.

use chrono::{DateTime, Datelike, Days, Duration, Months, NaiveTime, Utc};

use crate::duration;

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// From the first of January.
    Year,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// The durations that align to it: one is case-sensitive, the other is written in any case.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Day => ("1d", "daily"),
            Self::Week => ("1w", "weekly"),
            Self::Month => ("1M", "monthly"),
            Self::Year => ("1Y", "yearly"),
        }
    }

    /// The name by which the database truncates times.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The beginning of the unit that an instant is in.
    pub fn start(self, at: DateTime<Utc>) -> DateTime<Utc> {
        let day = at.date_naive();
        let first = match self {
            Self::Day => Some(day),
            Self::Week => {
                day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday())))
            }
            Self::Month => day.with_day(1),
            Self::Year => day.with_day(1).and_then(|day| day.with_month(1)),
        };
        first.unwrap_or(day).and_time(NaiveTime::MIN).and_utc()
    }

    /// The beginning of the next unit, for the beginning of one.
    pub fn next(self, start: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Day => start.checked_add_days(Days::new(1)),
            Self::Week => start.checked_add_days(Days::new(7)),
            Self::Month => start.checked_add_months(Months::new(1)),
            Self::Year => start.checked_add_months(Months::new(12)),
        }
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// A reset duration that can be read and is above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    length: Duration,
    unit: Option<Unit>,
}

/// Whether a window follows the calendar, where its duration may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// It rolls.
    Off,
    /// It has followed the calendar since before this unit began.
    On,
    /// It follows the calendar, and may do so only since this unit began.
    TurnedOn,
}

/// What is to be done to a window at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is open.
    Nothing,
    /// It is over: what was used counts no more, and the next one begins here.
    Reset(DateTime<Utc>),
    /// It was rolling when alignment was turned on and has not run out: what was used stays, and counts for the calendar's
    /// window, which began here.
    Align(DateTime<Utc>),
}

impl Window {
    /// Reads a reset duration; `None` for a text that is none or is not above zero.
    pub fn parse(text: &str) -> Option<Self> {
        let nanoseconds = duration::parse(text).filter(|&nanoseconds| nanoseconds > 0)?;
        let unit = Unit::ALL.into_iter().find(|unit| {
            let (exact, alias) = unit.words();
            text == exact || text.eq_ignore_ascii_case(alias)
        });
        Some(Self {
            length: Duration::nanoseconds(nanoseconds),
            unit,
        })
    }

    /// The unit of the calendar that it aligns to, if it may.
    pub fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// Its length, in nanoseconds.
    pub fn nanoseconds(&self) -> i64 {
        self.length.num_nanoseconds().unwrap_or(i64::MAX)
    }

    /// A window that rolls and began here or earlier has run out.
    pub fn cutoff(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.checked_sub_signed(self.length)
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    /// What is to be done at an instant. A window that has never begun is over.
    pub fn due(
        &self,
        last_reset: Option<DateTime<Utc>>,
        alignment: Alignment,
        now: DateTime<Utc>,
    ) -> Due {
        let Some(unit) = self.aligned_to(alignment) else {
            return match last_reset {
                Some(began) if began > self.cutoff(now) => Due::Nothing,
                _ => Due::Reset(now),
            };
        };
        let start = unit.start(now);
        match last_reset {
            Some(began) if began >= start => Due::Nothing,
            // What began with a unit followed the calendar then; what ran out is over either way.
            Some(began)
                if alignment == Alignment::TurnedOn
                    && unit.start(began) != began
                    && began > self.cutoff(now) =>
            {
                Due::Align(start)
            }
            _ => Due::Reset(start),
        }
    }

    /// When the window that is open at an instant ends, once what is due has been done.
    pub fn ends(
        &self,
        last_reset: Option<DateTime<Utc>>,
        alignment: Alignment,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        if let Some(unit) = self.aligned_to(alignment) {
            return unit.next(unit.start(now));
        }
        let began = match self.due(last_reset, alignment, now) {
            Due::Reset(start) | Due::Align(start) => start,
            Due::Nothing => last_reset.unwrap_or(now),
        };
        began
            .checked_add_signed(self.length)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The unit that it follows: not every duration may.
    pub fn aligned_to(&self, alignment: Alignment) -> Option<Unit> {
        self.unit.filter(|_| alignment != Alignment::Off)
    }
}

#[cfg(test)]
mod tests {
    use super::Alignment::{Off, On, TurnedOn};
    use super::*;
    use crate::instant;

    fn at(text: &str) -> DateTime<Utc> {
        instant::parse(text).unwrap()
    }

    /// Duration, aligned, last reset, now, what is due. By hand.
    #[test]
    fn windows_over_every_unit_alias_multiple_and_alignment() {
        const OPEN: &str = "open";
        let reset = |start: &'static str| start;
        for (text, aligned, last, now, expected) in [
            // A day, on the calendar: 2026-11-24 is a Tuesday.
            (
                "1d",
                On,
                "2026-11-24 00:00:00",
                "2026-11-24 23:59:59.999",
                OPEN,
            ),
            (
                "1d",
                On,
                "2026-11-24 00:00:00",
                "2026-11-25 00:00:00",
                reset("2026-11-25 00:00:00"),
            ),
            (
                "1d",
                On,
                "2026-11-20 00:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "daily",
                On,
                "2026-11-23 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "DAILY",
                On,
                "2026-11-23 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            // A week, from Monday.
            ("1w", On, "2026-11-23 00:00:00", "2026-11-29 23:59:59", OPEN),
            (
                "1w",
                On,
                "2026-11-23 00:00:00",
                "2026-11-30 00:00:00",
                reset("2026-11-30 00:00:00"),
            ),
            (
                "Weekly",
                On,
                "2026-11-16 00:00:00",
                "2026-11-24 12:00:00",
                reset("2026-11-23 00:00:00"),
            ),
            // Across a year's end: Monday is 2026-12-28.
            ("1w", On, "2026-12-28 00:00:00", "2027-01-03 23:00:00", OPEN),
            (
                "1w",
                On,
                "2026-12-28 00:00:00",
                "2027-01-04 00:00:00",
                reset("2027-01-04 00:00:00"),
            ),
            // A month, whatever its length; a leap day.
            ("1M", On, "2026-11-01 00:00:00", "2026-11-30 23:59:59", OPEN),
            (
                "1M",
                On,
                "2026-11-01 00:00:00",
                "2026-12-01 00:00:00",
                reset("2026-12-01 00:00:00"),
            ),
            (
                "monthly",
                On,
                "2026-10-01 00:00:00",
                "2026-10-31 12:00:00",
                OPEN,
            ),
            ("1M", On, "2028-02-01 00:00:00", "2028-02-29 23:59:59", OPEN),
            (
                "1M",
                On,
                "2028-02-01 00:00:00",
                "2028-03-01 00:00:00",
                reset("2028-03-01 00:00:00"),
            ),
            // A year, a leap year.
            ("1Y", On, "2028-01-01 00:00:00", "2028-12-31 23:59:59", OPEN),
            (
                "yearly",
                On,
                "2028-01-01 00:00:00",
                "2029-01-01 00:00:00",
                reset("2029-01-01 00:00:00"),
            ),
            // Rolling: 24 hours, 7, 30 and 365 days, to the instant.
            (
                "1d",
                Off,
                "2026-11-23 15:00:00",
                "2026-11-24 14:59:59.999",
                OPEN,
            ),
            (
                "1d",
                Off,
                "2026-11-23 15:00:00",
                "2026-11-24 15:00:00",
                reset("2026-11-24 15:00:00"),
            ),
            (
                "1w",
                Off,
                "2026-11-17 00:00:00",
                "2026-11-23 23:59:59",
                OPEN,
            ),
            (
                "1w",
                Off,
                "2026-11-17 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1M",
                Off,
                "2026-11-01 00:00:00",
                "2026-11-30 23:59:59",
                OPEN,
            ),
            (
                "1M",
                Off,
                "2026-10-01 00:00:00",
                "2026-10-31 00:00:00",
                reset("2026-10-31 00:00:00"),
            ),
            (
                "1Y",
                Off,
                "2028-01-01 00:00:00",
                "2028-12-30 23:59:59",
                OPEN,
            ),
            (
                "1Y",
                Off,
                "2028-01-01 00:00:00",
                "2028-12-31 00:00:00",
                reset("2028-12-31 00:00:00"),
            ),
            (
                "90m",
                Off,
                "2026-11-24 10:00:00",
                "2026-11-24 11:30:00",
                reset("2026-11-24 11:30:00"),
            ),
            (
                "1h30m",
                Off,
                "2026-11-24 10:00:00",
                "2026-11-24 11:29:59",
                OPEN,
            ),
            // Multiples and other spellings roll, whatever the flag says.
            ("7d", On, "2026-11-20 00:00:00", "2026-11-24 00:00:00", OPEN),
            (
                "7d",
                On,
                "2026-11-17 00:00:00",
                "2026-11-24 00:00:01",
                reset("2026-11-24 00:00:01"),
            ),
            ("2w", On, "2026-11-16 00:00:00", "2026-11-24 00:00:00", OPEN),
            ("3M", On, "2026-09-01 00:00:00", "2026-11-24 00:00:00", OPEN),
            (
                "3M",
                On,
                "2026-08-26 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            ("2Y", On, "2026-01-01 00:00:00", "2027-01-01 00:00:00", OPEN),
            ("1h", On, "2026-11-24 10:30:00", "2026-11-24 11:15:00", OPEN),
            (
                "1h",
                On,
                "2026-11-24 10:30:00",
                "2026-11-24 11:30:00",
                reset("2026-11-24 11:30:00"),
            ),
            (
                "24h",
                On,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            (
                "1.0d",
                On,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            // Alignment that was turned on inside a window keeps what was used in it.
            (
                "1d",
                TurnedOn,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-24 00:00:00",
            ),
            (
                "1w",
                TurnedOn,
                "2026-11-20 09:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-23 00:00:00",
            ),
            (
                "1M",
                TurnedOn,
                "2026-10-31 12:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-01 00:00:00",
            ),
            (
                "1Y",
                TurnedOn,
                "2025-12-31 00:00:00",
                "2026-11-24 10:00:00",
                "align 2026-01-01 00:00:00",
            ),
            // The same of alignment that was on when the unit began: the calendar's window is over.
            (
                "1d",
                On,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "weekly",
                On,
                "2026-11-20 09:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-23 00:00:00"),
            ),
            (
                "1M",
                On,
                "2026-11-03 12:00:00",
                "2026-12-01 00:00:00",
                reset("2026-12-01 00:00:00"),
            ),
            (
                "1Y",
                On,
                "2026-11-03 12:00:00",
                "2027-01-01 00:00:00",
                reset("2027-01-01 00:00:00"),
            ),
            // Begun with a unit, and run out: nothing to keep, however young the flag.
            (
                "1M",
                TurnedOn,
                "2027-02-01 00:00:00",
                "2027-03-01 00:00:00",
                reset("2027-03-01 00:00:00"),
            ),
            (
                "1d",
                TurnedOn,
                "2026-11-23 10:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            // It may not align at all.
            (
                "7d",
                TurnedOn,
                "2026-11-20 09:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            // Inside the calendar's window there is nothing to do, and of one that has run out nothing to keep.
            ("1M", On, "2026-11-03 12:00:00", "2026-11-24 10:00:00", OPEN),
            (
                "1d",
                On,
                "2026-11-23 10:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1M",
                On,
                "2026-10-15 12:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-01 00:00:00"),
            ),
            // Never begun, and begun in the future.
            (
                "1d",
                On,
                "",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1d",
                Off,
                "",
                "2026-11-24 10:00:00",
                reset("2026-11-24 10:00:00"),
            ),
            ("1d", On, "2026-11-25 00:00:00", "2026-11-24 10:00:00", OPEN),
            (
                "1d",
                Off,
                "2026-11-25 00:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
        ] {
            let expected = match expected {
                OPEN => Due::Nothing,
                start => start
                    .strip_prefix("align ")
                    .map_or_else(|| Due::Reset(at(start)), |start| Due::Align(at(start))),
            };
            let found = Window::parse(text).unwrap().due(
                (!last.is_empty()).then(|| at(last)),
                aligned,
                at(now),
            );
            assert_eq!(found, expected, "{text} {aligned:?} from {last} at {now}");
        }
    }

    #[test]
    fn windows_end() {
        for (text, aligned, last, now, end) in [
            (
                "1d",
                On,
                "2026-11-24 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-25 00:00:00",
            ),
            (
                "1d",
                On,
                "2026-11-01 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-25 00:00:00",
            ),
            (
                "1w",
                On,
                "2026-11-23 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-30 00:00:00",
            ),
            (
                "1M",
                On,
                "2027-12-01 00:00:00",
                "2027-12-24 10:00:00",
                "2028-01-01 00:00:00",
            ),
            (
                "1M",
                On,
                "2028-02-01 00:00:00",
                "2028-02-10 00:00:00",
                "2028-03-01 00:00:00",
            ),
            (
                "1Y",
                On,
                "2026-01-01 00:00:00",
                "2026-11-24 10:00:00",
                "2027-01-01 00:00:00",
            ),
            (
                "1M",
                On,
                "2026-10-31 12:00:00",
                "2026-11-24 10:00:00",
                "2026-12-01 00:00:00",
            ),
            (
                "1M",
                Off,
                "2026-11-10 12:00:00",
                "2026-11-24 10:00:00",
                "2026-12-10 12:00:00",
            ),
            (
                "1h",
                On,
                "2026-11-24 09:30:00",
                "2026-11-24 10:00:00",
                "2026-11-24 10:30:00",
            ),
            (
                "1h",
                Off,
                "2026-11-24 01:00:00",
                "2026-11-24 10:00:00",
                "2026-11-24 11:00:00",
            ),
        ] {
            let found = Window::parse(text)
                .unwrap()
                .ends(Some(at(last)), aligned, at(now));
            assert_eq!(found, at(end), "{text} {aligned:?} from {last} at {now}");
        }
    }

    #[test]
    fn what_is_no_window() {
        for text in [
            "", "0", "0d", "-1d", "-1h", "1D", "1W", "1y", "1Q", "1d12h", "d", "1 d", "week",
        ] {
            assert_eq!(Window::parse(text), None, "{text:?}");
        }
    }
}
