//! A copy of a database for a rehearsal: SQLite's file, PostgreSQL's tables of the tracks.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::TryStreamExt;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::catalog::Table;
use tollgate_migration::registry::tables_of;
use tollgate_migration::{Catalog, Dialect, Track};

use crate::connection::{Connection, Driver, query_failed};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::shutdown::ShutdownSignal;

/// What was copied.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    /// Tables; zero where the whole file was.
    pub tables: usize,
    /// Rows of them.
    pub rows: u64,
    /// Triggers and views of these tables, which are not.
    pub left_out: Vec<String>,
}

/// Copies a SQLite database to a new file, readable by its owner only.
pub(super) async fn file(source: &Connection, file: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|source| Error::File {
            path: file.display().to_string(),
            source,
        })?;
    let target = Dialect::Sqlite.text(&file.display().to_string());
    source
        .execute_unprepared(&format!("VACUUM INTO {target}"))
        .await
        .map(|_| ())
        .map_err(Error::database("copy the database for the rehearsal"))
}

/// Copies the tables that the tracks read or write, with those that they refer to, in the source's one view of them.
pub(super) async fn tables(
    source: &Connection,
    target: &Connection,
    tracks: &[Track],
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Result<Copied> {
    let catalog = Catalog::read(source)
        .await
        .map_err(Error::database("read the catalog"))?;
    let names = wanted(&catalog, tracks);
    let mut copied = Copied {
        tables: names.len(),
        ..Copied::default()
    };
    enums(target, &catalog).await?;
    for name in &names {
        let Some(table) = catalog.table(name) else {
            continue;
        };
        stop.check()?;
        for sql in create(name, table) {
            run(target, &sql).await.map_err(making(name))?;
        }
        observer.note(Event::Step(format!("copy {name}")));
        copied.rows += rows(source, target, name, table)
            .await
            .map_err(Error::database(format!("copy {name}")))?;
        for sql in own_constraints(name, table, &catalog.schema) {
            run(target, &sql).await.map_err(making(name))?;
        }
        let triggers = table.triggers.iter();
        copied
            .left_out
            .extend(triggers.map(|trigger| format!("trigger {} of {name}", trigger.name)));
    }
    for name in &names {
        let Some(table) = catalog.table(name) else {
            continue;
        };
        // Keys come when every parent has its rows.
        for key in table
            .foreign_keys
            .iter()
            .filter(|key| names.contains(&key.parent))
        {
            let sql = add_constraint(name, key.name.as_deref(), &key.definition, key.validated);
            run(target, &sql).await.map_err(making(name))?;
        }
    }
    copied.left_out.extend(views(&catalog, &names));
    run(target, "ANALYZE").await.map_err(making("statistics"))?;
    Ok(copied)
}

/// The types, of which a gateway has a handful.
async fn enums(target: &Connection, catalog: &Catalog) -> Result<()> {
    for (name, labels) in &catalog.enums {
        let labels: Vec<String> = labels
            .iter()
            .map(|label| Dialect::Postgres.text(label))
            .collect();
        let sql = format!(
            "CREATE TYPE {} AS ENUM ({})",
            Dialect::Postgres.quote(name),
            labels.join(", ")
        );
        run(target, &sql).await.map_err(making(name))?;
    }
    Ok(())
}

fn making(what: &str) -> impl FnOnce(DbErr) -> Error {
    Error::database(format!("make {what} in the scratch database"))
}

/// What hangs on the copied tables and is not copied. Their keys are there, and their triggers are said to be left out.
fn views(catalog: &Catalog, names: &BTreeSet<String>) -> BTreeSet<String> {
    let said: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| catalog.table(name))
        .flat_map(|table| {
            let keys = table
                .foreign_keys
                .iter()
                .filter_map(|key| key.name.as_deref());
            keys.chain(table.triggers.iter().map(|trigger| trigger.name.as_str()))
        })
        .collect();
    catalog
        .dependents
        .iter()
        .filter(|dependent| names.contains(&dependent.table))
        .filter(|dependent| !said.contains(dependent.name.as_str()))
        .map(|dependent| format!("{} {}", dependent.kind, dependent.name))
        .collect()
}

async fn run(target: &Connection, sql: &str) -> std::result::Result<(), DbErr> {
    target.execute_unprepared(sql).await.map(|_| ())
}

/// The tables of the chosen tracks, Tollgate's own, the gateway's ledger, and all that they refer to.
fn wanted(catalog: &Catalog, tracks: &[Track]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for track in tracks {
        names.insert(track.ledger_table().to_owned());
        names.extend(tables_of(catalog.dialect, *track));
        names.extend(track.reads().iter().map(|&name| name.to_owned()));
    }
    names.extend(
        catalog
            .tables
            .keys()
            .filter(|name| name.starts_with("tollgate_"))
            .cloned(),
    );
    names.retain(|name| catalog.has_table(name));
    loop {
        let parents: BTreeSet<String> = names
            .iter()
            .filter_map(|name| catalog.table(name))
            .flat_map(|table| &table.foreign_keys)
            .map(|key| key.parent.clone())
            .filter(|parent| catalog.has_table(parent) && !names.contains(parent))
            .collect();
        if parents.is_empty() {
            return names;
        }
        names.extend(parents);
    }
}

/// The table with its columns, and the sequences that count for them.
fn create(name: &str, table: &Table) -> Vec<String> {
    let quote = |word: &str| Dialect::Postgres.quote(word);
    let mut statements = Vec::new();
    let mut columns = Vec::new();
    for column in &table.columns {
        let mut definition = format!("{} {}", quote(&column.name), column.kind);
        if let Some(default) = &column.default {
            if column.generated {
                definition.push_str(&format!(" GENERATED ALWAYS AS ({default}) STORED"));
            } else if default.starts_with("nextval(") {
                let sequence = format!("{name}_{}_seq", column.name);
                statements.push(format!("CREATE SEQUENCE {}", quote(&sequence)));
                let literal = Dialect::Postgres.text(&quote(&sequence));
                definition.push_str(&format!(" DEFAULT nextval({literal}::regclass)"));
            } else {
                definition.push_str(&format!(" DEFAULT {default}"));
            }
        }
        if column.not_null {
            definition.push_str(" NOT NULL");
        }
        columns.push(definition);
    }
    statements.push(format!(
        "CREATE TABLE {} ({})",
        quote(name),
        columns.join(", ")
    ));
    statements
}

fn add_constraint(table: &str, name: Option<&str>, clause: &str, validated: bool) -> String {
    let named = name.map_or_else(String::new, |name| {
        format!("CONSTRAINT {} ", Dialect::Postgres.quote(name))
    });
    let late = if validated || clause.ends_with("NOT VALID") {
        ""
    } else {
        " NOT VALID"
    };
    format!(
        "ALTER TABLE {} ADD {named}{clause}{late}",
        Dialect::Postgres.quote(table)
    )
}

/// Primary key, unique constraints, checks and indexes.
fn own_constraints(name: &str, table: &Table, schema: &str) -> Vec<String> {
    let mut statements = Vec::new();
    if !table.primary_key.is_empty() {
        let index = table
            .indexes
            .iter()
            .find(|index| index.constraint && index.unique && index.columns == table.primary_key);
        let clause = format!(
            "PRIMARY KEY ({})",
            Dialect::Postgres.quote_all(&table.primary_key)
        );
        let constraint = index.map(|index| index.name.as_str());
        statements.push(add_constraint(name, constraint, &clause, true));
    }
    for constraint in table.uniques.iter().chain(&table.checks) {
        statements.push(add_constraint(
            name,
            constraint.name.as_deref(),
            &constraint.definition,
            constraint.validated,
        ));
    }
    for index in table
        .indexes
        .iter()
        .filter(|index| !index.constraint && index.valid)
    {
        // The server writes the schema before the table, always.
        let unqualified = [schema.to_owned(), Dialect::Postgres.quote(schema)]
            .iter()
            .fold(index.definition.clone(), |definition, schema| {
                definition.replacen(&format!(" ON {schema}."), " ON ", 1)
            });
        statements.push(unqualified);
    }
    statements
}

/// Streams a table from one server to the other, and brings its sequences to where they were.
async fn rows(
    source: &Connection,
    target: &Connection,
    name: &str,
    table: &Table,
) -> std::result::Result<u64, DbErr> {
    let quote = |word: &str| Dialect::Postgres.quote(word);
    let (Driver::Postgres(mut from), Driver::Postgres(mut to)) =
        (source.driver().await?, target.driver().await?)
    else {
        return Err(DbErr::Custom("COPY is PostgreSQL's".to_owned()));
    };
    let columns: Vec<String> = table
        .columns
        .iter()
        .filter(|column| !column.generated)
        .map(|column| quote(&column.name))
        .collect();
    let columns = columns.join(", ");
    let copied = {
        let (from, reads) = from.parts();
        let (to, writes) = to.parts();
        let mut reading = from
            .copy_out_raw(&format!(
                "COPY (SELECT {columns} FROM {}) TO STDOUT",
                quote(name)
            ))
            .await
            .map_err(query_failed)?;
        let mut writing = to
            .copy_in_raw(&format!("COPY {} ({columns}) FROM STDIN", quote(name)))
            .await
            .map_err(query_failed)?;
        while let Some(chunk) = reads.over(reading.try_next()).await.map_err(query_failed)? {
            writes
                .over(async { writing.send(chunk).await.map(|_| ()) })
                .await
                .map_err(query_failed)?;
        }
        writing.finish().await.map_err(query_failed)?
    };
    from.finish().await?;
    to.finish().await?;
    for column in &table.columns {
        let counted = column
            .default
            .as_deref()
            .is_some_and(|default| default.starts_with("nextval("));
        if counted {
            let sequence = Dialect::Postgres.text(&quote(&format!("{name}_{}_seq", column.name)));
            target
                .query_one_raw(Statement::from_string(
                    Dialect::Postgres.backend(),
                    format!(
                        "SELECT setval({sequence}::regclass, GREATEST(1, (SELECT max({}) FROM {})))",
                        quote(&column.name),
                        quote(name)
                    ),
                ))
                .await?;
        }
    }
    Ok(copied)
}
