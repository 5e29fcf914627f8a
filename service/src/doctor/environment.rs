//! What around a database would stop a command half-way, or make it lose what it cannot see: policies that hide rows, rights,
//! event triggers, publications, and tables that are somewhere else than where they are looked for.

pub(crate) mod ledger;
mod needs;
mod own;
pub(crate) mod place;
mod server;

use tollgate_migration::ledger::{MIGRATIONS, SCHEMA_MIGRATIONS};
use tollgate_migration::registry::tables_of;
use tollgate_migration::{Catalog, Context, Dialect, Plan, Track};

use crate::connection::Connection;
pub(crate) use crate::doctor::trouble::finding;
use crate::error::{Error, Result};
use crate::report::Finding;

pub(crate) use place::{elsewhere, later_on_path};

/// The tables that a track's commands look into: its own, those of others that its migrations read, and Tollgate's.
pub(crate) fn tables(track: Track, dialect: Dialect) -> Vec<String> {
    let mut names = tables_of(dialect, track);
    names.extend(track.reads().iter().map(|&name| name.to_owned()));
    names.extend([MIGRATIONS, SCHEMA_MIGRATIONS].map(str::to_owned));
    names.insert(track.history_table());
    names.into_iter().collect()
}

/// Refuses where a policy hides rows of a table of the track's from this role.
///
/// # Errors
/// [`Error::Refused`] with E001 for each table, its policies named.
pub(crate) async fn refuse_hidden(connection: &Connection, track: Track) -> Result<()> {
    if connection.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    let mut names = tables(track, Dialect::Postgres);
    names.extend(own::names(track));
    names.sort();
    names.dedup();
    let found = server::hidden(connection, &names)
        .await
        .map_err(Error::database("ask for row-level security"))?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::row_security(
        found
            .into_iter()
            .map(|(table, policies)| finding("E001", &table, policies))
            .collect(),
    ))
}

/// What will stop the plans half-way, and what is wrong whatever is planned. Row security is refused before this
/// ([`refuse_hidden`]), for no other question could be asked.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn examine(
    connection: &Connection,
    track: Track,
    live: &Context,
    plans: &[Plan],
) -> Result<Vec<Finding>> {
    let mut found = ledger::examine(track, live);
    found.extend(own::squatters(track, &live.catalog));
    found.extend(lost_parents(track, &live.catalog));
    if connection.dialect() == Dialect::Sqlite {
        return Ok(found);
    }
    // Ledgers, users and workspaces are names that several products have.
    let common: Vec<&str> = Track::all()
        .iter()
        .flat_map(|track| {
            track
                .common_names()
                .iter()
                .copied()
                .chain([track.ledger_table()])
        })
        .collect();
    let names = tables(track, Dialect::Postgres);
    let own = names
        .iter()
        .map(String::as_str)
        .filter(|name| !common.contains(name));
    let later = later_on_path(connection, own)
        .await
        .map_err(Error::database("look for the tables in other schemas"))?;
    // A key to a table that is there, and only elsewhere, has lost nothing.
    found.retain(|finding| {
        finding.code != "E005"
            || !finding
                .sample_ids
                .iter()
                .all(|lost| later.iter().any(|found| found.table == *lost))
    });
    found.extend(later);
    let needs = needs::of(track, live, plans);
    found.extend(
        server::missing_rights(connection, &needs)
            .await
            .map_err(Error::database("ask for this role's rights"))?,
    );
    found.extend(
        server::event_triggers(connection, &needs)
            .await
            .map_err(Error::database("ask for event triggers"))?,
    );
    found.extend(
        server::without_identity(connection, &tables(track, Dialect::Postgres))
            .await
            .map_err(Error::database("ask for publications"))?,
    );
    Ok(found)
}

/// Refuses where no row of a track's may be written: its ledger forbids it, or the database is past what is known.
///
/// # Errors
/// [`Error::Refused`] with what forbids it.
pub(crate) async fn refuse_unknown(connection: &Connection, track: Track) -> Result<()> {
    let live = Context::read(connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    let found = ledger::forbidding_rows(track, &live);
    if found.is_empty() {
        return Ok(());
    }
    if found.iter().any(|finding| finding.code == "G016") {
        let sign: Vec<String> = found
            .iter()
            .flat_map(|finding| finding.sample_ids.clone())
            .collect();
        let version = track
            .words(live.ledger(track))
            .map_or_else(String::new, |version| {
                format!(" ({} {version})", track.gateway())
            });
        return Err(Error::Refused {
            code: "past_known",
            message: format!(
                "the database is past what this version knows{version}: {} is there",
                sign.join(", ")
            ),
            hint: "use a newer Tollgate; nothing was changed".to_owned(),
            findings: found,
        });
    }
    Err(super::refusal(found))
}

/// Foreign keys of the track's tables to tables that are gone.
pub(crate) fn lost_parents(track: Track, catalog: &Catalog) -> Vec<Finding> {
    tables(track, catalog.dialect)
        .into_iter()
        .filter_map(|table| {
            let lost: Vec<String> = catalog
                .lost_parents(&table)
                .into_iter()
                .map(|(missing, _)| missing)
                .collect();
            (!lost.is_empty()).then(|| finding("E005", &table, lost))
        })
        .collect()
}

/// The plans of the migrations that are to run, each on what the one before will leave.
pub(crate) fn plans(
    live: &Context,
    migrations: &[&'static tollgate_migration::Migration],
) -> Vec<Plan> {
    let mut context = live.clone();
    migrations
        .iter()
        .map(|migration| {
            let (plan, after) = migration.plan_up(&context);
            context = after;
            plan
        })
        .collect()
}
