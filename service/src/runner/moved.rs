//! Whether a gateway has migrated since a step was applied.

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::ledger::MIGRATIONS;
use tollgate_migration::migration::slug_of;
use tollgate_migration::providers::coder;
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history::{Entry, Origin};

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
    // What was Coder's own contract is not undone here: its next boot would do it again, on rows that were made up.
    if entry.origin == Origin::Gateway && slug_of(&entry.version) == "provider_key_contract" {
        return Ok(words);
    }
    if entry.origin != Origin::Tollgate {
        return Ok(None);
    }
    if let Some(version) = number {
        // Coder's number is moved by hand-over too, and goes back with the step.
        let stands_for = match slug_of(&entry.version) {
            "provider_key_expand" => coder::EXPANDED,
            "provider_key_backfill" => coder::COPIED,
            "provider_key_contract" => coder::FINISHED,
            _ => i64::MAX,
        };
        // An earlier release took Coder's own contract for its own.
        let theirs = *version == coder::FINISHED
            && stands_for == coder::FINISHED
            && entry.created.moved_from.is_none();
        let moved = *version > stands_for || theirs;
        if *version == stands_for {
            *version -= 1;
        }
        return Ok(moved.then_some(words).flatten());
    }
    let moved = match &entry.created.ledger {
        Some(then) => ledger.newest().as_ref() != Some(then),
        // An earlier release wrote down when it ran, and nothing of the ledger.
        None if track == Track::GOVERNANCE => newer(connection, live, entry.applied_at)
            .await
            .map_err(Error::database("read the gateway's ledger"))?,
        None => false,
    };
    Ok(moved.then_some(words).flatten())
}

/// Whether Bifrost has recorded a migration after an instant, in seconds since 1970.
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
