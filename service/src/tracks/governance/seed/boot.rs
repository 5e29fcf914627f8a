//! The first boot of Bifrost 1.5.8 on a made-up database of 1.4.24 that Tollgate has migrated, as far as a demonstration of
//! credentials needs it: the tables of per-user credentials, what the ledger says afterwards, and users who have consented.

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::governance::{BUDGETS, mcp};

use super::{bifrost_1_5_8, credentials, legacy};
use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::runner::Session;
use crate::seed::Maker;
use crate::tracks::governance::budget::schema::TEAMS;

/// Boots the gateway, and lets time go by.
///
/// # Errors
/// What the database says, with nothing changed.
pub async fn boot(session: &Session, virtual_keys: u32, rng_seed: u32) -> Result<()> {
    let connection = session.connect(Access::Write).await?;
    let maker = Maker {
        dialect: session.dialect(),
        seed: rng_seed,
    };
    run(&connection, &maker, virtual_keys)
        .await
        .map_err(Error::database("boot the made-up gateway"))
}

async fn run(
    connection: &Connection,
    maker: &Maker,
    virtual_keys: u32,
) -> std::result::Result<(), DbErr> {
    let dialect = maker.dialect;
    let transaction = connection.begin().await?;
    let mut statements = Vec::new();
    for spec in mcp::all() {
        if legacy::HAS.contains(&spec.name.as_str()) {
            statements.extend(
                spec.columns
                    .iter()
                    .filter(|column| legacy::LATER.contains(&column.name.as_str()))
                    .map(|column| {
                        format!(
                            "ALTER TABLE {} ADD COLUMN {}",
                            spec.name,
                            column.sql(dialect)
                        )
                    }),
            );
            continue;
        }
        statements.push(spec.sql(dialect));
        statements.extend(
            spec.separate_indexes(dialect)
                .map(|index| index.sql(dialect, &spec.name)),
        );
    }
    // Budgets of teams are owned by a column from then on. SQLite keeps the old one: dropping it is a rebuild, which shows
    // nothing here.
    statements.push(format!(
        "ALTER TABLE {BUDGETS} ADD COLUMN team_id varchar(255)"
    ));
    statements.push(format!(
        "UPDATE {BUDGETS} SET team_id = t.id FROM {TEAMS} t WHERE t.budget_id = {BUDGETS}.id"
    ));
    statements.push(format!("UPDATE {TEAMS} SET budget_id = NULL"));
    statements.push(bifrost_1_5_8());
    statements.extend(
        credentials::credentials(maker, virtual_keys)
            .into_iter()
            .map(|fill| fill.sql),
    );
    // As many statements as tables and columns of one release.
    for statement in statements {
        transaction.execute_unprepared(&statement).await?;
    }
    transaction.commit().await
}
