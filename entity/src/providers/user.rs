//! A user.

use sea_orm::entity::prelude::*;

use crate::Id;

/// What the track reads of a user; the server has many more columns.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    pub deleted: bool,
}

impl ActiveModelBehavior for ActiveModel {}
