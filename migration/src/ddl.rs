//! What a migration creates, said once for both dialects.

use crate::dialect::Dialect;

/// A column type, by the meaning the upstream's struct gives it (`docs/upstream/bifrost.md` §0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `varchar(n)`; SQLite keeps the length in the DDL and does not enforce it.
    Varchar(u16),
    /// Text without a limit.
    Text,
    /// An amount: `numeric` on PostgreSQL, `real` on SQLite, as upstream chose.
    Amount,
    /// `boolean` on PostgreSQL, `numeric` holding 0 and 1 on SQLite.
    Bool,
    /// `timestamptz` on PostgreSQL, `datetime` holding text on SQLite.
    Time,
    /// A 64-bit integer.
    BigInt,
    /// A 32-bit integer.
    Int,
    /// A 64-bit float, `double precision` or `real`.
    Float,
    /// `uuid` on PostgreSQL, readable text on SQLite.
    Uuid,
    /// `jsonb` on PostgreSQL, text holding a document on SQLite.
    Json,
    /// `bytea` or `blob`.
    Bytes,
    /// A native enum of PostgreSQL, by name; on SQLite text, whose labels a check of the table says.
    Enum(&'static str),
    /// A 64-bit primary key that the database counts up.
    Serial,
    /// A type read from the live catalog, spelt as the database spells it.
    Live(String),
}

impl Type {
    /// The type's spelling in a column definition.
    pub fn sql(&self, dialect: Dialect) -> String {
        let fixed = match (dialect, self) {
            (_, Self::Varchar(length)) => return format!("varchar({length})"),
            (_, Self::Live(spelling)) => return spelling.clone(),
            (_, Self::Text) => "text",
            (Dialect::Postgres, Self::Amount) => "numeric",
            (Dialect::Sqlite, Self::Amount) => "real",
            (Dialect::Postgres, Self::Bool) => "boolean",
            (Dialect::Sqlite, Self::Bool) => "numeric",
            (Dialect::Postgres, Self::Time) => "timestamptz",
            (Dialect::Sqlite, Self::Time) => "datetime",
            (Dialect::Postgres, Self::BigInt) => "bigint",
            (Dialect::Sqlite, Self::BigInt) => "integer",
            (_, Self::Int) => "integer",
            (Dialect::Postgres, Self::Float) => "double precision",
            (Dialect::Sqlite, Self::Float) => "real",
            (Dialect::Postgres, Self::Uuid) => "uuid",
            (Dialect::Postgres, Self::Json) => "jsonb",
            (Dialect::Postgres, Self::Bytes) => "bytea",
            (Dialect::Sqlite, Self::Bytes) => "blob",
            (Dialect::Postgres, Self::Enum(name)) => name,
            (Dialect::Sqlite, Self::Uuid | Self::Json | Self::Enum(_)) => "text",
            (Dialect::Postgres, Self::Serial) => "bigserial",
            (Dialect::Sqlite, Self::Serial) => "integer",
        };
        fixed.to_owned()
    }
}

/// What happens to the referring rows when the row they refer to is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The delete fails.
    NoAction,
    /// They are deleted too.
    Cascade,
    /// They are set to NULL.
    SetNull,
    /// Anything else a hand may have written.
    Other,
}

impl OnDelete {
    /// The clause that says it, empty for the default.
    pub fn clause(self) -> &'static str {
        match self {
            Self::Cascade => " ON DELETE CASCADE",
            Self::SetNull => " ON DELETE SET NULL",
            Self::NoAction | Self::Other => "",
        }
    }
}

/// A column to be created.
#[derive(Clone, Debug)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// The default expression, as SQL.
    pub default: Option<String>,
}

/// A nullable column without a default.
pub fn column(name: &str, kind: Type) -> ColumnSpec {
    ColumnSpec {
        name: name.to_owned(),
        kind,
        not_null: false,
        default: None,
    }
}

impl ColumnSpec {
    /// The same column, refusing NULL.
    pub fn not_null(mut self) -> Self {
        self.not_null = true;
        self
    }

    /// The same column, with a default expression.
    pub fn default(mut self, expression: &str) -> Self {
        self.default = Some(expression.to_owned());
        self
    }

    /// The column as it stands in `CREATE TABLE` or after `ADD COLUMN`.
    pub fn sql(&self, dialect: Dialect) -> String {
        let mut sql = format!("{} {}", dialect.quote(&self.name), self.kind.sql(dialect));
        if self.kind == Type::Serial && dialect == Dialect::Sqlite {
            sql.push_str(" PRIMARY KEY AUTOINCREMENT");
        }
        if self.not_null {
            sql.push_str(" NOT NULL");
        }
        if let Some(default) = &self.default {
            sql.push_str(" DEFAULT ");
            sql.push_str(default);
        }
        sql
    }
}

/// A foreign key over one column.
#[derive(Clone, Debug)]
pub struct ForeignKeySpec {
    /// The constraint's name.
    pub name: String,
    /// The referring column.
    pub column: String,
    /// The table referred to.
    pub parent: String,
    /// The column referred to.
    pub parent_column: String,
    /// What a delete of the parent row does.
    pub on_delete: OnDelete,
}

/// A foreign key without a delete action.
pub fn foreign_key(name: &str, column: &str, parent: &str, parent_column: &str) -> ForeignKeySpec {
    ForeignKeySpec {
        name: name.to_owned(),
        column: column.to_owned(),
        parent: parent.to_owned(),
        parent_column: parent_column.to_owned(),
        on_delete: OnDelete::NoAction,
    }
}

impl ForeignKeySpec {
    /// The same key, deleting the referring rows with their parent.
    pub fn cascade(mut self) -> Self {
        self.on_delete = OnDelete::Cascade;
        self
    }

    /// The same key, emptying the referring column with its parent.
    pub fn set_null(mut self) -> Self {
        self.on_delete = OnDelete::SetNull;
        self
    }

    /// As a table constraint.
    pub fn table_constraint(&self, dialect: Dialect) -> String {
        format!(
            "CONSTRAINT {} FOREIGN KEY ({}) {}",
            dialect.quote(&self.name),
            dialect.quote(&self.column),
            self.references(dialect)
        )
    }

    /// As a column constraint, which is the only form SQLite's `ADD COLUMN` takes.
    pub fn column_constraint(&self, dialect: Dialect) -> String {
        format!(
            "CONSTRAINT {} {}",
            dialect.quote(&self.name),
            self.references(dialect)
        )
    }

    fn references(&self, dialect: Dialect) -> String {
        format!(
            "REFERENCES {}({}){}",
            dialect.quote(&self.parent),
            dialect.quote(&self.parent_column),
            self.on_delete.clause()
        )
    }
}

/// A check over one row.
#[derive(Clone, Debug)]
pub struct CheckSpec {
    /// The constraint's name.
    pub name: String,
    /// The condition, as SQL that both dialects read.
    pub expression: String,
}

impl CheckSpec {
    /// As a table or column constraint.
    pub fn constraint(&self, dialect: Dialect) -> String {
        format!(
            "CONSTRAINT {} CHECK ({})",
            dialect.quote(&self.name),
            self.expression
        )
    }
}

/// An index to be created.
#[derive(Clone, Debug)]
pub struct IndexSpec {
    /// Its name.
    pub name: String,
    /// The indexed columns, in order; an expression is one in brackets or a call.
    pub columns: Vec<String>,
    /// Whether equal values are refused.
    pub unique: bool,
    /// The condition of a partial index.
    pub predicate: Option<String>,
    /// Whether PostgreSQL keeps it as a constraint of the table. SQLite has an index of that name instead: its own
    /// constraints lose their names.
    pub constraint: bool,
}

/// A plain index over the columns.
pub fn index(name: &str, columns: &[&str]) -> IndexSpec {
    IndexSpec {
        name: name.to_owned(),
        columns: columns.iter().map(|&column| column.to_owned()).collect(),
        unique: false,
        predicate: None,
        constraint: false,
    }
}

/// A unique constraint over the columns.
pub fn unique_constraint(name: &str, columns: &[&str]) -> IndexSpec {
    IndexSpec {
        constraint: true,
        ..unique_index(name, columns)
    }
}

/// A unique index over the columns.
pub fn unique_index(name: &str, columns: &[&str]) -> IndexSpec {
    IndexSpec {
        unique: true,
        ..index(name, columns)
    }
}

impl IndexSpec {
    /// The same index, over the rows that meet the condition only.
    pub fn only_where(mut self, condition: &str) -> Self {
        self.predicate = Some(condition.to_owned());
        self
    }

    /// As a table constraint.
    pub fn constraint_clause(&self, dialect: Dialect) -> String {
        format!(
            "CONSTRAINT {} UNIQUE ({})",
            dialect.quote(&self.name),
            dialect.quote_all(&self.columns)
        )
    }

    /// The statement that creates it.
    pub fn sql(&self, dialect: Dialect, table: &str) -> String {
        self.statement(dialect, "", &dialect.quote(table))
    }

    /// The statement that builds it beside writers on PostgreSQL. It names the schema, for it runs outside a transaction and
    /// so without the settings of one.
    pub fn sql_concurrently(&self, schema: &str, table: &str) -> String {
        let dialect = Dialect::Postgres;
        let place = format!("{}.{}", dialect.quote(schema), dialect.quote(table));
        self.statement(dialect, "CONCURRENTLY ", &place)
    }

    fn statement(&self, dialect: Dialect, how: &str, place: &str) -> String {
        let condition = self
            .predicate
            .as_ref()
            .map_or_else(String::new, |condition| format!(" WHERE {condition}"));
        format!(
            "CREATE {}INDEX {how}{} ON {place}({}){condition}",
            if self.unique { "UNIQUE " } else { "" },
            dialect.quote(&self.name),
            self.body(dialect)
        )
    }

    /// The columns, quoted; an expression, which has a bracket, stands as it is.
    fn body(&self, dialect: Dialect) -> String {
        let parts: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                if column.contains('(') {
                    column.clone()
                } else {
                    dialect.quote(column)
                }
            })
            .collect();
        parts.join(", ")
    }
}

/// A table to be created.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnSpec>,
    /// Its primary key, empty where a [`Type::Serial`] column is the key.
    pub primary_key: Vec<String>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKeySpec>,
    /// Its checks.
    pub checks: Vec<CheckSpec>,
    /// Its indexes.
    pub indexes: Vec<IndexSpec>,
}

impl TableSpec {
    /// The columns of the primary key.
    pub fn key(&self) -> Vec<String> {
        if !self.primary_key.is_empty() {
            return self.primary_key.clone();
        }
        self.columns
            .iter()
            .filter(|column| column.kind == Type::Serial)
            .map(|column| column.name.clone())
            .collect()
    }

    /// The indexes that the `CREATE TABLE` statement does not make by itself.
    pub fn separate_indexes(&self, dialect: Dialect) -> impl Iterator<Item = &IndexSpec> {
        self.indexes
            .iter()
            .filter(move |index| !(index.constraint && dialect == Dialect::Postgres))
    }

    /// The `CREATE TABLE` statement, without the separate indexes.
    pub fn sql(&self, dialect: Dialect) -> String {
        let mut items: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.sql(dialect))
            .collect();
        let counted_in_place = dialect == Dialect::Sqlite && self.primary_key.is_empty();
        if !counted_in_place {
            items.push(format!("PRIMARY KEY ({})", dialect.quote_all(&self.key())));
        }
        items.extend(
            self.foreign_keys
                .iter()
                .map(|key| key.table_constraint(dialect)),
        );
        items.extend(self.checks.iter().map(|check| check.constraint(dialect)));
        if dialect == Dialect::Postgres {
            items.extend(
                self.indexes
                    .iter()
                    .filter(|index| index.constraint)
                    .map(|index| index.constraint_clause(dialect)),
            );
        }
        format!(
            "CREATE TABLE {} ({})",
            dialect.quote(&self.name),
            items.join(", ")
        )
    }
}
