//! What a gateway's own record of its migrations forbids: one that failed half-way, one that says what is not there, another
//! product's, and versions that are too old or too new.

use tollgate_migration::governance::{BUDGETS, mcp};
use tollgate_migration::ledger::{SCHEMA_MIGRATIONS, coder, molecule};
use tollgate_migration::providers::{
    GATEWAY_KEYS, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, TYPE, USER_KEYS,
};
use tollgate_migration::{Context, Ledger, Track};

use super::finding;
use crate::report::{Finding, Severity};

/// Every finding of the ledger's. They do not depend on what is planned.
pub(crate) fn examine(track: Track, live: &Context) -> Vec<Finding> {
    let ledger = live.ledger(track);
    let catalog = &live.catalog;
    let past = track.newer_than_supported(catalog);
    if !past.is_empty() {
        return past
            .into_iter()
            .map(|(table, sign)| {
                let mut told = crate::doctor::schema_finding("G016", table, sign);
                if let Some(version) = ledger.words() {
                    told.title = format!("{} ({} {version})", told.title, track.gateway());
                }
                told
            })
            .collect();
    }
    let table = track.ledger_table();
    let mut found = Vec::new();
    match ledger {
        Ledger::None => return found,
        Ledger::Anothers(table) => {
            let mut told = finding("E007", table, vec![(*table).to_owned()]);
            told.title = format!(
                "a table {table} is there, and it is not {}'s",
                track.gateway()
            );
            found.push(told);
            return found;
        }
        _ => {}
    }
    let version = ledger.words().unwrap_or_default();
    if !track.is_carried_by(catalog) {
        let mut told = finding("E007", table, vec![version.clone()]);
        told.title = format!(
            "{} has migrated this database ({version}), and none of the track's tables is there",
            track.gateway()
        );
        found.push(told);
    }
    if ledger.is_dirty() {
        let mut told = finding("E006", table, vec![format!("{version}, dirty")]);
        told.title = format!("a migration of {}'s own failed half-way", track.gateway());
        told.effect = "nobody knows how much of it is there".to_owned();
        told.resolve = format!("repair it with {}'s own means first", track.gateway());
        found.push(told);
    }
    let missing: Vec<String> = relied_upon(track, live)
        .into_iter()
        .filter(|(id, is_there, _)| ledger.has(id) && !is_there)
        .map(|(id, _, what)| format!("{id}: no {what}"))
        .collect();
    if !missing.is_empty() && track.is_carried_by(catalog) {
        found.push(finding("E006", table, missing));
    }
    found.extend(versions(track, live));
    found.extend(made_early(track, live));
    found
}

/// Those that forbid writing.
pub(crate) fn blocking(track: Track, live: &Context) -> Vec<Finding> {
    let mut found = examine(track, live);
    found.retain(|finding| finding.severity == Severity::Blocking);
    found
}

/// Those after which nothing else can be asked: what the gateway believes and what is there are two things, or it is a version
/// that nobody here knows.
pub(crate) fn contradictions(track: Track, live: &Context) -> Vec<Finding> {
    let mut found = blocking(track, live);
    found.retain(|finding| {
        ["E006", "E007", "G016", "P014", "B003"].contains(&finding.code.as_str())
    });
    found
}

/// Migrations of the gateway's on which steps rely: the id, whether its work is there, and what that is.
fn relied_upon(track: Track, live: &Context) -> Vec<(&'static str, bool, &'static str)> {
    let catalog = &live.catalog;
    let column = |table, column| catalog.has_column(table, column);
    match track {
        Track::Governance => vec![
            (
                "add_multi_budget_tables",
                column(BUDGETS, "virtual_key_id") && column(BUDGETS, "provider_config_id"),
                "governance_budgets.virtual_key_id and provider_config_id",
            ),
            (
                "add_team_budgets_to_budgets_table",
                column(BUDGETS, "team_id"),
                "governance_budgets.team_id",
            ),
            (
                "add_budget_model_config_id_column",
                column(BUDGETS, "model_config_id"),
                "governance_budgets.model_config_id",
            ),
            (
                "add_customer_budgets_to_budgets_table",
                column(BUDGETS, "customer_id"),
                "governance_budgets.customer_id",
            ),
            (
                "merge_oauth_token_tables",
                catalog.has_table("mcp_oauth_tokens"),
                "table mcp_oauth_tokens",
            ),
        ],
        Track::Providers => vec![
            (
                "495",
                catalog.has_table(PROVIDERS) && catalog.has_table(PROVIDER_KEYS),
                "tables ai_providers and ai_provider_keys",
            ),
            (
                "499",
                catalog
                    .enums
                    .get(TYPE.0)
                    .is_none_or(|labels| labels.len() >= 8),
                "eight labels of ai_provider_type",
            ),
            (
                "503",
                catalog.has_table(USER_KEYS) && column(MODEL_CONFIGS, "ai_provider_id"),
                "table user_ai_provider_keys with the model configs' link",
            ),
            (
                "514",
                catalog.has_table(GATEWAY_KEYS),
                "table ai_gateway_keys",
            ),
        ],
        Track::Billing => Vec::new(),
    }
}

/// Versions at which nothing can be done, or nothing is known.
fn versions(track: Track, live: &Context) -> Vec<Finding> {
    match (track, live.ledger(track)) {
        (Track::Providers, Ledger::Number { version, .. }) if *version > coder::NEWEST => {
            vec![finding(
                "P014",
                SCHEMA_MIGRATIONS,
                vec![version.to_string()],
            )]
        }
        (Track::Providers, Ledger::Number { version, .. }) if *version < coder::BEFORE => {
            vec![finding(
                "P013",
                SCHEMA_MIGRATIONS,
                vec![coder::words(*version)],
            )]
        }
        (Track::Billing, Ledger::Files(files)) if molecule::is_past(files) => {
            let newest = files.last().cloned().unwrap_or_default();
            vec![finding("B003", SCHEMA_MIGRATIONS, vec![newest])]
        }
        _ => Vec::new(),
    }
}

/// What an earlier Tollgate made that is the gateway's own to make, and whose migration it has still before it.
pub(crate) fn early(track: Track, live: &Context) -> Vec<String> {
    let ledger = live.ledger(track);
    if !ledger.owns() {
        return Vec::new();
    }
    let theirs: &[(&str, &str)] = match track {
        Track::Governance => &[
            (mcp::TOKENS, "add_per_user_oauth_tables"),
            (mcp::SESSIONS, "add_per_user_oauth_tables"),
            (mcp::HEADERS, "add_mcp_per_user_header_credentials_table"),
            (mcp::HEADER_FLOWS, "add_mcp_per_user_header_flows_table"),
        ],
        Track::Providers => &[
            (GATEWAY_KEYS, "514"),
            (PROVIDERS, "495"),
            (PROVIDER_KEYS, "495"),
            (USER_KEYS, "502"),
        ],
        Track::Billing => &[],
    };
    let made = |object: &str| {
        live.history.values().any(|created| {
            created
                .tables
                .iter()
                .chain(&created.enums)
                .any(|made| made == object)
        })
    };
    let mut early: Vec<String> = theirs
        .iter()
        .filter(|(table, id)| live.catalog.has_table(table) && !ledger.has(id) && made(table))
        .map(|(table, _)| (*table).to_owned())
        .collect();
    if track == Track::Providers && made(TYPE.0) && !ledger.has("495") {
        early.push(TYPE.0.to_owned());
    }
    early
}

fn made_early(track: Track, live: &Context) -> Vec<Finding> {
    early(track, live)
        .into_iter()
        .map(|object| finding("E008", &object, vec![object.clone()]))
        .collect()
}
