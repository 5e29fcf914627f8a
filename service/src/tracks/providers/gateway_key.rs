//! The keys with which gateway replicas authenticate (`docs/upstream/coder.md` §A5).
//!
//! The database holds SHA-256 of a secret, never the secret. No type here that is printed, listed or reported holds
//! either; the one that holds a new secret prints it as `[REDACTED]` and gives it out by [`Created::secret`] alone.

mod name;
mod secret;

use chrono::{DateTime, SecondsFormat, Utc};
use rand::CryptoRng;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tollgate_migration::Dialect;
use tollgate_migration::providers::adoption::GATEWAY_KEYS_BEFORE;
use tollgate_migration::providers::{GATEWAY_KEYS, by_time, text};
use uuid::Uuid;

pub use name::Name;
pub use secret::without_secrets;

use crate::connection::Connection;
use crate::database::{Access, columns_of};
use crate::error::{Error, Result};
use crate::instant;
use crate::reconcile::count;
use crate::report::{Change, CommandResult, Report};
use crate::rows;
use crate::runner::{Session, prove_writable};
use crate::runs::RunOutcome;

/// How often a secret is drawn again when the database already has its prefix; two in 62¹¹ share one.
const DRAWS: usize = 3;

/// A key, without its secret and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GatewayKey {
    /// The row's id.
    pub id: String,
    /// The name, in lower case.
    pub name: String,
    /// The first eleven characters of the secret, for people to tell keys apart.
    pub secret_prefix: String,
    /// When it was created, by the database's clock: RFC 3339.
    pub created_at: String,
    /// When it last authenticated.
    pub last_used_at: Option<String>,
}

/// A new key with its secret, which nothing can show again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Created {
    /// The key.
    pub key: GatewayKey,
    secret: SecretString,
}

impl Created {
    /// The secret.
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }
}

/// The table of gateway keys, by the name that it has in a database.
#[derive(Clone, Debug)]
pub struct GatewayKeys {
    dialect: Dialect,
    table: &'static str,
    /// The column of the last use, which a later version of the server renamed.
    used: &'static str,
}

impl GatewayKeys {
    /// Looks which of upstream's two names the table has.
    ///
    /// # Errors
    /// [`Error::NotFound`] where neither is there.
    pub async fn load<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Self> {
        let columns = columns_of(connection, dialect, &[GATEWAY_KEYS, GATEWAY_KEYS_BEFORE])
            .await
            .map_err(db_context())?;
        let has =
            |table: &str, column: &str| columns.contains(&(table.to_owned(), column.to_owned()));
        let table = [GATEWAY_KEYS, GATEWAY_KEYS_BEFORE]
            .into_iter()
            .find(|table| has(table, "hashed_secret"))
            .ok_or_else(|| Error::MissingSchema {
                what: format!(
                    "table {GATEWAY_KEYS} here; `tollgate migrate up --track providers` makes it"
                ),
            })?;
        let used = ["last_used_at", "last_heartbeat_at"]
            .into_iter()
            .find(|column| has(table, column))
            .ok_or_else(|| Error::MissingSchema {
                what: format!("{table}.last_used_at here"),
            })?;
        Ok(Self {
            dialect,
            table,
            used,
        })
    }

    /// Creates a key of a name.
    ///
    /// # Errors
    /// [`Error::Rejected`] where a key of that name is there; what the database says, without the row.
    pub async fn create<C: ConnectionTrait>(
        &self,
        connection: &C,
        name: &Name,
        rng: &mut impl CryptoRng,
    ) -> Result<Created> {
        let sql = format!(
            "INSERT INTO {} (id, created_at, name, secret_prefix, hashed_secret) VALUES ({}, {}, {}, {}, {}) \
             ON CONFLICT DO NOTHING RETURNING {}",
            self.table,
            self.id(1),
            self.dialect.now(),
            self.dialect.parameter(2),
            self.dialect.parameter(3),
            self.dialect.parameter(4),
            self.columns()
        );
        // A table that lost its unique index would take the name twice.
        if !self.find(connection, name.as_str()).await?.is_empty() {
            return Err(taken(name));
        }
        for _ in 0..DRAWS {
            let secret = secret::draw(rng);
            let row = connection
                .query_one_raw(Statement::from_sql_and_values(
                    self.dialect.backend(),
                    &sql,
                    [
                        uuid(rng).into(),
                        name.as_str().into(),
                        secret::prefix(&secret).into(),
                        secret::hash(secret.expose_secret().as_bytes()).into(),
                    ],
                ))
                .await
                .map_err(db_context())?;
            if let Some(row) = row {
                let key = Stored::from_query_result(&row, "")
                    .map_err(db_context())?
                    .into();
                return Ok(Created { key, secret });
            }
            // Nothing was inserted: the name is taken, or, once in an age, the prefix.
            if !self.find(connection, name.as_str()).await?.is_empty() {
                return Err(taken(name));
            }
        }
        Err(Error::Rejected {
            what: "no secret that is new could be drawn".to_owned(),
        })
    }

    /// Every key, the oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn list<C: ConnectionTrait>(&self, connection: &C) -> Result<Vec<GatewayKey>> {
        let order = by_time(self.dialect, "created_at", "ASC");
        let sql = format!(
            "SELECT {} FROM {} ORDER BY {order}, id",
            self.columns(),
            self.table
        );
        let stored: Vec<Stored> = rows::all(
            connection,
            Statement::from_string(self.dialect.backend(), sql),
        )
        .await
        .map_err(db_context())?;
        Ok(stored.into_iter().map(GatewayKey::from).collect())
    }

    /// Deletes the key of that name, or else of that id. Whoever holds it is refused from the next request on.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is neither.
    pub async fn delete<C: ConnectionTrait>(
        &self,
        connection: &C,
        id_or_name: &str,
    ) -> Result<GatewayKey> {
        // Whoever confuses the two has a secret here.
        let shown = without_secrets(id_or_name);
        let missing = || Error::NotFound {
            what: format!("gateway key {shown:?}"),
        };
        let parsed = Uuid::parse_str(id_or_name).ok().map(|id| id.to_string());
        let ids = match &self.find(connection, id_or_name).await?[..] {
            [] => match (self.dialect, parsed) {
                (Dialect::Postgres, None) => return Err(missing()),
                (Dialect::Postgres, Some(id)) => [id.clone(), id],
                // As it is written there, or in lower case.
                (Dialect::Sqlite, id) => [
                    id_or_name.to_owned(),
                    id.unwrap_or_else(|| id_or_name.to_owned()),
                ],
            },
            [id] => [id.clone(), id.clone()],
            several => {
                return Err(Error::Rejected {
                    what: format!(
                        "{} gateway keys are named {shown:?}: delete one by its id ({})",
                        several.len(),
                        several.join(", ")
                    ),
                });
            }
        };
        let sql = format!(
            "DELETE FROM {} WHERE id IN ({}, {}) RETURNING {}",
            self.table,
            self.id(1),
            self.id(2),
            self.columns()
        );
        let deleted: Option<Stored> = rows::one(
            connection,
            Statement::from_sql_and_values(self.dialect.backend(), sql, ids.map(Into::into)),
        )
        .await
        .map_err(db_context())?;
        deleted.map(GatewayKey::from).ok_or_else(missing)
    }

    /// Whose key a presented secret is; notes its use by the database's clock.
    ///
    /// # Errors
    /// [`Error::NotAuthenticated`], which says nothing about why.
    pub async fn authenticate<C: ConnectionTrait>(
        &self,
        connection: &C,
        presented: &[u8],
    ) -> Result<GatewayKey> {
        let hash = secret::hash(presented);
        // A secret of another shape is looked up all the same, so that no answer comes sooner than another.
        let Presented { id, hashed_secret } = rows::one(
            connection,
            Statement::from_sql_and_values(
                self.dialect.backend(),
                format!(
                    "SELECT {} AS id, hashed_secret FROM {} WHERE hashed_secret = {}",
                    text(self.dialect, "id"),
                    self.table,
                    self.dialect.parameter(1)
                ),
                [hash.clone().into()],
            ),
        )
        .await
        .map_err(db_context())?
        .ok_or(Error::NotAuthenticated)?;
        if !bool::from(hashed_secret.ct_eq(&hash)) {
            return Err(Error::NotAuthenticated);
        }
        // No row any more means that the key was deleted meanwhile.
        let used: Option<Stored> = rows::one(
            connection,
            Statement::from_sql_and_values(
                self.dialect.backend(),
                format!(
                    "UPDATE {} SET {} = {} WHERE id = {} AND hashed_secret = {} RETURNING {}",
                    self.table,
                    self.used,
                    self.dialect.now(),
                    self.id(1),
                    self.dialect.parameter(2),
                    self.columns()
                ),
                [id.into(), hash.into()],
            ),
        )
        .await
        .map_err(db_context())?;
        used.map(GatewayKey::from).ok_or(Error::NotAuthenticated)
    }

    /// The ids of the keys of a name: one, unless the table lost its unique index.
    async fn find<C: ConnectionTrait>(&self, connection: &C, name: &str) -> Result<Vec<String>> {
        rows::column(
            connection,
            Statement::from_sql_and_values(
                self.dialect.backend(),
                format!(
                    "SELECT {} AS id FROM {} WHERE lower(name) = {} ORDER BY 1",
                    text(self.dialect, "id"),
                    self.table,
                    self.dialect.parameter(1)
                ),
                [name.to_ascii_lowercase().into()],
            ),
        )
        .await
        .map_err(db_context())
    }

    fn id(&self, position: usize) -> String {
        let parameter = self.dialect.parameter(position);
        match self.dialect {
            Dialect::Postgres => format!("CAST({parameter} AS uuid)"),
            Dialect::Sqlite => parameter,
        }
    }

    fn columns(&self) -> String {
        let time = |column: &str| instant::as_text(self.dialect, column);
        format!(
            "COALESCE({}, '') AS id, {} AS name, {} AS secret_prefix, {} AS created_at, {} AS last_used_at",
            text(self.dialect, "id"),
            // A hand-made table on SQLite may hold anything.
            text(self.dialect, "name"),
            text(self.dialect, "secret_prefix"),
            time("created_at"),
            time(self.used)
        )
    }
}

/// A key as it is stored, without its secret.
#[derive(FromQueryResult)]
struct Stored {
    id: String,
    name: String,
    secret_prefix: String,
    created_at: String,
    last_used_at: Option<String>,
}

impl From<Stored> for GatewayKey {
    fn from(stored: Stored) -> Self {
        // A text that is no time is shown as it is.
        let instant = |written: String| {
            instant::parse(&written).map_or(written, |at| {
                at.to_rfc3339_opts(SecondsFormat::Micros, true)
            })
        };
        Self {
            id: stored.id,
            name: stored.name,
            secret_prefix: stored.secret_prefix,
            created_at: instant(stored.created_at),
            last_used_at: stored.last_used_at.map(instant),
        }
    }
}

/// What a secret is compared with.
#[derive(FromQueryResult)]
struct Presented {
    id: String,
    hashed_secret: Vec<u8>,
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("gateway keys")
}

fn taken(name: &Name) -> Error {
    Error::Rejected {
        what: format!("a gateway key named {name} exists already"),
    }
}

/// A random id, drawn from the same source as the secret.
fn uuid(rng: &mut impl CryptoRng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// Creates a key in a session's database, and records the run without the secret; gives back what changed too.
///
/// # Errors
/// Those of [`GatewayKeys::create`]; what connecting says.
pub async fn create(
    session: &Session,
    name: &Name,
    rng: &mut impl CryptoRng,
    now: DateTime<Utc>,
) -> Result<(Created, Vec<Change>)> {
    let (connection, keys) = open(session, Access::Write).await?;
    let created = keys.create(&connection, name, rng).await?;
    let changes = record(
        session,
        &connection,
        "gateway-key create",
        &keys,
        "insert",
        &created.key,
        now,
    )
    .await;
    Ok((created, changes))
}

/// The keys of a session's database.
///
/// # Errors
/// Those of [`GatewayKeys::list`]; what connecting says.
pub async fn list(session: &Session) -> Result<Vec<GatewayKey>> {
    let (connection, keys) = open(session, Access::Read).await?;
    keys.list(&connection).await
}

/// Deletes a key in a session's database; gives back what changed too.
///
/// # Errors
/// Those of [`GatewayKeys::delete`]; what connecting says.
pub async fn delete(
    session: &Session,
    id_or_name: &str,
    now: DateTime<Utc>,
) -> Result<(GatewayKey, Vec<Change>)> {
    let (connection, keys) = open(session, Access::Write).await?;
    let deleted = keys.delete(&connection, id_or_name).await?;
    let changes = record(
        session,
        &connection,
        "gateway-key delete",
        &keys,
        "delete",
        &deleted,
        now,
    )
    .await;
    Ok((deleted, changes))
}

/// Authenticates in a session's database.
///
/// # Errors
/// Those of [`GatewayKeys::authenticate`]; what connecting says.
pub async fn authenticate(session: &Session, presented: &[u8]) -> Result<GatewayKey> {
    let (connection, keys) = open(session, Access::Write).await?;
    keys.authenticate(&connection, presented).await
}

async fn open(session: &Session, access: Access) -> Result<(Connection, GatewayKeys)> {
    let connection = session.connect(access).await?;
    let keys = GatewayKeys::load(&connection, session.dialect()).await?;
    if access == Access::Write {
        prove_writable(session, &connection).await?;
    }
    Ok((connection, keys))
}

async fn record(
    session: &Session,
    connection: &Connection,
    kind: &str,
    keys: &GatewayKeys,
    action: &'static str,
    key: &GatewayKey,
    now: DateTime<Utc>,
) -> Vec<Change> {
    let mut report = Report {
        result: Some(CommandResult::answer(key)),
        ..Report::default()
    };
    count(&mut report.changes, keys.table, action, 1, [key.id.clone()]);
    session
        .record_run(connection, kind, now, RunOutcome::Done, &report)
        .await;
    report.changes
}
