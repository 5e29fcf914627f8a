//! Every virtual key's credentials, in transactions of their own.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::Dialect;

use super::step::Step;
use super::{Bounds, Credentials, Present, Work, again, db_context};
use crate::connection::Connection;
use crate::error::Result;
use crate::report::{Change, Report};
use crate::rows;

/// Virtual keys of one transaction of a sweep.
const KEYS: usize = 1000;

/// A row that is due, as a sweep finds it.
#[derive(FromQueryResult)]
pub(super) struct Due {
    key: String,
    /// Which step's arm found it, counted through.
    place: i32,
    id: String,
}

/// Rows that a sweep has in memory.
const LISTED: usize = 100_000;
/// Rows of one transaction of it.
const PAGE: usize = 5000;

/// What is due behind a row, in order: everything is looked through once for so many.
async fn list(
    connection: &Connection,
    present: &Present,
    behind: Option<&Due>,
) -> std::result::Result<Vec<Due>, DbErr> {
    let dialect = present.dialect;
    let steps = present
        .kinds
        .iter()
        .flat_map(|kind| Step::of(*kind, present, DateTime::default()));
    let mut arms = Vec::new();
    for step in steps {
        for due in step.arms {
            arms.push(format!(
                "SELECT r.virtual_key_id AS key, {} AS place, r.id AS id FROM {} r WHERE {due}",
                arms.len(),
                step.table
            ));
        }
    }
    let (rest, values) = match behind {
        None => ("", Vec::new()),
        Some(Due { key, place, id }) => (
            " WHERE (key, place, id) > ($1, $2, $3)",
            vec![key.clone().into(), (*place).into(), id.clone().into()],
        ),
    };
    let sql = format!(
        "SELECT key, place, id FROM ({}) due{rest} ORDER BY key, place, id LIMIT {LISTED}",
        arms.join(" UNION ALL ")
    );
    rows::all(
        connection,
        Statement::from_sql_and_values(dialect.backend(), sql, values),
    )
    .await
}

/// Does one page of a list, in the transaction of the caller, and in the order of [`super::apply`].
pub(super) async fn apply_listed<C: ConnectionTrait>(
    connection: &C,
    present: &Present,
    page: &[Due],
    now: DateTime<Utc>,
    changes: &mut Vec<Change>,
) -> std::result::Result<(), DbErr> {
    let mut first = 0;
    for kind in present.kinds.iter().copied() {
        for step in Step::of(kind, present, now) {
            let places = first..first + step.arms.len();
            first = places.end;
            let ids: Vec<&str> = page
                .iter()
                .filter(|due| usize::try_from(due.place).is_ok_and(|place| places.contains(&place)))
                .map(|due| due.id.as_str())
                .collect();
            if !ids.is_empty() {
                let ids = step.lock_listed(connection, &ids).await?;
                step.write_locked(connection, ids, changes).await?;
            }
        }
    }
    Ok(())
}

pub(super) fn range(dialect: Dialect, behind: Option<&str>, to: Option<&str>) -> Bounds {
    let mut condition = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (comparison, id) in [(">", behind), ("<=", to)] {
        if let Some(id) = id {
            values.push(id.into());
            condition.push(format!(
                "r.virtual_key_id {comparison} {}",
                dialect.parameter(values.len())
            ));
        }
    }
    if condition.is_empty() {
        condition.push("1 = 1".to_owned());
    }
    Bounds {
        condition: condition.join(" AND "),
        values,
    }
}

impl Credentials<'_> {
    /// Everything that is due is found once and written by its key, so that no page looks through the tables again, and nothing
    /// lasts from one transaction to the next: behind a pooler they are different sessions'.
    pub(super) async fn sweep_listed(
        &self,
        connection: &Connection,
        present: &Present,
        report: &mut Report,
    ) -> Result<()> {
        let mut behind = None;
        loop {
            let mut listed = list(connection, present, behind.as_ref())
                .await
                .map_err(db_context())?;
            for page in listed.chunks(PAGE) {
                self.stop.check()?;
                let work = Work::Page(page);
                again(connection, present, &work, self.now, &mut report.changes).await?;
            }
            if listed.len() < LISTED {
                return Ok(());
            }
            behind = listed.pop();
        }
    }

    /// On SQLite, where an id can be NULL, rows are named by their keys.
    pub(super) async fn sweep_ranges(
        &self,
        connection: &Connection,
        present: &Present,
        report: &mut Report,
    ) -> Result<()> {
        // Where each thousand of the keys with something to do ends; memory for one key in a thousand.
        let ends = ends(connection, present).await.map_err(db_context())?;
        let mut behind: Option<&str> = None;
        for end in &ends {
            self.stop.check()?;
            let work = Work::Keys(behind, end);
            again(connection, present, &work, self.now, &mut report.changes).await?;
            behind = Some(end);
        }
        Ok(())
    }
}

/// The last of every thousand keys with something to do, and of the rest.
async fn ends(
    connection: &Connection,
    present: &Present,
) -> std::result::Result<Vec<String>, DbErr> {
    let sql = format!(
        "SELECT vk FROM (SELECT vk, row_number() OVER (ORDER BY vk) AS place, count(*) OVER () AS keys FROM ({}) due) numbered \
         WHERE place % {KEYS} = 0 OR place = keys ORDER BY vk",
        present.due_keys()
    );
    rows::column(
        connection,
        Statement::from_string(present.dialect.backend(), sql),
    )
    .await
}
