//! What going down would lose.

use crate::context::Context;
use crate::dialect::Dialect;
use crate::plan::Created;

/// Data that a `down` cannot keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The table that loses.
    pub table: String,
    /// What happens to the rows, as one line.
    pub what: String,
    /// A query whose first column `id` names the rows.
    pub sql: String,
}

impl Loss {
    /// The rows of every table that a migration had created.
    pub fn of_tables(context: &Context, created: &Created) -> Vec<Self> {
        let dialect = context.catalog.dialect;
        created
            .tables
            .iter()
            .filter_map(|name| {
                let key = context.catalog.table(name)?.primary_key.first();
                let key = key.map_or_else(|| "1".to_owned(), |key| dialect.quote(key));
                Some(Self {
                    table: name.clone(),
                    what: "the table is dropped with its rows".to_owned(),
                    sql: format!("SELECT {key} AS id FROM {}", dialect.quote(name)),
                })
            })
            .collect()
    }
}

impl Loss {
    /// Values in columns, as `table.column`, that go with them: those that are not the column's default.
    pub fn of_columns(context: &Context, columns: &[String]) -> Vec<Self> {
        let catalog = &context.catalog;
        let dialect = catalog.dialect;
        columns
            .iter()
            .filter_map(|name| {
                let (table, name) = name.split_once('.')?;
                let column = catalog.column(table, name)?;
                let key = catalog.table(table)?.primary_key.first()?;
                let quoted = dialect.quote(name);
                let default = column.default.as_deref().unwrap_or("''");
                let default = default.split("::").next().unwrap_or(default);
                let default = match default {
                    "false" | "true" if dialect == Dialect::Sqlite => {
                        if default == "true" { "'1'" } else { "'0'" }.to_owned()
                    }
                    text if text.starts_with('\'') => text.to_owned(),
                    other => format!("'{other}'"),
                };
                Some(Self {
                    table: table.to_owned(),
                    what: format!("the column {name} is dropped with its values"),
                    sql: format!(
                        "SELECT {} AS id FROM {} WHERE {quoted} IS NOT NULL AND CAST({quoted} AS text) NOT IN ('', {default})",
                        dialect.quote(key),
                        dialect.quote(table)
                    ),
                })
            })
            .collect()
    }
}
