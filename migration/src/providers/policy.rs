//! The policy flags of chat providers, for which the new schema has no place (`docs/upstream/coder.md` §A3): a central key
//! is always allowed, users' keys wherever the deployment allows them, and the central key always steps in.

use crate::catalog::Catalog;

use super::{CHAT_PROVIDERS, CHAT_USER_KEYS, USERS, cutover::has_central_key, is_present, text};

/// The flags, in the order of the reference.
pub const FLAGS: [&str; 3] = [
    "central_api_key_enabled",
    "allow_user_api_key",
    "allow_central_api_key_fallback",
];

/// Whether the flags are there to be read.
fn has_flags(catalog: &Catalog) -> bool {
    FLAGS
        .iter()
        .all(|flag| catalog.has_column(CHAT_PROVIDERS, flag))
}

/// The condition that behaviour changes for somebody when the flags of chat provider `p` go.
fn changes(catalog: &Catalog) -> String {
    let [central, user, fallback] = FLAGS.map(|flag| catalog.dialect.is_true(&format!("p.{flag}")));
    let stored = stored_keys(catalog);
    format!(
        "(NOT ({central}) OR (({user}) AND NOT ({fallback})) OR (NOT ({user}) AND EXISTS (SELECT 1 {stored})))"
    )
}

/// The keys of chat provider `p` whose users are there: what a soft-deleted one stored opens nothing.
fn stored_keys(catalog: &Catalog) -> String {
    format!(
        "FROM {CHAT_USER_KEYS} r JOIN {USERS} o ON o.id = r.user_id WHERE r.chat_provider_id = p.id AND {}",
        is_present(catalog, "o")
    )
}

/// Chat providers whose flags cannot be kept: `id`.
pub fn lost(catalog: &Catalog) -> Option<String> {
    (has_flags(catalog) && catalog.has_table(CHAT_USER_KEYS)).then(|| {
        format!(
            "SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE {}",
            changes(catalog)
        )
    })
}

/// The same with what the change is: `id`, `provider`, whether it is `enabled`, whether a central key is `stored`, the
/// three flags as 0 and 1, how many users have a key (`with_key`) and how many have none (`without_key`).
pub fn described(catalog: &Catalog) -> Option<String> {
    let dialect = catalog.dialect;
    let number = |condition: &str| format!("CASE WHEN {condition} THEN 1 ELSE 0 END");
    let flag = |name: &str| number(&dialect.is_true(&format!("p.{name}")));
    let (present, stored) = (is_present(catalog, "u"), stored_keys(catalog));
    lost(catalog)?;
    Some(format!(
        "SELECT {} AS id, p.provider AS provider, {} AS enabled, {} AS stored, {} AS central, {} AS users, {} AS fallback, \
         (SELECT count(DISTINCT r.user_id) {stored}) AS with_key, \
         (SELECT count(*) FROM {USERS} u WHERE {present} AND NOT EXISTS (SELECT 1 FROM {CHAT_USER_KEYS} r \
         WHERE r.user_id = u.id AND r.chat_provider_id = p.id)) AS without_key \
         FROM {CHAT_PROVIDERS} p WHERE {} ORDER BY p.provider, p.id",
        text(dialect, "p.id"),
        number(&dialect.is_true("p.enabled")),
        number(has_central_key()),
        flag(FLAGS[0]),
        flag(FLAGS[1]),
        flag(FLAGS[2]),
        changes(catalog),
    ))
}
