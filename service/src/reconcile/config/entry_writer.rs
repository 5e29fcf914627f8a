//! From the file's entries to rows: what can be said without a database is said here, each with its path.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::entry::{Entry, Fields, Kind, digest, path, value_hash};
use super::file::{
    Budget, Customer, Field, Number, Problem, ProviderConfig, RateLimit, Sink, Team, VirtualKey,
    nearest_section,
};
use crate::budget::window::Window;
use crate::instant;
use crate::secret::PREFIX;

/// Bytes of one batch of rows on their way to the database.
const BATCH: usize = 8 << 20;
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

/// Collects rows in batches of JSON.
pub(super) struct EntryWriter<'a, E> {
    now: DateTime<Utc>,
    env: &'a dyn Fn(&str) -> Option<String>,
    emit: E,
    batch: String,
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
    let text = digest(&parts);
    let mut short = [0; 16];
    short.copy_from_slice(&text.as_bytes()[..16]);
    short
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

impl<'a, E: FnMut(String)> EntryWriter<'a, E> {
    pub(super) fn new(
        now: DateTime<Utc>,
        env: &'a dyn Fn(&str) -> Option<String>,
        allow_unread: bool,
        emit: E,
    ) -> Self {
        Self {
            now,
            env,
            emit,
            batch: String::new(),
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
        if self.batch.is_empty() || !self.problems.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.push(']');
        (self.emit)(batch);
    }

    fn put(&mut self, mut entry: Entry) {
        // The hash is of what the file says, not of where it says it, when it was read or how a number is spelt.
        let mut fields = entry.fields.clone();
        for number in [&mut fields.max_limit, &mut fields.weight] {
            *number = number.as_deref().map(plain);
        }
        let said = serde_json::json!([
            entry.kind,
            entry.id,
            entry.parent_kind,
            entry.parent,
            entry.present,
            fields,
        ]);
        entry.hash = digest(&[said.to_string().as_bytes()]);
        self.batch
            .push(if self.batch.is_empty() { '[' } else { ',' });
        match serde_json::to_string(&entry) {
            Ok(text) => self.batch.push_str(&text),
            Err(error) => self.problem(path(&entry.at), error.to_string()),
        }
        if self.batch.len() >= BATCH {
            self.flush();
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

    fn whole(&mut self, at: &str, field: &str, number: Field<i64>) -> Field<String> {
        if let Some(Some(number)) = number
            && number <= 0
        {
            self.wrong(at, field, format!("{number} is not above zero"));
        }
        number.map(|number| number.map(|number| number.to_string()))
    }

    fn duration(&mut self, at: &str, field: &str, duration: &str) -> Option<Window> {
        let window = Window::parse(duration);
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
        if places.len() < super::super::SAMPLES {
            places.push(place);
        }
    }

    /// Notes whose a budget is; it can be one's alone.
    fn owned(&mut self, at: &str, field: &str, budget: &str, owner: (Kind, &str)) {
        let owner = short(&[owner.0.name(), owner.1]);
        let place = format!("{at}.{field}").into_boxed_str();
        let known = self
            .owners
            .entry(short(&[budget]))
            .or_insert_with(|| (owner, place));
        if known.0 != owner {
            let (at_there, field_there) = known.1.split_once('.').unwrap_or((&known.1, field));
            let there = format!("{}.{field_there}", path(at_there));
            self.wrong(
                at,
                field,
                format!("budget {budget:?} has two owners, this one and that of {there}"),
            );
        }
    }

    /// A budget, inline of an owner or at the top.
    fn put_budget(&mut self, at: &str, budget: Budget, inline: Option<(Kind, &str)>) -> String {
        let Number(limit) = &budget.max_limit;
        if limit.starts_with('-') && !is_zero(limit) {
            self.wrong(at, "max_limit", format!("{limit} is negative"));
        } else if !finite(limit) {
            self.wrong(
                at,
                "max_limit",
                format!("{limit} is not finite, or too small for any amount"),
            );
        }
        let limit = limit.trim_start_matches('-').to_owned();
        let window = self.duration(at, "reset_duration", &budget.reset_duration);
        let id = flat(self.reference(at, "id", budget.id));
        let virtual_key = flat(self.reference(at, "virtual_key_id", budget.virtual_key_id));
        let team = flat(self.reference(at, "team_id", budget.team_id));
        let customer = flat(self.reference(at, "customer_id", budget.customer_id));
        let config = flat(budget.provider_config_id).map(|number| format!("#{number}"));
        let said: Vec<(Kind, String, &str)> = [
            (Kind::VirtualKey, virtual_key, "virtual_key_id"),
            (Kind::ProviderConfig, config, "provider_config_id"),
            (Kind::Team, team, "team_id"),
            (Kind::Customer, customer, "customer_id"),
        ]
        .into_iter()
        .filter_map(|(kind, owner, field)| Some((kind, owner?, field)))
        .collect();
        if let [_, second, ..] = said.as_slice() {
            self.wrong(at, second.2, "is a second owner of one budget");
        }
        let owner = match (inline, said.first()) {
            (Some((kind, key)), said) => {
                if let Some((other, name, field)) = said
                    && (*other, name.as_str()) != (kind, key)
                    && !(*other == Kind::ProviderConfig
                        && kind == Kind::ProviderConfig
                        && !key.starts_with('#'))
                {
                    self.wrong(
                        at,
                        field,
                        "is another owner than the one that the budget stands in",
                    );
                }
                Some((kind, key.to_owned()))
            }
            (None, Some((kind, name, _))) => Some((*kind, name.clone())),
            (None, None) => None,
        };
        if let Some(id) = &id {
            if let Some((kind, key)) = &owner {
                self.owned(at, "id", id, (*kind, key));
            }
            self.id(at, Kind::Budget, id);
        } else if inline.is_none() {
            self.wrong(
                at,
                "id",
                "is missing: only a budget inside of its owner can do without",
            );
        }
        let unit = window.and_then(|window| window.unit());
        let nanoseconds = window.map(|window| window.nanoseconds().to_string());
        let key = match (&id, &owner) {
            (Some(id), _) => id.clone(),
            (None, Some((kind, key))) => {
                identity(&[kind.name(), key, nanoseconds.as_deref().unwrap_or_default()])
            }
            (None, None) => at.to_owned(),
        };
        if let Some(aligned) = flat(budget.calendar_aligned) {
            self.lift("calendar_aligned inside a budget", at, "calendar_aligned");
            self.put(Entry {
                kind: Kind::Flag,
                at: at.to_owned(),
                key: key.clone(),
                fields: Fields {
                    calendar_aligned: Some(word(aligned)),
                    ..Fields::default()
                },
                ..Entry::default()
            });
        }
        let fresh = id.is_none().then(|| uuid::Uuid::new_v4().to_string());
        let (parent_kind, parent) = owner.unzip();
        let said = key.clone();
        self.put(Entry {
            kind: Kind::Budget,
            at: at.to_owned(),
            key,
            id,
            parent_kind,
            parent,
            present: present(&[true, true]),
            fields: Fields {
                max_limit: Some(limit),
                reset_duration: Some(budget.reset_duration),
                ..Fields::default()
            },
            nanoseconds,
            starts: unit.map(|unit| instant::text(unit.start(self.now))),
            fresh,
            ..Entry::default()
        });
        said
    }

    /// The budgets of an owner, in every form.
    fn put_owned(&mut self, at: &str, owner: (Kind, &str), owned: Owned) {
        let is_list = matches!(owned.budgets, Some(Some(_)));
        let mut keys: Vec<String> = flat(owned.budgets)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(position, budget)| {
                self.put_budget(&format!("{at}b{position}"), budget, Some(owner))
            })
            .collect();
        let of = owner.0.name();
        if let Some(Some(budget)) = owned.budget {
            self.lift(&format!("budget of a {of}"), at, "budget");
            keys.push(self.put_budget(&format!("{at}s"), budget, Some(owner)));
        }
        let claimed = flat(self.reference(at, "budget_id", owned.budget_id));
        if is_list {
            // What older forms say beside a list belongs to it.
            keys.extend(claimed.clone());
            self.list(at, owner, Kind::Budget, keys);
        }
        if let Some(budget) = claimed {
            self.lift(&format!("budget_id of a {of}"), at, "budget_id");
            self.owned(at, "budget_id", &budget, owner);
            self.put(Entry {
                kind: Kind::Claim,
                at: at.to_owned(),
                key: budget,
                parent_kind: Some(owner.0),
                parent: Some(owner.1.to_owned()),
                ..Entry::default()
            });
        }
    }

    /// A list that is complete, with what is in it.
    fn list(&mut self, at: &str, owner: (Kind, &str), of: Kind, mut keys: Vec<String>) {
        keys.sort_unstable();
        self.put(Entry {
            kind: Kind::List,
            at: at.to_owned(),
            key: list_key(of, owner.0, owner.1),
            id: Some(of.name().to_owned()),
            parent_kind: Some(owner.0),
            parent: Some(owner.1.to_owned()),
            fields: Fields {
                name: Some(digest(&[serde_json::json!(keys).to_string().as_bytes()])),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }

    fn provider_config(
        &mut self,
        at: &str,
        key: &str,
        place: usize,
        config: ProviderConfig,
    ) -> String {
        let number = flat(config.id);
        let provider =
            flat(self.text(at, "provider", Some(Some(config.provider)))).unwrap_or_default();
        if provider.is_empty() {
            self.wrong(at, "provider", "is empty");
        }
        if let Some(Some(Number(weight))) = &config.weight
            && !finite(weight)
        {
            self.wrong(at, "weight", format!("{weight} is not finite"));
        }
        let identity = match number {
            Some(number) => {
                self.id(at, Kind::ProviderConfig, &number.to_string());
                format!("#{number}")
            }
            None => identity(&[key, &provider, &place.to_string()]),
        };
        let named = self.reference(at, "rate_limit_id", config.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, config.rate_limit);
        let every = config
            .key_ids
            .as_ref()
            .is_some_and(|ids| ids.as_deref().is_some_and(|ids| ids == ["*"]));
        if !every && config.key_ids.is_some() {
            self.unread(
                "$.governance.virtual_keys[].provider_configs[].key_ids".to_owned(),
                1,
            );
        }
        // Of every key, by either spelling.
        let allow_all_keys = if every {
            Some(Some(true))
        } else {
            config.allow_all_keys
        };
        let models = |list: &Field<Vec<String>>| {
            list.as_ref()
                .map(|list| serde_json::json!(list.as_deref().unwrap_or_default()).to_string())
        };
        let allowed_models = models(&config.allowed_models);
        let blacklisted_models = models(&config.blacklisted_models);
        for (field, list) in [
            ("allowed_models", &allowed_models),
            ("blacklisted_models", &blacklisted_models),
        ] {
            if list.as_ref().is_some_and(|list| list.contains("\\u0000")) {
                self.wrong(
                    at,
                    field,
                    "holds a NUL character, which no database column takes",
                );
            }
        }
        self.put(Entry {
            kind: Kind::ProviderConfig,
            at: at.to_owned(),
            key: identity.clone(),
            id: number.map(|number| number.to_string()),
            parent_kind: Some(Kind::VirtualKey),
            parent: Some(key.to_owned()),
            place: Some(place.to_string()),
            present: present(&[
                true,
                config.weight.is_some(),
                allowed_models.is_some(),
                blacklisted_models.is_some(),
                allow_all_keys.is_some(),
                rate_limit_id.is_some(),
            ]),
            fields: Fields {
                provider: Some(provider),
                weight: flat(config.weight).map(|Number(weight)| weight),
                allowed_models,
                blacklisted_models,
                allow_all_keys: flat(allow_all_keys).map(word),
                rate_limit_id: flat(rate_limit_id),
                ..Fields::default()
            },
            ..Entry::default()
        });
        self.put_owned(
            at,
            (Kind::ProviderConfig, &identity),
            Owned {
                budgets: config.budgets,
                budget: config.budget,
                budget_id: config.budget_id,
            },
        );
        identity
    }

    /// A key's value: of the environment where it says so. The text is never told.
    fn value(&mut self, at: &str, value: Field<String>) -> Option<String> {
        let value = flat(self.reference(at, "value", value))?;
        let Some(name) = value.strip_prefix("env.") else {
            self.literal(at, &value);
            return Some(value);
        };
        let found = (self.env)(name).filter(|found| !found.is_empty());
        match &found {
            None if name.is_empty() => self.wrong(at, "value", "env. names no variable"),
            None => self.wrong(at, "value", format!("the environment has no {name}")),
            Some(found) if found.contains('\0') => {
                self.wrong(at, "value", format!("{name} holds a NUL character"));
            }
            Some(found) if found.trim() != found || found.contains(['\n', '\r']) => self.wrong(
                at,
                "value",
                format!("{name} holds a line break, or white space around the value"),
            ),
            Some(found) if !found.starts_with(PREFIX) => self.wrong(
                at,
                "value",
                format!("{name} does not begin with {PREFIX}: the gateway would make another key"),
            ),
            Some(_) => {}
        }
        found
    }

    /// What is no `env.` reference has to be a key itself: whoever can read the file would hold a working one where a reference
    /// was taken for the secret.
    fn literal(&mut self, at: &str, value: &str) {
        let bare = value.trim();
        let lower = bare.to_ascii_lowercase();
        let refers =
            lower.starts_with("vault.") || lower.starts_with("env.") || bare.starts_with('$');
        if refers {
            self.wrong(
                at,
                "value",
                "looks like a reference, and only env.NAME, exactly so, is resolved",
            );
        } else if bare != value || value.contains(['\n', '\r']) {
            self.wrong(
                at,
                "value",
                "has a line break in it, or white space around it",
            );
        } else if !value.starts_with(PREFIX) {
            self.wrong(
                at,
                "value",
                format!("does not begin with {PREFIX}: the gateway would make another key"),
            );
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

    /// A rate limit inside of its owner stands for one of its own that the owner names.
    fn inline_rate_limit(
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

    fn put_rate_limit(&mut self, at: &str, entry: RateLimit) {
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

/// What identifies the list of an owner.
pub(super) fn list_key(of: Kind, owner: Kind, key: &str) -> String {
    format!("{}s of {} {key}", of.name(), owner.name())
}

impl<E: FnMut(String)> Sink for EntryWriter<'_, E> {
    fn rate_limit(&mut self, position: usize, entry: RateLimit) {
        self.put_rate_limit(&format!("r{position}"), entry);
    }

    fn customer(&mut self, position: usize, entry: Customer) {
        let at = &format!("c{position}");
        self.id(at, Kind::Customer, &entry.id);
        let name = self.name(at, Kind::Customer, entry.name);
        let budget_id = self.reference(at, "budget_id", entry.budget_id);
        if let Some(Some(budget)) = &budget_id {
            self.owned(at, "budget_id", budget, (Kind::Customer, &entry.id));
        }
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "budgets", some(entry.budgets));
        if entry.calendar_aligned.is_some() {
            self.unread("$.governance.customers[].calendar_aligned".to_owned(), 1);
        }
        self.put(Entry {
            kind: Kind::Customer,
            at: at.clone(),
            key: entry.id.clone(),
            id: Some(entry.id),
            present: present(&[name.is_some(), budget_id.is_some(), rate_limit_id.is_some()]),
            fields: Fields {
                name: flat(name),
                budget_id: flat(budget_id),
                rate_limit_id: flat(rate_limit_id),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }

    fn team(&mut self, position: usize, entry: Team) {
        let at = &format!("t{position}");
        self.id(at, Kind::Team, &entry.id);
        let name = self.name(at, Kind::Team, entry.name);
        let customer_id = self.reference(at, "customer_id", entry.customer_id);
        let budget_id = self.reference(at, "budget_id", entry.budget_id);
        if let Some(Some(budget)) = &budget_id {
            self.owned(at, "budget_id", budget, (Kind::Team, &entry.id));
        }
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "budgets", some(entry.budgets));
        self.put(Entry {
            kind: Kind::Team,
            at: at.clone(),
            key: entry.id.clone(),
            id: Some(entry.id),
            present: present(&[
                name.is_some(),
                customer_id.is_some(),
                budget_id.is_some(),
                rate_limit_id.is_some(),
                entry.calendar_aligned.is_some(),
            ]),
            fields: Fields {
                name: flat(name),
                customer_id: flat(customer_id),
                budget_id: flat(budget_id),
                rate_limit_id: flat(rate_limit_id),
                calendar_aligned: flat(entry.calendar_aligned).map(word),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }

    fn budget(&mut self, position: usize, entry: Budget) {
        self.put_budget(&format!("b{position}"), entry, None);
    }

    fn virtual_key(&mut self, position: usize, entry: VirtualKey) {
        let at = &format!("v{position}");
        let id = entry.id;
        self.id(at, Kind::VirtualKey, &id);
        let name = self.name(at, Kind::VirtualKey, entry.name);
        let description = self.text(at, "description", entry.description);
        let value = self.value(at, entry.value);
        if let Some(value) = &value {
            let place = format!("{at}.value").into_boxed_str();
            if self.seen.insert(short(&["value", value]), place).is_some() {
                self.wrong(at, "value", "is another virtual key's too");
            }
        }
        let mut team_id = self.reference(at, "team_id", entry.team_id);
        let mut customer_id = self.reference(at, "customer_id", entry.customer_id);
        match (&team_id, &customer_id) {
            (Some(Some(_)), Some(Some(_))) => {
                self.wrong(
                    at,
                    "customer_id",
                    "a virtual key has a team or a customer, not both",
                );
            }
            // Whoever moves to one leaves the other.
            (Some(Some(_)), None) => customer_id = Some(None),
            (None, Some(Some(_))) => team_id = Some(None),
            _ => {}
        }
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "expires_at", flat(entry.expires_at).is_some());
        let fresh = value
            .is_none()
            .then(|| format!("{PREFIX}{}", uuid::Uuid::new_v4()));
        self.put(Entry {
            kind: Kind::VirtualKey,
            at: at.clone(),
            key: id.clone(),
            id: Some(id.clone()),
            present: present(&[
                name.is_some(),
                description.is_some(),
                entry.is_active.is_some(),
                team_id.is_some(),
                customer_id.is_some(),
                rate_limit_id.is_some(),
                entry.calendar_aligned.is_some(),
            ]),
            fields: Fields {
                name: flat(name),
                description: flat(description),
                value_hash: value.as_deref().map(value_hash),
                value,
                is_active: flat(entry.is_active).map(word),
                team_id: flat(team_id),
                customer_id: flat(customer_id),
                rate_limit_id: flat(rate_limit_id),
                calendar_aligned: flat(entry.calendar_aligned).map(word),
                ..Fields::default()
            },
            fresh_hash: fresh.as_deref().map(value_hash),
            fresh,
            ..Entry::default()
        });
        self.put_owned(
            at,
            (Kind::VirtualKey, &id),
            Owned {
                budgets: entry.budgets,
                budget: entry.budget,
                budget_id: entry.budget_id,
            },
        );
        if let Some(Some(configs)) = entry.provider_configs {
            let mut keys = Vec::new();
            let mut places: HashMap<String, usize> = HashMap::new();
            for (position, config) in configs.into_iter().enumerate() {
                let mut place = 0;
                if flat(config.id).is_none() {
                    let place_of = places.entry(config.provider.clone()).or_default();
                    *place_of += 1;
                    place = *place_of;
                }
                keys.push(self.provider_config(&format!("{at}p{position}"), &id, place, config));
            }
            self.list(at, (Kind::VirtualKey, &id), Kind::ProviderConfig, keys);
        }
    }

    fn has_virtual_keys(&mut self) {
        self.notes.virtual_keys = true;
    }

    fn unread(&mut self, path: String, times: u64) {
        match self
            .notes
            .unread
            .iter_mut()
            .find(|(known, _)| *known == path)
        {
            Some((_, known)) => *known += times,
            None => self.notes.unread.push((path, times)),
        }
    }

    fn unknown(&mut self, section: &str) {
        if self.notes.allow_unread {
            self.unread(format!("$.governance.{section}"), 1);
            return;
        }
        let near = nearest_section(section).map_or_else(
            || "; --allow-unread goes on without it".to_owned(),
            |near| format!("; did you mean {near}?"),
        );
        self.problem(
            format!("$.governance.{section}"),
            format!("no gateway knows this section{near}"),
        );
    }
}
