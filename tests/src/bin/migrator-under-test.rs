//! The governance track behind sea-orm's own command line, as a program that embeds it has it.

use sea_orm_migration::cli::run_cli;
use tollgate_service::migrator::{Governance, Migrator};

#[tokio::main]
async fn main() {
    run_cli(Migrator::<Governance>::new()).await;
}
