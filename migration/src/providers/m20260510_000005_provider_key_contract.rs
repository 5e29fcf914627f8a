//! Catches up with what old code wrote since the copy, then drops the legacy tables (`docs/upstream/coder.md` §A3, 505).

use crate::context::Context;
use crate::ddl::{CheckSpec, foreign_key};
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Blocks, Created};
use crate::plan_builder::{PlanBuilder, remembered};
use crate::providers::coder;
use crate::track::Track;

use super::cutover::NameConflicts;
use super::m20260510_000004_provider_key_backfill::{apply_move, retire};
use super::{ACCEPT_POLICY_CHANGE, ORPHANED_MODELS};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, USER_KEYS, cutover,
    has_legacy, legacy, policy, tables, text,
};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260510_000005_provider_key_contract",
    phase: Phase::Contract,
    summary: "catches up with old code, then drops chat providers and users' keys to them",
    up,
    down,
    losses,
};

fn check() -> CheckSpec {
    CheckSpec {
        name: "chat_model_configs_ai_provider_required_when_active".to_owned(),
        expression: "deleted = true OR ai_provider_id IS NOT NULL".to_owned(),
    }
}

fn up(context: &Context, builder: &mut PlanBuilder) {
    let catalog = &context.catalog;
    let number = context.ledger(Track::PROVIDERS).number();
    let carries_legacy = has_legacy(catalog);
    let checked = catalog
        .table(MODEL_CONFIGS)
        .and_then(|table| table.check(&check().name))
        .is_some_and(|check| check.validated);
    if !carries_legacy && checked && number.is_some_and(|number| number >= coder::FINISHED) {
        builder.leave_to_gateway();
        return;
    }
    if carries_legacy {
        builder.lock_tables(&[CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS]);
        builder.lock_writers(&[PROVIDERS, PROVIDER_KEYS, USER_KEYS]);
        if !context.chose(&ACCEPT_POLICY_CHANGE)
            && let Some(lost) = policy::lost(catalog)
        {
            builder.guard("P004", CHAT_PROVIDERS, lost);
        }
        retire(context, builder);
        for (table, conflicting_copies) in cutover::conflicting_rows(catalog) {
            builder.guard("P010", table, conflicting_copies);
        }
        for step in cutover::moves(&builder.catalog, NameConflicts::chosen(context)) {
            apply_move(builder, &step, Blocks::Everyone);
        }
        legacy::note_dropped(builder);
    }
    if context.chose(&ORPHANED_MODELS)
        && let Some(retire) = cutover::retire_lonely(catalog)
    {
        for (list, rows) in cutover::noted(catalog, cutover::RETIRED) {
            builder.remember(list, &rows);
        }
        builder.update(
            MODEL_CONFIGS,
            retire,
            "active model configs without a provider are soft-deleted",
            Blocks::Rows,
        );
    }
    if let Some(lonely) = cutover::without_provider(catalog) {
        builder.guard("P003", MODEL_CONFIGS, lonely);
    }
    // Before 474 a model config went with its provider.
    builder.drop_foreign_keys_to(MODEL_CONFIGS, CHAT_PROVIDERS);
    builder.add_check_for_new_rows(MODEL_CONFIGS, &check());
    builder.drop_table(CHAT_USER_KEYS);
    builder.drop_table(CHAT_PROVIDERS);
    if carries_legacy && let Some(number) = number.filter(|number| *number < coder::FINISHED) {
        builder.move_ledger(number, coder::FINISHED);
        builder.tell_coder();
    }
    builder.add_check(MODEL_CONFIGS, &check());
}

/// Brings the legacy tables back with what they can say of the new ones. The new rows stay.
fn down(context: &Context, created: &Created, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let absent = !context.catalog.has_table(CHAT_PROVIDERS);
    builder.undo(created);
    if !absent {
        return;
    }
    builder.lock_writers(&[PROVIDERS, PROVIDER_KEYS, USER_KEYS]);
    for table in tables::legacy(dialect) {
        builder.create_table(&table);
    }
    builder.insert(
        CHAT_PROVIDERS,
        legacy::fill_providers(dialect),
        "one chat provider for each family that has an AI provider",
        Blocks::Writers,
    );
    builder.insert(
        CHAT_USER_KEYS,
        legacy::fill_user_keys(),
        "users' keys for these providers",
        Blocks::Writers,
    );
    revive(context, builder);
    restore_cut_key(created, builder);
    coder::undo_number(context, coder::FINISHED, builder);
}

/// Model configs that were retired for having no provider are live again, the default too where none has taken its place.
fn revive(context: &Context, builder: &mut PlanBuilder) {
    let catalog = &context.catalog;
    let [models, defaults] = cutover::RETIRED.map(|list| remembered(catalog, list));
    let (Some(models), Some(defaults)) = (models, defaults) else {
        return;
    };
    let dialect = builder.dialect();
    let (yes, no, id) = (
        dialect.true_literal(),
        dialect.false_literal(),
        text(dialect, "id"),
    );
    let at = if catalog.has_column(MODEL_CONFIGS, "deleted_at") {
        ", deleted_at = NULL"
    } else {
        ""
    };
    builder.update(
        MODEL_CONFIGS,
        format!(
            "UPDATE {MODEL_CONFIGS} SET deleted = {no}{at} WHERE {id} IN ({models}) AND {}",
            dialect.is_true("deleted")
        ),
        "model configs that were retired are live again",
        Blocks::Writers,
    );
    if catalog.has_column(MODEL_CONFIGS, "is_default") {
        builder.update(
            MODEL_CONFIGS,
            format!(
                "UPDATE {MODEL_CONFIGS} SET is_default = {yes} WHERE {id} IN ({defaults}) AND NOT EXISTS \
                 (SELECT 1 FROM {MODEL_CONFIGS} o WHERE {} AND NOT ({}))",
                dialect.is_true("o.is_default"),
                dialect.is_true("o.deleted"),
            ),
            "the default is the default again",
            Blocks::Writers,
        );
    }
    builder.forget(&cutover::RETIRED);
}

/// Before 474 a model config went with its provider, and had none without one: what has come since gets a disabled one, as
/// upstream's own way back makes it.
fn restore_cut_key(created: &Created, builder: &mut PlanBuilder) {
    let name = "chat_model_configs_provider_fkey";
    let cut = created
        .cut_keys
        .iter()
        .any(|key| *key == format!("{MODEL_CONFIGS}.{name}"));
    if !cut || builder.dialect() != Dialect::Postgres {
        return;
    }
    builder.insert(
        CHAT_PROVIDERS,
        format!(
            "INSERT INTO {CHAT_PROVIDERS} (provider, enabled) SELECT DISTINCT c.provider, false FROM {MODEL_CONFIGS} c \
             WHERE NOT EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.provider = c.provider)"
        ),
        "model configs without a chat provider get a disabled one",
        Blocks::Writers,
    );
    builder.add_foreign_key(
        MODEL_CONFIGS,
        &foreign_key(name, "provider", CHAT_PROVIDERS, "provider").cascade(),
    );
}

fn losses(context: &Context, _created: &Created) -> Vec<Loss> {
    if has_legacy(&context.catalog) {
        return Vec::new();
    }
    legacy::beyond_legacy(&context.catalog)
}
