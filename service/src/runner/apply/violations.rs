//! SQLite: rows without their parent, before and after a table is rebuilt with foreign keys off.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::Dialect;

use crate::connection::Transaction;

pub(super) async fn expect_foreign_keys_off(
    transaction: &Transaction,
) -> std::result::Result<(), DbErr> {
    let row = transaction
        .query_one_raw(sea_orm::Statement::from_string(
            Dialect::Sqlite.backend(),
            "SELECT foreign_keys AS setting FROM pragma_foreign_keys",
        ))
        .await?;
    let on: i32 = row.map_or(Ok(1), |row| row.try_get("", "setting"))?;
    if on != 0 {
        return Err(DbErr::Custom(
            "foreign keys could not be turned off, and rebuilding a table would delete its children"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Rows without their parent, by table and parent, in the rebuilt tables and in those that refer to them. A key whose
/// parent columns are not unique cannot be checked by SQLite either, and is passed over.
pub(super) async fn violations(
    transaction: &Transaction,
    rebuilds: &[String],
) -> std::result::Result<BTreeMap<(String, String), i64>, DbErr> {
    let dialect = Dialect::Sqlite;
    let names: Vec<String> = rebuilds.iter().map(|name| dialect.text(name)).collect();
    let names = names.join(", ");
    let sql = format!(
        "SELECT m.name AS name FROM sqlite_schema m WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' \
         AND (m.name IN ({names}) OR EXISTS \
         (SELECT 1 FROM pragma_foreign_key_list(m.name) l WHERE l.\"table\" IN ({names})))"
    );
    let query = |sql: String| sea_orm::Statement::from_string(dialect.backend(), sql);
    let mut found = BTreeMap::new();
    // One query per table with a key to a rebuilt one: bounded by the schema, not by the rows. Together, one key that
    // cannot be checked would fail them all.
    for table in transaction.query_all_raw(query(sql)).await? {
        let child: String = table.try_get("", "name")?;
        let checked = transaction
            .query_all_raw(query(format!(
                "SELECT parent, count(*) AS violations FROM pragma_foreign_key_check({}) GROUP BY parent",
                dialect.text(&child)
            )))
            .await;
        let rows = match checked {
            Err(error) if error.to_string().contains("foreign key mismatch") => continue,
            checked => checked?,
        };
        for row in rows {
            found.insert(
                (child.clone(), row.try_get("", "parent")?),
                row.try_get("", "violations")?,
            );
        }
    }
    Ok(found)
}
