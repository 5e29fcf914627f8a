//! Which provider keys a provider config may use.

use sea_orm::entity::prelude::*;

/// One provider key that one provider config may use.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "governance_virtual_key_provider_config_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub table_virtual_key_provider_config_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub table_key_id: i64,
    #[sea_orm(
        belongs_to,
        from = "table_virtual_key_provider_config_id",
        to = "id",
        on_delete = "Cascade"
    )]
    pub provider_config: BelongsTo<super::provider_config::Entity>,
    #[sea_orm(belongs_to, from = "table_key_id", to = "id", on_delete = "Cascade")]
    pub key: BelongsTo<super::key::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
