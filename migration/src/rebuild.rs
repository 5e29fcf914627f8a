//! SQLite's documented way to change what `ALTER TABLE` cannot: copy to a new table, drop, rename.
//!
//! The caller keeps `foreign_keys` off around the transaction, since dropping a parent would otherwise delete its
//! children, and runs `foreign_key_check` before the commit. It keeps `legacy_alter_table` on too: views, triggers and
//! foreign keys elsewhere go on naming the table, and the rename must not rewrite or refuse them.

use crate::catalog::sqlite_ddl::CreateTable;
use crate::catalog::{Index, Table};
use crate::dialect::Dialect;
use crate::plan::{Blocks, Statement};

/// The statements that rebuild a table under an edited definition, and that definition. `None` where the stored text
/// could not be read.
pub(crate) fn rebuild(
    name: &str,
    copy: &str,
    table: &Table,
    edit: impl FnOnce(&mut CreateTable),
) -> Option<(Vec<Statement>, String)> {
    let dialect = Dialect::Sqlite;
    let before = table.sql.as_deref().and_then(CreateTable::parse)?;
    let mut after = before.clone();
    edit(&mut after);
    let kept = |column: &str| {
        after
            .items
            .iter()
            .any(|item| item.column.as_deref() == Some(column))
    };
    let (old, new) = (dialect.quote(name), dialect.quote(copy));
    let (columns, values) = copied_columns(table, &before, &after, kept);
    let mut steps = Steps::default();
    steps.add(
        after.sql(&new),
        format!("rebuild {name}, with its indexes and triggers; what mentions it stays as it is"),
    );
    steps.add(
        format!("INSERT INTO {new} ({columns}) SELECT {values} FROM {old}"),
        format!("copy the rows of {name}"),
    );
    if before.is_autoincrement() {
        steps.count_on(name, copy);
    }
    steps.add(format!("DROP TABLE {old}"), format!("drop the old {name}"));
    steps.add(
        format!("ALTER TABLE {new} RENAME TO {old}"),
        format!("the new {name} takes its place"),
    );
    let gone: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .filter(|&column| !kept(column))
        .collect();
    for index in table
        .indexes
        .iter()
        .filter(|index| !index.definition.is_empty())
        .filter(|index| !gone.iter().any(|column| index_mentions(index, column)))
    {
        steps.add(index.definition.clone(), format!("index {}", index.name));
    }
    for trigger in &table.triggers {
        steps.add(
            trigger.definition.clone(),
            format!("trigger {}", trigger.name),
        );
    }
    Some((steps.0, after.sql(&old)))
}

/// The columns of the copy, and what of the old table's rows goes into them.
fn copied_columns(
    table: &Table,
    before: &CreateTable,
    after: &CreateTable,
    kept: impl Fn(&str) -> bool,
) -> (String, String) {
    let dialect = Dialect::Sqlite;
    let mut columns: Vec<String> = table
        .columns
        .iter()
        .filter(|column| !column.generated && kept(&column.name))
        .map(|column| dialect.quote(&column.name))
        .collect();
    // Rows keep their rowid: whoever remembers one (a checkpoint, an FTS table) goes on finding the same row.
    let counted = matches!(table.primary_key.as_slice(), [key]
        if table.column(key).is_some_and(|column| column.kind.eq_ignore_ascii_case("integer")));
    if before.has_rowid()
        && !counted
        && !table
            .columns
            .iter()
            .any(|column| column.name.eq_ignore_ascii_case("rowid"))
    {
        columns.insert(0, "rowid".to_owned());
    }
    // A column that comes back is empty: its default is for rows to come.
    let added: Vec<String> = after
        .items
        .iter()
        .filter_map(|item| item.column.as_deref())
        .filter(|&column| table.column(column).is_none())
        .map(|column| dialect.quote(column))
        .collect();
    let mut values = columns.clone();
    values.extend(added.iter().map(|_| "NULL".to_owned()));
    columns.extend(added);
    (columns.join(", "), values.join(", "))
}

/// The statements of a rebuild: the first says what it is, the others are its details.
#[derive(Default)]
struct Steps(Vec<Statement>);

impl Steps {
    fn add(&mut self, sql: String, purpose: String) {
        self.0.push(Statement {
            sql,
            purpose,
            blocks: Blocks::Everyone,
            counted: None,
            detail: !self.0.is_empty(),
        });
    }

    /// A dropped table forgets how far it has counted, and an id of a deleted row would be given out again.
    fn count_on(&mut self, name: &str, copy: &str) {
        let purpose = "the copy counts on where the original stood";
        let (name, copy) = (Dialect::Sqlite.text(name), Dialect::Sqlite.text(copy));
        self.add(
            format!("DELETE FROM sqlite_sequence WHERE name = {copy}"),
            purpose.to_owned(),
        );
        self.add(
            format!(
                "INSERT INTO sqlite_sequence (name, seq) SELECT {copy}, seq FROM sqlite_sequence WHERE name = {name}"
            ),
            purpose.to_owned(),
        );
    }
}

/// Whether an index is over the column, or its condition or an expression names it.
pub(crate) fn index_mentions(index: &Index, column: &str) -> bool {
    index.columns.iter().any(|name| name == column)
        // What stands before the first parenthesis are the names of the index and the table.
        || index
            .definition
            .split_once('(')
            .is_some_and(|(_, body)| mentions(body, column))
        || index
            .predicate
            .as_deref()
            .is_some_and(|predicate| mentions(predicate, column))
}

/// Whether the text names the column as a word of its own.
pub(crate) fn mentions(text: &str, column: &str) -> bool {
    crate::catalog::sqlite_ddl::words(text).contains(&column.to_lowercase())
}
