//! Carries the actions out, in an order in which no foreign key is ever violated.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Dialect};

use super::entry::Kind;
use super::fields::{ColumnType, RESOURCES, Resource, owner_column, owners, resource};
use super::staging::TO_DELETE;
use super::staging::{APPLIED, ENTRIES, Staging};
use crate::instant;
use crate::tracks::governance::budget::schema::{RATE_LIMITS, Schema};
use crate::tracks::governance::credentials::tables_of_virtual_keys;
use crate::tracks::governance::virtual_key::{JOIN, JOIN_COLUMN, referrers};

/// Rows to be deleted that somebody else needs.
const NEEDED: &str = "tollgate_needed";

/// What was done of a kind, where that can be less than was decided: the gateway was faster.
pub(super) type Done = Vec<(Kind, u64)>;

impl<C: ConnectionTrait> Staging<'_, C> {
    /// Does it all, and remembers what the file said. Gives back how many rows of each kind were updated.
    pub(super) async fn write(&self, schema: &Schema, now: DateTime<Utc>) -> Result<Done, DbErr> {
        let now = &instant::literal(self.dialect(), now);
        self.lock().await?;
        self.park().await?;
        let mut done = Vec::new();
        for one in RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
        {
            if one.kind == Kind::Customer {
                // Customers and teams refer to budgets that have no owner column.
                self.insert(resource(Kind::Budget), "a.parent_kind IS NULL", now)
                    .await?;
            }
            if one.kind == Kind::ProviderConfig {
                self.number_provider_configs().await?;
            }
            let which = match one.kind {
                Kind::Budget if self.catalog.has_table(resource(Kind::Customer).table) => {
                    "a.parent_kind IS NOT NULL"
                }
                _ => "1 = 1",
            };
            self.insert(one, which, now).await?;
            done.push((one.kind, self.update(one, now).await?));
        }
        self.refer().await?;
        self.align(schema).await?;
        self.delete().await?;
        self.assign().await?;
        self.remember().await?;
        Ok(done)
    }

    /// Budgets are locked in the order of their ids, as whoever records usage locks them.
    async fn lock(&self) -> Result<(), DbErr> {
        if self.dialect() == Dialect::Postgres {
            self.run(&format!(
                "SELECT count(*) FROM (SELECT b.id FROM {BUDGETS} b WHERE b.id IN (SELECT a.row_id FROM {} a \
                 WHERE a.action = 'update' UNION SELECT w.id FROM {TO_DELETE} w WHERE w.kind = 'budget') \
                 ORDER BY b.id FOR UPDATE) locked",
                resource(Kind::Budget).actions()
            ))
            .await?;
        }
        Ok(())
    }

    /// A name or value that changes hands is let go first: unique indexes are checked row by row.
    async fn park(&self) -> Result<(), DbErr> {
        for (kind, column) in self.unique() {
            let one = resource(kind);
            let (actions, table) = (one.actions(), one.table);
            let hash = if column == "value" && self.catalog.has_column(VIRTUAL_KEYS, "value_hash") {
                ", value_hash = NULL"
            } else {
                ""
            };
            self.run(&format!(
                "UPDATE {table} SET {column} = 'tollgate:' || id{hash} WHERE id IN (SELECT w.id FROM {TO_DELETE} w \
                 WHERE w.kind = '{}') AND {column} IN (SELECT a.n_{column} FROM {actions} a WHERE a.action IN ('insert', 'update'))",
                kind.name()
            ))
            .await?;
            let wanted = |a: &str| {
                format!(
                    "{a}.action = 'update' AND {a}.n_{column} <> {a}.o_{column} AND EXISTS (SELECT 1 FROM {actions} b \
                     WHERE b.action IN ('insert', 'update') AND b.n_{column} = {a}.o_{column} AND b.entry <> {a}.entry)"
                )
            };
            self.run(&format!(
                "UPDATE {table} SET {column} = 'tollgate:' || {table}.id{hash} FROM {actions} a \
                 WHERE {table}.id = a.row_id AND {table}.{column} = a.o_{column} AND {}",
                wanted("a")
            ))
            .await?;
            self.run(&format!(
                "UPDATE {actions} SET o_{column} = 'tollgate:' || row_id WHERE {}",
                wanted(&actions)
            ))
            .await?;
        }
        Ok(())
    }

    /// New provider configs get their numbers, so that their budgets can refer to them.
    async fn number_provider_configs(&self) -> Result<(), DbErr> {
        let actions = resource(Kind::ProviderConfig).actions();
        let next = match self.dialect() {
            Dialect::Postgres => {
                let sequence = format!("pg_get_serial_sequence('{PROVIDER_CONFIGS}', 'id')");
                // Past every number that is taken, by a row or by the file.
                self.run(&format!(
                    "SELECT setval({sequence}, s.top) FROM (SELECT GREATEST((SELECT max(id) FROM {PROVIDER_CONFIGS}), \
                     (SELECT max(CAST(a.new_id AS bigint)) FROM {actions} a WHERE a.action = 'insert'), nextval({sequence})) AS top \
                     WHERE {sequence} IS NOT NULL AND EXISTS (SELECT 1 FROM {actions} a WHERE a.action = 'insert')) s"
                ))
                .await?;
                format!(
                    "COALESCE(nextval({sequence}), (SELECT COALESCE(max(id), 0) FROM {PROVIDER_CONFIGS}) + a.place)"
                )
            }
            Dialect::Sqlite => {
                let sequence = if self.catalog.has_table("sqlite_sequence") {
                    format!(
                        "(SELECT max(seq) FROM sqlite_sequence WHERE name = '{PROVIDER_CONFIGS}')"
                    )
                } else {
                    "0".to_owned()
                };
                format!(
                    "max(COALESCE((SELECT max(id) FROM {PROVIDER_CONFIGS}), 0), COALESCE({sequence}, 0), \
                     COALESCE((SELECT max(CAST(new_id AS bigint)) FROM {actions} WHERE action = 'insert'), 0)) + a.place"
                )
            }
        };
        self.run(&format!(
            "UPDATE {actions} SET row_id = CAST(m.number AS text) FROM (SELECT a.entry AS entry, \
             COALESCE(CAST(a.new_id AS bigint), {next}) AS number FROM (SELECT entry, new_id, \
             row_number() OVER (ORDER BY entry) AS place FROM {actions} WHERE action = 'insert') a) m \
             WHERE {actions}.entry = m.entry AND {actions}.action = 'insert'"
        ))
        .await?;
        let budgets = resource(Kind::Budget).actions();
        self.run(&format!(
            "UPDATE {budgets} SET n_provider_config_id = CAST(c.row_id AS bigint) FROM {actions} c \
             WHERE c.action = 'insert' AND {budgets}.parent_kind = 'provider_config' AND {budgets}.parent = c.entry"
        ))
        .await
        .map(|_| ())
    }

    async fn insert(&self, one: &Resource, which: &str, now: &str) -> Result<(), DbErr> {
        let dialect = self.dialect();
        let has = |column: &str| self.catalog.has_column(one.table, column);
        let id = match one.kind {
            Kind::ProviderConfig => "CAST(a.row_id AS bigint)",
            _ => "a.new_id",
        };
        let mut columns = vec![("id", id.to_owned())];
        for field in one.here(self.catalog) {
            let default = field.default(dialect);
            let value = if field.holds == ColumnType::Reference(Kind::Budget) {
                // The budget may come later: it is referred to when all are there.
                default
            } else {
                format!("COALESCE(a.n_{}, {default})", field.column)
            };
            columns.push((field.column, value));
        }
        match one.kind {
            Kind::VirtualKey => {
                columns.push(("value", "COALESCE(e.value, e.fresh)".to_owned()));
                if has("value_hash") {
                    columns.push((
                        "value_hash",
                        "COALESCE(e.value_hash, e.fresh_hash)".to_owned(),
                    ));
                }
                if has("encryption_status") {
                    columns.push(("encryption_status", "'plain_text'".to_owned()));
                }
            }
            Kind::ProviderConfig => columns.push(("virtual_key_id", "a.parent".to_owned())),
            Kind::Budget => {
                columns.push(("current_usage", "a.usage".to_owned()));
                columns.push(("last_reset", now.to_owned()));
                for kind in owners(self.catalog) {
                    let column = owner_column(kind);
                    columns.push((column, format!("a.n_{column}")));
                }
            }
            Kind::RateLimit => {
                for (column, value) in [
                    ("token_current_usage", "0"),
                    ("token_last_reset", now),
                    ("request_current_usage", "0"),
                    ("request_last_reset", now),
                ] {
                    if has(column) {
                        columns.push((column, value.to_owned()));
                    }
                }
            }
            _ => {}
        }
        for column in ["created_at", "updated_at"] {
            if has(column) {
                columns.push((column, now.to_owned()));
            }
        }
        let (names, values): (Vec<&str>, Vec<String>) = columns.into_iter().unzip();
        self.run(&format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} a JOIN {ENTRIES} e ON e.kind = '{}' AND e.key = a.entry \
             WHERE a.action = 'insert' AND {which} ORDER BY a.new_id",
            one.table,
            names.join(", "),
            values.join(", "),
            one.actions(),
            one.kind.name()
        ))
        .await
        .map(|_| ())
    }

    /// Every row only as it was found: who wrote meanwhile wins, and is told by the next run.
    async fn update(&self, one: &Resource, now: &str) -> Result<u64, DbErr> {
        let mut names: Vec<&str> = one
            .here(self.catalog)
            .iter()
            .map(|field| field.column)
            .collect();
        match one.kind {
            Kind::VirtualKey => names.push("value"),
            Kind::Budget => names.extend(owners(self.catalog).into_iter().map(owner_column)),
            _ => {}
        }
        let table = one.table;
        let same = match self.dialect() {
            Dialect::Postgres => "IS NOT DISTINCT FROM",
            Dialect::Sqlite => "IS",
        };
        let mut sets: Vec<String> = names
            .iter()
            .filter(|name| !(one.refers_to_budgets() && **name == "budget_id"))
            .map(|name| format!("{name} = a.n_{name}"))
            .collect();
        let found: Vec<String> = names
            .iter()
            .map(|name| format!("{table}.{name} {same} a.o_{name}"))
            .collect();
        if one.kind == Kind::VirtualKey && self.catalog.has_column(table, "value_hash") {
            sets.push(format!(
                "value_hash = CASE WHEN a.n_value = a.o_value THEN {table}.value_hash ELSE e.value_hash END"
            ));
        }
        if self.catalog.has_column(table, "updated_at") {
            sets.push(format!("updated_at = {now}"));
        }
        let id = match one.kind {
            Kind::ProviderConfig => "CAST(a.row_id AS bigint)",
            _ => "a.row_id",
        };
        self.run(&format!(
            "UPDATE {table} SET {} FROM {} a JOIN {ENTRIES} e ON e.kind = '{}' AND e.key = a.entry \
             WHERE a.action = 'update' AND {table}.id = {id} AND {}",
            sets.join(", "),
            one.actions(),
            one.kind.name(),
            found.join(" AND ")
        ))
        .await
    }

    /// Customers and teams refer to their budgets once these are there.
    async fn refer(&self) -> Result<(), DbErr> {
        let differs = self.dialect().is_distinct_from();
        for one in RESOURCES.iter().filter(|one| one.refers_to_budgets()) {
            let table = one.table;
            if self.catalog.has_column(table, "budget_id") {
                self.run(&format!(
                    "UPDATE {table} SET budget_id = a.n_budget_id FROM {} a WHERE a.action IN ('insert', 'update') \
                     AND {table}.id = COALESCE(a.row_id, a.new_id) AND {table}.budget_id {differs} a.n_budget_id",
                    one.actions()
                ))
                .await?;
            }
        }
        Ok(())
    }

    /// New windows of aligned owners begin with the period.
    async fn align(&self, schema: &Schema) -> Result<(), DbErr> {
        let budgets = resource(Kind::Budget).actions();
        self.run(&format!(
            "UPDATE {BUDGETS} AS b SET last_reset = {} FROM {budgets} a JOIN {ENTRIES} e ON e.kind = 'budget' AND e.key = a.entry \
             WHERE a.action = 'insert' AND b.id = a.new_id AND e.starts IS NOT NULL AND {}",
            instant::of_text(self.dialect(), "e.starts"),
            schema.alignment_of_budgets().is_on()
        ))
        .await?;
        if !self.catalog.has_table(RATE_LIMITS) {
            return Ok(());
        }
        let limits = resource(Kind::RateLimit).actions();
        for (column, starts) in [
            ("token_last_reset", "e.starts"),
            ("request_last_reset", "e.request_starts"),
        ] {
            if self.catalog.has_column(RATE_LIMITS, column) {
                self.run(&format!(
                    "UPDATE {RATE_LIMITS} AS b SET {column} = {} FROM {limits} a JOIN {ENTRIES} e ON e.kind = 'rate_limit' AND e.key = a.entry \
                     WHERE a.action = 'insert' AND b.id = a.new_id AND {starts} IS NOT NULL AND {}",
                    instant::of_text(self.dialect(), starts),
                    schema.alignment_of_rate_limits().is_on()
                ))
                .await?;
            }
        }
        Ok(())
    }

    /// Who refers to a row of a table that is to be deleted, and stays.
    fn needs(&self, table: &str, reference: &str, kind: &str) -> Vec<String> {
        let spared = |name: &str| match name {
            VIRTUAL_KEYS => format!(
                " AND NOT EXISTS (SELECT 1 FROM {TO_DELETE} o WHERE o.kind = 'virtual_key' AND o.id = x.id)"
            ),
            PROVIDER_CONFIGS => format!(
                " AND NOT EXISTS (SELECT 1 FROM {TO_DELETE} o WHERE o.kind = 'provider_config' AND o.id = CAST(x.id AS text))"
            ),
            _ => String::new(),
        };
        let mut needs: Vec<String> = referrers(self.catalog, table, reference)
            .into_iter()
            .map(|(name, column)| {
                format!(
                    "SELECT w.id AS id, '{name}' AS whose FROM {name} x CROSS JOIN {TO_DELETE} w WHERE w.kind = '{kind}' \
                     AND w.id = x.{column} AND x.{column} IS NOT NULL{}",
                    spared(name)
                )
            })
            .collect();
        for column in ["team_id", "customer_id", "model_config_id"] {
            if table == BUDGETS && self.catalog.has_column(BUDGETS, column) {
                needs.push(format!(
                    "SELECT w.id AS id, '{}' AS whose FROM {BUDGETS} x CROSS JOIN {TO_DELETE} w WHERE w.kind = '{kind}' AND w.id = x.id \
                     AND x.{column} IS NOT NULL",
                    column.trim_end_matches("_id")
                ));
            }
        }
        needs
    }

    /// A query of the rows to be deleted that stay, `kind`, `id` and `whose`.
    pub(super) fn needed(&self) -> String {
        let mut arms = Vec::new();
        for (table, reference, kind) in [
            (BUDGETS, "budget_id", "budget"),
            (RATE_LIMITS, "rate_limit_id", "rate_limit"),
        ] {
            for need in self.needs(table, reference, kind) {
                arms.push(format!(
                    "SELECT '{kind}' AS kind, n.id AS id, n.whose AS whose FROM ({need}) n"
                ));
            }
        }
        if arms.is_empty() {
            return "SELECT CAST('' AS text) AS kind, CAST('' AS text) AS id, CAST('' AS text) AS whose WHERE 1 = 0".to_owned();
        }
        arms.join(" UNION ")
    }

    async fn delete(&self) -> Result<(), DbErr> {
        self.make(NEEDED, &format!("AS {}", self.needed())).await?;
        let to_delete =
            |kind: &str| format!("SELECT w.id FROM {TO_DELETE} w WHERE w.kind = '{kind}'");
        let numbers = format!(
            "SELECT CAST(w.id AS bigint) FROM {TO_DELETE} w WHERE w.kind = 'provider_config'"
        );
        let free = |kind: &str| {
            format!(
                "{} AND NOT EXISTS (SELECT 1 FROM {NEEDED} n WHERE n.kind = w.kind AND n.id = w.id)",
                to_delete(kind)
            )
        };
        if self.catalog.has_table(JOIN) {
            self.run(&format!(
                "DELETE FROM {JOIN} WHERE {JOIN_COLUMN} IN ({numbers})"
            ))
            .await?;
        }
        for (table, column) in tables_of_virtual_keys(self.connection, self.dialect()).await? {
            self.run(&format!(
                "DELETE FROM {table} WHERE {column} IN ({})",
                to_delete("virtual_key")
            ))
            .await?;
        }
        // What stays loses its owner before a cascade could take it along.
        for (kind, ids) in [
            (Kind::VirtualKey, to_delete("virtual_key")),
            (Kind::ProviderConfig, numbers.clone()),
        ] {
            let column = owner_column(kind);
            if owners(self.catalog).contains(&kind) {
                self.run(&format!(
                    "UPDATE {BUDGETS} SET {column} = NULL WHERE {column} IS NOT NULL \
                     AND (id IN (SELECT n.id FROM {NEEDED} n WHERE n.kind = 'budget') \
                     OR ({column} IN ({ids}) AND id NOT IN ({})))",
                    free("budget")
                ))
                .await?;
            }
        }
        for (table, ids) in [
            (BUDGETS, free("budget")),
            (PROVIDER_CONFIGS, numbers.clone()),
            (VIRTUAL_KEYS, to_delete("virtual_key")),
            (RATE_LIMITS, free("rate_limit")),
        ] {
            if self.catalog.has_table(table) {
                self.run(&format!("DELETE FROM {table} WHERE id IN ({ids})"))
                    .await?;
            }
        }
        Ok(())
    }

    /// What the file says now is what it said when it was applied last, and each entry means the row it means now. What the
    /// file does not speak of this time is remembered for as long as its row is there.
    async fn remember(&self) -> Result<(), DbErr> {
        if !self.catalog.has_table(APPLIED) {
            self.run(&format!(
                "CREATE TABLE {APPLIED} (kind text NOT NULL, key text NOT NULL, hash text NOT NULL, \
                 present bigint NOT NULL, row_id text, owner_kind text, PRIMARY KEY (kind, key))"
            ))
            .await?;
        }
        let mut there: Vec<String> = RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
            .map(|one| {
                format!(
                    "(COALESCE({APPLIED}.owner_kind, {APPLIED}.kind) = '{}' AND EXISTS (SELECT 1 FROM {} t WHERE {}))",
                    one.kind.name(),
                    one.table,
                    one.is_row("t", &format!("{APPLIED}.row_id"))
                )
            })
            .collect();
        there.push("1 = 0".to_owned());
        self.run(&format!(
            "DELETE FROM {APPLIED} WHERE NOT EXISTS (SELECT 1 FROM {ENTRIES} e WHERE e.kind = {APPLIED}.kind AND e.key = {APPLIED}.key) \
             AND NOT ({})",
            there.join(" OR ")
        ))
        .await?;
        let differs = self.dialect().is_distinct_from();
        self.run(&format!(
            "INSERT INTO {APPLIED} (kind, key, hash, present, row_id, owner_kind) \
             SELECT e.kind, e.key, e.hash, e.present, e.row_id, e.owner_kind FROM ({}) e \
             WHERE e.known = 0 OR e.meant {differs} e.row_id \
             ON CONFLICT (kind, key) DO UPDATE SET hash = excluded.hash, present = excluded.present, row_id = excluded.row_id, \
             owner_kind = excluded.owner_kind",
            self.meant()
        ))
        .await
        .map(|_| ())
    }

    /// The entries that are remembered, each with the row that it means by now. A list means its owner.
    fn meant(&self) -> String {
        let made: Vec<String> = RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
            .map(|one| {
                let id = match one.kind {
                    Kind::ProviderConfig => "a.row_id",
                    _ => "a.new_id",
                };
                format!(
                    "SELECT '{}' AS kind, a.entry AS entry, {id} AS id FROM {} a WHERE a.action = 'insert'",
                    one.kind.name(),
                    one.actions()
                )
            })
            .collect();
        let columns = "e.kind AS kind, e.key AS key, e.hash AS hash, e.present AS present, e.known AS known, e.meant AS meant";
        format!(
            "WITH made AS MATERIALIZED ({}) SELECT {columns}, COALESCE(e.row_id, n.id) AS row_id, CAST(NULL AS text) AS owner_kind \
             FROM {ENTRIES} e LEFT JOIN made n ON n.kind = e.kind AND n.entry = e.key WHERE e.kind NOT IN ('list', 'claim', 'flag', 'key_id') \
             UNION ALL SELECT {columns}, COALESCE(e.owner_id, a.row_id), e.parent_kind FROM {ENTRIES} e LEFT JOIN {} a \
             ON a.action = 'insert' AND e.parent_kind = 'provider_config' AND a.entry = e.parent WHERE e.kind = 'list'",
            made.join(" UNION ALL "),
            resource(Kind::ProviderConfig).actions()
        )
    }
}

/// Whether the schema is one in which budgets have owners, and whose contract is done.
pub(super) fn stands_in_the_way(catalog: &Catalog) -> Option<String> {
    let needed = [
        (BUDGETS, "virtual_key_id"),
        (BUDGETS, "provider_config_id"),
        (BUDGETS, "current_usage"),
        (BUDGETS, "last_reset"),
        (VIRTUAL_KEYS, "calendar_aligned"),
        (PROVIDER_CONFIGS, "virtual_key_id"),
    ];
    if let Some((table, column)) = needed
        .into_iter()
        .find(|(table, column)| !catalog.has_column(table, column))
    {
        return Some(format!("{table}.{column} here"));
    }
    None
}
