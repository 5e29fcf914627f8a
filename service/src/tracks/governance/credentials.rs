//! `reconcile credentials`: credentials of virtual keys follow the keys' grants (`docs/upstream/bifrost.md` §4.6 to §4.8).
//!
//! Reads `config_mcp_clients` and `governance_virtual_key_mcp_configs`; closes `oauth_user_tokens`,
//! `oauth_user_sessions`, `mcp_per_user_header_credentials` and `mcp_per_user_header_flows`:
//!
//! - an active credential in `vk` mode whose client the key may not use becomes `orphaned`;
//! - an orphaned one whose client the key may use becomes `active` again;
//! - a pending flow in `vk` mode for a client that the key may not use is deleted.
//!
//! Never touched: rows of users and sessions, `needs_reauth`, `needs_update`, flows that are not pending, rows without a
//! virtual key. A row without a client is orphaned where its key may use nothing at all. `updated_at` moves on the rows
//! that change, and on no other. Gateways read these tables live and see the change at once.
//!
//! [`after_virtual_key_change`] and [`after_mcp_client_change`] are the same for a gateway, inside its own transaction.

mod deletion;
mod hooks;
mod step;
mod sweep;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use tollgate_migration::governance::mcp::{CLIENTS, GRANTS, Kind};
use tollgate_migration::{Dialect, Track};

use crate::connection::{Connection, Transaction};
use crate::database::columns_of;
use crate::error::{Error, Result};
use crate::reconcile::part::Part;
use crate::reconcile::{Options, Routine, count, run};
use crate::report::{Change, Outcome, Report};
use crate::retry::{self, in_turns};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

use step::Step;
use sweep::Due;

pub use deletion::*;
pub use hooks::*;

/// Whose credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every virtual key that holds a row.
    All,
    /// One virtual key. An empty id is nobody.
    VirtualKey(String),
    /// Every virtual key that holds any row of this client, with all of its rows.
    Client(String),
}

/// What of the tables this database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    dialect: Dialect,
    kinds: Vec<Kind>,
    /// Clients may be open to every key.
    open_clients: bool,
    /// The part of the keys that is looked at.
    part: Part,
}

impl Present {
    /// Looks. One statement, over the catalog.
    pub(crate) async fn read<C: ConnectionTrait>(
        connection: &C,
        dialect: Dialect,
    ) -> std::result::Result<Self, DbErr> {
        let mut tables = vec![CLIENTS, GRANTS];
        for kind in Kind::ALL {
            tables.extend([kind.credentials(), kind.flows()]);
        }
        let columns = columns_of(connection, dialect, &tables).await?;
        Ok(Self::of(dialect, |table, column| {
            columns.contains(&(table.to_owned(), column.to_owned()))
        }))
    }

    /// The same from a catalog.
    pub(crate) fn of(dialect: Dialect, has_column: impl Fn(&str, &str) -> bool) -> Self {
        let grants = has_column(CLIENTS, "client_id") && has_column(GRANTS, "mcp_client_id");
        Self {
            dialect,
            kinds: Kind::ALL
                .into_iter()
                .filter(|kind| grants && kind.is_present(&has_column))
                .collect(),
            open_clients: has_column(CLIENTS, "allow_on_all_virtual_keys"),
            part: Part::default(),
        }
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    fn over(self, part: &Part) -> Self {
        Self {
            part: part.clone(),
            ..self
        }
    }

    /// That the key of row `r` is one that is looked at.
    fn somebodys(&self) -> String {
        let key = "r.virtual_key_id";
        if self.part.is_whole() {
            return format!("{key} <> ''");
        }
        format!("{key} <> '' AND {}", self.part.condition(self.dialect, key))
    }

    fn required(self) -> Result<Self> {
        if self.kinds.is_empty() {
            return Err(Error::MissingSchema {
                what: format!(
                    "{} with the tables of clients and grants in their migrated form; `tollgate migrate up --to mcp_credentials` makes them",
                    Kind::OAuth.credentials()
                ),
            });
        }
        Ok(self)
    }

    fn open(&self) -> String {
        if self.open_clients {
            self.dialect.is_true("c.allow_on_all_virtual_keys")
        } else {
            "1 = 0".to_owned()
        }
    }

    /// That the key of row `r` may use the row's client.
    fn granted(&self) -> [String; 2] {
        [
            format!(
                "EXISTS (SELECT 1 FROM {GRANTS} g JOIN {CLIENTS} c ON c.id = g.mcp_client_id \
                 WHERE g.virtual_key_id = r.virtual_key_id AND c.client_id = r.mcp_client_id)"
            ),
            format!(
                "EXISTS (SELECT 1 FROM {CLIENTS} c WHERE c.client_id = r.mcp_client_id AND {})",
                self.open()
            ),
        ]
    }

    /// That it may not. A row without a client says nothing while its key may use any.
    fn ungranted(&self) -> String {
        let [explicit, open] = self.granted();
        format!(
            "NOT {explicit} AND NOT {open} AND (r.mcp_client_id IS NOT NULL OR (\
             NOT EXISTS (SELECT 1 FROM {GRANTS} g JOIN {CLIENTS} c ON c.id = g.mcp_client_id \
             WHERE g.virtual_key_id = r.virtual_key_id AND c.client_id IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM {CLIENTS} c WHERE c.client_id IS NOT NULL AND {})))",
            self.open()
        )
    }

    /// Active credentials `r` that lost their grant.
    pub(crate) fn to_orphan(&self) -> String {
        format!(
            "r.auth_mode = 'vk' AND {} AND r.status = 'active' AND {}",
            self.somebodys(),
            self.ungranted()
        )
    }

    /// Orphaned credentials `r` that have it again.
    pub(crate) fn to_reactivate(&self) -> String {
        let [explicit, open] = self.granted();
        format!(
            "r.auth_mode = 'vk' AND {} AND r.status = 'orphaned' AND ({explicit} OR {open})",
            self.somebodys()
        )
    }

    /// Either.
    fn to_update(&self) -> String {
        format!("(({}) OR ({}))", self.to_orphan(), self.to_reactivate())
    }

    /// Pending flows `r` that can no longer finish.
    fn to_delete(&self) -> String {
        format!(
            "r.flow_mode = 'vk' AND {} AND r.status = 'pending' AND {}",
            self.somebodys(),
            self.ungranted()
        )
    }

    /// Every virtual key with something to do, once, in order.
    fn due_keys(&self) -> String {
        let mut arms = Vec::new();
        for kind in &self.kinds {
            let (credentials, flows) = (kind.credentials(), kind.flows());
            for (table, due) in [
                (credentials, self.to_orphan()),
                (credentials, self.to_reactivate()),
                (flows, self.to_delete()),
            ] {
                arms.push(format!(
                    "SELECT r.virtual_key_id AS vk FROM {table} r WHERE {due}"
                ));
            }
        }
        format!("SELECT vk FROM ({}) due ORDER BY vk", arms.join(" UNION "))
    }
}

/// Which rows a transaction looks at: a condition over `r`, and what is bound to it.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    condition: String,
    values: Vec<Value>,
}

fn bounds(dialect: Dialect, scope: &Scope, kind: Kind) -> Bounds {
    match scope {
        Scope::All => unbounded(),
        Scope::VirtualKey(id) => Bounds {
            condition: format!("r.virtual_key_id = {}", dialect.parameter(1)),
            values: vec![id.clone().into()],
        },
        Scope::Client(id) => {
            let holders: Vec<String> = [kind.credentials(), kind.flows()]
                .into_iter()
                .map(|table| {
                    format!(
                        "SELECT h.virtual_key_id FROM {table} h WHERE h.mcp_client_id = {} AND h.virtual_key_id <> ''",
                        dialect.parameter(1)
                    )
                })
                .collect();
            Bounds {
                condition: format!("r.virtual_key_id IN ({})", holders.join(" UNION ")),
                values: vec![id.clone().into()],
            }
        }
    }
}

/// Every row.
pub(super) fn unbounded() -> Bounds {
    Bounds {
        condition: "1 = 1".to_owned(),
        values: Vec::new(),
    }
}

/// Counts rows of `r` by what `action` says, with the first of their ids: one statement.
pub(super) async fn counted<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    table: &str,
    action: &str,
    condition: &str,
    bounds: &Bounds,
    changes: &mut Vec<Change>,
) -> std::result::Result<(), DbErr> {
    let sql = format!(
        "SELECT action, CAST(number AS bigint) AS number, id FROM (SELECT action, id, \
         row_number() OVER (PARTITION BY action ORDER BY id) AS place, count(*) OVER (PARTITION BY action) AS number \
         FROM (SELECT {action} AS action, r.id AS id FROM {table} r WHERE {} AND {condition}) due) counted \
         WHERE place <= {} ORDER BY action, place",
        bounds.condition,
        crate::reconcile::SAMPLES
    );
    let rows = connection
        .query_all_raw(Statement::from_sql_and_values(
            dialect.backend(),
            sql,
            bounds.values.clone(),
        ))
        .await?;
    let mut last = String::new();
    for row in rows {
        let action: String = row.try_get("", "action")?;
        let number: i64 = row.try_get("", "number")?;
        let id: Option<String> = row.try_get("", "id")?;
        let first = action != last;
        last.clone_from(&action);
        count(
            changes,
            table,
            &action,
            if first { number.unsigned_abs() } else { 0 },
            None,
        );
        if let Some(change) = changes
            .iter_mut()
            .find(|change| change.table == table && change.action == action)
            && change.sample_ids.len() < crate::reconcile::SAMPLES
        {
            change.sample_ids.push(id.unwrap_or_default());
        }
    }
    Ok(())
}

/// What is done to a flow.
const DELETE: &str = "'delete'";
/// What a status becomes.
const ACTION: &str = "CASE r.status WHEN 'active' THEN 'orphan' ELSE 'reactivate' END";

/// What would be done within the bounds: two statements for each kind.
async fn load<C: ConnectionTrait>(
    connection: &C,
    present: &Present,
    bounds: impl Fn(Kind) -> Bounds,
    changes: &mut Vec<Change>,
) -> std::result::Result<(), DbErr> {
    for kind in present.kinds.iter().copied() {
        let bounds = bounds(kind);
        let (dialect, update, delete) = (present.dialect, present.to_update(), present.to_delete());
        counted(
            connection,
            dialect,
            kind.credentials(),
            ACTION,
            &update,
            &bounds,
            changes,
        )
        .await?;
        counted(
            connection,
            dialect,
            kind.flows(),
            DELETE,
            &delete,
            &bounds,
            changes,
        )
        .await?;
    }
    Ok(())
}

/// Does it, in the transaction of the caller: four statements for each kind, however many keys and rows.
///
/// Rows are locked before they are written, keys in the order of their ids, active credentials before orphaned ones, then
/// flows: the order in which a live gateway locks.
async fn apply<C: ConnectionTrait>(
    connection: &C,
    present: &Present,
    bounds: impl Fn(Kind) -> Bounds,
    now: DateTime<Utc>,
    changes: &mut Vec<Change>,
) -> std::result::Result<(), DbErr> {
    let dialect = present.dialect;
    for kind in present.kinds.iter().copied() {
        let bounds = bounds(kind);
        for step in Step::of(kind, present, now) {
            match dialect {
                Dialect::Postgres => {
                    let ids = step.lock_due(connection, &bounds).await?;
                    if ids != "[]" {
                        step.write_locked(connection, ids, changes).await?;
                    }
                }
                Dialect::Sqlite => {
                    let due = format!("(({}))", step.arms.join(") OR ("));
                    // The transaction has the write lock, so nothing moves between the two.
                    let (table, action) = (step.table, step.action);
                    counted(connection, dialect, table, action, &due, &bounds, changes).await?;
                    connection
                        .execute_raw(Statement::from_sql_and_values(
                            dialect.backend(),
                            format!("{} WHERE {} AND {due}", step.write, bounds.condition),
                            bounds.values.clone(),
                        ))
                        .await?;
                }
            }
        }
    }
    Ok(())
}

/// The routine with a scope.
struct Credentials<'a> {
    part: Part,
    scope: &'a Scope,
    now: DateTime<Utc>,
    stop: &'a ShutdownSignal,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("reconcile credentials")
}

/// Refuses a scope that nothing here belongs to: a slip of the hand would look like agreement. A virtual key or client that is
/// gone still has a say while rows of it are left.
async fn expect_somebody(connection: &Connection, present: &Present, scope: &Scope) -> Result<()> {
    let (what, id, table, own, column) = match scope {
        Scope::All => return Ok(()),
        Scope::VirtualKey(id) => (
            "virtual key",
            id,
            tollgate_migration::governance::VIRTUAL_KEYS,
            "id",
            "virtual_key_id",
        ),
        Scope::Client(id) => ("MCP client", id, CLIENTS, "client_id", "mcp_client_id"),
    };
    let dialect = present.dialect;
    let p = dialect.parameter(1);
    let mut arms = vec![format!(
        "SELECT 1 AS found FROM {table} t WHERE t.{own} = {p}"
    )];
    arms.extend(present.kinds().iter().flat_map(|kind| {
        [kind.credentials(), kind.flows()]
            .map(|rows| format!("SELECT 1 AS found FROM {rows} t WHERE t.{column} = {p}"))
    }));
    let found = connection
        .query_one_raw(Statement::from_sql_and_values(
            dialect.backend(),
            format!(
                "SELECT found FROM ({}) known LIMIT 1",
                arms.join(" UNION ALL ")
            ),
            [id.clone().into()],
        ))
        .await
        .map_err(db_context())?;
    match found {
        Some(_) => Ok(()),
        None => Err(Error::NotFound {
            what: format!("{what} {id:?}"),
        }),
    }
}

impl Routine for Credentials<'_> {
    /// What is scoped to one key or client is one transaction.
    fn over(&self, part: &Part) -> Option<Self> {
        (*self.scope == Scope::All).then(|| Self {
            part: part.clone(),
            ..*self
        })
    }

    fn name(&self) -> &'static str {
        "credentials"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let dialect = dialect(connection)?;
        let present = Present::read(connection, dialect)
            .await
            .map_err(db_context())?
            .required()?
            .over(&self.part);
        expect_somebody(connection, &present, self.scope).await?;
        let mut report = Report::default();
        load(
            connection,
            &present,
            |kind| bounds(dialect, self.scope, kind),
            &mut report.changes,
        )
        .await
        .map_err(db_context())?;
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        let dialect = dialect(connection)?;
        let present = Present::read(connection, dialect)
            .await
            .map_err(db_context())?
            .required()?
            .over(&self.part);
        expect_somebody(connection, &present, self.scope).await?;
        if *self.scope != Scope::All {
            let work = Work::Scope(self.scope);
            return again(connection, &present, &work, self.now, &mut report.changes).await;
        }
        match dialect {
            Dialect::Postgres => self.sweep_listed(connection, &present, report).await,
            Dialect::Sqlite => self.sweep_ranges(connection, &present, report).await,
        }
    }
}

fn dialect<C: ConnectionTrait>(connection: &C) -> Result<Dialect> {
    Dialect::try_from(connection.get_database_backend()).map_err(|error| Error::Rejected {
        what: error.to_string(),
    })
}

/// What one transaction does.
enum Work<'a> {
    /// All of a scope.
    Scope(&'a Scope),
    /// Keys behind one, up to another.
    Keys(Option<&'a str>, &'a str),
    /// What was listed.
    Page(&'a [Due]),
}

impl Work<'_> {
    async fn apply(
        &self,
        transaction: &Transaction,
        present: &Present,
        now: DateTime<Utc>,
        changes: &mut Vec<Change>,
    ) -> std::result::Result<(), DbErr> {
        let dialect = present.dialect;
        match self {
            Self::Scope(scope) => {
                let bounds = |kind| bounds(dialect, scope, kind);
                apply(transaction, present, bounds, now, changes).await
            }
            Self::Keys(behind, to) => {
                let bounds = |_| sweep::range(dialect, *behind, Some(to));
                apply(transaction, present, bounds, now, changes).await
            }
            Self::Page(page) => sweep::apply_listed(transaction, present, page, now, changes).await,
        }
    }
}

/// One transaction, again while somebody is in the way. It backs off before the server looks for deadlocks, so that a
/// gateway is never the victim.
async fn again(
    connection: &Connection,
    present: &Present,
    work: &Work<'_>,
    now: DateTime<Utc>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    let attempt = async || {
        let transaction = retry::begin(connection).await?;
        let mut changes = Vec::new();
        work.apply(&transaction, present, now, &mut changes).await?;
        transaction.commit().await?;
        Ok::<_, DbErr>(changes)
    };
    let done = in_turns(connection, attempt).await.map_err(db_context())?;
    for change in done {
        count(
            changes,
            &change.table,
            &change.action,
            change.rows,
            change.sample_ids,
        );
    }
    Ok(())
}

/// Runs the routine. The outcome's error is [`Error::Refused`] when the change limit holds, [`Error::NotFound`] without the
/// tables, [`Error::Locked`], or what the database said; a sweep keeps what it committed before.
pub async fn credentials(
    session: &Session,
    scope: &Scope,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    if matches!(scope, Scope::VirtualKey(id) | Scope::Client(id) if id.is_empty()) {
        return Outcome::from(Err(Error::usage(
            "an empty id names nobody",
            "leave the option out for every virtual key",
        )));
    }
    run(
        session,
        options,
        now,
        stop,
        &Credentials {
            part: Part::default(),
            scope,
            now,
            stop,
        },
    )
    .await
}
