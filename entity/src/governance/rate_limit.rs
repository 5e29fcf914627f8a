//! Limits on tokens and on requests over windows of their own.

use sea_orm::entity::prelude::*;

/// Limits on tokens and on requests. A limit needs its duration, and both are greater than zero.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_rate_limits")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "String(StringLen::N(255))"
    )]
    pub id: String,
    pub token_max_limit: Option<i64>,
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub token_reset_duration: Option<String>,
    pub token_current_usage: Option<i64>,
    #[sea_orm(indexed)]
    pub token_last_reset: Option<DateTimeUtc>,
    pub request_max_limit: Option<i64>,
    #[sea_orm(column_type = "String(StringLen::N(50))")]
    pub request_reset_duration: Option<String>,
    pub request_current_usage: Option<i64>,
    #[sea_orm(indexed)]
    pub request_last_reset: Option<DateTimeUtc>,
    /// The gateway's hash of the config file's entry.
    #[sea_orm(column_type = "String(StringLen::N(255))")]
    pub config_hash: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
