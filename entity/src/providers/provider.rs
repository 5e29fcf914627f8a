//! An AI provider.

use sea_orm::entity::prelude::*;

use crate::{Id, Secret};

/// An AI provider that chats may use. Deleting one keeps the row, so that its name is free again.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ai_providers")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    /// `openai`, `anthropic`, `azure`, `bedrock`, `google`, `openai-compat`, `openrouter`, `vercel` or `copilot`.
    #[sea_orm(column_name = "type", column_type = "Text", select_as = "text")]
    pub r#type: String,
    /// Unique among those that are not deleted.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    #[sea_orm(column_type = "Text")]
    pub display_name: Option<String>,
    pub enabled: bool,
    pub deleted: bool,
    #[sea_orm(column_type = "Text")]
    pub base_url: String,
    /// JSON, or its ciphertext: some providers keep their keys in it.
    #[sea_orm(column_type = "Text")]
    pub settings: Option<Secret>,
    /// `dbcrypt_keys.active_key_digest` of the ciphertext.
    #[sea_orm(column_type = "Text")]
    pub settings_key_id: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
