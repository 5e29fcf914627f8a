//! A request to submit headers for an MCP server.

use sea_orm::entity::prelude::*;

/// A request to submit headers.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "mcp_per_user_header_flows")]
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
    pub session_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub virtual_key_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub user_id: Option<String>,
    /// `user`, `vk` or `session`.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub flow_mode: String,
    /// `pending`, `completed` or `expired`.
    #[sea_orm(column_type = "String(StringLen::N(50))", indexed)]
    pub status: String,
    #[sea_orm(indexed)]
    pub expires_at: DateTimeUtc,
    #[sea_orm(indexed)]
    pub created_at: DateTimeUtc,
    #[sea_orm(indexed)]
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
