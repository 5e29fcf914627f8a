//! Which migrations are applied, in a table that sea-orm's own tools read too.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, DbErr, DeriveIden, Statement};
use serde::Serialize;
use tollgate_migration::ledger::Target;
use tollgate_migration::{Created, Dialect, Track};

use crate::database::existing;
use crate::runner::checkpoint::{self, InProgress};

/// Whose work an applied migration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// Tollgate's own.
    #[default]
    Tollgate,
    /// It was there when the database was adopted; it never goes down.
    Adopted,
    /// Nothing was made, because it is the gateway's own to make; going down forgets the row.
    Gateway,
}

impl Origin {
    fn word(self) -> &'static str {
        match self {
            Self::Tollgate => "tollgate",
            Self::Adopted => "adopted",
            Self::Gateway => "gateway",
        }
    }

    /// From the stored word, or from the flag that earlier releases wrote.
    fn read(word: Option<&str>, adopted: bool) -> Self {
        match word {
            Some("adopted") => Self::Adopted,
            Some("gateway") => Self::Gateway,
            Some(_) => Self::Tollgate,
            None if adopted => Self::Adopted,
            None => Self::Tollgate,
        }
    }
}

/// One applied migration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The migration.
    pub version: String,
    /// When it was applied, in seconds since 1970.
    pub applied_at: i64,
    /// Whose work it is.
    pub origin: Origin,
    /// What it really created here.
    pub created: Created,
    /// How long it took.
    pub duration_ms: i64,
    /// How many rows it changed.
    pub rows: i64,
    /// The release that recorded it; empty where sea-orm's own tools did.
    pub tool_version: String,
}

impl Entry {
    /// Whether it was recognised rather than run.
    pub fn is_adopted(&self) -> bool {
        self.origin == Origin::Adopted
    }
}

/// The applied migrations of a track.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// Whether the table exists.
    pub exists: bool,
    /// By version, which sorts oldest first.
    pub entries: BTreeMap<String, Entry>,
    /// The step that has begun and not ended.
    pub in_progress: Option<InProgress>,
    /// The gateway version that boots next: what is past it waits, and is not pending.
    pub target: Option<Target>,
}

impl History {
    /// The last applied migration in the track's own order.
    pub fn current(&self, track: Track) -> Option<String> {
        track
            .migrations()
            .iter()
            .rev()
            .find(|migration| self.entries.contains_key(migration.version))
            .map(|migration| migration.version.to_owned())
    }

    /// What each applied migration created.
    pub fn created(&self) -> BTreeMap<String, Created> {
        self.entries
            .iter()
            .map(|(version, entry)| (version.clone(), entry.created.clone()))
            .collect()
    }

    /// Versions that this build does not know.
    pub fn unknown(&self, track: Track) -> Vec<String> {
        self.entries
            .keys()
            .filter(|version| {
                !track
                    .migrations()
                    .iter()
                    .any(|migration| migration.version == version.as_str())
            })
            .cloned()
            .collect()
    }

    /// Reads the history; an absent table is an empty history.
    pub async fn read<C: ConnectionTrait>(
        connection: &C,
        dialect: Dialect,
        track: Track,
    ) -> Result<Self, DbErr> {
        let table = track.history_table();
        if existing(connection, dialect, std::slice::from_ref(&table))
            .await?
            .is_empty()
        {
            return Ok(Self::default());
        }
        Self::read_existing(connection, dialect, track).await
    }

    /// Reads it again, as a step has left it; the target stays.
    pub(crate) async fn refresh<C: ConnectionTrait>(
        &mut self,
        connection: &C,
        dialect: Dialect,
        track: Track,
    ) -> Result<(), DbErr> {
        let target = self.target.take();
        *self = Self::read(connection, dialect, track).await?;
        self.target = target;
        Ok(())
    }

    /// Reads the history of a track whose table exists.
    pub(crate) async fn read_existing<C: ConnectionTrait>(
        connection: &C,
        dialect: Dialect,
        track: Track,
    ) -> Result<Self, DbErr> {
        let mut entries = BTreeMap::new();
        let sql = format!("SELECT * FROM {}", dialect.quote(&track.history_table()));
        for row in connection
            .query_all_raw(Statement::from_string(dialect.backend(), sql))
            .await?
        {
            let version: String = row.try_get("", "version")?;
            // sea-orm's own migrator writes the first two columns only.
            let created: Option<String> = row.try_get("", "created").unwrap_or_default();
            let created = created
                .map(|json| {
                    serde_json::from_str(&json).map_err(|error| {
                        DbErr::Custom(format!(
                            "the record of what {version} created cannot be read: {error}"
                        ))
                    })
                })
                .transpose()?
                .unwrap_or_default();
            entries.insert(
                version.clone(),
                Entry {
                    applied_at: row.try_get("", "applied_at")?,
                    origin: Origin::read(
                        row.try_get::<Option<String>>("", "origin")
                            .unwrap_or_default()
                            .as_deref(),
                        row.try_get::<Option<bool>>("", "adopted")
                            .unwrap_or_default()
                            .unwrap_or_default(),
                    ),
                    tool_version: row
                        .try_get::<Option<String>>("", "tool_version")
                        .unwrap_or_default()
                        .unwrap_or_default(),
                    created,
                    duration_ms: row
                        .try_get::<Option<i64>>("", "duration_ms")
                        .unwrap_or_default()
                        .unwrap_or_default(),
                    rows: row
                        .try_get::<Option<i64>>("", "rows")
                        .unwrap_or_default()
                        .unwrap_or_default(),
                    version,
                },
            );
        }
        let in_progress = checkpoint::in_progress(connection, dialect)
            .await?
            .into_iter()
            .find(|step| {
                track
                    .migrations()
                    .iter()
                    .any(|known| known.version == step.version)
            });
        Ok(Self {
            exists: true,
            entries,
            in_progress,
            target: None,
        })
    }
}

/// The statements that bring a track's history table up to date: sea-orm's two columns, then Tollgate's.
pub(crate) fn ensure(dialect: Dialect, track: Track, columns: Option<&[String]>) -> Vec<String> {
    let table = dialect.quote(&track.history_table());
    let mut statements = Vec::new();
    let own = [
        ("adopted", "boolean"),
        ("origin", "text"),
        ("created", "text"),
        ("duration_ms", "bigint"),
        ("rows", "bigint"),
        ("tool_version", "text"),
        ("applied_by", "text"),
    ];
    match columns {
        None => {
            let own: Vec<String> = own
                .iter()
                .map(|(name, kind)| format!("{} {kind}", dialect.quote(name)))
                .collect();
            statements.push(format!(
                "CREATE TABLE {table} (version varchar(255) NOT NULL PRIMARY KEY, \
                 applied_at bigint NOT NULL, {})",
                own.join(", ")
            ));
        }
        Some(columns) => {
            for (name, kind) in own {
                if !columns.iter().any(|column| column == name) {
                    statements.push(format!(
                        "ALTER TABLE {table} ADD COLUMN {} {kind}",
                        dialect.quote(name)
                    ));
                }
            }
        }
    }
    statements
}

/// The columns of a history table: sea-orm's two, then Tollgate's.
#[derive(DeriveIden)]
enum Column {
    Version,
    AppliedAt,
    Adopted,
    Origin,
    Created,
    DurationMs,
    Rows,
    ToolVersion,
    AppliedBy,
}

fn table(track: Track) -> Alias {
    Alias::new(track.history_table())
}

fn json(created: &Created) -> Result<String, DbErr> {
    serde_json::to_string(created).map_err(|error| DbErr::Custom(error.to_string()))
}

/// Records a migration as applied.
pub(crate) async fn record<C: ConnectionTrait>(
    connection: &C,
    track: Track,
    entry: &Entry,
) -> Result<(), DbErr> {
    let mut insert = Query::insert();
    insert
        .into_table(table(track))
        .columns([
            Column::Version,
            Column::AppliedAt,
            Column::Adopted,
            Column::Origin,
            Column::Created,
            Column::DurationMs,
            Column::Rows,
            Column::ToolVersion,
            Column::AppliedBy,
        ])
        .values([
            entry.version.as_str().into(),
            entry.applied_at.into(),
            entry.is_adopted().into(),
            entry.origin.word().into(),
            json(&entry.created)?.into(),
            entry.duration_ms.into(),
            entry.rows.into(),
            env!("CARGO_PKG_VERSION").into(),
            crate::process::applied_by().into(),
        ])
        .map_err(|error| DbErr::Query(sea_orm::RuntimeErr::Internal(error.to_string())))?;
    connection.execute(&insert).await?;
    Ok(())
}

/// Takes a migration out of the history, and answers how many rows that was.
pub(crate) async fn forget<C: ConnectionTrait>(
    connection: &C,
    track: Track,
    version: &str,
) -> Result<u64, DbErr> {
    let mut delete = Query::delete();
    delete
        .from_table(table(track))
        .and_where(Expr::col(Column::Version).eq(version));
    Ok(connection.execute(&delete).await?.rows_affected())
}

/// Writes over what is recorded of a migration: what it created, the ledger of then, and whose work it is.
pub(crate) async fn rewrite_created<C: ConnectionTrait>(
    connection: &C,
    track: Track,
    entry: &Entry,
) -> Result<(), DbErr> {
    let mut update = Query::update();
    update
        .table(table(track))
        .value(Column::Created, json(&entry.created)?)
        .value(Column::Origin, entry.origin.word())
        .and_where(Expr::col(Column::Version).eq(entry.version.as_str()));
    connection.execute(&update).await?;
    Ok(())
}
