//! Reads SQLite's catalog: `sqlite_schema` for the stored text, table-valued PRAGMAs for what it means.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};

use super::sqlite_ddl::{self, ConstraintKind, CreateTable};
use super::{Catalog, Check, Column, Dependent, ForeignKey, Index, Table, Trigger};
use crate::ddl::OnDelete;
use crate::dialect::Dialect;

/// Virtual tables need their module to be looked at, and no track has one.
const ORDINARY: &str = "m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND m.sql NOT LIKE 'CREATE VIRTUAL%'";

async fn rows<C: ConnectionTrait>(connection: &C, sql: String) -> Result<Vec<QueryResult>, DbErr> {
    connection
        .query_all_raw(Statement::from_string(Dialect::Sqlite.backend(), sql))
        .await
}

/// Reads every ordinary table of the main database.
pub(super) async fn read<C: ConnectionTrait>(connection: &C) -> Result<Catalog, DbErr> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut parsed: BTreeMap<String, CreateTable> = BTreeMap::new();
    for row in rows(
        connection,
        format!("SELECT m.name AS name, m.sql AS sql FROM sqlite_schema m WHERE {ORDINARY}"),
    )
    .await?
    {
        let name: String = row.try_get("", "name")?;
        let sql: String = row.try_get("", "sql")?;
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
    let mut others = std::collections::BTreeSet::new();
    for row in rows(
        connection,
        "SELECT name FROM sqlite_schema WHERE name LIKE 'tollgate\\_%' ESCAPE '\\' \
         AND (type = 'view' OR type = 'table' AND sql LIKE 'CREATE VIRTUAL%')"
            .to_owned(),
    )
    .await?
    {
        others.insert(row.try_get("", "name")?);
    }
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
    for row in rows(
        connection,
        format!(
            "SELECT m.name AS table_name, x.name AS name, x.type AS kind, x.\"notnull\" AS required, \
             x.dflt_value AS default_expression, x.pk AS pk, x.hidden AS hidden \
             FROM sqlite_schema m, pragma_table_xinfo(m.name) x WHERE {ORDINARY} ORDER BY m.name, x.cid"
        ),
    )
    .await?
    {
        let table_name: String = row.try_get("", "table_name")?;
        let name: String = row.try_get("", "name")?;
        let position: i32 = row.try_get("", "pk")?;
        if position > 0 {
            keys.entry(table_name.clone())
                .or_default()
                .insert(position, name.clone());
        }
        if let Some(table) = tables.get_mut(&table_name) {
            table.columns.push(Column {
                name,
                kind: row.try_get("", "kind")?,
                not_null: row.try_get::<i32>("", "required")? != 0,
                default: row.try_get("", "default_expression")?,
                generated: row.try_get::<i32>("", "hidden")? > 1,
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
    for row in rows(
        connection,
        format!(
            "SELECT m.name AS table_name, f.id AS id, f.\"table\" AS parent, f.\"from\" AS column_name, \
             f.\"to\" AS parent_column, f.on_delete AS on_delete \
             FROM sqlite_schema m, pragma_foreign_key_list(m.name) f WHERE {ORDINARY} ORDER BY m.name, f.id, f.seq"
        ),
    )
    .await?
    {
        let action: String = row.try_get("", "on_delete")?;
        let key = found
            .entry((row.try_get("", "table_name")?, row.try_get("", "id")?))
            .or_insert(ForeignKey {
                name: None,
                columns: Vec::new(),
                parent: row.try_get("", "parent")?,
                parent_columns: Vec::new(),
                on_delete: match action.as_str() {
                    "NO ACTION" => OnDelete::NoAction,
                    "CASCADE" => OnDelete::Cascade,
                    "SET NULL" => OnDelete::SetNull,
                    _ => OnDelete::Other,
                },
                validated: true,
                definition: String::new(),
            });
        key.columns.push(row.try_get("", "column_name")?);
        let parent_column: Option<String> = row.try_get("", "parent_column")?;
        key.parent_columns.extend(parent_column);
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
    for row in rows(
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
        let table_name: String = row.try_get("", "table_name")?;
        let name: String = row.try_get("", "name")?;
        let sql: Option<String> = row.try_get("", "sql")?;
        let origin: String = row.try_get("", "origin")?;
        let partial = row.try_get::<i32>("", "partial")? != 0;
        let index = found.entry((table_name, name.clone())).or_insert(Index {
            name,
            unique: row.try_get::<i32>("", "is_unique")? != 0,
            columns: Vec::new(),
            valid: true,
            constraint: origin != "c",
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
        let column: Option<String> = row.try_get("", "column_name")?;
        index.columns.push(column.unwrap_or_default());
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
    for row in rows(
        connection,
        "SELECT type AS kind, name AS name, tbl_name AS table_name, sql AS sql FROM sqlite_schema \
         WHERE type IN ('view', 'trigger') ORDER BY name"
            .to_owned(),
    )
    .await?
    {
        any = true;
        let kind: String = row.try_get("", "kind")?;
        let name: String = row.try_get("", "name")?;
        let sql: String = row.try_get("", "sql")?;
        let mentioned = sqlite_ddl::words(&sql);
        for (table_name, table) in tables.iter() {
            if !mentioned.contains(&table_name.to_lowercase()) {
                continue;
            }
            // `SELECT *` names none of them, and hangs on the table all the same.
            dependents.push(Dependent {
                kind: kind.clone(),
                name: name.clone(),
                table: table_name.clone(),
                column: String::new(),
            });
            for column in &table.columns {
                if mentioned.contains(&column.name.to_lowercase()) {
                    dependents.push(Dependent {
                        kind: kind.clone(),
                        name: name.clone(),
                        table: table_name.clone(),
                        column: column.name.clone(),
                    });
                }
            }
        }
        if kind == "trigger" {
            let table_name: String = row.try_get("", "table_name")?;
            if let Some(table) = tables.get_mut(&table_name) {
                table.triggers.push(Trigger {
                    name,
                    definition: sql,
                });
            }
        }
    }
    Ok((dependents, any))
}
