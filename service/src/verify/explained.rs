//! What a gateway's own migrations rewrite and insert: held against each one's rule, it is no loss
//! (`docs/upstream/bifrost.md` §9.3, `coder.md` A3 and A8).

use sea_orm::{FromQueryResult, Statement};
use tollgate_migration::{Context, Ledger, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::{Finding, Severity};
use crate::rows;

/// One column that some migrations rewrite.
struct Rewrite {
    table: &'static str,
    column: &'static str,
    ids: &'static [&'static str],
    /// The value that they write, where there is one.
    value: Option<&'static str>,
}

/// Migrations that compute hashes of configurations again; gorm writes `updated_at` with them.
const REHASH: &[&str] = &[
    "add_allow_all_keys_to_provider_config",
    "backfill_empty_virtual_key_configs",
    "backfill_allowed_models_wildcard",
    "drop_deployment_columns_and_add_aliases",
    "add_replicate_key_config_column",
    "add_team_budgets_to_budgets_table",
    "backfill_vk_provider_config_blacklisted_models",
];
const WILDCARD: &[&str] = &["backfill_allowed_models_wildcard"];
const TEAM_NAMES: &[&str] = &["gov_unique_team_names"];
const INTERVALS: &[&str] = &["convert_mcp_client_tool_sync_interval_minutes_to_seconds"];

const fn any(table: &'static str, column: &'static str, ids: &'static [&'static str]) -> Rewrite {
    Rewrite {
        table,
        column,
        ids,
        value: None,
    }
}

const REWRITES: &[Rewrite] = &[
    any("governance_virtual_keys", "config_hash", REHASH),
    any("governance_virtual_keys", "updated_at", REHASH),
    any("config_keys", "config_hash", REHASH),
    any("config_keys", "updated_at", REHASH),
    any(
        "config_keys",
        "aliases_json",
        &["drop_deployment_columns_and_add_aliases"],
    ),
    any("config_providers", "config_hash", REHASH),
    any("config_providers", "updated_at", REHASH),
    any("governance_teams", "config_hash", REHASH),
    any("governance_teams", "updated_at", REHASH),
    any("governance_teams", "name", TEAM_NAMES),
    any(
        "governance_virtual_key_provider_configs",
        "allow_all_keys",
        &["add_allow_all_keys_to_provider_config"],
    ),
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "allowed_models",
        ids: WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite {
        table: "config_keys",
        column: "models_json",
        ids: WILDCARD,
        value: Some("[\"*\"]"),
    },
    Rewrite {
        table: "governance_virtual_key_provider_configs",
        column: "blacklisted_models",
        ids: &["backfill_vk_provider_config_blacklisted_models"],
        value: Some("[]"),
    },
    any("config_mcp_clients", "tool_sync_interval", INTERVALS),
    any("config_mcp_clients", "updated_at", INTERVALS),
    // Coder: the types of Bedrock providers, at the starts of builds from 2026-06-11 on.
    any("ai_providers", "type", &["518"]),
    any("ai_providers", "updated_at", &["504", "505", "518"]),
    any("chat_model_configs", "provider", &["518"]),
    any("chat_model_configs", "updated_at", &["518"]),
];

/// Rows that migrations and starts insert.
const INSERTS: &[(&str, &[&str])] = &[
    (
        "governance_virtual_key_provider_configs",
        &["backfill_empty_virtual_key_configs"],
    ),
    (
        "governance_virtual_key_mcp_configs",
        &["backfill_empty_virtual_key_configs"],
    ),
    ("config_keys", &["add_ollama_sgl_config_columns"]),
    // The seed from the environment.
    ("ai_providers", &["504"]),
    ("ai_provider_keys", &["504"]),
];

/// The entries of a ledger that were not there before. Coder's are the numbers since.
pub(super) fn gained(then: &[String], now: &Ledger) -> Vec<String> {
    match now {
        Ledger::Ids(entries) | Ledger::Files(entries) => entries
            .iter()
            .filter(|entry| !then.contains(entry))
            .cloned()
            .collect(),
        Ledger::Number { version, .. } => {
            let from = then
                .first()
                .and_then(|number| number.parse::<i64>().ok())
                .unwrap_or(*version);
            (from + 1..=*version)
                .map(|number| number.to_string())
                .collect()
        }
        Ledger::None | Ledger::Anothers(_) => Vec::new(),
    }
}

/// The entries of a ledger, as a snapshot keeps them.
pub(crate) fn entries(ledger: &Ledger) -> Option<Vec<String>> {
    match ledger {
        Ledger::Ids(entries) | Ledger::Files(entries) => Some(entries.clone()),
        Ledger::Number { version, .. } => Some(vec![version.to_string()]),
        Ledger::None | Ledger::Anothers(_) => None,
    }
}

/// Turns what the gateway's migrations since explain into information.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn explain(
    connection: &Connection,
    track: Track,
    live: &Context,
    gained: &[String],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    if gained.is_empty() {
        return Ok(());
    }
    let has = |ids: &[&str]| {
        ids.iter()
            .any(|id| gained.iter().any(|gained| gained == id))
    };
    let version = track.words(live.ledger(track)).unwrap_or_default();
    for finding in findings.iter_mut() {
        let explained = match finding.code.as_str() {
            // Tables, columns and indexes are the gateway's, and change with its versions.
            "V101" => true,
            "V103" => INSERTS
                .iter()
                .any(|(table, ids)| *table == finding.table && has(ids)),
            "V104" => {
                let rule = REWRITES.iter().find(|rewrite| {
                    rewrite.table == finding.table
                        && Some(rewrite.column) == finding.column.as_deref()
                        && has(rewrite.ids)
                });
                match rule {
                    None => false,
                    Some(Rewrite { value: None, .. }) => true,
                    Some(Rewrite {
                        table,
                        column,
                        value: Some(value),
                        ..
                    }) => holds(connection, live, table, column, value, finding).await?,
                }
            }
            _ => false,
        };
        if explained {
            finding.severity = Severity::Info;
            finding.effect = format!(
                "the gateway has migrated to {version} since the snapshot, which does this"
            );
            finding.resolve = "nothing to do".to_owned();
        }
    }
    fold(findings);
    Ok(())
}

/// One line for each table whose schema the gateway has changed.
fn fold(findings: &mut Vec<Finding>) {
    let mut folded: Vec<Finding> = Vec::new();
    findings.retain(|finding| {
        if finding.code != "V101" || finding.severity != Severity::Info {
            return true;
        }
        match folded.iter_mut().find(|first| first.table == finding.table) {
            Some(first) => {
                first.rows += finding.rows;
                first.sample_ids.extend(finding.sample_ids.iter().cloned());
            }
            None => folded.push(Finding {
                title: "the gateway has changed the schema".to_owned(),
                column: None,
                ..finding.clone()
            }),
        }
        false
    });
    findings.extend(folded);
}

/// Whether as many rows as differ have the value that the migration writes, the named ones among them.
async fn holds(
    connection: &Connection,
    live: &Context,
    table: &str,
    column: &str,
    value: &str,
    finding: &Finding,
) -> Result<bool> {
    let dialect = live.catalog.dialect;
    let db_context = || Error::database(format!("read {table}.{column}"));
    let ids: Vec<String> = (1..=finding.sample_ids.len())
        .map(|position| dialect.parameter(position + 1))
        .collect();
    let named = if ids.is_empty() {
        "0".to_owned()
    } else {
        format!(
            "(SELECT count(*) FROM {table} WHERE CAST(id AS text) IN ({}) AND {column} = {})",
            ids.join(", "),
            dialect.parameter(1)
        )
    };
    let mut values: Vec<sea_orm::Value> = vec![value.into()];
    values.extend(finding.sample_ids.iter().map(|id| id.clone().into()));
    let set: Option<Set> = rows::one(
        connection,
        Statement::from_sql_and_values(
            dialect.backend(),
            format!(
                "SELECT CAST((SELECT count(*) FROM {table} WHERE {column} = {}) AS bigint) AS there, CAST({named} AS bigint) AS named",
                dialect.parameter(1)
            ),
            values,
        ),
    )
    .await
    .map_err(db_context())?;
    Ok(set.is_some_and(|set| {
        set.there.unsigned_abs() >= finding.rows
            && set.named.unsigned_abs() >= finding.sample_ids.len() as u64
    }))
}

/// How many rows have a value, and how many of those that a finding names.
#[derive(FromQueryResult)]
struct Set {
    there: i64,
    named: i64,
}
