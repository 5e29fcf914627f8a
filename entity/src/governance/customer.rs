//! A customer of the gateway's operator.

use sea_orm::entity::prelude::*;

/// A customer, with a budget of its own that it names by id.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_customers")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub name: String,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub budget_id: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub rate_limit_id: Option<String>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    #[sea_orm(belongs_to, from = "budget_id", to = "id")]
    pub budget: BelongsTo<Option<super::budget::Entity>>,
    #[sea_orm(belongs_to, from = "rate_limit_id", to = "id")]
    pub rate_limit: BelongsTo<Option<super::rate_limit::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
