//! Every seat gets a badge: a UUID of version 5 of its id, which no SQL of either backend computes.

use sea_orm::{DbErr, QueryResult, Statement, Value};
use tollgate_migration::Dialect;
use tollgate_migration::paged::{Page, PagedStep};
use uuid::Uuid;

use crate::SEATS;

/// The name space of the badges. It never changes, so that a seat gets the same one in every run.
const BADGES: Uuid = Uuid::from_u128(0x2a6c_90b1_7f3e_4d58_8c21_5be0_94d7_13fa);

/// Seats of one page.
const PAGE: usize = 500;

/// Seats without a badge, page by page in the order of their ids.
#[derive(Debug)]
pub(super) struct Badges;

impl Badges {
    fn write(pairs: &str) -> String {
        format!(
            "WITH given (id, badge) AS (VALUES {pairs}) UPDATE {SEATS} SET badge = given.badge FROM given \
             WHERE given.id = {SEATS}.id AND {SEATS}.badge IS NULL"
        )
    }
}

impl PagedStep for Badges {
    fn purpose(&self) -> &str {
        "every seat gets a badge"
    }

    fn changes(&self) -> (&str, &'static str) {
        (SEATS, "update")
    }

    fn read(&self, dialect: Dialect, behind: Option<&str>) -> Statement {
        let sql = format!(
            "SELECT id FROM {SEATS} WHERE badge IS NULL AND id > {} ORDER BY id LIMIT {PAGE}",
            dialect.parameter(1)
        );
        Statement::from_sql_and_values(dialect.backend(), sql, [behind.unwrap_or_default().into()])
    }

    fn page(&self, dialect: Dialect, rows: &[QueryResult]) -> Result<Page, DbErr> {
        let mut pairs = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut behind = None;
        for row in rows {
            let id: String = row.try_get_by("id")?;
            let badge = Uuid::new_v5(&BADGES, id.as_bytes()).to_string();
            values.extend([id.clone().into(), badge.into()]);
            pairs.push(format!(
                "({}, {})",
                dialect.parameter(values.len() - 1),
                dialect.parameter(values.len())
            ));
            behind = Some(id);
        }
        let mut statements = Vec::new();
        if !pairs.is_empty() {
            let sql = Self::write(&pairs.join(", "));
            statements.push(Statement::from_sql_and_values(
                dialect.backend(),
                sql,
                values,
            ));
        }
        Ok(Page {
            statements,
            behind,
            last: rows.len() < PAGE,
        })
    }

    fn samples(&self) -> Vec<String> {
        vec![Self::write(
            "('s-1', '00000000-0000-5000-8000-000000000000')",
        )]
    }

    fn estimate(&self) -> Option<&str> {
        Some("SELECT count(*) AS number FROM seats")
    }
}
