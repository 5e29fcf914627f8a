//! A key at a provider.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// A key at a provider. Real databases have more columns, one group for each provider; they are left alone.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "config_keys")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub name: String,
    #[sea_orm(indexed)]
    pub provider_id: i64,
    #[sea_orm(column_type = "String(StringLen::N(50))", indexed)]
    pub provider: Option<String>,
    /// A UUID; this, not `id`, is what config files and hashes use.
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub key_id: String,
    /// The secret, its ciphertext, or a reference such as `env.NAME`.
    #[sea_orm(column_type = "Text")]
    pub value: Secret,
    /// A JSON list.
    #[sea_orm(column_type = "Text")]
    pub models_json: Option<String>,
    /// A JSON list.
    #[sea_orm(column_type = "Text")]
    pub blacklisted_models_json: Option<String>,
    /// The share of requests that uses this key.
    #[sea_orm(column_type = "Decimal(None)")]
    pub weight: Option<Decimal>,
    pub enabled: Option<bool>,
    pub use_for_batch_api: Option<bool>,
    /// A JSON document.
    #[sea_orm(column_type = "Text")]
    pub aliases_json: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub status: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub description: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub ollama_url: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub sgl_url: Option<String>,
    pub replicate_use_deployments_endpoint: Option<bool>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub encryption_status: Option<super::EncryptionStatus>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    #[sea_orm(belongs_to, from = "provider_id", to = "id", on_delete = "Cascade")]
    pub of_provider: BelongsTo<super::provider::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
