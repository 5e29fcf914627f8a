//! What is done to one table: rows that are due are locked in order, and written while they still are.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::Dialect;
use tollgate_migration::governance::mcp::Kind;

use super::{ACTION, Bounds, DELETE, Present};
use crate::instant;
use crate::reconcile::{SAMPLES, count};
use crate::report::Change;
use crate::rows;

/// The separator of sample ids in one text.
const UNIT: char = '\u{1f}';

/// What is done to one table: its arms of what is due, and how that is written.
pub(super) struct Step {
    pub(super) table: &'static str,
    /// The column of whose row it is.
    mode: &'static str,
    /// Active ones first: the order in which a live gateway locks.
    pub(super) arms: Vec<String>,
    /// What a row that is due is about to become.
    pub(super) action: &'static str,
    /// The same of a row that was written.
    done: &'static str,
    pub(super) write: String,
}

impl Step {
    /// Credentials before flows.
    pub(super) fn of(kind: Kind, present: &Present, now: DateTime<Utc>) -> [Self; 2] {
        let (credentials, flows) = (kind.credentials(), kind.flows());
        let at = instant::literal(present.dialect, now);
        [
            Self {
                table: credentials,
                mode: "auth_mode",
                arms: vec![present.to_orphan(), present.to_reactivate()],
                action: ACTION,
                done: "CASE r.status WHEN 'active' THEN 'reactivate' ELSE 'orphan' END",
                write: format!(
                    "UPDATE {credentials} AS r SET status = CASE r.status WHEN 'active' THEN 'orphaned' ELSE 'active' END, \
                     updated_at = {at}"
                ),
            },
            Self {
                table: flows,
                mode: "flow_mode",
                arms: vec![present.to_delete()],
                action: DELETE,
                done: DELETE,
                write: format!("DELETE FROM {flows} AS r"),
            },
        ]
    }

    /// That `r` is the row that was found, once more when somebody has written it since.
    fn same(&self) -> String {
        format!(
            "r.id = due.id AND r.status = due.status AND r.virtual_key_id = due.virtual_key_id \
             AND r.mcp_client_id IS NOT DISTINCT FROM due.mcp_client_id AND r.{} = 'vk'",
            self.mode
        )
    }

    /// Locks what is due within the bounds, in order: the ids.
    pub(super) async fn lock_due<C: ConnectionTrait>(
        &self,
        connection: &C,
        bounds: &Bounds,
    ) -> std::result::Result<String, DbErr> {
        let table = self.table;
        // Arm by arm the grants are joined; in one condition with OR they would be looked up row by row.
        let sql = format!(
            "SELECT COALESCE(CAST(json_agg(id) AS text), '[]') AS ids FROM (SELECT r.id FROM {table} r, {} \
             WHERE {} ORDER BY r.virtual_key_id, CASE r.status WHEN 'active' THEN 0 ELSE 1 END, r.id \
             FOR NO KEY UPDATE OF r) locked",
            found(table, bounds, &self.arms),
            self.same()
        );
        let locked =
            Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, bounds.values.clone());
        rows::scalar(connection, locked)
            .await
            .map(Option::unwrap_or_default)
    }

    /// Locks rows of a list, in its order.
    pub(super) async fn lock_listed<C: ConnectionTrait>(
        &self,
        connection: &C,
        ids: &[&str],
    ) -> std::result::Result<String, DbErr> {
        let ids = serde_json::json!(ids).to_string();
        let sql = format!(
            "SELECT 1 AS one FROM json_array_elements_text(CAST($1 AS json)) WITH ORDINALITY listed(id, place) \
             JOIN {} r ON r.id = listed.id ORDER BY listed.place FOR NO KEY UPDATE OF r",
            self.table
        );
        connection
            .execute_raw(Statement::from_sql_and_values(
                Dialect::Postgres.backend(),
                sql,
                [ids.clone().into()],
            ))
            .await?;
        Ok(ids)
    }

    /// Writes those of the locked rows that are still due: what became due meanwhile is for whoever made it so.
    pub(super) async fn write_locked<C: ConnectionTrait>(
        &self,
        connection: &C,
        ids: String,
        changes: &mut Vec<Change>,
    ) -> std::result::Result<(), DbErr> {
        let locked = Bounds {
            condition: "r.id IN (SELECT json_array_elements_text(CAST($1 AS json)))".to_owned(),
            values: vec![ids.into()],
        };
        let using = if self.done == DELETE { "USING" } else { "FROM" };
        let sql = format!(
            "WITH done AS ({} {using} {} WHERE {} RETURNING {} AS action, r.id AS id) \
             SELECT action, count(*) AS number, \
             array_to_string((array_agg(id ORDER BY id))[1:{}], '{UNIT}') AS ids \
             FROM done GROUP BY action ORDER BY action",
            self.write,
            found(self.table, &locked, &self.arms),
            self.same(),
            self.done,
            SAMPLES
        );
        let written: Vec<Written> = rows::all(
            connection,
            Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, locked.values),
        )
        .await?;
        for Written {
            action,
            number,
            ids,
        } in written
        {
            let ids = ids.unwrap_or_default();
            count(
                changes,
                self.table,
                &action,
                number.unsigned_abs(),
                ids.split(UNIT).map(str::to_owned),
            );
        }
        Ok(())
    }
}

/// What of a table was written, and the first of the ids.
#[derive(FromQueryResult)]
struct Written {
    action: String,
    number: i64,
    ids: Option<String>,
}

/// The rows that are due, one arm for each condition, as a table `due`.
fn found(table: &str, bounds: &Bounds, arms: &[String]) -> String {
    let arms: Vec<String> = arms
        .iter()
        .map(|due| {
            format!(
                "SELECT r.id, r.status, r.virtual_key_id, r.mcp_client_id FROM {table} r WHERE {} AND {due}",
                bounds.condition
            )
        })
        .collect();
    format!("({}) due", arms.join(" UNION ALL "))
}
