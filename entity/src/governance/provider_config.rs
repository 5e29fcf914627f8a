//! What one virtual key may do on one provider.

use sea_orm::entity::prelude::*;

/// What one virtual key may do on one provider.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_virtual_key_provider_configs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub virtual_key_id: String,
    /// The provider's name; not a reference.
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub provider: String,
    /// The share of requests that goes here.
    #[sea_orm(column_type = "Decimal(None)")]
    pub weight: Option<Decimal>,
    /// A JSON list; `["*"]` allows all, `[]` none.
    #[sea_orm(column_type = "Text")]
    pub allowed_models: Option<String>,
    pub allow_all_keys: Option<bool>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub rate_limit_id: Option<String>,
    #[sea_orm(has_many)]
    pub budgets: HasMany<super::budget::Entity>,
    #[sea_orm(belongs_to, from = "virtual_key_id", to = "id", on_delete = "Cascade")]
    pub virtual_key: BelongsTo<super::virtual_key::Entity>,
    #[sea_orm(belongs_to, from = "rate_limit_id", to = "id")]
    pub rate_limit: BelongsTo<Option<super::rate_limit::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
