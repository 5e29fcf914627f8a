//! A secret of a workspace.

use sea_orm::entity::prelude::*;

use crate::{Id, SecretBytes};

/// A secret of a workspace.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "workspace_secrets")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    #[sea_orm(column_type = "Uuid", select_as = "text")]
    pub workspace_id: Option<Id>,
    /// The environment variable.
    #[sea_orm(column_type = "Text")]
    pub key: String,
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub encrypted_value: SecretBytes,
    /// 0: not encrypted.
    pub encryption_version: i32,
    pub created_at: Option<DateTimeUtc>,
    pub updated_at: Option<DateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}
