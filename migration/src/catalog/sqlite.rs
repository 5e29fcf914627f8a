//! Reads SQLite's catalog: `sqlite_schema` for the stored text, table-valued PRAGMAs for what it means.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};

use super::sqlite_ddl::{self, ConstraintKind, CreateTable};
use super::{Catalog, Check, Column, Dependent, ForeignKey, Index, Table, Trigger};
use crate::ddl::OnDelete;
use crate::dialect::Dialect;

/// Virtual tables need their module to be looked at, and no track has one.
const ORDINARY: &str = "m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND m.sql NOT LIKE 'CREATE VIRTUAL%'";

async fn rows<T: FromQueryResult, C: ConnectionTrait>(
    connection: &C,
    sql: impl Into<String>,
) -> Result<Vec<T>, DbErr> {
    T::find_by_statement(Statement::from_string(Dialect::Sqlite.backend(), sql))
        .all(connection)
        .await
}

#[derive(FromQueryResult)]
struct TableRow {
    name: String,
    sql: String,
}

#[derive(FromQueryResult)]
struct NameRow {
    name: String,
}

#[derive(FromQueryResult)]
struct ColumnRow {
    table_name: String,
    name: String,
    kind: String,
    required: i32,
    default_expression: Option<String>,
    pk: i32,
    hidden: i32,
}

#[derive(FromQueryResult)]
struct ForeignKeyRow {
    table_name: String,
    id: i32,
    parent: String,
    column_name: String,
    parent_column: Option<String>,
    on_delete: String,
}

#[derive(FromQueryResult)]
struct IndexRow {
    table_name: String,
    name: String,
    is_unique: i32,
    origin: String,
    partial: i32,
    column_name: Option<String>,
    sql: Option<String>,
}

#[derive(FromQueryResult)]
struct ObjectRow {
    kind: String,
    name: String,
    table_name: String,
    sql: String,
}

/// Reads every ordinary table of the main database.
pub(super) async fn read<C: ConnectionTrait>(connection: &C) -> Result<Catalog, DbErr> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut parsed: BTreeMap<String, CreateTable> = BTreeMap::new();
    for TableRow { name, sql } in rows(
        connection,
        format!("SELECT m.name AS name, m.sql AS sql FROM sqlite_schema m WHERE {ORDINARY}"),
    )
    .await?
    {
        let mut table = Table::default();
        if let Some(create) = CreateTable::parse(&sql) {
            table.checks = checks(&create);
            parsed.insert(name.clone(), create);
        }
        table.sql = Some(sql);
        tables.insert(name, table);
    }
    columns(connection, &mut tables).await?;
    foreign_keys(connection, &mut tables, &parsed).await?;
    indexes(connection, &mut tables).await?;
    let (dependents, has_views_or_triggers) = dependents(connection, &mut tables).await?;
    let others = rows::<NameRow, _>(
        connection,
        "SELECT name FROM sqlite_schema WHERE name LIKE 'tollgate\\_%' ESCAPE '\\' \
         AND (type = 'view' OR type = 'table' AND sql LIKE 'CREATE VIRTUAL%')",
    )
    .await?
    .into_iter()
    .map(|row| row.name)
    .collect();
    Ok(Catalog {
        dialect: Dialect::Sqlite,
        others,
        schema: "main".to_owned(),
        tables,
        enums: BTreeMap::new(),
        dependents,
        has_views_or_triggers,
    })
}

/// The checks of a parsed table.
pub(super) fn checks(create: &CreateTable) -> Vec<Check> {
    create
        .constraints()
        .filter(|constraint| constraint.kind == ConstraintKind::Check)
        .map(|constraint| Check {
            name: constraint.name.clone(),
            definition: constraint.text.clone(),
            validated: true,
        })
        .collect()
}

async fn columns<C: ConnectionTrait>(
    connection: &C,
    tables: &mut BTreeMap<String, Table>,
) -> Result<(), DbErr> {
    let mut keys: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
    for row in rows::<ColumnRow, _>(
        connection,
        format!(
            "SELECT m.name AS table_name, x.name AS name, x.type AS kind, x.\"notnull\" AS required, \
             x.dflt_value AS default_expression, x.pk AS pk, x.hidden AS hidden \
             FROM sqlite_schema m, pragma_table_xinfo(m.name) x WHERE {ORDINARY} ORDER BY m.name, x.cid"
        ),
    )
    .await?
    {
        if row.pk > 0 {
            keys.entry(row.table_name.clone())
                .or_default()
                .insert(row.pk, row.name.clone());
        }
        if let Some(table) = tables.get_mut(&row.table_name) {
            table.columns.push(Column {
                name: row.name,
                kind: row.kind,
                not_null: row.required != 0,
                default: row.default_expression,
                generated: row.hidden > 1,
            });
        }
    }
    for (table, key) in keys {
        if let Some(table) = tables.get_mut(&table) {
            table.primary_key = key.into_values().collect();
        }
    }
    Ok(())
}

async fn foreign_keys<C: ConnectionTrait>(
    connection: &C,
    tables: &mut BTreeMap<String, Table>,
    parsed: &BTreeMap<String, CreateTable>,
) -> Result<(), DbErr> {
    let mut found: BTreeMap<(String, i32), ForeignKey> = BTreeMap::new();
    for row in rows::<ForeignKeyRow, _>(
        connection,
        format!(
            "SELECT m.name AS table_name, f.id AS id, f.\"table\" AS parent, f.\"from\" AS column_name, \
             f.\"to\" AS parent_column, f.on_delete AS on_delete \
             FROM sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE {ORDINARY} ORDER BY m.name, f.id, f.seq"
        ),
    )
    .await?
    {
        let key = found
            .entry((row.table_name, row.id))
            .or_insert(ForeignKey {
                name: None,
                columns: Vec::new(),
                parent: row.parent,
                parent_columns: Vec::new(),
                on_delete: match row.on_delete.as_str() {
                    "NO ACTION" => OnDelete::NoAction,
                    "CASCADE" => OnDelete::Cascade,
                    "SET NULL" => OnDelete::SetNull,
                    _ => OnDelete::Other,
                },
                validated: true,
                definition: String::new(),
            });
        key.columns.push(row.column_name);
        key.parent_columns.extend(row.parent_column);
    }
    for ((table_name, _), mut key) in found {
        let stored = parsed.get(&table_name).and_then(|create| {
            create.constraints().find(|constraint| {
                matches!(&constraint.kind, ConstraintKind::ForeignKey(columns) if *columns == key.columns)
            })
        });
        if let Some(stored) = stored {
            key.name.clone_from(&stored.name);
            key.definition.clone_from(&stored.text);
        }
        if let Some(table) = tables.get_mut(&table_name) {
            table.foreign_keys.push(key);
        }
    }
    Ok(())
}

async fn indexes<C: ConnectionTrait>(
    connection: &C,
    tables: &mut BTreeMap<String, Table>,
) -> Result<(), DbErr> {
    let mut found: BTreeMap<(String, String), Index> = BTreeMap::new();
    for row in rows::<IndexRow, _>(
        connection,
        format!(
            "SELECT m.name AS table_name, l.name AS name, l.\"unique\" AS is_unique, l.origin AS origin, \
             l.partial AS partial, i.name AS column_name, s.sql AS sql \
             FROM sqlite_schema m, pragma_index_list(m.name) l, pragma_index_info(l.name) i \
             LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name \
             WHERE {ORDINARY} ORDER BY m.name, l.name, i.seqno"
        ),
    )
    .await?
    {
        let (name, sql) = (row.name, row.sql);
        let partial = row.partial != 0;
        let entry = found.entry((row.table_name, name.clone()));
        let index = entry.or_insert_with(|| Index {
            name,
            unique: row.is_unique != 0,
            columns: Vec::new(),
            valid: true,
            constraint: row.origin != "c",
            predicate: sql.as_deref().filter(|_| partial).and_then(|sql| {
                let plain: String = sql
                    .chars()
                    .map(|c| if c.is_whitespace() { ' ' } else { c })
                    .collect();
                plain
                    .to_ascii_lowercase()
                    .find(" where ")
                    .map(|at| plain[at + 7..].trim().to_owned())
            }),
            definition: sql.unwrap_or_default(),
        });
        index.columns.push(row.column_name.unwrap_or_default());
    }
    for ((table_name, _), index) in found {
        if let Some(table) = tables.get_mut(&table_name) {
            table.indexes.push(index);
        }
    }
    Ok(())
}

/// SQLite records no dependencies, so a view or trigger depends on every column of a table that it mentions by name
/// together with the table. That may report one too many; it never misses one that names its column.
async fn dependents<C: ConnectionTrait>(
    connection: &C,
    tables: &mut BTreeMap<String, Table>,
) -> Result<(Vec<Dependent>, bool), DbErr> {
    let mut any = false;
    let mut dependents = children(tables);
    dependents.extend(generated_columns(tables));
    for ObjectRow {
        kind,
        name,
        table_name: on,
        sql,
    } in rows(
        connection,
        "SELECT type AS kind, name AS name, tbl_name AS table_name, sql AS sql FROM sqlite_schema \
         WHERE type IN ('view', 'trigger') ORDER BY name",
    )
    .await?
    {
        any = true;
        dependents.extend(mentioned(tables, &kind, &name, &sql));
        if kind == "trigger"
            && let Some(table) = tables.get_mut(&on)
        {
            table.triggers.push(Trigger {
                name,
                definition: sql,
            });
        }
    }
    Ok((dependents, any))
}

/// Tables whose foreign keys name a column.
fn children(tables: &BTreeMap<String, Table>) -> Vec<Dependent> {
    let mut dependents = Vec::new();
    for (child, table) in tables.iter() {
        for key in table.foreign_keys.iter().filter(|key| key.parent != *child) {
            for column in &key.parent_columns {
                dependents.push(Dependent {
                    kind: "foreign key of".to_owned(),
                    name: child.clone(),
                    table: key.parent.clone(),
                    column: column.clone(),
                });
            }
        }
    }
    dependents
}

fn generated_columns(tables: &BTreeMap<String, Table>) -> Vec<Dependent> {
    let mut dependents = Vec::new();
    for (table_name, table) in tables.iter() {
        let Some(create) = table.sql.as_deref().and_then(CreateTable::parse) else {
            continue;
        };
        for own in table.columns.iter().filter(|column| column.generated) {
            for item in create
                .items
                .iter()
                .filter(|item| item.column.as_deref() == Some(&own.name))
            {
                for column in table
                    .columns
                    .iter()
                    .filter(|column| column.name != own.name && item.mentions(&column.name))
                {
                    dependents.push(Dependent {
                        kind: "generated column".to_owned(),
                        name: own.name.clone(),
                        table: table_name.clone(),
                        column: column.name.clone(),
                    });
                }
            }
        }
    }
    dependents
}

/// What the text of a view or trigger mentions.
fn mentioned(
    tables: &BTreeMap<String, Table>,
    kind: &str,
    name: &str,
    sql: &str,
) -> Vec<Dependent> {
    let words = sqlite_ddl::words(sql);
    let on = |table: &str, column: &str| Dependent {
        kind: kind.to_owned(),
        name: name.to_owned(),
        table: table.to_owned(),
        column: column.to_owned(),
    };
    let mut dependents = Vec::new();
    for (table_name, table) in tables {
        if !words.contains(&table_name.to_lowercase()) {
            continue;
        }
        // `SELECT *` names none of them, and hangs on the table all the same.
        dependents.push(on(table_name, ""));
        let columns = table.columns.iter();
        dependents.extend(
            columns
                .filter(|column| words.contains(&column.name.to_lowercase()))
                .map(|column| on(table_name, &column.name)),
        );
    }
    dependents
}
