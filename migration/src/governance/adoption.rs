//! Which version of the governance schema a database without history stands at (`reference/bifrost.md` §2).

use crate::catalog::Catalog;
use crate::catalog::sqlite_ddl::CreateTable;
use crate::migration::Context;

use super::owners::Owner;
use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

/// What a database was recognised as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The shape in words.
    pub shape: &'static str,
    /// The slugs of the migrations it already stands behind.
    pub applied: Vec<&'static str>,
}

/// A database at no version that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The version it comes nearest to.
    pub nearest: &'static str,
    /// How it differs from that, one line each.
    pub differences: Vec<String>,
}

/// Columns that the track's migrations read or write in either schema. Everything else on a real database is optional.
const REQUIRED: [(&str, &[&str]); 3] = [
    (
        BUDGETS,
        &[
            "id",
            "max_limit",
            "reset_duration",
            "last_reset",
            "current_usage",
        ],
    ),
    (VIRTUAL_KEYS, &["id"]),
    (PROVIDER_CONFIGS, &["id", "virtual_key_id"]),
];

const LEGACY: &str = "the legacy schema";
const MIGRATED: &str = "the schema behind upstream's add_multi_budget_tables";

/// Signs that the database is past what this track knows (G016): objects by table.
pub fn past(catalog: &Catalog) -> Vec<(&'static str, &'static str)> {
    let mut signs = Vec::new();
    if catalog.has_column(BUDGETS, "model_config_id") {
        signs.push((BUDGETS, "model_config_id"));
    }
    if catalog.has_table("mcp_oauth_tokens") {
        signs.push(("mcp_oauth_tokens", "mcp_oauth_tokens"));
    }
    signs
}

/// Recognises a database.
///
/// # Errors
/// [`Unknown`] with every difference from the nearest version.
pub fn recognise(context: &Context) -> Result<Recognised, Unknown> {
    let catalog = &context.catalog;
    let owners = Owner::BOTH
        .into_iter()
        .all(|owner| catalog.has_column(BUDGETS, owner.column()));
    if owners {
        migrated(context)
    } else {
        legacy(catalog)
    }
}

fn legacy(catalog: &Catalog) -> Result<Recognised, Unknown> {
    let mut differences = missing(catalog);
    for owner in Owner::BOTH {
        let table = owner.table();
        if catalog.has_table(table) && !catalog.has_column(table, "budget_id") {
            differences.push(format!("{table} has no column budget_id"));
        }
        if catalog.has_column(BUDGETS, owner.column()) {
            differences.push(format!(
                "{BUDGETS} has a column {}, which the legacy schema does not have",
                owner.column()
            ));
        }
    }
    if catalog.has_column(VIRTUAL_KEYS, "calendar_aligned") {
        differences.push(format!(
            "{VIRTUAL_KEYS} has a column calendar_aligned, which the legacy schema does not have"
        ));
    }
    if !differences.is_empty() {
        return Err(Unknown {
            nearest: LEGACY,
            differences,
        });
    }
    Ok(Recognised {
        shape: if catalog.has_column(BUDGETS, "calendar_aligned") {
            "legacy, with the calendar flag on budgets (v1.5.0-prerelease1)"
        } else {
            "legacy, without a calendar flag on budgets (v1.4.x)"
        },
        applied: vec!["governance_baseline"],
    })
}

/// Upstream's own migration ran. What it did is marked; what it left undone (the check, indexes that `AddColumn` does not
/// create, leftovers on SQLite) stays pending.
fn migrated(context: &Context) -> Result<Recognised, Unknown> {
    let catalog = &context.catalog;
    let mut differences = missing(catalog);
    if catalog.has_table(VIRTUAL_KEYS) && !catalog.has_column(VIRTUAL_KEYS, "calendar_aligned") {
        differences.push(format!("{VIRTUAL_KEYS} has no column calendar_aligned"));
    }
    let leftovers: Vec<&str> = Owner::BOTH
        .into_iter()
        .map(Owner::table)
        .filter(|table| catalog.has_column(table, "budget_id"))
        .collect();
    let recorded = context.upstream_ran("add_multi_budget_tables");
    if !recorded {
        for table in &leftovers {
            differences.push(format!(
                "{table} still has a column budget_id, and upstream's table of migrations does not name \
                 add_multi_budget_tables: nobody can say which of the two is the truth"
            ));
        }
    }
    if !differences.is_empty() {
        return Err(Unknown {
            nearest: MIGRATED,
            differences,
        });
    }
    let again = catalog.has_column(BUDGETS, "calendar_aligned")
        && context.upstream_ran("migrate_calendar_aligned")
        && !context.upstream_ran("drop_legacy_calendar_aligned_columns");
    let stale_flag = catalog.has_column(BUDGETS, "calendar_aligned") && !again;
    if !leftovers.is_empty() || stale_flag {
        return Ok(Recognised {
            shape: "migrated by upstream, with columns left behind (SQLite, v1.5.0-prerelease2 and 3)",
            applied: vec!["governance_baseline", "multi_budget_expand"],
        });
    }
    Ok(Recognised {
        shape: if again {
            "migrated by upstream, with the calendar flag on budgets added again (v1.5.0-prerelease4)"
        } else if catalog.has_column(BUDGETS, "team_id") {
            "migrated by upstream, with budgets owned by teams (v1.5.x)"
        } else {
            "migrated by upstream (v1.5.0-prerelease2 and later)"
        },
        applied: vec![
            "governance_baseline",
            "multi_budget_expand",
            "multi_budget_backfill",
        ],
    })
}

fn missing(catalog: &Catalog) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, columns) in REQUIRED {
        let Some(live) = catalog.table(table) else {
            differences.push(format!("there is no table {table}"));
            continue;
        };
        for column in columns {
            if live.column(column).is_none() {
                differences.push(format!("{table} has no column {column}"));
            }
        }
        let strict = live
            .sql
            .as_deref()
            .and_then(CreateTable::parse)
            .is_some_and(|create| create.options.to_lowercase().contains("strict"));
        if strict {
            differences.push(format!(
                "{table} is STRICT, and the gateway's own types are none of SQLite's strict ones"
            ));
        }
        let keyed = live.primary_key == ["id"]
            || live
                .indexes
                .iter()
                .any(|index| index.unique && index.predicate.is_none() && index.columns == ["id"]);
        if !keyed {
            differences.push(format!("{table} has no unique key over id"));
        }
    }
    differences
}

/// Columns that upstream's later migrations add to the track's tables, or take away, with their keys and indexes
/// (`reference/bifrost.md` §2.4, §2.5). None of them is a hand's work.
const LATER: [(&str, &str); 15] = [
    (BUDGETS, "team_id"),
    (BUDGETS, "customer_id"),
    (BUDGETS, "calendar_aligned"),
    ("governance_rate_limits", "calendar_aligned"),
    ("governance_teams", "calendar_aligned"),
    ("governance_teams", "source_id"),
    ("governance_teams", "budget_id"),
    ("governance_teams", "name"),
    ("governance_customers", "calendar_aligned"),
    (VIRTUAL_KEYS, "created_by_user_id"),
    (VIRTUAL_KEYS, "access_profile_id"),
    (VIRTUAL_KEYS, "expires_at"),
    (PROVIDER_CONFIGS, "blacklisted_models"),
    (PROVIDER_CONFIGS, "provider"),
    (PROVIDER_CONFIGS, "key_id"),
];

/// Whether a difference is the work of a later upstream. `table` and `kind name` are those of a canonical schema, the
/// definition is the one that is there or was expected.
pub fn is_later_upstream(object: &str, definition: &str, expected: bool) -> bool {
    let mut words = object.splitn(3, ' ');
    let (Some(table), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let leaves = matches!((table, name), ("governance_teams", "budget_id"))
        || definition.contains("budget_id") && table == "governance_teams";
    LATER.iter().any(|(known, column)| {
        *known == table
            && match kind {
                "column" => name == *column && (!expected || leaves),
                _ => {
                    (!expected || leaves)
                        && definition
                            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                            .any(|word| word == *column)
                }
            }
    })
}
