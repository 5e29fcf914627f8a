//! The rows that a query names, counted, and the first of their ids.

use sea_orm::{ConnectionTrait, DbErr};

use super::hazard::Samples;
use super::query::Query;

/// Counts what a query names, and lists the first of it.
pub(crate) async fn ids<C: ConnectionTrait>(
    connection: &C,
    query: impl Into<Query>,
    samples: Samples,
) -> std::result::Result<(u64, Vec<String>), DbErr> {
    let limit = match samples {
        Samples::First(count) => format!(" LIMIT {}", count.max(1)),
        Samples::All => String::new(),
    };
    let query = query.into();
    let sql = format!(
        "SELECT CAST(found.id AS text) AS id, count(*) OVER () AS total FROM ({}) found ORDER BY found.id{limit}",
        query.sql()
    );
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
