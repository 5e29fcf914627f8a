//! What the legacy schema can say of the new one (`docs/upstream/coder.md` §A3, both downs): one provider of each family, one
//! key of it, one key of each user. The rest stays in the new tables and is a loss.

use crate::catalog::Catalog;
use crate::dialect::Dialect;

use super::cutover::{self, is_used};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, FAMILIES, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS,
    USER_KEYS, is_after, text,
};
use crate::context::Context;
use crate::loss::Loss;
use crate::plan_builder::{PlanBuilder, remembered};

/// Chat providers that the backfill has copied: ids.
pub(super) const COPIED: &str = "provider_key_backfill.provider";
/// Providers to which it gave the central key.
pub(super) const CENTRAL: &str = "provider_key_backfill.central_key";
/// Users' keys that it has copied to providers which were there before.
pub(super) const USERS_KEYS: &str = "provider_key_backfill.user_key";
/// Model configs that it has linked to such providers.
pub(super) const LINKS: &str = "provider_key_backfill.link";
/// Providers that it has retired for their name, and those of them that were enabled.
pub(super) const RETIRED: &str = "provider_key_backfill.retired";
pub(super) const RETIRED_ENABLED: &str = "provider_key_backfill.retired_enabled";
/// Chat providers that were there when contract dropped them: what has their name and came later never was one.
const DROPPED: &str = "provider_key_contract.chat_provider";
/// All of it.
pub(super) const NOTED: [&str; 7] = [
    COPIED,
    CENTRAL,
    USERS_KEYS,
    LINKS,
    RETIRED,
    RETIRED_ENABLED,
    DROPPED,
];

/// The provider of each family that a legacy row can stand for: `id`, `provider`, and its other columns. It is the one that
/// the copy named, `agents-<family>`; another provider of the family never was a chat provider.
fn picks(dialect: Dialect) -> String {
    let family = text(dialect, "n.type");
    format!(
        "SELECT n.id, {family} AS provider, n.display_name, n.enabled, n.base_url, n.created_at, n.updated_at \
         FROM {PROVIDERS} n WHERE NOT ({}) AND {family} IN ('{}') AND n.name = '{NAME_PREFIX}' || {family}",
        dialect.is_true("n.deleted"),
        FAMILIES.join("', '")
    )
}

/// Fills an empty `chat_providers`.
pub(super) fn fill_providers(dialect: Dialect) -> String {
    let true_literal = dialect.true_literal();
    format!(
        "INSERT INTO {CHAT_PROVIDERS} (id, provider, display_name, api_key, api_key_key_id, created_by, enabled, \
         created_at, updated_at, base_url, central_api_key_enabled, allow_user_api_key, allow_central_api_key_fallback) \
         SELECT s.id, s.provider, COALESCE(s.display_name, ''), COALESCE(k.api_key, ''), \
         CASE WHEN COALESCE(k.api_key, '') <> '' THEN k.api_key_key_id END, NULL, s.enabled, \
         s.created_at, s.updated_at, s.base_url, {true_literal}, {true_literal}, {true_literal} \
         FROM ({}) s LEFT JOIN {PROVIDER_KEYS} k ON k.provider_id = s.id AND {}",
        picks(dialect),
        is_used(dialect)
    )
}

/// Fills an empty `user_chat_provider_keys`: the keys of users for these very providers. One for another provider of the
/// family is another door.
pub(super) fn fill_user_keys() -> String {
    format!(
        "INSERT INTO {CHAT_USER_KEYS} (id, user_id, chat_provider_id, api_key, api_key_key_id, created_at, updated_at) \
         SELECT k.id, k.user_id, k.ai_provider_id, k.api_key, k.api_key_key_id, k.created_at, k.updated_at \
         FROM {USER_KEYS} k JOIN {CHAT_PROVIDERS} l ON l.id = k.ai_provider_id"
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

/// The ids of AI providers that the backfill's `down` takes away. Where the tables are Tollgate's own, a provider with the id
/// of a chat provider is its copy; where a gateway made them, it may have copied some of them itself, and only what was noted
/// is ours.
pub(super) fn taken_away(context: &Context) -> String {
    let catalog = &context.catalog;
    let ours = context
        .created("provider_key_expand")
        .is_some_and(|created| created.tables.iter().any(|table| table == PROVIDERS));
    let legacy = providers_or_picks(catalog);
    if ours {
        return match remembered(catalog, DROPPED) {
            Some(noted) => format!(
                "SELECT id FROM ({legacy}) legacy WHERE NOT EXISTS ({noted}) OR {} IN ({noted})",
                text(catalog.dialect, "id")
            ),
            None => format!("SELECT id FROM ({legacy}) legacy"),
        };
    }
    match remembered(catalog, COPIED) {
        Some(noted) => format!(
            "SELECT id FROM ({legacy}) legacy WHERE {} IN ({noted})",
            text(catalog.dialect, "id")
        ),
        None => format!("SELECT id FROM ({legacy}) legacy WHERE 1 = 0"),
    }
}

/// Notes the chat providers that are about to be dropped; also that there was none.
pub(super) fn note_dropped(builder: &mut PlanBuilder) {
    let id = text(builder.dialect(), "id");
    builder.remember(
        DROPPED,
        &format!("SELECT {id} AS id FROM {CHAT_PROVIDERS} UNION ALL SELECT '-' AS id"),
    );
}

fn loss(table: &str, what: &str, sql: String) -> Loss {
    Loss {
        table: table.to_owned(),
        what: what.to_owned(),
        sql,
    }
}

/// What the legacy tables cannot say, when contract goes down. It stays in the new tables, where old chats do not look; what
/// never was a chat provider is read there by old code too, and is no loss.
pub(super) fn beyond_legacy(catalog: &Catalog) -> Vec<Loss> {
    let dialect = catalog.dialect;
    let live = format!("NOT ({})", dialect.is_true("n.deleted"));
    let picked = format!("SELECT picks.id FROM ({}) picks", picks(dialect));
    let mut losses = vec![
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
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k WHERE k.provider_id IN ({picked}) AND NOT ({})",
                is_used(dialect)
            ),
        ),
    ];
    if let Some(noted) = remembered(catalog, COPIED) {
        losses.push(loss(
            PROVIDERS,
            "the copy of a chat provider has another name now: old code does not see it",
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE {live} AND {} IN ({noted}) AND n.id NOT IN ({picked})",
                text(dialect, "n.id")
            ),
        ));
    }
    losses
}

/// What goes with the rows that the backfill's `down` deletes and no legacy row says.
pub(super) fn beyond_copies(context: &Context) -> Vec<Loss> {
    let catalog = &context.catalog;
    let dialect = catalog.dialect;
    let taken = taken_away(context);
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
        format!("k.ai_provider_id IN (SELECT id FROM ({legacy}) legacy)")
    };
    let edited = if there {
        let differs = dialect.is_distinct_from();
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
            format!("SELECT n.id AS id FROM {PROVIDERS} n WHERE n.id IN ({taken}) AND {edited}"),
        ),
        loss(
            PROVIDERS,
            "the provider is deleted, with settings that no legacy row has",
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE COALESCE(n.settings, '') <> '' AND n.id IN ({taken})"
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
