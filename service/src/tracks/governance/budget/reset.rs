//! One budget begins again because somebody said so, and why.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use serde::Serialize;
use tollgate_migration::Track;
use tollgate_migration::governance::BUDGETS;

use super::chain;
use super::{Amount, Budgets, Standing, db_context, unnoticed};
use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::instant;
use crate::lock::{Gateway, Lock};
use crate::report::{Change, CommandResult, Report};
use crate::retry::{self, in_turns};
use crate::runner::{Session, prove_writable};
use crate::runs::RunOutcome;
use crate::secret;
use crate::shutdown::ShutdownSignal;

/// What was done, and why: the record of runs keeps it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Begun {
    /// The budget, as it stands afterwards.
    pub budget: Standing,
    /// What had been spent.
    pub usage_before: Amount,
    /// Why, without what looks like a key.
    pub reason: String,
    /// Nothing was changed.
    pub dry_run: bool,
}

/// Sets a budget's usage to nothing and begins its window, whether that is over or not; with `dry_run` says what would be.
///
/// # Errors
/// [`Error::NotFound`] where there is no such budget; [`Error::Usage`] without a reason; [`Error::Locked`]; refused
/// where a later version of the gateway begins windows elsewhere.
pub async fn reset(
    session: &Session,
    id: &str,
    reason: &str,
    dry_run: bool,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Result<(Begun, Report)> {
    let reason = secret::shortened(reason.trim());
    if reason.is_empty() {
        return Err(Error::usage(
            "the reason is empty",
            "say why: the record of runs keeps it (`tollgate history`)",
        ));
    }
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let budgets = Budgets::load(&connection, session.dialect()).await?;
    budgets.refuse_anchored("beginning a window again")?;
    if dry_run {
        let found = chain::by_ids(&connection, &budgets.schema, [id], false, now)
            .await
            .map_err(db_context())?;
        return found
            .into_iter()
            .next()
            .map(|link| report(&link, &link.begun(now), reason, true, now))
            .ok_or_else(|| missing(id));
    }
    prove_writable(session, &connection).await?;
    let tracks = [Track::GOVERNANCE];
    let (lock, connection) = Lock::take(session, connection, &tracks, Gateway::Boots, stop).await?;
    let begun = in_turns(&connection, || transaction(&connection, &budgets, id, now))
        .await
        .map_err(db_context())?;
    let Some((before, after)) = begun else {
        lock.release().await;
        return Err(missing(id));
    };
    let (begun, mut report) = report(&before, &after, reason, false, now);
    session
        .record_run(&connection, "budget reset", now, RunOutcome::Done, &report)
        .await;
    report.findings.push(unnoticed(BUDGETS, 1));
    lock.release().await;
    Ok((begun, report))
}

fn missing(id: &str) -> Error {
    Error::NotFound {
        what: format!("budget {id:?}"),
    }
}

async fn transaction(
    connection: &Connection,
    budgets: &Budgets,
    id: &str,
    now: DateTime<Utc>,
) -> std::result::Result<Option<(chain::Link, chain::Link)>, DbErr> {
    let transaction = retry::begin(connection).await?;
    let schema = &budgets.schema;
    let dialect = schema.dialect;
    let found = chain::by_ids(&transaction, schema, [id], true, now).await?;
    let Some(before) = found.into_iter().next() else {
        return Ok(None);
    };
    let start = instant::of_text(dialect, &dialect.parameter(2));
    transaction
        .execute_raw(Statement::from_sql_and_values(
            dialect.backend(),
            format!(
                "UPDATE {BUDGETS} SET current_usage = 0, last_reset = {start} WHERE id = {}",
                dialect.parameter(1)
            ),
            [id.into(), instant::text(before.starts(now)).into()],
        ))
        .await?;
    let after = chain::by_ids(&transaction, schema, [id], true, now).await?;
    transaction.commit().await?;
    Ok(after.into_iter().next().map(|after| (before, after)))
}

fn report(
    before: &chain::Link,
    after: &chain::Link,
    reason: String,
    dry_run: bool,
    now: DateTime<Utc>,
) -> (Begun, Report) {
    let begun = Begun {
        budget: after.standing(now, false),
        usage_before: before.stored_usage(),
        reason,
        dry_run,
    };
    let mut report = Report::answering(CommandResult::answer(&begun));
    report.changes.push(Change {
        sample_ids: vec![before.id.clone()],
        ..Change::new(BUDGETS, "reset", 1)
    });
    (begun, report)
}
