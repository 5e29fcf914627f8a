//! A virtual key's grant of an MCP server.

use sea_orm::entity::prelude::*;

/// A virtual key may use an MCP server.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_virtual_key_mcp_configs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub virtual_key_id: String,
    /// `config_mcp_clients.id`, not its `client_id`.
    pub mcp_client_id: i64,
    /// A JSON list; `["*"]` is every tool. An empty list is a grant all the same.
    #[sea_orm(column_type = "Text")]
    pub tools_to_execute: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
