//! A model provider that the gateway talks to.

use sea_orm::entity::prelude::*;

/// A model provider, with a budget of its own that it names by id.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "config_providers")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "String(StringLen::N(50))", unique)]
    pub name: String,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub network_config_json: Option<String>,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub concurrency_buffer_json: Option<String>,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub proxy_config_json: Option<String>,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub custom_provider_config_json: Option<String>,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub open_ai_config_json: Option<String>,
    pub send_back_raw_request: Option<bool>,
    pub send_back_raw_response: Option<bool>,
    pub store_raw_request_response: Option<bool>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub budget_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub rate_limit_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub status: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub description: Option<String>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub encryption_status: Option<super::EncryptionStatus>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    #[sea_orm(has_many)]
    pub keys: HasMany<super::key::Entity>,
    #[sea_orm(belongs_to, from = "budget_id", to = "id")]
    pub budget: BelongsTo<Option<super::budget::Entity>>,
    #[sea_orm(belongs_to, from = "rate_limit_id", to = "id")]
    pub rate_limit: BelongsTo<Option<super::rate_limit::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
