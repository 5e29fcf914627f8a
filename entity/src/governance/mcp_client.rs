//! An MCP server.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// An MCP server that virtual keys may be granted.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "config_mcp_clients")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    /// What credentials refer to; grants refer to `id`.
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub client_id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub name: String,
    pub is_code_mode_client: Option<bool>,
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub connection_type: String,
    #[sea_orm(column_type = "Text")]
    pub connection_string: Option<Secret>,
    #[sea_orm(column_type = "Text")]
    pub stdio_config_json: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub tools_to_execute_json: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub tools_to_auto_execute_json: Option<String>,
    /// Headers of the gateway's own, a JSON object, or its ciphertext.
    #[sea_orm(column_type = "Text")]
    pub headers_json: Option<Secret>,
    #[sea_orm(column_type = "Text")]
    pub allowed_extra_headers_json: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub tool_pricing_json: Option<String>,
    pub is_ping_available: Option<bool>,
    /// In minutes; later versions count seconds.
    pub tool_sync_interval: Option<i64>,
    /// `none`, `headers`, `oauth`, `per_user_oauth` or `per_user_headers`.
    #[sea_orm(column_type = "String(StringLen::N(20))")]
    pub auth_type: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub oauth_config_id: Option<String>,
    /// Open to every virtual key, grant or not.
    pub allow_on_all_virtual_keys: Option<bool>,
    #[sea_orm(column_type = "Text")]
    pub discovered_tools_json: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub tool_name_mapping_json: Option<String>,
    pub disabled: Option<bool>,
    /// Headers that each user submits: a JSON list of names in lower case.
    #[sea_orm(column_type = "Text")]
    pub per_user_header_keys_json: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub tls_config_json: Option<String>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub encryption_status: Option<super::EncryptionStatus>,
    #[sea_orm(indexed)]
    pub created_at: DateTimeUtc,
    #[sea_orm(indexed)]
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
