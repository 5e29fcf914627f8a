//! Owners from `budget_id`, and the calendar flag from the budgets of virtual keys **and** of provider configs, which
//! upstream loses (`docs/upstream/bifrost.md` §2.1, 3 and 4; §2.2).

use crate::context::Context;
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::migration::{Migration, Phase};
use crate::plan::{Action, Backfill, Blocks, Created};
use crate::plan_builder::{PlanBuilder, remembered};

use super::clones::CLONES;
use super::owners::{self, LegacyColumns, Owner};
use super::sharing;
use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

pub(super) const MIGRATION: Migration = Migration {
    version: "m20260330_000004_multi_budget_backfill",
    phase: Phase::Backfill,
    summary: "each budget gets its owner, each virtual key its calendar flag",
    up,
    down,
    losses,
};

fn up(context: &Context, builder: &mut PlanBuilder) {
    for split in [sharing::split_owned_twice(context), sharing::split(context)]
        .into_iter()
        .flatten()
    {
        builder.paged(split);
    }
    if owners::legacy(context) == LegacyColumns::Stale {
        remember(context, builder);
    }
    for owner in Owner::BOTH {
        if owner.has_legacy_reference(context) {
            builder.backfill(owner_pass(builder.dialect(), owner));
        }
    }
    if owners::has_legacy_flag(context) {
        for owner in Owner::BOTH {
            // Upstream has read the flag of a virtual key's own budget already; what is left of it is stale.
            let stale =
                owners::legacy(context) == LegacyColumns::Stale && owner == Owner::VirtualKey;
            if owner.has_legacy_reference(context) && !stale {
                builder.backfill(flag_pass(builder.dialect(), owner));
            }
        }
    }
}

/// Budgets whose owner this step writes where a gateway has written others.
const OWNERS: &str = "multi_budget_backfill.owner";
/// Virtual keys whose flag it turns on there.
const FLAGS: &str = "multi_budget_backfill.flag";

/// Where upstream's own migration ran, most owners and flags are its work: which are ours has to be written down.
fn remember(context: &Context, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let referring: Vec<Owner> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .collect();
    let owned: Vec<String> = referring
        .iter()
        .map(|owner| {
            format!(
                "SELECT b.id AS id FROM {BUDGETS} b JOIN {} r ON r.budget_id = b.id WHERE r.budget_id <> '' \
                 AND b.virtual_key_id IS NULL AND b.provider_config_id IS NULL",
                owner.table()
            )
        })
        .collect();
    if !owned.is_empty() {
        builder.remember(OWNERS, &owned.join(" UNION "));
    }
    if owners::has_legacy_flag(context) && referring.contains(&Owner::ProviderConfig) {
        let flagged = dialect.is_true("b.calendar_aligned");
        let aligned = dialect.is_true("v.calendar_aligned");
        builder.remember(
            FLAGS,
            &format!(
                "SELECT v.id AS id FROM {PROVIDER_CONFIGS} r JOIN {BUDGETS} b ON b.id = r.budget_id \
                 JOIN {VIRTUAL_KEYS} v ON v.id = r.virtual_key_id WHERE r.budget_id <> '' AND {flagged} AND NOT ({aligned})"
            ),
        );
    }
}

/// A budget without owner gets the one that refers to it. Only what is written is locked: a reference that moves between
/// the look and the commit is one of those that contract catches up with, and locking the referring rows too would
/// double the writes.
fn owner_pass(dialect: Dialect, owner: Owner) -> Backfill {
    let (referring, column) = (owner.table(), owner.column());
    let due = "b.virtual_key_id IS NULL AND b.provider_config_id IS NULL AND r.budget_id <> ''";
    let sql = match dialect {
        // LATERAL with LIMIT keeps the range outside and the budget inside: columns that are minutes old have no
        // statistics, and the planner would walk all budgets for the one row it expects. What is locked is written where it
        // lies, without a second look by its id; a row that somebody has written since this statement began is for a repeat.
        Dialect::Postgres => format!(
            "WITH due AS MATERIALIZED (SELECT b.place, r.id AS owner FROM {referring} r \
             CROSS JOIN LATERAL (SELECT b.ctid AS place FROM {BUDGETS} b WHERE b.id = r.budget_id AND {due} \
             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) b WHERE {range}) \
             UPDATE {BUDGETS} b SET {column} = due.owner FROM due WHERE b.ctid = due.place",
            range = Backfill::RANGE,
        ),
        Dialect::Sqlite => format!(
            "UPDATE {BUDGETS} AS b SET {column} = r.id FROM {referring} AS r \
             WHERE {range} AND b.id = r.budget_id AND {due}",
            range = Backfill::RANGE,
        ),
    };
    Backfill {
        name: format!("owner_{}", owner.name()),
        purpose: format!("budgets of {referring} get their owner"),
        table: referring.to_owned(),
        changes: BUDGETS.to_owned(),
        action: Action::Update,
        alias: "r".to_owned(),
        sql,
        remaining: format!(
            "SELECT count(*) AS number FROM {referring} r JOIN {BUDGETS} b ON b.id = r.budget_id WHERE {due}"
        ),
        estimate: format!(
            "SELECT count(*) AS number FROM {referring} r JOIN {BUDGETS} b ON b.id = r.budget_id \
             WHERE r.budget_id <> ''"
        ),
    }
}

/// A virtual key with a flagged budget, its own or a provider config's, gets the flag.
fn flag_pass(dialect: Dialect, owner: Owner) -> Backfill {
    let referring = owner.table();
    let flagged = dialect.is_true("b.calendar_aligned");
    let unflagged = format!("NOT ({})", dialect.is_true("v.calendar_aligned"));
    let (source, key) = match owner {
        Owner::VirtualKey => (format!("{VIRTUAL_KEYS} r"), "r.id"),
        Owner::ProviderConfig => (format!("{PROVIDER_CONFIGS} r"), "r.virtual_key_id"),
    };
    let due = format!("{flagged} AND {unflagged} AND r.budget_id <> ''");
    let true_literal = dialect.true_literal();
    let sql = match dialect {
        Dialect::Postgres => format!(
            "WITH due AS MATERIALIZED (SELECT v.place FROM {source} \
             CROSS JOIN LATERAL (SELECT 1 FROM {BUDGETS} b WHERE b.id = r.budget_id AND {flagged} AND r.budget_id <> '' LIMIT 1) b \
             CROSS JOIN LATERAL (SELECT v.ctid AS place FROM {VIRTUAL_KEYS} v WHERE v.id = {key} AND {unflagged} \
             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) v WHERE {range}) \
             UPDATE {VIRTUAL_KEYS} v SET calendar_aligned = {true_literal} FROM due WHERE v.ctid = due.place",
            range = Backfill::RANGE,
        ),
        Dialect::Sqlite => format!(
            "UPDATE {VIRTUAL_KEYS} AS v SET calendar_aligned = {true_literal} FROM {source} \
             JOIN {BUDGETS} b ON b.id = r.budget_id WHERE {range} AND v.id = {key} AND {due}",
            range = Backfill::RANGE,
        ),
    };
    Backfill {
        name: format!("flag_{}", owner.name()),
        purpose: format!("calendar flags of the budgets of {referring} move to the virtual key"),
        table: referring.to_owned(),
        changes: VIRTUAL_KEYS.to_owned(),
        action: Action::Update,
        alias: "r".to_owned(),
        sql,
        remaining: format!(
            "SELECT count(DISTINCT v.id) AS number FROM {source} JOIN {BUDGETS} b ON b.id = r.budget_id \
             JOIN {VIRTUAL_KEYS} v ON v.id = {key} WHERE {due}"
        ),
        estimate: format!(
            "SELECT count(DISTINCT {key}) AS number FROM {source} JOIN {BUDGETS} b ON b.id = r.budget_id \
             WHERE {flagged} AND r.budget_id <> ''"
        ),
    }
}

/// Empties what the backfill has filled, and nothing that a gateway has. Old code writes the legacy columns, so they are the
/// authoritative and stay as they are; what only the new schema held went back when contract went down. Where upstream's own migration
/// ran, only what was written down is ours.
fn down(context: &Context, _created: &Created, builder: &mut PlanBuilder) {
    let dialect = builder.dialect();
    let catalog = &context.catalog;
    let ours = owners::legacy(context) == LegacyColumns::Authoritative;
    for owner in Owner::BOTH {
        let column = owner.column();
        if !owner.has_legacy_reference(context) || !catalog.has_column(BUDGETS, column) {
            continue;
        }
        let mine = match remembered(catalog, OWNERS) {
            _ if ours => String::new(),
            Some(noted) => format!(
                " AND id IN ({noted}) AND EXISTS (SELECT 1 FROM {} r WHERE r.id = {BUDGETS}.{column} AND r.budget_id = {BUDGETS}.id)",
                owner.table()
            ),
            None => continue,
        };
        builder.update(
            BUDGETS,
            format!("UPDATE {BUDGETS} SET {column} = NULL WHERE {column} IS NOT NULL{mine}"),
            "budgets lose the owner column's value",
            Blocks::Rows,
        );
    }
    if owners::has_legacy_flag(context) && catalog.has_column(VIRTUAL_KEYS, "calendar_aligned") {
        let mine = match remembered(catalog, FLAGS) {
            _ if ours => Some(String::new()),
            noted => noted.map(|noted| format!(" AND id IN ({noted})")),
        };
        if let Some(mine) = mine {
            builder.update(
                VIRTUAL_KEYS,
                format!(
                    "UPDATE {VIRTUAL_KEYS} SET calendar_aligned = {} WHERE {}{mine}",
                    dialect.false_literal(),
                    dialect.is_true("calendar_aligned")
                ),
                "virtual keys lose the flag that the budgets carry",
                Blocks::Rows,
            );
        }
    }
    builder.forget(&[OWNERS, FLAGS]);
    // Copies that were made stay, and their list with them; what a run that was cut off had listed is no copy.
    if catalog.has_table(CLONES) {
        builder.bookkeeping(
            format!("DELETE FROM {} WHERE copy IS NULL", CLONES),
            "copies that a run had listed and not made",
        );
    }
}

/// Every budget below an aligned virtual key is aligned: that is what the key's flag means.
pub(super) fn write_flags_back(dialect: Dialect, builder: &mut PlanBuilder) {
    let aligned = dialect.is_true("v.calendar_aligned");
    let unflagged = format!("NOT ({})", dialect.is_true("b.calendar_aligned"));
    let true_literal = dialect.true_literal();
    for source in [
        format!(
            "SELECT b.id AS id FROM {BUDGETS} b JOIN {VIRTUAL_KEYS} v ON v.id = b.virtual_key_id"
        ),
        format!(
            "SELECT b.id AS id FROM {BUDGETS} b JOIN {PROVIDER_CONFIGS} p ON p.id = b.provider_config_id \
             JOIN {VIRTUAL_KEYS} v ON v.id = p.virtual_key_id"
        ),
    ] {
        builder.update(
            BUDGETS,
            format!(
                "UPDATE {BUDGETS} SET calendar_aligned = {true_literal} FROM ({source} WHERE {aligned} AND {unflagged}) due \
                 WHERE due.id = {BUDGETS}.id"
            ),
            "calendar flags go back to the budgets",
            Blocks::Rows,
        );
    }
}

/// The owner's oldest budget becomes its `budget_id`.
pub(super) fn write_owner_back(owner: Owner, builder: &mut PlanBuilder) {
    let (table, column) = (owner.table(), owner.column());
    let oldest = owners::oldest_first(&builder.catalog);
    builder.update(
        table,
        format!(
            "UPDATE {table} SET budget_id = due.budget FROM (SELECT {column} AS owner, id AS budget, \
             row_number() OVER (PARTITION BY {column} ORDER BY {oldest}) AS place \
             FROM {BUDGETS} WHERE {column} IS NOT NULL) due \
             WHERE due.place = 1 AND due.owner = {table}.id \
             AND ({table}.budget_id IS NULL OR {table}.budget_id <> due.budget)"
        ),
        &format!("{table} refers to its budget again"),
        Blocks::Rows,
    );
}

fn losses(_context: &Context, _created: &Created) -> Vec<Loss> {
    Vec::new()
}
