//! A key that callers present to the gateway.

use sea_orm::entity::prelude::*;

use crate::Secret;

/// A key that callers present to the gateway. Belongs to a team or to a customer, never to both.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_virtual_keys")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", unique)]
    pub name: String,
    #[sea_orm(column_type = "Text")]
    pub description: Option<String>,
    /// The secret, or its ciphertext. Never compared or rewritten by value where it is encrypted.
    #[sea_orm(column_type = "Text", unique)]
    pub value: Secret,
    pub is_active: Option<bool>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub team_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub customer_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub rate_limit_id: Option<String>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub encryption_status: Option<super::EncryptionStatus>,
    /// SHA-256 of the plain value, hexadecimal.
    #[sea_orm(column_type = "String(StringLen::N(64))", unique)]
    pub value_hash: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    /// Whether the windows of this key's budgets, and of its provider configs' budgets, follow the calendar.
    pub calendar_aligned: Option<bool>,
    #[sea_orm(has_many)]
    pub budgets: HasMany<super::budget::Entity>,
    #[sea_orm(has_many)]
    pub provider_configs: HasMany<super::provider_config::Entity>,
    #[sea_orm(belongs_to, from = "team_id", to = "id")]
    pub team: BelongsTo<Option<super::team::Entity>>,
    #[sea_orm(belongs_to, from = "customer_id", to = "id")]
    pub customer: BelongsTo<Option<super::customer::Entity>>,
    #[sea_orm(belongs_to, from = "rate_limit_id", to = "id")]
    pub rate_limit: BelongsTo<Option<super::rate_limit::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
