//! Which version of the governance schema a database without history stands at (`docs/upstream/bifrost.md` §2).

use crate::adoption::{Recognised, Unknown};
use crate::catalog::Catalog;
use crate::catalog::sqlite_ddl::CreateTable;
use crate::context::Context;
use crate::plan::Created;

use super::mcp::{MERGED_FLOWS, MERGED_TOKENS};
use super::owners::{self, Owner};
use super::tables::OF_PROVIDERS;
use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use crate::dialect::Dialect;
use crate::schema::kind;

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

/// Columns of virtual keys that 2.1 brought; what else came with it is known by hearsay (`docs/upstream/bifrost.md` §8.4).
const NEWER: [&str; 3] = ["previous_value", "rotated_at", "allow_all_providers"];

/// What only the gateway's own migration makes as it should be: a column, the migration, and another column that it has made or
/// found. Where the ledger does not name it, or the other is not there, somebody else has made it, and nobody knows how.
pub const GATEWAYS_OWN: [(Column, &str, Column); 2] = [
    (
        (BUDGETS, "model_config_id"),
        "migrate_virtual_key_governance_to_model_configs",
        ("governance_model_configs", "scope_id"),
    ),
    (
        (MERGED_TOKENS, "id"),
        "merge_oauth_token_tables",
        (MERGED_FLOWS, "flow_mode"),
    ),
];

/// A table, and a column of it.
pub type Column = (&'static str, &'static str);

/// Columns past what this track knows, of a database that has these columns, and whose ledger names these migrations.
pub fn unknown_columns(
    has: impl Fn(&str, &str) -> bool,
    ran: impl Fn(&str) -> bool,
) -> Vec<Column> {
    let unrecorded = GATEWAYS_OWN
        .into_iter()
        .filter(|((table, column), id, (other, needed))| {
            has(table, column) && !(ran(id) && has(other, needed))
        })
        .map(|(column, ..)| column);
    let newer = NEWER
        .into_iter()
        .map(|column| (VIRTUAL_KEYS, column))
        .filter(|(table, column)| has(table, column));
    unrecorded.chain(newer).collect()
}

/// Signs that the database is past what this track knows (G016): objects by table.
pub fn newer_than_supported(context: &Context) -> Vec<(&'static str, &'static str)> {
    unknown_columns(
        |table, column| context.catalog.has_column(table, column),
        |id| context.upstream_ran(id),
    )
    .into_iter()
    .map(|(table, column)| (table, if column == "id" { table } else { column }))
    .collect()
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
            "legacy, with the calendar flag on budgets (v1.4.18 to v1.5.0-prerelease1)"
        } else {
            "legacy, without a calendar flag on budgets (v1.4.0 to v1.4.17)"
        },
        applied: vec!["governance_baseline"],
        created: None,
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
    if differences.is_empty() && begun(context) {
        return Ok(restored(context));
    }
    let recorded = context.upstream_ran("add_multi_budget_tables");
    if !recorded {
        for table in &leftovers {
            differences.push(format!(
                "{table} still has a column budget_id, and upstream's table of migrations does not name \
                 add_multi_budget_tables: nobody can say which of the two is authoritative"
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
            created: None,
        });
    }
    Ok(Recognised {
        shape: if again {
            "migrated by upstream, with the calendar flag on budgets added again (v1.5.0-prerelease4 and later)"
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
        created: None,
    })
}

/// Whether Tollgate added the owner columns and its own tables are gone, as in a backup that was restored without them. A
/// gateway's own migration would be on record, and on PostgreSQL would have dropped what it replaces.
fn begun(context: &Context) -> bool {
    let catalog = &context.catalog;
    let complete = Owner::BOTH
        .into_iter()
        .all(|owner| owner.has_legacy_reference(context))
        && catalog.has_column(VIRTUAL_KEYS, "calendar_aligned");
    let ours = catalog.table(BUDGETS).is_some_and(|budgets| {
        budgets.check(&owners::one_owner().name).is_some()
            || Owner::BOTH.into_iter().all(|owner| {
                budgets
                    .foreign_keys_on(owner.column())
                    .any(|key| key.on_delete == owner.loose_foreign_key().on_delete)
            })
    });
    complete
        && !context.upstream_ran("add_multi_budget_tables")
        && (ours || catalog.dialect == Dialect::Postgres || !context.upstream.is_empty())
}

/// A database between two phases of a run whose record is gone. The legacy columns say who owns what.
fn restored(context: &Context) -> Recognised {
    let budgets = context.catalog.table(BUDGETS);
    let constrained = budgets.is_some_and(|budgets| {
        let indexed = |column: &str| {
            budgets
                .indexes
                .iter()
                .any(|index| index.columns == [column])
        };
        budgets.check(&owners::one_owner().name).is_some()
            && Owner::BOTH.into_iter().all(|owner| {
                indexed(owner.column()) && budgets.foreign_keys_on(owner.column()).next().is_some()
            })
    });
    let mut applied = vec!["governance_baseline", "multi_budget_expand"];
    if constrained {
        applied.extend(["multi_budget_backfill", "multi_budget_constraints"]);
    }
    let columns = Owner::BOTH
        .into_iter()
        .map(|owner| format!("{BUDGETS}.{}", owner.column()))
        .chain([format!("{VIRTUAL_KEYS}.calendar_aligned")])
        .collect();
    Recognised {
        shape: "between two phases of an earlier Tollgate's run, without its own tables",
        applied,
        created: Some((
            "multi_budget_expand",
            Created {
                columns,
                ..Created::default()
            },
        )),
    }
}

/// Whether a required column's type is one that the migrations can work with.
fn fits(table: &str, column: &str, live: &str) -> bool {
    let live = kind(Dialect::Postgres, live);
    let text = live.starts_with("varchar") || live == "text";
    let integer = matches!(live.as_str(), "bigint" | "integer");
    match column {
        "id" if table == PROVIDER_CONFIGS => integer,
        "max_limit" | "current_usage" => {
            integer
                || live.starts_with("numeric")
                || matches!(live.as_str(), "double precision" | "real")
        }
        "last_reset" => live.starts_with("timestamp"),
        _ => text,
    }
}

fn missing(catalog: &Catalog) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, columns) in REQUIRED {
        let Some(live) = catalog.table(table) else {
            differences.push(format!("there is no table {table}"));
            continue;
        };
        for column in columns {
            match live.column(column) {
                None => differences.push(format!("{table} has no column {column}")),
                Some(found) if catalog.dialect == Dialect::Postgres => {
                    if !fits(table, column, &found.kind) {
                        differences.push(format!("{table}.{column} is {}", found.kind));
                    }
                }
                // SQLite's columns hold whatever is written.
                Some(_) => {}
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

/// What upstream's later migrations add to the track's tables (`docs/upstream/bifrost.md` §2.4, §2.5), by the objects of a
/// canonical schema and the start of their definition. None of it is a hand's work.
const LATER: [(&str, &str); 26] = [
    // Of an earlier release.
    (
        "governance_virtual_key_provider_config_keys foreign key fk_vk_provider_config_keys_key",
        "(table_key_id)",
    ),
    (
        "governance_virtual_key_provider_config_keys foreign key fk_vk_provider_config_keys_provider_config",
        "(table_virtual_key_provider_config_id)",
    ),
    (
        "mcp_per_user_header_credentials column headers_json",
        "text not null default '{}'",
    ),
    (
        "config_keys column replicate_use_deployments_endpoint",
        "text",
    ),
    ("governance_budgets column team_id", "varchar(255)"),
    ("governance_budgets column customer_id", "varchar(255)"),
    ("governance_budgets column calendar_aligned", FLAG),
    (
        "governance_budgets index idx_governance_budgets_team_id",
        "(team_id)",
    ),
    (
        "governance_budgets index idx_governance_budgets_customer_id",
        "(customer_id)",
    ),
    (
        "governance_budgets foreign key fk_governance_teams_budgets",
        "(team_id)",
    ),
    (
        "governance_budgets foreign key fk_governance_customers_budgets",
        "(customer_id)",
    ),
    ("governance_rate_limits column calendar_aligned", FLAG),
    ("governance_teams column calendar_aligned", FLAG),
    ("governance_teams column source_id", "varchar(255)"),
    (
        "governance_teams index idx_governance_teams_name",
        "unique (name)",
    ),
    ("governance_teams index idx_governance_teams_source_id", ""),
    ("governance_customers column calendar_aligned", FLAG),
    (
        "governance_virtual_keys column created_by_user_id",
        "varchar(255)",
    ),
    ("governance_virtual_keys column access_profile_id", ""),
    ("governance_virtual_keys column expires_at", TIME),
    (
        "governance_virtual_keys index idx_virtual_key_created_by",
        "(created_by_user_id)",
    ),
    (
        "governance_virtual_keys index idx_governance_virtual_keys_created_by_user_id",
        "",
    ),
    (
        "governance_virtual_keys index idx_governance_virtual_keys_access_profile_id",
        "",
    ),
    (
        "governance_virtual_key_provider_configs column blacklisted_models",
        "text",
    ),
    (
        "governance_virtual_key_provider_configs index idx_vk_provider_configs_provider",
        "(provider)",
    ),
    (
        "governance_virtual_key_provider_config_keys index idx_vk_provider_config_keys_key",
        "",
    ),
];

/// A flag on either backend.
const FLAG: &str = "a flag";
/// A time on either backend.
const TIME: &str = "a time";

/// What a later migration takes away.
const TAKEN: [&str; 3] = [
    "governance_teams column budget_id",
    "governance_teams index idx_governance_teams_budget_id",
    "governance_teams foreign key fk_governance_teams_budget",
];

/// What earlier releases did not make with their tables, or under another name; none of it changes what a row means.
const MADE_SINCE: [&str; 20] = [
    "config_keys index idx_config_keys_created_at",
    "config_keys index idx_config_keys_updated_at",
    "config_providers index idx_config_providers_created_at",
    "config_providers index idx_config_providers_updated_at",
    "governance_customers index idx_governance_customers_created_at",
    "governance_customers index idx_governance_customers_updated_at",
    "governance_teams column source_id",
    "governance_teams index idx_governance_teams_source_id",
    "governance_virtual_key_provider_config_keys foreign key fk_governance_virtual_key_provider_config_keys_table_key",
    "governance_virtual_key_provider_config_keys foreign key fk_governance_virtual_key_provider_config_keys_table_vi9ac4e889",
    "governance_virtual_key_provider_config_keys foreign key fk_governance_virtual_key_provider_config_keys_table_vir9ac4e889",
    "governance_virtual_key_provider_configs column blacklisted_models",
    "governance_virtual_key_provider_configs index idx_provider_config_budget",
    "governance_virtual_key_provider_configs index idx_provider_config_rate_limit",
    "governance_virtual_keys column created_by_user_id",
    "governance_virtual_keys index idx_virtual_key_created_by",
    "mcp_per_user_header_credentials index idx_mcp_per_user_header_credentials_created_at",
    "mcp_per_user_header_credentials index idx_mcp_per_user_header_credentials_updated_at",
    "oauth_user_sessions index idx_oauth_user_sessions_created_at",
    "oauth_user_sessions index idx_oauth_user_sessions_updated_at",
];

/// Whether a difference is the work of a later upstream. The definition is the one that is there or was expected.
pub fn is_later_upstream(object: &str, definition: &str, expected: bool) -> bool {
    if expected {
        // An earlier release made the table without what each provider's keys carry; `schema repair` adds it.
        return TAKEN.contains(&object)
            || MADE_SINCE.contains(&object)
            || object
                .strip_prefix("config_keys column ")
                .is_some_and(|column| OF_PROVIDERS.iter().any(|(name, _)| *name == column));
    }
    LATER.iter().any(|(known, start)| {
        *known == object
            && match *start {
                FLAG => ["boolean", "numeric"]
                    .iter()
                    .any(|kind| definition.starts_with(kind)),
                TIME => ["timestamp", "datetime"]
                    .iter()
                    .any(|kind| definition.starts_with(kind)),
                start => definition.starts_with(start),
            }
    })
}
