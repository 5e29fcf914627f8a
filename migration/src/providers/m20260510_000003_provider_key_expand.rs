//! The new tables and the model configs' link (`docs/upstream/coder.md` §A2, §A3); old code keeps working.

use crate::context::Context;
use crate::ddl::{Type, column, foreign_key, index};
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::Created;
use crate::plan_builder::PlanBuilder;
use crate::plan_builder::objects::TriggerSpec;
use crate::providers::coder;
use crate::schema::Difference;
use crate::track::Track;

use super::{FAMILIES, MODEL_CONFIGS, PROVIDERS, TYPE, USER_KEYS, USERS, legacy, tables};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260510_000003_provider_key_expand",
    phase: Phase::Expand,
    summary: "AI providers, their keys and users' keys to them",
    up,
    down,
    losses,
};

/// A soft delete fires no cascade: whoever is gone must not leave a key behind.
const TRIGGER: TriggerSpec = TriggerSpec {
    name: "tollgate_delete_keys_of_deleted_users",
    table: USERS,
    column: "deleted",
    statement: "DELETE FROM user_ai_provider_keys WHERE user_id = NEW.id",
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let owned = context.ledger(Track::PROVIDERS).owns();
    if owned {
        // The enum and the tables of providers are Coder's own 495 and 499; this step stands for 503.
    } else if context.catalog.enums.contains_key(TYPE.0) {
        // An early version had two labels, and the copy needs all families.
        builder.widen_enum(TYPE.0, &FAMILIES);
    } else {
        builder.create_enum(TYPE.0, &TYPE.1);
    }
    let mut new = tables::new(dialect);
    if owned {
        new.retain(|table| table.name == USER_KEYS);
    }
    builder.ensure_tables(MIGRATION.version, &new, |_, _, _| {});
    let link = foreign_key(
        "chat_model_configs_ai_provider_id_fkey",
        "ai_provider_id",
        PROVIDERS,
        "id",
    );
    builder.add_column(
        MODEL_CONFIGS,
        &column("ai_provider_id", Type::Uuid),
        Some(&link),
        None,
    );
    builder.add_foreign_key(MODEL_CONFIGS, &link);
    // Upstream's own trigger may come to do the same; what is deleted twice is deleted.
    if context.catalog.has_column(USERS, "deleted") {
        builder.create_trigger(&TRIGGER);
    } else {
        builder.tolerate(&[Difference {
            object: format!("{USERS} trigger {}", TRIGGER.name),
            expected: None,
            live: None,
        }]);
    }
    builder.create_index(
        MODEL_CONFIGS,
        &index("idx_chat_model_configs_ai_provider_id", &["ai_provider_id"]),
    );
}

fn down(context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
    coder::undo_number(context, coder::EXPANDED, builder);
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    let losses = Loss::of_tables(context, created)
        .into_iter()
        .chain(Loss::of_columns(context, &created.columns));
    if context.created("provider_key_backfill").is_none() {
        return losses.collect();
    }
    // What the backfill's `down` takes away has been asked there.
    let taken = legacy::taken_away(context);
    losses
        .map(|mut loss| {
            let provider = match loss.table.as_str() {
                super::PROVIDERS => "id",
                super::PROVIDER_KEYS => "provider_id",
                super::USER_KEYS | MODEL_CONFIGS => "ai_provider_id",
                _ => return loss,
            };
            loss.sql = format!(
                "SELECT kept.id AS id FROM {} kept WHERE kept.{provider} NOT IN ({taken})",
                loss.table
            );
            loss
        })
        .collect()
}
