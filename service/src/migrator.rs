//! A track as sea-orm's own tools run it: `Migrator::up` and `run_cli` go through Tollgate's runner, with its hazard checks, its
//! lock and its record of what was created, on connections of its own to the database that they were given.

use std::marker::PhantomData;

use sea_orm::sea_query::{Alias, IntoIden};
use sea_orm::{ConnectionTrait, DatabaseExecutor, DbErr, DynIden, Statement};
use sea_orm_migration::migrator::Migration;
use sea_orm_migration::{IntoSchemaManagerConnection, MigrationTrait, MigratorTrait};
use tokio::runtime::Handle;
use tollgate_migration::{Dialect, Track};

pub use crate::tracks::{Billing, Governance, Providers};

use crate::database::Location;
use crate::error::Error;
use crate::observer::Silent;
use crate::report::Outcome;
use crate::runner::{Session, down, up};
use crate::shutdown::ShutdownSignal;

/// Names the track of a [`Migrator`].
pub trait OfTrack: Send + Sync + 'static {
    /// The track.
    const TRACK: Track;
}

/// A track for sea-orm's own tools.
///
/// `up` adopts a database that a gateway made, and stops before the first write where a hazard blocks; what an operator would
/// settle with a flag is settled with `tollgate migrate up`. `down` undoes what is on record, and refuses where rows cannot be
/// kept. Both refuse a transaction: backfills commit batch by batch. `fresh`, `refresh`, `reset` and `uninstall` would drop a
/// gateway's own tables, and always refuse. Reading what is applied writes nothing.
pub struct Migrator<T>(PhantomData<T>);

impl<T> Migrator<T> {
    /// For `run_cli`, which takes a value.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Migrator<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait::async_trait]
impl<T: OfTrack> MigratorTrait for Migrator<T> {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        T::TRACK
            .migrations()
            .iter()
            .map(|&migration| Box::new(migration) as Box<dyn MigrationTrait>)
            .collect()
    }

    fn migration_table_name() -> DynIden {
        Alias::new(T::TRACK.history_table()).into_iden()
    }

    async fn install<C: ConnectionTrait>(_db: &C) -> Result<(), DbErr> {
        Ok(())
    }

    async fn get_migration_with_status<C: ConnectionTrait>(
        db: &C,
    ) -> Result<Vec<Migration>, DbErr> {
        Self::get_migration_with_status_read_only(db).await
    }

    async fn up<'c, C>(db: C, steps: Option<u32>) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        let session = session(db.into_database_executor(), T::TRACK).await?;
        let options = up::Options {
            adopt: true,
            steps,
            ..up::Options::default()
        };
        apart(move |runtime| {
            let stop = ShutdownSignal::default();
            runtime.block_on(up::up(&session, &options, &Silent, &stop))
        })
        .await
    }

    async fn down<'c, C>(db: C, steps: Option<u32>) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        let session = session(db.into_database_executor(), T::TRACK).await?;
        let options = down::Options {
            // All of them, as the trait says it.
            steps: Some(steps.unwrap_or(u32::MAX)),
            ..down::Options::default()
        };
        apart(move |runtime| {
            let stop = ShutdownSignal::default();
            runtime.block_on(down::down(&session, &options, &Silent, &stop))
        })
        .await
    }

    async fn fresh<'c, C>(_db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        Err(refused("fresh", T::TRACK))
    }

    async fn refresh<'c, C>(_db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        Err(refused("refresh", T::TRACK))
    }

    async fn reset<'c, C>(_db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        Err(refused("reset", T::TRACK))
    }

    async fn uninstall<'c, C>(_db: C) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        Err(refused("uninstall", T::TRACK))
    }
}

/// A session with the database that a pool is of.
async fn session(db: DatabaseExecutor<'_>, track: Track) -> Result<Session, DbErr> {
    let DatabaseExecutor::Connection(pool) = db else {
        return Err(DbErr::Migration(format!(
            "track {track} cannot run inside a transaction: its backfills commit batch by batch; nothing was changed"
        )));
    };
    let mut location = Location::of(pool).map_err(|error| db_error(&error))?;
    if location.dialect() == Dialect::Postgres {
        // A pool sets it on each of its connections, and keeps it to itself.
        let sql = "SELECT current_setting('search_path') AS path";
        let row = pool
            .query_one_raw(Statement::from_string(Dialect::Postgres.backend(), sql))
            .await?;
        if let Some(row) = row {
            location = location.on_path(row.try_get("", "path")?);
        }
    }
    let mut session = Session::new(location);
    session.tracks = vec![track];
    Ok(session)
}

/// Runs the runner on a thread of its own: its future stays on one, and the trait's may move.
async fn apart(run: impl FnOnce(&Handle) -> Outcome + Send + 'static) -> Result<(), DbErr> {
    let runtime = Handle::current();
    let outcome = tokio::task::spawn_blocking(move || run(&runtime))
        .await
        .map_err(|error| DbErr::Migration(format!("the run has ended before its time: {error}")))?;
    outcome
        .error
        .as_ref()
        .map_or(Ok(()), |error| Err(db_error(error)))
}

/// The error with what to do, and with the findings where some block.
fn db_error(error: &Error) -> DbErr {
    let mut text = error.to_string();
    for finding in error.findings() {
        text.push_str(&format!(
            "; {} {}: {} rows of {} ({})",
            finding.code, finding.title, finding.rows, finding.table, finding.resolve
        ));
    }
    text.push_str("; ");
    text.push_str(&error.hint());
    DbErr::Migration(text)
}

fn refused(command: &str, track: Track) -> DbErr {
    DbErr::Migration(format!(
        "{command} would drop the gateway's own tables or the record of them; nothing was changed; \
         `tollgate migrate down --track {track}` undoes what Tollgate did"
    ))
}
