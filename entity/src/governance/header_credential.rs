//! Headers that a user submitted for an MCP server.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// Submitted headers, of a virtual key, a user or a session.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "mcp_per_user_header_credentials")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub session_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub virtual_key_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub user_id: Option<String>,
    /// `config_mcp_clients.client_id`, not its `id`.
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub mcp_client_id: String,
    /// `user`, `vk` or `session`.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub auth_mode: String,
    /// `active`, `orphaned` (the grant is gone) or `needs_update` (a header is missing).
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub status: String,
    /// A JSON object by header name in lower case, or its ciphertext.
    #[sea_orm(column_type = "Text")]
    pub headers_json: Secret,
    pub encryption_status: Option<super::EncryptionStatus>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
