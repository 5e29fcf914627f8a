//! Which columns a database has that say who owns a budget or a rate limit, and whether it is aligned.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::Dialect;
use tollgate_migration::governance::mcp::{CLIENTS, MERGED_FLOWS, MERGED_TOKENS};
use tollgate_migration::governance::owners::OWNER_COLUMNS;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::ledger::MIGRATIONS;

use crate::database::columns_of;
use crate::instant;
use crate::tracks::governance::shape::{
    MODEL_CONFIGS, PROVIDERS, has_anchored_windows, has_budgets_of_model_configs,
};

/// Limits of tokens and requests.
pub(crate) const RATE_LIMITS: &str = "governance_rate_limits";
/// Groups of virtual keys.
pub(crate) const TEAMS: &str = "governance_teams";
/// Groups of teams and virtual keys.
pub(crate) const CUSTOMERS: &str = "governance_customers";

/// The columns that are there.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) dialect: Dialect,
    columns: BTreeSet<(String, String)>,
}

impl Schema {
    pub(crate) async fn load<C: ConnectionTrait>(
        connection: &C,
        dialect: Dialect,
    ) -> Result<Self, DbErr> {
        let tables = [
            BUDGETS,
            VIRTUAL_KEYS,
            PROVIDER_CONFIGS,
            TEAMS,
            CUSTOMERS,
            RATE_LIMITS,
            MODEL_CONFIGS,
            PROVIDERS,
            MERGED_TOKENS,
            MERGED_FLOWS,
            CLIENTS,
            MIGRATIONS,
        ];
        Ok(Self {
            dialect,
            columns: columns_of(connection, dialect, &tables).await?,
        })
    }

    pub(crate) fn has(&self, table: &str, column: &str) -> bool {
        self.columns
            .contains(&(table.to_owned(), column.to_owned()))
    }

    /// Keys or provider configs of this table refer to budgets, and that says something: behind the move to model configs a column
    /// that is left says nothing.
    pub(super) fn refers(&self, table: &str) -> bool {
        self.has(table, "budget_id")
            && !has_budgets_of_model_configs(|table, column| self.has(table, column))
    }

    fn all(&self, needed: &[(&str, &str)]) -> bool {
        needed.iter().all(|(table, column)| self.has(table, column))
    }

    /// The budget `b` is nobody's by its own columns, so that a legacy reference may speak.
    pub(crate) fn is_free(&self) -> String {
        OWNER_COLUMNS
            .into_iter()
            .filter(|column| self.has(BUDGETS, column))
            .map(|column| format!(" AND b.{column} IS NULL"))
            .collect()
    }

    /// Windows begin where this version would not look for them (1.6 and later).
    pub(super) fn is_anchored(&self) -> bool {
        has_anchored_windows(|table, column| self.has(table, column)).is_some()
    }

    /// The duration of the budget `b`; none where something else says how it resets, which is not read here.
    pub(super) fn duration(&self) -> &'static str {
        if self.has(BUDGETS, "reset_config_json") {
            "CASE WHEN COALESCE(b.reset_config_json, '') IN ('', 'null', '{}') THEN b.reset_duration END"
        } else {
            "b.reset_duration"
        }
    }

    /// The limit of the budget `b`: raised while an override has cycles left, where the gateway has overrides.
    pub(crate) fn limit(&self) -> String {
        if !self.all(&[
            (BUDGETS, "override_amount"),
            (BUDGETS, "override_mode"),
            (BUDGETS, "override_cycles_remaining"),
        ]) {
            return "b.max_limit".to_owned();
        }
        "(b.max_limit + CASE WHEN b.override_mode <> '' AND b.override_cycles_remaining > 0 \
         THEN COALESCE(b.override_amount, 0) ELSE 0 END)"
            .to_owned()
    }

    /// That the key `v` opens nothing at an instant: it is switched off, or has expired.
    pub(super) fn is_closed(&self, now: DateTime<Utc>) -> String {
        let mut arms = Vec::new();
        if self.has(VIRTUAL_KEYS, "is_active") {
            // From 1.5.0 on nothing said means active; before, a gateway reads no.
            let nothing_said = if self.has(BUDGETS, "virtual_key_id") {
                "v.is_active IS NOT NULL AND "
            } else {
                ""
            };
            arms.push(format!(
                "({nothing_said}NOT ({}))",
                self.dialect.is_true("v.is_active")
            ));
        }
        if self.has(VIRTUAL_KEYS, "expires_at") {
            let now = instant::literal(self.dialect, now);
            arms.push(match self.dialect {
                // The column has no time zone, and the gateway writes UTC.
                Dialect::Postgres => {
                    format!("COALESCE(v.expires_at <= {now} AT TIME ZONE 'UTC', FALSE)")
                }
                Dialect::Sqlite => format!(
                    "COALESCE({} <= {}, v.expires_at IS NOT NULL)",
                    instant::compared(self.dialect, "v.expires_at"),
                    instant::compared(self.dialect, &now)
                ),
            });
        }
        if arms.is_empty() {
            "1 = 0".to_owned()
        } else {
            format!("({})", arms.join(" OR "))
        }
    }

    /// Who says that the budget `b` is aligned to the calendar: its owner, or in older versions itself.
    pub(crate) fn alignment_of_budgets(&self) -> Alignments {
        let mut arms = self.own_flag(BUDGETS);
        if self.has(VIRTUAL_KEYS, FLAG) {
            let free = self.is_free();
            for (table, column, from, condition) in [
                (
                    BUDGETS,
                    "virtual_key_id",
                    KEY,
                    "o.id = b.virtual_key_id".to_owned(),
                ),
                (
                    BUDGETS,
                    "provider_config_id",
                    KEY_OF_CONFIG,
                    "c.id = b.provider_config_id".to_owned(),
                ),
                (
                    VIRTUAL_KEYS,
                    "budget_id",
                    KEY,
                    format!("o.budget_id = b.id{free}"),
                ),
                (
                    PROVIDER_CONFIGS,
                    "budget_id",
                    KEY_OF_CONFIG,
                    format!("c.budget_id = b.id{free}"),
                ),
            ] {
                let says = if column == "budget_id" {
                    self.refers(table)
                } else {
                    self.has(table, column)
                };
                if says {
                    arms.push(self.owner_flag(VIRTUAL_KEYS, from, &condition));
                }
            }
        }
        for (table, column) in [(TEAMS, "team_id"), (CUSTOMERS, "customer_id")] {
            arms.extend(self.group_flag(table, BUDGETS, column, "budget_id"));
        }
        // Its own `budget_id` says nothing any more where it has a flag.
        if self.has(MODEL_CONFIGS, FLAG) && self.has(BUDGETS, "model_config_id") {
            let from = format!("{MODEL_CONFIGS} o");
            arms.push(self.owner_flag(MODEL_CONFIGS, &from, "o.id = b.model_config_id"));
        }
        Alignments::of(arms)
    }

    /// Who says that the rate limit `b` is aligned, likewise.
    pub(crate) fn alignment_of_rate_limits(&self) -> Alignments {
        let mut arms = self.own_flag(RATE_LIMITS);
        if self.has(VIRTUAL_KEYS, FLAG) {
            if self.has(VIRTUAL_KEYS, "rate_limit_id") {
                arms.push(self.owner_flag(VIRTUAL_KEYS, KEY, "o.rate_limit_id = b.id"));
            }
            if self.has(PROVIDER_CONFIGS, "rate_limit_id") {
                arms.push(self.owner_flag(VIRTUAL_KEYS, KEY_OF_CONFIG, "c.rate_limit_id = b.id"));
            }
        }
        for table in [TEAMS, CUSTOMERS, MODEL_CONFIGS] {
            arms.extend(self.group_flag(table, RATE_LIMITS, "-", "rate_limit_id"));
        }
        Alignments::of(arms)
    }

    fn own_flag(&self, table: &str) -> Vec<Arm> {
        if !self.has(table, FLAG) {
            return Vec::new();
        }
        vec![Arm {
            from: None,
            condition: self.dialect.is_true(&format!("b.{FLAG}")),
            changed: self.changed(table, "b"),
        }]
    }

    /// The flag of an owner `o`, found by a condition.
    fn owner_flag(&self, table: &str, from: &str, condition: &str) -> Arm {
        Arm {
            from: Some(from.to_owned()),
            condition: format!(
                "{condition} AND {}",
                self.dialect.is_true(&format!("o.{FLAG}"))
            ),
            changed: self.changed(table, "o"),
        }
    }

    /// A team or customer that owns `b` by a column of `b`, or refers to it by one of its own.
    fn group_flag(&self, table: &str, owned: &str, column: &str, reference: &str) -> Vec<Arm> {
        if !self.has(table, FLAG) {
            return Vec::new();
        }
        let from = format!("{table} o");
        let mut arms = Vec::new();
        if self.has(owned, column) {
            arms.push(self.owner_flag(table, &from, &format!("o.id = b.{column}")));
        }
        if self.has(table, reference) {
            arms.push(self.owner_flag(table, &from, &format!("o.{reference} = b.id")));
        }
        arms
    }

    /// The row was written since an instant, which stands as [`SINCE`], and not made then: its flag may have been turned on.
    /// Where nothing says when a row was written, or nothing that SQLite reads, it may.
    fn changed(&self, table: &str, alias: &str) -> String {
        if !self.all(&[(table, "created_at"), (table, "updated_at")]) {
            return "1 = 1".to_owned();
        }
        let instant = |time: &str| {
            let read = instant::compared(self.dialect, time);
            match self.dialect {
                Dialect::Postgres => read,
                // As Go prints a time of its own, which SQLite does not read; of another offset it says nothing.
                Dialect::Sqlite => format!(
                    "COALESCE({read}, CASE WHEN {time} LIKE '% +0000 UTC%' THEN julianday(substr({time}, 1, 19)) END)"
                ),
            }
        };
        let updated = instant(&format!("{alias}.updated_at"));
        // A time that is not read as one says nothing.
        format!(
            "COALESCE({updated} >= {} AND {updated} > {}, 1 = 1)",
            instant(SINCE),
            instant(&format!("{alias}.created_at"))
        )
    }
}

/// The column of the flag, whoever has it.
const FLAG: &str = "calendar_aligned";
/// A virtual key, under the name that owners have here.
const KEY: &str = "governance_virtual_keys o";
/// The virtual key of a provider config `c`.
const KEY_OF_CONFIG: &str = "governance_virtual_key_provider_configs c JOIN governance_virtual_keys o ON o.id = c.virtual_key_id";
/// Stands for an instant.
const SINCE: &str = "{since}";

/// Who says that a row `b` is aligned to the calendar.
#[derive(Clone, Debug)]
pub(crate) struct Alignments {
    arms: Vec<Arm>,
    row_by_row: bool,
}

/// One of them: where its flag is, and whether that may be young.
#[derive(Clone, Debug)]
struct Arm {
    from: Option<String>,
    condition: String,
    changed: String,
}

impl Alignments {
    fn of(arms: Vec<Arm>) -> Self {
        Self {
            arms,
            row_by_row: false,
        }
    }

    /// The same for a handful of rows: each asks its own owner. Otherwise PostgreSQL may read every virtual key that has the flag
    /// into a hash first, which pays for a sweep and not for a request; an OFFSET keeps it from that.
    pub(crate) fn row_by_row(self) -> Self {
        Self {
            row_by_row: true,
            ..self
        }
    }

    /// Somebody does.
    pub(crate) fn is_on(&self) -> String {
        self.any(|_| String::new())
    }

    /// Somebody does who may do so only since an instant, a SQL expression.
    pub(crate) fn may_be_on_since(&self, instant: &str) -> String {
        self.any(|arm| format!(" AND {}", arm.changed.replace(SINCE, instant)))
    }

    fn any(&self, more: impl Fn(&Arm) -> String) -> String {
        let end = if self.row_by_row {
            " LIMIT 1 OFFSET 0"
        } else {
            ""
        };
        let arms: Vec<String> = self
            .arms
            .iter()
            .map(|arm| {
                let condition = format!("{}{}", arm.condition, more(arm));
                match &arm.from {
                    None => format!("({condition})"),
                    Some(from) => format!("EXISTS (SELECT 1 FROM {from} WHERE {condition}{end})"),
                }
            })
            .collect();
        if arms.is_empty() {
            "1 = 0".to_owned()
        } else {
            format!("({})", arms.join(" OR "))
        }
    }
}
