//! Whether a gateway has migrated since a step was applied.

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::context::slug_of;
use tollgate_migration::ledger::MIGRATIONS;
use tollgate_migration::{Context, Dialect, Ledger, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history::{Entry, Origin};
use crate::module::Module;

/// The gateway's version now, where its ledger is another one than when the step was recorded. A step of which nothing was
/// made has nothing that the gateway could stand on.
///
/// `number` is the ledger's where it is one, as the steps leave it that are undone before this one.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn since(
    connection: &Connection,
    track: Track,
    live: &Context,
    entry: &Entry,
    number: &mut Option<i64>,
) -> Result<Option<String>> {
    let ledger = live.ledger(track);
    if !ledger.owns() {
        return Ok(None);
    }
    let words = track.words(ledger);
    let module = Module::of(track);
    let slug = slug_of(&entry.version);
    let irrevocable = module.irrevocable == Some(slug);
    // The gateway's next boot would do it again, on rows that were made up.
    if entry.origin == Origin::Gateway && irrevocable {
        return Ok(words);
    }
    if entry.origin != Origin::Tollgate {
        return Ok(None);
    }
    if let Some(version) = number {
        // A number is moved by hand-over too, and goes back with the step.
        let stands_for = module
            .numbers
            .iter()
            .find(|(step, _)| *step == slug)
            .map_or(i64::MAX, |(_, number)| *number);
        // An earlier release took the gateway's own for Tollgate's.
        let theirs = *version == stands_for && irrevocable && entry.created.moved_from.is_none();
        let moved = *version > stands_for || theirs;
        if *version == stands_for {
            *version -= 1;
        }
        return Ok(moved.then_some(words).flatten());
    }
    let moved = match &entry.created.ledger {
        Some(then) => ledger.newest().as_ref() != Some(then),
        // An earlier release wrote down when it ran, and nothing of the ledger.
        None if matches!(ledger, Ledger::Ids(_)) => newer(connection, live, entry.applied_at)
            .await
            .map_err(Error::database("read the gateway's ledger"))?,
        None => false,
    };
    Ok(moved.then_some(words).flatten())
}

/// Whether the gateway has recorded a migration after an instant, in seconds since 1970.
async fn newer(
    connection: &Connection,
    live: &Context,
    than: i64,
) -> std::result::Result<bool, sea_orm::DbErr> {
    if !live.catalog.has_column(MIGRATIONS, "applied_at") {
        return Ok(false);
    }
    let condition = match live.catalog.dialect {
        Dialect::Postgres => format!("applied_at > to_timestamp({than})"),
        Dialect::Sqlite => format!("CAST(strftime('%s', applied_at) AS integer) > {than}"),
    };
    Ok(connection
        .query_one_raw(Statement::from_string(
            live.catalog.dialect.backend(),
            format!("SELECT 1 AS one FROM {MIGRATIONS} WHERE {condition} LIMIT 1"),
        ))
        .await?
        .is_some())
}
