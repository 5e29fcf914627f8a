//! A workspace.

use sea_orm::entity::prelude::*;

use crate::Id;

/// What the track reads of a workspace; the product has many more columns.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "workspaces")]
pub struct Model {
    #[sea_orm(
        primary_key,
        auto_increment = false,
        column_type = "Uuid",
        select_as = "text"
    )]
    pub id: Id,
    #[sea_orm(column_type = "Text")]
    pub name: String,
    #[sea_orm(column_type = "Text")]
    pub runtime: Option<String>,
    /// `platform_managed`, `byok`, `disabled`; NULL inherits the organisation's.
    #[sea_orm(column_type = "Text")]
    pub llm_billing_mode: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
