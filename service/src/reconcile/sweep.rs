//! The plainest routine: the rows of a table that a condition names are changed by one statement.
//!
//! One transaction, however many rows are due: for a table in which many can be, a routine of its own works in pages.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::{Dialect, Track};

use super::{Routine, count};
use crate::connection::Connection;
use crate::database::columns;
use crate::doctor::{Samples, ids};
use crate::error::{Error, Result};
use crate::report::Report;
use crate::retry::{self, in_turns};

/// Which rows, and what becomes of them.
pub struct Sweep {
    /// The routine's name in the record of runs.
    pub name: &'static str,
    /// The track whose table it is.
    pub track: Track,
    /// The table, whose key is `id`.
    pub table: &'static str,
    /// The columns that it needs; without one of them there is nothing to do here.
    pub columns: &'static [&'static str],
    /// What happens to a row, as the report says it.
    pub action: &'static str,
    /// What is set.
    pub set: fn(Dialect) -> String,
    /// Which rows are due. A row that was changed is due no more.
    pub due: fn(Dialect) -> String,
}

impl Sweep {
    async fn present(&self, connection: &Connection) -> Result<()> {
        let there = columns(connection, connection.dialect(), self.table)
            .await
            .map_err(self.failed())?;
        let lacking = self
            .columns
            .iter()
            .find(|column| !there.iter().any(|known| known == **column));
        match lacking {
            None => Ok(()),
            Some(column) => Err(Error::MissingSchema {
                what: format!("{}.{column}, which this routine is about", self.table),
            }),
        }
    }

    async fn change(
        &self,
        connection: &Connection,
        sql: &str,
    ) -> std::result::Result<Vec<String>, DbErr> {
        let transaction = retry::begin(connection).await?;
        let statement = Statement::from_string(connection.dialect().backend(), sql);
        let rows = transaction.query_all_raw(statement).await?;
        let ids = rows
            .iter()
            .map(|row| row.try_get("", "id"))
            .collect::<std::result::Result<_, _>>()?;
        transaction.commit().await?;
        Ok(ids)
    }

    fn failed(&self) -> impl Fn(DbErr) -> Error + use<> {
        let name = self.name;
        move |error| Error::database(format!("reconcile {name}"))(error)
    }
}

impl Routine for Sweep {
    fn name(&self) -> &'static str {
        self.name
    }

    fn track(&self) -> Track {
        self.track
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        self.present(connection).await?;
        let sql = format!(
            "SELECT id FROM {} WHERE {}",
            self.table,
            (self.due)(connection.dialect())
        );
        let (rows, found) = ids(connection, sql, Samples::default())
            .await
            .map_err(self.failed())?;
        let mut report = Report::default();
        count(&mut report.changes, self.table, self.action, rows, found);
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        self.present(connection).await?;
        let dialect = connection.dialect();
        let sql = format!(
            "UPDATE {} SET {} WHERE {} RETURNING CAST(id AS text) AS id",
            self.table,
            (self.set)(dialect),
            (self.due)(dialect)
        );
        let mut changed = in_turns(connection, || self.change(connection, &sql))
            .await
            .map_err(self.failed())?;
        changed.sort();
        let rows = changed.len() as u64;
        count(&mut report.changes, self.table, self.action, rows, changed);
        Ok(())
    }
}
