//! What the legacy schema can say of the new one (`reference/coder.md` §A3, both downs): one provider of each family, one
//! key of it, one key of each user. The rest stays in the new tables and is a loss.

use crate::catalog::Catalog;
use crate::dialect::Dialect;

use super::cutover::{self, is_used};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, FAMILIES, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS,
    USER_KEYS, by_time, is_after, text,
};
use crate::plan::Loss;

/// Newest first.
fn newest(dialect: Dialect, column: &str) -> String {
    by_time(dialect, column, "DESC")
}

fn first(condition: &str) -> String {
    format!("CASE WHEN {condition} THEN 0 ELSE 1 END")
}

/// The provider of each family that a legacy row can stand for: `id`, `provider`, and its other columns. Enabled before
/// disabled, with a key before without, then the newest, then the lowest id.
fn picks(dialect: Dialect) -> String {
    let family = text(dialect, "n.type");
    format!(
        "SELECT * FROM (SELECT n.id, {family} AS provider, n.display_name, n.enabled, n.base_url, n.created_at, \
         n.updated_at, row_number() OVER (PARTITION BY n.type ORDER BY {}, {}, {}, n.id) AS place \
         FROM {PROVIDERS} n WHERE NOT ({}) AND {family} IN ('{}')) ranked WHERE place = 1",
        first(&dialect.is_true("n.enabled")),
        first(&format!(
            "EXISTS (SELECT 1 FROM {PROVIDER_KEYS} k WHERE k.provider_id = n.id)"
        )),
        newest(dialect, "n.updated_at"),
        dialect.is_true("n.deleted"),
        FAMILIES.join("', '")
    )
}

/// The users' keys that a legacy row can stand for: `id`, `legacy` (the provider it goes to), and its other columns. A
/// key for that very provider before one for another of its family, then the newest, then the lowest id.
fn user_picks(dialect: Dialect, legacy: &str) -> String {
    format!(
        "SELECT * FROM (SELECT k.id, k.user_id, k.ai_provider_id AS provider, k.api_key, k.api_key_key_id, k.created_at, k.updated_at, l.id AS legacy, \
         row_number() OVER (PARTITION BY k.user_id, l.id ORDER BY {}, {}, k.id) AS place \
         FROM {USER_KEYS} k JOIN {PROVIDERS} n ON n.id = k.ai_provider_id \
         JOIN ({legacy}) l ON l.provider = {} WHERE NOT ({})) ranked WHERE place = 1",
        first("k.ai_provider_id = l.id"),
        newest(dialect, "k.updated_at"),
        text(dialect, "n.type"),
        dialect.is_true("n.deleted"),
    )
}

/// Fills an empty `chat_providers`.
pub(super) fn fill_providers(dialect: Dialect) -> String {
    let truth = dialect.truth();
    format!(
        "INSERT INTO {CHAT_PROVIDERS} (id, provider, display_name, api_key, api_key_key_id, created_by, enabled, \
         created_at, updated_at, base_url, central_api_key_enabled, allow_user_api_key, allow_central_api_key_fallback) \
         SELECT s.id, s.provider, COALESCE(s.display_name, ''), COALESCE(k.api_key, ''), \
         CASE WHEN COALESCE(k.api_key, '') <> '' THEN k.api_key_key_id END, NULL, s.enabled, \
         s.created_at, s.updated_at, s.base_url, {truth}, {truth}, {truth} \
         FROM ({}) s LEFT JOIN {PROVIDER_KEYS} k ON k.provider_id = s.id AND {}",
        picks(dialect),
        is_used(dialect)
    )
}

/// Fills an empty `user_chat_provider_keys`.
pub(super) fn fill_user_keys(dialect: Dialect) -> String {
    // A key that goes to another provider of its family is another row: under its own id the next `up` would find the id
    // taken. UUIDs of version 8 are whoever makes them's own; the same row always gets the same.
    let id = match dialect {
        Dialect::Postgres => "CAST(overlay(CAST(s.id AS text) PLACING '8' FROM 15 FOR 1) AS uuid)",
        Dialect::Sqlite => "substr(s.id, 1, 14) || '8' || substr(s.id, 16)",
    };
    format!(
        "INSERT INTO {CHAT_USER_KEYS} (id, user_id, chat_provider_id, api_key, api_key_key_id, created_at, updated_at) \
         SELECT CASE WHEN s.provider = s.legacy THEN s.id ELSE {id} END, s.user_id, s.legacy, s.api_key, s.api_key_key_id, s.created_at, s.updated_at FROM ({}) s",
        user_picks(
            dialect,
            &format!("SELECT id, provider FROM {CHAT_PROVIDERS}")
        )
    )
}

/// The chat providers as they are, or as contract's `down` will make them.
fn providers_or_picks(catalog: &Catalog) -> String {
    if catalog.has_table(CHAT_PROVIDERS) {
        format!("SELECT id, provider FROM {CHAT_PROVIDERS}")
    } else {
        format!(
            "SELECT id, provider FROM ({}) picks",
            picks(catalog.dialect)
        )
    }
}

/// The ids of AI providers that the backfill's `down` takes away: those of chat providers, and those that were retired
/// for them.
pub(super) fn taken_away(catalog: &Catalog) -> String {
    format!(
        "SELECT id FROM ({}) legacy UNION SELECT n.id FROM {PROVIDERS} n WHERE n.name LIKE '{NAME_PREFIX}%' AND {}",
        providers_or_picks(catalog),
        catalog.dialect.is_true("n.deleted")
    )
}

fn loss(table: &str, what: &str, sql: String) -> Loss {
    Loss {
        table: table.to_owned(),
        what: what.to_owned(),
        sql,
    }
}

/// What the legacy tables cannot say, when contract goes down. It stays in the new tables, where old code does not look.
pub(super) fn beyond_legacy(catalog: &Catalog) -> Vec<Loss> {
    let dialect = catalog.dialect;
    let live = format!("NOT ({})", dialect.is_true("n.deleted"));
    let picks = picks(dialect);
    let picked = format!("SELECT picks.id FROM ({picks}) picks");
    vec![
        loss(
            PROVIDERS,
            "the legacy schema has one provider of each of its families: old code does not see this one",
            format!("SELECT n.id AS id FROM {PROVIDERS} n WHERE {live} AND n.id NOT IN ({picked})"),
        ),
        loss(
            PROVIDERS,
            "the legacy schema has no settings: old code does not see this provider's",
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE COALESCE(n.settings, '') <> '' AND n.id IN ({picked})"
            ),
        ),
        loss(
            PROVIDER_KEYS,
            "the legacy schema has one key of a provider, the one in use: old code does not see this one",
            format!(
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k JOIN {PROVIDERS} n ON n.id = k.provider_id \
                 WHERE {live} AND NOT (k.provider_id IN ({picked}) AND {})",
                is_used(dialect)
            ),
        ),
        loss(
            USER_KEYS,
            "the legacy schema has one key of a user for a family: old code does not see this one",
            format!(
                "SELECT k.id AS id FROM {USER_KEYS} k WHERE k.id NOT IN (SELECT chosen.id FROM ({}) chosen)",
                user_picks(
                    dialect,
                    &format!("SELECT id, provider FROM ({picks}) picks")
                )
            ),
        ),
    ]
}

/// What goes with the rows that the backfill's `down` deletes and no legacy row says.
pub(super) fn beyond_copies(catalog: &Catalog) -> Vec<Loss> {
    let dialect = catalog.dialect;
    let taken = taken_away(catalog);
    let legacy = providers_or_picks(catalog);
    let there = catalog.has_table(CHAT_PROVIDERS);
    let central = if there {
        format!(
            "EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = k.provider_id AND p.api_key = k.api_key)"
        )
    } else {
        format!("k.provider_id IN (SELECT id FROM ({legacy}) legacy)")
    };
    let own = if there {
        format!(
            "EXISTS (SELECT 1 FROM {CHAT_USER_KEYS} r WHERE r.user_id = k.user_id \
             AND r.chat_provider_id = k.ai_provider_id AND r.api_key = k.api_key)"
        )
    } else {
        format!(
            "k.id IN (SELECT chosen.id FROM ({}) chosen)",
            user_picks(dialect, &legacy)
        )
    };
    let edited = if there {
        let differs = dialect.differs();
        format!(
            "EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = n.id AND NOT ({}) AND (n.name <> {} \
             OR n.base_url {differs} COALESCE(p.base_url, '') OR COALESCE(n.display_name, '') <> COALESCE(p.display_name, '') \
             OR n.enabled {differs} p.enabled))",
            is_after(dialect, "p.updated_at", "n.updated_at"),
            cutover::migrated_name()
        )
    } else {
        format!(
            "n.id IN (SELECT id FROM ({legacy}) legacy) AND n.name <> '{NAME_PREFIX}' || {}",
            text(dialect, "n.type")
        )
    };
    vec![
        loss(
            PROVIDERS,
            "the provider is deleted, with a name or an edit that no legacy row has",
            format!("SELECT n.id AS id FROM {PROVIDERS} n WHERE {edited}"),
        ),
        loss(
            PROVIDERS,
            "the provider is deleted, with settings that no legacy row has",
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE COALESCE(n.settings, '') <> '' AND n.id IN ({taken})"
            ),
        ),
        loss(
            PROVIDERS,
            "the provider, soft-deleted to free its name, is deleted for good",
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE n.id IN ({taken}) \
                 AND n.id NOT IN (SELECT id FROM ({legacy}) legacy)"
            ),
        ),
        loss(
            PROVIDER_KEYS,
            "the key is deleted, and no legacy row has it",
            format!(
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k WHERE k.provider_id IN ({taken}) AND NOT ({central} AND {})",
                is_used(dialect)
            ),
        ),
        loss(
            USER_KEYS,
            "the user's key is deleted, and no legacy row has it",
            format!(
                "SELECT k.id AS id FROM {USER_KEYS} k WHERE k.ai_provider_id IN ({taken}) AND NOT ({own})"
            ),
        ),
        loss(
            MODEL_CONFIGS,
            "the link to its provider is cleared, and its family does not say it",
            format!(
                "SELECT c.id AS id FROM {MODEL_CONFIGS} c WHERE c.ai_provider_id IN ({taken}) \
                 AND NOT EXISTS (SELECT 1 FROM ({legacy}) legacy WHERE legacy.id = c.ai_provider_id \
                 AND legacy.provider = c.provider)"
            ),
        ),
    ]
}
