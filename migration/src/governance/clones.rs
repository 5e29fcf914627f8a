//! Copies of shared budgets, page by page. Their ids are UUIDs of version 5, which no SQL of either backend computes.

use sea_orm::{DbErr, FromQueryResult, QueryResult, Statement, Value};
use uuid::Uuid;

use super::BUDGETS;
use crate::dialect::Dialect;
use crate::paged::{Page, PagedStep};

/// The list of copies: `original`, `kind`, `owner`, `copy`.
pub const CLONES: &str = "tollgate_clones";

/// Copies made in one transaction.
const PAGE: usize = 200;

/// The name space of the copies' ids, a random UUID that never changes: the same budget and owner give the same id in
/// every run and on every machine.
const NAMES: Uuid = Uuid::from_u128(0x6f2d_3a1c_58e4_4b7a_9c0d_2b1f_7e35_a946);

/// The id of the copy of a budget for an owner.
pub fn copy_id(budget: &str, owner_kind: &str, owner: &str) -> Uuid {
    Uuid::new_v5(
        &NAMES,
        format!("{budget}\u{1f}{owner_kind}\u{1f}{owner}").as_bytes(),
    )
}

/// Gives every further owner of a shared budget a copy of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneShared {
    /// What it is for, as one line.
    pub purpose: &'static str,
    /// Creates the list of copies, and writes into it who needs one. A repeat adds only what is new.
    pub stage: Vec<String>,
    /// Locks the referring rows of a page, so that no reference moves meanwhile; empty on SQLite.
    pub lock: Vec<String>,
    /// Copies the budgets of a page and re-points their owners. A repeat changes nothing.
    pub copy: Vec<String>,
    /// How many rows need a copy, asked before anything of the run has happened.
    pub estimate: String,
}

impl CloneShared {
    /// Stands in [`CloneShared::lock`] and [`CloneShared::copy`] for the ids of the page's copies.
    pub const PAGE: &'static str = "{page}";
}

/// A row of the list without its copy.
#[derive(FromQueryResult)]
struct Due {
    original: String,
    kind: i32,
    owner: String,
}

impl PagedStep for CloneShared {
    fn purpose(&self) -> &str {
        self.purpose
    }

    fn changes(&self) -> (&str, &'static str) {
        (BUDGETS, "clone")
    }

    fn stage(&self) -> &[String] {
        &self.stage
    }

    fn own_table(&self) -> Option<&'static str> {
        Some(CLONES)
    }

    /// An owner that gets its copy back may find somebody else there. Each round ends a sharing, so the rounds are few; the
    /// bound is for a gateway that shares faster than it is followed.
    fn rounds(&self) -> usize {
        20
    }

    fn read(&self, dialect: Dialect, _behind: Option<&str>) -> Statement {
        Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT original, kind, owner FROM {CLONES} WHERE copy IS NULL \
                 ORDER BY original, kind, owner LIMIT {PAGE}"
            ),
        )
    }

    fn page(&self, dialect: Dialect, rows: &[QueryResult]) -> Result<Page, DbErr> {
        let mut given = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut copies: Vec<Value> = Vec::new();
        for row in rows {
            let Due {
                original,
                kind,
                owner,
            } = Due::from_query_result(row, "")?;
            let word = if kind == 0 {
                "virtual_key"
            } else {
                "provider_config"
            };
            let copy = copy_id(&original, word, &owner).to_string();
            let [original_at, owner_at, copy_at] =
                [1, 2, 3].map(|place| dialect.parameter(values.len() + place));
            given.push(format!("({original_at}, {kind}, {owner_at}, {copy_at})"));
            copies.push(copy.clone().into());
            values.extend([original.into(), owner.into(), copy.into()]);
        }
        if given.is_empty() {
            return Ok(Page {
                last: true,
                ..Page::default()
            });
        }
        let named = format!(
            "WITH given (original, kind, owner, copy) AS (VALUES {}) UPDATE {CLONES} SET copy = given.copy FROM given \
             WHERE given.original = {CLONES}.original AND given.kind = {CLONES}.kind AND given.owner = {CLONES}.owner",
            given.join(", ")
        );
        let places: Vec<String> = (1..=copies.len())
            .map(|position| dialect.parameter(position))
            .collect();
        let places = places.join(", ");
        let mut statements = vec![Statement::from_sql_and_values(
            dialect.backend(),
            named,
            values,
        )];
        statements.extend(self.lock.iter().chain(&self.copy).map(|statement| {
            Statement::from_sql_and_values(
                dialect.backend(),
                statement.replace(Self::PAGE, &places),
                copies.clone(),
            )
        }));
        Ok(Page {
            statements,
            ..Page::default()
        })
    }

    fn samples(&self) -> Vec<String> {
        self.lock
            .iter()
            .chain(&self.copy)
            .map(|sql| sql.replace(Self::PAGE, "'00000000-0000-5000-8000-000000000000'"))
            .collect()
    }

    fn estimate(&self) -> Option<&str> {
        Some(&self.estimate)
    }
}
