//! The administrator of a made-up gateway, who takes a grant away and gives it back.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement};
use tollgate_migration::governance::mcp::{CLIENTS, GRANTS, TOKENS};

use crate::database::Access;
use crate::error::{Error, Result};
use crate::rows;
use crate::runner::Session;

#[derive(FromQueryResult)]
struct Granted {
    vk: String,
    client: String,
}

/// A virtual key and an MCP client it may use by a grant of its own, with an active token.
///
/// # Errors
/// [`Error::NotFound`] where there is none; what connecting and reading may answer.
pub async fn granted_token(session: &Session) -> Result<(String, String)> {
    let db_context = || Error::database("look for a granted token");
    let connection = session.connect(Access::Read).await?;
    let granted: Option<Granted> = rows::one(
        &connection,
        Statement::from_string(
            session.dialect().backend(),
            format!(
                "SELECT t.virtual_key_id AS vk, t.mcp_client_id AS client FROM {TOKENS} t JOIN {CLIENTS} c ON c.client_id = t.mcp_client_id \
                 JOIN {GRANTS} g ON g.virtual_key_id = t.virtual_key_id AND g.mcp_client_id = c.id \
                 WHERE t.status = 'active' AND t.auth_mode = 'vk' ORDER BY t.id LIMIT 1"
            ),
        ),
    )
    .await
    .map_err(db_context())?;
    granted
        .map(|row| (row.vk, row.client))
        .ok_or_else(|| Error::NotFound {
            what: "granted token".to_owned(),
        })
}

/// Takes the grant away.
///
/// # Errors
/// What connecting and writing may answer.
pub async fn take(session: &Session, virtual_key: &str, client_id: &str) -> Result<()> {
    write(
        session,
        &format!(
            "DELETE FROM {GRANTS} WHERE virtual_key_id = $1 AND mcp_client_id = (SELECT id FROM {CLIENTS} WHERE client_id = $2)"
        ),
        [virtual_key, client_id],
    )
    .await
}

/// Gives it back.
///
/// # Errors
/// What connecting and writing may answer.
pub async fn give(session: &Session, virtual_key: &str, client_id: &str) -> Result<()> {
    write(
        session,
        &format!(
            "INSERT INTO {GRANTS} (virtual_key_id, mcp_client_id, tools_to_execute) SELECT $1, id, '[\"*\"]' FROM {CLIENTS} WHERE client_id = $2"
        ),
        [virtual_key, client_id],
    )
    .await
}

async fn write(session: &Session, sql: &str, values: [&str; 2]) -> Result<()> {
    let connection = session.connect(Access::Write).await?;
    connection
        .execute_raw(Statement::from_sql_and_values(
            session.dialect().backend(),
            sql,
            values.map(Into::into),
        ))
        .await
        .map_err(Error::database("change a grant"))?;
    Ok(())
}
