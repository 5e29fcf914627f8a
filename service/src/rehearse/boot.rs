//! A gateway's own migrations on a copy: what each does to the rows that a snapshot covers. Where the gateway's own statement
//! would stop, this one does. What each gateway does stands in its track's folder.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ledger::Target;
use tollgate_migration::plan::{self, Plan, Unit};
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::module::Module;

/// Boots the gateway of that version, as far as the track's rows are concerned.
///
/// # Errors
/// What stops the boot; what it had committed by then stays, as it would.
pub(super) async fn boot(
    connection: &Connection,
    track: Track,
    target: &Target,
) -> Result<(), DbErr> {
    (Module::of(track).boot)(connection, target).await
}

/// The same database without ledgers: whoever boots makes everything itself.
pub(crate) fn unowned(mut live: Context) -> Context {
    live.ledgers.clear();
    live.upstream.clear();
    live
}

/// A statement, and whether a row of it stops the boot.
pub(crate) type Piece = (String, bool);

pub(crate) fn steps(plan: &Plan) -> Vec<Piece> {
    plan.units
        .iter()
        .flat_map(|unit| match unit {
            Unit::Transaction(steps) => steps
                .iter()
                .map(|step| (step.sql(), matches!(step, plan::Step::Guard(_))))
                .collect(),
            Unit::NonTransactional(statement) => {
                vec![(statement.sql.replace(" CONCURRENTLY", ""), false)]
            }
            Unit::Backfill(_) | Unit::Paged(_) => Vec::new(),
        })
        .collect()
}

pub(crate) fn plainly(statements: Vec<String>) -> Vec<Piece> {
    statements.into_iter().map(|sql| (sql, false)).collect()
}

/// One transaction, as a gateway's migration is one.
pub(crate) async fn run(connection: &Connection, pieces: Vec<Piece>) -> Result<(), DbErr> {
    let sqlite = connection.dialect() == Dialect::Sqlite;
    if sqlite {
        // Ignored inside a transaction; dropping a parent with it on deletes its children.
        connection
            .execute_unprepared("PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON")
            .await?;
    }
    let transaction = connection.begin().await?;
    // As many statements as a migration has.
    for (sql, stops) in pieces {
        if !stops {
            transaction.execute_unprepared(&sql).await?;
            continue;
        }
        let found = transaction
            .query_one_raw(Statement::from_string(connection.dialect().backend(), sql))
            .await?;
        if let Some(row) = found {
            let id: String = row.try_get("", "id").unwrap_or_default();
            return Err(DbErr::Custom(format!("its preflight finds {id}")));
        }
    }
    transaction.commit().await?;
    if sqlite {
        connection
            .execute_unprepared("PRAGMA foreign_keys = ON; PRAGMA legacy_alter_table = OFF")
            .await?;
    }
    Ok(())
}
