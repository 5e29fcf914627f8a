//! The way in for sea-orm's own tools, as a program that embeds a migration has it.

use sea_orm::{ConnectionTrait, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use crate::context::Context;
use crate::migration::Migration;
use crate::plan::{Step, Unit};

impl MigrationName for &'static Migration {
    fn name(&self) -> &str {
        self.version
    }
}

/// The way in for sea-orm's own tools: one statement after the other, without lock, doctor or batches.
#[async_trait::async_trait]
impl MigrationTrait for &'static Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let context = Context::read(connection).await?;
        // A deploy may run everything in one transaction, where PostgreSQL builds no index concurrently.
        let inside = connection.is_transaction();
        let (plan, _) = self.plan_up(&context);
        if !plan.rebuilds.is_empty() {
            return Err(DbErr::Migration(format!(
                "{} rebuilds a table, which needs foreign keys off outside the transaction; run `tollgate migrate up`",
                self.version
            )));
        }
        if plan.units.iter().any(|unit| matches!(unit, Unit::Paged(_))) {
            return Err(DbErr::Migration(format!(
                "{} computes what it writes page by page, which needs the runner; nothing was changed; run `tollgate migrate up`",
                self.version
            )));
        }
        for unit in &plan.units {
            let steps = match unit {
                Unit::Transaction(steps) => steps.clone(),
                Unit::NonTransactional(statement) => {
                    let mut statement = statement.clone();
                    if inside {
                        statement.sql = statement.sql.replace(" CONCURRENTLY", "");
                    }
                    vec![Step::Run(statement)]
                }
                Unit::Paged(_) => continue,
                Unit::Backfill(backfill) => {
                    connection
                        .execute_unprepared(&backfill.batch("1 = 1"))
                        .await?;
                    continue;
                }
            };
            for step in steps {
                match step {
                    Step::Run(statement) => {
                        connection.execute_unprepared(&statement.sql).await?;
                    }
                    Step::InsertWithUuids(insert) => {
                        let found = insert.made_for(connection, context.catalog.dialect).await?;
                        if !found.is_empty() {
                            connection
                                .execute_raw(insert.statement(context.catalog.dialect, &found))
                                .await?;
                        }
                    }
                    Step::Guard(guard) => {
                        let found = connection
                            .query_one_raw(sea_orm::Statement::from_string(
                                context.catalog.dialect.backend(),
                                guard.sql,
                            ))
                            .await?;
                        if found.is_some() {
                            return Err(DbErr::Migration(format!(
                                "{}: hazard {}; run `tollgate doctor`",
                                self.version, guard.code
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration(format!(
            "what {} created here is recorded with its losses; run `tollgate migrate down`",
            self.version
        )))
    }

    fn use_transaction(&self) -> Option<bool> {
        // Concurrent index builds refuse a transaction; every statement is safe to repeat.
        Some(false)
    }
}
