//! The hazards of the providers track (`docs/upstream/coder.md` §A3).

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::providers::adoption::LEGACY;
use tollgate_migration::providers::cutover::NameConflicts;
use tollgate_migration::providers::{ACCEPT_POLICY_CHANGE, NAME_CONFLICTS, ORPHANED_MODELS};
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, CRYPT_KEYS, FAMILIES, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS,
    TYPE, USER_KEYS, USERS, cutover, has_legacy, policy,
};
use tollgate_migration::{Catalog, Context, Dialect};

use crate::connection::Connection;
use crate::doctor::{Facts, Hazard, Queries, Query, Samples, ids};
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::report::Severity;

const BACKFILL: &str = "provider_key_backfill";
const CONTRACT: &str = "provider_key_contract";

const LOST_FLAGS: &str =
    "central keys are always allowed there, users' keys wherever the deployment allows them";

pub(crate) const HAZARDS: &[Hazard] = &[
    Hazard {
        code: "P001",
        severity: Severity::Blocking,
        title: "a chat provider of a family that AI providers do not have",
        effect: "it could not become an AI provider, and the migration would fail",
        resolve: "correct the family, or delete the provider in the gateway",
        concerns: &[BACKFILL, CONTRACT],
        queries: families,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P002",
        severity: Severity::Blocking,
        title: "a live AI provider that holds the name of a migrated one under another id",
        effect: "two live providers cannot have one name, and nobody can say which of them is meant",
        resolve: "--name-conflicts retire soft-deletes the holder, as upstream does; or delete it in the gateway",
        concerns: &[BACKFILL, CONTRACT],
        queries: name_holders,
        drops: true,
        choice: |context| {
            context.chose(&NAME_CONFLICTS).then_some((
                "it is soft-deleted, so that the migrated provider can have its name",
                "resolved by --name-conflicts retire",
            ))
        },
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P003",
        severity: Severity::Blocking,
        title: "an active model config whose provider has no row",
        effect: "it can be linked to nothing, and the check on active model configs would fail",
        resolve: "--orphaned-models retire soft-deletes it; or create its provider again in the gateway",
        concerns: &[CONTRACT],
        queries: lonely,
        choice: |context| {
            context.chose(&ORPHANED_MODELS).then_some((
                "it is soft-deleted; chats on it use the default model",
                "resolved by --orphaned-models retire",
            ))
        },
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P004",
        severity: Severity::Blocking,
        title: "a chat provider whose policy flags the new schema cannot hold",
        effect: LOST_FLAGS,
        resolve: "--accept-policy-change, when that is what you want; or set the policy in the gateway to what the new schema does",
        concerns: &[CONTRACT],
        queries: policies,
        drops: true,
        choice: |context| {
            context
                .chose(&ACCEPT_POLICY_CHANGE)
                .then_some((LOST_FLAGS, "accepted by --accept-policy-change"))
        },
        detail: Some(|connection, context, _, _| Box::pin(policy_changes(connection, context))),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P005",
        severity: Severity::Blocking,
        title: "a key, an id or a flag that the new tables would refuse",
        effect: "an empty key, a second one of the same user and provider, a user, provider or encryption key that is not there, an id that is taken, or a provider that is neither on nor off; the migration would fail",
        resolve: "correct or delete the rows in the gateway",
        concerns: &[BACKFILL, CONTRACT],
        queries: refused,
        detail: Some(|connection, context, table, samples| {
            Box::pin(causes(connection, context, table, samples))
        }),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P006",
        severity: Severity::Blocking,
        title: "a key or provider with a time that nobody can read",
        effect: "nobody can say which of two keys is the newer one",
        resolve: "correct created_at and updated_at of the rows",
        concerns: &[BACKFILL, CONTRACT],
        queries: timeless,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P007",
        severity: Severity::Blocking,
        title: "something depends on a legacy table that will be dropped",
        effect: "the table cannot be dropped, or what depends on it would break",
        resolve: "drop it first, and create it again on the new tables",
        concerns: &[CONTRACT],
        queries: dependents,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P008",
        severity: Severity::Warning,
        title: "a copied key whose legacy row is gone",
        effect: "old code deleted it since it was copied; the copy still opens the door",
        resolve: "delete the copy in the new gateway, unless it was deleted by mistake",
        concerns: &[CONTRACT],
        queries: deleted_since,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P009",
        severity: Severity::Warning,
        title: "a legacy key, older than the copy, that has none",
        effect: "it was in use when it should have been copied, or its copy was deleted in the new gateway (of a copy that the gateway itself made also: stored since); it is copied again, and opens the door again",
        resolve: "delete the legacy row too, where the key was revoked",
        concerns: &[CONTRACT],
        queries: revoked_since,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P010",
        severity: Severity::Blocking,
        title: "a copy that is unlike its legacy row, and neither is newer",
        effect: "nobody can say which of them is meant; the legacy one would be dropped",
        resolve: "set updated_at of the one that is meant to now: in the legacy table, or in the new one",
        concerns: &[CONTRACT],
        queries: conflicting_copies,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P011",
        severity: Severity::Warning,
        title: "a central key whose legacy row holds none, and is newer",
        effect: "old code cleared it, or edited a provider that has a key in the new gateway alone; it is deleted, as upstream does",
        resolve: "nothing to do where it was cleared; otherwise store it in the new gateway again afterwards",
        concerns: &[CONTRACT],
        queries: cleared,
        drops: true,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "P012",
        severity: Severity::Info,
        title: "a column of a legacy table without a place in the new schema",
        effect: "what it holds is dropped with the table",
        resolve: "nothing to do, or keep it elsewhere",
        concerns: &[CONTRACT],
        queries: placeless,
        drops: true,
        ..Hazard::PLAIN
    },
];

fn conflicting_copies(context: &Context, _: &Facts) -> Queries {
    if context.created(BACKFILL).is_none() {
        return Queries::none();
    }
    cutover::conflicting_rows(&context.catalog)
        .into_iter()
        .collect()
}

fn cleared(context: &Context, _: &Facts) -> Queries {
    if context.created(BACKFILL).is_none() {
        return Queries::none();
    }
    cutover::moves(&context.catalog, NameConflicts::chosen(context))
        .into_iter()
        .filter(|due| due.table == PROVIDER_KEYS && due.action == "delete")
        .map(|due| (due.table, due.due))
        .collect()
}

/// Columns that hold something and are neither moved nor named by P004.
fn placeless(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    LEGACY
        .into_iter()
        .filter(|(table, _)| [CHAT_PROVIDERS, CHAT_USER_KEYS].contains(table))
        .filter_map(|(table, known)| {
            let mut parameters = Parameters::new(catalog.dialect);
            let arms: Vec<String> = catalog
                .table(table)?
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|name| !known.contains(name))
                .map(|name| {
                    format!(
                        "SELECT CAST({} AS text) AS id WHERE EXISTS (SELECT 1 FROM {table} WHERE {} IS NOT NULL)",
                        parameters.bind(name),
                        catalog.dialect.quote(name)
                    )
                })
                .collect();
            (!arms.is_empty()).then(|| (table, parameters.query(arms.join(" UNION ALL "))))
        })
        .collect()
}

fn families(context: &Context, _: &Facts) -> Queries {
    if !context.catalog.has_column(CHAT_PROVIDERS, "provider") {
        return Queries::none();
    }
    // A wider type of a later upstream is as good; a narrower one is widened by expand.
    let mut known: Vec<String> = FAMILIES.iter().map(|&family| family.to_owned()).collect();
    known.extend(
        context
            .catalog
            .enums
            .get(TYPE.0)
            .cloned()
            .unwrap_or_default(),
    );
    let mut parameters = Parameters::new(context.catalog.dialect);
    let sql = format!(
        "SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE p.provider IS NULL OR CAST(p.provider AS text) NOT IN ({})",
        parameters.list(&known)
    );
    Queries::on(CHAT_PROVIDERS, parameters.query(sql))
}

fn name_holders(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    if !catalog.has_table(CHAT_PROVIDERS) || !catalog.has_column(PROVIDERS, "name") {
        return Queries::none();
    }
    Queries::on(PROVIDERS, cutover::name_holders(catalog.dialect))
}

fn lonely(context: &Context, _: &Facts) -> Queries {
    cutover::without_provider(&context.catalog)
        .map(|query| (MODEL_CONFIGS, query))
        .into_iter()
        .collect()
}

fn policies(context: &Context, _: &Facts) -> Queries {
    policy::lost(&context.catalog)
        .map(|query| (CHAT_PROVIDERS, query))
        .into_iter()
        .collect()
}

fn has(catalog: &Catalog, table: &str, columns: &[&str]) -> bool {
    columns
        .iter()
        .all(|column| catalog.has_column(table, column))
}

fn refused(context: &Context, _: &Facts) -> Queries {
    let mut tables: Vec<(&'static str, Vec<String>)> = Vec::new();
    for (table, _, query) in refusals(context) {
        match tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, arms)) => arms.push(query),
            None => tables.push((table, vec![query])),
        }
    }
    tables
        .into_iter()
        .map(|(table, arms)| (table, arms.join(" UNION ")))
        .collect()
}

/// Which rows of a table are refused for what, one clause per cause.
pub(super) async fn causes(
    connection: &Connection,
    context: &Context,
    table: &str,
    samples: Samples,
) -> Result<String> {
    let mut causes = Vec::new();
    // As many statements as causes.
    for (of, cause, query) in refusals(context) {
        if of != table {
            continue;
        }
        let (rows, sample_ids) = ids(connection, query.as_str(), samples)
            .await
            .map_err(Error::database("look for hazard P005"))?;
        if rows > 0 {
            causes.push(format!("{rows} {cause} ({})", sample_ids.join(", ")));
        }
    }
    Ok(format!("the migration would fail: {}", causes.join("; ")))
}

/// What the new tables would refuse: table, cause and a query of ids.
fn refusals(context: &Context) -> Vec<(&'static str, &'static str, String)> {
    let providers = refused_providers(context).into_iter();
    let keys = refused_keys(&context.catalog).into_iter();
    providers
        .map(|(cause, query)| (CHAT_PROVIDERS, cause, query))
        .chain(keys.map(|(cause, query)| (CHAT_USER_KEYS, cause, query)))
        .collect()
}

/// The rows of a table that are encrypted with a key which is not there.
fn with_unknown_key(catalog: &Catalog, table: &str) -> Option<(&'static str, String)> {
    has(catalog, CRYPT_KEYS, &["active_key_digest"]).then(|| {
        let query = format!(
            "SELECT t.id AS id FROM {table} t WHERE t.api_key_key_id IS NOT NULL AND NOT EXISTS \
             (SELECT 1 FROM {CRYPT_KEYS} d WHERE d.active_key_digest = t.api_key_key_id)"
        );
        (UNKNOWN_KEY, query)
    })
}

fn refused_providers(context: &Context) -> Vec<(&'static str, String)> {
    let catalog = &context.catalog;
    let mut providers: Vec<(&'static str, String)> = Vec::new();
    if has(
        catalog,
        CHAT_PROVIDERS,
        &["id", "provider", "api_key_key_id"],
    ) {
        providers.push((
            "of one family with another",
            format!(
                "SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE p.provider IN \
             (SELECT provider FROM {CHAT_PROVIDERS} GROUP BY provider HAVING count(*) > 1)"
            ),
        ));
        providers.extend(with_unknown_key(catalog, CHAT_PROVIDERS));
        if catalog
            .column(CHAT_PROVIDERS, "enabled")
            .is_some_and(|column| !column.not_null)
        {
            providers.push((
                "neither on nor off",
                format!("SELECT p.id AS id FROM {CHAT_PROVIDERS} p WHERE p.enabled IS NULL"),
            ));
        }
        // Behind the copy the id is the provider's own.
        if context.created(BACKFILL).is_none() && has(catalog, PROVIDERS, &["id", "name"]) {
            providers.push((TAKEN, format!(
                "SELECT p.id AS id FROM {CHAT_PROVIDERS} p JOIN {PROVIDERS} n ON n.id = p.id AND n.name <> {}",
                cutover::migrated_name()
            )));
        }
    }
    providers
}

fn refused_keys(catalog: &Catalog) -> Vec<(&'static str, String)> {
    let mut keys: Vec<(&'static str, String)> = Vec::new();
    if has(
        catalog,
        CHAT_USER_KEYS,
        &[
            "id",
            "user_id",
            "chat_provider_id",
            "api_key",
            "api_key_key_id",
        ],
    ) && catalog.has_table(CHAT_PROVIDERS)
    {
        keys.push(("empty, or of nobody", format!(
            "SELECT r.id AS id FROM {CHAT_USER_KEYS} r WHERE r.api_key IS NULL OR r.api_key = '' OR r.user_id IS NULL \
             OR r.chat_provider_id IS NULL"
        )));
        // What the server itself guards is not asked of every row again.
        if !is_unique(catalog, CHAT_USER_KEYS, &["user_id", "chat_provider_id"]) {
            keys.push(("of one user and provider with another", format!(
                "SELECT r.id AS id FROM (SELECT id, count(*) OVER (PARTITION BY user_id, chat_provider_id) AS number \
                 FROM {CHAT_USER_KEYS}) r WHERE r.number > 1"
            )));
        }
        if !has_parent(catalog, CHAT_USER_KEYS, "chat_provider_id", CHAT_PROVIDERS) {
            keys.push((
                "of a provider that is not there",
                format!(
                    "SELECT r.id AS id FROM {CHAT_USER_KEYS} r WHERE NOT EXISTS \
                 (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = r.chat_provider_id)"
                ),
            ));
        }
        if !has_parent(catalog, CHAT_USER_KEYS, "user_id", USERS) {
            keys.push(("of a user who is not there", format!(
                "SELECT r.id AS id FROM {CHAT_USER_KEYS} r WHERE NOT EXISTS (SELECT 1 FROM {USERS} u WHERE u.id = r.user_id)"
            )));
        }
        if !has_parent(catalog, CHAT_USER_KEYS, "api_key_key_id", CRYPT_KEYS) {
            keys.extend(with_unknown_key(catalog, CHAT_USER_KEYS));
        }
        if has(catalog, USER_KEYS, &["id", "user_id", "ai_provider_id"]) {
            keys.push((
                TAKEN,
                format!(
                    "SELECT r.id AS id FROM {CHAT_USER_KEYS} r JOIN {USER_KEYS} n ON n.id = r.id \
                 WHERE n.user_id <> r.user_id OR n.ai_provider_id <> r.chat_provider_id"
                ),
            ));
        }
    }
    keys
}

/// Two of the causes, of either table.
const UNKNOWN_KEY: &str = "encrypted with a key that is not there";
const TAKEN: &str = "under an id that is taken";

/// The server lets no two rows share these columns.
fn is_unique(catalog: &Catalog, table: &str, columns: &[&str]) -> bool {
    catalog.table(table).is_some_and(|table| {
        table.indexes.iter().any(|index| {
            index.unique && index.valid && index.predicate.is_none() && index.columns == columns
        })
    })
}

/// The server lets no row name a parent that is not there. On SQLite each writer decides that for itself.
fn has_parent(catalog: &Catalog, table: &str, column: &str, parent: &str) -> bool {
    catalog.dialect == Dialect::Postgres
        && catalog.table(table).is_some_and(|table| {
            table
                .foreign_keys_on(column)
                .any(|key| key.parent == parent && key.validated)
        })
}

fn timeless(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    if !has_legacy(catalog) {
        return Queries::none();
    }
    // Both sides of a comparison: against a time that cannot be read nothing is newer.
    [
        CHAT_PROVIDERS,
        CHAT_USER_KEYS,
        PROVIDERS,
        PROVIDER_KEYS,
        USER_KEYS,
    ]
    .into_iter()
    .filter(|table| has(catalog, table, &["id", "created_at", "updated_at"]))
    .filter_map(|table| {
        let unread: Vec<String> = ["created_at", "updated_at"]
            .into_iter()
            .filter_map(|column| match catalog.dialect {
                // It takes `now`, a time of day and a number for times too.
                Dialect::Sqlite => Some(format!(
                    "julianday({column}) IS NULL OR {column} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
                )),
                Dialect::Postgres => catalog
                    .column(table, column)
                    .is_some_and(|column| !column.not_null)
                    .then(|| format!("{column} IS NULL")),
            })
            .collect();
        (!unread.is_empty()).then(|| {
            (
                table,
                format!("SELECT id FROM {table} WHERE {}", unread.join(" OR ")),
            )
        })
    })
    .collect()
}

fn dependents(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    [CHAT_PROVIDERS, CHAT_USER_KEYS]
        .into_iter()
        .filter_map(|table| {
            let mut found: Vec<String> = catalog
                .dependents
                .iter()
                .filter(|dependent| dependent.table == table && !goes_too(catalog, &dependent.name))
                .map(|dependent| {
                    format!("{} {}", dependent.kind, dependent.name)
                        .trim()
                        .to_owned()
                })
                .collect();
            found.sort();
            found.dedup();
            (!found.is_empty()).then(|| (table, Query::names(catalog.dialect, &found)))
        })
        .collect()
}

/// Whether what depends on a legacy table is one of them, on one of them, or a key that contract drops.
fn goes_too(catalog: &Catalog, name: &str) -> bool {
    let legacy = [CHAT_PROVIDERS, CHAT_USER_KEYS];
    if legacy.contains(&name) || name == MODEL_CONFIGS {
        return true;
    }
    let owned = |table: &str| {
        catalog.table(table).is_some_and(|table| {
            table
                .foreign_keys
                .iter()
                .any(|key| key.name.as_deref() == Some(name))
                || table.triggers.iter().any(|trigger| trigger.name == name)
                || table.column(name).is_some_and(|column| column.generated)
        })
    };
    let link = catalog.table(MODEL_CONFIGS).is_some_and(|table| {
        table
            .foreign_keys
            .iter()
            .any(|key| key.parent == CHAT_PROVIDERS && key.name.as_deref() == Some(name))
    });
    link || legacy.into_iter().any(owned)
}

/// Whether the copies have been written back into the legacy tables since they were made: what a `down` wrote there nobody
/// has deleted anywhere.
fn is_undone(context: &Context) -> bool {
    match (
        context.applied(BACKFILL),
        context.last_runs.get("migrate down"),
    ) {
        (Some(copied), Some(&down)) => down >= copied.at,
        _ => false,
    }
}

/// When the tables of AI providers' keys were made here, in seconds since 1970. Tables that a gateway made are older than
/// their adoption.
fn expanded_at(context: &Context) -> Option<i64> {
    let step = context.applied("provider_key_expand")?;
    (!step.is_adopted && !is_undone(context)).then_some(step.at)
}

/// When chat providers' keys were last copied here, likewise: what the routine saw it has copied.
fn copied_at(context: &Context) -> Option<i64> {
    let copied = context.applied(BACKFILL)?.at;
    let routine = context.last_runs.get("reconcile provider-keys");
    (!is_undone(context)).then(|| routine.map_or(copied, |&at| copied.max(at)))
}

/// Copies that are older than the table they are in, so that they can only have come from a legacy row, which is gone.
fn deleted_since(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    let Some(since) = expanded_at(context) else {
        return Queries::none();
    };
    if !has_legacy(catalog) || context.created(BACKFILL).is_none() || !catalog.has_table(USER_KEYS)
    {
        return Queries::none();
    }
    let before = match catalog.dialect {
        Dialect::Postgres => format!("n.created_at < to_timestamp({since})"),
        Dialect::Sqlite => {
            format!("CAST(strftime('%s', n.created_at) AS integer) < {since}")
        }
    };
    Queries::from_iter([
        (
            PROVIDERS,
            format!(
                "SELECT n.id AS id FROM {PROVIDERS} n WHERE NOT ({}) AND {before} AND n.name LIKE 'agents-%' \
                 AND NOT EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = n.id)",
                catalog.dialect.is_true("n.deleted")
            ),
        ),
        (
            USER_KEYS,
            format!(
                "SELECT n.id AS id FROM {USER_KEYS} n WHERE {before} AND NOT EXISTS (SELECT 1 FROM {CHAT_USER_KEYS} r \
                 WHERE r.user_id = n.user_id AND r.chat_provider_id = n.ai_provider_id)"
            ),
        ),
    ])
}

/// Legacy keys that were there when the keys were copied, and have no copy.
fn revoked_since(context: &Context, _: &Facts) -> Queries {
    let catalog = &context.catalog;
    let Some(since) = copied_at(context) else {
        return Queries::none();
    };
    let before = |column: &str| match catalog.dialect {
        Dialect::Postgres => format!("{column} < to_timestamp({since})"),
        Dialect::Sqlite => format!("CAST(strftime('%s', {column}) AS integer) < {since}"),
    };
    cutover::moves(catalog, NameConflicts::chosen(context))
        .into_iter()
        .filter(|due| due.action == "insert")
        .filter_map(|due| {
            let (table, row) = match due.table {
                PROVIDER_KEYS => (CHAT_PROVIDERS, "p.updated_at"),
                USER_KEYS => (CHAT_USER_KEYS, "r.updated_at"),
                _ => return None,
            };
            Some((table, format!("{} AND {}", due.due, before(row))))
        })
        .collect()
}

/// What would change for whom when the policy flags go, one sentence per provider.
pub(super) async fn policy_changes(connection: &Connection, context: &Context) -> Result<String> {
    let db_context = || Error::database("read the policies of chat providers");
    let Some(sql) = policy::described(&context.catalog) else {
        return Ok(String::new());
    };
    let rows = connection
        .query_all_raw(Statement::from_string(
            context.catalog.dialect.backend(),
            sql,
        ))
        .await
        .map_err(db_context())?;
    let mut sentences = Vec::new();
    for row in rows {
        let number = |name: &str| match context.catalog.dialect {
            Dialect::Postgres => row
                .try_get::<i64>("", name)
                .or_else(|_| row.try_get::<i32>("", name).map(i64::from)),
            Dialect::Sqlite => row.try_get::<i64>("", name),
        };
        let is = |name: &str| number(name).map(|number| number == 1);
        let id: String = row.try_get("", "id").map_err(db_context())?;
        let family: String = row.try_get("", "provider").map_err(db_context())?;
        let (without, with) = (
            number("without_key").map_err(db_context())?,
            number("with_key").map_err(db_context())?,
        );
        let (central, users, fallback) = (
            is("central").map_err(db_context())?,
            is("users").map_err(db_context())?,
            is("fallback").map_err(db_context())?,
        );
        let (key, is_off) = if is("stored").map_err(db_context())? {
            (
                "the central key",
                "the central key, which is switched off, becomes live",
            )
        } else {
            (
                "a key that the deployment itself provides, if it does",
                "a key that the deployment itself provides, if it does, becomes usable",
            )
        };
        let mut parts = Vec::new();
        if !central {
            parts.push(is_off.to_owned());
        }
        if !central || (users && !fallback) {
            let key = if central { key } else { "it" };
            parts.push(format!(
                "{} without a key of their own start using {key}",
                people(without)
            ));
        }
        if !users && with > 0 {
            parts.push(format!(
                "the stored keys of {} become usable where the deployment allows users' own keys",
                people(with)
            ));
        }
        // A disabled provider serves nobody in either schema.
        let asleep = if is("enabled").map_err(db_context())? {
            ""
        } else {
            " (once the provider is enabled again)"
        };
        sentences.push(format!("{family} {id}: {}{asleep}", parts.join("; ")));
    }
    Ok(sentences.join(". "))
}

fn people(number: i64) -> String {
    if number == 1 {
        "1 user".to_owned()
    } else {
        format!("{number} users")
    }
}
