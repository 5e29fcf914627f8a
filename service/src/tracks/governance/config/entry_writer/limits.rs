//! Rate limits, inside of their owner or at the top.

use super::super::batch::Batch;
use super::super::entry::{Entry, Fields, Kind};
use super::super::file::{Field, RateLimit};
use super::{EntryWriter, flat, present};

use crate::instant;

impl<'a, E: FnMut(Batch)> EntryWriter<'a, E> {
    pub(super) fn whole(&mut self, at: &str, field: &str, number: Field<i64>) -> Field<String> {
        if let Some(Some(number)) = number
            && number <= 0
        {
            self.wrong(at, field, format!("{number} is not above zero"));
        }
        number.map(|number| number.map(|number| number.to_string()))
    }

    /// A rate limit inside of its owner stands for one of its own that the owner names.
    pub(super) fn inline_rate_limit(
        &mut self,
        at: &str,
        named: Field<String>,
        inline: Field<RateLimit>,
    ) -> Field<String> {
        let Some(Some(limit)) = inline else {
            return named;
        };
        let Some(id) = flat(limit.id.clone()).filter(|id| !id.is_empty()) else {
            self.wrong(
                at,
                "rate_limit",
                "needs an id here, by which it is found again",
            );
            return named;
        };
        if flat(named).is_some_and(|named| named != id) {
            self.wrong(at, "rate_limit", "is another than rate_limit_id names");
        }
        self.put_rate_limit(&format!("{at}l"), limit);
        Some(Some(id))
    }

    pub(super) fn put_rate_limit(&mut self, at: &str, entry: RateLimit) {
        let id = flat(entry.id).unwrap_or_default();
        self.id(at, Kind::RateLimit, &id);
        let token_max_limit = self.whole(at, "token_max_limit", entry.token_max_limit);
        let request_max_limit = self.whole(at, "request_max_limit", entry.request_max_limit);
        let token_reset_duration =
            self.reference(at, "token_reset_duration", entry.token_reset_duration);
        let request_reset_duration =
            self.reference(at, "request_reset_duration", entry.request_reset_duration);
        let mut starts = Vec::new();
        for (limit, duration, name) in [
            (
                &token_max_limit,
                &token_reset_duration,
                "token_reset_duration",
            ),
            (
                &request_max_limit,
                &request_reset_duration,
                "request_reset_duration",
            ),
        ] {
            match (limit, duration) {
                (_, Some(Some(duration))) => {
                    let duration = duration.clone();
                    let window = self.duration(at, name, &duration);
                    let unit = window.and_then(|window| window.unit());
                    starts.push(unit.map(|unit| instant::text(unit.start(self.now))));
                    continue;
                }
                (Some(Some(_)), _) => self.wrong(at, name, "is missing: a limit needs a duration"),
                _ => {}
            }
            starts.push(None);
        }
        let request_starts = starts.pop().flatten();
        self.put(Entry {
            kind: Kind::RateLimit,
            at: at.to_owned(),
            key: id.clone(),
            id: Some(id),
            present: present(&[
                token_max_limit.is_some(),
                token_reset_duration.is_some(),
                request_max_limit.is_some(),
                request_reset_duration.is_some(),
            ]),
            fields: Fields {
                token_max_limit: flat(token_max_limit),
                token_reset_duration: flat(token_reset_duration),
                request_max_limit: flat(request_max_limit),
                request_reset_duration: flat(request_reset_duration),
                ..Fields::default()
            },
            starts: starts.pop().flatten(),
            request_starts,
            ..Entry::default()
        });
    }
}
