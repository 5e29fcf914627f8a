//! Shared budgets (hazards G001 and G002): every further owner gets a copy of its own.
//!
//! The copy has the original's limit, duration, window **and usage**, so that nobody's remaining allowance grows, and the
//! owner's `budget_id` is re-pointed to it, so that a gateway that runs on keeps working. Who keeps the original: virtual
//! keys before provider configs, each in id order; nobody, where a team, customer, provider or model config has it.

use crate::context::Context;
use crate::dialect::Dialect;

use super::clones::{CLONES, CloneShared};
use super::owners::{self, LegacyColumns, Owner};
use super::{BUDGETS, SHARED_BUDGETS};

/// Columns of a budget that a copy does not take over: its id, its owners, and the hash of a config entry that speaks of
/// another id.
const NOT_COPIED: [&str; 7] = [
    "id",
    "virtual_key_id",
    "provider_config_id",
    "team_id",
    "customer_id",
    "model_config_id",
    "config_hash",
];

/// The copies that the operator asked for; `None` where they did not, or where nothing can be shared.
pub(super) fn split(context: &Context) -> Option<CloneShared> {
    if !context.chose(&SHARED_BUDGETS) {
        return None;
    }
    let dialect = context.catalog.dialect;
    let further = further_owners(context)?;
    let table = CLONES;
    let (columns, copied) = copied_columns(context)?;
    let page = CloneShared::PAGE;
    let present: Vec<(usize, Owner)> = Owner::BOTH
        .into_iter()
        .enumerate()
        .filter(|(_, owner)| owner.has_legacy_reference(context))
        .collect();
    // By the owner's key in its own type, so that its index serves; the CASE keeps key names out of the cast.
    let is_owner = |owner: &Owner, alias: &str| match owner {
        Owner::VirtualKey => format!("{alias}.id = c.owner"),
        Owner::ProviderConfig => {
            format!("{alias}.id = CASE WHEN c.kind = 1 THEN CAST(c.owner AS bigint) END")
        }
    };
    let still_refers: Vec<String> = present
        .iter()
        .map(|(rank, owner)| {
            format!(
                "SELECT c.copy, c.original FROM {table} c JOIN {} r ON {} \
                 WHERE c.kind = {rank} AND c.copy IN ({page}) AND r.budget_id = c.original",
                owner.table(),
                is_owner(owner, "r")
            )
        })
        .collect();
    let mut copy = vec![format!(
        "INSERT INTO {BUDGETS} (id, {}) SELECT due.copy, {} FROM ({}) due JOIN {BUDGETS} b ON b.id = due.original \
         WHERE NOT EXISTS (SELECT 1 FROM {BUDGETS} present WHERE present.id = due.copy)",
        columns,
        copied,
        still_refers.join(" UNION ALL ")
    )];
    for (rank, owner) in &present {
        let referring = owner.table();
        copy.push(format!(
            "UPDATE {referring} SET budget_id = c.copy FROM {table} c WHERE c.kind = {rank} AND c.copy IN ({page}) \
             AND {} AND {referring}.budget_id = c.original",
            is_owner(owner, referring)
        ));
    }
    copy.push(format!(
        "DELETE FROM {table} WHERE copy IN ({page}) \
         AND NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = {table}.copy)"
    ));
    let lock = match dialect {
        Dialect::Sqlite => Vec::new(),
        Dialect::Postgres => present
            .iter()
            .map(|(rank, owner)| {
                format!(
                    "SELECT 1 FROM {} r JOIN {table} c ON c.kind = {rank} AND {} \
                     WHERE c.copy IN ({page}) ORDER BY r.id FOR NO KEY UPDATE OF r",
                    owner.table(),
                    is_owner(owner, "r")
                )
            })
            .collect(),
    };
    Some(CloneShared {
        purpose: "every further owner of a shared budget gets a copy, with its usage",
        stage: stage(&further),
        lock,
        copy,
        estimate: format!("SELECT count(*) AS number FROM ({further}) further"),
    })
}

/// Every reference that cannot keep the original: `budget`, `kind`, `owner`.
fn further_owners(context: &Context) -> Option<String> {
    let claims = owners::claims(context)?;
    let (bytewise, numbered) = match context.catalog.dialect {
        // The same order on both backends, whatever the server's collation.
        Dialect::Postgres => ("owner COLLATE \"C\"", "lpad(owner, 20, '0')"),
        Dialect::Sqlite => ("owner", "printf('%020d', owner)"),
    };
    let ranked = format!(
        "SELECT r.budget, r.kind, r.owner, row_number() OVER (PARTITION BY r.budget ORDER BY r.kind, \
         CASE WHEN r.kind = 1 THEN {numbered} ELSE '' END, {bytewise}) AS place \
         FROM ({claims}) r JOIN {BUDGETS} b ON b.id = r.budget"
    );
    Some(match owners::foreign_claims(context) {
        Some(claims) => format!(
            "SELECT ranked.budget, ranked.kind, ranked.owner FROM ({ranked}) ranked \
             LEFT JOIN ({claims}) claim ON claim.budget = ranked.budget \
             WHERE ranked.kind >= 0 AND (ranked.place > 1 OR claim.budget IS NOT NULL)"
        ),
        None => format!(
            "SELECT ranked.budget, ranked.kind, ranked.owner FROM ({ranked}) ranked \
             WHERE ranked.kind >= 0 AND ranked.place > 1"
        ),
    })
}

/// The list of copies, and what writes into it. A row that an interrupted run had listed and not copied is looked at
/// again; an owner that came back to a budget it has a copy of gets that copy back.
fn stage(further: &str) -> Vec<String> {
    let table = CLONES;
    let mut statements = list();
    statements.extend([
        format!("DELETE FROM {table} WHERE copy IS NULL"),
        format!(
            "INSERT INTO {table} (original, kind, owner) SELECT budget, kind, owner FROM ({further}) further \
             WHERE 1 = 1 ON CONFLICT (original, kind, owner) DO UPDATE SET copy = NULL, settled = 0"
        ),
    ]);
    statements
}

/// Makes the list of copies where there is none.
pub fn list() -> Vec<String> {
    let table = CLONES;
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (original varchar(255) NOT NULL, kind integer NOT NULL, \
             owner varchar(255) NOT NULL, copy varchar(255), settled integer NOT NULL DEFAULT 0, \
             PRIMARY KEY (original, kind, owner))"
        ),
        format!("CREATE INDEX IF NOT EXISTS {table}_copy ON {table} (copy)"),
        format!(
            "CREATE INDEX IF NOT EXISTS {table}_due ON {table} (original, kind, owner) WHERE copy IS NULL"
        ),
    ]
}

/// Copies for budgets with both owner columns set: the key keeps the original, the provider config gets the copy.
pub(super) fn split_owned_twice(context: &Context) -> Option<CloneShared> {
    // Columns that are ours and written by our backfill never name two.
    if !context.chose(&SHARED_BUDGETS) || owners::legacy(context) == LegacyColumns::Authoritative {
        return None;
    }
    let twice = owners::owned_twice(context)?;
    let further = format!(
        "SELECT b.id AS budget, 1 AS kind, CAST(b.provider_config_id AS text) AS owner FROM {BUDGETS} b \
         JOIN ({twice}) twice ON twice.id = b.id"
    );
    let (table, page) = (CLONES, CloneShared::PAGE);
    let (columns, copied) = copied_columns(context)?;
    let lock = match context.catalog.dialect {
        Dialect::Sqlite => Vec::new(),
        Dialect::Postgres => vec![format!(
            "SELECT 1 FROM {BUDGETS} b JOIN {table} c ON c.original = b.id WHERE c.copy IN ({page}) \
             ORDER BY b.id FOR NO KEY UPDATE OF b"
        )],
    };
    Some(CloneShared {
        purpose: "a provider config that shares its virtual key's budget gets a copy, with its usage",
        stage: stage(&further),
        lock,
        copy: vec![
            format!(
                "INSERT INTO {BUDGETS} (id, provider_config_id, {columns}) SELECT c.copy, b.provider_config_id, {copied} \
                 FROM {table} c JOIN {BUDGETS} b ON b.id = c.original WHERE c.copy IN ({page}) \
                 AND b.virtual_key_id IS NOT NULL AND b.provider_config_id IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM {BUDGETS} present WHERE present.id = c.copy)"
            ),
            format!(
                "UPDATE {BUDGETS} SET provider_config_id = NULL WHERE virtual_key_id IS NOT NULL \
                 AND provider_config_id IS NOT NULL AND id IN (SELECT original FROM {table} WHERE copy IN ({page}))"
            ),
        ],
        estimate: format!("SELECT count(*) AS number FROM ({further}) further"),
    })
}

/// The columns that a copy takes over: their names, and the same as `b.name`.
pub fn copied_columns(context: &Context) -> Option<(String, String)> {
    let dialect = context.catalog.dialect;
    let columns: Vec<String> = context
        .catalog
        .table(BUDGETS)?
        .columns
        .iter()
        .filter(|column| !column.generated && !NOT_COPIED.contains(&column.name.as_str()))
        .map(|column| dialect.quote(&column.name))
        .collect();
    let copied: Vec<String> = columns.iter().map(|column| format!("b.{column}")).collect();
    Some((columns.join(", "), copied.join(", ")))
}

/// Raises each copy's usage to that of its original, and of the original's own, where they are in the same window: an old
/// gateway went on spending on the original until it was rolled. Copies that an earlier contract has settled have been
/// spent on by themselves since.
pub(super) fn raise_usage(dialect: Dialect) -> String {
    let same_window = match dialect {
        Dialect::Postgres => "copied.last_reset IS NOT DISTINCT FROM original.last_reset",
        Dialect::Sqlite => {
            "(copied.last_reset IS original.last_reset OR julianday(copied.last_reset) = julianday(original.last_reset))"
        }
    };
    let table = CLONES;
    format!(
        "WITH RECURSIVE line (copy, ancestor) AS (SELECT copy, original FROM {table} WHERE settled = 0 AND copy IS NOT NULL \
         UNION SELECT line.copy, c.original FROM line JOIN {table} c ON c.copy = line.ancestor WHERE c.settled = 0) \
         UPDATE {BUDGETS} SET current_usage = due.spent FROM (SELECT copied.id AS id, max(original.current_usage) AS spent \
         FROM line JOIN {BUDGETS} copied ON copied.id = line.copy JOIN {BUDGETS} original ON original.id = line.ancestor \
         WHERE {same_window} AND COALESCE(copied.current_usage, 0) < original.current_usage GROUP BY copied.id) due \
         WHERE due.id = {BUDGETS}.id"
    )
}

/// From contract on a copy is a budget like any other.
pub(super) fn settle() -> String {
    format!("UPDATE {} SET settled = 1 WHERE settled = 0", CLONES)
}
