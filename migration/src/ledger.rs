//! What a gateway has recorded of its own migrations (`docs/upstream/bifrost.md` §9.1, `coder.md` A8, `molecule.md` B6): its
//! ledger. Where it is there, the gateway owns the database. It is read, and but for a hand-over never written.

pub mod target;

pub use target::Target;

use sea_orm::{ConnectionTrait, DbErr, Statement};

use crate::catalog::Catalog;

/// The ledger of ids, one row for each migration, as gormigrate keeps it.
pub const MIGRATIONS: &str = "migrations";
/// The ledger of one number, as golang-migrate keeps it, or of file names: told apart by their columns.
pub const SCHEMA_MIGRATIONS: &str = "schema_migrations";

/// The ledger of one track's gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ledger {
    /// There is none: the database is an embedding program's own, or fresh.
    #[default]
    None,
    /// A table of that name is there, and it is another product's.
    Anothers(&'static str),
    /// The ids of its migrations, oldest first.
    Ids(Vec<String>),
    /// The number of the newest migration, and whether it failed half-way.
    Number {
        /// The number.
        version: i64,
        /// A migration began and did not end.
        dirty: bool,
    },
    /// The names of its files, in order.
    Files(Vec<String>),
}

impl Ledger {
    /// Whether the gateway owns the database.
    pub fn owns(&self) -> bool {
        matches!(self, Self::Ids(_) | Self::Number { .. } | Self::Files(_))
    }

    /// The newest entry, as a text.
    pub fn newest(&self) -> Option<String> {
        match self {
            Self::Ids(ids) => ids.last().cloned(),
            Self::Number { version, .. } => Some(version.to_string()),
            Self::Files(files) => files.last().cloned(),
            Self::None | Self::Anothers(_) => None,
        }
    }

    /// Whether a migration of that id is recorded; where the ledger counts, of that number.
    pub fn has(&self, id: &str) -> bool {
        match self {
            Self::Ids(entries) | Self::Files(entries) => entries.iter().any(|entry| entry == id),
            Self::Number { version, .. } => {
                id.parse::<i64>().is_ok_and(|number| number <= *version)
            }
            Self::None | Self::Anothers(_) => false,
        }
    }

    /// The number, where the ledger counts.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number { version, .. } => Some(*version),
            _ => None,
        }
    }

    /// Where `schema_migrations` has the columns of neither form it is another product's.
    pub fn odd(catalog: &Catalog) -> Self {
        let has = |column: &str| catalog.has_column(SCHEMA_MIGRATIONS, column);
        let is_odd = catalog.has_table(SCHEMA_MIGRATIONS)
            && !(has("version") && has("dirty"))
            && !is_text(catalog, SCHEMA_MIGRATIONS, "filename");
        if is_odd {
            Self::Anothers(SCHEMA_MIGRATIONS)
        } else {
            Self::None
        }
    }

    /// Whether a migration failed half-way.
    pub fn is_dirty(&self) -> bool {
        matches!(self, Self::Number { dirty: true, .. })
    }
}

/// Both tables, as they are.
#[derive(Clone, Debug, Default)]
pub struct Ledgers {
    /// The ids of `migrations`; `None` where there is no such table, or it has no `id` that is a text.
    pub ids: Option<Vec<String>>,
    /// The number of `schema_migrations`, and whether it is dirty; `None` where it has no such columns.
    pub number: Option<(i64, bool)>,
    /// The files of `schema_migrations`, in order; `None` where it has no such column.
    pub files: Option<Vec<String>>,
}

impl Ledgers {
    /// Reads them. A gateway that migrates keeps its ledger locked: whoever cannot wait takes its advisory key first.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub async fn read<C: ConnectionTrait>(
        connection: &C,
        catalog: &Catalog,
    ) -> Result<Self, DbErr> {
        let backend = catalog.dialect.backend();
        let texts = async |sql: String| -> Result<Vec<String>, DbErr> {
            let mut found = Vec::new();
            for row in connection
                .query_all_raw(Statement::from_string(backend, sql))
                .await?
            {
                found.extend(row.try_get::<Option<String>>("", "entry")?);
            }
            Ok(found)
        };
        let mut ledgers = Self::default();
        if is_text(catalog, MIGRATIONS, "id") {
            // Older ledgers have the id alone; there the order is that of the rows.
            let order = match (catalog.has_column(MIGRATIONS, "sequence"), catalog.dialect) {
                (true, _) => "sequence",
                (false, crate::dialect::Dialect::Sqlite) => "rowid",
                (false, crate::dialect::Dialect::Postgres) => "ctid",
            };
            ledgers.ids = Some(
                texts(format!(
                    "SELECT CAST(id AS text) AS entry FROM {MIGRATIONS} ORDER BY {order}"
                ))
                .await?,
            );
        }
        let has = |column: &str| catalog.has_column(SCHEMA_MIGRATIONS, column);
        if has("version") && has("dirty") {
            let rows = connection
                .query_all_raw(Statement::from_string(
                    backend,
                    format!(
                        "SELECT CAST(version AS text) AS version, CASE WHEN {} THEN 1 ELSE 0 END AS dirty FROM {SCHEMA_MIGRATIONS} LIMIT 1",
                        catalog.dialect.is_true("dirty")
                    ),
                ))
                .await?;
            for row in rows {
                let version: Option<String> = row.try_get("", "version")?;
                let dirty: i32 = row.try_get("", "dirty")?;
                ledgers.number = version
                    .and_then(|text| text.parse().ok())
                    .map(|version| (version, dirty != 0));
            }
        }
        if is_text(catalog, SCHEMA_MIGRATIONS, "filename") {
            let mut files = texts(format!(
                "SELECT CAST(filename AS text) AS entry FROM {SCHEMA_MIGRATIONS}"
            ))
            .await?;
            // The runner's own order, byte by byte, whatever the database's collation.
            files.sort();
            ledgers.files = Some(files);
        }
        Ok(ledgers)
    }
}

fn is_text(catalog: &Catalog, table: &str, column: &str) -> bool {
    catalog.column(table, column).is_some_and(|column| {
        let kind = column.kind.to_lowercase();
        kind.contains("char") || kind.contains("text")
    })
}
