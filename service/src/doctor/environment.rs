//! What around a database would stop a command half-way, or make it lose what it cannot see: policies that hide rows, rights,
//! event triggers, publications, and tables that are somewhere else than where they are looked for.

pub(crate) mod ledger;
mod needs;
mod own;
mod place;
mod server;

use tollgate_migration::golden::tables_of;
use tollgate_migration::ledger::{MIGRATIONS, SCHEMA_MIGRATIONS};
use tollgate_migration::{Catalog, Context, Dialect, Plan, Track};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::{Finding, Severity};

pub(crate) use place::{elsewhere, later_on_path};

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
    Trouble {
        code: "E006",
        severity: Severity::Blocking,
        title: "the gateway's ledger records a migration whose work is not there",
        effect: "what the gateway believes and what the schema is are two things; nothing can be built on either",
        resolve: "bring the schema to what the ledger says, with the gateway's own means or from a backup",
    },
    Trouble {
        code: "E007",
        severity: Severity::Blocking,
        title: "the ledger that is here is not one of this track's gateway",
        effect: "the tables would stand in another product's database, and its next migration may meet them",
        resolve: "name the right database, schema or --track; an embedding program keeps its own ledger in a schema of its own",
    },
    Trouble {
        code: "E008",
        severity: Severity::Warning,
        title: "an earlier Tollgate made what is the gateway's own to make",
        effect: "the gateway's migration will find it in another shape, or fail on it at its next boot",
        resolve: "`tollgate schema repair` drops it where it is empty",
    },
    Trouble {
        code: "P013",
        severity: Severity::Blocking,
        title: "Coder stands before migration 502: the cutover cannot be done in its stead",
        effect: "2.32 (462) and 2.33 (483) go through the whole cutover in one boot of 2.34 (509), and tables made before would stop that boot",
        resolve: "before that boot: `tollgate snapshot`, then `tollgate migrate prepare` with every server stopped; after it: `tollgate migrate prepare --finish`, `tollgate verify --snapshot`",
    },
    Trouble {
        code: "P014",
        severity: Severity::Blocking,
        title: "Coder's ledger is past what this Tollgate knows (532)",
        effect: "what a later migration changed would be written as if it had not",
        resolve: "use a newer Tollgate; reading works",
    },
    Trouble {
        code: "B003",
        severity: Severity::Blocking,
        title: "Molecule is past the feature: its own migration has dropped the column of billing modes",
        effect: "a column that nobody reads would only mislead",
        resolve: "nothing to do: modes are derived from the provider now",
    },
];

pub(crate) fn finding(code: &str, table: &str, what: Vec<String>) -> Finding {
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
    let mut found = ledger::blocking(track, &live);
    // What Coder does at its cutover does not concern rows that are as they were.
    found.retain(|finding| finding.code != "P013");
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
