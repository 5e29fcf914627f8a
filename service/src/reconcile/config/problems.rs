//! What is wrong with a file, seen from the database it is to agree with.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

use super::deeds::DOOMED;
use super::entry::{Kind, path};
use super::fields::{Holds, THINGS, owner_column, owners, thing};
use super::file::Problem;
use super::stage::{ENTRIES, Stage};

/// How many are told.
const MOST: usize = 20;

impl<C: ConnectionTrait> Stage<'_, C> {
    /// The first problems of the file, in its order, and how many there are.
    pub(super) async fn problems(&self) -> Result<(Vec<Problem>, usize), DbErr> {
        let arms = self.arms();
        let sql = format!(
            "SELECT z.at AS at, z.field AS field, z.message AS message, count(*) OVER () AS number FROM ({}) z \
             ORDER BY 1, 2, 3 LIMIT {MOST}",
            arms.join(" UNION ALL ")
        );
        let rows = self
            .connection
            .query_all_raw(Statement::from_string(self.dialect().backend(), sql))
            .await?;
        let number: i64 = rows
            .first()
            .map_or(Ok(0), |row| row.try_get("", "number"))?;
        let problems = rows
            .iter()
            .map(|row| {
                let (at, field): (String, String) =
                    (row.try_get("", "at")?, row.try_get("", "field")?);
                Ok(Problem {
                    path: format!("{}.{field}", path(&at)),
                    message: row.try_get("", "message")?,
                })
            })
            .collect::<Result<_, DbErr>>()?;
        Ok((problems, usize::try_from(number).unwrap_or(usize::MAX)))
    }

    /// New virtual keys, where the database encrypts its keys: one that is there, and how many are new.
    pub(super) async fn new_keys_among_encrypted(&self) -> Result<Option<(String, u64)>, DbErr> {
        let sql = format!(
            "SELECT min(a.at) AS at, count(*) AS number FROM {} a WHERE a.action = 'insert' \
             AND EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {})",
            thing(Kind::VirtualKey).deeds(),
            self.is_encrypted()
        );
        let row = self
            .connection
            .query_one_raw(Statement::from_string(self.dialect().backend(), sql))
            .await?;
        let Some(row) = row else { return Ok(None) };
        let at: Option<String> = row.try_get("", "at")?;
        let number: i64 = row.try_get("", "number")?;
        Ok(at.map(|at| (path(&at), number.unsigned_abs())))
    }

    fn arms(&self) -> Vec<String> {
        let mut arms = self.unknown_references();
        arms.extend(self.owners_of_budgets());
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
        for one in THINGS
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
        {
            for field in one.here(self.catalog) {
                let Holds::Reference(to) = field.holds else {
                    continue;
                };
                let target = thing(to);
                let missing = if self.catalog.has_table(target.table) {
                    format!(
                        "NOT EXISTS (SELECT 1 FROM {} t WHERE t.id = a.n_{})",
                        target.table, field.column
                    )
                } else {
                    "1 = 1".to_owned()
                };
                arms.push(format!(
                    "SELECT a.at AS at, '{column}' AS field, '{noun} \"' || a.n_{column} || \
                     '\" is neither in the file nor in the database' AS message FROM {deeds} a \
                     WHERE a.action IN ('insert', 'update') AND a.n_{column} IS NOT NULL AND a.n_{column} {differs} a.o_{column} \
                     AND {missing} AND NOT EXISTS (SELECT 1 FROM {ENTRIES} k WHERE k.kind = '{kind}' AND k.key = a.n_{column} AND k.gone = 0)",
                    column = field.column,
                    noun = to.name().replace('_', " "),
                    deeds = one.deeds(),
                    differs = self.dialect().differs(),
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
            let owner = thing(kind);
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
            let owner = thing(kind);
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

    /// Names that are missing or taken, and values that are another's.
    fn names(&self) -> Vec<String> {
        let mut arms = Vec::new();
        for one in THINGS
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
        {
            if let Some(needed) = one.needed {
                arms.push(format!(
                    "SELECT a.at AS at, '{needed}' AS field, 'is missing: {} \"' || a.entry || '\" is new' AS message \
                     FROM {} a WHERE a.action = 'insert' AND a.n_{needed} IS NULL",
                    one.kind.name().replace('_', " "),
                    one.deeds()
                ));
            }
        }
        let deeds = thing(Kind::VirtualKey).deeds();
        let differs = self.dialect().differs();
        for (column, message) in [
            (
                "name",
                "'virtual key \"' || v.id || '\" has this name in the database'",
            ),
            (
                "value",
                "'virtual key \"' || v.id || '\" has this value in the database'",
            ),
        ] {
            arms.push(format!(
                "SELECT a.at AS at, '{column}' AS field, {message} AS message FROM {deeds} a \
                 JOIN {VIRTUAL_KEYS} v ON v.{column} = a.n_{column} WHERE a.action IN ('insert', 'update') \
                 AND a.n_{column} {differs} a.o_{column} AND v.id {differs} a.row_id \
                 AND NOT EXISTS (SELECT 1 FROM {DOOMED} w WHERE w.kind = 'virtual_key' AND w.id = v.id) \
                 AND NOT EXISTS (SELECT 1 FROM {deeds} b WHERE b.action = 'update' AND b.row_id = v.id AND b.n_{column} {differs} b.o_{column})"
            ));
        }
        arms
    }
}
