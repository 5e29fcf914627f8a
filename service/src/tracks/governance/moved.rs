//! What the governance track moves: the facts that must have exactly one new place each, and how the rows around them are
//! read so that what the doctor announced is no difference.

use std::borrow::Cow;

use tollgate_migration::Context;
use tollgate_migration::governance::clones::CLONES;
use tollgate_migration::governance::header_names::{self, Folded};
use tollgate_migration::governance::owners::{self, LegacyColumns, Owner};
use tollgate_migration::governance::{
    BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS, header_keys, remembered,
};

use crate::snapshot::cell::Canonical;
use crate::snapshot::fact::{Fact, SEPARATOR};
use crate::snapshot::scan::Reading;
use crate::tracks::governance::budget::schema::{CUSTOMERS, RATE_LIMITS, TEAMS};
use crate::tracks::governance::shape::{MODEL_CONFIGS, PROVIDERS, has_budgets_of_model_configs};

/// How the governance track's rows are read: header keys in lower case, and copies of budgets as their originals.
pub(super) fn reading(context: &Context, table: &str) -> Reading {
    Reading {
        canonical: header_keys(context)
            .into_iter()
            .filter(|names| names.table == table)
            .map(|names| {
                let canonical: Canonical = if names.list {
                    |text| folded(text, true)
                } else {
                    |text| folded(text, false)
                };
                (names.column, canonical)
            })
            .collect(),
        ..budgets_and_owners(context, table)
    }
}

/// `reconcile header-keys` changes nothing that counts.
fn folded(text: &str, list: bool) -> Cow<'_, str> {
    match header_names::fold(text, list) {
        Folded::Changed(folded, _) => Cow::Owned(folded),
        Folded::Same | Folded::Malformed => Cow::Borrowed(text),
    }
}

/// Copies of shared budgets are known by their originals.
fn budgets_and_owners(context: &Context, table: &str) -> Reading {
    let cloned = context.catalog.has_table(CLONES);
    let copies = |on: &str| {
        if cloned {
            format!("LEFT JOIN {} c ON c.copy = {on}", CLONES)
        } else {
            String::new()
        }
    };
    match table {
        BUDGETS => Reading {
            join: copies("t.id"),
            condition: if cloned {
                "c.copy IS NULL".to_owned()
            } else {
                String::new()
            },
            without: Owner::BOTH.map(Owner::column).to_vec(),
            amounts: &["max_limit", "current_usage"],
            ..Reading::default()
        },
        "governance_rate_limits" => Reading {
            amounts: &["token_current_usage", "request_current_usage"],
            ..Reading::default()
        },
        _ if Owner::BOTH.iter().any(|owner| owner.table() == table) => {
            let refers = context.catalog.has_column(table, "budget_id");
            let of_original = if cloned {
                "COALESCE(c.original, b.id)"
            } else {
                "b.id"
            };
            Reading {
                join: if refers {
                    format!(
                        "LEFT JOIN {BUDGETS} b ON b.id = t.budget_id {}",
                        copies("t.budget_id")
                    )
                } else {
                    String::new()
                },
                // A reference to no budget, or an empty one, says nothing, and is announced as dropped.
                instead: refers
                    .then(|| ("budget_id", of_original.to_owned()))
                    .into_iter()
                    .collect(),
                without: vec!["calendar_aligned"],
                ..Reading::default()
            }
        }
        // Whoever else shared a budget refers to a copy behind `migrate prepare`.
        _ if cloned
            && remembered::KINDS.iter().any(|(_, kind)| *kind == table)
            && context.catalog.has_column(table, "budget_id") =>
        {
            Reading {
                join: copies("t.budget_id"),
                instead: [("budget_id", "COALESCE(c.original, t.budget_id)".to_owned())].into(),
                ..Reading::default()
            }
        }
        _ => Reading::default(),
    }
}

/// Who owns which budget, and whose windows follow the calendar.
pub(super) fn facts(context: &Context) -> Vec<Fact> {
    let mut facts = vec![Fact {
        name: "owners of budgets",
        table: BUDGETS,
        sql: owners_of_budgets(context),
    }];
    if let Some(sql) = limits_of_groups(context) {
        facts.push(Fact {
            name: "budgets of teams, customers and providers",
            table: BUDGETS,
            sql,
        });
    }
    if let Some(sql) = owners_of_rate_limits(context) {
        facts.push(Fact {
            name: "owners of rate limits",
            table: RATE_LIMITS,
            sql,
        });
    }
    if let Some(sql) = aligned(context) {
        facts.push(Fact {
            name: "virtual keys on calendar windows",
            table: VIRTUAL_KEYS,
            sql,
        });
    }
    facts
}

/// Whether the owner columns are authoritative: the backfill is recorded, or upstream's own migration ran.
fn is_backfilled(context: &Context) -> bool {
    context.created("multi_budget_backfill").is_some()
}

/// The budget of a claim `r` under its original's name, where it is a copy, and what that joins.
fn by_original(context: &Context) -> (&'static str, String) {
    if context.catalog.has_table(CLONES) {
        (
            "COALESCE(c.original, r.budget)",
            format!("LEFT JOIN {CLONES} c ON c.copy = r.budget"),
        )
    } else {
        ("r.budget", String::new())
    }
}

/// Who owns which budget, a copy under its original's name.
fn owners_of_budgets(context: &Context) -> String {
    let legacy = (!is_backfilled(context))
        .then(|| owners::references(context))
        .flatten();
    let columns = is_backfilled(context) || owners::legacy(context) == LegacyColumns::Stale;
    let mut claims: Vec<String> = legacy.into_iter().collect();
    for (rank, owner) in Owner::BOTH.into_iter().enumerate() {
        let column = owner.column();
        if columns && context.catalog.has_column(BUDGETS, column) {
            claims.push(format!(
                "SELECT {rank} AS kind, CAST({column} AS text) AS owner, id AS budget FROM {BUDGETS} \
                 WHERE {column} IS NOT NULL"
            ));
        }
    }
    claims.extend(owners_through_model_configs(context));
    if claims.is_empty() {
        claims.push("SELECT 0 AS kind, '' AS owner, '' AS budget WHERE 1 = 0".to_owned());
    }
    let (budget, join) = by_original(context);
    format!(
        "SELECT DISTINCT {budget} || '{SEPARATOR}' || CASE WHEN r.kind = 0 THEN '{}' ELSE '{}' END || '{SEPARATOR}' || r.owner \
         AS fact FROM ({}) r JOIN {BUDGETS} b ON b.id = r.budget {join}",
        Owner::VirtualKey.column(),
        Owner::ProviderConfig.column(),
        claims.join(" UNION ALL ")
    )
}

/// The budgets of teams, customers and providers: by a reference of theirs, by a column of the budget, or by the model config for
/// all models of the provider. A copy goes by its original's name.
fn limits_of_groups(context: &Context) -> Option<String> {
    let has = |table: &str, column: &str| context.catalog.has_column(table, column);
    let mut arms = Vec::new();
    for (table, kind, owner) in [
        (TEAMS, "team", "t.id"),
        (CUSTOMERS, "customer", "t.id"),
        (PROVIDERS, "provider", "t.name"),
    ] {
        if has(table, "budget_id") {
            arms.push(format!(
                "SELECT t.budget_id AS budget, '{kind}' AS kind, CAST({owner} AS text) AS owner FROM {table} t"
            ));
        }
    }
    for (column, kind) in [("team_id", "team"), ("customer_id", "customer")] {
        if has(BUDGETS, column) {
            arms.push(format!(
                "SELECT t.id AS budget, '{kind}' AS kind, CAST(t.{column} AS text) AS owner FROM {BUDGETS} t WHERE t.{column} IS NOT NULL"
            ));
        }
    }
    if has_budgets_of_model_configs(has) && has(MODEL_CONFIGS, "scope") {
        arms.push(format!(
            "SELECT b.id AS budget, 'provider' AS kind, m.provider AS owner FROM {BUDGETS} b JOIN {MODEL_CONFIGS} m \
             ON m.id = b.model_config_id AND m.scope = 'global' AND m.model_name = '*' AND m.provider <> ''"
        ));
    }
    let (budget, join) = by_original(context);
    (!arms.is_empty()).then(|| {
        format!(
            "SELECT DISTINCT {budget} || '{SEPARATOR}' || r.kind || '{SEPARATOR}' || r.owner AS fact \
             FROM ({}) r JOIN {BUDGETS} b ON b.id = r.budget {join}",
            arms.join(" UNION ALL ")
        )
    })
}

/// Whose each rate limit is: of a key or a provider config, or of the model config that stands for it from 1.5.9 on.
fn owners_of_rate_limits(context: &Context) -> Option<String> {
    let has = |table: &str, column: &str| context.catalog.has_column(table, column);
    let said = |limit: &str, kind: &str, owner: &str| {
        format!("SELECT {limit} || '{SEPARATOR}{kind}{SEPARATOR}' || CAST({owner} AS text) AS fact")
    };
    let (key, config) = (Owner::VirtualKey.column(), Owner::ProviderConfig.column());
    let mut arms = Vec::new();
    for (table, kind) in [(VIRTUAL_KEYS, key), (PROVIDER_CONFIGS, config)] {
        if has(table, "rate_limit_id") {
            arms.push(format!(
                "{} FROM {table} t WHERE t.rate_limit_id <> ''",
                said("t.rate_limit_id", kind, "t.id")
            ));
        }
    }
    if has_budgets_of_model_configs(has)
        && has(MODEL_CONFIGS, "scope_id")
        && has(MODEL_CONFIGS, "rate_limit_id")
    {
        let such = "m.rate_limit_id <> '' AND m.scope = 'virtual_key' AND m.model_name = '*'";
        arms.push(format!(
            "{} FROM {MODEL_CONFIGS} m WHERE {such} AND COALESCE(m.provider, '') = ''",
            said("m.rate_limit_id", key, "m.scope_id")
        ));
        arms.push(format!(
            "{} FROM {MODEL_CONFIGS} m JOIN {PROVIDER_CONFIGS} c ON c.virtual_key_id = m.scope_id \
             AND c.provider = m.provider WHERE {such}",
            said("m.rate_limit_id", config, "c.id")
        ));
    }
    (!arms.is_empty() && has(RATE_LIMITS, "id")).then(|| arms.join(" UNION "))
}

/// Who owns a budget through a model config, from 1.5.9 on (`docs/upstream/bifrost.md` §11): the key's own for all models, and the
/// one for all models of a provider, which stands for the key's provider configs.
fn owners_through_model_configs(context: &Context) -> Vec<String> {
    let has = |table: &str, column: &str| context.catalog.has_column(table, column);
    if !has_budgets_of_model_configs(has) || !has(MODEL_CONFIGS, "scope_id") {
        return Vec::new();
    }
    let of = format!(
        "FROM {BUDGETS} b JOIN {MODEL_CONFIGS} m ON m.id = b.model_config_id \
         AND m.scope = 'virtual_key' AND m.model_name = '*'"
    );
    vec![
        format!(
            "SELECT 0 AS kind, m.scope_id AS owner, b.id AS budget {of} AND COALESCE(m.provider, '') = ''"
        ),
        format!(
            "SELECT 1 AS kind, CAST(c.id AS text) AS owner, b.id AS budget {of} \
             JOIN {PROVIDER_CONFIGS} c ON c.virtual_key_id = m.scope_id AND c.provider = m.provider"
        ),
    ]
}

/// The ids of the virtual keys whose windows follow the calendar.
fn aligned(context: &Context) -> Option<String> {
    let catalog = &context.catalog;
    let column = catalog.has_column(VIRTUAL_KEYS, "calendar_aligned");
    let said = format!("{SEPARATOR}calendar_aligned{SEPARATOR}true");
    // Where model configs have flags of their own, one that stands for a provider config speaks for its key alone.
    let has = |table: &str, column: &str| catalog.has_column(table, column);
    let through = if has_budgets_of_model_configs(has) && has(MODEL_CONFIGS, "calendar_aligned") {
        format!(
            " UNION SELECT m.scope_id || '{said}' AS fact FROM {MODEL_CONFIGS} m WHERE m.scope = 'virtual_key' \
             AND m.model_name = '*' AND {}",
            catalog.dialect.is_true("m.calendar_aligned")
        )
    } else {
        String::new()
    };
    let own = || {
        format!(
            "SELECT id || '{said}' AS fact FROM {VIRTUAL_KEYS} WHERE {}{through}",
            catalog.dialect.is_true("calendar_aligned")
        )
    };
    if is_backfilled(context) {
        return column.then(own);
    }
    let leftover = owners::legacy(context) == LegacyColumns::Stale;
    let of: &[Owner] = if leftover {
        &[Owner::ProviderConfig]
    } else {
        &Owner::BOTH
    };
    let by_budgets = owners::has_legacy_flag(context)
        .then(|| owners::flagged_by_legacy(context, of))
        .flatten()
        .map(|flagged| {
            // A flag of a provider config without its key has nowhere to go.
            format!(
                "SELECT v.id || '{said}' AS fact FROM {VIRTUAL_KEYS} v JOIN ({flagged}) flagged ON flagged.id = v.id"
            )
        });
    match by_budgets {
        Some(flagged) if leftover && column => Some(format!("{flagged} UNION {}", own())),
        Some(flagged) => Some(flagged),
        None if column => Some(own()),
        None => Some(format!("SELECT id AS fact FROM {VIRTUAL_KEYS} WHERE 1 = 0")),
    }
}
