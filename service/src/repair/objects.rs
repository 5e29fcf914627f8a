//! What else `schema repair` puts right: indexes that a gateway's rebuild has lost (SQLite), a column that a boot drops and
//! stops without (G025), empty tables that an earlier Tollgate made in the gateway's place (E008), and columns of providers'
//! keys that it did not make at all.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ddl::{IndexSpec, TableSpec, column, index};
use tollgate_migration::governance::{
    BUDGETS, KEYS, OF_PROVIDERS, VIRTUAL_KEYS, described_since, legacy_tables, mcp, owners::Owner,
};
use tollgate_migration::plan::{Created, Step, Unit};
use tollgate_migration::{Catalog, Context, Dialect, Track};

use crate::connection::Connection;
use crate::doctor::boots;
use crate::doctor::environment::ledger;
use crate::drift::{self, Drift};
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
    statements: Vec<String>,
    how: How,
}

/// What has to be seen to besides its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nothing.
    Plain,
    /// A table goes, and is taken out of the record of who made it.
    Drops,
    /// PostgreSQL refuses it in a transaction.
    NonTransactional,
}

/// Indexes of the track's tables that are not there and whose columns are, by name or over the same columns.
fn lost_indexes(live: &Context) -> Vec<(String, IndexSpec)> {
    let catalog = &live.catalog;
    // What PostgreSQL lacks, nobody's rebuild has taken: an upgraded database never had it.
    if catalog.dialect == Dialect::Postgres {
        return Vec::new();
    }
    let shaped = live
        .ledger(Track::GOVERNANCE)
        .has("add_oauth_auth_mode_columns");
    let mut specs: Vec<TableSpec> = legacy_tables(catalog.dialect);
    specs.extend(described_since());
    if shaped {
        specs.extend(mcp::all());
    }
    let mut wanted: Vec<(String, Vec<IndexSpec>)> = specs
        .into_iter()
        .map(|spec| (spec.name, spec.indexes))
        .collect();
    wanted.push((
        BUDGETS.to_owned(),
        Owner::BOTH
            .map(|owner| {
                index(
                    &format!("idx_{BUDGETS}_{}", owner.column()),
                    &[owner.column()],
                )
            })
            .to_vec(),
    ));
    wanted.extend(mcp::lost_by_rebuild(shaped));
    let mut lost = Vec::new();
    for (name, indexes) in wanted {
        let Some(table) = catalog.table(&name) else {
            continue;
        };
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
                lost.push((name.clone(), index));
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
        statements: vec![format!("ALTER TABLE {KEYS} {change}")],
        how: How::Plain,
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

/// The flag that a boot drops, and stops without: as `migrate_calendar_aligned` fills it, through keys that are aligned
/// (`reference/bifrost.md` §9.3).
fn dropped_flag(live: &Context, table: &str) -> Repair {
    let catalog = &live.catalog;
    let dialect = catalog.dialect;
    let mut statements = vec![format!(
        "ALTER TABLE {table} ADD COLUMN calendar_aligned boolean DEFAULT false"
    )];
    let through = if table == BUDGETS {
        catalog
            .has_column(BUDGETS, "virtual_key_id")
            .then(|| format!("v.id = {BUDGETS}.virtual_key_id"))
    } else {
        catalog
            .has_column(VIRTUAL_KEYS, "rate_limit_id")
            .then(|| format!("v.rate_limit_id = {table}.id"))
    };
    if let Some(through) = through
        && catalog.has_column(VIRTUAL_KEYS, "calendar_aligned")
    {
        statements.push(format!(
            "UPDATE {table} SET calendar_aligned = {} WHERE EXISTS (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {through} AND {})",
            dialect.true_literal(),
            dialect.is_true("v.calendar_aligned"),
        ));
    }
    Repair {
        table: table.to_owned(),
        action: "add column",
        object: "calendar_aligned".to_owned(),
        statements,
        how: How::Plain,
    }
}

/// What the steps of Tollgate's made and somebody has taken away since: the statements of their own plans bring it back, for
/// a plan makes what is not there. What cannot come back without a rebuild is left, one line each.
fn lost_objects(live: &Context, track: Track, history: &History) -> (Vec<Repair>, Vec<String>) {
    let catalog = &live.catalog;
    let lost: Vec<Drift> = drift::examine(live, track, history)
        .into_iter()
        .filter(|drift| !drift.tolerated && drift.kind == "missing")
        .collect();
    let mut repairs = Vec::new();
    let mut left = Vec::new();
    if lost.is_empty() {
        return (repairs, left);
    }
    let planned: Vec<(&str, bool, String)> = track
        .migrations()
        .iter()
        .filter(|migration| {
            history
                .entries
                .get(migration.version)
                .is_some_and(|entry| entry.origin == Origin::Tollgate)
        })
        .flat_map(|migration| {
            let units = migration.plan_up(live).0.units;
            units.into_iter().map(|unit| (migration.version, unit))
        })
        .flat_map(|(version, unit)| match unit {
            Unit::NonTransactional(statement) => vec![(version, true, statement.sql)],
            Unit::Transaction(steps) => steps
                .into_iter()
                .filter_map(|step| match step {
                    Step::Run(statement) => Some((version, false, statement.sql)),
                    Step::Guard(_) | Step::InsertWithUuids(_) => None,
                })
                .collect(),
            Unit::Backfill(_) | Unit::CloneShared(_) | Unit::NormalizeHeaderNames(_) => Vec::new(),
        })
        .collect();
    for drift in lost {
        let found = [" index ", " foreign key ", " check "]
            .into_iter()
            .find_map(|kind| Some((kind, drift.object.split_once(kind)?.1)));
        let Some((kind, name)) = found else {
            continue;
        };
        let quoted = catalog.dialect.quote(name);
        let makes = |sql: &str| {
            let starts = if kind == " index " {
                sql.starts_with("CREATE INDEX")
                    || sql.starts_with("CREATE UNIQUE INDEX")
                    || sql.starts_with("DROP INDEX")
            } else {
                sql.starts_with("ALTER TABLE") && sql.contains(" CONSTRAINT ")
            };
            starts && (sql.contains(&quoted) || sql.split_whitespace().any(|word| word == name))
        };
        // A later step may have given it another form: its own counts.
        let last = planned
            .iter()
            .filter(|(.., sql)| makes(sql))
            .map(|(version, ..)| *version)
            .max();
        let of_it: Vec<_> = planned
            .iter()
            .filter(|(version, _, sql)| Some(*version) == last && makes(sql))
            .collect();
        if of_it.is_empty() {
            left.push(drift.line);
            continue;
        }
        // An index that failed half-way is dropped before it is built again; each on its own where a transaction is refused.
        let alone = of_it.iter().any(|(_, alone, _)| *alone);
        repairs.push(Repair {
            table: drift.table,
            action: if kind == " index " {
                "create index"
            } else {
                "add constraint"
            },
            object: name.to_owned(),
            statements: of_it.into_iter().map(|(.., sql)| sql.clone()).collect(),
            how: if alone {
                How::NonTransactional
            } else {
                How::Plain
            },
        });
    }
    (repairs, left)
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
    history: &History,
) -> Result<(Vec<Repair>, Vec<String>), DbErr> {
    let dialect = live.catalog.dialect;
    let (mut repairs, mut left) = lost_objects(live, track, history);
    if track == Track::GOVERNANCE && live.ledger(track).owns() {
        for (table, index) in lost_indexes(live) {
            if repairs
                .iter()
                .any(|repair: &Repair| repair.object == index.name)
            {
                continue;
            }
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
                statements: vec![index.sql(dialect, &table)],
                object: index.name,
                table,
                action: "create index",
                how: How::Plain,
            });
        }
        repairs.extend(
            boots::dropped_flags(live)
                .into_iter()
                .map(|table| dropped_flag(live, table)),
        );
    }
    if track == Track::GOVERNANCE && !live.ledger(track).owns() {
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
                statements: vec![format!("DROP TABLE {}", dialect.quote(&object))],
                action: "drop table",
                table: object.clone(),
                object,
                how: How::Drops,
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
    for repair in repairs
        .iter()
        .filter(|repair| repair.how != How::NonTransactional)
    {
        for statement in &repair.statements {
            transaction.execute_unprepared(statement).await?;
        }
    }
    let dropped: Vec<&str> = repairs
        .iter()
        .filter(|repair| repair.how == How::Drops)
        .map(|repair| repair.table.as_str())
        .collect();
    let catalog = if dropped.is_empty() {
        None
    } else {
        Some(Catalog::read(&transaction).await?)
    };
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
        // The gateway makes them when its time has come: that they are not there is no drift.
        created.tolerated.extend(
            catalog
                .iter()
                .flat_map(|catalog| drift::against(catalog, &entry.version))
                .filter(|difference| dropped.contains(&difference.table()))
                .map(|difference| (difference.object, difference.live)),
        );
        if created.tables.is_empty() && created.columns.is_empty() && created.indexes.is_empty() {
            created.gateway = true;
            entry.origin = Origin::Gateway;
        }
        history::rewrite_created(&transaction, dialect, track, &entry).await?;
    }
    transaction.commit().await?;
    for repair in repairs
        .iter()
        .filter(|repair| repair.how == How::NonTransactional)
    {
        for statement in &repair.statements {
            connection.execute_alone(statement).await?;
        }
    }
    Ok(())
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
