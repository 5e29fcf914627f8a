//! Made-up databases that look like real ones, for demonstrations, rehearsals and measurements.
//!
//! Everything is inserted by a few set-based statements, and the same seed makes the same rows.

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::ddl::TableSpec;
use tollgate_migration::{Catalog, Dialect};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::{self, environment};
use crate::error::{Error, Result};
use crate::report::result::{PlantedHazard, PlantedResult};
use crate::report::{Change, CommandResult, Report};
use crate::runner::Session;
use crate::tracks;

/// A database that can be made up. A track brings its own.
pub struct Seed {
    /// Its word on the command line.
    pub name: &'static str,
    /// What it imitates, as one line.
    pub about: &'static str,
    /// The table in which the gateway records its own migrations.
    pub ledger: &'static str,
    /// What makes and fills it; nothing where there is none.
    pub recorded: fn(Dialect) -> Vec<String>,
    /// Types that the tables need.
    pub types: fn(Dialect) -> Vec<String>,
    /// The tables, parents first.
    pub tables: fn(Dialect) -> Vec<TableSpec>,
    /// What fills them, for so many of what they count.
    pub fills: fn(&Maker, u32) -> Vec<Fill>,
    /// Hazards that can be planted.
    pub planted: &'static [Planted],
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Every one that the tracks of this process bring.
pub fn seeds() -> Vec<&'static Seed> {
    tracks::all()
        .iter()
        .flat_map(|module| module.seeds)
        .copied()
        .collect()
}

/// When a made-up ledger was written.
pub(crate) const AT: &str = "'2026-03-29 00:00:00+00:00'";

/// A row for each line, counted from one.
pub(crate) fn rows(lines: &str, row: impl Fn(usize, &str) -> String) -> String {
    let rows: Vec<String> = lines
        .lines()
        .enumerate()
        .map(|(position, line)| row(position + 1, line))
        .collect();
    rows.join(", ")
}

/// A hazard that can be planted.
pub struct Planted {
    /// Its code.
    pub code: &'static str,
    /// The table the doctor will name.
    pub table: &'static str,
    /// The ids the doctor will name.
    pub ids: &'static [&'static str],
    /// Whether one legacy database can have it together with the others.
    pub together: bool,
    /// The statements.
    pub plant: fn(Dialect) -> Vec<String>,
}

/// The hazards that were asked for.
///
/// # Errors
/// [`Error::Usage`] for a code that cannot be planted.
fn planted(codes: &[String], known: &'static [Planted]) -> Result<Vec<&'static Planted>> {
    let all = codes.iter().any(|code| code == "all");
    if let Some(unknown) = codes
        .iter()
        .find(|code| *code != "all" && !known.iter().any(|planted| planted.code == code.as_str()))
    {
        let known: Vec<&str> = known.iter().map(|planted| planted.code).collect();
        return Err(Error::usage(
            format!("hazard {unknown} cannot be planted in this profile"),
            format!("all, or some of {}", known.join(", ")),
        ));
    }
    Ok(known
        .iter()
        .filter(|planted| {
            codes.iter().any(|code| code == planted.code) || (all && planted.together)
        })
        .collect())
}

/// What is to be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Which database is made up.
    pub seed: &'static Seed,
    /// How many virtual keys it has.
    pub virtual_keys: u32,
    /// The seed of the values.
    pub rng_seed: u32,
    /// Hazards to plant, by code; `all` stands for all that one legacy database can have together.
    pub hazards: Vec<String>,
}

impl Options {
    /// A gateway with so many virtual keys.
    pub fn of(seed: &'static Seed, virtual_keys: u32) -> Self {
        Self {
            seed,
            virtual_keys,
            rng_seed: 1,
            hazards: Vec::new(),
        }
    }
}

/// One statement of a seed, and the table it fills.
pub struct Fill {
    /// The table.
    pub table: &'static str,
    /// The statement.
    pub sql: String,
}

/// SQL that makes numbers and values on either backend.
pub struct Maker {
    /// The backend's SQL.
    pub dialect: Dialect,
    /// The seed of the values.
    pub seed: u32,
}

impl Maker {
    /// A source `g` with a column `i` that counts from one, to be put before the statement and behind `FROM`.
    pub fn numbers(&self, count: u32) -> (String, String) {
        match self.dialect {
            Dialect::Postgres => (
                String::new(),
                format!("generate_series(1::bigint, {count}::bigint) AS g(i)"),
            ),
            Dialect::Sqlite => (
                format!(
                    "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < {count}) "
                ),
                "g".to_owned(),
            ),
        }
    }

    /// `INSERT INTO table (columns) SELECT values FROM numbers`.
    pub fn insert(
        &self,
        table: &'static str,
        count: u32,
        columns: &[(&str, String)],
        condition: &str,
    ) -> Fill {
        let (with, from) = self.numbers(count);
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
        Fill {
            table,
            sql: format!(
                "{with}INSERT INTO {table} ({}) SELECT {} FROM {from} WHERE {condition}",
                names.join(", "),
                values.join(", ")
            ),
        }
    }

    /// A number from zero to `below`, different for every `i` and every `salt`.
    pub fn random(&self, salt: u32, below: u32) -> String {
        let offset = u64::from(self.seed) * 7_919 + u64::from(salt) * 104_729;
        format!("((((i * 48271 + {offset}) % 2147483647) * 48271 % 2147483647) / 64 % {below})")
    }

    /// One of several texts.
    pub fn pick(&self, salt: u32, words: &[&str]) -> String {
        let count = u32::try_from(words.len()).unwrap_or(1);
        let arms: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(position, word)| format!("WHEN {position} THEN '{word}'"))
            .collect();
        format!("CASE {} {} END", self.random(salt, count), arms.join(" "))
    }

    /// An instant that many seconds before 2026-03-29, as the upstream's driver writes it.
    pub fn before(&self, seconds: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!(
                "timestamptz '2026-03-29 00:00:00.123456+00' - ({seconds}) * interval '1 second'"
            ),
            Dialect::Sqlite => format!(
                "strftime('%Y-%m-%d %H:%M:%S', '2026-03-29 00:00:00', (-({seconds})) || ' seconds') || '.123456789+00:00'"
            ),
        }
    }

    /// An id with a prefix and the number, padded so that ids sort as numbers do.
    pub fn id(&self, prefix: &str, number: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!("'{prefix}-' || lpad(({number})::text, 7, '0')"),
            Dialect::Sqlite => format!("'{prefix}-' || printf('%07d', {number})"),
        }
    }

    /// A UUID from a number, different for each `kind`.
    pub fn uuid(&self, kind: u8, number: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!(
                "('0000000{kind}-0000-4000-8000-' || lpad(({number})::text, 12, '0'))::uuid"
            ),
            Dialect::Sqlite => {
                format!("'0000000{kind}-0000-4000-8000-' || printf('%012d', {number})")
            }
        }
    }

    /// A boolean from a condition.
    pub fn flag(&self, condition: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!("({condition})"),
            Dialect::Sqlite => format!("CASE WHEN {condition} THEN 1 ELSE 0 END"),
        }
    }
}

fn failed(what: &str) -> impl FnOnce(DbErr) -> Error {
    Error::database(format!("seed {what}"))
}

/// Creates the tables and fills them.
///
/// # Errors
/// [`Error::Refused`] when one of the tables exists: a seed never touches rows of somebody else.
pub async fn seed(session: &Session, options: &Options) -> Result<Report> {
    let made_up = options.seed;
    if made_up.planted.is_empty() && !options.hazards.is_empty() {
        return Err(Error::usage(
            format!("the profile {} plants no hazards", made_up.name),
            "leave --hazards out",
        ));
    }
    let wanted = planted(&options.hazards, made_up.planted)?;
    let connection = session.connect(Access::Create).await?;
    let dialect = session.dialect();
    let tables = (made_up.tables)(dialect);
    refuse_occupied(&connection, &tables, made_up.ledger).await?;
    if dialect == Dialect::Sqlite && !wanted.is_empty() {
        // Some hazards are references to nothing, which an old release without foreign keys could write.
        connection
            .execute_unprepared("PRAGMA foreign_keys = OFF")
            .await
            .map_err(failed("the database"))?;
    }
    let transaction = connection.begin().await.map_err(failed("the database"))?;
    for (statements, what) in [
        ((made_up.recorded)(dialect), "the ledger"),
        ((made_up.types)(dialect), "the types"),
    ] {
        for statement in statements {
            transaction
                .execute_unprepared(&statement)
                .await
                .map_err(failed(what))?;
        }
    }
    make(&transaction, dialect, &tables).await?;
    let mut report = Report::default();
    let maker = Maker {
        dialect,
        seed: options.rng_seed,
    };
    for fill in (made_up.fills)(&maker, options.virtual_keys) {
        let rows = transaction
            .execute_unprepared(&fill.sql)
            .await
            .map_err(failed(fill.table))?
            .rows_affected();
        report.changes.push(Change {
            table: fill.table.to_owned(),
            action: "insert".to_owned(),
            rows,
            sample_ids: Vec::new(),
        });
    }
    // Faster than to keep them while the rows come.
    indexes(&transaction, dialect, &tables, false).await?;
    let planted = plant(&transaction, dialect, &wanted, &mut report).await?;
    report.result = Some(CommandResult::Planted(PlantedResult { planted }));
    transaction.commit().await.map_err(failed("the database"))?;
    if dialect == Dialect::Postgres {
        // Autovacuum would do it a minute later; a plan made before that is made blindly.
        connection
            .execute_unprepared("ANALYZE")
            .await
            .map_err(failed("statistics"))?;
    }
    Ok(report)
}

/// A seed never touches rows of somebody else.
async fn refuse_occupied(
    connection: &Connection,
    tables: &[TableSpec],
    ledger: &str,
) -> Result<()> {
    let catalog = Catalog::read(connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    let names = || {
        tables
            .iter()
            .map(|table| table.name.as_str())
            .chain([ledger])
    };
    if let Some(table) = names().find(|table| catalog.has_table(table)) {
        return Err(Error::refused(
            "not_empty",
            format!("the database has a table {table} already"),
            "seed an empty database; nothing was changed",
        ));
    }
    let later = environment::later_on_path(connection, names())
        .await
        .map_err(Error::database("look for the tables in other schemas"))?;
    if later.is_empty() {
        Ok(())
    } else {
        Err(doctor::refusal(later))
    }
}

/// The tables. A foreign key needs what it refers to to be unique from the start.
async fn make<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    tables: &[TableSpec],
) -> Result<()> {
    for table in tables {
        connection
            .execute_unprepared(&table.sql(dialect))
            .await
            .map_err(failed(&table.name))?;
        indexes(connection, dialect, std::slice::from_ref(table), true).await?;
    }
    Ok(())
}

/// Their indexes that are constraints, or all others.
async fn indexes<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    tables: &[TableSpec],
    constraints: bool,
) -> Result<()> {
    for table in tables {
        for index in table
            .separate_indexes(dialect)
            .filter(|index| index.constraint == constraints)
        {
            connection
                .execute_unprepared(&index.sql(dialect, &table.name))
                .await
                .map_err(failed(&index.name))?;
        }
    }
    Ok(())
}

async fn plant<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    wanted: &[&'static Planted],
    report: &mut Report,
) -> Result<Vec<PlantedHazard>> {
    let mut planted = Vec::new();
    for hazard in wanted {
        for statement in (hazard.plant)(dialect) {
            connection
                .execute_unprepared(&statement)
                .await
                .map_err(failed(hazard.code))?;
        }
        planted.push(PlantedHazard {
            code: hazard.code,
            ids: hazard.ids,
        });
        report.changes.push(Change {
            table: hazard.table.to_owned(),
            action: format!("plant {}", hazard.code),
            rows: hazard.ids.len() as u64,
            sample_ids: hazard.ids.iter().map(|&id| id.to_owned()).collect(),
        });
    }
    Ok(planted)
}
