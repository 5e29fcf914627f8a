//! A key under which others are encrypted.

use sea_orm::entity::prelude::*;

/// A key under which columns of this database are encrypted; the key itself is the server's.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dbcrypt_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// NULL once it is revoked.
    #[sea_orm(column_type = "Text")]
    pub active_key_digest: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub revoked_key_digest: Option<String>,
    pub created_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
    /// A known text under the key.
    #[sea_orm(column_type = "Text")]
    pub test: String,
}

impl ActiveModelBehavior for ActiveModel {}
