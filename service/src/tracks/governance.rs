//! Bifrost's budgets and who owns them.

mod boot;
mod boots;
pub mod budget;
mod claims;
mod clones;
pub mod config;
mod copies;
pub mod credentials;
mod explained;
pub mod flows;
mod hazards;
pub mod header_keys;
pub mod header_requirements;
pub mod mcp_client;
mod moved;
mod prepare;
mod remembered;
mod repairs;
pub mod resets;
pub mod seed;
pub(crate) mod shape;
pub mod survey;
pub mod virtual_key;

use tollgate_migration::governance::capture;
use tollgate_migration::governance::clones::CLONES;
use tollgate_migration::governance::mcp::{self, CLIENTS, GRANTS};
use tollgate_migration::governance::owners::{self, Owner};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Context, Track};

use crate::module::{DroppedObject, Module, NamedRoutine};
use crate::verify::invariant::Question;
use crate::verify::{Invariant, RESTORE};

use budget::requests;
use credentials::{Scope, credentials};
use flows::flows;
use header_keys::fold_header_keys;
use resets::{REQUEST_RETENTION, resets};

/// Which provider keys a provider config may use.
const JOIN: &str = "governance_virtual_key_provider_config_keys";

pub(super) static MODULE: Module = Module {
    hazards: hazards::HAZARDS,
    known: |connection, context, codes| Box::pin(hazards::known(connection, context, codes)),
    shared: claims::claimed,
    parents: &[
        (BUDGETS, "virtual_key_id", VIRTUAL_KEYS),
        (BUDGETS, "provider_config_id", PROVIDER_CONFIGS),
        (PROVIDER_CONFIGS, "virtual_key_id", VIRTUAL_KEYS),
        (
            JOIN,
            "table_virtual_key_provider_config_id",
            PROVIDER_CONFIGS,
        ),
        (JOIN, "table_key_id", "config_keys"),
        (GRANTS, "virtual_key_id", VIRTUAL_KEYS),
        (GRANTS, "mcp_client_id", CLIENTS),
    ],
    codes: &[
        Invariant {
            code: "V005",
            title: "a budget has two owners",
            effect: "the gateway rejects it on its next save",
            resolve: "empty one of the two columns",
        },
        Invariant {
            code: "V107",
            title: "the copy of a shared budget is not like its original",
            effect: "a copy has its original's limit, duration, window and usage",
            resolve: RESTORE,
        },
    ],
    invariants,
    left_by_contract,
    relied_upon,
    // Versions past what is known show in the schema.
    of_gateway: &[
        (mcp::TOKENS, "add_per_user_oauth_tables"),
        (mcp::SESSIONS, "add_per_user_oauth_tables"),
        (mcp::HEADERS, "add_mcp_per_user_header_credentials_table"),
        (mcp::HEADER_FLOWS, "add_mcp_per_user_header_flows_table"),
    ],
    facts: moved::facts,
    count_copies: |connection, live| Box::pin(copies::count(connection, live)),
    copies: |connection, live| Box::pin(copies::compare(connection, live)),
    reading: moved::reading,
    rewritten_by: explained::REWRITES,
    inserted_by: explained::INSERTS,
    rewritten_by_down: &[(BUDGETS, "calendar_aligned")],
    prepare: |work, live, report, left| Box::pin(prepare::prepare(work, live, report, left)),
    finish: |work, live, report, left| Box::pin(prepare::finish(work, live, report, left)),
    remembers: Some(remembered::TABLE),
    put_back: |connection, report| Box::pin(prepare::put_back(connection, report)),
    copied: |connection, report| Box::pin(clones::made(connection, report)),
    own_tables: &[
        (requests::TABLE, &["request_id"]),
        (CLONES, &["original", "kind", "owner", "copy"]),
        (capture::TOUCHED, &["source", "old_id", "new_id"]),
        (
            remembered::TABLE,
            &["kind", "owner", "budget", "virtual_key"],
        ),
    ],
    lost_indexes: repairs::lost_indexes,
    repairs: repairs::repairs,
    routines: &[
        NamedRoutine {
            name: "header-keys",
            about: "header keys in lower case and without spaces",
            run: |session, options, now, stop| {
                Box::pin(fold_header_keys(session, options, now, stop))
            },
        },
        NamedRoutine {
            name: "credentials",
            about: "credentials of virtual keys follow the keys' grants on MCP clients",
            run: |session, options, now, stop| {
                Box::pin(credentials(session, &Scope::All, options, now, stop))
            },
        },
        NamedRoutine {
            name: "flows",
            about: "flows that ran out are deleted",
            run: |session, options, now, stop| Box::pin(flows(session, None, options, now, stop)),
        },
        NamedRoutine {
            name: "resets",
            about: "budgets and rate limits whose window is over reset",
            run: |session, options, now, stop| {
                Box::pin(resets(session, REQUEST_RETENTION, options, now, stop))
            },
        },
    ],
    boot: |connection, target| Box::pin(boot::boot(connection, target)),
    seeds: &[&seed::LEGACY, &seed::CREDENTIALS],
    ..Module::of_track(Track::GOVERNANCE)
};

fn invariants(live: &Context) -> Vec<Question> {
    owners::owned_by_several(live)
        .map(|sql| Question {
            code: "V005",
            table: BUDGETS.to_owned(),
            column: Some(Owner::ProviderConfig.column().to_owned()),
            sql,
        })
        .into_iter()
        .collect()
}

fn left_by_contract(live: &Context) -> Vec<DroppedObject> {
    if live.created("multi_budget_contract").is_none() {
        return Vec::new();
    }
    let mut left: Vec<_> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_column(live))
        .map(|owner| (owner.table(), Some("budget_id")))
        .collect();
    if owners::has_legacy_flag(live) {
        left.push((BUDGETS, Some("calendar_aligned")));
    }
    left
}

fn relied_upon(live: &Context) -> Vec<(&'static str, bool, &'static str)> {
    let column = |column| live.catalog.has_column(BUDGETS, column);
    vec![
        (
            "add_multi_budget_tables",
            column("virtual_key_id") && column("provider_config_id"),
            "governance_budgets.virtual_key_id and provider_config_id",
        ),
        (
            "add_team_budgets_to_budgets_table",
            column("team_id"),
            "governance_budgets.team_id",
        ),
        (
            "add_budget_model_config_id_column",
            column("model_config_id"),
            "governance_budgets.model_config_id",
        ),
        (
            "add_customer_budgets_to_budgets_table",
            column("customer_id"),
            "governance_budgets.customer_id",
        ),
        (
            "merge_oauth_token_tables",
            live.catalog.has_table("mcp_oauth_tokens"),
            "table mcp_oauth_tokens",
        ),
    ]
}
