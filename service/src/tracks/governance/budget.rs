//! Budgets at work: is a request allowed, what has it cost, how does a key stand (`docs/upstream/bifrost.md` §3.4).
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps usage in memory and writes it
//! back on its next tick.

mod amount;
mod chain;
mod cost;
pub(crate) mod requests;
mod reset;
pub(crate) mod schema;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use serde::Serialize;
use tollgate_migration::Dialect;
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};

pub use amount::Amount;
pub use chain::Standing;
pub use cost::Cost;
pub use requests::TABLE as REQUESTS;
pub(crate) use requests::{count_before as count_requests, forget_page as forget_requests};
pub use reset::{Begun, reset};

use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::instant;
use crate::report::{Finding, Severity};
use crate::retry::{backoff, is_transient};
use crate::rows;
use crate::runner::Session;
use crate::tracks::governance::shape::{self, MODEL_CONFIGS};
use chain::{Chain, Link};
use schema::Schema;
use window::Due;

/// A request, as far as budgets ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The virtual key's id.
    pub virtual_key: &'a str,
    /// The provider that it goes to; for a list also none, which means every one that the key has.
    pub provider: Option<&'a str>,
    /// The model that it names. Without one only the limits of all models (`*`) are met, as the gateway does.
    pub model: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// A request to a provider that names no model.
    pub fn of(virtual_key: &'a str, provider: &'a str) -> Self {
        Self {
            virtual_key,
            provider: Some(provider),
            model: None,
        }
    }

    /// The same, of a model.
    #[must_use]
    pub fn model(self, model: &'a str) -> Self {
        Self {
            model: Some(model),
            ..self
        }
    }
}

/// Whether a request may go on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether every budget above it allows it.
    pub allowed: bool,
    /// The model whose limits were asked; without one those of all models (`*`) alone.
    pub model: Option<String>,
    /// The first that does not.
    pub blocked_by: Option<Standing>,
}

/// What became of a cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recorded {
    /// `false` where the request had been recorded before, and nothing was added.
    pub recorded: bool,
    /// The budgets, as they stand afterwards; empty where nothing was added.
    pub budgets: Vec<Standing>,
}

impl Recorded {
    /// Who does not notice (R003), where something was added.
    pub fn unnoticed(&self) -> Option<Finding> {
        let rows = u64::try_from(self.budgets.len()).unwrap_or(u64::MAX);
        (rows > 0).then(|| unnoticed(BUDGETS, rows))
    }
}

/// The budgets of a database whose schema was looked at once.
#[derive(Clone, Debug)]
pub struct Budgets {
    schema: Schema,
    /// The table of requests has been seen; nothing ever drops it.
    notes_requests: Arc<AtomicBool>,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("budgets")
}

impl Budgets {
    /// Looks at the schema.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the tables of budgets are not there; [`Error::Refused`] where a later version of the gateway
    /// has budgets that would not be asked (G016).
    pub async fn load<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Self> {
        let schema = Schema::load(connection, dialect)
            .await
            .map_err(db_context())?;
        // Whoever says "allowed" must have asked every budget.
        shape::refuse_newer(connection, dialect, |table, column| {
            schema.has(table, column)
        })
        .await?;
        for (table, column) in [
            (BUDGETS, "current_usage"),
            (BUDGETS, "last_reset"),
            (VIRTUAL_KEYS, "id"),
        ] {
            if !schema.has(table, column) {
                return Err(Error::NotFound {
                    what: format!("{table}.{column} here"),
                });
            }
        }
        Ok(Self {
            schema,
            notes_requests: Arc::default(),
        })
    }

    /// Whether a virtual key may make a request to a provider: the provider's own budget, model configs of every key, provider
    /// config, key, the key's own model configs, team, the team's customer, the key's own customer; the first that is spent is
    /// named. A window that is over counts as zero; a limit of zero always blocks. With a cost, also whether that would go
    /// beyond a limit.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such key.
    pub async fn check<C: ConnectionTrait>(
        &self,
        connection: &C,
        asked: &Asked<'_>,
        cost: Option<&Cost>,
        now: DateTime<Utc>,
    ) -> Result<Verdict> {
        let Chain { links, closed } = self.chain(connection, asked, false, cost, now).await?;
        if closed == Some(true) {
            return Err(Error::refused(
                "virtual_key_inactive",
                format!(
                    "virtual key {} is switched off, or has expired",
                    asked.virtual_key
                ),
                "activate it in the gateway",
            ));
        }
        let blocked_by = links
            .iter()
            .map(|link| link.standing(now, cost.is_some()))
            .find(|standing| !standing.allows);
        Ok(Verdict {
            allowed: blocked_by.is_none(),
            model: asked.model.map(str::to_owned),
            blocked_by,
        })
    }

    /// How every budget above a key stands, of one provider or of all, in the order in which they are asked.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such key.
    pub async fn list<C: ConnectionTrait>(
        &self,
        connection: &C,
        asked: &Asked<'_>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        let every_model = asked.model.is_none();
        let Chain { links, .. } = self
            .chain(connection, asked, every_model, None, now)
            .await?;
        Ok(links.iter().map(|link| link.standing(now, false)).collect())
    }

    /// Adds a cost to every budget above a request, in one transaction; rows are locked in the order of their ids. A
    /// window that is over resets, so that no sweep wipes what was spent after it. With a request id, once: a
    /// repeated one adds nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such key; nothing was added then.
    pub async fn record(
        &self,
        connection: &Connection,
        asked: &Asked<'_>,
        cost: &Cost,
        request: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Recorded> {
        (|| self.recorded(connection, asked, cost, request, now))
            .retry(backoff())
            .when(|error: &Error| matches!(error, Error::Database { source, .. } if is_transient(source)))
            .await
    }

    /// From 1.6 on the gateway begins windows where this version would not, and may have raised a limit for some of them.
    fn refuse_anchored(&self, what: &str) -> Result<()> {
        shape::refuse_anchored_windows(what, |table, column| self.schema.has(table, column))
    }

    async fn recorded(
        &self,
        connection: &Connection,
        asked: &Asked<'_>,
        cost: &Cost,
        request: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Recorded> {
        self.refuse_anchored("recording a cost")?;
        if request.is_some() && !self.notes_requests.load(Ordering::Relaxed) {
            requests::ensure(connection).await.map_err(db_context())?;
            self.notes_requests.store(true, Ordering::Relaxed);
        }
        let transaction = connection.begin().await.map_err(db_context())?;
        let recorded = self.noted(&transaction, asked, cost, request, now).await?;
        transaction.commit().await.map_err(db_context())?;
        Ok(recorded)
    }

    /// The same in a transaction of the caller's, which commits it or undoes it; nothing is tried again. The caller's
    /// transaction holds the budgets' rows to its end.
    ///
    /// # Errors
    /// Those of [`Self::record`]; [`Error::MissingSchema`] with a request id where nothing has noted one yet: the table of
    /// requests is made by [`Self::record`] alone.
    pub async fn record_in<C: ConnectionTrait>(
        &self,
        transaction: &C,
        asked: &Asked<'_>,
        cost: &Cost,
        request: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Recorded> {
        self.refuse_anchored("recording a cost")?;
        if request.is_some()
            && !requests::exist(transaction, self.schema.dialect)
                .await
                .map_err(db_context())?
        {
            return Err(Error::MissingSchema {
                what: format!(
                    "table {} here; `Budgets::record` with a request id makes it",
                    requests::TABLE
                ),
            });
        }
        self.noted(transaction, asked, cost, request, now).await
    }

    async fn noted<C: ConnectionTrait>(
        &self,
        transaction: &C,
        asked: &Asked<'_>,
        cost: &Cost,
        request: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Recorded> {
        let is_new = match request {
            None => true,
            Some(request) => {
                requests::note(
                    transaction,
                    self.schema.dialect,
                    request,
                    asked.virtual_key,
                    now,
                )
                .await
                .inspect_err(|_| {
                    // It may be gone, with a database that was restored under a pool that lives on.
                    self.notes_requests.store(false, Ordering::Relaxed);
                })
                .map_err(db_context())?
            }
        };
        if !is_new {
            self.is_closed(transaction, asked.virtual_key, now).await?;
            return Ok(Recorded {
                recorded: false,
                budgets: Vec::new(),
            });
        }
        let Chain { links, .. } = self.chain(transaction, asked, false, None, now).await?;
        let budgets = self
            .add(transaction, &links, cost, now)
            .await
            .map_err(db_context())?;
        Ok(Recorded {
            recorded: true,
            budgets,
        })
    }

    async fn add<C: ConnectionTrait>(
        &self,
        transaction: &C,
        links: &[Link],
        cost: &Cost,
        now: DateTime<Utc>,
    ) -> std::result::Result<Vec<Standing>, DbErr> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let dialect = self.schema.dialect;
        let before = chain::locked(transaction, &self.schema, links, now).await?;
        // Deleted while they were waited for.
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let cost_as = match dialect {
            Dialect::Postgres => "numeric",
            Dialect::Sqlite => "real",
        };
        let mut values: Vec<Value> = vec![cost.as_str().into()];
        let mut over = Vec::new();
        let mut begins = String::new();
        for link in &before {
            let start = match link.due(now) {
                Due::Nothing => continue,
                Due::Reset(start) => {
                    over.push(link.id.as_str());
                    start
                }
                Due::Align(start) => start,
            };
            let id = chain::parameters(dialect, [link.id.as_str()], &mut values);
            values.push(instant::text(start).into());
            let start = instant::of_text(dialect, &dialect.parameter(values.len()));
            begins += &format!(" WHEN {id} THEN {start}");
        }
        let usage = if over.is_empty() {
            "COALESCE(current_usage, 0)".to_owned()
        } else {
            let over = chain::parameters(dialect, over, &mut values);
            format!("CASE WHEN id IN ({over}) THEN 0 ELSE COALESCE(current_usage, 0) END")
        };
        let last_reset = if begins.is_empty() {
            String::new()
        } else {
            format!(", last_reset = CASE id{begins} ELSE last_reset END")
        };
        let ids = chain::parameters(
            dialect,
            before.iter().map(|link| link.id.as_str()),
            &mut values,
        );
        transaction
            .execute_raw(Statement::from_sql_and_values(
                dialect.backend(),
                format!(
                    "UPDATE {BUDGETS} SET current_usage = {usage} + CAST({} AS {cost_as}){last_reset} WHERE id IN ({ids})",
                    dialect.parameter(1),
                ),
                values,
            ))
            .await?;
        let after = chain::locked(transaction, &self.schema, links, now).await?;
        // In the order in which they are asked.
        Ok(links
            .iter()
            .filter_map(|link| after.iter().find(|found| found.id == link.id))
            .map(|link| link.standing(now, false))
            .collect())
    }

    async fn chain<C: ConnectionTrait>(
        &self,
        connection: &C,
        asked: &Asked<'_>,
        every_model: bool,
        cost: Option<&Cost>,
        now: DateTime<Utc>,
    ) -> Result<Chain> {
        let mut chain = chain::chain(
            connection,
            &self.schema,
            asked,
            every_model,
            cost.map_or("0", Cost::as_str),
            now,
        )
        .await
        .map_err(db_context())?;
        if chain.links.is_empty() {
            let closed = self.is_closed(connection, asked.virtual_key, now).await?;
            chain.closed = Some(closed);
        }
        Ok(chain)
    }

    /// Whether limits of models are asked for at all here.
    pub fn asks_models(&self) -> bool {
        self.schema.has(MODEL_CONFIGS, "model_name")
    }

    /// Whether a key is switched off, or has expired: it opens nothing then, whatever is left of its budgets.
    async fn is_closed<C: ConnectionTrait>(
        &self,
        connection: &C,
        virtual_key: &str,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let closed: Option<i32> = rows::scalar(
            connection,
            Statement::from_sql_and_values(
                self.schema.dialect.backend(),
                chain::closed(&self.schema, now),
                [virtual_key.into()],
            ),
        )
        .await
        .map_err(db_context())?;
        closed
            .map(|closed| closed == 1)
            .ok_or_else(|| Error::NotFound {
                what: format!("virtual key {virtual_key:?}"),
            })
    }
}

/// Who does not notice what was written (R003): how many rows of a table.
pub(crate) fn unnoticed(table: &str, rows: u64) -> Finding {
    Finding {
        code: "R003".to_owned(),
        severity: Severity::Info,
        title: "a Bifrost that runs does not notice".to_owned(),
        table: table.to_owned(),
        column: None,
        rows,
        sample_ids: Vec::new(),
        effect: "it keeps keys and usage in memory, and writes usage back on its next tick"
            .to_owned(),
        resolve: "nothing to do for a gateway that embeds tollgate-service, or one that is stopped"
            .to_owned(),
    }
}

/// Opens a session's database and looks at it.
///
/// # Errors
/// Those of [`Budgets::load`]; what connecting says.
pub async fn open(session: &Session, access: Access) -> Result<(Connection, Budgets)> {
    let connection = session.connect_at_once(access).await?;
    let budgets = Budgets::load(&connection, session.dialect()).await?;
    Ok((connection, budgets))
}
