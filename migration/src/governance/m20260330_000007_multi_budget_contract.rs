//! Catches up with what old code wrote since the backfill, then drops the legacy columns (`docs/upstream/bifrost.md` §2.1,
//! 4 and 5).
//!
//! In both directions: an owner or a flag that old code set, moved or cleared ends as the legacy columns say. A budget that has become
//! shared refuses (G001). On PostgreSQL everything is walked beside the gateway while triggers note what it changes ([`capture`]); under
//! one lock on the three tables only what was noted is looked at again. SQLite, where nobody else writes meanwhile, and leftover columns,
//! which nobody writes any more, are walked under the lock.

use crate::context::Context;
use crate::ddl::ForeignKeySpec;
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Blocks, Created, DroppedColumn, Guard};
use crate::plan_builder::PlanBuilder;

use super::capture;
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

fn up(context: &Context, builder: &mut PlanBuilder) {
    let referring: Vec<Owner> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .collect();
    let left: Vec<Owner> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_column(context))
        .collect();
    let flag = owners::has_legacy_flag(context);
    if left.is_empty() && !flag {
        capture::clear(context, builder);
        cascade(builder);
        return;
    }
    if let Some(split) = sharing::split(context) {
        builder.paged(split);
    }
    // Leftovers that nobody writes any more need no capture, nor does a database that one writes to at a time.
    let captures = builder.dialect() == Dialect::Postgres
        && !referring.is_empty()
        && owners::legacy(context) == LegacyColumns::Authoritative;
    if captures {
        capture::begin(context, builder);
        walk_ahead(context, builder);
        builder.boundary();
        catch_up(context, builder, Scope::Touched, Blocks::Rows);
        capture::forget_found(builder);
        builder.boundary();
    } else {
        capture::clear(context, builder);
    }
    builder.lock_tables(&[VIRTUAL_KEYS, PROVIDER_CONFIGS, BUDGETS]);
    if captures {
        builder.guard(Guard::AGAIN, BUDGETS, capture::proof());
        catch_up(context, builder, Scope::Touched, Blocks::Rows);
    } else {
        catch_up(context, builder, Scope::All, Blocks::Everyone);
    }
    if !referring.is_empty() && builder.catalog.has_table(CLONES) {
        builder.update(
            BUDGETS,
            sharing::raise_usage(builder.dialect()),
            "what was spent on the original since its copy was made counts for the copy too",
            Blocks::Everyone,
        );
        builder.bookkeeping(
            sharing::settle(),
            "copies are budgets like any other from here on",
        );
    }
    if captures {
        capture::end(builder);
    }
    for owner in left {
        builder.drop_column(owner.table(), "budget_id");
    }
    if flag {
        let keys = Owner::BOTH.map(Owner::foreign_key);
        builder.drop_column_and_add_keys(BUDGETS, "calendar_aligned", &keys);
    } else {
        cascade(builder);
    }
}

/// Which rows are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All of them.
    All,
    /// Those that old code has touched since all were looked at.
    Touched,
}

impl Scope {
    /// A condition over a budget's id, which begins with `AND`.
    fn budgets(self, id: &str) -> String {
        match self {
            Self::All => String::new(),
            Self::Touched => format!(" AND {id} IN ({})", capture::budgets()),
        }
    }
}

/// A walk over everything, outside of the lock: it refuses what contract refuses, and notes which rows differ. It locks none.
fn walk_ahead(context: &Context, builder: &mut PlanBuilder) {
    refuse(context, builder, Scope::All);
    let budgets = format!(
        "SELECT due.id AS id FROM ({}) due",
        due_owners(context, builder.dialect(), Scope::All)
    );
    capture::find(
        builder,
        BUDGETS,
        &budgets,
        "owners that old code has set, moved or cleared since the backfill are noted",
    );
    if owners::has_legacy_flag(context) {
        if let Some(due) = due_flags(context, builder.dialect()) {
            capture::find(
                builder,
                VIRTUAL_KEYS,
                &format!("SELECT due.id AS id FROM ({due}) due"),
                "calendar flags that old code has set or cleared since the backfill are noted",
            );
        }
        remembered::remember(context, builder, "");
    }
}

fn refuse(context: &Context, builder: &mut PlanBuilder, scope: Scope) {
    let (shared, claimed) = match scope {
        Scope::All => (owners::shared(context), owners::claimed_elsewhere(context)),
        Scope::Touched => (
            owners::shared_among(context, &capture::budgets()),
            owners::claimed_elsewhere_among(context, &capture::budgets()),
        ),
    };
    if let Some(shared) = shared {
        builder.guard("G001", BUDGETS, shared);
    }
    if let Some(claimed) = claimed {
        builder.guard("G002", BUDGETS, claimed);
    }
}

/// Owners, flags and what is remembered end as the legacy columns say.
fn catch_up(context: &Context, builder: &mut PlanBuilder, scope: Scope, blocks: Blocks) {
    let flag = owners::has_legacy_flag(context);
    let refers = Owner::BOTH
        .into_iter()
        .any(|owner| owner.has_legacy_reference(context));
    if scope == Scope::Touched {
        builder.part(
            format!("ANALYZE {}", capture::TOUCHED),
            "how much was noted",
            Blocks::Nothing,
        );
    }
    if refers {
        refuse(context, builder, scope);
        catch_up_owners(context, builder, scope, blocks);
        if flag {
            catch_up_flags(context, builder, scope, blocks);
        }
    }
    if flag {
        remembered::remember(context, builder, &scope.budgets("b.id"));
    }
}

/// From here on a budget goes with its owner. Until now its owner column could be stale, so deleting a key only emptied
/// it: the budget may have been given to somebody else meanwhile.
fn cascade(builder: &mut PlanBuilder) {
    builder.add_foreign_keys(BUDGETS, &Owner::BOTH.map(Owner::foreign_key));
}

/// Budgets whose owner is another one than the legacy columns say: `id`, `virtual_key` and `provider_config`.
fn due_owners(context: &Context, dialect: Dialect, scope: Scope) -> String {
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
    let differs = dialect.is_distinct_from();
    let stale = if live {
        // Both directions: an owner whose reference was cleared or moved loses the budget.
        format!(
            "(b.virtual_key_id {differs} v.id OR b.provider_config_id {differs} CASE WHEN v.id IS NULL THEN p.id END)"
        )
    } else {
        "b.virtual_key_id IS NULL AND b.provider_config_id IS NULL AND (v.id IS NOT NULL OR p.id IS NOT NULL)"
            .to_owned()
    };
    format!(
        "SELECT b.id AS id, v.id AS virtual_key, CASE WHEN v.id IS NULL THEN p.id END AS provider_config \
         FROM {BUDGETS} b {} {} WHERE {stale}{}",
        join(Owner::VirtualKey, "v"),
        join(Owner::ProviderConfig, "p"),
        scope.budgets("b.id"),
    )
}

fn catch_up_owners(context: &Context, builder: &mut PlanBuilder, scope: Scope, blocks: Blocks) {
    builder.update(
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET virtual_key_id = due.virtual_key, provider_config_id = due.provider_config \
             FROM ({}) due WHERE due.id = {BUDGETS}.id",
            due_owners(context, builder.dialect(), scope)
        ),
        "owners that old code has set, moved or cleared since the backfill",
        blocks,
    );
}

/// Virtual keys whose flag is another one than the legacy columns say: `id`, and `wanted`, 1 or 0. `None` where nothing says.
fn due_flags(context: &Context, dialect: Dialect) -> Option<String> {
    let live = owners::legacy(context) == LegacyColumns::Authoritative;
    let owners: &[Owner] = if live {
        &Owner::BOTH
    } else {
        &[Owner::ProviderConfig]
    };
    let flagged = owners::flagged_by_legacy(context, owners)?;
    let aligned = dialect.is_true("v.calendar_aligned");
    let wanted = "flagged.id IS NOT NULL";
    // Both directions at once: one walk. A leftover flag is only ever added.
    let differs = if live {
        format!("({aligned}) <> ({wanted})")
    } else {
        format!("NOT ({aligned}) AND {wanted}")
    };
    Some(format!(
        "SELECT v.id AS id, CASE WHEN {wanted} THEN 1 ELSE 0 END AS wanted FROM {VIRTUAL_KEYS} v \
         LEFT JOIN ({flagged}) flagged ON flagged.id = v.id WHERE {differs}"
    ))
}

/// The same of the virtual keys that were touched, each asked for by itself.
fn due_flags_of_touched(dialect: Dialect) -> String {
    let flagged = dialect.is_true("b.calendar_aligned");
    format!(
        "SELECT k.id AS id, CASE WHEN EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} r JOIN {BUDGETS} b ON b.id = r.budget_id \
         WHERE r.id = k.id AND r.budget_id <> '' AND {flagged}) \
         OR EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} r JOIN {BUDGETS} b ON b.id = r.budget_id \
         WHERE r.virtual_key_id = k.id AND r.budget_id <> '' AND {flagged}) THEN 1 ELSE 0 END AS wanted FROM ({}) k",
        capture::keys()
    )
}

fn catch_up_flags(context: &Context, builder: &mut PlanBuilder, scope: Scope, blocks: Blocks) {
    let dialect = builder.dialect();
    let due = match scope {
        Scope::All => due_flags(context, dialect),
        Scope::Touched => Some(due_flags_of_touched(dialect)),
    };
    let Some(due) = due else { return };
    let (sql_true, sql_false) = (dialect.true_literal(), dialect.false_literal());
    let differs = format!(
        "({}) <> (due.wanted = 1)",
        dialect.is_true(&format!("{VIRTUAL_KEYS}.calendar_aligned"))
    );
    builder.update(
        VIRTUAL_KEYS,
        format!(
            "UPDATE {VIRTUAL_KEYS} SET calendar_aligned = CASE WHEN due.wanted = 1 THEN {sql_true} ELSE {sql_false} END \
             FROM ({due}) due WHERE due.id = {VIRTUAL_KEYS}.id AND {differs}"
        ),
        "calendar flags that old code has set or cleared since the backfill",
        blocks,
    );
}

fn down(context: &Context, created: &Created, builder: &mut PlanBuilder) {
    capture::clear(context, builder);
    // The legacy columns are authoritative again, and the owners may become stale.
    let made: Vec<ForeignKeySpec> = Owner::BOTH
        .into_iter()
        .map(Owner::loose_foreign_key)
        .filter(|key| {
            created
                .foreign_keys
                .contains(&format!("{BUDGETS}.{}", key.name))
        })
        .collect();
    builder.add_foreign_keys(BUDGETS, &made);
    builder.boundary();
    builder.lock_tables(&[VIRTUAL_KEYS, PROVIDER_CONFIGS, BUDGETS]);
    // A run that was cut off may have dropped none of them yet: those are as old code left them.
    let dropped: Vec<&DroppedColumn> = created
        .dropped
        .iter()
        .filter(|column| !context.catalog.has_column(&column.table, &column.name))
        .collect();
    for column in &dropped {
        builder.restore_column(column);
    }
    let dialect = builder.dialect();
    let restored = |table: &str, column: &str| {
        dropped
            .iter()
            .any(|dropped| dropped.table == table && dropped.name == column)
    };
    for owner in Owner::BOTH {
        if restored(owner.table(), "budget_id")
            && context.catalog.has_column(BUDGETS, owner.column())
        {
            write_owner_back(owner, builder);
        }
    }
    if restored(BUDGETS, "calendar_aligned") {
        write_flags_back(dialect, builder);
        remembered::put_back(&context.catalog, builder);
        let has_default = dropped
            .iter()
            .any(|column| column.name == "calendar_aligned" && column.default.is_some());
        if dialect == Dialect::Sqlite && has_default {
            // A column that a rebuild brings back is empty; PostgreSQL fills it as it adds it.
            builder.update(
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
        builder.restore_constraints(column);
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
