//! A central key.

use sea_orm::entity::prelude::*;

use crate::{Id, Secret};

/// A key of a provider that everybody uses who has none of their own.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ai_provider_keys")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    #[sea_orm(column_type = "Uuid", select_as = "text")]
    pub provider_id: Id,
    /// The key, or its ciphertext.
    #[sea_orm(column_type = "Text")]
    pub api_key: Secret,
    /// `dbcrypt_keys.active_key_digest` of the ciphertext.
    #[sea_orm(column_type = "Text")]
    pub api_key_key_id: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
