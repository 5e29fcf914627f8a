//! A spending limit over a window.

use sea_orm::entity::prelude::*;

/// A spending limit. At most one of the owners is set; a team's, customer's or provider's budget is named by its owner
/// instead, and has neither.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_budgets")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    /// What may be spent in one window, in US dollars; 0 allows nothing.
    #[sea_orm(column_type = "Decimal(None)")]
    pub max_limit: Decimal,
    /// The window's length, `1d`, `1M`, `24h`; see `docs/upstream/bifrost.md` §3.1.
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub reset_duration: String,
    /// When the current window began.
    pub last_reset: Option<DateTimeUtc>,
    /// What was spent in the current window, in US dollars.
    #[sea_orm(column_type = "Decimal(None)")]
    pub current_usage: Option<Decimal>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    /// The owning virtual key.
    #[sea_orm(column_type = "String(StringLen::N(255))", indexed)]
    pub virtual_key_id: Option<String>,
    /// The owning provider config.
    #[sea_orm(indexed)]
    pub provider_config_id: Option<i64>,
    #[sea_orm(belongs_to, from = "virtual_key_id", to = "id", on_delete = "Cascade")]
    pub virtual_key: BelongsTo<Option<super::virtual_key::Entity>>,
    #[sea_orm(
        belongs_to,
        from = "provider_config_id",
        to = "id",
        on_delete = "Cascade"
    )]
    pub provider_config: BelongsTo<Option<super::provider_config::Entity>>,
}

impl ActiveModelBehavior for ActiveModel {}
