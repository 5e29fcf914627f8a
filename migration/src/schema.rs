//! The canonical form of a schema: one line per table, column, key, check, index and trigger, sorted, without the
//! accidents of spelling. Golden files are this form of a fresh database after each migration.

mod expression;

use std::collections::BTreeMap;

use crate::catalog::sqlite_ddl::CreateTable;
use crate::catalog::{Catalog, Column, ForeignKey, Index, Table};
use crate::ddl::OnDelete;
use crate::dialect::Dialect;

use expression::expression;

/// What a schema has, by `table kind name`, and how it is defined.
pub type Schema = BTreeMap<String, String>;

/// How the live schema differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `table kind name`.
    pub object: String,
    /// How it should be; `None` where it should not be there.
    pub expected: Option<String>,
    /// How it is; `None` where it is missing.
    pub live: Option<String>,
}

impl Difference {
    /// The table it is on.
    pub fn table(&self) -> &str {
        self.object.split(' ').next().unwrap_or_default()
    }

    /// `missing`, `unexpected` or `changed`.
    pub fn kind(&self) -> &'static str {
        match (&self.expected, &self.live) {
            (Some(_), None) => "missing",
            (None, _) => "unexpected",
            (Some(_), Some(_)) => "changed",
        }
    }

    /// One line that names it.
    pub fn line(&self) -> String {
        let show = |definition: &Option<String>| match definition.as_deref() {
            None | Some("") => "there".to_owned(),
            Some(text) => text.to_owned(),
        };
        match (&self.expected, &self.live) {
            (Some(expected), None) if expected.is_empty() => format!("{}: missing", self.object),
            (Some(expected), None) => format!("{}: missing, should be {expected}", self.object),
            (None, live) => format!("{}: unexpected, {}", self.object, show(live)),
            (expected, live) => format!(
                "{}: is {}, should be {}",
                self.object,
                show(live),
                show(expected)
            ),
        }
    }
}

/// The canonical form of the named tables.
pub fn canonical<'a>(catalog: &Catalog, tables: impl IntoIterator<Item = &'a str>) -> Schema {
    let mut schema = Schema::new();
    for name in tables {
        if let Some(table) = catalog.table(name) {
            describe(&mut schema, catalog.dialect, name, table);
        }
    }
    schema
}

fn describe(schema: &mut Schema, dialect: Dialect, name: &str, table: &Table) {
    schema.insert(format!("{name} table"), String::new());
    for column in &table.columns {
        schema.insert(
            format!("{name} column {}", column.name),
            column_definition(dialect, table, column),
        );
    }
    if !table.primary_key.is_empty() {
        schema.insert(
            format!("{name} primary key"),
            format!("({})", table.primary_key.join(", ")),
        );
    }
    for key in &table.foreign_keys {
        // A key without a name is named by its columns.
        let key_name = key.name.clone().unwrap_or_else(|| key.columns.join("_"));
        schema.insert(
            format!("{name} foreign key {key_name}"),
            foreign_key_definition(key),
        );
    }
    for (kind, constraints) in [("check", &table.checks), ("unique", &table.uniques)] {
        for (position, constraint) in constraints.iter().enumerate() {
            let constraint_name = constraint
                .name
                .clone()
                .unwrap_or_else(|| format!("#{}", position + 1));
            let valid = if constraint.validated {
                ""
            } else {
                ", not valid"
            };
            schema.insert(
                format!("{name} {kind} {constraint_name}"),
                format!("{}{valid}", expression(&constraint.definition)),
            );
        }
    }
    for index in table.indexes.iter().filter(|index| !index.constraint) {
        schema.insert(
            format!("{name} index {}", index.name),
            index_definition(index),
        );
    }
    for trigger in &table.triggers {
        schema.insert(
            format!("{name} trigger {}", trigger.name),
            trigger
                .definition
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
}

fn foreign_key_definition(key: &ForeignKey) -> String {
    let action = match key.on_delete {
        OnDelete::NoAction => "no action",
        OnDelete::Cascade => "cascade",
        OnDelete::SetNull => "set null",
        OnDelete::Other => "another action",
    };
    let valid = if key.validated { "" } else { ", not valid" };
    // What a key may say besides, whatever the backend's spelling.
    let clause = key.definition.to_lowercase();
    let mut besides = String::new();
    for word in [
        "on update cascade",
        "on update set null",
        "on update restrict",
        "match full",
        "deferrable initially deferred",
    ] {
        if clause.contains(word) {
            besides.push_str(&format!(", {word}"));
        }
    }
    if clause.contains("deferrable")
        && !clause.contains("initially deferred")
        && !clause.contains("not deferrable")
    {
        besides.push_str(", deferrable");
    }
    format!(
        "({}) to {} ({}), on delete {action}{besides}{valid}",
        key.columns.join(", "),
        key.parent,
        key.parent_columns.join(", ")
    )
}

fn index_definition(index: &Index) -> String {
    let mut definition = String::new();
    if index.unique {
        definition.push_str("unique ");
    }
    // Plain columns in plain order read the same everywhere; anything else stands as it is written.
    let plain = index.columns.join(", ");
    let columns = match index_body(&index.definition) {
        Some(written) if !written.eq_ignore_ascii_case(&plain) => format!("({written})"),
        _ => format!("({plain})"),
    };
    if let Some(method) = index_method(&index.definition) {
        definition.push_str(&format!("using {method} "));
    }
    definition.push_str(&columns);
    if let Some(predicate) = &index.predicate {
        definition.push_str(&format!(" where {}", expression(predicate)));
    }
    if !index.valid {
        definition.push_str(", invalid");
    }
    definition
}

/// What stands between the first parentheses of an index's definition, without quotes and casts.
fn index_body(definition: &str) -> Option<String> {
    let open = definition.find('(')?;
    let mut depth = 0usize;
    for (at, c) in definition[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    let body = &definition[open + 1..open + at];
                    return Some(if body.contains('(') {
                        expression(body)
                    } else {
                        let words: Vec<String> = body
                            .split(',')
                            .map(|part| part.replace(['`', '"'], "").trim().to_owned())
                            .collect();
                        words.join(", ")
                    });
                }
            }
            _ => {}
        }
    }
    None
}

/// The access method of an index, where it is not a B-tree.
fn index_method(definition: &str) -> Option<&str> {
    let (_, tail) = definition.split_once(" USING ")?;
    let method = tail.split([' ', '(']).next()?;
    (method != "btree").then_some(method)
}

fn column_definition(dialect: Dialect, table: &Table, column: &Column) -> String {
    let mut definition = kind(dialect, &column.kind);
    // A primary key refuses NULL on PostgreSQL whatever was written, and on SQLite gorm does not write it.
    if column.not_null || table.primary_key.contains(&column.name) {
        definition.push_str(" not null");
    }
    let counted = dialect == Dialect::Sqlite
        && table.primary_key == [column.name.clone()]
        && table
            .sql
            .as_deref()
            .and_then(CreateTable::parse)
            .is_some_and(|create| create.is_autoincrement());
    if column.generated {
        definition.push_str(" generated");
    } else if counted {
        definition.push_str(" default counted");
    } else if let Some(default) = column.default.as_deref().and_then(default) {
        definition.push_str(" default ");
        definition.push_str(&default);
    }
    definition
}

/// One spelling per type.
pub fn kind(dialect: Dialect, spelt: &str) -> String {
    let lower = spelt.to_lowercase();
    match dialect {
        Dialect::Postgres => match lower.as_str() {
            "decimal" => "numeric".to_owned(),
            "bool" => "boolean".to_owned(),
            "int8" => "bigint".to_owned(),
            "int4" => "integer".to_owned(),
            "timestamp with time zone" => "timestamptz".to_owned(),
            "bigserial" => "bigint".to_owned(),
            other => other.replace("character varying", "varchar"),
        },
        Dialect::Sqlite => match lower.as_str() {
            "decimal" | "bool" | "boolean" => "numeric".to_owned(),
            "bigint" | "int" => "integer".to_owned(),
            "timestamp" => "datetime".to_owned(),
            "float" | "double" => "real".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// One spelling per default; `None` for NULL, which is none.
fn default(spelt: &str) -> Option<String> {
    let text = spelt.trim();
    if text.starts_with("nextval(") {
        return Some("counted".to_owned());
    }
    let text = text.split("::").next().unwrap_or(text).trim();
    let text = text.trim_start_matches('(').trim_end_matches(')');
    let unquoted = text.replace('"', "'");
    match unquoted.to_lowercase().as_str() {
        "null" => None,
        "true" => Some("true".to_owned()),
        "false" => Some("false".to_owned()),
        _ => Some(unquoted),
    }
}

/// A definition as an earlier release wrote it down, in today's spelling.
pub fn respelt(definition: &str) -> String {
    let (definition, valid) = definition
        .strip_suffix(", not valid")
        .map_or((definition, ""), |definition| (definition, ", not valid"));
    match definition.split_once(" where ") {
        Some((index, condition)) => format!("{index} where {}{valid}", expression(condition)),
        None => format!("{}{valid}", expression(definition)),
    }
}

/// The form in which a schema stands in a file.
pub fn text(schema: &Schema) -> String {
    let mut text = String::new();
    for (object, definition) in schema {
        text.push_str(object);
        if !definition.is_empty() {
            text.push_str(": ");
            text.push_str(definition);
        }
        text.push('\n');
    }
    text
}

/// Reads that form.
pub fn parse(text: &str) -> Schema {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (object, definition) = line.split_once(": ").unwrap_or((line, ""));
            (object.to_owned(), definition.to_owned())
        })
        .collect()
}

/// How the live schema differs from the expected one, in order. Of a table that is missing or unexpected as a whole only
/// the table is named.
pub fn differences(expected: &Schema, live: &Schema) -> Vec<Difference> {
    let mut found: Vec<Difference> = Vec::new();
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(live.keys()).collect();
    for object in names {
        let (wanted, is) = (expected.get(object), live.get(object));
        if wanted == is {
            continue;
        }
        let table = format!("{} table", object.split(' ').next().unwrap_or_default());
        let whole = expected.contains_key(&table) != live.contains_key(&table);
        if whole && *object != table {
            continue;
        }
        found.push(Difference {
            object: object.clone(),
            expected: wanted.cloned(),
            live: is.cloned(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_type_are_one_and_others_are_not() {
        for (one, other) in [
            ("decimal", "numeric"),
            ("bool", "boolean"),
            ("character varying(50)", "varchar(50)"),
        ] {
            assert_eq!(kind(Dialect::Postgres, one), kind(Dialect::Postgres, other));
        }
        assert_ne!(
            kind(Dialect::Postgres, "varchar(50)"),
            kind(Dialect::Postgres, "text")
        );
        assert_ne!(
            kind(Dialect::Sqlite, "varchar(50)"),
            kind(Dialect::Sqlite, "text")
        );
        assert_eq!(kind(Dialect::Sqlite, "BOOLEAN"), "numeric");
    }

    #[test]
    fn spellings_of_one_default_are_one() {
        assert_eq!(
            default("'plain_text'::character varying"),
            Some("'plain_text'".to_owned())
        );
        assert_eq!(default("\"plain_text\""), Some("'plain_text'".to_owned()));
        assert_eq!(default("NULL"), None);
        assert_eq!(default("FALSE"), Some("false".to_owned()));
    }

    #[test]
    fn what_is_written_is_read() {
        let schema: Schema = [
            ("t table".to_owned(), String::new()),
            ("t column a".to_owned(), "text default 'a: b'".to_owned()),
        ]
        .into();
        assert_eq!(parse(&text(&schema)), schema);
    }

    #[test]
    fn of_a_missing_table_only_the_table_is_named() {
        let expected = parse("t table\nt column a: text\nu table\nu column b: text\n");
        let live = parse("u table\nu column b: varchar(5)\nu index i: (b)\n");
        let lines: Vec<String> = differences(&expected, &live)
            .iter()
            .map(Difference::line)
            .collect();
        assert_eq!(
            lines,
            [
                "t table: missing",
                "u column b: is varchar(5), should be text",
                "u index i: unexpected, (b)",
            ]
        );
    }
}
