//! The providers track: from Coder's chat providers to AI providers and the keys to them (`docs/upstream/coder.md`).

pub mod adoption;
pub mod coder;
pub mod cutover;
pub mod legacy;
mod m20260510_000001_providers_baseline;
mod m20260510_000002_gateway_keys;
mod m20260510_000003_provider_key_expand;
mod m20260510_000004_provider_key_backfill;
mod m20260510_000005_provider_key_contract;
pub mod policy;
pub mod tables;
mod versions;

use uuid::Uuid;

use crate::catalog::Catalog;
use crate::choice::Choice;
use crate::dialect::Dialect;
use crate::ledger;
use crate::migration::Migration;
use crate::track::{Definition, Track};

/// Who may have keys of their own. Tollgate reads `id` and `deleted` only.
pub const USERS: &str = "users";
/// The digests of the keys that ciphertext was made with.
pub const CRYPT_KEYS: &str = "dbcrypt_keys";
/// Legacy: one row per provider family, with its central key and policy.
pub const CHAT_PROVIDERS: &str = "chat_providers";
/// Legacy: the keys of users.
pub const CHAT_USER_KEYS: &str = "user_chat_provider_keys";
/// Which model is reached through which provider.
pub const MODEL_CONFIGS: &str = "chat_model_configs";
/// Providers, any number of each type.
pub const PROVIDERS: &str = "ai_providers";
/// Central keys, any number of each provider; the oldest is used.
pub const PROVIDER_KEYS: &str = "ai_provider_keys";
/// The keys of users.
pub const USER_KEYS: &str = "user_ai_provider_keys";
/// Keys with which gateway replicas authenticate.
pub const GATEWAY_KEYS: &str = "ai_gateway_keys";

/// The families that a chat provider can be of.
pub const FAMILIES: [&str; 8] = [
    "openai",
    "anthropic",
    "azure",
    "bedrock",
    "google",
    "openai-compat",
    "openrouter",
    "vercel",
];

/// The native enum of an AI provider's type: its name and labels.
pub const TYPE: (&str, [&str; 9]) = (
    "ai_provider_type",
    [
        "openai",
        "anthropic",
        "azure",
        "bedrock",
        "google",
        "openai-compat",
        "openrouter",
        "vercel",
        "copilot",
    ],
);

/// Before the name of every migrated provider.
pub const NAME_PREFIX: &str = "agents-";

/// The name space of the ids of migrated central keys, a random UUID that never changes.
pub(crate) const CENTRAL_KEYS: Uuid = Uuid::from_u128(0x2a91_c7d4_0b6e_4f53_8e1d_94c3_60af_71b8);

/// A live AI provider that holds the name of a migrated one is soft-deleted (P002).
pub const NAME_CONFLICTS: Choice = Choice {
    flag: "name-conflicts",
    variable: "TOLLGATE_NAME_CONFLICTS",
    word: Some((
        "retire",
        "Soft-deleted, so that the migrated provider can have the name",
    )),
    about: "What happens to AI providers that hold the name of a migrated one: `retire` soft-deletes them",
    prepares: true,
};

/// An active model config whose provider has no row is soft-deleted (P003).
pub const ORPHANED_MODELS: Choice = Choice {
    flag: "orphaned-models",
    variable: "TOLLGATE_ORPHANED_MODELS",
    word: Some(("retire", "Soft-deleted; chats on it use the default model")),
    about: "What happens to active model configs whose provider has no row: `retire` soft-deletes them",
    prepares: true,
};

/// It is accepted that policy flags of chat providers go (P004).
pub const ACCEPT_POLICY_CHANGE: Choice = Choice {
    flag: "accept-policy-change",
    variable: "TOLLGATE_ACCEPT_POLICY_CHANGE",
    word: None,
    about: "Go on although policy flags of chat providers go; `doctor` says what changes for whom",
    prepares: true,
};

/// The track's migrations, oldest first.
pub const MIGRATIONS: &[&Migration] = &[
    &m20260510_000001_providers_baseline::MIGRATION,
    &m20260510_000002_gateway_keys::MIGRATION,
    &m20260510_000003_provider_key_expand::MIGRATION,
    &m20260510_000004_provider_key_backfill::MIGRATION,
    &m20260510_000005_provider_key_contract::MIGRATION,
];

/// Whether AI providers that were copied from chat providers are there: upstream's own copy has run, or Tollgate's.
pub const COPIED: &str = "providers_copied";

const DEFINITION: Definition = Definition {
    name: "providers",
    gateway: "Coder",
    ledger_table: ledger::SCHEMA_MIGRATIONS,
    versions: &versions::VERSIONS,
    gateway_lock: Some(1_037_453_835_920_848_937),
    migrations: MIGRATIONS,
    goldens: crate::goldens!("schema/providers":
        "m20260510_000001_providers_baseline",
        "m20260510_000002_gateway_keys",
        "m20260510_000003_provider_key_expand",
        "m20260510_000004_provider_key_backfill",
        "m20260510_000005_provider_key_contract",
    ),
    marker_tables: &[CHAT_PROVIDERS, CHAT_USER_KEYS, PROVIDERS],
    signs: None,
    reads: &[],
    common_names: &[USERS],
    is_foreign_table: |_, _| false,
    recognise: adoption::recognise,
    newer_than_supported: |_| Vec::new(),
    inherited_types: &[],
    is_later_upstream: adoption::is_later_upstream,
    asks: &[(COPIED, adoption::copied)],
    choices: &[NAME_CONFLICTS, ORPHANED_MODELS, ACCEPT_POLICY_CHANGE],
};

impl Track {
    /// Coder's AI providers and the keys to them.
    pub const PROVIDERS: Self = Self::new(&DEFINITION);
}

/// Whether the legacy tables are there.
pub fn has_legacy(catalog: &Catalog) -> bool {
    // A table of that name that came after contract may be anything.
    let has = |table: &str, columns: &[&str]| {
        columns
            .iter()
            .all(|column| catalog.has_column(table, column))
    };
    has(CHAT_PROVIDERS, &["id", "provider", "api_key", "updated_at"])
        && has(
            CHAT_USER_KEYS,
            &["id", "user_id", "chat_provider_id", "updated_at"],
        )
}

/// Whether the new tables are there, with the model configs' link.
pub fn has_new(catalog: &Catalog) -> bool {
    [PROVIDERS, PROVIDER_KEYS, USER_KEYS]
        .iter()
        .all(|table| catalog.has_table(table))
        && catalog.has_column(MODEL_CONFIGS, "ai_provider_id")
}

/// The condition that one time is after another, to the last digit and whatever the spelling.
pub fn is_after(dialect: Dialect, one: &str, other: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("{one} > {other}"),
        Dialect::Sqlite => {
            let (one, other) = (parts(one), parts(other));
            format!("({}, {}) > ({}, {})", one.0, one.1, other.0, other.1)
        }
    }
}

/// The order of times, each expression with its direction.
pub fn by_time(dialect: Dialect, time: &str, direction: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("{time} {direction}"),
        Dialect::Sqlite => {
            let (second, fraction) = parts(time);
            // What cannot be read comes last, whatever is asked for.
            format!("{second} IS NULL, {second} {direction}, {fraction} {direction}")
        }
    }
}

/// SQLite's times are texts: the whole second as a number, without the fraction, which SQLite would round to milliseconds;
/// and the fraction.
fn parts(time: &str) -> (String, String) {
    let behind = format!("substr({time}, instr({time}, '.') + 1)");
    (
        format!(
            "CAST(strftime('%s', CASE WHEN instr({time}, '.') > 0 THEN substr({time}, 1, instr({time}, '.') - 1) \
             || ltrim({behind}, '0123456789') ELSE {time} END) AS integer)"
        ),
        format!(
            "CASE WHEN instr({time}, '.') > 0 THEN CAST('0.' || {behind} AS real) ELSE 0.0 END"
        ),
    )
}

/// The condition that two times are one instant.
pub(crate) fn is_same_time(dialect: Dialect, one: &str, other: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("{one} = {other}"),
        Dialect::Sqlite => {
            let (one, other) = (parts(one), parts(other));
            format!("({}, {}) = ({}, {})", one.0, one.1, other.0, other.1)
        }
    }
}

/// The condition that a user is not soft-deleted; true where users have no such flag.
pub fn is_present(catalog: &Catalog, user: &str) -> String {
    if catalog.has_column(USERS, "deleted") {
        format!(
            "NOT ({})",
            catalog.dialect.is_true(&format!("{user}.deleted"))
        )
    } else {
        "1 = 1".to_owned()
    }
}

/// An id as text.
pub fn text(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("{column}::text"),
        Dialect::Sqlite => format!("CAST({column} AS text)"),
    }
}

/// The type of a family's text.
pub(crate) fn as_type(dialect: Dialect, column: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST({column} AS {})", TYPE.0),
        Dialect::Sqlite => column.to_owned(),
    }
}
