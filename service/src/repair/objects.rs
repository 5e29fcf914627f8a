//! What else `schema repair` puts right: indexes that a gateway's rebuild has lost (SQLite), a column that a boot drops and
//! stops without (G025), empty tables that an earlier Tollgate made in the gateway's place (E008), and columns of providers'
//! keys that it did not make at all.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ddl::IndexSpec;
use tollgate_migration::plan::{Step, Unit};
use tollgate_migration::{Catalog, Context, Dialect, Track};

use super::kind::{How, Repair};
use crate::connection::Connection;
use crate::doctor::environment::ledger;
use crate::drift::{self, Drift};
use crate::history::{self, History, Origin};
use crate::module::Module;
use crate::report::Change;

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
    let planned = planned(live, track, history);
    for drift in lost {
        let found = [" index ", " foreign key ", " check "]
            .into_iter()
            .find_map(|kind| Some((kind, drift.object.split_once(kind)?.1)));
        let Some((kind, name)) = found else {
            continue;
        };
        let quoted = catalog.dialect.quote(name);
        let makes = |sql: &str| {
            let names = sql.contains(&quoted) || sql.split_whitespace().any(|word| word == name);
            names && makes_a(kind, sql)
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

/// The statements of the steps that Tollgate applied, planned as if nothing of theirs was there: the version, whether a
/// transaction is refused, and the text.
fn planned(live: &Context, track: Track, history: &History) -> Vec<(&'static str, bool, String)> {
    track
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
            Unit::Backfill(_) | Unit::Paged(_) => Vec::new(),
        })
        .collect()
}

/// Whether a statement makes an object of that kind.
fn makes_a(kind: &str, sql: &str) -> bool {
    if kind == " index " {
        ["CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX"]
            .iter()
            .any(|start| sql.starts_with(start))
    } else {
        sql.starts_with("ALTER TABLE") && sql.contains(" CONSTRAINT ")
    }
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
    if live.ledger(track).owns() {
        for (table, index) in (Module::of(track).lost_indexes)(live) {
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
    }
    repairs.extend((Module::of(track).repairs)(live));
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
        history::rewrite_created(&transaction, track, &entry).await?;
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

pub(super) fn changes(repairs: &[Repair]) -> Vec<Change> {
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
