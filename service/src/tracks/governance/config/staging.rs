//! The file's entries in temporary tables: loaded in bulk, older forms lifted, each with the row that it means.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tokio::sync::mpsc::Receiver;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Dialect};

use super::batch::{Batch, Form};
use super::entry::{COLUMNS, Kind, PRESENT};
use super::entry_writer::list_key;
use super::fields::{
    KEY_FLAG, RESOURCES, Resource, TEAM_FLAG, decimal, number, owner_column, owners,
};
use crate::connection::Transaction;
use crate::tracks::governance::budget::schema::TEAMS;
use crate::tracks::governance::budget::window::Window;

/// What the last applied file said, in hashes.
pub(super) const APPLIED: &str = "tollgate_config";
/// Rows that go, by kind and id.
pub(super) const TO_DELETE: &str = "tollgate_to_delete";

/// Rows that a complete list lacks, but that somebody added since it was applied.
pub(super) const KEPT: &str = "tollgate_kept";

/// The entries as they are read, before they mean rows.
const LOADED: &str = "tollgate_loaded";
/// The entries of the file, each with the row that it means.
pub(super) const ENTRIES: &str = "tollgate_entries";
/// The budgets of the database that have an owner.
pub(super) const OWNED: &str = "tollgate_owned";
/// Entries with the row that they meant when they were applied.
const MEANT: &str = "tollgate_meant";
/// Durations as they are written, each with its window.
const WORDS: &str = "tollgate_words";

/// Statements of one connection or transaction.
pub(super) struct Staging<'a, C> {
    pub connection: &'a C,
    /// The same, where entries can be streamed into it.
    pub stream: Option<&'a Transaction>,
    pub catalog: &'a Catalog,
}

impl<C: ConnectionTrait> Staging<'_, C> {
    pub(super) fn dialect(&self) -> Dialect {
        self.catalog.dialect
    }

    pub(super) async fn run(&self, sql: &str) -> Result<u64, DbErr> {
        let start = Instant::now();
        let rows = self
            .connection
            .execute_raw(Statement::from_string(self.dialect().backend(), sql))
            .await?
            .rows_affected();
        // Statements hold names and conditions; what the file says is in temporary tables.
        tracing::trace!(elapsed_ms = start.elapsed().as_millis(), rows, sql);
        Ok(rows)
    }

    /// Makes a temporary table. Gives back how many rows it begins with, on PostgreSQL.
    pub(super) async fn make(&self, table: &str, what: &str) -> Result<u64, DbErr> {
        let kept = match self.dialect() {
            Dialect::Postgres if what.starts_with('(') => format!("{what} ON COMMIT DROP"),
            Dialect::Postgres => format!("ON COMMIT DROP {what}"),
            Dialect::Sqlite => what.to_owned(),
        };
        self.run(&format!("CREATE TEMPORARY TABLE {table} {kept}"))
            .await
    }

    /// Drops every temporary table: a connection outlives a plan.
    pub(super) async fn forget(&self) -> Result<(), DbErr> {
        let mut tables = [LOADED, ENTRIES, OWNED, WORDS, MEANT]
            .map(str::to_owned)
            .to_vec();
        tables.extend([TO_DELETE.to_owned(), KEPT.to_owned()]);
        tables.extend(RESOURCES.iter().map(Resource::actions));
        for table in tables {
            self.run(&format!("DROP TABLE IF EXISTS temp.{table}"))
                .await?;
        }
        Ok(())
    }

    /// The planner knows nothing of a table that has just been filled.
    pub(super) async fn analyze(&self, table: &str) -> Result<(), DbErr> {
        if self.dialect() == Dialect::Postgres {
            self.run(&format!("ANALYZE {table}")).await?;
        }
        Ok(())
    }

    /// The empty table that entries are loaded into.
    pub(super) async fn prepare(&self) -> Result<(), DbErr> {
        let mut columns = vec![PRESENT];
        columns.extend(COLUMNS);
        self.make(LOADED, &format!("({})", typed(&columns)))
            .await
            .map(|_| ())
    }

    /// How entries are to be written for [`Self::load_all`].
    pub(super) fn form(&self) -> Form {
        match self.stream {
            Some(_) => Form::Lines,
            None => Form::Json,
        }
    }

    /// Adds batches of entries, as they come.
    pub(super) async fn load_all(&self, batches: &mut Receiver<Batch>) -> Result<(), DbErr> {
        if let Some(stream) = self.stream {
            let columns: Vec<&str> = [PRESENT].into_iter().chain(COLUMNS).collect();
            let copy = format!("COPY {LOADED} ({}) FROM STDIN", columns.join(", "));
            let batches = poll_fn(|context| batches.poll_recv(context));
            return stream.copy_in(&copy, batches.map(Batch::into_text)).await;
        }
        while let Some(batch) = batches.recv().await {
            self.load(batch).await?;
        }
        Ok(())
    }

    async fn load(&self, batch: Batch) -> Result<(), DbErr> {
        let found = batch.columns();
        let columns = found.join(", ");
        let sql = match self.dialect() {
            Dialect::Postgres => {
                format!(
                    "INSERT INTO {LOADED} ({columns}) SELECT {columns} FROM json_to_recordset(CAST($1 AS json)) AS r ({})",
                    typed(&found)
                )
            }
            Dialect::Sqlite => {
                let taken: Vec<String> = found
                    .iter()
                    .map(|column| format!("json_extract(j.value, '$.{column}')"))
                    .collect();
                format!(
                    "INSERT INTO {LOADED} ({columns}) SELECT {} FROM json_each(?1) j",
                    taken.join(", ")
                )
            }
        };
        self.connection
            .execute_raw(Statement::from_sql_and_values(
                self.dialect().backend(),
                sql,
                [batch.into_text().into()],
            ))
            .await?;
        Ok(())
    }

    /// Lifts older forms and finds the rows. With `applied` there is a table of what was applied before; with `force` it
    /// does not matter.
    pub(super) async fn resolve(&self, applied: bool, force: bool) -> Result<(), DbErr> {
        if self.dialect() == Dialect::Sqlite {
            self.run(&format!(
                "CREATE INDEX temp.tollgate_loaded_key ON {LOADED} (kind, key)"
            ))
            .await?;
        }
        self.analyze(LOADED).await?;
        self.lift().await?;
        if applied {
            // A run may come right behind another, before the server has looked at what that wrote.
            self.analyze(APPLIED).await?;
        }
        // Written once, with all that can be said of an entry by itself: a wide row that is updated is written again each time.
        self.make(ENTRIES, &self.resolved(applied, force)).await?;
        self.run(&format!("DROP TABLE {LOADED}")).await?;
        // PostgreSQL joins the whole list by hashing; the index is there for where it takes few rows for one.
        let indexes: &[&str] = match self.dialect() {
            Dialect::Postgres => &["key ON {} USING hash (key)"],
            Dialect::Sqlite => &["key ON {} (kind, key)", "row ON {} (kind, row_id)"],
        };
        for index in indexes {
            let index = index.replace("{}", ENTRIES);
            self.run(&format!("CREATE INDEX tollgate_entries_{index}"))
                .await?;
        }
        self.analyze(ENTRIES).await?;
        self.match_provider_configs(applied).await?;
        // What was there when the file was applied, has not changed in the file and is there no more was deleted on purpose.
        self.run(&format!(
            "UPDATE {ENTRIES} SET gone = 1 WHERE row_id IS NULL AND unchanged = 1 \
             AND kind IN ('rate_limit', 'customer', 'team', 'virtual_key')"
        ))
        .await?;
        self.go_with("provider_config", "virtual_key").await?;
        self.go_alone("provider_config").await?;
        self.find_owners().await?;
        if self.dialect() == Dialect::Sqlite {
            self.run(&format!(
                "CREATE INDEX tollgate_entries_lists ON {ENTRIES} (id, owner_id) WHERE kind = 'list'"
            ))
            .await?;
        }
        self.match_budgets(applied).await?;
        for owner in ["virtual_key", "provider_config", "team", "customer"] {
            self.go_with("budget", owner).await?;
        }
        self.go_alone("budget").await?;
        // A budget that went elsewhere before its owner was deleted stays there.
        self.run(&format!(
            "UPDATE {ENTRIES} SET lost = 1 FROM {ENTRIES} o WHERE {ENTRIES}.kind = 'budget' AND {ENTRIES}.row_id IS NOT NULL \
             AND o.kind = {ENTRIES}.parent_kind AND o.key = {ENTRIES}.parent AND o.gone = 1"
        ))
        .await?;
        self.analyze(ENTRIES).await
    }

    /// A table's rows, one for each id: an entry stays one entry, whatever ids a table repeats that has no primary key.
    fn once_each(&self, table: &str) -> String {
        let is_key = self
            .catalog
            .table(table)
            .is_some_and(|table| table.primary_key == ["id"]);
        if is_key {
            table.to_owned()
        } else {
            format!("(SELECT DISTINCT id FROM {table})")
        }
    }

    /// The entries, with what was applied of each and the row whose id it has.
    fn resolved(&self, applied: bool, force: bool) -> String {
        let loaded: Vec<String> = [PRESENT]
            .iter()
            .chain(&COLUMNS)
            .map(|column| format!("l.{column}"))
            .collect();
        let mut joins = String::new();
        let mut ids = Vec::new();
        for (number, one) in RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
            .enumerate()
        {
            let row = format!("d{number}");
            let rows = self.once_each(one.table);
            joins.push_str(&format!(
                " LEFT JOIN {rows} {row} ON l.kind = '{kind}' AND {is}",
                kind = one.kind.name(),
                is = one.is_row(&row, "l.id"),
            ));
            ids.push(format!("CAST({row}.id AS text)"));
        }
        let (mut known, mut was, mut meant) = ("0", "0", "NULL");
        if applied {
            known = "CASE WHEN s.hash = l.hash AND s.present = l.present THEN 1 ELSE 0 END";
            was = "COALESCE(s.present, 0)";
            meant = "s.row_id";
            joins.push_str(&format!(
                " LEFT JOIN {APPLIED} s ON s.kind = l.kind AND s.key = l.key"
            ));
        }
        // Who lets the file win still takes back what it said and says no more.
        let unchanged = if applied && !force {
            "CASE WHEN s.hash = l.hash THEN 1 ELSE 0 END"
        } else {
            "0"
        };
        // COALESCE takes two at least.
        ids.extend(["NULL".to_owned(), "NULL".to_owned()]);
        format!(
            "AS SELECT {}, CAST(COALESCE({}) AS text) AS row_id, {unchanged} AS unchanged, CAST({was} AS bigint) AS was, \
             {known} AS known, CAST({meant} AS text) AS meant, 0 AS gone, 0 AS lost FROM {LOADED} l{joins}",
            loaded.join(", "),
            ids.join(", "),
        )
    }

    /// What was deleted on purpose, alone: what hangs on an owner that is made again is made again with it.
    async fn go_alone(&self, kind: &str) -> Result<(), DbErr> {
        self.run(&format!(
            "UPDATE {ENTRIES} SET gone = 1 WHERE row_id IS NULL AND unchanged = 1 AND kind = '{kind}' \
             AND NOT EXISTS (SELECT 1 FROM {ENTRIES} o WHERE o.kind = {ENTRIES}.parent_kind AND o.key = {ENTRIES}.parent \
             AND o.row_id IS NULL AND o.gone = 0)"
        ))
        .await
        .map(|_| ())
    }

    /// What is owned by something that is gone is gone.
    async fn go_with(&self, kind: &str, owner: &str) -> Result<(), DbErr> {
        self.run(&format!(
            "UPDATE {ENTRIES} SET gone = 1 FROM {ENTRIES} o WHERE {ENTRIES}.kind = '{kind}' AND {ENTRIES}.row_id IS NULL \
             AND o.kind = '{owner}' AND o.gone = 1 AND {ENTRIES}.parent_kind = o.kind AND {ENTRIES}.parent = o.key"
        ))
        .await
        .map(|_| ())
    }

    /// Lists at the top, `budget_id` and flags inside of budgets.
    async fn lift(&self) -> Result<(), DbErr> {
        let together = match self.dialect() {
            Dialect::Postgres => "string_agg(b.key, ',' ORDER BY b.key)",
            Dialect::Sqlite => "group_concat(b.key, ',' ORDER BY b.key)",
        };
        let mut lists = Vec::new();
        for kind in [Kind::VirtualKey, Kind::ProviderConfig] {
            let key = self.dialect().text(&list_key(Kind::Budget, kind, ""));
            let owner = if kind == Kind::ProviderConfig {
                "CAST(NULL AS text)"
            } else {
                "b.parent"
            };
            lists.push(format!(
                "SELECT 'list', min(b.at), {key} || b.parent, 'budget', b.parent_kind, b.parent, {owner}, 0, {together} \
                 FROM {LOADED} b WHERE b.kind = 'budget' AND b.at LIKE 'b%' AND b.parent_kind = '{}' \
                 AND NOT EXISTS (SELECT 1 FROM {LOADED} l WHERE l.kind = 'list' AND l.key = {key} || b.parent) \
                 GROUP BY b.parent_kind, b.parent",
                kind.name()
            ));
        }
        self.run(&format!(
            "INSERT INTO {LOADED} (kind, at, key, id, parent_kind, parent, owner_id, present, hash) {}",
            lists.join(" UNION ALL ")
        ))
        .await?;
        // A list inside of the owner and budgets at the top are one list.
        self.run(&format!(
            "UPDATE {LOADED} SET hash = hash || t.keys FROM (SELECT b.parent_kind AS parent_kind, b.parent AS parent, \
             {together} AS keys FROM {LOADED} b WHERE b.kind = 'budget' AND b.at LIKE 'b%' AND b.parent IS NOT NULL \
             GROUP BY b.parent_kind, b.parent) t WHERE {LOADED}.kind = 'list' AND {LOADED}.id = 'budget' \
             AND {LOADED}.at NOT LIKE 'b%' AND {LOADED}.parent_kind = t.parent_kind AND {LOADED}.parent = t.parent"
        ))
        .await?;
        if !self.catalog.has_column(TEAMS, "budget_id")
            && self.catalog.has_column(BUDGETS, "team_id")
        {
            self.run(&format!(
                "INSERT INTO {LOADED} (kind, at, key, parent_kind, parent, owner_id, present, hash) \
                 SELECT 'claim', t.at, t.budget_id, 'team', t.key, t.key, 0, '' FROM {LOADED} t \
                 WHERE t.kind = 'team' AND t.budget_id IS NOT NULL"
            ))
            .await?;
        }
        self.run(&format!(
            "UPDATE {LOADED} SET parent_kind = c.parent_kind, parent = c.parent, owner_id = c.owner_id, hash = {LOADED}.hash || c.parent \
             FROM {LOADED} c WHERE c.kind = 'claim' AND {LOADED}.kind = 'budget' AND {LOADED}.key = c.key \
             AND {LOADED}.parent IS NULL"
        ))
        .await?;
        for (kind, bit) in [("virtual_key", KEY_FLAG), ("team", TEAM_FLAG)] {
            self.flags(kind, 1_u64 << bit).await?;
        }
        Ok(())
    }

    /// A flag inside a budget is its owner's, unless the owner says something itself.
    async fn flags(&self, kind: &str, bit: u64) -> Result<(), DbErr> {
        let owner = if kind == "team" {
            "CASE WHEN b.parent_kind = 'team' THEN b.parent END".to_owned()
        } else {
            format!(
                "CASE b.parent_kind WHEN 'virtual_key' THEN b.parent WHEN 'provider_config' THEN COALESCE(p.parent, \
                 (SELECT d.virtual_key_id FROM {PROVIDER_CONFIGS} d \
                 WHERE d.id = CASE WHEN b.parent LIKE '#%' THEN CAST(substr(b.parent, 2) AS bigint) END)) END"
            )
        };
        let flags = format!(
            "SELECT x.owner AS owner, max(x.flag) AS flag, min(x.at) AS at FROM (SELECT {owner} AS owner, \
             f.calendar_aligned AS flag, f.at AS at FROM {LOADED} f JOIN {LOADED} b ON b.kind = 'budget' AND b.key = f.key \
             LEFT JOIN {LOADED} p ON p.kind = 'provider_config' AND b.parent_kind = p.kind AND p.key = b.parent \
             WHERE f.kind = 'flag') x WHERE x.owner IS NOT NULL GROUP BY x.owner"
        );
        self.run(&format!(
            "UPDATE {LOADED} SET calendar_aligned = f.flag, present = present | {bit}, hash = hash || f.flag \
             FROM ({flags}) f WHERE {LOADED}.kind = '{kind}' AND {LOADED}.key = f.owner AND ({LOADED}.present & {bit}) = 0"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO {LOADED} (kind, at, key, id, present, hash, calendar_aligned) \
             SELECT '{kind}', f.at, f.owner, f.owner, {bit}, f.flag, f.flag FROM ({flags}) f \
             WHERE NOT EXISTS (SELECT 1 FROM {LOADED} k WHERE k.kind = '{kind}' AND k.key = f.owner)"
        ))
        .await
        .map(|_| ())
    }

    /// Those without an id mean the row that an entry of the same text meant when it was applied, then that of the entry in
    /// the same place, then the how many-th of their provider, each among the rows that nobody means yet.
    async fn match_provider_configs(&self, applied: bool) -> Result<(), DbErr> {
        let unmeant = format!(
            "NOT EXISTS (SELECT 1 FROM {ENTRIES} k WHERE k.kind = 'provider_config' AND k.row_id = CAST(c.id AS text))"
        );
        let mine = "e.kind = 'provider_config' AND e.id IS NULL AND e.row_id IS NULL";
        let mean = |pairs: String| {
            format!(
                "UPDATE {ENTRIES} SET row_id = m.id FROM ({pairs}) m WHERE {ENTRIES}.kind = 'provider_config' AND {ENTRIES}.key = m.key"
            )
        };
        let there = format!(
            "{APPLIED} s JOIN {PROVIDER_CONFIGS} c ON c.id = {} AND {unmeant} WHERE s.kind = 'provider_config'",
            number("s.row_id")
        );
        if applied {
            // The text names virtual key and provider; of equal ones the first means the first.
            self.run(&mean(format!(
                "SELECT e.key AS key, r.row_id AS id FROM (SELECT e.key AS key, e.hash AS hash, e.parent AS parent, \
                 row_number() OVER (PARTITION BY e.hash ORDER BY CAST(e.place AS bigint)) AS n FROM {ENTRIES} e WHERE {mine}) e \
                 JOIN (SELECT t.hash AS hash, t.row_id AS row_id, t.virtual_key_id AS virtual_key_id, \
                 row_number() OVER (PARTITION BY t.hash ORDER BY t.key) AS n FROM (SELECT s.hash AS hash, s.row_id AS row_id, \
                 c.virtual_key_id AS virtual_key_id, min(s.key) AS key FROM {there} GROUP BY 1, 2, 3) t) r \
                 ON r.hash = e.hash AND r.n = e.n AND r.virtual_key_id = e.parent"
            )))
            .await?;
            self.run(&mean(format!(
                "SELECT e.key AS key, r.row_id AS id FROM {ENTRIES} e JOIN (SELECT s.key AS key, s.row_id AS row_id, \
                 c.virtual_key_id AS virtual_key_id, c.provider AS provider FROM {there}) r \
                 ON r.key = e.key AND r.virtual_key_id = e.parent AND r.provider = e.provider WHERE {mine}"
            )))
            .await?;
        }
        self.run(&mean(format!(
            "SELECT e.key AS key, CAST(d.id AS text) AS id FROM (SELECT e.key AS key, e.parent AS parent, e.provider AS provider, \
             row_number() OVER (PARTITION BY e.parent, e.provider ORDER BY CAST(e.place AS bigint)) AS n FROM {ENTRIES} e WHERE {mine}) e \
             JOIN (SELECT c.id AS id, c.virtual_key_id AS virtual_key_id, c.provider AS provider, \
             row_number() OVER (PARTITION BY c.virtual_key_id, c.provider ORDER BY c.id) AS n FROM {PROVIDER_CONFIGS} c WHERE {unmeant}) d \
             ON d.virtual_key_id = e.parent AND d.provider = e.provider AND d.n = e.n"
        )))
        .await
        .map(|_| ())
    }

    /// Who owns what hangs on a provider config: its number, which a new one does not have yet. Other owners are known by
    /// their ids, with which the entry came.
    async fn find_owners(&self) -> Result<(), DbErr> {
        let theirs = format!(
            "{ENTRIES}.kind IN ('budget', 'list', 'claim') AND {ENTRIES}.parent_kind = 'provider_config'"
        );
        // Not IS NOT NULL, for which SQLite would take the index over rows instead of that over keys.
        self.run(&format!(
            "UPDATE {ENTRIES} SET owner_id = p.row_id FROM {ENTRIES} p WHERE {theirs} AND p.kind = 'provider_config' \
             AND p.key = {ENTRIES}.parent AND COALESCE(p.row_id, '') <> ''"
        ))
        .await?;
        // By its number, of a provider config that the file does not have.
        self.run(&format!(
            "UPDATE {ENTRIES} SET owner_id = substr(parent, 2) WHERE {theirs} AND parent LIKE '#%' AND NOT EXISTS \
             (SELECT 1 FROM {ENTRIES} p WHERE p.kind = 'provider_config' AND p.key = {ENTRIES}.parent)"
        ))
        .await
        .map(|_| ())
    }

    /// Those whose id is not there mean the row that they meant when they were applied, then the row of their owner whose
    /// window is as long: `24h` that becomes `1d` keeps its usage.
    async fn match_budgets(&self, applied: bool) -> Result<(), DbErr> {
        self.read_durations().await?;
        self.list_owned().await?;
        if applied {
            self.match_applied_budgets().await?;
        }
        let unmeant = format!(
            "NOT EXISTS (SELECT 1 FROM {ENTRIES} k WHERE k.kind = 'budget' AND k.row_id = o.id)"
        );
        self.run(&format!(
            "UPDATE {ENTRIES} SET row_id = m.id FROM (SELECT x.key AS key, x.id AS id FROM (SELECT e.key AS key, o.id AS id, \
             row_number() OVER (PARTITION BY e.key ORDER BY CASE WHEN o.word = e.reset_duration THEN 0 ELSE 1 END, \
             o.usage DESC, o.id) AS n FROM {ENTRIES} e JOIN {OWNED} o ON o.parent_kind = e.parent_kind \
             AND o.owner_id = e.owner_id AND o.nanoseconds = CAST(e.nanoseconds AS bigint) WHERE e.kind = 'budget' AND e.row_id IS NULL \
             AND {unmeant}) x WHERE x.n = 1) m \
             WHERE {ENTRIES}.kind = 'budget' AND {ENTRIES}.key = m.key"
        ))
        .await?;
        Ok(())
    }

    /// Every duration that a budget has, as long as it is: as many as there are words for one.
    async fn read_durations(&self) -> Result<(), DbErr> {
        self.make(WORDS, "(word text, nanoseconds bigint)").await?;
        let mut words = Vec::new();
        for row in self
            .connection
            .query_all_raw(Statement::from_string(
                self.dialect().backend(),
                format!("SELECT DISTINCT reset_duration AS word FROM {BUDGETS} WHERE reset_duration IS NOT NULL"),
            ))
            .await?
        {
            let word: String = row.try_get("", "word")?;
            if let Some(window) = Window::parse(&word) {
                words.push(format!(
                    "({}, {})",
                    self.dialect().text(&word),
                    window.nanoseconds()
                ));
            }
        }
        if !words.is_empty() {
            self.run(&format!("INSERT INTO {WORDS} VALUES {}", words.join(", ")))
                .await?;
        }
        Ok(())
    }

    /// Every budget with its owner.
    async fn list_owned(&self) -> Result<(), DbErr> {
        let arms: Vec<String> = owners(self.catalog)
            .into_iter()
            .map(|kind| {
                let column = owner_column(kind);
                format!(
                    "SELECT b.id AS id, '{}' AS parent_kind, CAST(b.{column} AS text) AS owner_id, b.reset_duration AS word, \
                     w.nanoseconds AS nanoseconds, CAST(COALESCE(b.current_usage, 0) AS {}) AS usage \
                     FROM {BUDGETS} b LEFT JOIN {WORDS} w ON w.word = b.reset_duration WHERE b.{column} IS NOT NULL",
                    kind.name(),
                    decimal(self.dialect())
                )
            })
            .collect();
        self.make(OWNED, &format!("AS {}", arms.join(" UNION ALL ")))
            .await?;
        self.run(&format!(
            "CREATE INDEX tollgate_owned_owner ON {OWNED} (parent_kind, owner_id)"
        ))
        .await?;
        self.run(&format!("CREATE INDEX tollgate_owned_id ON {OWNED} (id)"))
            .await?;
        self.analyze(OWNED).await
    }

    /// The budgets that a file meant when it was applied.
    async fn match_applied_budgets(&self) -> Result<(), DbErr> {
        // Step by step, two tables at a time: of more a server that guesses one row makes a loop in a loop.
        let meant = self.make(
            MEANT,
            &format!(
                "AS SELECT e.key AS key, s.row_id AS row_id, e.parent_kind AS parent_kind, e.owner_id AS owner_id \
                 FROM {ENTRIES} e JOIN {APPLIED} s ON s.kind = e.kind AND s.key = e.key \
                 WHERE e.kind = 'budget' AND e.row_id IS NULL AND s.row_id IS NOT NULL"
            ),
        )
        .await?;
        if meant == 0 && self.dialect() == Dialect::Postgres {
            return Ok(());
        }
        self.run(&format!("CREATE INDEX tollgate_meant_key ON {MEANT} (key)"))
            .await?;
        self.analyze(MEANT).await?;
        self.run(&format!(
            "DELETE FROM {MEANT} WHERE row_id IN (SELECT k.row_id FROM {ENTRIES} k WHERE k.kind = 'budget' AND k.row_id IS NOT NULL)"
        ))
        .await?;
        self.run(&format!(
            "UPDATE {ENTRIES} SET row_id = m.row_id FROM {MEANT} m CROSS JOIN {OWNED} o WHERE o.id = m.row_id \
             AND o.parent_kind = m.parent_kind AND o.owner_id = m.owner_id \
             AND {ENTRIES}.kind = 'budget' AND {ENTRIES}.key = m.key"
        ))
        .await?;
        self.analyze(ENTRIES).await
    }

    /// Whether a virtual key's value cannot be read here: `v` is the key.
    pub(super) fn is_encrypted(&self) -> String {
        if self.catalog.has_column(VIRTUAL_KEYS, "encryption_status") {
            "COALESCE(v.encryption_status, '') NOT IN ('', 'plain_text')".to_owned()
        } else {
            "1 = 0".to_owned()
        }
    }
}

/// Columns with their types.
fn typed(columns: &[&str]) -> String {
    let typed = columns.iter().map(|column| {
        let kind = if *column == PRESENT { "bigint" } else { "text" };
        format!("{column} {kind}")
    });
    typed.collect::<Vec<_>>().join(", ")
}
