//! What else `schema repair` puts right: indexes that a gateway's rebuild has lost (SQLite), a column that a boot drops and
//! stops without (G025), empty tables that an earlier Tollgate made in the gateway's place (E008), and columns of providers'
//! keys that it did not make at all.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ddl::{IndexSpec, TableSpec, column};
use tollgate_migration::governance::{
    BUDGETS, KEYS, OF_PROVIDERS, legacy_tables, mcp, owners::Owner,
};
use tollgate_migration::plan::Created;
use tollgate_migration::{Catalog, Context, Dialect, Track};

use crate::connection::Connection;
use crate::doctor::boots;
use crate::doctor::environment::ledger;
use crate::history::{self, History, Origin};
use crate::report::Change;

/// Whether a replicate key calls its deployments: a flag, which an earlier release made as text.
const ENDPOINT: &str = "replicate_use_deployments_endpoint";

/// One repair.
#[derive(Debug)]
pub(super) struct Repair {
    pub table: String,
    pub action: &'static str,
    pub object: String,
    sql: String,
    /// A table that goes is taken out of the record of who made it.
    drops: bool,
}

/// Indexes of the track's tables that are not there and whose columns are, by name or over the same columns.
fn lost_indexes(live: &Context) -> Vec<(String, IndexSpec)> {
    let catalog = &live.catalog;
    // What PostgreSQL lacks, nobody's rebuild has taken: an upgraded database never had it.
    if catalog.dialect == Dialect::Postgres {
        return Vec::new();
    }
    let shaped = live
        .ledger(Track::Governance)
        .has("add_oauth_auth_mode_columns");
    let mut specs: Vec<TableSpec> = legacy_tables();
    if shaped {
        specs.extend(mcp::all());
    }
    let mut lost = Vec::new();
    for spec in &specs {
        let Some(table) = catalog.table(&spec.name) else {
            continue;
        };
        let mut indexes = spec.indexes.clone();
        if spec.name == BUDGETS {
            indexes.extend(Owner::BOTH.map(|owner| {
                tollgate_migration::ddl::index(
                    &format!("idx_{BUDGETS}_{}", owner.column()),
                    &[owner.column()],
                )
            }));
        }
        for index in indexes {
            let there = table.index(&index.name).is_some()
                || table.indexes.iter().any(|live| {
                    live.columns == index.columns
                        && live.unique == index.unique
                        && live.predicate.is_some() == index.predicate.is_some()
                });
            let possible = index
                .columns
                .iter()
                .all(|column| table.column(column).is_some());
            if !there && possible {
                lost.push((spec.name.clone(), index));
            }
        }
    }
    lost
}

/// What an earlier release left out of the table of providers' keys where it made it: a gateway that boots on PostgreSQL
/// reads every column of it, and stops at the first that is not there.
fn bare_keys(live: &Context) -> Vec<Repair> {
    let catalog = &live.catalog;
    let ours = |created: &Created| created.tables.iter().any(|table| table == KEYS);
    if !catalog.has_table(KEYS) || !live.history.values().any(ours) {
        return Vec::new();
    }
    let repair = |action, column: &str, change: String| Repair {
        table: KEYS.to_owned(),
        action,
        object: column.to_owned(),
        sql: format!("ALTER TABLE {KEYS} {change}"),
        drops: false,
    };
    let mut repairs: Vec<Repair> = OF_PROVIDERS
        .into_iter()
        .filter(|(name, _)| !catalog.has_column(KEYS, name))
        .map(|(name, kind)| {
            let column = column(name, kind).sql(catalog.dialect);
            repair("add column", name, format!("ADD COLUMN {column}"))
        })
        .collect();
    let texts = catalog
        .column(KEYS, ENDPOINT)
        .is_some_and(|live| live.kind == "text");
    if texts && catalog.dialect == Dialect::Postgres {
        repairs.push(repair(
            "change type",
            ENDPOINT,
            format!("ALTER COLUMN {ENDPOINT} TYPE boolean USING CAST({ENDPOINT} AS boolean)"),
        ));
    }
    repairs
}

/// A query that finds a row where a unique index cannot be built.
fn duplicates(table: &str, index: &IndexSpec, dialect: Dialect) -> String {
    let columns = index
        .columns
        .iter()
        .map(|column| dialect.quote(column))
        .collect::<Vec<_>>()
        .join(", ");
    let not_null = index
        .columns
        .iter()
        .map(|column| format!("{} IS NOT NULL", dialect.quote(column)))
        .collect::<Vec<_>>()
        .join(" AND ");
    let predicate = index
        .predicate
        .as_ref()
        .map_or_else(String::new, |condition| format!(" AND ({condition})"));
    format!(
        "SELECT 1 AS one FROM {table} WHERE {not_null}{predicate} GROUP BY {columns} HAVING count(*) > 1 LIMIT 1"
    )
}

async fn is_empty(connection: &Connection, dialect: Dialect, sql: String) -> Result<bool, DbErr> {
    Ok(connection
        .query_one_raw(Statement::from_string(dialect.backend(), sql))
        .await?
        .is_none())
}

/// What can be done, and what must be left, one line each. As many questions as objects are lost: a handful.
pub(super) async fn find(
    connection: &Connection,
    track: Track,
    live: &Context,
) -> Result<(Vec<Repair>, Vec<String>), DbErr> {
    let dialect = live.catalog.dialect;
    let mut repairs = Vec::new();
    let mut left = Vec::new();
    if track == Track::Governance && live.ledger(track).owns() {
        for (table, index) in lost_indexes(live) {
            if index.unique
                && !is_empty(connection, dialect, duplicates(&table, &index, dialect)).await?
            {
                left.push(format!(
                    "{table}: unique index {}, for there are equal values",
                    index.name
                ));
                continue;
            }
            repairs.push(Repair {
                sql: index.sql(dialect, &table),
                object: index.name,
                table,
                action: "create index",
                drops: false,
            });
        }
        repairs.extend(boots::dropped_flags(live).into_iter().map(|table| Repair {
            table: table.to_owned(),
            action: "add column",
            object: "calendar_aligned".to_owned(),
            sql: format!("ALTER TABLE {table} ADD COLUMN calendar_aligned boolean DEFAULT false"),
            drops: false,
        }));
    }
    if track == Track::Governance && !live.ledger(track).owns() {
        repairs.extend(bare_keys(live));
    }
    for object in ledger::early(track, live) {
        let alone = live
            .catalog
            .table(&object)
            .is_some_and(|_| referred_to(&live.catalog, &object).is_none());
        if !alone {
            left.push(format!(
                "{object}: something refers to it; `tollgate migrate down` takes back the step that made it"
            ));
        } else if is_empty(
            connection,
            dialect,
            format!("SELECT 1 AS one FROM {} LIMIT 1", dialect.quote(&object)),
        )
        .await?
        {
            repairs.push(Repair {
                sql: format!("DROP TABLE {}", dialect.quote(&object)),
                action: "drop table",
                table: object.clone(),
                object,
                drops: true,
            });
        } else {
            left.push(format!("{object}: it has rows"));
        }
    }
    Ok((repairs, left))
}

/// A table with a foreign key to this one.
fn referred_to<'a>(catalog: &'a Catalog, table: &str) -> Option<&'a str> {
    catalog
        .tables
        .iter()
        .find(|(name, other)| {
            *name != table && other.foreign_keys.iter().any(|key| key.parent == table)
        })
        .map(|(name, _)| name.as_str())
}

/// Does it, in one transaction.
pub(super) async fn apply(
    connection: &Connection,
    track: Track,
    repairs: &[Repair],
    history: &History,
) -> Result<(), DbErr> {
    if repairs.is_empty() {
        return Ok(());
    }
    let dialect = connection.dialect();
    let transaction = connection.begin().await?;
    for repair in repairs {
        transaction.execute_unprepared(&repair.sql).await?;
    }
    let dropped: Vec<&str> = repairs
        .iter()
        .filter(|repair| repair.drops)
        .map(|repair| repair.table.as_str())
        .collect();
    for entry in history.entries.values() {
        let mut entry = entry.clone();
        if !entry
            .created
            .tables
            .iter()
            .any(|table| dropped.contains(&table.as_str()))
        {
            continue;
        }
        let is_of = |object: &String| {
            dropped.iter().any(|table| {
                object.starts_with(&format!("{table}."))
                    || object.starts_with(&format!("idx_{table}_"))
                    || object.starts_with(&format!("{table}_"))
            })
        };
        let created = &mut entry.created;
        created
            .tables
            .retain(|table| !dropped.contains(&table.as_str()));
        created.columns.retain(|object| !is_of(object));
        created.indexes.retain(|object| !is_of(object));
        created.foreign_keys.retain(|object| !is_of(object));
        created.checks.retain(|object| !is_of(object));
        if created.tables.is_empty() && created.columns.is_empty() && created.indexes.is_empty() {
            created.gateway = true;
            entry.origin = Origin::Gateway;
        }
        history::rewrite_created(&transaction, dialect, track, &entry).await?;
    }
    transaction.commit().await
}

pub(super) fn told(repairs: &[Repair]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for repair in repairs {
        match changes
            .iter_mut()
            .find(|change| change.table == repair.table && change.action == repair.action)
        {
            Some(change) => {
                change.rows += 1;
                change.sample_ids.push(repair.object.clone());
            }
            None => changes.push(Change {
                table: repair.table.clone(),
                action: repair.action.to_owned(),
                rows: 1,
                sample_ids: vec![repair.object.clone()],
            }),
        }
    }
    changes
}
