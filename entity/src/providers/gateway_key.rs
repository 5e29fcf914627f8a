//! A key with which a gateway replica authenticates.

use sea_orm::entity::prelude::*;

use crate::{Id, SecretBytes};

/// A key with which a gateway replica authenticates.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ai_gateway_keys")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    pub created_at: DateTimeUtc,
    /// In lower case, unique.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// The first eleven characters, for people to tell keys apart.
    #[sea_orm(column_type = "String(StringLen::N(11))")]
    pub secret_prefix: String,
    /// SHA-256 of the secret.
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub hashed_secret: SecretBytes,
    pub last_used_at: Option<DateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}
