//! From the file's entries to rows: what can be said without a database is said here, each with its path.

mod budgets;
mod keys;
mod limits;
mod sink;

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::batch::{Batch, Form};
use super::entry::{Entry, Kind, digest, path, short_digest};
use super::file::{Budget, Field, Head, Problem, Sink};
use crate::tracks::governance::budget::window::{Unit, Window};

/// Problems that are told; a file with more is told how many.
const MOST: usize = 20;

/// What was read that is of an older form, or not read at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// `budget`, `budget_id` and `calendar_aligned` inside a budget: the path without positions, how often, some places.
    pub lifted: Vec<(String, u64, Vec<String>)>,
    /// Keys that nobody reads.
    pub unread: Vec<(String, u64)>,
    /// Whether the file has a list of virtual keys.
    pub virtual_keys: bool,
    /// Goes on where a limit, an expiry or a section is not read.
    pub allow_unread: bool,
}

/// Collects rows in batches.
pub(super) struct EntryWriter<'a, E> {
    now: DateTime<Utc>,
    env: &'a dyn Fn(&str) -> Option<String>,
    head: Head,
    form: Form,
    emit: E,
    /// The open batch of each kind.
    batches: Vec<Batch>,
    /// Where each id, name and claim was seen: hashed, for there may be hundreds of thousands.
    seen: HashMap<[u8; 16], Box<str>>,
    /// Whose each budget is.
    owners: HashMap<[u8; 16], ([u8; 16], Box<str>)>,
    problems: Vec<Problem>,
    more: usize,
    notes: Notes,
}

fn short(parts: &[&str]) -> [u8; 16] {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    short_digest(&parts)
}

fn identity(parts: &[&str]) -> String {
    serde_json::Value::from(parts.to_vec()).to_string()
}

fn word(flag: bool) -> String {
    if flag { "1" } else { "0" }.to_owned()
}

/// The value, whether the field is absent or null.
fn flat<T>(field: Field<T>) -> Option<T> {
    field.flatten()
}

/// Which of the fields are there, the first is 1, the second 2, the third 4.
fn present(fields: &[bool]) -> u64 {
    fields
        .iter()
        .enumerate()
        .filter(|(_, there)| **there)
        .map(|(position, _)| 1 << position)
        .sum()
}

/// A finite number that is not so small that a database would hold nothing of it.
fn finite(number: &str) -> bool {
    number
        .parse::<f64>()
        .is_ok_and(|amount| amount.is_finite() && (amount != 0.0 || is_zero(number)))
}

fn is_zero(number: &str) -> bool {
    let digits = number.split(['e', 'E']).next().unwrap_or_default();
    !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// A number in one spelling where it has no exponent: `5`, `5.0` and `05.00` are one.
fn plain(number: &str) -> String {
    if number.contains(['e', 'E']) || !number.contains('.') {
        return number.to_owned();
    }
    number
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

/// Whether a list has anything in it.
fn some<T>(list: Field<Vec<T>>) -> bool {
    flat(list).is_some_and(|list| !list.is_empty())
}

/// What a provider config or virtual key has of budgets.
struct Owned {
    budgets: Field<Vec<Budget>>,
    budget: Field<Budget>,
    budget_id: Field<String>,
}

impl<'a, E: FnMut(Batch)> EntryWriter<'a, E> {
    pub(super) fn new(
        now: DateTime<Utc>,
        env: &'a dyn Fn(&str) -> Option<String>,
        head: Head,
        form: Form,
        allow_unread: bool,
        emit: E,
    ) -> Self {
        Self {
            now,
            env,
            head,
            form,
            emit,
            batches: Vec::new(),
            seen: HashMap::new(),
            owners: HashMap::new(),
            problems: Vec::new(),
            more: 0,
            notes: Notes {
                allow_unread,
                ..Notes::default()
            },
        }
    }

    /// The last batch, and what was noted; or what is wrong.
    pub(super) fn finish(mut self) -> Result<Notes, (Vec<Problem>, usize)> {
        self.flush();
        if self.problems.is_empty() {
            Ok(self.notes)
        } else {
            Err((self.problems, self.more))
        }
    }

    fn flush(&mut self) {
        if self.problems.is_empty() {
            for batch in std::mem::take(&mut self.batches) {
                (self.emit)(batch);
            }
        }
    }

    fn put(&mut self, mut entry: Entry) {
        // The hash is of what the file says, not of where it says it, when it was read or how a number is spelt.
        let written = (entry.fields.max_limit.clone(), entry.fields.weight.clone());
        for number in [&mut entry.fields.max_limit, &mut entry.fields.weight] {
            *number = number.as_deref().map(plain);
        }
        let said = serde_json::to_vec(&(
            entry.kind,
            &entry.id,
            entry.parent_kind,
            &entry.parent,
            entry.present,
            &entry.fields,
        ));
        (entry.fields.max_limit, entry.fields.weight) = written;
        match said {
            Ok(said) => entry.hash = digest(&[&said]),
            Err(error) => self.problem(path(&entry.at), error.to_string()),
        }
        if matches!(entry.kind, Kind::Budget | Kind::List | Kind::Claim)
            && entry.parent_kind != Some(Kind::ProviderConfig)
        {
            entry.owner_id.clone_from(&entry.parent);
        }
        let position = self
            .batches
            .iter()
            .position(|batch| batch.kind() == entry.kind)
            .unwrap_or_else(|| {
                self.batches.push(Batch::new(entry.kind, self.form));
                self.batches.len() - 1
            });
        self.batches[position].push(&entry);
        if self.batches[position].is_full() {
            let full = self.batches.swap_remove(position);
            if self.problems.is_empty() {
                (self.emit)(full);
            }
        }
    }

    fn problem(&mut self, path: String, message: impl Into<String>) {
        if self.problems.len() < MOST {
            self.problems.push(Problem {
                path,
                message: message.into(),
            });
        } else {
            self.more += 1;
        }
    }

    fn wrong(&mut self, at: &str, field: &str, message: impl Into<String>) {
        self.problem(format!("{}.{field}", path(at)), message);
    }

    /// Text as PostgreSQL can hold it, in the gateway's own columns.
    fn text(&mut self, at: &str, field: &str, text: Field<String>) -> Field<String> {
        let longest = match field {
            "description" | "value" => usize::MAX,
            "provider" | "token_reset_duration" | "request_reset_duration" => 50,
            _ => 255,
        };
        if let Some(Some(text)) = &text {
            let length = text.chars().count();
            if length > longest {
                self.wrong(
                    at,
                    field,
                    format!("has {length} characters; its column holds {longest}"),
                );
            }
        }
        if let Some(Some(text)) = &text
            && text.contains('\0')
        {
            self.wrong(
                at,
                field,
                "holds a NUL character, which no database column takes",
            );
        }
        text
    }

    /// Text that names a row; an empty one is none, as the gateway has it.
    fn reference(&mut self, at: &str, field: &str, text: Field<String>) -> Field<String> {
        let text = self.text(at, field, text);
        text.map(|text| text.filter(|text| !text.is_empty()))
    }

    /// An id, once per kind.
    fn id(&mut self, at: &str, kind: Kind, id: &str) {
        self.text(at, "id", Some(Some(id.to_owned())));
        if id.is_empty() {
            self.wrong(at, "id", "is empty");
        }
        self.once(at, "id", kind.name(), id);
    }

    fn once(&mut self, at: &str, field: &str, what: &str, word: &str) {
        let place = format!("{at}.{field}").into_boxed_str();
        let known = self.seen.insert(short(&[what, field, word]), place);
        if let Some(known) = known {
            let (known, field_there) = known.split_once('.').unwrap_or((&known, field));
            let there = format!("{}.{field_there}", path(known));
            self.wrong(at, field, format!("{word:?} is {there} too"));
        }
    }

    /// A name that a new row must have.
    fn name(&mut self, at: &str, kind: Kind, name: Field<String>) -> Field<String> {
        match name
            .as_ref()
            .map(|name| name.as_deref().unwrap_or_default())
        {
            Some(text) if text.trim().is_empty() => self.wrong(at, "name", "is empty"),
            Some(text) if kind == Kind::VirtualKey => self.once(at, "name", kind.name(), text),
            _ => {}
        }
        self.text(at, "name", name)
    }

    fn duration(&mut self, at: &str, field: &str, duration: &str) -> Option<Window> {
        let window = Window::parse(duration);
        let meant = Unit::ALL
            .into_iter()
            .map(Unit::words)
            .find(|(_, word)| duration.eq_ignore_ascii_case(word));
        if let Some((meant, _)) = meant {
            self.wrong(
                at,
                field,
                format!(
                    "{duration:?} is parsed by no version of the gateway, and what it limits would never reset; write {meant}"
                ),
            );
        }
        if window.is_none() {
            self.wrong(
                at,
                field,
                format!(
                    "{duration:?} is no duration above zero, such as 1d, 1w, 1M, 1Y, 12h or 1h30m"
                ),
            );
        }
        window
    }

    fn lift(&mut self, pattern: &str, at: &str, field: &str) {
        let place = format!("{}.{field}", path(at));
        let known = self
            .notes
            .lifted
            .iter()
            .position(|(known, _, _)| known == pattern);
        let position = known.unwrap_or_else(|| {
            self.notes.lifted.push((pattern.to_owned(), 0, Vec::new()));
            self.notes.lifted.len() - 1
        });
        let (_, times, places) = &mut self.notes.lifted[position];
        *times += 1;
        if places.len() < crate::reconcile::SAMPLES {
            places.push(place);
        }
    }

    /// Part of an entry that limits somebody and cannot be written.
    fn restricts(&mut self, at: &str, field: &str, there: bool) {
        if !there {
            return;
        }
        if self.notes.allow_unread {
            let places = path(at);
            let pattern: String = places
                .chars()
                .filter(|letter| !letter.is_ascii_digit())
                .collect();
            self.unread(format!("{pattern}.{field}"), 1);
        } else {
            self.wrong(
                at,
                field,
                "limits somebody, and is not written here; --allow-unread goes on without it",
            );
        }
    }
}

/// What identifies the list of an owner.
pub(super) fn list_key(of: Kind, owner: Kind, key: &str) -> String {
    format!("{}s of {} {key}", of.name(), owner.name())
}
