//! Where the tables of a track are, if not in the schema that is used.

use sea_orm::{DbErr, FromQueryResult, Statement};
use tollgate_migration::{Dialect, Track};

use super::finding;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::Finding;
use crate::rows;

/// The refusal where a track's tables are in another schema than the current one, which has none of them.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn elsewhere(connection: &Connection, tracks: &[Track]) -> Result<Option<Error>> {
    if connection.dialect() == Dialect::Sqlite {
        return Ok(None);
    }
    for &track in tracks {
        let signs = track.signs();
        let found = load(connection, signs, Reach::Everywhere)
            .await
            .map_err(Error::database("look for the tables in other schemas"))?;
        let Some((table, schema, here)) = found.into_iter().next() else {
            continue;
        };
        let mut known = finding("E004", &table, vec![format!("{schema}.{table}")]);
        known.resolve = format!("name the schema in the address: ?schema={schema}");
        return Ok(Some(Error::Refused {
            code: "blocked",
            message: format!(
                "the tables of track {track} are in schema {schema}, and the schema that is used is {here}"
            ),
            hint: format!("{}; nothing was changed", known.resolve),
            findings: vec![known],
        }));
    }
    Ok(None)
}

/// Tables that a name without a schema reaches although they are not in the current schema: whatever looks into the catalog
/// does not see them, and what is made beside them hides them from the gateway.
///
/// # Errors
/// What the database says.
pub(crate) async fn later_on_path<'a>(
    connection: &Connection,
    names: impl Iterator<Item = &'a str>,
) -> std::result::Result<Vec<Finding>, DbErr> {
    if connection.dialect() == Dialect::Sqlite {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = names.collect();
    let found = load(connection, &names, Reach::Path).await?;
    Ok(found
        .into_iter()
        .map(|(table, schema, here)| {
            let mut known = finding("E004", &table, vec![format!("{schema}.{table}")]);
            known.effect = format!(
                "the schema that is used is {here}: the table is not looked into, and one that is made in its place would hide it"
            );
            known.resolve = format!(
                "move it: ALTER TABLE {schema}.{table} SET SCHEMA {here}; or name its schema in the address, where the others are there too"
            );
            known
        })
        .collect())
}

/// How far a look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Every schema.
    Everywhere,
    /// What a name without a schema reaches.
    Path,
}

/// Table, schema, and the current schema; those that a name without a schema reaches come first.
async fn load(
    connection: &Connection,
    names: &[&str],
    reach: Reach,
) -> std::result::Result<Vec<(String, String, String)>, DbErr> {
    let places: Vec<String> = (1..=names.len())
        .map(|position| Dialect::Postgres.parameter(position))
        .collect();
    let sql = format!(
        "SELECT c.relname::text AS name, n.nspname::text AS place, COALESCE(current_schema(), 'none')::text AS here \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND c.relname IN ({}) AND n.nspname IS DISTINCT FROM current_schema() \
         AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT starts_with(n.nspname, 'pg_') \
         AND NOT starts_with(n.nspname, 'tollgate_rehearsal_') AND (pg_table_is_visible(c.oid) OR {}) \
         ORDER BY NOT pg_table_is_visible(c.oid), n.nspname, c.relname",
        places.join(", "),
        reach == Reach::Everywhere,
    );
    let values: Vec<sea_orm::Value> = names.iter().map(|&name| name.into()).collect();
    let found: Vec<Elsewhere> = rows::all(
        connection,
        Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, values),
    )
    .await?;
    Ok(found
        .into_iter()
        .map(|row| (row.name, row.place, row.here))
        .collect())
}

/// A table of another schema, and the one that is the first here.
#[derive(FromQueryResult)]
struct Elsewhere {
    name: String,
    place: String,
    here: String,
}
