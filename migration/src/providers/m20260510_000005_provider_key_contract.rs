//! Catches up with what old code wrote since the copy, then drops the legacy tables (`reference/coder.md` §A3, 505).

use crate::ddl::CheckSpec;
use crate::migration::{Context, Migration, Phase};
use crate::plan::{Blocks, Created, Loss};
use crate::script::Script;

use super::m20260510_000004_provider_key_backfill::{close, retire};
use super::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, USER_KEYS, cutover,
    has_legacy, legacy, policy, tables,
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
        expression: "deleted OR ai_provider_id IS NOT NULL".to_owned(),
    }
}

fn up(context: &Context, script: &mut Script) {
    let catalog = &context.catalog;
    if has_legacy(catalog) {
        script.lock_tables(&[CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS]);
        script.lock_writers(&[PROVIDERS, PROVIDER_KEYS, USER_KEYS]);
        if !context.accept_policy_change
            && let Some(lost) = policy::lost(catalog)
        {
            script.guard("P004", CHAT_PROVIDERS, lost);
        }
        retire(context, script);
        for (table, unlike) in cutover::unlike_rows(catalog) {
            script.guard("P010", table, unlike);
        }
        for step in cutover::moves(&script.catalog, context.name_conflicts) {
            close(script, &step, Blocks::Everyone);
        }
    }
    if let Some(lonely) = cutover::without_provider(catalog) {
        script.guard("P003", MODEL_CONFIGS, lonely);
    }
    // Before 474 a model config went with its provider.
    script.drop_foreign_keys_to(MODEL_CONFIGS, CHAT_PROVIDERS);
    script.add_check_for_new_rows(MODEL_CONFIGS, &check());
    script.drop_table(CHAT_USER_KEYS);
    script.drop_table(CHAT_PROVIDERS);
    script.add_check(MODEL_CONFIGS, &check());
}

/// Brings the legacy tables back with what they can say of the new ones. The new rows stay.
fn down(context: &Context, created: &Created, script: &mut Script) {
    let dialect = script.dialect();
    let absent = !context.catalog.has_table(CHAT_PROVIDERS);
    script.undo(created);
    if !absent {
        return;
    }
    script.lock_writers(&[PROVIDERS, PROVIDER_KEYS, USER_KEYS]);
    for table in tables::legacy(dialect) {
        script.create_table(&table);
    }
    script.execute(
        CHAT_PROVIDERS,
        legacy::fill_providers(dialect),
        "one chat provider for each family that has an AI provider",
        Blocks::Writers,
    );
    script.execute(
        CHAT_USER_KEYS,
        legacy::fill_user_keys(),
        "users' keys for these providers",
        Blocks::Writers,
    );
}

fn losses(context: &Context, _created: &Created) -> Vec<Loss> {
    if has_legacy(&context.catalog) {
        return Vec::new();
    }
    legacy::beyond_legacy(&context.catalog)
}
