//! What has to be done so that the new tables say what the legacy tables say (`docs/upstream/coder.md` §A3).
//!
//! One list of moves serves `reconcile provider-keys`, contract's catch-up and `verify`: each has one condition that
//! says which rows are due, and a statement that repeats it.

use crate::catalog::Catalog;
use crate::context::Context;
use crate::dialect::Dialect;
use crate::plan::InsertWithUuids;
use crate::plan_builder::CHANGED;

use super::{CENTRAL_KEYS, NAME_CONFLICTS};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS,
    USER_KEYS, USERS, as_type, has_legacy, has_new, is_after, is_present, is_same_time, text,
};

/// What happens to a live AI provider that holds the name of a migrated one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameConflicts {
    /// The run stops before its first write (P002).
    #[default]
    Refuse,
    /// It is soft-deleted, as upstream does.
    Retire,
}

impl NameConflicts {
    /// As the operator chose.
    pub fn chosen(context: &Context) -> Self {
        if context.chose(&NAME_CONFLICTS) {
            Self::Retire
        } else {
            Self::Refuse
        }
    }
}

/// One kind of difference, and what closes it.
#[derive(Clone, Debug)]
pub struct Move {
    /// The table that is written.
    pub table: &'static str,
    /// What is done to its rows.
    pub action: &'static str,
    /// What it is for, as one line.
    pub purpose: &'static str,
    /// A query whose column `id` names the due rows: the legacy row, or where there is none the written one.
    pub due: String,
    /// What closes it.
    pub close: Close,
    /// Whether its rows are many: keys of users. Then [`Move::PAGE`] stands in the statement.
    pub paged: bool,
}

/// How a difference is closed.
#[derive(Clone, Debug)]
pub enum Close {
    /// By a statement.
    Run(String),
    /// By rows with ids of their own.
    InsertWithUuids(InsertWithUuids),
}

impl Move {
    /// Stands in a paged statement for a condition over the due rows, which begins with `AND`.
    pub const PAGE: &'static str = "{page}";

    /// The first due rows, or those behind an id, which is the first parameter as text.
    pub fn page(&self, dialect: Dialect, first: bool, limit: usize) -> String {
        let behind = match dialect {
            _ if first => "1 = 1",
            Dialect::Postgres => "due.id > CAST($1 AS uuid)",
            Dialect::Sqlite => "due.id > ?1",
        };
        format!(
            "SELECT {} AS id FROM ({}) due WHERE {behind} ORDER BY due.id LIMIT {limit}",
            text(dialect, "due.id"),
            self.due
        )
    }

    /// The statement for all due rows.
    pub fn all(&self) -> Option<String> {
        match &self.close {
            Close::Run(sql) => Some(sql.replace(Self::PAGE, "")),
            Close::InsertWithUuids(_) => None,
        }
    }

    /// The statement for one page of ids, which are bound.
    pub fn of(&self, dialect: Dialect, ids: &[String]) -> Option<sea_orm::Statement> {
        let Close::Run(sql) = &self.close else {
            return None;
        };
        let places: Vec<String> = (1..=ids.len())
            .map(|position| match dialect {
                Dialect::Postgres => format!("CAST({} AS uuid)", dialect.parameter(position)),
                Dialect::Sqlite => dialect.parameter(position),
            })
            .collect();
        Some(sea_orm::Statement::from_sql_and_values(
            dialect.backend(),
            sql.replace(Self::PAGE, &format!("AND r.id IN ({})", places.join(", "))),
            ids.iter().map(|id| id.as_str().into()),
        ))
    }
}

/// The name of a chat provider `p` as an AI provider.
pub fn migrated_name() -> String {
    format!("'{NAME_PREFIX}' || p.provider")
}

/// The chat provider `p` has a central key.
pub fn has_central_key() -> &'static str {
    "COALESCE(p.api_key, '') <> ''"
}

/// Live AI providers `n` that hold the name of a migrated one under another id.
pub fn name_holders(dialect: Dialect) -> String {
    format!(
        "SELECT n.id AS id FROM {PROVIDERS} n JOIN {CHAT_PROVIDERS} p ON n.name = {} AND n.id <> p.id \
         WHERE NOT ({})",
        migrated_name(),
        dialect.is_true("n.deleted")
    )
}

/// Soft-deletes the holders of names that migrated providers need, as upstream does.
pub fn retire(dialect: Dialect) -> String {
    format!(
        "UPDATE {PROVIDERS} SET deleted = {}, enabled = {}, updated_at = {} WHERE id IN ({})",
        dialect.true_literal(),
        dialect.false_literal(),
        dialect.now(),
        name_holders(dialect)
    )
}

/// A key row `k` is the one that is used: the oldest of its provider that is not empty, or else the oldest.
pub fn is_used(dialect: Dialect) -> String {
    let earlier = is_after(dialect, "k.created_at", "o.created_at");
    let later = is_after(dialect, "o.created_at", "k.created_at");
    format!(
        "NOT EXISTS (SELECT 1 FROM {PROVIDER_KEYS} o WHERE o.provider_id = k.provider_id AND o.id <> k.id \
         AND ((o.api_key <> '' AND k.api_key = '') OR ((o.api_key <> '' OR k.api_key = '') \
         AND ({earlier} OR (NOT ({later}) AND o.id < k.id)))))"
    )
}

/// A key row `k` says something else than the chat provider `p`. One time of a chat provider stands for its settings and
/// its key: a newer one alone is no newer key.
pub fn is_other_key(dialect: Dialect) -> String {
    let differs = dialect.is_distinct_from();
    format!("(k.api_key {differs} p.api_key OR k.api_key_key_id {differs} p.api_key_key_id)")
}

/// The provider that a model config `c` is linked to, a row of it named `d`, gave up its name to the chat provider `p` of
/// the config's family.
fn gave_way(conflicts: NameConflicts, dialect: Dialect) -> String {
    let deleted = match conflicts {
        // The move before has just deleted it, or is about to.
        NameConflicts::Retire => "1 = 1".to_owned(),
        NameConflicts::Refuse => dialect.is_true("d.deleted"),
    };
    format!(
        "d.id <> p.id AND d.name = {} AND {deleted}",
        migrated_name()
    )
}

/// A model config `c` of the family of a chat provider `p` has no link, or one to a provider that gave way to it.
pub fn needs_link(conflicts: NameConflicts, dialect: Dialect) -> String {
    format!(
        "(c.ai_provider_id IS NULL OR EXISTS (SELECT 1 FROM {PROVIDERS} d WHERE d.id = c.ai_provider_id AND {}))",
        gave_way(conflicts, dialect)
    )
}

/// Chat providers without their AI provider.
pub fn new_providers(dialect: Dialect) -> Move {
    let missing = format!("NOT EXISTS (SELECT 1 FROM {PROVIDERS} n WHERE n.id = p.id)");
    Move {
        table: PROVIDERS,
        action: "insert",
        purpose: "chat providers become AI providers of the same id",
        due: format!("SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE {missing}"),
        close: Close::Run(format!(
            "INSERT INTO {PROVIDERS} (id, type, name, display_name, enabled, deleted, base_url, created_at, updated_at) \
             SELECT p.id, {}, {}, NULLIF(p.display_name, ''), p.enabled, {}, COALESCE(p.base_url, ''), p.created_at, p.updated_at \
             FROM {CHAT_PROVIDERS} p WHERE {missing}",
            as_type(dialect, "p.provider"),
            migrated_name(),
            dialect.false_literal(),
        )),
        paged: false,
    }
}

/// Central keys of providers that have none. The backfill keeps the time of the provider's creation, the catch-up has
/// only that of the edit, as upstream's two steps do.
pub fn new_central_keys(dialect: Dialect, created_at: &str) -> Move {
    let missing = format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {PROVIDER_KEYS} k WHERE k.provider_id = p.id)",
        has_central_key()
    );
    let id = match dialect {
        Dialect::Postgres => "CAST(made.id AS uuid)",
        Dialect::Sqlite => "made.id",
    };
    let due = format!("SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE {missing}");
    Move {
        table: PROVIDER_KEYS,
        action: "insert",
        purpose: "central keys, as the bytes they are",
        close: Close::InsertWithUuids(InsertWithUuids {
            purpose: "central keys become keys of their provider, as the bytes they are".to_owned(),
            namespace: CENTRAL_KEYS,
            table: PROVIDER_KEYS.to_owned(),
            find: format!(
                "SELECT {} AS id FROM ({due}) due ORDER BY 1",
                text(dialect, "due.id")
            ),
            insert: format!(
                "WITH made (provider, id) AS (VALUES {}) \
                 INSERT INTO {PROVIDER_KEYS} (id, provider_id, api_key, api_key_key_id, created_at, updated_at) \
                 SELECT {id}, p.id, p.api_key, p.api_key_key_id, p.{created_at}, p.updated_at \
                 FROM {CHAT_PROVIDERS} p JOIN made ON made.provider = {} WHERE {missing}",
                InsertWithUuids::IDS,
                text(dialect, "p.id"),
            ),
        }),
        due,
        paged: false,
    }
}

/// A user's key `r` has no row in the new table.
pub fn has_no_copy() -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM {USER_KEYS} n WHERE n.user_id = r.user_id AND n.ai_provider_id = r.chat_provider_id)"
    )
}

/// Copies users' keys `r` that meet a condition.
pub fn copy_user_keys(condition: &str) -> String {
    format!(
        "INSERT INTO {USER_KEYS} (id, user_id, ai_provider_id, api_key, api_key_key_id, created_at, updated_at) \
         SELECT r.id, r.user_id, r.chat_provider_id, r.api_key, r.api_key_key_id, r.created_at, r.updated_at \
         FROM {CHAT_USER_KEYS} r WHERE {condition} ON CONFLICT (user_id, ai_provider_id) DO NOTHING"
    )
}

/// Model configs `c` that need a link to the chat provider `p` of their family.
pub fn unlinked(conflicts: NameConflicts, dialect: Dialect, condition: &str) -> String {
    format!(
        "FROM {MODEL_CONFIGS} c JOIN {CHAT_PROVIDERS} p ON p.provider = c.provider \
         WHERE {} AND {condition}",
        needs_link(conflicts, dialect)
    )
}

/// Everything that the legacy tables say and the new ones do not, in the order in which it is closed. Empty where either
/// schema is not there. Where holders of a name are to be retired, that comes first.
pub fn moves(catalog: &Catalog, conflicts: NameConflicts) -> Vec<Move> {
    if !has_legacy(catalog) || !has_new(catalog) {
        return Vec::new();
    }
    let dialect = catalog.dialect;
    let retire = (conflicts == NameConflicts::Retire).then(|| Move {
        table: PROVIDERS,
        action: "retire",
        purpose: "live providers that hold the name of a migrated one are soft-deleted",
        due: name_holders(dialect),
        close: Close::Run(retire(dialect)),
        paged: false,
    });
    let mut moves = Vec::from_iter(retire);
    moves.push(new_providers(dialect));
    moves.extend(edited_providers(dialect));
    moves.extend(edited_central_keys(dialect));
    moves.push(new_central_keys(dialect, "updated_at"));
    moves.extend(keys_of_users(catalog));
    moves.push(links(conflicts, dialect));
    moves
}

/// Providers that are live again, or that old code has edited since.
fn edited_providers(dialect: Dialect) -> [Move; 2] {
    let deleted = dialect.is_true("n.deleted");
    let newer_provider = is_after(dialect, "p.updated_at", "n.updated_at");
    let newest = match dialect {
        Dialect::Postgres => "GREATEST(p.updated_at, n.updated_at)".to_owned(),
        Dialect::Sqlite => {
            format!("CASE WHEN {newer_provider} THEN p.updated_at ELSE n.updated_at END")
        }
    };
    let provider = |action, purpose, condition: &str| Move {
        table: PROVIDERS,
        action,
        purpose,
        due: format!(
            "SELECT n.id AS id FROM {PROVIDERS} n JOIN {CHAT_PROVIDERS} p ON p.id = n.id WHERE {condition}"
        ),
        close: Close::Run(format!(
            "UPDATE {PROVIDERS} AS n SET type = {}, name = {}, display_name = NULLIF(p.display_name, ''), \
             enabled = p.enabled, base_url = COALESCE(p.base_url, ''), deleted = {}, updated_at = {newest} \
             FROM {CHAT_PROVIDERS} p WHERE p.id = n.id AND {condition}",
            as_type(dialect, "p.provider"),
            migrated_name(),
            dialect.false_literal(),
        )),
        paged: false,
    };
    [
        provider(
            "reactivate",
            "providers that old code still has are live",
            &deleted,
        ),
        provider(
            "update",
            "providers that old code has edited since",
            &format!("NOT ({deleted}) AND {newer_provider}"),
        ),
    ]
}

/// Central keys that old code has cleared or changed since.
fn edited_central_keys(dialect: Dialect) -> [Move; 2] {
    let newer_key = is_after(dialect, "p.updated_at", "k.updated_at");
    let cleared = format!("NOT ({}) AND {newer_key}", has_central_key());
    let changed = format!(
        "{} AND {newer_key} AND {} AND {}",
        has_central_key(),
        is_other_key(dialect),
        is_used(dialect)
    );
    [
        Move {
            table: PROVIDER_KEYS,
            action: "delete",
            purpose: "central keys that old code has cleared since",
            due: format!(
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k JOIN {CHAT_PROVIDERS} p ON p.id = k.provider_id WHERE {cleared}"
            ),
            close: Close::Run(format!(
                "DELETE FROM {PROVIDER_KEYS} WHERE id IN (SELECT k.id FROM {PROVIDER_KEYS} k \
                 JOIN {CHAT_PROVIDERS} p ON p.id = k.provider_id WHERE {cleared})"
            )),
            paged: false,
        },
        Move {
            table: PROVIDER_KEYS,
            action: "update",
            purpose: "central keys that old code has changed since",
            due: format!(
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k JOIN {CHAT_PROVIDERS} p ON p.id = k.provider_id WHERE {changed}"
            ),
            close: Close::Run(format!(
                "UPDATE {PROVIDER_KEYS} AS k SET api_key = p.api_key, api_key_key_id = p.api_key_key_id, \
                 updated_at = p.updated_at FROM {CHAT_PROVIDERS} p WHERE p.id = k.provider_id AND {changed}"
            )),
            paged: false,
        },
    ]
}

/// Users' keys that old code has stored or changed since.
fn keys_of_users(catalog: &Catalog) -> [Move; 2] {
    let dialect = catalog.dialect;
    let newer_user_key = is_after(dialect, "r.updated_at", "n.updated_at");
    // A soft-deleted user's keys have been taken away on purpose, and do not come back.
    let missing = format!(
        "{} AND EXISTS (SELECT 1 FROM {USERS} u WHERE u.id = r.user_id AND {})",
        has_no_copy(),
        is_present(catalog, "u")
    );
    [
        Move {
            table: USER_KEYS,
            action: "insert",
            purpose: "users' keys that old code has stored since",
            due: format!("SELECT r.id AS id FROM {CHAT_USER_KEYS} r WHERE {missing}"),
            close: Close::Run(copy_user_keys(&format!("{missing} {}", Move::PAGE))),
            paged: true,
        },
        Move {
            table: USER_KEYS,
            action: "update",
            purpose: "users' keys that old code has changed since",
            due: format!(
                "SELECT r.id AS id FROM {CHAT_USER_KEYS} r JOIN {USER_KEYS} n ON n.user_id = r.user_id \
                 AND n.ai_provider_id = r.chat_provider_id WHERE {newer_user_key}"
            ),
            close: Close::Run(format!(
                "UPDATE {USER_KEYS} AS n SET api_key = r.api_key, api_key_key_id = r.api_key_key_id, \
                 updated_at = r.updated_at FROM {CHAT_USER_KEYS} r WHERE n.user_id = r.user_id \
                 AND n.ai_provider_id = r.chat_provider_id AND {newer_user_key} {}",
                Move::PAGE
            )),
            paged: true,
        },
    ]
}

/// Model configs that nothing links to their provider yet.
fn links(conflicts: NameConflicts, dialect: Dialect) -> Move {
    Move {
        table: MODEL_CONFIGS,
        action: "update",
        purpose: "model configs are linked to their provider",
        due: format!(
            "SELECT c.id AS id {}",
            unlinked(conflicts, dialect, "1 = 1")
        ),
        close: Close::Run(format!(
            "UPDATE {MODEL_CONFIGS} AS c SET ai_provider_id = p.id FROM {CHAT_PROVIDERS} p \
             WHERE p.provider = c.provider AND {}",
            needs_link(conflicts, dialect)
        )),
        paged: false,
    }
}

/// Active model configs that nothing links to a provider.
pub fn without_provider(catalog: &Catalog) -> Option<String> {
    if !catalog.has_column(MODEL_CONFIGS, "deleted") {
        return None;
    }
    let mut conditions = vec![format!("NOT ({})", catalog.dialect.is_true("c.deleted"))];
    if catalog.has_column(MODEL_CONFIGS, "ai_provider_id") {
        conditions.push("c.ai_provider_id IS NULL".to_owned());
    }
    if catalog.has_column(CHAT_PROVIDERS, "provider")
        && catalog.has_column(MODEL_CONFIGS, "provider")
    {
        conditions.push(format!(
            "NOT EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.provider = c.provider)"
        ));
    } else if !catalog.has_column(MODEL_CONFIGS, "ai_provider_id") {
        return None;
    }
    Some(format!(
        "SELECT c.id AS id FROM {MODEL_CONFIGS} c WHERE {}",
        conditions.join(" AND ")
    ))
}

/// Soft-deletes the same.
pub fn retire_lonely(catalog: &Catalog) -> Option<String> {
    let dialect = catalog.dialect;
    let lonely = without_provider(catalog)?;
    let at = if catalog.has_column(MODEL_CONFIGS, "deleted_at") {
        format!(", deleted_at = {}", dialect.now())
    } else {
        String::new()
    };
    let default = if catalog.has_column(MODEL_CONFIGS, "is_default") {
        format!(", is_default = {}", dialect.false_literal())
    } else {
        String::new()
    };
    Some(format!(
        "UPDATE {MODEL_CONFIGS} SET deleted = {}{at}{default} WHERE id IN ({lonely})",
        dialect.true_literal()
    ))
}

/// Model configs that contract has soft-deleted, and those of them that were the default.
pub(super) const RETIRED: [&str; 2] = [
    "provider_key_contract.retired_model",
    "provider_key_contract.retired_default",
];
/// The same, of `migrate prepare`.
pub const PREPARED: [&str; 2] = ["prepare.retired_model", "prepare.retired_default"];

/// What is noted of them before: each list's name and the query of its ids.
pub fn noted(catalog: &Catalog, lists: [&'static str; 2]) -> Vec<(&'static str, String)> {
    let Some(lonely) = without_provider(catalog) else {
        return Vec::new();
    };
    let [models, defaults] = lists;
    let mut noted = vec![(models, lonely.clone())];
    if catalog.has_column(MODEL_CONFIGS, "is_default") {
        let default = catalog.dialect.is_true("d.is_default");
        noted.push((
            defaults,
            format!(
                "SELECT d.id AS id FROM {MODEL_CONFIGS} d WHERE {default} AND d.id IN ({lonely})"
            ),
        ));
    }
    noted
}

/// What columns of model configs said before anybody retired them: `(column, expression over t)`.
pub fn before_retired(catalog: &Catalog) -> Vec<(&'static str, String)> {
    if !catalog.has_table(CHANGED) {
        return Vec::new();
    }
    let dialect = catalog.dialect;
    let is_in = |list: usize| {
        format!(
            "{} IN (SELECT id FROM {CHANGED} WHERE what IN ('{}', '{}'))",
            text(dialect, "t.id"),
            RETIRED[list],
            PREPARED[list]
        )
    };
    [
        ("deleted", is_in(0), dialect.false_literal()),
        ("deleted_at", is_in(0), "NULL"),
        ("is_default", is_in(1), dialect.true_literal()),
    ]
    .into_iter()
    .filter(|(column, ..)| catalog.has_column(MODEL_CONFIGS, column))
    .map(|(column, noted, was)| {
        (
            column,
            format!("CASE WHEN {noted} THEN {was} ELSE t.{column} END"),
        )
    })
    .collect()
}

/// Copies that differ from their legacy row although neither is newer, so that nobody can say which is meant:
/// `(table, column, query of ids)`.
pub fn conflicting_copies(catalog: &Catalog) -> Vec<(&'static str, &'static str, String)> {
    if !has_legacy(catalog) || !has_new(catalog) {
        return Vec::new();
    }
    let dialect = catalog.dialect;
    let differs = dialect.is_distinct_from();
    let mut found = Vec::new();
    let users = is_same_time(dialect, "n.updated_at", "r.updated_at");
    let central = is_same_time(dialect, "k.updated_at", "p.updated_at");
    for column in ["api_key", "api_key_key_id"] {
        found.push((
            USER_KEYS,
            column,
            format!(
                "SELECT n.id AS id FROM {CHAT_USER_KEYS} r JOIN {USER_KEYS} n ON n.user_id = r.user_id \
                 AND n.ai_provider_id = r.chat_provider_id WHERE {users} AND n.{column} {differs} r.{column}"
            ),
        ));
        // An empty legacy key has been cleared.
        found.push((
            PROVIDER_KEYS,
            column,
            format!(
                "SELECT k.id AS id FROM {PROVIDER_KEYS} k JOIN {CHAT_PROVIDERS} p ON p.id = k.provider_id \
                 WHERE {central} AND {} AND k.{column} {differs} p.{column}",
                is_used(dialect)
            ),
        ));
    }
    let same = is_same_time(dialect, "n.updated_at", "p.updated_at");
    let is = |column: &str| dialect.is_true(column);
    for (column, other) in [
        (
            "enabled",
            format!("({}) {differs} ({})", is("n.enabled"), is("p.enabled")),
        ),
        (
            "base_url",
            format!("n.base_url {differs} COALESCE(p.base_url, '')"),
        ),
        (
            "display_name",
            "COALESCE(n.display_name, '') <> COALESCE(p.display_name, '')".to_owned(),
        ),
    ] {
        found.push((
            PROVIDERS,
            column,
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n JOIN {CHAT_PROVIDERS} p ON p.id = n.id \
                 WHERE NOT ({}) AND {same} AND {other}",
                is("n.deleted")
            ),
        ));
    }
    found
}

/// The same by table, as queries of ids.
pub fn conflicting_rows(catalog: &Catalog) -> Vec<(&'static str, String)> {
    let conflicting_copies = conflicting_copies(catalog);
    [PROVIDERS, PROVIDER_KEYS, USER_KEYS]
        .into_iter()
        .filter_map(|table| {
            let arms: Vec<&str> = conflicting_copies
                .iter()
                .filter(|(of, _, _)| *of == table)
                .map(|(_, _, sql)| sql.as_str())
                .collect();
            (!arms.is_empty()).then(|| (table, arms.join(" UNION ")))
        })
        .collect()
}

/// Model configs that are linked to the copy of another family's chat provider.
pub fn mislinked(catalog: &Catalog) -> Option<String> {
    (has_legacy(catalog) && has_new(catalog) && catalog.has_column(MODEL_CONFIGS, "provider")).then(
        || {
            format!(
                "SELECT c.id AS id FROM {MODEL_CONFIGS} c JOIN {CHAT_PROVIDERS} p ON p.id = c.ai_provider_id \
                 WHERE p.provider <> c.provider"
            )
        },
    )
}
