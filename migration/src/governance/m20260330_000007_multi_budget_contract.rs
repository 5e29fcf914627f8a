//! Catches up with what old code wrote since the backfill, then drops the legacy columns (`docs/upstream/bifrost.md` §2.1,
//! 4 and 5).
//!
//! Everything happens under one lock on the three tables, in both directions: an owner or a flag that old code set,
//! moved or cleared ends as the legacy columns say. A budget that has become shared refuses (G001).

use crate::context::Context;
use crate::ddl::ForeignKeySpec;
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Blocks, Created, DroppedColumn};
use crate::script::PlanBuilder;

use super::clones::CLONES;
use super::m20260330_000004_multi_budget_backfill::{write_flags_back, write_owner_back};
use super::owners::{self, LegacyColumns, Owner};
use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use super::{remembered, sharing};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000007_multi_budget_contract",
    phase: Phase::Contract,
    summary: "catches up with old code, then drops budget_id and the budgets' calendar flag",
    up,
    down,
    losses,
};

fn up(context: &Context, script: &mut PlanBuilder) {
    let referring: Vec<Owner> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .collect();
    let flag = owners::has_legacy_flag(context);
    if referring.is_empty() && !flag {
        cascade(script);
        return;
    }
    if let Some(split) = sharing::split(context) {
        script.paged(split);
    }
    script.lock_tables(&[VIRTUAL_KEYS, PROVIDER_CONFIGS, BUDGETS]);
    if !referring.is_empty() {
        if let Some(shared) = owners::shared(context) {
            script.guard("G001", BUDGETS, shared);
        }
        if let Some(claimed) = owners::claimed_elsewhere(context) {
            script.guard("G002", BUDGETS, claimed);
        }
        catch_up_owners(context, script);
        if script.catalog.has_table(CLONES) {
            script.update(
                BUDGETS,
                sharing::raise_usage(script.dialect()),
                "what was spent on the original since its copy was made counts for the copy too",
                Blocks::Everyone,
            );
            script.bookkeeping(
                sharing::settle(),
                "copies are budgets like any other from here on",
            );
        }
        if flag {
            catch_up_flags(context, script);
        }
    }
    if flag {
        remembered::remember(context, script);
    }
    for owner in referring {
        script.drop_column(owner.table(), "budget_id");
    }
    if flag {
        let keys = Owner::BOTH.map(Owner::foreign_key);
        script.drop_column_and_add_keys(BUDGETS, "calendar_aligned", &keys);
    } else {
        cascade(script);
    }
}

/// From here on a budget goes with its owner. Until now its owner column could be stale, so deleting a key only emptied
/// it: the budget may have been given to somebody else meanwhile.
fn cascade(script: &mut PlanBuilder) {
    script.add_foreign_keys(BUDGETS, &Owner::BOTH.map(Owner::foreign_key));
}

fn catch_up_owners(context: &Context, script: &mut PlanBuilder) {
    let live = owners::legacy(context) == LegacyColumns::Authoritative;
    let join = |owner: Owner, alias: &str| {
        if owner.has_legacy_reference(context) {
            format!(
                "LEFT JOIN {} {alias} ON {alias}.budget_id = b.id AND {alias}.budget_id <> ''",
                owner.table()
            )
        } else {
            // Only one of the two columns is left: the other kind of owner is already where it belongs.
            format!(
                "LEFT JOIN {} {alias} ON {alias}.id = b.{}",
                owner.table(),
                owner.column()
            )
        }
    };
    let differs = match script.dialect() {
        Dialect::Postgres => "IS DISTINCT FROM",
        Dialect::Sqlite => "IS NOT",
    };
    let stale = if live {
        // Both directions: an owner whose reference was cleared or moved loses the budget.
        format!(
            "(b.virtual_key_id {differs} v.id OR b.provider_config_id {differs} CASE WHEN v.id IS NULL THEN p.id END)"
        )
    } else {
        "b.virtual_key_id IS NULL AND b.provider_config_id IS NULL AND (v.id IS NOT NULL OR p.id IS NOT NULL)"
            .to_owned()
    };
    script.update(
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET virtual_key_id = due.virtual_key, provider_config_id = due.provider_config \
             FROM (SELECT b.id AS id, v.id AS virtual_key, CASE WHEN v.id IS NULL THEN p.id END AS provider_config \
             FROM {BUDGETS} b {} {} WHERE {stale}) due WHERE due.id = {BUDGETS}.id",
            join(Owner::VirtualKey, "v"),
            join(Owner::ProviderConfig, "p"),
        ),
        "owners that old code has set, moved or cleared since the backfill",
        Blocks::Everyone,
    );
}

fn catch_up_flags(context: &Context, script: &mut PlanBuilder) {
    let dialect = script.dialect();
    let live = owners::legacy(context) == LegacyColumns::Authoritative;
    let owners: &[Owner] = if live {
        &Owner::BOTH
    } else {
        &[Owner::ProviderConfig]
    };
    let Some(flagged) = owners::flagged_by_legacy(context, owners) else {
        return;
    };
    let aligned = dialect.is_true("v.calendar_aligned");
    let (wanted, sql_true, sql_false) = (
        "flagged.id IS NOT NULL",
        dialect.true_literal(),
        dialect.false_literal(),
    );
    // Both directions at once: one walk under the lock. A leftover flag is only ever added.
    let differs = if live {
        format!("({aligned}) <> ({wanted})")
    } else {
        format!("NOT ({aligned}) AND {wanted}")
    };
    script.update(
        VIRTUAL_KEYS,
        format!(
            "UPDATE {VIRTUAL_KEYS} SET calendar_aligned = CASE WHEN due.wanted = 1 THEN {sql_true} ELSE {sql_false} END \
             FROM (SELECT v.id AS id, CASE WHEN {wanted} THEN 1 ELSE 0 END AS wanted FROM {VIRTUAL_KEYS} v \
             LEFT JOIN ({flagged}) flagged ON flagged.id = v.id WHERE {differs}) due WHERE due.id = {VIRTUAL_KEYS}.id"
        ),
        "calendar flags that old code has set or cleared since the backfill",
        Blocks::Everyone,
    );
}

fn down(context: &Context, created: &Created, script: &mut PlanBuilder) {
    // The legacy columns are the truth again, and the owners may become stale.
    let made: Vec<ForeignKeySpec> = Owner::BOTH
        .into_iter()
        .map(Owner::loose_foreign_key)
        .filter(|key| {
            created
                .foreign_keys
                .contains(&format!("{BUDGETS}.{}", key.name))
        })
        .collect();
    script.add_foreign_keys(BUDGETS, &made);
    script.boundary();
    script.lock_tables(&[VIRTUAL_KEYS, PROVIDER_CONFIGS, BUDGETS]);
    // A run that was cut off may have dropped none of them yet: those are as old code left them.
    let dropped: Vec<&DroppedColumn> = created
        .dropped
        .iter()
        .filter(|column| !context.catalog.has_column(&column.table, &column.name))
        .collect();
    for column in &dropped {
        script.restore_column(column);
    }
    let dialect = script.dialect();
    let restored = |table: &str, column: &str| {
        dropped
            .iter()
            .any(|dropped| dropped.table == table && dropped.name == column)
    };
    for owner in Owner::BOTH {
        if restored(owner.table(), "budget_id")
            && context.catalog.has_column(BUDGETS, owner.column())
        {
            write_owner_back(owner, script);
        }
    }
    if restored(BUDGETS, "calendar_aligned") {
        write_flags_back(dialect, script);
        remembered::put_back(&context.catalog, script);
        let has_default = dropped
            .iter()
            .any(|column| column.name == "calendar_aligned" && column.default.is_some());
        if dialect == Dialect::Sqlite && has_default {
            // A column that a rebuild brings back is empty; PostgreSQL fills it as it adds it.
            script.update(
                BUDGETS,
                format!(
                    "UPDATE {BUDGETS} SET calendar_aligned = {} WHERE calendar_aligned IS NULL",
                    dialect.false_literal()
                ),
                "budgets without the flag say so",
                Blocks::Rows,
            );
        }
    }
    for column in dropped {
        script.restore_constraints(column);
    }
}

fn losses(context: &Context, created: &Created) -> Vec<Loss> {
    let mut losses = owners::beyond_the_oldest(context);
    if created
        .dropped
        .iter()
        .any(|column| column.table == BUDGETS && column.name == "calendar_aligned")
    {
        losses.push(owners::flags_without_a_budget(context));
    }
    losses
}
