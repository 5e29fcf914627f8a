//! Providers and keys in whichever schema: each section is what the new table says, or will say once it has caught up
//! with the legacy one. So a snapshot from before the cutover and a database behind it are read alike.

use tollgate_migration::providers::cutover::NameConflicts;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS,
    USER_KEYS, USERS, cutover, has_legacy, has_new, is_after, is_present, policy, text,
};
use tollgate_migration::{Catalog, Dialect};

use crate::snapshot::cell;
use crate::snapshot::fact::{Fact, SEPARATOR};
use crate::snapshot::scan::{Reading, Walk};

/// The tables that rows move to.
const MOVED: [&str; 3] = [PROVIDERS, PROVIDER_KEYS, USER_KEYS];

/// What a `down` brings back is what the new schema could say: every flag is set, and nobody has created a provider.
pub(crate) const REWRITTEN_BY_DOWN: &[(&str, &str)] = &[
    (PROVIDERS, policy::FLAGS[0]),
    (PROVIDERS, policy::FLAGS[1]),
    (PROVIDERS, policy::FLAGS[2]),
    (PROVIDERS, "created_by"),
];

/// Whether a table's rows are read together with those that move to it.
pub(crate) fn is_moved(name: &str) -> bool {
    MOVED.contains(&name)
}

/// The sections of the track.
pub(crate) fn sections(mut tables: Vec<String>) -> Vec<String> {
    tables.retain(|name| !is_moved(name) && name != CHAT_PROVIDERS && name != CHAT_USER_KEYS);
    tables.extend(MOVED.map(str::to_owned));
    tables.sort();
    tables
}

/// How the other tables are read.
pub(crate) fn reading(catalog: &Catalog, table: &str) -> Reading {
    match table {
        // The rest of a user is the gateway's own, and changes all the time.
        USERS => Reading {
            only: &["id", "deleted"],
            ..Reading::default()
        },
        MODEL_CONFIGS => Reading {
            without: vec!["ai_provider_id"],
            // Who was retired is announced, and counts as it was.
            instead: cutover::before_retired(catalog).into_iter().collect(),
            ..Reading::default()
        },
        _ => Reading::default(),
    }
}

/// A column of a section, and the type it is compared as.
type Typed = (&'static str, &'static str);

const TEXT: &str = "text";

fn flag(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "boolean",
        Dialect::Sqlite => "numeric",
    }
}

fn time(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "timestamp with time zone",
        Dialect::Sqlite => "datetime",
    }
}

fn section(dialect: Dialect, sql: &str, key: &[&str], columns: &[Typed]) -> Walk {
    let mut selected: Vec<String> = key
        .iter()
        .map(|column| text(dialect, &format!("t.{column}")))
        .collect();
    selected.extend(columns.iter().map(|(column, kind)| {
        let own = format!("t.{column}");
        match dialect {
            Dialect::Postgres => cell::postgres_expression(kind, &own),
            Dialect::Sqlite => own,
        }
    }));
    Walk {
        selected: selected.join(", "),
        from: format!("({sql}) t"),
        key: key.len(),
        columns: columns
            .iter()
            .map(|(column, kind)| ((*column).to_owned(), cell::kind(dialect, kind)))
            .collect(),
        summed: Vec::new(),
    }
}

/// The walk over a moved table; `None` where neither side is there.
pub(crate) fn walk(catalog: &Catalog, name: &str) -> Option<Walk> {
    let dialect = catalog.dialect;
    let (old, new) = (has_legacy(catalog), catalog.has_table(name));
    if !old && !new {
        return None;
    }
    // Tables of keys that are there without the rest are not yet written by anybody.
    let new = new && catalog.has_table(PROVIDERS);
    let (flag, time) = (flag(dialect), time(dialect));
    Some(match name {
        PROVIDERS => {
            let mut columns = vec![
                ("type", TEXT),
                ("name", TEXT),
                ("display_name", TEXT),
                ("enabled", flag),
                ("deleted", flag),
                ("base_url", TEXT),
                ("settings", TEXT),
                ("settings_key_id", TEXT),
                ("created_at", time),
                ("updated_at", time),
            ];
            if old {
                columns.extend(policy::FLAGS.map(|name| (name, flag)));
            }
            section(dialect, &providers(catalog, old, new), &["id"], &columns)
        }
        PROVIDER_KEYS => section(
            dialect,
            &provider_keys(dialect, old, new),
            &["provider_id", "place"],
            &[
                ("api_key", TEXT),
                ("api_key_key_id", TEXT),
                ("updated_at", time),
            ],
        ),
        _ => section(
            dialect,
            &user_keys(catalog, old, new),
            &["user_id", "ai_provider_id"],
            &[
                ("id", TEXT),
                ("api_key", TEXT),
                ("api_key_key_id", TEXT),
                ("created_at", time),
                ("updated_at", time),
            ],
        ),
    })
}

fn providers(catalog: &Catalog, old: bool, new: bool) -> String {
    let dialect = catalog.dialect;
    let flags = policy::FLAGS.map(|flag| format!("p.{flag}")).join(", ");
    let no_flags = policy::FLAGS.map(|flag| match dialect {
        Dialect::Postgres => format!("NULL::boolean AS {flag}"),
        Dialect::Sqlite => format!("NULL AS {flag}"),
    });
    let no_flags = no_flags.join(", ");
    let family = text(dialect, "n.type");
    let settings = |name: &str| {
        if catalog.has_column(PROVIDERS, name) {
            format!("n.{name}")
        } else {
            "NULL".to_owned()
        }
    };
    let (settings, settings_key) = (settings("settings"), settings("settings_key_id"));
    let own = format!(
        "SELECT n.id AS id, {family} AS type, n.name AS name, n.display_name AS display_name, n.enabled AS enabled, \
         n.deleted AS deleted, n.base_url AS base_url, {settings} AS settings, {settings_key} AS settings_key_id, \
         n.created_at AS created_at, n.updated_at AS updated_at"
    );
    let name = cutover::migrated_name();
    if !old {
        // A provider that was retired for a migrated one of its name is announced, and is left out.
        return format!(
            "{own} FROM {PROVIDERS} n WHERE NOT ({} AND n.name LIKE '{NAME_PREFIX}%' AND EXISTS \
             (SELECT 1 FROM {PROVIDERS} o WHERE o.name = n.name AND NOT ({})))",
            dialect.is_true("n.deleted"),
            dialect.is_true("o.deleted"),
        );
    }
    if !new {
        return format!(
            "SELECT p.id AS id, p.provider AS type, {name} AS name, NULLIF(p.display_name, '') AS display_name, \
             p.enabled AS enabled, {} AS deleted, COALESCE(p.base_url, '') AS base_url, NULL AS settings, \
             NULL AS settings_key_id, p.created_at AS created_at, p.updated_at AS updated_at, {flags} FROM {CHAT_PROVIDERS} p",
            dialect.false_literal()
        );
    }
    let legacy = format!(
        "(n.id IS NULL OR {} OR {})",
        dialect.is_true("n.deleted"),
        is_after(dialect, "p.updated_at", "n.updated_at")
    );
    let pick = |legacy_side: &str, new_side: &str| {
        format!("CASE WHEN {legacy} THEN {legacy_side} ELSE {new_side} END")
    };
    format!(
        "SELECT p.id AS id, {} AS type, {} AS name, {} AS display_name, {} AS enabled, {} AS deleted, {} AS base_url, \
         {settings} AS settings, {settings_key} AS settings_key_id, COALESCE(n.created_at, p.created_at) AS created_at, \
         CASE WHEN n.id IS NULL OR {} THEN p.updated_at ELSE n.updated_at END AS updated_at, {flags} \
         FROM {CHAT_PROVIDERS} p LEFT JOIN {PROVIDERS} n ON n.id = p.id \
         UNION ALL {own}, {no_flags} FROM {PROVIDERS} n \
         WHERE NOT EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = n.id OR n.name = {name})",
        pick("p.provider", &family),
        pick(&name, "n.name"),
        pick("NULLIF(p.display_name, '')", "n.display_name"),
        pick("p.enabled", "n.enabled"),
        pick(dialect.false_literal(), "n.deleted"),
        pick("COALESCE(p.base_url, '')", "n.base_url"),
        is_after(dialect, "p.updated_at", "n.updated_at"),
    )
}

/// Keys are known by their provider and their place in its order: the id of a migrated one is new.
fn provider_keys(dialect: Dialect, old: bool, new: bool) -> String {
    let has = cutover::has_central_key();
    // The one in use first: the oldest that is not empty.
    let first = "CASE WHEN k.api_key = '' THEN 1 ELSE 0 END";
    let earliest = match dialect {
        Dialect::Postgres => format!("{first}, k.created_at, k.id"),
        Dialect::Sqlite => format!("{first}, julianday(k.created_at), k.created_at, k.id"),
    };
    let own = format!(
        "SELECT k.provider_id AS provider_id, row_number() OVER (PARTITION BY k.provider_id ORDER BY {earliest}) AS place, \
         k.api_key AS api_key, k.api_key_key_id AS api_key_key_id, k.updated_at AS updated_at FROM {PROVIDER_KEYS} k"
    );
    let legacy = format!(
        "SELECT p.id AS provider_id, 1 AS place, p.api_key AS api_key, p.api_key_key_id AS api_key_key_id, \
         p.updated_at AS updated_at FROM {CHAT_PROVIDERS} p WHERE {has}"
    );
    if !old {
        return own;
    }
    if !new {
        return legacy;
    }
    let newer = is_after(dialect, "p.updated_at", "k.updated_at");
    let other = cutover::is_other_key(dialect);
    let pick = |column: &str| {
        format!(
            "CASE WHEN k.place = 1 AND {newer} AND {other} THEN p.{column} ELSE k.{column} END AS {column}"
        )
    };
    format!(
        "SELECT k.provider_id, k.place, {}, {}, {} FROM ({own}) k LEFT JOIN {CHAT_PROVIDERS} p ON p.id = k.provider_id \
         WHERE NOT COALESCE(NOT ({has}) AND {newer}, {}) \
         UNION ALL {legacy} AND NOT EXISTS (SELECT 1 FROM {PROVIDER_KEYS} k WHERE k.provider_id = p.id)",
        pick("api_key"),
        pick("api_key_key_id"),
        pick("updated_at"),
        dialect.false_literal(),
    )
}

fn user_keys(catalog: &Catalog, old: bool, new: bool) -> String {
    let dialect = catalog.dialect;
    let own = format!(
        "SELECT n.user_id AS user_id, n.ai_provider_id AS ai_provider_id, n.id AS id, n.api_key AS api_key, \
         n.api_key_key_id AS api_key_key_id, n.created_at AS created_at, n.updated_at AS updated_at FROM {USER_KEYS} n"
    );
    if !old {
        return own;
    }
    if !new {
        return format!(
            "SELECT r.user_id AS user_id, r.chat_provider_id AS ai_provider_id, r.id AS id, r.api_key AS api_key, \
             r.api_key_key_id AS api_key_key_id, r.created_at AS created_at, r.updated_at AS updated_at FROM {CHAT_USER_KEYS} r"
        );
    }
    let newer = is_after(dialect, "r.updated_at", "n.updated_at");
    let pick = |column: &str| {
        format!("CASE WHEN n.id IS NULL OR {newer} THEN r.{column} ELSE n.{column} END AS {column}")
    };
    // Behind the copy the keys of whoever is gone have been taken away on purpose.
    format!(
        "SELECT r.user_id AS user_id, r.chat_provider_id AS ai_provider_id, COALESCE(n.id, r.id) AS id, {}, {}, \
         COALESCE(n.created_at, r.created_at) AS created_at, {} FROM {CHAT_USER_KEYS} r \
         LEFT JOIN {USER_KEYS} n ON n.user_id = r.user_id AND n.ai_provider_id = r.chat_provider_id \
         WHERE n.id IS NOT NULL OR EXISTS (SELECT 1 FROM {USERS} u WHERE u.id = r.user_id AND {}) \
         OR NOT EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = r.chat_provider_id) \
         UNION ALL {own} WHERE NOT EXISTS (SELECT 1 FROM {CHAT_USER_KEYS} r WHERE r.user_id = n.user_id \
         AND r.chat_provider_id = n.ai_provider_id)",
        pick("api_key"),
        pick("api_key_key_id"),
        pick("updated_at"),
        is_present(catalog, "u"),
    )
}

/// Which model config is linked to which provider, or will be.
pub(crate) fn links(catalog: &Catalog) -> Option<Fact> {
    let dialect = catalog.dialect;
    if !catalog.has_table(MODEL_CONFIGS) {
        return None;
    }
    let link = catalog.has_column(MODEL_CONFIGS, "ai_provider_id");
    let by_family = has_legacy(catalog) && catalog.has_column(MODEL_CONFIGS, "provider");
    let join = format!("LEFT JOIN {CHAT_PROVIDERS} p ON p.provider = c.provider");
    let (provider, join) = match (link, by_family) {
        // A link to a provider that makes room for the migrated one of its name moves to that.
        (true, true) => (
            format!(
                "CASE WHEN p.id IS NOT NULL AND {} THEN p.id ELSE c.ai_provider_id END",
                cutover::needs_link(NameConflicts::Retire, dialect)
            ),
            join,
        ),
        (true, false) => ("c.ai_provider_id".to_owned(), String::new()),
        (false, true) => ("p.id".to_owned(), join),
        (false, false) => return None,
    };
    debug_assert!(link || !has_new(catalog));
    Some(Fact {
        name: "providers of model configs",
        table: MODEL_CONFIGS,
        sql: format!(
            "SELECT {} || '{SEPARATOR}ai_provider_id{SEPARATOR}' || {} AS fact FROM {MODEL_CONFIGS} c {join} \
             WHERE {provider} IS NOT NULL",
            text(dialect, "c.id"),
            text(dialect, &provider),
        ),
    })
}
