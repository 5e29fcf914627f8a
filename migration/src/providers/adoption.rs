//! Which version of the providers schema a database without history stands at (`docs/upstream/coder.md` §A1 to §A3).

use crate::adoption::{Recognised, Unknown};
use crate::catalog::Catalog;
use crate::context::Context;

use super::cutover::migrated_name;
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, CRYPT_KEYS, GATEWAY_KEYS, MODEL_CONFIGS, PROVIDER_KEYS,
    PROVIDERS, USER_KEYS, USERS, has_legacy, has_new,
};

/// The name that gateway keys had before.
pub const GATEWAY_KEYS_BEFORE: &str = "ai_gateway_coderd_keys";

/// Columns that the track's migrations read or write. Everything else on a real database is optional.
const SHARED: [(&str, &[&str]); 3] = [
    (USERS, &["id"]),
    (CRYPT_KEYS, &["active_key_digest"]),
    (MODEL_CONFIGS, &["id", "deleted"]),
];
/// Legacy columns by table, each of which has a place behind the cutover or is named where it has none (P004).
pub const LEGACY: [(&str, &[&str]); 3] = [
    (
        CHAT_PROVIDERS,
        &[
            "id",
            "provider",
            "display_name",
            "api_key",
            "api_key_key_id",
            "enabled",
            "created_at",
            "updated_at",
            "base_url",
            "central_api_key_enabled",
            "allow_user_api_key",
            "allow_central_api_key_fallback",
        ],
    ),
    (
        CHAT_USER_KEYS,
        &[
            "id",
            "user_id",
            "chat_provider_id",
            "api_key",
            "api_key_key_id",
            "created_at",
            "updated_at",
        ],
    ),
    (MODEL_CONFIGS, &["provider"]),
];
const NEW: [(&str, &[&str]); 4] = [
    (
        PROVIDERS,
        &[
            "id",
            "type",
            "name",
            "display_name",
            "enabled",
            "deleted",
            "base_url",
            "settings",
            "created_at",
            "updated_at",
        ],
    ),
    (
        PROVIDER_KEYS,
        &[
            "id",
            "provider_id",
            "api_key",
            "api_key_key_id",
            "created_at",
            "updated_at",
        ],
    ),
    (
        USER_KEYS,
        &[
            "id",
            "user_id",
            "ai_provider_id",
            "api_key",
            "api_key_key_id",
            "created_at",
            "updated_at",
        ],
    ),
    (MODEL_CONFIGS, &["ai_provider_id"]),
];

/// A query that finds a row where the copy has run: an AI provider with the id and the name of a chat provider. `None`
/// where the schema cannot have one.
pub(crate) fn copied(catalog: &Catalog) -> Option<String> {
    (has_legacy(catalog)
        && ["id", "name"]
            .iter()
            .all(|column| catalog.has_column(PROVIDERS, column))
        && ["id", "provider"]
            .iter()
            .all(|column| catalog.has_column(CHAT_PROVIDERS, column)))
    .then(|| {
        format!(
            "SELECT 1 AS one FROM {PROVIDERS} n JOIN {CHAT_PROVIDERS} p ON p.id = n.id AND n.name = {} LIMIT 1",
            migrated_name()
        )
    })
}

/// Recognises a database.
///
/// # Errors
/// [`Unknown`] with every difference from the nearest version.
pub fn recognise(context: &Context) -> Result<Recognised, Unknown> {
    let catalog = &context.catalog;
    let legacy = catalog.has_table(CHAT_PROVIDERS) || catalog.has_table(CHAT_USER_KEYS);
    let expanded = has_new(catalog);
    let mut differences = missing(catalog, &SHARED);
    if legacy {
        differences.extend(missing(catalog, &LEGACY));
    }
    if expanded || !legacy {
        differences.extend(missing(catalog, &NEW));
    }
    if !differences.is_empty() {
        return Err(Unknown {
            nearest: match (legacy, expanded) {
                (true, false) => "Coder before the provider-key cutover",
                (true, true) => "Coder in the middle of the provider-key cutover",
                (false, _) => "Coder behind the provider-key cutover",
            },
            differences,
        });
    }
    let finished = catalog.table(MODEL_CONFIGS).is_some_and(|table| {
        table
            .check("chat_model_configs_ai_provider_required_when_active")
            .is_some_and(|check| check.validated)
    });
    let mut applied = vec!["providers_baseline"];
    if [GATEWAY_KEYS, GATEWAY_KEYS_BEFORE]
        .iter()
        .any(|table| catalog.has_table(table))
    {
        applied.push("gateway_keys");
    }
    let (shape, more): (&'static str, &[&'static str]) = match (legacy, expanded) {
        (true, false) => ("Coder, before the provider-key cutover", &[]),
        (true, true) if context.answers.contains(super::COPIED) => (
            "Coder, provider keys copied (504), old code still served",
            &["provider_key_expand", "provider_key_backfill"],
        ),
        (true, true) => (
            "Coder, tables for provider keys there (503), nothing copied",
            &["provider_key_expand"],
        ),
        (false, _) if finished => (
            "Coder, behind the provider-key cutover (505)",
            &[
                "provider_key_expand",
                "provider_key_backfill",
                "provider_key_contract",
            ],
        ),
        (false, _) => (
            "Coder, behind the provider-key cutover (505), without its check on model configs",
            &["provider_key_expand", "provider_key_backfill"],
        ),
    };
    applied.extend(more);
    Ok(Recognised {
        shape,
        applied,
        created: None,
    })
}

fn missing(catalog: &Catalog, required: &[(&str, &[&str])]) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, columns) in required {
        let Some(live) = catalog.table(table) else {
            differences.push(format!("there is no table {table}"));
            continue;
        };
        differences.extend(
            columns
                .iter()
                .filter(|column| live.column(column).is_none())
                .map(|column| format!("{table} has no column {column}")),
        );
    }
    differences
}

/// What upstream's later migrations take away (§A2, §A5).
const TAKEN: [&str; 4] = [
    // Renamed to last_heartbeat_at.
    "ai_gateway_keys column last_used_at",
    "chat_model_configs column provider",
    "chat_model_configs index idx_chat_model_configs_provider",
    "chat_model_configs index idx_chat_model_configs_provider_model",
];

/// Whether a difference is the work of a later upstream. The definition is the one that is there or was expected.
pub fn is_later_upstream(object: &str, definition: &str, expected: bool) -> bool {
    if expected {
        return TAKEN.contains(&object);
    }
    // Gateway replicas write when they were last heard of.
    object == "ai_gateway_keys column last_heartbeat_at"
        && ["timestamptz", "datetime"]
            .iter()
            .any(|kind| definition.starts_with(kind))
}
