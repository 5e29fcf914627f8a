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
            Self::List => "list",
            Self::Claim => "claim",
            Self::Flag => "flag",
        }
    }
}

/// One entry. Everything is text on its way to the database, where it becomes what its column is: no amount passes
/// through a number of this program.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Entry {
    pub kind: Kind,
    /// Where it stands in the file, in short: `v17p0b2` is `virtual_keys[17].provider_configs[0].budgets[2]`.
    pub at: String,
    /// What identifies it from one file to the next.
    pub key: String,
    /// The id that the file gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The kind of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_kind: Option<Kind>,
    /// The `key` of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The id of its owner's row, of owners that are known by the id in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// Of provider configs without an id: the how many-th of its provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Which of its fields the file has, by their position.
    pub present: u64,
    pub hash: String,
    #[serde(flatten)]
    pub fields: Fields,
    /// Of budgets: the length of the window, by which they are matched. When a new window begins on the calendar, of rate
    /// limits for tokens and for requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nanoseconds: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_starts: Option<String>,
    /// What a new row gets when the file gives none: a virtual key's value with its hash, a budget's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_hash: Option<String>,
}

/// The fields of every kind.
#[derive(Clone, Debug, Default, Serialize)]
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

/// The columns of the table of entries that come from the file, in the spelling of [`Entry`]'s JSON.
pub(super) const COLUMNS: [&str; 36] = [
    "kind",
    "at",
    "key",
    "id",
    "parent_kind",
    "parent",
    "owner_id",
    "place",
    "present",
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

/// The first half of SHA-256, in hexadecimal.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A value's hash as the gateway stores it.
pub(super) fn value_hash(value: &str) -> String {
    Sha256::digest(value.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
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
