//! Coder's AI providers and the keys to them.

mod boot;
mod explained;
pub mod gateway_key;
pub mod handover;
pub(crate) mod hazards;
mod moves;
mod prepare;
pub mod provider_key;
pub mod provider_keys;
mod seed;

use tollgate_migration::ledger::SCHEMA_MIGRATIONS;
use tollgate_migration::providers::cutover::NameConflicts;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, GATEWAY_KEYS, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, TYPE,
    USER_KEYS, USERS, coder, cutover,
};
use tollgate_migration::{Choices, Context, Dialect, Ledger, Track};

use crate::doctor::trouble::{Trouble, VersionTrouble};
use crate::module::{DroppedObject, Module, NamedRoutine};
use crate::report::{Finding, Severity};
use crate::tracks::providers::provider_keys::provider_keys;
use crate::verify::Invariant;
use crate::verify::invariant::Question;

pub(super) static MODULE: Module = Module {
    asks_for_runs_since: Some("provider_key_backfill"),
    hazards: hazards::HAZARDS,
    parents: &[
        (PROVIDER_KEYS, "provider_id", PROVIDERS),
        (USER_KEYS, "ai_provider_id", PROVIDERS),
        (USER_KEYS, "user_id", USERS),
        (MODEL_CONFIGS, "ai_provider_id", PROVIDERS),
        (CHAT_USER_KEYS, "chat_provider_id", CHAT_PROVIDERS),
        (CHAT_USER_KEYS, "user_id", USERS),
    ],
    codes: &[
        Invariant {
            code: "V009",
            title: "what a legacy row says has no place in the new tables, or an older one",
            effect: "new code does not see it until contract has caught up",
            resolve: "`tollgate reconcile provider-keys` carries it over",
        },
        Invariant {
            code: "V010",
            title: "the copy of a key is not like its legacy row, although neither is newer",
            effect: "old and new code would use different keys",
            resolve: "store the right key again, in the gateway",
        },
        Invariant {
            code: "V011",
            title: "an active model config has no provider",
            effect: "the model cannot be reached",
            resolve: "link it to a provider, or delete it, in the gateway",
        },
        Invariant {
            code: "V012",
            title: "an AI provider's type is none of the legal ones",
            effect: "the gateway does not know how to reach it",
            resolve: "correct the type",
        },
    ],
    invariants,
    left_by_contract,
    relied_upon,
    versions,
    of_gateway: &[
        (GATEWAY_KEYS, "514"),
        (PROVIDERS, "495"),
        (PROVIDER_KEYS, "495"),
        (USER_KEYS, "502"),
        (TYPE.0, "495"),
    ],
    facts: |context| moves::links(&context.catalog).into_iter().collect(),
    sections: moves::sections,
    walk: |context, name| {
        moves::is_moved(name)
            .then(|| moves::walk(&context.catalog, name))
            .flatten()
    },
    reading: |context, table| moves::reading(&context.catalog, table),
    troubles: &[TOO_OLD, TOO_NEW],
    rewritten_by: explained::REWRITES,
    inserted_by: explained::INSERTS,
    rewritten_by_down: moves::REWRITTEN_BY_DOWN,
    prepare: |work, live, report, left| Box::pin(prepare::prepare(work, live, report, left)),
    finish: |_, live, _, _| Box::pin(async move { prepare::finish(live) }),
    numbers: &[
        ("provider_key_expand", coder::EXPANDED),
        ("provider_key_backfill", coder::COPIED),
        ("provider_key_contract", coder::FINISHED),
    ],
    irrevocable: Some("provider_key_contract"),
    routines: &[NamedRoutine {
        name: "provider-keys",
        about: "AI providers and their keys follow what old code still writes",
        run: |session, options, now, stop| {
            Box::pin(provider_keys(session, Choices::none(), options, now, stop))
        },
    }],
    over: Some((PROVIDERS, CHAT_PROVIDERS)),
    boot: |connection, target| Box::pin(boot::boot(connection, target)),
    seeds: &[&seed::LEGACY],
    ..Module::of_track(Track::PROVIDERS)
};

fn left_by_contract(live: &Context) -> Vec<DroppedObject> {
    if live.created("provider_key_contract").is_none() {
        return Vec::new();
    }
    [CHAT_PROVIDERS, CHAT_USER_KEYS]
        .into_iter()
        .filter(|table| live.catalog.has_table(table))
        .map(|table| (table, None))
        .collect()
}

fn relied_upon(live: &Context) -> Vec<(&'static str, bool, &'static str)> {
    let catalog = &live.catalog;
    vec![
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
            catalog.has_table(USER_KEYS) && catalog.has_column(MODEL_CONFIGS, "ai_provider_id"),
            "table user_ai_provider_keys with the model configs' link",
        ),
        (
            "514",
            catalog.has_table(GATEWAY_KEYS),
            "table ai_gateway_keys",
        ),
    ]
}

const TOO_OLD: VersionTrouble = VersionTrouble {
    trouble: Trouble {
        code: "P013",
        severity: Severity::Blocking,
        title: "Coder stands before migration 502: the cutover cannot be done in its stead",
        effect: "2.32 (462) and 2.33 (483) go through the whole cutover in one boot of 2.34 (509), and tables made before would stop that boot",
        resolve: "before that boot: `tollgate snapshot`, then `tollgate migrate prepare` with every server stopped; after it: `tollgate migrate prepare --finish`, `tollgate verify --snapshot`",
    },
    contradicts: false,
    spares_rows: true,
};

const TOO_NEW: VersionTrouble = VersionTrouble {
    trouble: Trouble {
        code: "P014",
        severity: Severity::Blocking,
        title: "Coder's ledger is past what this Tollgate knows (532)",
        effect: "what a later migration changed would be written as if it had not",
        resolve: "use a newer Tollgate; reading works",
    },
    contradicts: true,
    spares_rows: false,
};

fn versions(live: &Context) -> Vec<Finding> {
    match live.ledger(Track::PROVIDERS) {
        Ledger::Number { version, .. } if *version > coder::NEWEST => {
            vec![
                TOO_NEW
                    .trouble
                    .found(SCHEMA_MIGRATIONS, vec![version.to_string()]),
            ]
        }
        Ledger::Number { version, .. } if *version < coder::BEFORE => {
            vec![
                TOO_OLD
                    .trouble
                    .found(SCHEMA_MIGRATIONS, vec![coder::words(*version)]),
            ]
        }
        _ => Vec::new(),
    }
}

/// Behind the copy every legacy row has its place; behind contract every active model config has a provider.
fn invariants(live: &Context) -> Vec<Question> {
    let catalog = &live.catalog;
    let mut questions = Vec::new();
    let mut ask = |code, table: &str, column: Option<&str>, sql: String| {
        questions.push(Question {
            code,
            table: table.to_owned(),
            column: column.map(str::to_owned),
            sql,
        });
    };
    if live.created("provider_key_backfill").is_some() {
        for due in cutover::moves(catalog, NameConflicts::Refuse) {
            let column = (due.table == MODEL_CONFIGS).then_some("ai_provider_id");
            ask("V009", due.table, column, due.due);
        }
        for (table, column, sql) in cutover::conflicting_copies(catalog) {
            ask("V010", table, Some(column), sql);
        }
        if let Some(sql) = cutover::mislinked(catalog) {
            ask("V010", MODEL_CONFIGS, Some("ai_provider_id"), sql);
        }
    }
    if live.created("provider_key_contract").is_some()
        && let Some(sql) = cutover::without_provider(catalog)
    {
        ask("V011", MODEL_CONFIGS, Some("ai_provider_id"), sql);
    }
    if catalog.dialect == Dialect::Sqlite && catalog.has_column(PROVIDERS, "type") {
        let types = TYPE.1.join("', '");
        ask(
            "V012",
            PROVIDERS,
            Some("type"),
            format!("SELECT id FROM {PROVIDERS} WHERE type NOT IN ('{types}')"),
        );
    }
    questions
}
