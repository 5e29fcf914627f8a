//! Who owns a budget, in the legacy schema and in the new one.

use crate::catalog::Catalog;
use crate::context::Context;
use crate::ddl::{CheckSpec, ForeignKeySpec, foreign_key};
use crate::dialect::Dialect;
use crate::loss::Loss;
use crate::plan::Created;

use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

/// The two kinds of owner that `budget_id` spoke for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A virtual key.
    VirtualKey,
    /// What a virtual key may do on one provider.
    ProviderConfig,
}

impl Owner {
    /// Virtual keys come before provider configs wherever both claim a budget.
    pub const BOTH: [Self; 2] = [Self::VirtualKey, Self::ProviderConfig];

    /// The owner's table.
    pub fn table(self) -> &'static str {
        match self {
            Self::VirtualKey => VIRTUAL_KEYS,
            Self::ProviderConfig => PROVIDER_CONFIGS,
        }
    }

    /// The column on budgets that names the owner.
    pub const fn column(self) -> &'static str {
        match self {
            Self::VirtualKey => "virtual_key_id",
            Self::ProviderConfig => "provider_config_id",
        }
    }

    /// The name in checkpoints and derived ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtualKey => "virtual_key",
            Self::ProviderConfig => "provider_config",
        }
    }

    /// Upstream's foreign key from a budget to this owner; a has-many key carries its parent's name.
    pub fn foreign_key(self) -> ForeignKeySpec {
        let name = match self {
            Self::VirtualKey => "fk_governance_virtual_keys_budgets",
            Self::ProviderConfig => "fk_governance_virtual_key_provider_configs_budgets",
        };
        foreign_key(name, self.column(), self.table(), "id").cascade()
    }

    /// The same key as it is between backfill and contract. The owner column may be stale then, since old code writes
    /// the legacy one: deleting a key must not take a budget that has been given to somebody else.
    pub fn loose_foreign_key(self) -> ForeignKeySpec {
        self.foreign_key().set_null()
    }

    /// Whether this owner's table still has the column of the legacy reference, which contract drops.
    pub fn has_legacy_column(self, context: &Context) -> bool {
        context.catalog.has_column(self.table(), "budget_id")
    }

    /// Whether this owner's table still has the legacy reference, and it may say something. Behind the move to model configs it
    /// may not: every owner column is empty there, and what a rebuild left behind would look like the only owner.
    pub fn has_legacy_reference(self, context: &Context) -> bool {
        self.has_legacy_column(context) && !context.catalog.has_column(BUDGETS, "model_config_id")
    }
}

/// A budget has at most one owner. Upstream says so in a save hook only, and its own backfill broke it.
pub fn one_owner() -> CheckSpec {
    CheckSpec {
        name: "chk_governance_budgets_one_owner".to_owned(),
        expression: "virtual_key_id IS NULL OR provider_config_id IS NULL".to_owned(),
    }
}

/// Where the legacy columns stand between the two schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyColumns {
    /// Old code reads and writes them: they say who owns what.
    Authoritative,
    /// Upstream's own migration ran and could not drop them (SQLite prereleases): they are stale, and give an owner
    /// only to a budget that has none and a flag only from a provider config's budget (G008).
    Stale,
}

/// Who speaks for the owners on this database. When in doubt the columns are leftovers, for that never takes an owner
/// or a flag away.
pub fn legacy(context: &Context) -> LegacyColumns {
    let ours = context
        .created("multi_budget_expand")
        .is_none_or(|created| created.has_column(BUDGETS, Owner::VirtualKey.column()));
    let untouched = context.created("multi_budget_expand").is_some()
        || !context
            .catalog
            .has_column(BUDGETS, Owner::VirtualKey.column());
    if ours && untouched && !context.upstream_ran("add_multi_budget_tables") {
        LegacyColumns::Authoritative
    } else {
        LegacyColumns::Stale
    }
}

/// Whether the flag on budgets is the legacy one. Upstream's `migrate_calendar_aligned` adds a column of the same name
/// again, which its own code then reads until `drop_legacy_calendar_aligned_columns`.
pub fn has_legacy_flag(context: &Context) -> bool {
    let added_again = context.upstream_ran("migrate_calendar_aligned")
        && !context.upstream_ran("drop_legacy_calendar_aligned_columns");
    context.catalog.has_column(BUDGETS, "calendar_aligned") && !added_again
}

/// Every legacy reference that has a say: `budget` is referred to by `owner` of `kind`, which sorts virtual keys before
/// provider configs. `None` where neither table has the column any more.
///
/// All of them have while old code writes the columns. A leftover has where the budget has no owner, or where who refers
/// has no budget: upstream gave a shared budget to one of its owners, and left the others without a limit.
pub fn references(context: &Context) -> Option<String> {
    let stale = legacy(context) == LegacyColumns::Stale
        && Owner::BOTH
            .into_iter()
            .all(|owner| context.catalog.has_column(BUDGETS, owner.column()));
    let arms: Vec<String> = Owner::BOTH
        .into_iter()
        .enumerate()
        .filter(|(_, owner)| owner.has_legacy_reference(context))
        .map(|(rank, owner)| {
            let has_a_say = if stale {
                format!(
                    " AND (NOT EXISTS (SELECT 1 FROM {BUDGETS} o WHERE o.id = t.budget_id \
                     AND (o.virtual_key_id IS NOT NULL OR o.provider_config_id IS NOT NULL)) \
                     OR NOT EXISTS (SELECT 1 FROM {BUDGETS} o WHERE o.{} = t.id))",
                    owner.column()
                )
            } else {
                String::new()
            };
            format!(
                "SELECT {rank} AS kind, CAST(t.id AS text) AS owner, t.budget_id AS budget FROM {} t \
                 WHERE t.budget_id IS NOT NULL AND t.budget_id <> ''{has_a_say}",
                owner.table()
            )
        })
        .collect();
    (!arms.is_empty()).then(|| arms.join(" UNION ALL "))
}

/// Every claim of a virtual key or provider config on a budget, of `kind` -1 where the budget's own owner column says so
/// and is authoritative.
pub fn claims(context: &Context) -> Option<String> {
    let references = references(context)?;
    let owned = owned(context).filter(|_| legacy(context) == LegacyColumns::Stale);
    Some(match owned {
        None => references,
        Some(owned) => format!(
            "{references} UNION ALL SELECT -1 AS kind, o.owner AS owner, o.id AS budget FROM ({owned}) o"
        ),
    })
}

/// Budgets that two or more owners claim: `id`, and `referrers`, how many.
pub fn shared(context: &Context) -> Option<String> {
    let claims = claims(context)?;
    Some(format!(
        "SELECT b.id AS id, r.referrers AS referrers FROM (SELECT budget, count(*) AS referrers \
         FROM ({claims}) each_claim GROUP BY budget HAVING count(*) > 1) r JOIN {BUDGETS} b ON b.id = r.budget"
    ))
}

/// The same of some budgets alone, which `among` names in a column `budget`, for references that are all of a say.
pub(super) fn shared_among(context: &Context, among: &str) -> Option<String> {
    let referrers = referrers_among(context, among)?;
    Some(format!(
        "SELECT r.budget AS id FROM ({referrers}) r JOIN {BUDGETS} b ON b.id = r.budget GROUP BY r.budget HAVING count(*) > 1"
    ))
}

/// Who refers to some budgets: `budget`, reached by the index over the reference.
fn referrers_among(context: &Context, among: &str) -> Option<String> {
    let arms: Vec<String> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            format!(
                "SELECT t.budget_id AS budget FROM ({among}) touched JOIN {} t ON t.budget_id = touched.budget",
                owner.table()
            )
        })
        .collect();
    (!arms.is_empty()).then(|| arms.join(" UNION ALL "))
}

/// Budgets whose own columns name an owner: `id` and `owner`.
pub fn owned(context: &Context) -> Option<String> {
    Owner::BOTH
        .into_iter()
        .all(|owner| context.catalog.has_column(BUDGETS, owner.column()))
        .then(|| {
            format!(
                "SELECT id, COALESCE(virtual_key_id, CAST(provider_config_id AS text)) AS owner FROM {BUDGETS} \
                 WHERE virtual_key_id IS NOT NULL OR provider_config_id IS NOT NULL"
            )
        })
}

/// Budgets with both owner columns set, which upstream's own backfill made of one that a key and a config shared: `id`.
pub fn owned_twice(context: &Context) -> Option<String> {
    Owner::BOTH
        .into_iter()
        .all(|owner| context.catalog.has_column(BUDGETS, owner.column()))
        .then(|| {
            format!(
                "SELECT id FROM {BUDGETS} WHERE virtual_key_id IS NOT NULL AND provider_config_id IS NOT NULL"
            )
        })
}

/// Budgets with two owners of whatever kinds, which the gateway rejects on their next save: `id`.
pub fn owned_by_several(context: &Context) -> Option<String> {
    let columns: Vec<&str> = OWNER_COLUMNS
        .into_iter()
        .filter(|column| context.catalog.has_column(BUDGETS, column))
        .collect();
    let said: Vec<String> = columns
        .iter()
        .map(|column| format!("CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"))
        .collect();
    (columns.len() > 1).then(|| format!("SELECT id FROM {BUDGETS} WHERE {} > 1", said.join(" + ")))
}

/// Tables that may hold a `budget_id` besides virtual keys and provider configs.
const OTHER_OWNERS: [&str; 4] = [
    "governance_teams",
    "governance_customers",
    "config_providers",
    "governance_model_configs",
];

/// Columns on budgets that name another kind of owner in later versions.
const OTHER_OWNER_COLUMNS: [&str; 3] = ["team_id", "customer_id", "model_config_id"];

/// Every column of a budget that names an owner, in whichever version.
pub const OWNER_COLUMNS: [&str; 5] = [
    Owner::VirtualKey.column(),
    Owner::ProviderConfig.column(),
    OTHER_OWNER_COLUMNS[0],
    OTHER_OWNER_COLUMNS[1],
    OTHER_OWNER_COLUMNS[2],
];

/// Budgets that a team, customer, provider or model config claims, each once, as `budget`.
pub fn foreign_claims(context: &Context) -> Option<String> {
    let arms = foreign_arms(context);
    (!arms.is_empty()).then(|| arms.join(" UNION "))
}

/// The same, one row for each claim.
pub fn every_foreign_claim(context: &Context) -> Option<String> {
    let arms = foreign_arms(context);
    (!arms.is_empty()).then(|| arms.join(" UNION ALL "))
}

fn foreign_arms(context: &Context) -> Vec<String> {
    let mut arms: Vec<String> = OTHER_OWNERS
        .into_iter()
        .filter(|table| context.catalog.has_column(table, "budget_id"))
        .map(|table| {
            format!("SELECT budget_id AS budget FROM {table} WHERE budget_id IS NOT NULL AND budget_id <> ''")
        })
        .collect();
    arms.extend(
        OTHER_OWNER_COLUMNS
            .into_iter()
            .filter(|column| context.catalog.has_column(BUDGETS, column))
            .map(|column| {
                format!("SELECT id AS budget FROM {BUDGETS} WHERE {column} IS NOT NULL AND CAST({column} AS text) <> ''")
            }),
    );
    arms
}

/// Budgets that a virtual key or provider config refers to and somebody else claims as well: `id`.
pub fn claimed_elsewhere(context: &Context) -> Option<String> {
    let references = references(context)?;
    let claims = foreign_claims(context)?;
    Some(format!(
        "SELECT DISTINCT b.id AS id FROM {BUDGETS} b JOIN ({references}) r ON r.budget = b.id \
         JOIN ({claims}) c ON c.budget = b.id"
    ))
}

/// The same of some budgets alone, which `among` names in a column `budget`.
pub(super) fn claimed_elsewhere_among(context: &Context, among: &str) -> Option<String> {
    let referrers = referrers_among(context, among)?;
    let claims = every_foreign_claim(context)?;
    Some(format!(
        "SELECT DISTINCT r.budget AS id FROM ({referrers}) r JOIN {BUDGETS} b ON b.id = r.budget \
         WHERE r.budget IN (SELECT c.budget FROM ({claims}) c)"
    ))
}

/// Virtual keys with a flagged budget, of their own or of one of their provider configs, by the legacy columns: `id`.
pub fn flagged_by_legacy(context: &Context, owners: &[Owner]) -> Option<String> {
    let dialect = context.catalog.dialect;
    let flagged = dialect.is_true("b.calendar_aligned");
    let arms: Vec<String> = owners
        .iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            let key = match owner {
                Owner::VirtualKey => "r.id",
                Owner::ProviderConfig => "r.virtual_key_id",
            };
            format!(
                "SELECT {key} AS id FROM {} r JOIN {BUDGETS} b ON b.id = r.budget_id \
                 WHERE {flagged} AND r.budget_id <> ''",
                owner.table()
            )
        })
        .collect();
    (!arms.is_empty()).then(|| arms.join(" UNION "))
}

/// Budgets that are not the oldest of their owner, which the legacy schema cannot say.
pub fn beyond_the_oldest(context: &Context) -> Vec<Loss> {
    Owner::BOTH
        .into_iter()
        .filter(|owner| context.catalog.has_column(BUDGETS, owner.column()))
        .map(|owner| {
            let column = owner.column();
            Loss {
                table: BUDGETS.to_owned(),
                what: format!(
                    "the legacy schema holds one budget per {}: the oldest keeps its owner, these stay without one",
                    owner.name().replace('_', " ")
                ),
                sql: format!(
                    "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY {column} ORDER BY {}) AS place \
                     FROM {BUDGETS} WHERE {column} IS NOT NULL) ranked WHERE place > 1",
                    oldest_first(&context.catalog)
                ),
            }
        })
        .collect()
}

/// The sort key "oldest": by creation, whatever the spelling of a time on SQLite, then by id.
pub fn oldest_first(catalog: &Catalog) -> &'static str {
    match catalog.dialect {
        _ if !catalog.has_column(BUDGETS, "created_at") => "id",
        Dialect::Postgres => "created_at, id",
        Dialect::Sqlite => "julianday(created_at), created_at, id",
    }
}

/// Calendar flags of virtual keys that no budget can carry, where budgets have the flag.
pub fn flags_without_a_budget(context: &Context) -> Loss {
    let carriers = format!(
        "SELECT b.virtual_key_id AS id FROM {BUDGETS} b WHERE b.virtual_key_id IS NOT NULL \
         UNION SELECT p.virtual_key_id AS id FROM {BUDGETS} b JOIN {PROVIDER_CONFIGS} p ON p.id = b.provider_config_id"
    );
    lost_flags(
        context,
        &format!("LEFT JOIN ({carriers}) carrier ON carrier.id = v.id"),
        " AND carrier.id IS NULL",
    )
}

/// Calendar flags that vanish with the virtual keys' column: all of them where budgets never had one, none where they
/// have it now or get it back from contract's `down`, which counts its own losses.
pub fn flags_without_a_column(context: &Context, created: &Created) -> Vec<Loss> {
    let catalog = &context.catalog;
    let restored = context
        .created("multi_budget_contract")
        .is_some_and(|contract| {
            contract
                .dropped
                .iter()
                .any(|column| column.table == BUDGETS && column.name == "calendar_aligned")
        });
    if !created.has_column(VIRTUAL_KEYS, "calendar_aligned")
        || !catalog.has_column(VIRTUAL_KEYS, "calendar_aligned")
        || catalog.has_column(BUDGETS, "calendar_aligned")
        || restored
    {
        return Vec::new();
    }
    vec![lost_flags(context, "", "")]
}

fn lost_flags(context: &Context, join: &str, condition: &str) -> Loss {
    Loss {
        table: VIRTUAL_KEYS.to_owned(),
        what: "the calendar flag has no budget to go back to and is dropped".to_owned(),
        sql: format!(
            "SELECT v.id AS id FROM {VIRTUAL_KEYS} v {join} WHERE {}{condition}",
            context.catalog.dialect.is_true("v.calendar_aligned")
        ),
    }
}
