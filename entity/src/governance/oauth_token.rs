//! A stored OAuth token for an MCP server.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// A stored OAuth token, of a virtual key, a user or a session.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "oauth_user_tokens")]
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
    /// `user`, `vk` or `session`. NULL is possible on upgraded SQLite databases.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub auth_mode: String,
    /// `active`, `orphaned` (the grant is gone) or `needs_reauth`.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub status: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub oauth_config_id: String,
    #[sea_orm(column_type = "Text")]
    pub access_token: Secret,
    #[sea_orm(column_type = "Text")]
    pub refresh_token: Option<Secret>,
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub token_type: String,
    #[sea_orm(indexed)]
    pub expires_at: Option<DateTimeUtc>,
    #[sea_orm(column_type = "Text")]
    pub scopes: Option<String>,
    #[sea_orm(indexed)]
    pub last_refreshed_at: Option<DateTimeUtc>,
    pub encryption_status: Option<super::EncryptionStatus>,
    #[sea_orm(indexed)]
    pub created_at: DateTimeUtc,
    #[sea_orm(indexed)]
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
