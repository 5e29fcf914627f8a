//! Which columns a database has that say who owns a budget or a rate limit, and whether it is aligned.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::Dialect;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

use crate::database::columns_of;

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
    pub(crate) async fn look<C: ConnectionTrait>(
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

    fn all(&self, needed: &[(&str, &str)]) -> bool {
        needed.iter().all(|(table, column)| self.has(table, column))
    }

    /// The budget `b` is nobody's by its own columns, so that a legacy reference may speak.
    pub(crate) fn is_free(&self) -> String {
        ["virtual_key_id", "provider_config_id"]
            .into_iter()
            .filter(|column| self.has(BUDGETS, column))
            .map(|column| format!(" AND b.{column} IS NULL"))
            .collect()
    }

    /// The budget `b` is aligned to the calendar: its owner's flag says so, or in older versions its own.
    pub(crate) fn is_aligned_budget(&self) -> String {
        let flag = "calendar_aligned";
        let mut arms = self.own_flag(BUDGETS);
        let key = self.dialect.is_true("v.calendar_aligned");
        if self.has(VIRTUAL_KEYS, flag) {
            if self.has(BUDGETS, "virtual_key_id") {
                arms.push(format!(
                    "EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE v.id = b.virtual_key_id AND {key})"
                ));
            }
            if self.has(BUDGETS, "provider_config_id") {
                arms.push(format!(
                    "EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c JOIN {VIRTUAL_KEYS} v ON v.id = c.virtual_key_id \
                     WHERE c.id = b.provider_config_id AND {key})"
                ));
            }
            let free = self.is_free();
            if self.has(VIRTUAL_KEYS, "budget_id") {
                arms.push(format!(
                    "EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE v.budget_id = b.id AND {key}{free})"
                ));
            }
            if self.has(PROVIDER_CONFIGS, "budget_id") {
                arms.push(format!(
                    "EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c JOIN {VIRTUAL_KEYS} v ON v.id = c.virtual_key_id \
                     WHERE c.budget_id = b.id AND {key}{free})"
                ));
            }
        }
        for (table, column) in [(TEAMS, "team_id"), (CUSTOMERS, "customer_id")] {
            arms.extend(self.owner_flag(table, BUDGETS, column, "budget_id"));
        }
        any(&arms)
    }

    /// The rate limit `b` is aligned, likewise.
    pub(crate) fn is_aligned_rate_limit(&self) -> String {
        let mut arms = self.own_flag(RATE_LIMITS);
        let key = self.dialect.is_true("v.calendar_aligned");
        if self.all(&[
            (VIRTUAL_KEYS, "calendar_aligned"),
            (VIRTUAL_KEYS, "rate_limit_id"),
        ]) {
            arms.push(format!(
                "EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE v.rate_limit_id = b.id AND {key})"
            ));
        }
        if self.all(&[
            (VIRTUAL_KEYS, "calendar_aligned"),
            (PROVIDER_CONFIGS, "rate_limit_id"),
        ]) {
            arms.push(format!(
                "EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c JOIN {VIRTUAL_KEYS} v ON v.id = c.virtual_key_id \
                 WHERE c.rate_limit_id = b.id AND {key})"
            ));
        }
        for table in [TEAMS, CUSTOMERS] {
            arms.extend(self.owner_flag(table, RATE_LIMITS, "-", "rate_limit_id"));
        }
        any(&arms)
    }

    fn own_flag(&self, table: &str) -> Vec<String> {
        if self.has(table, "calendar_aligned") {
            vec![self.dialect.is_true("b.calendar_aligned")]
        } else {
            Vec::new()
        }
    }

    /// A team or customer that owns `b` by a column of `b`, or refers to it by one of its own.
    fn owner_flag(&self, table: &str, owned: &str, column: &str, reference: &str) -> Vec<String> {
        if !self.has(table, "calendar_aligned") {
            return Vec::new();
        }
        let flag = self.dialect.is_true("o.calendar_aligned");
        let mut arms = Vec::new();
        if self.has(owned, column) {
            arms.push(format!(
                "EXISTS (SELECT 1 FROM {table} o WHERE o.id = b.{column} AND {flag})"
            ));
        }
        if self.has(table, reference) {
            arms.push(format!(
                "EXISTS (SELECT 1 FROM {table} o WHERE o.{reference} = b.id AND {flag})"
            ));
        }
        arms
    }
}

fn any(arms: &[String]) -> String {
    if arms.is_empty() {
        "1 = 0".to_owned()
    } else {
        format!("({})", arms.join(" OR "))
    }
}
