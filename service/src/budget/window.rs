//! When a budget or rate limit begins anew (`reference/bifrost.md` §3.1 to §3.3, with the design's correction of what may
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
        let unit = match text {
            "1d" => Some(Unit::Day),
            "1w" => Some(Unit::Week),
            "1M" => Some(Unit::Month),
            "1Y" => Some(Unit::Year),
            _ => match text.to_ascii_lowercase().as_str() {
                "daily" => Some(Unit::Day),
                "weekly" => Some(Unit::Week),
                "monthly" => Some(Unit::Month),
                "yearly" => Some(Unit::Year),
                _ => None,
            },
        };
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
    pub fn due(&self, last_reset: Option<DateTime<Utc>>, aligned: bool, now: DateTime<Utc>) -> Due {
        let Some(unit) = self.unit.filter(|_| aligned) else {
            return match last_reset {
                Some(began) if began > self.cutoff(now) => Due::Nothing,
                _ => Due::Reset(now),
            };
        };
        let start = unit.start(now);
        match last_reset {
            Some(began) if began >= start => Due::Nothing,
            // What has always been aligned began with a unit.
            Some(began) if unit.start(began) != began && began > self.cutoff(now) => {
                Due::Align(start)
            }
            _ => Due::Reset(start),
        }
    }

    /// When the window that is open at an instant ends, once what is due has been done.
    pub fn ends(
        &self,
        last_reset: Option<DateTime<Utc>>,
        aligned: bool,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        if let Some(unit) = self.unit.filter(|_| aligned) {
            return unit.next(unit.start(now));
        }
        let began = match self.due(last_reset, aligned, now) {
            Due::Reset(start) | Due::Align(start) => start,
            Due::Nothing => last_reset.unwrap_or(now),
        };
        began
            .checked_add_signed(self.length)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

#[cfg(test)]
mod tests {
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
                true,
                "2026-11-24 00:00:00",
                "2026-11-24 23:59:59.999",
                OPEN,
            ),
            (
                "1d",
                true,
                "2026-11-24 00:00:00",
                "2026-11-25 00:00:00",
                reset("2026-11-25 00:00:00"),
            ),
            (
                "1d",
                true,
                "2026-11-20 00:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "daily",
                true,
                "2026-11-23 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "DAILY",
                true,
                "2026-11-23 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            // A week, from Monday.
            (
                "1w",
                true,
                "2026-11-23 00:00:00",
                "2026-11-29 23:59:59",
                OPEN,
            ),
            (
                "1w",
                true,
                "2026-11-23 00:00:00",
                "2026-11-30 00:00:00",
                reset("2026-11-30 00:00:00"),
            ),
            (
                "Weekly",
                true,
                "2026-11-16 00:00:00",
                "2026-11-24 12:00:00",
                reset("2026-11-23 00:00:00"),
            ),
            // Across a year's end: Monday is 2026-12-28.
            (
                "1w",
                true,
                "2026-12-28 00:00:00",
                "2027-01-03 23:00:00",
                OPEN,
            ),
            (
                "1w",
                true,
                "2026-12-28 00:00:00",
                "2027-01-04 00:00:00",
                reset("2027-01-04 00:00:00"),
            ),
            // A month, whatever its length; a leap day.
            (
                "1M",
                true,
                "2026-11-01 00:00:00",
                "2026-11-30 23:59:59",
                OPEN,
            ),
            (
                "1M",
                true,
                "2026-11-01 00:00:00",
                "2026-12-01 00:00:00",
                reset("2026-12-01 00:00:00"),
            ),
            (
                "monthly",
                true,
                "2026-10-01 00:00:00",
                "2026-10-31 12:00:00",
                OPEN,
            ),
            (
                "1M",
                true,
                "2028-02-01 00:00:00",
                "2028-02-29 23:59:59",
                OPEN,
            ),
            (
                "1M",
                true,
                "2028-02-01 00:00:00",
                "2028-03-01 00:00:00",
                reset("2028-03-01 00:00:00"),
            ),
            // A year, a leap year.
            (
                "1Y",
                true,
                "2028-01-01 00:00:00",
                "2028-12-31 23:59:59",
                OPEN,
            ),
            (
                "yearly",
                true,
                "2028-01-01 00:00:00",
                "2029-01-01 00:00:00",
                reset("2029-01-01 00:00:00"),
            ),
            // Rolling: 24 hours, 7, 30 and 365 days, to the instant.
            (
                "1d",
                false,
                "2026-11-23 15:00:00",
                "2026-11-24 14:59:59.999",
                OPEN,
            ),
            (
                "1d",
                false,
                "2026-11-23 15:00:00",
                "2026-11-24 15:00:00",
                reset("2026-11-24 15:00:00"),
            ),
            (
                "1w",
                false,
                "2026-11-17 00:00:00",
                "2026-11-23 23:59:59",
                OPEN,
            ),
            (
                "1w",
                false,
                "2026-11-17 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1M",
                false,
                "2026-11-01 00:00:00",
                "2026-11-30 23:59:59",
                OPEN,
            ),
            (
                "1M",
                false,
                "2026-10-01 00:00:00",
                "2026-10-31 00:00:00",
                reset("2026-10-31 00:00:00"),
            ),
            (
                "1Y",
                false,
                "2028-01-01 00:00:00",
                "2028-12-30 23:59:59",
                OPEN,
            ),
            (
                "1Y",
                false,
                "2028-01-01 00:00:00",
                "2028-12-31 00:00:00",
                reset("2028-12-31 00:00:00"),
            ),
            (
                "90m",
                false,
                "2026-11-24 10:00:00",
                "2026-11-24 11:30:00",
                reset("2026-11-24 11:30:00"),
            ),
            (
                "1h30m",
                false,
                "2026-11-24 10:00:00",
                "2026-11-24 11:29:59",
                OPEN,
            ),
            // Multiples and other spellings roll, whatever the flag says.
            (
                "7d",
                true,
                "2026-11-20 00:00:00",
                "2026-11-24 00:00:00",
                OPEN,
            ),
            (
                "7d",
                true,
                "2026-11-17 00:00:00",
                "2026-11-24 00:00:01",
                reset("2026-11-24 00:00:01"),
            ),
            (
                "2w",
                true,
                "2026-11-16 00:00:00",
                "2026-11-24 00:00:00",
                OPEN,
            ),
            (
                "3M",
                true,
                "2026-09-01 00:00:00",
                "2026-11-24 00:00:00",
                OPEN,
            ),
            (
                "3M",
                true,
                "2026-08-26 00:00:00",
                "2026-11-24 00:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "2Y",
                true,
                "2026-01-01 00:00:00",
                "2027-01-01 00:00:00",
                OPEN,
            ),
            (
                "1h",
                true,
                "2026-11-24 10:30:00",
                "2026-11-24 11:15:00",
                OPEN,
            ),
            (
                "1h",
                true,
                "2026-11-24 10:30:00",
                "2026-11-24 11:30:00",
                reset("2026-11-24 11:30:00"),
            ),
            (
                "24h",
                true,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            (
                "1.0d",
                true,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            // Alignment that was turned on inside a window keeps what was used in it.
            (
                "1d",
                true,
                "2026-11-23 15:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-24 00:00:00",
            ),
            (
                "1w",
                true,
                "2026-11-20 09:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-23 00:00:00",
            ),
            (
                "1M",
                true,
                "2026-10-31 12:00:00",
                "2026-11-24 10:00:00",
                "align 2026-11-01 00:00:00",
            ),
            (
                "1Y",
                true,
                "2025-12-31 00:00:00",
                "2026-11-24 10:00:00",
                "align 2026-01-01 00:00:00",
            ),
            // Inside the calendar's window there is nothing to do, and of one that has run out nothing to keep.
            (
                "1M",
                true,
                "2026-11-03 12:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            (
                "1d",
                true,
                "2026-11-23 10:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1M",
                true,
                "2026-10-15 12:00:00",
                "2026-11-24 10:00:00",
                reset("2026-11-01 00:00:00"),
            ),
            // Never begun, and begun in the future.
            (
                "1d",
                true,
                "",
                "2026-11-24 10:00:00",
                reset("2026-11-24 00:00:00"),
            ),
            (
                "1d",
                false,
                "",
                "2026-11-24 10:00:00",
                reset("2026-11-24 10:00:00"),
            ),
            (
                "1d",
                true,
                "2026-11-25 00:00:00",
                "2026-11-24 10:00:00",
                OPEN,
            ),
            (
                "1d",
                false,
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
            assert_eq!(
                found, expected,
                "{text} aligned {aligned} from {last} at {now}"
            );
        }
    }

    #[test]
    fn windows_end() {
        for (text, aligned, last, now, end) in [
            (
                "1d",
                true,
                "2026-11-24 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-25 00:00:00",
            ),
            (
                "1d",
                true,
                "2026-11-01 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-25 00:00:00",
            ),
            (
                "1w",
                true,
                "2026-11-23 00:00:00",
                "2026-11-24 10:00:00",
                "2026-11-30 00:00:00",
            ),
            (
                "1M",
                true,
                "2027-12-01 00:00:00",
                "2027-12-24 10:00:00",
                "2028-01-01 00:00:00",
            ),
            (
                "1M",
                true,
                "2028-02-01 00:00:00",
                "2028-02-10 00:00:00",
                "2028-03-01 00:00:00",
            ),
            (
                "1Y",
                true,
                "2026-01-01 00:00:00",
                "2026-11-24 10:00:00",
                "2027-01-01 00:00:00",
            ),
            (
                "1M",
                true,
                "2026-10-31 12:00:00",
                "2026-11-24 10:00:00",
                "2026-12-01 00:00:00",
            ),
            (
                "1M",
                false,
                "2026-11-10 12:00:00",
                "2026-11-24 10:00:00",
                "2026-12-10 12:00:00",
            ),
            (
                "1h",
                true,
                "2026-11-24 09:30:00",
                "2026-11-24 10:00:00",
                "2026-11-24 10:30:00",
            ),
            (
                "1h",
                false,
                "2026-11-24 01:00:00",
                "2026-11-24 10:00:00",
                "2026-11-24 11:00:00",
            ),
        ] {
            let found = Window::parse(text)
                .unwrap()
                .ends(Some(at(last)), aligned, at(now));
            assert_eq!(
                found,
                at(end),
                "{text} aligned {aligned} from {last} at {now}"
            );
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
