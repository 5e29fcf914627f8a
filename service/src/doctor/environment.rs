//! What around a database would stop a command half-way, or make it lose what it cannot see: policies that hide rows, rights,
//! event triggers, publications, and tables that are somewhere else than where they are looked for.

mod needs;
mod own;
mod place;
mod server;

use tollgate_migration::golden::golden;
use tollgate_migration::{Catalog, Context, Dialect, Plan, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::{Finding, Severity};

pub(crate) use place::elsewhere;

/// A trouble of the environment.
pub(super) struct Trouble {
    pub code: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    pub effect: &'static str,
    pub resolve: &'static str,
}

/// Every one of them, by code.
pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "E001",
        severity: Severity::Blocking,
        title: "row-level security hides rows from this role",
        effect: "what a policy hides would be taken for absent: owners, keys and usage would be lost",
        resolve: "use a role with BYPASSRLS, or the tables' owner where row security is not forced",
    },
    Trouble {
        code: "E002",
        severity: Severity::Blocking,
        title: "this role may not do what a pending step needs",
        effect: "the step would fail half-way",
        resolve: "run as the tables' owner (or a member of that role), with CREATE on the schema",
    },
    Trouble {
        code: "E003",
        severity: Severity::Blocking,
        title: "an event trigger or a publication will stop a step",
        effect: "the step would fail half-way",
        resolve: "disable the event trigger for the migration, or give the table a replica identity",
    },
    Trouble {
        code: "E004",
        severity: Severity::Blocking,
        title: "the tables are in another schema than the one that is used",
        effect: "new tables here would hide the gateway's own: it would find none of its rows",
        resolve: "name the schema in the address: ?schema=NAME",
    },
    Trouble {
        code: "E005",
        severity: Severity::Warning,
        title: "a foreign key names a table that does not exist",
        effect: "a rebuild by rename left it; the rows have their parents, but nothing keeps them so, and their next write may fail",
        resolve: "`tollgate migrate up` repairs it where a step rebuilds the table, `tollgate schema repair` elsewhere; delete no row",
    },
];

pub(super) fn finding(code: &str, table: &str, what: Vec<String>) -> Finding {
    let trouble = TROUBLES.iter().find(|trouble| trouble.code == code);
    let text =
        |pick: fn(&Trouble) -> &'static str| trouble.map(pick).unwrap_or_default().to_owned();
    Finding {
        code: code.to_owned(),
        severity: trouble.map_or(Severity::Blocking, |trouble| trouble.severity),
        title: text(|trouble| trouble.title),
        table: table.to_owned(),
        column: None,
        rows: what.len() as u64,
        sample_ids: what,
        effect: text(|trouble| trouble.effect),
        resolve: text(|trouble| trouble.resolve),
    }
}

/// The refusal where the server itself has said that a policy hides rows of a table.
pub(crate) fn hidden(table: &str) -> Error {
    row_security(vec![finding("E001", table, Vec::new())])
}

fn row_security(findings: Vec<Finding>) -> Error {
    let mut tables: Vec<&str> = findings.iter().map(|found| found.table.as_str()).collect();
    tables.dedup();
    let resolve = findings.first().map(|found| found.resolve.clone());
    Error::Refused {
        code: "row_security",
        message: format!("row-level security hides rows of {}", tables.join(", ")),
        hint: format!("{}; nothing was changed", resolve.unwrap_or_default()),
        findings,
    }
}

/// The tables that a track's commands look into: its own, those of others that its migrations read, and Tollgate's.
pub(crate) fn tables(track: Track, dialect: Dialect) -> Vec<String> {
    let mut names: std::collections::BTreeSet<String> = track
        .migrations()
        .iter()
        .filter_map(|migration| golden(dialect, migration.version))
        .flat_map(|golden| {
            golden
                .keys()
                .filter_map(|object| object.strip_suffix(" table").map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .collect();
    names.extend(track.reads().iter().map(|&name| name.to_owned()));
    names.insert("migrations".to_owned());
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
    let found = server::hidden(connection, &tables(track, Dialect::Postgres))
        .await
        .map_err(Error::database("ask for row-level security"))?;
    if found.is_empty() {
        return Ok(());
    }
    Err(row_security(
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
    let mut found = own::squatters(track, &live.catalog);
    found.extend(lost_parents(track, &live.catalog));
    if connection.dialect() == Dialect::Sqlite {
        return Ok(found);
    }
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
