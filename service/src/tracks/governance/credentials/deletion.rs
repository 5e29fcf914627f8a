//! What goes with a virtual key.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Dialect;
use tollgate_migration::governance::mcp::{GRANTS, Kind};

use crate::database::{columns_of, dialect_of};
use crate::reconcile::count;
use crate::report::Change;

/// Every row of a virtual key goes: grants, flows, credentials of both kinds. For whoever deletes the key; in the caller's
/// transaction, in the order that real foreign keys allow.
///
/// # Errors
/// What the database says; the caller's transaction is to be rolled back then.
pub async fn delete_rows_of_virtual_key<C: ConnectionTrait>(
    connection: &C,
    virtual_key: &str,
) -> std::result::Result<Vec<Change>, DbErr> {
    let dialect = dialect_of(connection)?;
    let mut changes = Vec::new();
    // As many statements as tables.
    for (table, column) in tables_of_virtual_keys(connection, dialect).await? {
        let rows = connection
            .execute_raw(rows_of(dialect, "DELETE", table, column, virtual_key))
            .await?
            .rows_affected();
        count(&mut changes, table, "delete", rows, None);
    }
    Ok(changes)
}

/// What [`delete_rows_of_virtual_key`] would delete.
pub(crate) async fn count_rows_of_virtual_key<C: ConnectionTrait>(
    connection: &C,
    virtual_key: &str,
) -> std::result::Result<Vec<Change>, DbErr> {
    let dialect = dialect_of(connection)?;
    let mut changes = Vec::new();
    // As many statements as tables.
    for (table, column) in tables_of_virtual_keys(connection, dialect).await? {
        let row = connection
            .query_one_raw(rows_of(
                dialect,
                "SELECT count(*) AS number",
                table,
                column,
                virtual_key,
            ))
            .await?;
        let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "number"))?;
        count(&mut changes, table, "delete", rows.unsigned_abs(), None);
    }
    Ok(changes)
}

fn rows_of(
    dialect: Dialect,
    verb: &str,
    table: &str,
    column: &str,
    virtual_key: &str,
) -> Statement {
    Statement::from_sql_and_values(
        dialect.backend(),
        format!(
            "{verb} FROM {table} WHERE {column} = {}",
            dialect.parameter(1)
        ),
        [virtual_key.into()],
    )
}

/// What a database may still have from before provider configs: which keys of a provider a virtual key may use
/// (`docs/upstream/bifrost.md` §1).
const KEYS_OF_VIRTUAL_KEYS: &str = "governance_virtual_key_keys";

/// The tables that are there and hold rows of virtual keys, each with the column that names the key, in the order in which
/// they are emptied.
pub(crate) async fn tables_of_virtual_keys<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<Vec<(&'static str, &'static str)>, DbErr> {
    let mut tables = vec![
        (KEYS_OF_VIRTUAL_KEYS, "table_virtual_key_id"),
        (KEYS_OF_VIRTUAL_KEYS, "virtual_key_id"),
        (GRANTS, "virtual_key_id"),
    ];
    for kind in Kind::ALL {
        tables.extend([
            (kind.flows(), "virtual_key_id"),
            (kind.credentials(), "virtual_key_id"),
        ]);
    }
    let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
    let columns = columns_of(connection, dialect, &names).await?;
    tables.retain(|(table, column)| columns.contains(&((*table).to_owned(), (*column).to_owned())));
    Ok(tables)
}
