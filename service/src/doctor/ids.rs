//! The rows that queries name, counted, and the first of their ids.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};

use super::hazard::Samples;
use super::query::Query;

/// A statement of the rows that a query names: `id` and `total`, in order.
fn named(query: &Query, samples: Samples) -> String {
    let limit = match samples {
        Samples::First(count) => format!(" LIMIT {}", count.max(1)),
        Samples::All => String::new(),
    };
    format!(
        "SELECT CAST(found.id AS text) AS id, count(*) OVER () AS total FROM ({}) found ORDER BY found.id{limit}",
        query.sql()
    )
}

/// The same of several queries over one relation, by their places: one statement, which builds the relation once.
pub(super) async fn ids_over<C: ConnectionTrait>(
    connection: &C,
    (name, relation): (&str, &str),
    queries: &[&Query],
    samples: Samples,
) -> std::result::Result<Vec<(u64, Vec<String>)>, DbErr> {
    let arms: Vec<String> = queries
        .iter()
        .enumerate()
        .map(|(place, query)| {
            format!(
                "SELECT {place} AS place, a{place}.id AS id, a{place}.total AS total, row_number() OVER () AS turn FROM ({}) a{place}",
                named(query, samples)
            )
        })
        .collect();
    let sql = format!(
        "WITH {name} AS MATERIALIZED ({relation}) {} ORDER BY place, turn",
        arms.join(" UNION ALL ")
    );
    let rows: Vec<Named> = crate::rows::all(
        connection,
        Statement::from_string(connection.get_database_backend(), sql),
    )
    .await?;
    let mut found = vec![(0, Vec::new()); queries.len()];
    for Named { place, id, total } in rows {
        let (rows, ids) = &mut found[usize::try_from(place).unwrap_or_default()];
        *rows = total.unsigned_abs();
        if samples != Samples::First(0) {
            ids.push(id.unwrap_or_default());
        }
    }
    Ok(found)
}

#[derive(FromQueryResult)]
struct Named {
    place: i32,
    id: Option<String>,
    total: i64,
}

/// Counts what a query names, and lists the first of it.
pub(crate) async fn ids<C: ConnectionTrait>(
    connection: &C,
    query: impl Into<Query>,
    samples: Samples,
) -> std::result::Result<(u64, Vec<String>), DbErr> {
    let query = query.into();
    let sql = named(&query, samples);
    let rows = connection
        .query_all_raw(query.within(connection.get_database_backend(), sql))
        .await?;
    let total: i64 = rows.first().map_or(Ok(0), |row| row.try_get("", "total"))?;
    let mut ids = rows
        .iter()
        .map(|row| {
            row.try_get::<Option<String>>("", "id")
                .map(Option::unwrap_or_default)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if samples == Samples::First(0) {
        ids.clear();
    }
    Ok((total.unsigned_abs(), ids))
}
