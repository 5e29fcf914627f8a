//! An OAuth flow towards an MCP server.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// An OAuth flow; it runs out after a quarter of an hour.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "oauth_user_sessions")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    /// `config_mcp_clients.client_id`, not its `id`.
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub mcp_client_id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub oauth_config_id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub state: String,
    #[sea_orm(column_type = "Text")]
    pub redirect_uri: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub code_verifier: Option<Secret>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub session_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub virtual_key_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub user_id: Option<String>,
    /// `user`, `vk` or `session`.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub flow_mode: String,
    /// `pending`, `claiming`, `authorized`, `failed` or `expired`.
    #[sea_orm(column_type = "String(StringLen::N(50))", indexed)]
    pub status: String,
    pub encryption_status: Option<super::EncryptionStatus>,
    #[sea_orm(indexed)]
    pub expires_at: DateTimeUtc,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
