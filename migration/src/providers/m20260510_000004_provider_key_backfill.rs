//! The copy (`docs/upstream/coder.md` §A3, 504): providers under their ids, central keys, users' keys, links of model configs.
//! Ciphertext and key ids are moved as the bytes they are. The legacy rows stay, and stay authoritative.

use crate::context::Context;
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Action, Backfill, Blocks, Created};
use crate::plan_builder::{PlanBuilder, remembered};
use crate::providers::coder;
use crate::track::Track;

use super::NAME_CONFLICTS;
use super::cutover::{self, Close, NameConflicts};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, FAMILIES, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, TYPE,
    USER_KEYS, has_legacy, legacy, text,
};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260510_000004_provider_key_backfill",
    phase: Phase::Backfill,
    summary: "each chat provider becomes an AI provider, each key moves with it",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    if !has_legacy(&context.catalog) {
        return;
    }
    let dialect = builder.dialect();
    let conflicts = NameConflicts::chosen(context);
    // Expand widens it, but not where the tables were there before and expand was adopted.
    if !context.ledger(Track::PROVIDERS).owns() {
        builder.widen_enum(TYPE.0, &FAMILIES);
    }
    remember(context, builder);
    retire(context, builder);
    for step in [
        cutover::new_providers(dialect),
        cutover::new_central_keys(dialect, "created_at"),
    ] {
        apply_move(builder, &step, Blocks::Rows);
    }
    let uncopied = cutover::has_no_copy();
    // A provider that has come since is contract's: its key would refer to nothing yet.
    let due = format!(
        "{uncopied} AND EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = r.chat_provider_id)"
    );
    builder.backfill(Backfill {
        name: "user_keys".to_owned(),
        purpose: "users' keys move to their AI provider".to_owned(),
        table: CHAT_USER_KEYS.to_owned(),
        changes: USER_KEYS.to_owned(),
        action: Action::Insert,
        alias: "r".to_owned(),
        sql: cutover::copy_user_keys(&format!("{} AND {due}", Backfill::RANGE)),
        remaining: format!("SELECT count(*) AS number FROM {CHAT_USER_KEYS} r WHERE {due}"),
        estimate: format!("SELECT count(*) AS number FROM {CHAT_USER_KEYS} r"),
    });
    let due = cutover::needs_link(conflicts, dialect);
    let sql = match dialect {
        Dialect::Postgres => format!(
            "WITH due AS MATERIALIZED (SELECT c.id, p.id AS provider FROM {MODEL_CONFIGS} c \
             CROSS JOIN LATERAL (SELECT p.id, p.provider FROM {CHAT_PROVIDERS} p WHERE p.provider = c.provider LIMIT 1) p \
             WHERE {range} AND {due} AND EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = p.id) \
             FOR NO KEY UPDATE OF c SKIP LOCKED) \
             UPDATE {MODEL_CONFIGS} c SET ai_provider_id = due.provider FROM due \
             WHERE c.id = due.id AND c.ai_provider_id IS DISTINCT FROM due.provider",
            range = Backfill::RANGE,
        ),
        Dialect::Sqlite => format!(
            "UPDATE {MODEL_CONFIGS} AS c SET ai_provider_id = p.id FROM {CHAT_PROVIDERS} p \
             WHERE {range} AND p.provider = c.provider AND {due} \
             AND EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = p.id)",
            range = Backfill::RANGE,
        ),
    };
    builder.backfill(Backfill {
        name: "model_links".to_owned(),
        purpose: "model configs are linked to their AI provider".to_owned(),
        table: MODEL_CONFIGS.to_owned(),
        changes: MODEL_CONFIGS.to_owned(),
        action: Action::Update,
        alias: "c".to_owned(),
        sql,
        remaining: format!(
            "SELECT count(*) AS number {}",
            cutover::unlinked(
                conflicts,
                dialect,
                &format!("EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = p.id)")
            )
        ),
        estimate: format!(
            "SELECT count(*) AS number FROM {MODEL_CONFIGS} c JOIN {CHAT_PROVIDERS} p ON p.provider = c.provider"
        ),
    });
    if context.ledger(Track::PROVIDERS).owns() {
        builder.tell_coder();
    }
}

/// What this step inserts and changes, noted before it does: a gateway may have copied some of it, and new code works beside.
fn remember(context: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let due = [
        (legacy::COPIED, cutover::new_providers(dialect).due),
        (
            legacy::CENTRAL,
            cutover::new_central_keys(dialect, "created_at").due,
        ),
    ];
    for (what, rows) in due {
        builder.remember(what, &rows);
    }
    // Keys and links of providers that this step makes go with them; only those of others have to be noted.
    let there = "EXISTS (SELECT 1 FROM ai_providers a WHERE a.id = r.chat_provider_id)";
    builder.remember(
        legacy::USERS_KEYS,
        &format!(
            "SELECT r.id AS id FROM {CHAT_USER_KEYS} r WHERE {} AND {there}",
            cutover::has_no_copy()
        ),
    );
    builder.remember(
        legacy::LINKS,
        &format!(
            "SELECT c.id AS id {}",
            cutover::unlinked(
                NameConflicts::chosen(context),
                dialect,
                &format!("c.ai_provider_id IS NULL AND EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = p.id)")
            )
        ),
    );
    if context.chose(&NAME_CONFLICTS) {
        let holders = cutover::name_holders(dialect);
        builder.remember(legacy::RETIRED, &holders);
        builder.remember(
            legacy::RETIRED_ENABLED,
            &format!(
                "SELECT e.id AS id FROM {PROVIDERS} e WHERE {} AND e.id IN ({holders})",
                dialect.is_true("e.enabled")
            ),
        );
    }
}

/// Frees the names that migrated providers need, or stops where somebody holds one.
pub(super) fn retire(context: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    if context.chose(&NAME_CONFLICTS) {
        builder.update(
            PROVIDERS,
            cutover::retire(dialect),
            "live providers that hold the name of a migrated one are soft-deleted",
            Blocks::Rows,
        );
    }
    builder.guard("P002", PROVIDERS, cutover::name_holders(dialect));
}

/// Does one of the moves, all of it.
pub(super) fn apply_move(builder: &mut PlanBuilder, step: &cutover::Move, blocks: Blocks) {
    match &step.close {
        Close::InsertWithUuids(insert) => builder.insert_with_uuids(insert.clone()),
        Close::Run(_) => {
            // The words of a move say what it means; rows are inserted, deleted, or else updated.
            let action = match step.action {
                "insert" => Action::Insert,
                "delete" => Action::Delete,
                _ => Action::Update,
            };
            if let Some(sql) = step.all() {
                builder.execute(action, step.table, sql, step.purpose, blocks);
            }
        }
    }
}

/// Takes the copies away, and nothing else; what was retired for them is live again. The legacy rows are authoritative and stay as
/// they are.
fn down(context: &Context, _created: &Created, builder: &mut PlanBuilder) {
    if !has_legacy(&context.catalog) {
        return;
    }
    let dialect = builder.dialect();
    let taken = legacy::taken_away(context);
    builder.lock_writers(&[
        CHAT_PROVIDERS,
        PROVIDERS,
        PROVIDER_KEYS,
        USER_KEYS,
        MODEL_CONFIGS,
    ]);
    let noted = |what: &str, condition: &str| {
        remembered(&context.catalog, what)
            .map_or_else(String::new, |noted| format!(" OR {condition} IN ({noted})"))
    };
    let link = noted(legacy::LINKS, &text(dialect, "id"));
    builder.update(
        MODEL_CONFIGS,
        format!(
            "UPDATE {MODEL_CONFIGS} SET ai_provider_id = NULL WHERE ai_provider_id IS NOT NULL AND (ai_provider_id IN ({taken}){link})"
        ),
        "model configs lose the link to a copied provider",
        Blocks::Writers,
    );
    let user_key = noted(legacy::USERS_KEYS, &text(dialect, "id"));
    // A key that somebody has stored since is another one.
    let central = remembered(&context.catalog, legacy::CENTRAL).map_or_else(String::new, |noted| {
        format!(
            " OR {} IN ({noted}) AND EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.id = {PROVIDER_KEYS}.provider_id \
             AND p.api_key = {PROVIDER_KEYS}.api_key)",
            text(dialect, "provider_id")
        )
    });
    for (table, column, besides, purpose) in [
        (
            USER_KEYS,
            "ai_provider_id",
            user_key,
            "copies of users' keys go",
        ),
        (
            PROVIDER_KEYS,
            "provider_id",
            central,
            "copies of central keys go",
        ),
        (PROVIDERS, "id", String::new(), "copied providers go"),
    ] {
        builder.delete(
            table,
            format!("DELETE FROM {table} WHERE {column} IN ({taken}){besides}"),
            purpose,
            Blocks::Writers,
        );
    }
    if let (Some(retired), Some(enabled)) = (
        remembered(&context.catalog, legacy::RETIRED),
        remembered(&context.catalog, legacy::RETIRED_ENABLED),
    ) {
        let id = text(dialect, "id");
        builder.update(
            PROVIDERS,
            format!(
                "UPDATE {PROVIDERS} SET deleted = {no}, enabled = CASE WHEN {id} IN ({enabled}) THEN {yes} ELSE {no} END \
                 WHERE {id} IN ({retired}) AND {deleted}",
                no = dialect.false_literal(),
                yes = dialect.true_literal(),
                deleted = dialect.is_true("deleted"),
            ),
            "providers that were retired for a name are live again",
            Blocks::Writers,
        );
    }
    builder.forget(&legacy::NOTED);
    coder::undo_number(context, coder::COPIED, builder);
}

fn losses(context: &Context, _created: &Created) -> Vec<Loss> {
    legacy::beyond_copies(context)
}
