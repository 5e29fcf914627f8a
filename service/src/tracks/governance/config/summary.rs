//! What is found of a file: changes by table, and what a reader should know.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};

use super::entry::{Kind, path};
use super::entry_writer::Notes;
use super::fields::{ColumnType, RESOURCES, owner_column, owners, resource};
use super::staging::{ENTRIES, OWNED, Staging};
use super::staging::{KEPT, TO_DELETE};
use crate::reconcile::{SAMPLES, count};
use crate::report::{Finding, Report, Severity};
use crate::rows;
use crate::tracks::governance::budget::schema::RATE_LIMITS;
use crate::tracks::governance::resets::remind;
use crate::tracks::governance::virtual_key::{JOIN, JOIN_COLUMN};

/// Parts of a file that grant or limit something and are not written.
const GRANTS: [&str; 11] = [
    "key_ids",
    "keys",
    "allowed_keys",
    "mcp_configs",
    "expires_at",
    "current_usage",
    "budgets",
    "calendar_aligned",
    "model_configs",
    "providers",
    "routing_rules",
];

/// Whether a deed's row is found by its place in the file.
const PLACE: &str = "CASE WHEN a.row_id IS NULL AND a.given IS NULL THEN 1 ELSE 0 END";

/// Rows of one kind and one fate.
struct ActionCount {
    kind: String,
    action: String,
    rows: u64,
    ids: Vec<String>,
}

fn finding(code: &str, severity: Severity, table: &str, found: (u64, Vec<String>)) -> Finding {
    let (title, effect, resolve) = match code {
        "R005" => (
            "edited since the file was applied, and the file's entry has not changed",
            "the edit stays",
            "--force lets the file win; or write the edit into the file",
        ),
        "R006" => (
            "added since the file was applied, and the file's list has not changed",
            "the row stays",
            "--force deletes it; or write it into the file",
        ),
        "R007" => (
            "deleted since the file was applied, and the file's entry has not changed",
            "it is not made again, nor what hangs on it",
            "--force makes it again; or delete it from the file",
        ),
        "R008" => (
            "a limit that has been spent already",
            "the owner is blocked until the window is over",
            "nothing to do where that is meant",
        ),
        "R013" => (
            "a field that this database has no column for",
            "it is not stored; a later version of the gateway may have it",
            "nothing to do, or migrate the gateway first",
        ),
        "R015" => (
            "a provider config whose list names a key that is not there",
            "it may use the keys that are",
            "make the key in the gateway and apply the file again",
        ),
        "R011" => (
            "an encrypted value that is not the file's",
            "the value in the database stays: Tollgate holds no key to encrypt with",
            "change it in the gateway, or correct the file",
        ),
        _ => (
            "a new virtual key without a value got one",
            "nobody has been found the value",
            "read it in the gateway, or give the value in the file (env.NAME)",
        ),
    };
    let (rows, sample_ids) = found;
    Finding {
        code: code.to_owned(),
        severity,
        title: title.to_owned(),
        table: table.to_owned(),
        column: None,
        rows,
        sample_ids,
        effect: effect.to_owned(),
        resolve: resolve.to_owned(),
    }
}

/// A row that is written, and how many of its kind are.
#[derive(FromQueryResult)]
struct Done {
    kind: String,
    action: String,
    id: String,
    place: i32,
    number: i64,
}

/// A row that somebody else needs.
#[derive(FromQueryResult)]
struct Needed {
    kind: String,
    id: String,
    whose: String,
    number: i64,
}

/// The rows of one kind and action together, in the order in which they come.
fn grouped(done: Vec<Done>) -> Vec<ActionCount> {
    let mut found: Vec<ActionCount> = Vec::new();
    for Done {
        kind,
        action,
        id,
        place,
        number,
    } in done
    {
        // What the file gives no id is found by its place.
        let id = if place == 1 { path(&id) } else { id };
        match found.last_mut() {
            Some(last) if last.kind == kind && last.action == action => last.ids.push(id),
            _ => found.push(ActionCount {
                kind,
                action,
                rows: number.unsigned_abs(),
                ids: vec![id],
            }),
        }
    }
    found
}

impl<C: ConnectionTrait> Staging<'_, C> {
    /// Everything that is done and noticed, before it is done.
    pub(super) async fn summarize(&self, notes: &Notes, report: &mut Report) -> Result<(), DbErr> {
        let mut arms = self.written();
        arms.extend(self.deleted());
        for (table, column) in
            super::super::credentials::tables_of_virtual_keys(self.connection, self.dialect())
                .await?
        {
            arms.push(format!(
                "SELECT '{table}', 'delete', '', 0 FROM {table} x CROSS JOIN {TO_DELETE} w WHERE w.kind = 'virtual_key' AND w.id = x.{column}"
            ));
        }
        arms.extend(self.below_usage());
        arms.extend(self.placeless());
        arms.extend(self.new_values());
        arms.extend(self.reassigned());
        arms.push(format!(
            "SELECT 'assignment', 'unknown', z.at, 1 FROM ({}) z",
            self.unknown_keys()
        ));
        let sql = format!(
            "SELECT y.kind AS kind, y.action AS action, y.id AS id, y.place AS place, y.number AS number FROM (SELECT x.kind AS kind, \
             x.action AS action, x.id AS id, x.place AS place, count(*) OVER (PARTITION BY x.kind, x.action) AS number, \
             row_number() OVER (PARTITION BY x.kind, x.action ORDER BY x.place, x.id) AS nth FROM ({}) x) y \
             WHERE y.nth <= {SAMPLES} ORDER BY y.kind, y.action, y.nth",
            arms.join(" UNION ALL ")
        );
        let done: Vec<Done> = rows::all(
            self.connection,
            Statement::from_string(self.dialect().backend(), sql),
        )
        .await?;
        let mut found = grouped(done);
        changes(&mut found, report);
        findings(found, report);
        report.findings.extend(read(notes));
        self.tell_needed(report).await?;
        remind(report);
        Ok(())
    }

    /// What is inserted and updated, kind by kind.
    fn written(&self) -> Vec<String> {
        RESOURCES
            .iter()
            .filter(|one| self.catalog.has_table(one.table))
            .map(|one| {
                format!(
                    "SELECT '{}' AS kind, a.action AS action, COALESCE(a.row_id, a.given, a.at) AS id, {PLACE} AS place FROM {} a",
                    one.kind.name(),
                    one.actions()
                )
            })
            .collect()
    }

    /// What goes, what loses its owner and stays, and what hangs on it.
    fn deleted(&self) -> Vec<String> {
        let mut arms = Vec::new();
        arms.push(format!(
            "SELECT w.kind, CASE WHEN n.id IS NULL THEN 'delete' WHEN w.kind = 'budget' THEN 'detach' ELSE 'stay' END, w.id, 0 \
             FROM {TO_DELETE} w LEFT JOIN (SELECT DISTINCT z.kind AS kind, z.id AS id FROM ({}) z) n ON n.kind = w.kind AND n.id = w.id",
            self.needed()
        ));
        // What the file speaks of stays where its owner goes, unless it moves to another.
        let moves: Vec<String> = owners(self.catalog)
            .into_iter()
            .map(owner_column)
            .map(|column| {
                format!(
                    "a.n_{column} {} a.o_{column}",
                    self.dialect().is_distinct_from()
                )
            })
            .collect();
        arms.push(format!(
            "SELECT 'budget', 'detach', o.id, 0 FROM {OWNED} o CROSS JOIN {TO_DELETE} w WHERE w.kind = o.parent_kind AND w.id = o.owner_id \
             AND NOT EXISTS (SELECT 1 FROM {TO_DELETE} x WHERE x.kind = 'budget' AND x.id = o.id) \
             AND NOT EXISTS (SELECT 1 FROM {} a WHERE a.action = 'update' AND a.row_id = o.id AND ({}))",
            resource(Kind::Budget).actions(),
            moves.join(" OR ")
        ));
        arms.push(format!("SELECT k.kind, 'keep', k.id, 0 FROM {KEPT} k"));
        if self.catalog.has_table(JOIN) {
            arms.push(format!(
                "SELECT 'assignment', 'delete', '', 0 FROM {JOIN} j CROSS JOIN {TO_DELETE} w WHERE w.kind = 'provider_config' \
                 AND w.id = CAST(j.{JOIN_COLUMN} AS text)"
            ));
        }
        arms
    }

    /// Limits that are set below what is used already.
    fn below_usage(&self) -> Vec<String> {
        let mut arms = Vec::new();
        let budgets = resource(Kind::Budget).actions();
        arms.push(format!(
            "SELECT 'budget', 'low', COALESCE(a.row_id, a.given, a.at), {PLACE} FROM {budgets} a WHERE a.action IN ('insert', 'update') \
             AND a.n_max_limit < a.usage AND (a.o_max_limit IS NULL OR a.n_max_limit < a.o_max_limit)"
        ));
        for (limit, usage) in [
            ("token_max_limit", "token_current_usage"),
            ("request_max_limit", "request_current_usage"),
        ] {
            if self.catalog.has_column(RATE_LIMITS, limit)
                && self.catalog.has_column(RATE_LIMITS, usage)
            {
                arms.push(format!(
                    "SELECT 'rate_limit', 'low', a.row_id, 0 FROM {} a JOIN {RATE_LIMITS} r ON r.id = a.row_id \
                     WHERE a.action = 'update' AND a.n_{limit} < r.{usage} AND (a.o_{limit} IS NULL OR a.n_{limit} < a.o_{limit})",
                    resource(Kind::RateLimit).actions()
                ));
            }
        }
        arms
    }

    /// What the file says and this schema has no place for.
    fn placeless(&self) -> Vec<String> {
        let mut arms = Vec::new();
        for one in &RESOURCES {
            for field in one.fields {
                // A team's budget_id is a claim where budgets have owners.
                let claims = field.holds == ColumnType::Reference(Kind::Budget)
                    && owners(self.catalog).contains(&one.kind);
                if self.catalog.has_table(one.table)
                    && !self.catalog.has_column(one.table, field.column)
                    && !claims
                {
                    let bit = 1_u64 << field.bit;
                    arms.push(format!(
                        "SELECT '{}', 'placeless', e.at, 1 FROM {ENTRIES} e WHERE e.kind = '{}' AND (e.present & {bit}) <> 0",
                        one.kind.name(),
                        one.kind.name()
                    ));
                }
            }
        }
        arms
    }

    /// Virtual keys that get a value: a new one without any in the file, and one that is encrypted here.
    fn new_values(&self) -> Vec<String> {
        let mut arms = Vec::new();
        let keys = resource(Kind::VirtualKey).actions();
        arms.push(format!(
            "SELECT 'virtual_key', 'fresh', a.entry, 0 FROM {keys} a JOIN {ENTRIES} e ON e.kind = 'virtual_key' AND e.key = a.entry \
             WHERE a.action = 'insert' AND e.value IS NULL"
        ));
        if self.catalog.has_column(VIRTUAL_KEYS, "value_hash") {
            arms.push(format!(
                "SELECT 'virtual_key', 'encrypted', v.id, 0 FROM {ENTRIES} e JOIN {VIRTUAL_KEYS} v ON v.id = e.row_id \
                 WHERE e.kind = 'virtual_key' AND e.value_hash IS NOT NULL AND {} AND v.value_hash {} e.value_hash",
                self.is_encrypted(),
                self.dialect().is_distinct_from()
            ));
        }
        arms
    }

    /// Budgets and rate limits that lose their owner and stay.
    async fn tell_needed(&self, report: &mut Report) -> Result<(), DbErr> {
        let sql = format!(
            "SELECT z.kind AS kind, z.id AS id, z.whose AS whose, count(*) OVER (PARTITION BY z.kind) AS number \
             FROM ({}) z ORDER BY 1, 2, 3",
            self.needed()
        );
        let needed: Vec<Needed> = rows::all(
            self.connection,
            Statement::from_string(
                self.dialect().backend(),
                format!("SELECT * FROM ({sql}) y LIMIT 200"),
            ),
        )
        .await?;
        for (kind, table) in [("budget", BUDGETS), ("rate_limit", RATE_LIMITS)] {
            let mut number = 0;
            let mut ids: Vec<String> = Vec::new();
            let mut whose: Vec<String> = Vec::new();
            for row in needed.iter().filter(|row| row.kind == kind) {
                number = row.number;
                if !ids.contains(&row.id) && ids.len() < SAMPLES {
                    ids.push(row.id.clone());
                }
                if !whose.contains(&row.whose) {
                    whose.push(row.whose.clone());
                }
            }
            if number > 0 {
                report.findings.push(Finding {
                    code: "R004".to_owned(),
                    severity: Severity::Warning,
                    title: format!(
                        "a {} that somebody else refers to stays",
                        kind.replace('_', " ")
                    ),
                    table: table.to_owned(),
                    column: None,
                    rows: number.unsigned_abs(),
                    sample_ids: ids,
                    effect: format!("it is referred to by {}", whose.join(", ")),
                    resolve: "nothing to do; it belongs to whoever is left".to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn table_of(kind: &str) -> &str {
    match kind {
        "assignment" => JOIN,
        other => RESOURCES
            .iter()
            .find(|one| one.kind.name() == other)
            .map_or(other, |one| one.table),
    }
}

fn changes(found: &mut [ActionCount], report: &mut Report) {
    // In the order in which rows are written.
    for action in ["insert", "update", "detach", "delete"] {
        for one in found.iter_mut().filter(|one| one.action == action) {
            let ids: Vec<String> = one
                .ids
                .iter()
                .filter(|id| !id.is_empty())
                .cloned()
                .collect();
            count(
                &mut report.changes,
                table_of(&one.kind),
                action,
                one.rows,
                ids,
            );
        }
    }
}

fn findings(found: Vec<ActionCount>, report: &mut Report) {
    for one in found {
        let (code, severity) = match one.action.as_str() {
            "edited" => ("R005", Severity::Warning),
            "keep" => ("R006", Severity::Warning),
            "gone" => ("R007", Severity::Warning),
            "low" => ("R008", Severity::Warning),
            "placeless" => ("R013", Severity::Warning),
            "unknown" => ("R015", Severity::Warning),
            "encrypted" => ("R011", Severity::Warning),
            "fresh" => ("R012", Severity::Info),
            _ => continue,
        };
        let table = table_of(&one.kind).to_owned();
        report
            .findings
            .push(finding(code, severity, &table, (one.rows, one.ids)));
    }
    report.findings.sort_by(|a, b| a.code.cmp(&b.code));
}

/// What was read of the file that is not as it should be.
fn read(notes: &Notes) -> Vec<Finding> {
    let lifted = notes.lifted.iter().map(|(what, times, places)| Finding {
        code: "R009".to_owned(),
        severity: Severity::Info,
        title: format!("an older form in the file: {what}"),
        table: BUDGETS.to_owned(),
        column: None,
        rows: *times,
        sample_ids: places.clone(),
        effect: "it is read as what it stands for; the gateway itself ignores it since v1.5.0"
            .to_owned(),
        resolve: "write budgets: [...] inside of the owner, and calendar_aligned beside it"
            .to_owned(),
    });
    let unread = notes.unread.iter().map(|(path, times)| Finding {
        code: "R010".to_owned(),
        // What describes, informs; what grants or limits, warns: a new row goes without it.
        severity: if path
            .rsplit('.')
            .next()
            .is_some_and(|key| GRANTS.contains(&key))
        {
            Severity::Warning
        } else {
            Severity::Info
        },
        title: "a part of the file that is not read".to_owned(),
        table: path.clone(),
        column: None,
        rows: *times,
        sample_ids: Vec::new(),
        effect: "what the database holds of it stays, and a new row goes without it".to_owned(),
        resolve: "set it in the gateway where a row is new".to_owned(),
    });
    lifted.chain(unread).collect()
}
