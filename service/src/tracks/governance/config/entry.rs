//! What the file says, as rows that a database can be asked about.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// A kind of entry, as it is written in the table of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    #[default]
    RateLimit,
    Customer,
    Team,
    VirtualKey,
    ProviderConfig,
    Budget,
    /// A key that a provider config may use.
    KeyId,
    /// A list that is present, and so complete for its owner.
    List,
    /// A budget that an owner names by the legacy `budget_id`.
    Claim,
    /// A legacy `calendar_aligned` inside a budget, for the budget's owner.
    Flag,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Customer => "customer",
            Self::Team => "team",
            Self::VirtualKey => "virtual_key",
            Self::ProviderConfig => "provider_config",
            Self::Budget => "budget",
            Self::KeyId => "key_id",
            Self::List => "list",
            Self::Claim => "claim",
            Self::Flag => "flag",
        }
    }
}

/// One entry. Everything is text on its way to the database, where it becomes what its column is: no amount passes
/// through a number of this program.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub kind: Kind,
    /// Where it stands in the file, in short: `v17p0b2` is `virtual_keys[17].provider_configs[0].budgets[2]`.
    pub at: String,
    /// What identifies it from one file to the next.
    pub key: String,
    /// The id that the file gives it.
    pub id: Option<String>,
    /// The kind of its owner.
    pub parent_kind: Option<Kind>,
    /// The `key` of its owner.
    pub parent: Option<String>,
    /// The id of its owner's row, of owners that are known by the id in the file.
    pub owner_id: Option<String>,
    /// Of provider configs without an id: the how many-th of its provider.
    pub place: Option<String>,
    /// Which of its fields the file has, by their position.
    pub present: u64,
    pub hash: String,
    pub fields: Fields,
    /// Of budgets: the length of the window, by which they are matched. When a new window begins on the calendar, of rate
    /// limits for tokens and for requests.
    pub nanoseconds: Option<String>,
    pub starts: Option<String>,
    pub request_starts: Option<String>,
    /// What a new row gets when the file gives none: a virtual key's value with its hash, a budget's id.
    pub fresh: Option<String>,
    pub fresh_hash: Option<String>,
}

/// The fields of every kind. Hashes that databases remember are made of them in this order.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(super) struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_active: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar_aligned: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blacklisted_models: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_all_keys: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_max_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_reset_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_max_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_reset_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_duration: Option<String>,
}

/// The columns of the table of entries that come from the file, but for [`PRESENT`]; in the order of [`Entry::cells`].
pub(super) const COLUMNS: [&str; 35] = [
    "kind",
    "at",
    "key",
    "id",
    "parent_kind",
    "parent",
    "owner_id",
    "place",
    "hash",
    "name",
    "description",
    "value",
    "value_hash",
    "is_active",
    "team_id",
    "customer_id",
    "budget_id",
    "rate_limit_id",
    "calendar_aligned",
    "provider",
    "weight",
    "allowed_models",
    "blacklisted_models",
    "allow_all_keys",
    "token_max_limit",
    "token_reset_duration",
    "request_max_limit",
    "request_reset_duration",
    "max_limit",
    "reset_duration",
    "nanoseconds",
    "starts",
    "request_starts",
    "fresh",
    "fresh_hash",
];

/// The column of [`Entry::present`], the only number.
pub(super) const PRESENT: &str = "present";

impl Entry {
    /// What stands in each of [`COLUMNS`].
    pub(super) fn cells(&self) -> [Option<&str>; COLUMNS.len()] {
        [
            Some(self.kind.name()),
            Some(&self.at),
            Some(&self.key),
            self.id.as_deref(),
            self.parent_kind.map(Kind::name),
            self.parent.as_deref(),
            self.owner_id.as_deref(),
            self.place.as_deref(),
            Some(&self.hash),
            self.fields.name.as_deref(),
            self.fields.description.as_deref(),
            self.fields.value.as_deref(),
            self.fields.value_hash.as_deref(),
            self.fields.is_active.as_deref(),
            self.fields.team_id.as_deref(),
            self.fields.customer_id.as_deref(),
            self.fields.budget_id.as_deref(),
            self.fields.rate_limit_id.as_deref(),
            self.fields.calendar_aligned.as_deref(),
            self.fields.provider.as_deref(),
            self.fields.weight.as_deref(),
            self.fields.allowed_models.as_deref(),
            self.fields.blacklisted_models.as_deref(),
            self.fields.allow_all_keys.as_deref(),
            self.fields.token_max_limit.as_deref(),
            self.fields.token_reset_duration.as_deref(),
            self.fields.request_max_limit.as_deref(),
            self.fields.request_reset_duration.as_deref(),
            self.fields.max_limit.as_deref(),
            self.fields.reset_duration.as_deref(),
            self.nanoseconds.as_deref(),
            self.starts.as_deref(),
            self.request_starts.as_deref(),
            self.fresh.as_deref(),
            self.fresh_hash.as_deref(),
        ]
    }
}

/// The first half of SHA-256.
pub(super) fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

/// The same in hexadecimal.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    hexadecimal(&short_digest(parts))
}

/// A value's hash as the gateway stores it.
pub(super) fn value_hash(value: &str) -> String {
    hexadecimal(&Sha256::digest(value.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// A place in the file, from its short form: `$.governance.virtual_keys[17].budgets[2]`.
pub(super) fn path(at: &str) -> String {
    let mut path = "$.governance".to_owned();
    let mut rest = at;
    while let Some(letter) = rest.chars().next() {
        let digits: String = rest[1..].chars().take_while(char::is_ascii_digit).collect();
        let name = match letter {
            'r' => "rate_limits",
            'c' => "customers",
            't' => "teams",
            'v' => "virtual_keys",
            'p' => "provider_configs",
            's' => "budget",
            'l' => "rate_limit",
            _ => "budgets",
        };
        path.push('.');
        path.push_str(name);
        if !digits.is_empty() {
            path.push_str(&format!("[{digits}]"));
        }
        rest = &rest[1 + digits.len()..];
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_stands_under_its_column() {
        // A field's value is its own name.
        let fields: Fields = serde_json::from_value(
            COLUMNS
                .iter()
                .map(|column| ((*column).to_owned(), (*column).into()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        )
        .expect("fields");
        let text = |name: &str| Some(name.to_owned());
        let entry = Entry {
            kind: Kind::Budget,
            at: "at".to_owned(),
            key: "key".to_owned(),
            id: text("id"),
            parent_kind: Some(Kind::Team),
            parent: text("parent"),
            owner_id: text("owner_id"),
            place: text("place"),
            present: 0,
            hash: "hash".to_owned(),
            fields,
            nanoseconds: text("nanoseconds"),
            starts: text("starts"),
            request_starts: text("request_starts"),
            fresh: text("fresh"),
            fresh_hash: text("fresh_hash"),
        };
        for (column, cell) in COLUMNS.iter().zip(entry.cells()) {
            let expected = match *column {
                "kind" => "budget",
                "parent_kind" => "team",
                other => other,
            };
            assert_eq!(cell, Some(expected), "{column}");
        }
    }

    #[test]
    fn fields_are_hashed_in_the_order_that_databases_remember() {
        let fields = Fields {
            allow_all_keys: Some("1".to_owned()),
            provider: Some("openai".to_owned()),
            name: Some("a".to_owned()),
            ..Fields::default()
        };
        assert_eq!(
            serde_json::to_string(&fields).expect("JSON"),
            r#"{"name":"a","provider":"openai","allow_all_keys":"1"}"#
        );
    }

    #[test]
    fn places_are_paths() {
        for (at, expected) in [
            ("b0", "$.governance.budgets[0]"),
            ("v17", "$.governance.virtual_keys[17]"),
            ("v17b2", "$.governance.virtual_keys[17].budgets[2]"),
            (
                "v17p0b2",
                "$.governance.virtual_keys[17].provider_configs[0].budgets[2]",
            ),
            ("v3s", "$.governance.virtual_keys[3].budget"),
            ("v3l", "$.governance.virtual_keys[3].rate_limit"),
            ("r1", "$.governance.rate_limits[1]"),
            ("t1", "$.governance.teams[1]"),
            ("c1", "$.governance.customers[1]"),
        ] {
            assert_eq!(path(at), expected);
        }
    }
}
