//! What a boot of Molecule's does.

use sea_orm::DbErr;
use tollgate_migration::{Context, Track};

use crate::connection::Connection;
use crate::rehearse::boot::{run, steps, unowned};

/// Molecule adds one column.
pub(super) async fn boot(connection: &Connection) -> Result<(), DbErr> {
    let live = Context::read(connection).await?;
    let Some(column) = Track::BILLING.find("llm_billing_mode") else {
        return Ok(());
    };
    let plan = column.plan_up(&unowned(live)).0;
    run(connection, steps(&plan)).await
}
