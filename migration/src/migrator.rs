//! The way in for sea-orm's own tools. It lists the tracks, and runs what can be run without Tollgate's runner; the rest is refused
//! before the first statement.

use sea_orm::{ConnectionTrait, DbErr, Statement};

use crate::dialect::Dialect;
use crate::migration::Context;
use crate::plan::{Step, Unit};
use crate::track::Track;

/// Refuses where a pending step needs the runner: batches, copies of rows, rebuilt tables, concurrent builds, and any change of a
/// database whose tables a gateway made, for what is created there has to be on record.
///
/// # Errors
/// [`DbErr::Migration`] that names `tollgate migrate up`, and what the database says.
pub async fn check<C: ConnectionTrait>(
    connection: &C,
    track: Track,
    steps: Option<u32>,
) -> Result<(), DbErr> {
    let mut context = Context::read(connection).await?;
    let history = track.history_table();
    let mut applied: Vec<String> = Vec::new();
    if context.catalog.has_table(&history) {
        let dialect: Dialect = context.catalog.dialect;
        for row in connection
            .query_all_raw(Statement::from_string(
                dialect.backend(),
                format!("SELECT version FROM {}", dialect.quote(&history)),
            ))
            .await?
        {
            applied.push(row.try_get("", "version")?);
        }
    }
    let pending: Vec<_> = track
        .migrations()
        .iter()
        .filter(|migration| !applied.iter().any(|version| version == migration.version))
        .take(steps.map_or(usize::MAX, |steps| steps as usize))
        .collect();
    let Some(first) = pending.first() else {
        return Ok(());
    };
    let refused = |version: &str, why: &str| {
        Err(DbErr::Migration(format!(
            "{version} {why}; nothing was changed; run `tollgate migrate up --track {track}` instead"
        )))
    };
    if applied.is_empty() && track.is_carried_by(&context.catalog) {
        return refused(
            first.version,
            "would change tables that a gateway made, which has to be on record",
        );
    }
    for migration in pending {
        let (plan, after) = migration.plan_up(&context);
        let plain = plan.rebuilds.is_empty()
            && plan.units.iter().all(|unit| match unit {
                Unit::Transaction(steps) => steps
                    .iter()
                    .all(|step| !matches!(step, Step::InsertWithUuids(_))),
                _ => false,
            });
        if !plain {
            return refused(
                migration.version,
                "needs Tollgate's runner: batches, rebuilt tables or concurrent builds",
            );
        }
        context = after;
    }
    Ok(())
}

/// What would drop or forget tables that are the gateway's.
///
/// # Errors
/// Always [`DbErr::Migration`].
pub fn refuse(command: &str, track: Track) -> Result<(), DbErr> {
    Err(DbErr::Migration(format!(
        "{command} would drop the gateway's own tables or the record of them; nothing was changed; \
         `tollgate migrate down --track {track}` undoes what Tollgate did"
    )))
}

/// A track as a `MigratorTrait`.
macro_rules! migrator {
    ($track:expr, $migrations:expr) => {
        /// The track for sea-orm's own tools.
        ///
        /// `up` refuses before its first statement where a pending step needs Tollgate's runner; `fresh`, `refresh`, `reset` and
        /// `uninstall`, which would drop a gateway's tables, and `down` always refuse.
        pub struct Migrator;

        /// The same list without the refusals.
        struct Listed;

        fn boxed() -> Vec<Box<dyn sea_orm_migration::MigrationTrait>> {
            $migrations
                .iter()
                .map(|&migration| Box::new(migration) as Box<dyn sea_orm_migration::MigrationTrait>)
                .collect()
        }

        fn history() -> sea_orm::DynIden {
            use sea_orm::sea_query::IntoIden;
            sea_orm::sea_query::Alias::new($track.history_table()).into_iden()
        }

        #[async_trait::async_trait]
        impl sea_orm_migration::MigratorTrait for Listed {
            fn migrations() -> Vec<Box<dyn sea_orm_migration::MigrationTrait>> {
                boxed()
            }

            fn migration_table_name() -> sea_orm::DynIden {
                history()
            }
        }

        #[async_trait::async_trait]
        impl sea_orm_migration::MigratorTrait for Migrator {
            fn migrations() -> Vec<Box<dyn sea_orm_migration::MigrationTrait>> {
                boxed()
            }

            fn migration_table_name() -> sea_orm::DynIden {
                history()
            }

            async fn up<'c, C>(db: C, steps: Option<u32>) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                let db = db.into_database_executor();
                $crate::migrator::check(&db, $track, steps).await?;
                <Listed as sea_orm_migration::MigratorTrait>::up(db, steps).await
            }

            async fn down<'c, C>(_db: C, _steps: Option<u32>) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                $crate::migrator::refuse("down", $track)
            }

            async fn fresh<'c, C>(_db: C) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                $crate::migrator::refuse("fresh", $track)
            }

            async fn refresh<'c, C>(_db: C) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                $crate::migrator::refuse("refresh", $track)
            }

            async fn reset<'c, C>(_db: C) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                $crate::migrator::refuse("reset", $track)
            }

            async fn uninstall<'c, C>(_db: C) -> Result<(), sea_orm::DbErr>
            where
                C: sea_orm_migration::IntoSchemaManagerConnection<'c>,
            {
                $crate::migrator::refuse("uninstall", $track)
            }
        }
    };
}

pub(crate) use migrator;
