//! Reads PostgreSQL's catalog. Everything resolves through `current_schema()`, never through a schema's name.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};

use super::{Catalog, Check, Column, Dependent, ForeignKey, Index, Table, Trigger};
use crate::ddl::OnDelete;
use crate::dialect::Dialect;

const TABLES: &str = "SELECT c.relname AS name, c.reltuples::bigint AS rows \
  FROM pg_class c WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relkind IN ('r','p')";

const COLUMNS: &str = "SELECT c.relname AS table_name, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS kind, \
  a.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS default_expression, a.attgenerated <> '' AS generated \
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND c.relkind IN ('r','p') AND a.attnum > 0 AND NOT a.attisdropped \
  ORDER BY c.relname, a.attnum";

/// `array_to_string` over column names is joined with a byte that no sane column name holds, since sea-orm would need
/// an extra feature to read an array.
const CONSTRAINTS: &str = "SELECT c.relname AS table_name, k.conname AS name, k.contype::text AS kind, k.convalidated AS validated, \
  pg_get_constraintdef(k.oid) AS definition, k.confdeltype::text AS on_delete, p.relname AS parent, \
  (SELECT string_agg(a.attname, E'\\x1f' ORDER BY u.position) FROM unnest(k.conkey) WITH ORDINALITY u(number, position) \
     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number) AS columns, \
  (SELECT string_agg(a.attname, E'\\x1f' ORDER BY u.position) FROM unnest(k.confkey) WITH ORDINALITY u(number, position) \
     JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number) AS parent_columns \
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_class p ON p.oid = k.confrelid \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND k.contype IN ('p','f','c','u') ORDER BY c.relname, k.conname";

const INDEXES: &str = "SELECT t.relname AS table_name, i.relname AS name, x.indisunique AS is_unique, \
  x.indisvalid AND x.indisready AS valid, pg_get_indexdef(x.indexrelid) AS definition, \
  pg_get_expr(x.indpred, x.indrelid) AS predicate, \
  EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p','u','x')) AS owned, \
  (SELECT string_agg(COALESCE(a.attname, ''), E'\\x1f' ORDER BY u.position) \
     FROM unnest(x.indkey::int2[]) WITH ORDINALITY u(number, position) \
     LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.number AND u.number > 0) AS columns \
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid \
  WHERE t.relnamespace = quote_ident(current_schema())::regnamespace AND t.relkind IN ('r','p') ORDER BY t.relname, i.relname";

const OTHERS: &str = "SELECT c.relname::text AS name FROM pg_class c WHERE c.relnamespace = quote_ident(current_schema())::regnamespace \
  AND c.relkind NOT IN ('r', 'p', 'i', 'I', 't') AND starts_with(c.relname::text, 'tollgate_') \
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))";

const ENUMS: &str = "SELECT t.typname AS name, e.enumlabel AS label FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid \
  WHERE t.typnamespace = quote_ident(current_schema())::regnamespace ORDER BY t.typname, e.enumsortorder";

const TRIGGERS: &str = "SELECT c.relname AS table_name, g.tgname AS name, pg_get_triggerdef(g.oid, true) AS definition \
  FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND NOT g.tgisinternal ORDER BY c.relname, g.tgname";

/// Views and rules hold one dependency per column they read; so do triggers that name a column (`UPDATE OF`, `WHEN`) and
/// generated columns. What a trigger's function says is opaque to the catalog, so its text is searched for the column.
const DEPENDENTS: &str = "SELECT DISTINCT CASE WHEN v.relkind = 'v' THEN 'view' WHEN v.relkind = 'm' THEN 'materialized view' ELSE 'rule' END AS kind, \
  CASE WHEN v.relkind IN ('v','m') THEN v.oid::regclass::text ELSE r.rulename END AS name, \
  c.relname AS table_name, a.attname AS column_name \
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
  JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid \
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND d.refobjsubid > 0 AND c.relkind IN ('r','p') \
  UNION SELECT 'trigger', g.tgname, c.relname, a.attname FROM pg_depend d \
  JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND d.objid = g.oid AND NOT g.tgisinternal \
  JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid \
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND d.refobjsubid > 0 \
  UNION SELECT 'trigger', g.tgname, c.relname, a.attname FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid \
  JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND NOT g.tgisinternal \
  AND a.attname ~ '^[A-Za-z0-9_]+$' AND p.prosrc ~ ('\\m' || a.attname || '\\M') \
  UNION SELECT 'generated column', own.attname, c.relname, a.attname FROM pg_depend d \
  JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
  JOIN pg_attribute own ON own.attrelid = f.adrelid AND own.attnum = f.adnum AND own.attgenerated <> '' \
  JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid \
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND a.attnum <> own.attnum \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace \
  UNION SELECT '', pg_describe_object(d.classid, d.objid, d.objsubid), c.relname, a.attname FROM pg_depend d \
  JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid \
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND d.refobjsubid > 0 \
  AND d.classid IN ('pg_policy'::regclass, 'pg_proc'::regclass, 'pg_publication_rel'::regclass) \
  UNION SELECT 'foreign key', k.conname, c.relname, a.attname FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid \
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.confkey) \
  WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND k.contype = 'f' AND k.conrelid <> k.confrelid ORDER BY 2, 3, 4";

fn names(joined: Option<String>) -> Vec<String> {
    joined.map_or_else(Vec::new, |text| {
        text.split('\u{1f}').map(str::to_owned).collect()
    })
}

async fn rows<T: FromQueryResult, C: ConnectionTrait>(
    connection: &C,
    sql: &str,
) -> Result<Vec<T>, DbErr> {
    T::find_by_statement(Statement::from_string(Dialect::Postgres.backend(), sql))
        .all(connection)
        .await
}

#[derive(FromQueryResult)]
struct SchemaRow {
    name: Option<String>,
}

#[derive(FromQueryResult)]
struct NameRow {
    name: String,
}

#[derive(FromQueryResult)]
struct TableRow {
    name: String,
    rows: i64,
}

#[derive(FromQueryResult)]
struct ColumnRow {
    table_name: String,
    name: String,
    kind: String,
    not_null: bool,
    default_expression: Option<String>,
    generated: bool,
}

#[derive(FromQueryResult)]
struct ConstraintRow {
    table_name: String,
    name: String,
    kind: String,
    validated: bool,
    definition: String,
    on_delete: String,
    parent: Option<String>,
    columns: Option<String>,
    parent_columns: Option<String>,
}

#[derive(FromQueryResult)]
struct IndexRow {
    table_name: String,
    name: String,
    is_unique: bool,
    valid: bool,
    definition: String,
    predicate: Option<String>,
    owned: bool,
    columns: Option<String>,
}

#[derive(FromQueryResult)]
struct TriggerRow {
    table_name: String,
    name: String,
    definition: String,
}

#[derive(FromQueryResult)]
struct EnumRow {
    name: String,
    label: String,
}

#[derive(FromQueryResult)]
struct DependentRow {
    kind: String,
    name: String,
    table_name: String,
    column_name: String,
}

/// Reads every ordinary table of the current schema.
pub(super) async fn read<C: ConnectionTrait>(connection: &C) -> Result<Catalog, DbErr> {
    let schema = rows::<SchemaRow, _>(connection, "SELECT current_schema()::text AS name")
        .await?
        .pop()
        .and_then(|row| row.name);
    let Some(schema) = schema else {
        return Err(DbErr::Custom(
            "the connection's search_path names no existing schema".to_owned(),
        ));
    };
    let tables = tables(connection).await?;
    let mut enums: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows::<EnumRow, _>(connection, ENUMS).await? {
        enums.entry(row.name).or_default().push(row.label);
    }
    let dependents = rows::<DependentRow, _>(connection, DEPENDENTS)
        .await?
        .into_iter()
        .map(|row| Dependent {
            kind: row.kind,
            name: row.name,
            table: row.table_name,
            column: row.column_name,
        })
        .collect();
    let others = rows::<NameRow, _>(connection, OTHERS)
        .await?
        .into_iter()
        .map(|row| row.name)
        .collect();
    Ok(Catalog {
        dialect: Dialect::Postgres,
        schema,
        tables,
        enums,
        dependents,
        others,
        has_views_or_triggers: false,
    })
}

async fn tables<C: ConnectionTrait>(connection: &C) -> Result<BTreeMap<String, Table>, DbErr> {
    let mut tables: BTreeMap<String, Table> = rows::<TableRow, _>(connection, TABLES)
        .await?
        .into_iter()
        .map(|row| {
            let table = Table {
                estimated_rows: row.rows,
                ..Table::default()
            };
            (row.name, table)
        })
        .collect();
    for row in rows::<ColumnRow, _>(connection, COLUMNS).await? {
        if let Some(table) = tables.get_mut(&row.table_name) {
            table.columns.push(Column {
                name: row.name,
                kind: row.kind,
                not_null: row.not_null,
                default: row.default_expression,
                generated: row.generated,
            });
        }
    }
    for row in rows::<ConstraintRow, _>(connection, CONSTRAINTS).await? {
        if let Some(table) = tables.get_mut(&row.table_name) {
            row.put_into(table);
        }
    }
    for row in rows::<IndexRow, _>(connection, INDEXES).await? {
        if let Some(table) = tables.get_mut(&row.table_name) {
            table.indexes.push(Index {
                name: row.name,
                unique: row.is_unique,
                columns: names(row.columns),
                valid: row.valid,
                constraint: row.owned,
                definition: row.definition,
                predicate: row.predicate,
            });
        }
    }
    for row in rows::<TriggerRow, _>(connection, TRIGGERS).await? {
        if let Some(table) = tables.get_mut(&row.table_name) {
            table.triggers.push(Trigger {
                name: row.name,
                definition: row.definition,
            });
        }
    }
    Ok(tables)
}

impl ConstraintRow {
    fn put_into(self, table: &mut Table) {
        let columns = names(self.columns);
        let definition = self.definition.trim_end_matches(" NOT VALID").to_owned();
        match self.kind.as_str() {
            "p" => table.primary_key = columns,
            "f" => table.foreign_keys.push(ForeignKey {
                name: Some(self.name),
                columns,
                parent: self.parent.unwrap_or_default(),
                parent_columns: names(self.parent_columns),
                on_delete: match self.on_delete.as_str() {
                    "a" => OnDelete::NoAction,
                    "c" => OnDelete::Cascade,
                    "n" => OnDelete::SetNull,
                    _ => OnDelete::Other,
                },
                validated: self.validated,
                definition,
            }),
            kind => {
                let constraints = if kind == "u" {
                    &mut table.uniques
                } else {
                    &mut table.checks
                };
                constraints.push(Check {
                    name: Some(self.name),
                    definition,
                    validated: self.validated,
                });
            }
        }
    }
}
