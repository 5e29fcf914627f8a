//! What is to be done to each row: one temporary table per kind, which is counted, told and carried out.

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::Dialect;
use tollgate_migration::governance::{PROVIDER_CONFIGS, VIRTUAL_KEYS};

use super::entry::Kind;
use super::fields::{
    ColumnType, Field, RESOURCES, Resource, decimal, owner_column, owners, resource,
};
use super::staging::{ENTRIES, KEPT, OWNED, Staging, TO_DELETE};

/// A column of a deed: what it will hold, what it holds, what that means when it is compared, and whether the file has a say.
struct Column {
    name: String,
    new: String,
    old: String,
    compared: String,
    said: String,
}

impl<C: ConnectionTrait> Staging<'_, C> {
    /// Says what is to be done. With `prune`, owners that the file lacks go too; `keys` says whether it lists virtual keys.
    pub(super) async fn decide(&self, prune: bool, keys: bool) -> Result<(), DbErr> {
        for resource in RESOURCES
            .iter()
            .filter(|resource| self.catalog.has_table(resource.table))
        {
            let sql = self.actions_of(resource);
            self.make(&resource.actions(), &sql).await?;
            self.analyze(&resource.actions()).await?;
        }
        self.plan_deletions(prune, keys).await
    }

    fn columns_of(&self, resource: &Resource) -> Vec<Column> {
        let mut columns: Vec<Column> = resource
            .here(self.catalog)
            .into_iter()
            .map(|field| self.column(resource, field))
            .collect();
        if resource.kind == Kind::VirtualKey {
            let encrypted = self.is_encrypted().replace("v.", "d.");
            columns.push(Column {
                name: "value".to_owned(),
                new: format!(
                    "CASE WHEN e.value IS NOT NULL AND NOT ({encrypted}) THEN e.value ELSE d.value END"
                ),
                old: "d.value".to_owned(),
                compared: "d.value".to_owned(),
                said: "1 = 1".to_owned(),
            });
        }
        if resource.kind == Kind::Budget {
            for kind in owners(self.catalog) {
                let column = owner_column(kind);
                let id = match kind {
                    // A new provider config gets its number later; until then it is another than any.
                    Kind::ProviderConfig => "COALESCE(CAST(e.owner_id AS bigint), -1)",
                    _ => "e.owner_id",
                };
                columns.push(Column {
                    name: column.to_owned(),
                    // A budget that nobody claims in the file stays whose it is.
                    new: format!(
                        "CASE WHEN e.parent_kind IS NULL OR e.lost = 1 THEN d.{column} WHEN e.parent_kind = '{}' THEN {id} END",
                        kind.name()
                    ),
                    old: format!("d.{column}"),
                    compared: format!("d.{column}"),
                    said: "1 = 1".to_owned(),
                });
            }
        }
        columns
    }

    fn column(&self, resource: &Resource, field: Field) -> Column {
        let dialect = self.dialect();
        let bit = 1_u64 << field.bit;
        let stored = format!("d.{}", field.column);
        let said = field.cast(dialect, &format!("e.{}", field.column));
        let default = field.default(dialect);
        let said = match field.holds {
            ColumnType::NonNullText(_) | ColumnType::Flag(_) => {
                format!("COALESCE({said}, {default})")
            }
            _ => said,
        };
        // What the file said when it was applied last and says no more is taken back, but for what no row can do without.
        let back = if resource.needed == Some(field.column) {
            &stored
        } else {
            &default
        };
        Column {
            name: field.column.to_owned(),
            new: format!(
                "CASE WHEN (e.present & {bit}) <> 0 THEN {said} WHEN (e.was & {bit}) <> 0 THEN {back} ELSE {stored} END"
            ),
            compared: field.compared(dialect, &stored),
            said: format!("((e.present & {bit}) <> 0 OR (e.was & {bit}) <> 0)"),
            old: stored,
        }
    }

    fn actions_of(&self, resource: &Resource) -> String {
        let columns = self.columns_of(resource);
        let differs = self.dialect().is_distinct_from();
        let mut inner: Vec<String> = Vec::new();
        let mut outer: Vec<String> = Vec::new();
        let mut differences: Vec<String> = Vec::new();
        for column in &columns {
            let name = &column.name;
            inner.push(format!(
                "{} AS n_{name}, {} AS o_{name}, {} AS c_{name}, CASE WHEN {} THEN 1 ELSE 0 END AS s_{name}",
                column.new, column.old, column.compared, column.said
            ));
            outer.push(format!("x.n_{name}, x.o_{name}"));
            differences.push(format!(
                "(x.s_{name} = 1 AND x.n_{name} {differs} x.c_{name})"
            ));
        }
        let (usage, heir) = if resource.kind == Kind::Budget {
            (
                format!(
                    "COALESCE(d.current_usage, h.usage, CAST(0 AS {}))",
                    decimal(self.dialect())
                ),
                // A new duration starts from what its owner has spent in the closest shorter one.
                format!(
                    "LEFT JOIN (SELECT y.key AS key, y.usage AS usage FROM (SELECT k.key AS key, o.usage AS usage, \
                     row_number() OVER (PARTITION BY k.key ORDER BY o.nanoseconds DESC, o.usage DESC, o.id) AS n \
                     FROM {ENTRIES} k JOIN {OWNED} o ON o.parent_kind = k.parent_kind AND o.owner_id = k.owner_id \
                     AND o.nanoseconds < CAST(k.nanoseconds AS bigint) WHERE k.kind = 'budget' AND k.row_id IS NULL) y \
                     WHERE y.n = 1) h ON h.key = e.key"
                ),
            )
        } else {
            ("0".to_owned(), String::new())
        };
        format!(
            "AS SELECT * FROM (SELECT x.entry, x.at, x.row_id, x.parent_kind, x.parent, x.given, x.new_id, x.usage, {outer}, \
             CASE WHEN x.row_id IS NULL THEN CASE WHEN x.gone = 1 THEN 'gone' ELSE 'insert' END \
             WHEN {differences} THEN CASE WHEN x.unchanged = 1 THEN 'edited' ELSE 'update' END ELSE 'same' END AS action \
             FROM (SELECT e.key AS entry, e.at AS at, e.row_id AS row_id, e.parent_kind AS parent_kind, \
             e.parent AS parent, e.id AS given, COALESCE(e.id, e.fresh) AS new_id, e.gone AS gone, \
             e.unchanged AS unchanged, {usage} AS usage, {inner} \
             FROM (SELECT * FROM {ENTRIES} WHERE kind = '{kind}') e LEFT JOIN {table} d ON {is} {heir}) x) z \
             WHERE z.action <> 'same'",
            outer = outer.join(", "),
            differences = differences.join(" OR "),
            inner = inner.join(", "),
            kind = resource.kind.name(),
            table = resource.table,
            is = resource.is_row("d", "e.row_id"),
        )
    }

    async fn plan_deletions(&self, prune: bool, keys: bool) -> Result<(), DbErr> {
        for table in [TO_DELETE, KEPT] {
            self.make(table, "(kind text, id text)").await?;
        }
        self.run(&format!(
            "CREATE INDEX tollgate_to_delete_id ON {TO_DELETE} (kind, id)"
        ))
        .await?;
        if prune && keys {
            self.run(&format!(
                "INSERT INTO {TO_DELETE} SELECT 'virtual_key', v.id FROM {VIRTUAL_KEYS} v WHERE {}",
                unmeant("virtual_key", "v.id")
            ))
            .await?;
        }
        let (goes, stays) = if prune {
            ("1 = 1", "1 = 0")
        } else {
            ("l.unchanged = 0", "l.unchanged = 1")
        };
        self.run(&format!(
            "INSERT INTO {TO_DELETE} {} UNION SELECT 'provider_config', CAST(c.id AS text) FROM {PROVIDER_CONFIGS} c \
             CROSS JOIN {TO_DELETE} v WHERE v.kind = 'virtual_key' AND v.id = c.virtual_key_id",
            unlisted_configs(goes)
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO {TO_DELETE} {} UNION SELECT 'budget', o.id FROM {OWNED} o CROSS JOIN {TO_DELETE} w WHERE w.kind = o.parent_kind \
             AND w.id = o.owner_id AND {}",
            unlisted_budgets("l.unchanged = 0"),
            unmeant("budget", "o.id")
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO {KEPT} {} UNION {}",
            unlisted_configs(stays),
            unlisted_budgets("l.unchanged = 1")
        ))
        .await?;
        self.plan_rate_limits_of_deleted().await?;
        let keys = resource(Kind::VirtualKey).actions();
        for (number, column) in ["n_name", "n_value", "row_id"].iter().enumerate() {
            self.run(&format!(
                "CREATE INDEX tollgate_actions_{number} ON {keys} ({column})"
            ))
            .await?;
        }
        if self.dialect() == Dialect::Sqlite {
            // Lists look their owners up here, which SQLite takes for a few.
            self.run(&format!(
                "CREATE INDEX tollgate_actions_entry ON {} (entry)",
                resource(Kind::ProviderConfig).actions()
            ))
            .await?;
        }
        self.analyze(TO_DELETE).await
    }

    /// The rate limits of what is deleted go with it.
    async fn plan_rate_limits_of_deleted(&self) -> Result<(), DbErr> {
        let limits: Vec<String> = [
            (VIRTUAL_KEYS, "virtual_key", "x.id"),
            (PROVIDER_CONFIGS, "provider_config", "CAST(x.id AS text)"),
        ]
        .into_iter()
        .filter(|(table, ..)| self.catalog.has_column(table, "rate_limit_id"))
        .map(|(table, kind, id)| {
            format!(
                "SELECT 'rate_limit', x.rate_limit_id FROM {table} x CROSS JOIN {TO_DELETE} w WHERE w.kind = '{kind}' AND w.id = {id} \
                 AND x.rate_limit_id IS NOT NULL AND {}",
                unmeant("rate_limit", "x.rate_limit_id")
            )
        })
        .collect();
        if limits.is_empty() {
            return Ok(());
        }
        self.run(&format!(
            "INSERT INTO {TO_DELETE} {}",
            limits.join(" UNION ")
        ))
        .await?;
        Ok(())
    }
}

/// No entry of the file means that row.
fn unmeant(kind: &str, id: &str) -> String {
    format!("NOT EXISTS (SELECT 1 FROM {ENTRIES} k WHERE k.kind = '{kind}' AND k.row_id = {id})")
}

/// The provider configs of keys whose list does not hold them. A CROSS JOIN tells SQLite which table comes first: the other
/// one has the index. PostgreSQL takes it as any join.
fn unlisted_configs(condition: &str) -> String {
    format!(
        "SELECT 'provider_config', CAST(c.id AS text) FROM {PROVIDER_CONFIGS} c CROSS JOIN {ENTRIES} l WHERE l.kind = 'list' \
         AND l.id = 'provider_config' AND l.owner_id = c.virtual_key_id AND {condition} AND {}",
        unmeant("provider_config", "CAST(c.id AS text)")
    )
}

/// The same of budgets.
fn unlisted_budgets(condition: &str) -> String {
    format!(
        "SELECT 'budget', o.id FROM {OWNED} o CROSS JOIN {ENTRIES} l WHERE l.kind = 'list' AND l.id = 'budget' \
         AND l.parent_kind = o.parent_kind AND l.owner_id = o.owner_id AND {condition} AND {} \
         AND NOT EXISTS (SELECT 1 FROM {ENTRIES} c WHERE c.kind = 'claim' AND c.key = o.id \
         AND c.parent_kind = o.parent_kind AND c.owner_id = o.owner_id)",
        unmeant("budget", "o.id")
    )
}
