//! A model that chats may use.

use sea_orm::entity::prelude::*;

use crate::Id;

/// A model that chats may use, and the provider that answers for it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "chat_model_configs")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    /// The family, as the legacy tables name it.
    #[sea_orm(column_type = "Text")]
    pub provider: String,
    #[sea_orm(column_type = "Text")]
    pub model: String,
    #[sea_orm(column_type = "Text")]
    pub display_name: String,
    pub enabled: bool,
    /// At most one that is not deleted.
    pub is_default: bool,
    pub deleted: bool,
    pub deleted_at: Option<DateTimeUtc>,
    /// In tokens.
    pub context_limit: i64,
    /// In per cent.
    pub compression_threshold: i32,
    /// JSON.
    #[sea_orm(column_type = "Text", select_as = "text")]
    pub options: String,
    #[sea_orm(column_type = "Uuid", select_as = "text")]
    pub created_by: Option<Id>,
    #[sea_orm(column_type = "Uuid", select_as = "text")]
    pub updated_by: Option<Id>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    /// Required while the row is not deleted.
    #[sea_orm(column_type = "Uuid", select_as = "text")]
    pub ai_provider_id: Option<Id>,
}

impl ActiveModelBehavior for ActiveModel {}
