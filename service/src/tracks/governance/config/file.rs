//! The governance section of a config file, read entry by entry: whatever its size, one entry is in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::nearest::nearest;

/// A field: absent, null, or with a value.
pub(super) type Field<T> = Option<Option<T>>;

fn field<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Field<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A JSON number as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number(pub String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let what = match text.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => return Ok(Self(text.to_owned())),
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'n') => "null",
            _ => "a boolean",
        };
        Err(D::Error::custom(format!(
            "invalid type: {what}, expected a number"
        )))
    }
}

/// A number that may be null.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Field<Number>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    if raw.get() == "null" {
        return Ok(Some(None));
    }
    Number::deserialize(&*raw)
        .map(|number| Some(Some(number)))
        .map_err(D::Error::custom)
}

#[derive(Debug, Deserialize)]
pub(super) struct RateLimit {
    #[serde(default, deserialize_with = "field")]
    pub id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub token_max_limit: Field<i64>,
    #[serde(default, deserialize_with = "field")]
    pub token_reset_duration: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub request_max_limit: Field<i64>,
    #[serde(default, deserialize_with = "field")]
    pub request_reset_duration: Field<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Customer {
    pub id: String,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit: Field<RateLimit>,
    #[serde(default, deserialize_with = "field")]
    pub budgets: Field<Vec<IgnoredAny>>,
    #[serde(default, deserialize_with = "field")]
    pub calendar_aligned: Field<bool>,
    #[serde(default, deserialize_with = "field")]
    pub name: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub budget_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit_id: Field<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Team {
    pub id: String,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit: Field<RateLimit>,
    #[serde(default, deserialize_with = "field")]
    pub budgets: Field<Vec<IgnoredAny>>,
    #[serde(default, deserialize_with = "field")]
    pub name: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub customer_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub budget_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub calendar_aligned: Field<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Budget {
    #[serde(default, deserialize_with = "field")]
    pub id: Field<String>,
    pub max_limit: Number,
    pub reset_duration: String,
    #[serde(default, deserialize_with = "field")]
    pub calendar_aligned: Field<bool>,
    #[serde(default, deserialize_with = "field")]
    pub virtual_key_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub provider_config_id: Field<i64>,
    #[serde(default, deserialize_with = "field")]
    pub team_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub customer_id: Field<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProviderConfig {
    #[serde(default, deserialize_with = "field")]
    pub id: Field<i64>,
    pub provider: String,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit: Field<RateLimit>,
    #[serde(default, deserialize_with = "field")]
    pub key_ids: Field<Vec<String>>,
    #[serde(default, deserialize_with = "number")]
    pub weight: Field<Number>,
    #[serde(default, deserialize_with = "field")]
    pub allowed_models: Field<Vec<String>>,
    #[serde(default, deserialize_with = "field")]
    pub blacklisted_models: Field<Vec<String>>,
    #[serde(default, deserialize_with = "field")]
    pub allow_all_keys: Field<bool>,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub budgets: Field<Vec<Budget>>,
    #[serde(default, deserialize_with = "field")]
    pub budget: Field<Budget>,
    #[serde(default, deserialize_with = "field")]
    pub budget_id: Field<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct VirtualKey {
    pub id: String,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit: Field<RateLimit>,
    #[serde(default, deserialize_with = "field")]
    pub expires_at: Field<IgnoredAny>,
    #[serde(default, deserialize_with = "field")]
    pub name: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub description: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub value: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub is_active: Field<bool>,
    #[serde(default, deserialize_with = "field")]
    pub team_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub customer_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub rate_limit_id: Field<String>,
    #[serde(default, deserialize_with = "field")]
    pub calendar_aligned: Field<bool>,
    #[serde(default, deserialize_with = "field")]
    pub budgets: Field<Vec<Budget>>,
    #[serde(default, deserialize_with = "field")]
    pub provider_configs: Field<Vec<ProviderConfig>>,
    #[serde(default, deserialize_with = "field")]
    pub budget: Field<Budget>,
    #[serde(default, deserialize_with = "field")]
    pub budget_id: Field<String>,
}

/// Who takes the entries, each with its position.
pub(super) trait Sink {
    fn rate_limit(&mut self, position: usize, entry: RateLimit);
    fn customer(&mut self, position: usize, entry: Customer);
    fn team(&mut self, position: usize, entry: Team);
    fn budget(&mut self, position: usize, entry: Budget);
    fn virtual_key(&mut self, position: usize, entry: VirtualKey);
    /// The section of virtual keys is there.
    fn has_virtual_keys(&mut self);
    /// A key of an object that nobody reads; positions are left out of its path.
    fn unread(&mut self, path: String, times: u64);
    /// A section that no gateway knows.
    fn unknown(&mut self, section: &str);
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub path: String,
    pub message: String,
}

/// What stands beside the governance section and says how that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// An empty list means all, and so does an absent one: what version 1 means (`docs/upstream/bifrost.md` §5).
    pub empty_means_all: bool,
    /// The providers of the file.
    pub providers: Vec<String>,
}

#[derive(Deserialize)]
struct WrittenHead {
    version: Option<Box<RawValue>>,
    providers: Option<Box<RawValue>>,
}

impl Head {
    /// Reads over the whole file: the order of its parts is anybody's.
    ///
    /// # Errors
    /// A version that no gateway knows. What is no config file at all is told by whoever reads its entries.
    pub(super) fn read(reader: impl Read) -> Result<Self, Problem> {
        let Ok(written) = serde_json::from_reader::<_, WrittenHead>(reader) else {
            return Ok(Self::default());
        };
        let version = written.version.as_deref().map_or("null", RawValue::get);
        let empty_means_all = match version {
            "1" => true,
            "2" | "null" => false,
            _ => {
                return Err(Problem {
                    path: "$.version".to_owned(),
                    message: "no gateway knows this version: 1 (an empty list means all) or 2 (it means none)"
                        .to_owned(),
                });
            }
        };
        let providers = written
            .providers
            .and_then(|map| serde_json::from_str::<BTreeMap<String, IgnoredAny>>(map.get()).ok())
            .unwrap_or_default();
        Ok(Self {
            empty_means_all,
            providers: providers.into_keys().collect(),
        })
    }
}

/// Reads a file to its end.
pub(super) fn read(reader: impl Read, sink: &mut impl Sink) -> Result<(), Problem> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    let mut track = serde_path_to_error::Track::new();
    let mut unread: BTreeMap<String, u64> = BTreeMap::new();
    let read = {
        let mut ignored = |path: serde_ignored::Path<'_>| {
            // A section as a whole is told apart by its name.
            if let Some(path) = pattern(&path.to_string())
                && path.matches('.').count() > 2
            {
                *unread.entry(path).or_default() += 1;
            }
        };
        let deserializer = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        Root(sink).deserialize(serde_ignored::Deserializer::new(deserializer, &mut ignored))
    };
    let problem = |path: String, message: String| Problem { path, message };
    read.map_err(|error: serde_json::Error| {
        // What could not be read has no name yet.
        let path = track.path().to_string().replace(".?", "");
        let path = match path.as_str() {
            "." | "?" => "$".to_owned(),
            path => format!("$.{path}"),
        };
        problem(path, without_values(&error.to_string()))
    })?;
    json.end()
        .map_err(|error| problem("$".to_owned(), error.to_string()))?;
    for (path, times) in unread {
        sink.unread(path, times);
    }
    Ok(())
}

/// A message without the value that was found in the place of another: it may be a key's.
fn without_values(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else {
        return message.to_owned();
    };
    let found = found
        .split(['`', '"'])
        .next()
        .unwrap_or_default()
        .trim_end();
    format!("{found}, expected {expected}")
}

/// `governance.virtual_keys.3.mcp_configs` as `$.governance.virtual_keys[].mcp_configs`; nothing outside of governance.
fn pattern(path: &str) -> Option<String> {
    let rest = path.strip_prefix("governance.")?;
    let mut pattern = "$.governance".to_owned();
    for part in rest.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            pattern.push_str("[]");
        } else {
            pattern.push('.');
            pattern.push_str(part);
        }
    }
    Some(pattern)
}

struct Root<'a, S>(&'a mut S);

impl<'de, S: Sink> DeserializeSeed<'de> for Root<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Root<'_, S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a governance section")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "governance" {
                if std::mem::replace(&mut found, true) {
                    return Err(A::Error::duplicate_field("governance"));
                }
                map.next_value_seed(Governance(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found {
            Ok(())
        } else {
            Err(A::Error::missing_field("governance"))
        }
    }
}

struct Governance<'a, S>(&'a mut S);

impl<'de, S: Sink> DeserializeSeed<'de> for Governance<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

const SECTIONS: [&str; 5] = [
    "rate_limits",
    "customers",
    "teams",
    "budgets",
    "virtual_keys",
];

impl<'de, S: Sink> Visitor<'de> for Governance<'_, S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("an object with virtual_keys, teams, customers, budgets and rate_limits")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let sink = self.0;
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(section) = SECTIONS.into_iter().find(|section| *section == key) else {
                map.next_value::<IgnoredAny>()?;
                if OTHER_SECTIONS.contains(&key.as_str()) {
                    sink.unread(format!("$.governance.{key}"), 1);
                } else {
                    sink.unknown(&key);
                }
                continue;
            };
            if seen.contains(&section) {
                return Err(A::Error::duplicate_field(section));
            }
            seen.push(section);
            match section {
                "rate_limits" => {
                    map.next_value_seed(Section::new(|i, entry| sink.rate_limit(i, entry)))?;
                }
                "customers" => {
                    map.next_value_seed(Section::new(|i, entry| sink.customer(i, entry)))?;
                }
                "teams" => {
                    map.next_value_seed(Section::new(|i, entry| sink.team(i, entry)))?;
                }
                "budgets" => {
                    map.next_value_seed(Section::new(|i, entry| sink.budget(i, entry)))?;
                }
                _ => {
                    if map.next_value_seed(Section::new(|i, entry| sink.virtual_key(i, entry)))? {
                        sink.has_virtual_keys();
                    }
                }
            }
        }
        Ok(())
    }
}

/// Sections of the gateway's that are not read here (`docs/upstream/bifrost.md` §5).
const OTHER_SECTIONS: [&str; 6] = [
    "model_configs",
    "providers",
    "routing_rules",
    "auth_config",
    "pricing_overrides",
    "complexity_analyzer_config",
];

/// The section that a word may stand for.
pub(super) fn nearest_section(word: &str) -> Option<&'static str> {
    let snake: String = word
        .chars()
        .flat_map(|letter| {
            let upper = letter.is_ascii_uppercase();
            upper
                .then_some('_')
                .into_iter()
                .chain([letter.to_ascii_lowercase()])
        })
        .collect();
    nearest(
        snake.trim_start_matches('_'),
        SECTIONS.into_iter().chain(OTHER_SECTIONS),
    )
}

/// A list of entries, or null. Gives back whether it is there.
struct Section<T, F> {
    take: F,
    entry: std::marker::PhantomData<T>,
}

impl<T, F: FnMut(usize, T)> Section<T, F> {
    fn new(take: F) -> Self {
        Self {
            take,
            entry: std::marker::PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(usize, T)> DeserializeSeed<'de> for Section<T, F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(usize, T)> Visitor<'de> for Section<T, F> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_none<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<bool, A::Error> {
        let mut position = 0;
        while let Some(entry) = list.next_element()? {
            (self.take)(position, entry);
            position += 1;
        }
        Ok(true)
    }
}
