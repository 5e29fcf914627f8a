//! A secret of every workspace.

use sea_orm::entity::prelude::*;

use crate::{Id, SecretBytes};

/// A secret of every workspace.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "global_secrets")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    /// The environment variable.
    #[sea_orm(column_type = "Text")]
    pub key: String,
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub encrypted_value: SecretBytes,
    /// 0: not encrypted.
    pub encryption_version: i32,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
