//! Copies of shared budgets, page by page.

use crate::connection::Connection;
use backon::Retryable;
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use tollgate_migration::Dialect;
use tollgate_migration::plan::CloneShared;
use uuid::Uuid;

use crate::database::existing;
use crate::retry::{self, backoff, is_busy};

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

/// Lists who needs a copy. Reads the gateway's tables once, and locks none of their rows.
pub(super) async fn stage(connection: &Connection, split: &CloneShared) -> Result<(), DbErr> {
    let transaction = connection.begin().await?;
    let there = !existing(
        &transaction,
        connection.dialect(),
        &[CloneShared::TABLE.to_owned()],
    )
    .await?
    .is_empty();
    for statement in &split.stage {
        // No CREATE is sent where the table is there: it needs a right of its own.
        if there && statement.starts_with("CREATE ") {
            continue;
        }
        transaction.execute_unprepared(statement).await?;
    }
    transaction.commit().await
}

/// Makes the next page of copies; returns how many, zero when none is left.
pub(super) async fn page(
    connection: &Connection,
    dialect: Dialect,
    split: &CloneShared,
) -> Result<u64, DbErr> {
    let table = CloneShared::TABLE;
    let rows = connection
        .query_all_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT original, kind, owner FROM {table} WHERE copy IS NULL ORDER BY original, kind, owner LIMIT {PAGE}"
            ),
        ))
        .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut page = Page::default();
    for row in &rows {
        let original: String = row.try_get("", "original")?;
        let kind: i32 = row.try_get("", "kind")?;
        let owner: String = row.try_get("", "owner")?;
        let word = if kind == 0 {
            "virtual_key"
        } else {
            "provider_config"
        };
        let copy = copy_id(&original, word, &owner).to_string();
        page.add(dialect, original, kind, owner, copy);
    }
    (|| page.commit(connection, dialect, split))
        .retry(backoff())
        .when(is_busy)
        .await?;
    Ok(rows.len() as u64)
}

/// The copies of one page.
#[derive(Default)]
struct Page {
    /// `(original, kind, owner, copy)`, as parameters.
    rows: Vec<String>,
    values: Vec<Value>,
    copies: Vec<Value>,
}

impl Page {
    fn add(&mut self, dialect: Dialect, original: String, kind: i32, owner: String, copy: String) {
        let at = self.values.len();
        let [original_at, owner_at, copy_at] = [1, 2, 3].map(|n| dialect.parameter(at + n));
        self.rows
            .push(format!("({original_at}, {kind}, {owner_at}, {copy_at})"));
        self.copies.push(copy.clone().into());
        self.values
            .extend([original.into(), owner.into(), copy.into()]);
    }

    async fn commit(
        &self,
        connection: &Connection,
        dialect: Dialect,
        split: &CloneShared,
    ) -> Result<(), DbErr> {
        let table = CloneShared::TABLE;
        let transaction = retry::begin(connection).await?;
        let named = transaction
            .execute_raw(Statement::from_sql_and_values(
                dialect.backend(),
                format!(
                    "WITH given (original, kind, owner, copy) AS (VALUES {}) UPDATE {table} SET copy = given.copy FROM given \
                     WHERE given.original = {table}.original AND given.kind = {table}.kind AND given.owner = {table}.owner",
                    self.rows.join(", ")
                ),
                self.values.clone(),
            ))
            .await?
            .rows_affected();
        if named == 0 {
            // The same page would come again, for ever.
            return Err(DbErr::Custom(format!(
                "a page of {} copies changed nothing: {table} does not hold what was read from it",
                self.rows.len()
            )));
        }
        let places: Vec<String> = (1..=self.copies.len())
            .map(|position| dialect.parameter(position))
            .collect();
        let places = places.join(", ");
        // As many as the split has, whatever the page.
        for statement in split.lock.iter().chain(&split.copy) {
            transaction
                .execute_raw(Statement::from_sql_and_values(
                    dialect.backend(),
                    statement.replace(CloneShared::PAGE, &places),
                    self.copies.clone(),
                ))
                .await?;
        }
        transaction.commit().await
    }
}
