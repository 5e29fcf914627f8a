//! What is wrong with a file, seen from the database it is to agree with.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

use super::entry::{Kind, path};
use super::fields::{ColumnType, RESOURCES, owner_column, owners, resource};
use super::file::Problem;
use super::staging::TO_DELETE;
use super::staging::{ENTRIES, Staging};
use crate::rows;

/// How many are told.
const MOST: usize = 20;

/// What is wrong with an entry, and how many problems there are in all.
#[derive(FromQueryResult)]
struct Found {
    at: String,
    field: String,
    message: String,
    number: i64,
}

#[derive(FromQueryResult)]
struct FreshKeys {
    at: Option<String>,
    number: i64,
}

impl<C: ConnectionTrait> Staging<'_, C> {
    /// The first problems of the file, in its order, and how many there are.
    pub(super) async fn validate(
        &self,
        allow_unread: bool,
    ) -> Result<(Vec<Problem>, usize), DbErr> {
        let mut arms = self.arms();
        if !allow_unread {
            arms.push(self.unknown_keys());
        }
        let sql = format!(
            "SELECT z.at AS at, z.field AS field, z.message AS message, count(*) OVER () AS number FROM ({}) z \
             ORDER BY 1, 2, 3 LIMIT {MOST}",
            arms.join(" UNION ALL ")
        );
        let found: Vec<Found> = rows::all(
            self.connection,
            Statement::from_string(self.dialect().backend(), sql),
        )
        .await?;
        let number = found.first().map_or(0, |row| row.number);
        let problems = found
            .into_iter()
            .map(|row| Problem {
                path: format!("{}.{}", path(&row.at), row.field),
                message: row.message,
            })
            .collect();
        Ok((problems, usize::try_from(number).unwrap_or(usize::MAX)))
    }

    /// New virtual keys, where the database encrypts its keys: one that is there, and how many are new.
    pub(super) async fn new_keys_among_encrypted(&self) -> Result<Option<(String, u64)>, DbErr> {
        let sql = format!(
            "SELECT min(a.at) AS at, count(*) AS number FROM {} a WHERE a.action = 'insert' \
             AND EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {})",
            resource(Kind::VirtualKey).actions(),
            self.is_encrypted()
        );
        let fresh: Option<FreshKeys> = rows::one(
            self.connection,
            Statement::from_string(self.dialect().backend(), sql),
        )
        .await?;
        Ok(fresh.and_then(|row| Some((path(&row.at?), row.number.unsigned_abs()))))
    }

    fn arms(&self) -> Vec<String> {
        let mut arms = self.unknown_references();
        arms.extend(self.owners_of_budgets());
        arms.extend(self.tables());
        arms.extend(self.names());
        // Two of one length would be told apart by nothing, `1d` and `24h` alike.
        arms.push(format!(
            "SELECT max(e.at) AS at, 'reset_duration' AS field, 'another budget of this owner has the same duration' AS message \
             FROM {ENTRIES} e WHERE e.kind = 'budget' AND e.parent IS NOT NULL \
             GROUP BY e.parent_kind, COALESCE(e.owner_id, e.parent), e.nanoseconds HAVING count(*) > 1"
        ));
        arms.push(format!(
            "SELECT e.at AS at, 'id' AS field, 'provider config ' || e.row_id || ' belongs to virtual key \"' || \
             c.virtual_key_id || '\" in the database' AS message FROM {ENTRIES} e \
             JOIN {PROVIDER_CONFIGS} c ON c.id = CAST(e.row_id AS bigint) \
             WHERE e.kind = 'provider_config' AND c.virtual_key_id <> e.parent"
        ));
        arms
    }

    /// References of rows that will be written, to nothing.
    fn unknown_references(&self) -> Vec<String> {
        let mut arms = Vec::new();
        for one in RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
        {
            for field in one.here(self.catalog) {
                let ColumnType::Reference(to) = field.holds else {
                    continue;
                };
                let target = resource(to);
                let missing = if self.catalog.has_table(target.table) {
                    format!(
                        "NOT EXISTS (SELECT 1 FROM {} t WHERE t.id = a.n_{})",
                        target.table, field.column
                    )
                } else {
                    "1 = 1".to_owned()
                };
                arms.push(format!(
                    "SELECT a.at AS at, '{column}' AS field, '{noun} \"' || a.n_{column} || CASE WHEN EXISTS (SELECT 1 FROM {ENTRIES} k \
                     WHERE k.kind = '{kind}' AND k.key = a.n_{column}) THEN '\" was deleted in the database since the file was applied; \
                     --force makes it again' ELSE '\" is neither in the file nor in the database' END AS message FROM {actions} a \
                     WHERE a.action IN ('insert', 'update') AND a.n_{column} IS NOT NULL AND a.n_{column} {differs} a.o_{column} \
                     AND {missing} AND NOT EXISTS (SELECT 1 FROM {ENTRIES} k WHERE k.kind = '{kind}' AND k.key = a.n_{column} AND k.gone = 0)",
                    column = field.column,
                    noun = to.name().replace('_', " "),
                    actions = one.actions(),
                    differs = self.dialect().is_distinct_from(),
                    kind = to.name(),
                ));
            }
        }
        arms
    }

    /// Budgets whose owner is not there, is another's or has no column.
    fn owners_of_budgets(&self) -> Vec<String> {
        let known = owners(self.catalog);
        let mut arms = Vec::new();
        for kind in [
            Kind::VirtualKey,
            Kind::ProviderConfig,
            Kind::Team,
            Kind::Customer,
        ] {
            let column = owner_column(kind);
            let noun = kind.name().replace('_', " ");
            let name = kind.name();
            if !known.contains(&kind) {
                arms.push(format!(
                    "SELECT e.at AS at, '{column}' AS field, 'budgets have no {column} in this database; \
                     name the budget in the {noun}''s budget_id' AS message \
                     FROM {ENTRIES} e WHERE e.kind = 'budget' AND e.parent_kind = '{name}'"
                ));
                continue;
            }
            let owner = resource(kind);
            arms.push(format!(
                "SELECT e.at AS at, '{column}' AS field, '{noun} \"' || e.parent || \
                 '\" is neither in the file nor in the database' AS message FROM {ENTRIES} e \
                 WHERE e.kind IN ('budget', 'claim') AND e.parent_kind = '{name}' AND NOT EXISTS (SELECT 1 FROM {ENTRIES} k \
                 WHERE k.kind = '{name}' AND k.key = e.parent) \
                 AND NOT EXISTS (SELECT 1 FROM {} t WHERE {})",
                owner.table,
                owner.is_row("t", "e.owner_id")
            ));
            arms.push(format!(
                "SELECT c.at AS at, 'budget_id' AS field, 'budget \"' || c.key || '\" is neither in the file nor this owner''s \
                 in the database' AS message FROM {ENTRIES} c WHERE c.kind = 'claim' AND c.parent_kind = '{name}' \
                 AND NOT EXISTS (SELECT 1 FROM {ENTRIES} b WHERE b.kind = 'budget' AND b.key = c.key) \
                 AND NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = c.key AND CAST(b.{column} AS text) = c.owner_id)"
            ));
        }
        // Who owns a row of the database that the file gives to a virtual key or provider config.
        let mut others: Vec<(String, String)> = ["team_id", "customer_id", "model_config_id"]
            .into_iter()
            .filter(|column| self.catalog.has_column(BUDGETS, column))
            .map(|column| {
                let noun = column.trim_end_matches("_id").replace('_', " ");
                (format!("b.{column} IS NOT NULL"), noun)
            })
            .collect();
        for kind in [Kind::Team, Kind::Customer] {
            let owner = resource(kind);
            if self.catalog.has_column(owner.table, "budget_id") {
                others.push((
                    format!(
                        "EXISTS (SELECT 1 FROM {} t WHERE t.budget_id = b.id)",
                        owner.table
                    ),
                    kind.name().to_owned(),
                ));
            }
        }
        for (condition, noun) in others {
            arms.push(format!(
                "SELECT e.at AS at, 'id' AS field, 'budget \"' || b.id || '\" belongs to a {noun} in the database' AS message \
                 FROM {ENTRIES} e JOIN {BUDGETS} b ON b.id = e.row_id WHERE e.kind = 'budget' \
                 AND e.parent_kind IN ('virtual_key', 'provider_config') AND {condition}"
            ));
        }
        arms
    }

    /// Sections whose table is not there, and what only the database can say of rows.
    fn tables(&self) -> Vec<String> {
        let mut arms: Vec<String> = RESOURCES
            .iter()
            .filter(|one| !self.catalog.has_table(one.table))
            .map(|one| {
                format!(
                    "SELECT e.at AS at, 'id' AS field, 'this database has no table {}' AS message FROM {ENTRIES} e WHERE e.kind = '{}'",
                    one.table,
                    one.kind.name()
                )
            })
            .collect();
        // An owner that goes cannot be given anything.
        for kind in [Kind::VirtualKey, Kind::ProviderConfig] {
            arms.push(format!(
                "SELECT e.at AS at, '{}' AS field, '{} \"' || e.owner_id || '\" is not in the file, so that it is deleted' AS message \
                 FROM {ENTRIES} e JOIN {TO_DELETE} w ON w.kind = '{kind}' AND w.id = e.owner_id \
                 WHERE e.kind IN ('budget', 'claim') AND e.parent_kind = '{kind}'",
                owner_column(kind),
                kind.name().replace('_', " "),
                kind = kind.name(),
            ));
        }
        let limits = resource(Kind::RateLimit);
        if self.catalog.has_table(limits.table) {
            for (limit, duration) in [
                ("token_max_limit", "token_reset_duration"),
                ("request_max_limit", "request_reset_duration"),
            ] {
                if limits
                    .here(self.catalog)
                    .iter()
                    .filter(|field| [limit, duration].contains(&field.column))
                    .count()
                    == 2
                {
                    arms.push(format!(
                        "SELECT a.at AS at, '{duration}' AS field, 'is missing: a limit needs a duration' AS message FROM {} a \
                         WHERE a.action IN ('insert', 'update') AND a.n_{limit} IS NOT NULL AND a.n_{duration} IS NULL",
                        limits.actions()
                    ));
                }
            }
        }
        // Whose a budget is that a customer or team refers to.
        for kind in [Kind::Customer, Kind::Team] {
            let one = resource(kind);
            if !self.catalog.has_column(one.table, "budget_id") {
                continue;
            }
            for owner in owners(self.catalog)
                .into_iter()
                .filter(|owner| *owner != kind)
            {
                let column = owner_column(owner);
                arms.push(format!(
                    "SELECT a.at AS at, 'budget_id' AS field, 'budget \"' || b.id || '\" belongs to {} \"' || CAST(b.{column} AS text) || \
                     '\" in the database' AS message FROM {} a JOIN {BUDGETS} b ON b.id = a.n_budget_id \
                     WHERE a.action IN ('insert', 'update') AND a.n_budget_id {} a.o_budget_id AND b.{column} IS NOT NULL",
                    owner.name().replace('_', " "),
                    one.actions(),
                    self.dialect().is_distinct_from()
                ));
            }
        }
        arms
    }

    /// Names that are missing or taken, and values that are another's.
    fn names(&self) -> Vec<String> {
        let mut arms = Vec::new();
        for one in RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
        {
            if let Some(needed) = one.needed {
                arms.push(format!(
                    "SELECT a.at AS at, '{needed}' AS field, 'is missing: {} \"' || a.entry || '\" is new' AS message \
                     FROM {} a WHERE a.action = 'insert' AND a.n_{needed} IS NULL",
                    one.kind.name().replace('_', " "),
                    one.actions()
                ));
            }
        }
        let differs = self.dialect().is_distinct_from();
        for (kind, column) in self.unique() {
            let (one, noun) = (resource(kind), kind.name().replace('_', " "));
            let (actions, table) = (one.actions(), one.table);
            arms.push(format!(
                "SELECT a.at AS at, '{column}' AS field, '{noun} \"' || v.id || '\" has this {column} in the database' AS message FROM {actions} a \
                 JOIN {table} v ON v.{column} = a.n_{column} WHERE a.action IN ('insert', 'update') \
                 AND a.n_{column} {differs} a.o_{column} AND v.id {differs} a.row_id \
                 AND NOT EXISTS (SELECT 1 FROM {TO_DELETE} w WHERE w.kind = '{kind}' AND w.id = v.id) \
                 AND NOT EXISTS (SELECT 1 FROM {actions} b WHERE b.action = 'update' AND b.row_id = v.id AND b.n_{column} {differs} b.o_{column})",
                kind = kind.name(),
            ));
            if kind == Kind::Team {
                // Names of virtual keys were compared when the file was read.
                arms.push(format!(
                    "SELECT max(e.at) AS at, '{column}' AS field, 'is another team''s too' AS message FROM {ENTRIES} e \
                     WHERE e.kind = 'team' AND e.{column} IS NOT NULL GROUP BY e.{column} HAVING count(*) > 1"
                ));
            }
        }
        if self.catalog.has_column(VIRTUAL_KEYS, "value_hash") {
            // Of an encrypted row the hash alone says what its value is.
            arms.push(format!(
                "SELECT e.at AS at, 'value' AS field, 'virtual key \"' || v.id || '\" has this value in the database' AS message \
                 FROM {ENTRIES} e JOIN {VIRTUAL_KEYS} v ON v.value_hash = e.value_hash WHERE e.kind = 'virtual_key' \
                 AND v.id {differs} e.row_id AND {} \
                 AND NOT EXISTS (SELECT 1 FROM {TO_DELETE} w WHERE w.kind = 'virtual_key' AND w.id = v.id)",
                self.is_encrypted()
            ));
        }
        arms
    }

    /// Columns in which no two rows may have the same. Names of teams where the database says so.
    pub(super) fn unique(&self) -> Vec<(Kind, &'static str)> {
        let mut unique = vec![(Kind::VirtualKey, "name"), (Kind::VirtualKey, "value")];
        let teams = resource(Kind::Team).table;
        if self.catalog.table(teams).is_some_and(|table| {
            table
                .indexes
                .iter()
                .any(|index| index.unique && index.predicate.is_none() && index.columns == ["name"])
        }) {
            unique.push((Kind::Team, "name"));
        }
        unique
    }
}
