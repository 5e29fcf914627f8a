//! Answers of a query as values. What has more than a column or two derives [`FromQueryResult`] for a row of its own.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, TryGetable};

/// The first column of the first row; none where there is no row.
pub(crate) async fn scalar<T: TryGetable, C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> Result<Option<T>, DbErr> {
    connection
        .query_one_raw(statement)
        .await?
        .map(|row| row.try_get_by_index(0))
        .transpose()
}

/// The first column of every row.
pub(crate) async fn column<T: TryGetable, C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> Result<Vec<T>, DbErr> {
    connection
        .query_all_raw(statement)
        .await?
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect()
}

/// A number of rows; zero where there is no row.
pub(crate) async fn count<C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> Result<u64, DbErr> {
    let number: Option<i64> = scalar(connection, statement).await?;
    Ok(number.unwrap_or_default().unsigned_abs())
}

/// Every row.
pub(crate) async fn all<T: FromQueryResult, C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> Result<Vec<T>, DbErr> {
    T::find_by_statement(statement).all(connection).await
}

/// The first row.
pub(crate) async fn one<T: FromQueryResult, C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> Result<Option<T>, DbErr> {
    T::find_by_statement(statement).one(connection).await
}
