//! What a track prepares, and what it has at hand for it.

use futures_util::future::BoxFuture;
use sea_orm::ConnectionTrait;
use tollgate_migration::{Choices, Context};

use crate::connection::Connection;
use crate::doctor::hazard::Samples;
use crate::doctor::ids::ids;
use crate::error::{Error, Result};
use crate::report::{Change, Finding, Report};
use crate::session::Session;

/// What the operator chose.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Put back what was remembered, behind the gateway's own migration.
    pub finish: bool,
    /// What is done where rows stand in the way.
    pub choices: Choices,
}

/// What a track prepares, or finishes: it changes rows, says so in the report, names in the list what is left, and answers how
/// things stand, as one line.
pub type Preparation = for<'a> fn(
    &'a Work<'a>,
    &'a Context,
    &'a mut Report,
    &'a mut Vec<Finding>,
) -> BoxFuture<'a, Result<&'static str>>;

/// A preparation under way, under the locks.
pub struct Work<'a> {
    pub(crate) session: &'a Session,
    /// The connection that holds them.
    pub connection: &'a Connection,
    /// What the operator chose.
    pub options: Options,
}

impl Work<'_> {
    pub(crate) async fn ids(&self, sql: &str) -> Result<(u64, Vec<String>)> {
        ids(self.connection, sql, Samples::default())
            .await
            .map_err(Error::database("look for what is left"))
    }

    /// Runs statements over the rows that a query names, in one transaction. The last one changes them.
    pub(crate) async fn write(
        &self,
        due: Option<String>,
        statements: &[String],
        table: &str,
        action: &str,
        report: &mut Report,
    ) -> Result<()> {
        let Some(due) = due else { return Ok(()) };
        let (rows, ids) = self.ids(&due).await?;
        if rows == 0 {
            return Ok(());
        }
        let failed = || Error::database(format!("{action} rows of {table}"));
        let transaction = self.connection.begin().await.map_err(failed())?;
        let mut written = 0;
        for statement in statements {
            written = transaction
                .execute_unprepared(statement)
                .await
                .map_err(failed())?
                .rows_affected();
        }
        transaction.commit().await.map_err(failed())?;
        report.changes.push(Change {
            table: table.to_owned(),
            action: action.to_owned(),
            rows: written,
            sample_ids: ids,
        });
        Ok(())
    }
}
