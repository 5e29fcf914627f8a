//! Made-up databases that look like real ones, for demonstrations, rehearsals and measurements.
//!
//! Everything is inserted by a few set-based statements, and the same seed makes the same rows.

mod bifrost_credentials;
mod bifrost_hazards;
mod bifrost_legacy;
mod boot;
mod coder_legacy;
mod grant;
mod ledgers;
mod molecule;

use sea_orm::ConnectionTrait;
use tollgate_migration::ledger::{MIGRATIONS, SCHEMA_MIGRATIONS};
use tollgate_migration::{Catalog, Dialect};

use crate::database::Access;
use crate::doctor::{self, environment};
use crate::error::{Error, Result};
use crate::report::result::{PlantedHazard, PlantedResult};
use crate::report::{Change, CommandResult, Report};
use crate::runner::Session;

pub use boot::boot;
pub use grant::{give, granted_token, take};

/// Which gateway is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Bifrost 1.4.24, before multi-budget, with its ledger.
    BifrostLegacy,
    /// The same budgets beside per-user MCP credentials, some of which have drifted from their grants. No release of the
    /// gateway has both, so it stands for a program of its own and carries no ledger.
    BifrostCredentials,
    /// Coder before the provider-key cutover, at 502, with its ledger on PostgreSQL; a key of each user's own.
    CoderLegacy,
    /// Molecule with billing modes set, unset and inherited; with its ledger on PostgreSQL.
    Molecule,
}

/// A hazard that can be planted.
struct Planted {
    /// Its code.
    code: &'static str,
    /// The table the doctor will name.
    table: &'static str,
    /// The ids the doctor will name.
    ids: &'static [&'static str],
    /// Whether one legacy database can have it together with the others.
    together: bool,
    /// The statements.
    plant: fn(Dialect) -> Vec<String>,
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
    /// Which gateway is imitated.
    pub profile: Profile,
    /// How many virtual keys it has.
    pub virtual_keys: u32,
    /// The seed of the values.
    pub rng_seed: u32,
    /// Hazards to plant, by code; `all` stands for all that one legacy database can have together.
    pub hazards: Vec<String>,
}

impl Options {
    /// A gateway with so many virtual keys.
    pub fn of(profile: Profile, virtual_keys: u32) -> Self {
        Self {
            profile,
            virtual_keys,
            rng_seed: 1,
            hazards: Vec::new(),
        }
    }
}

/// One statement of a seed, and the table it fills.
struct Fill {
    table: &'static str,
    sql: String,
}

/// SQL that makes numbers and values on either backend.
struct Maker {
    dialect: Dialect,
    seed: u32,
}

impl Maker {
    /// A source `g` with a column `i` that counts from one, to be put before the statement and behind `FROM`.
    fn numbers(&self, count: u32) -> (String, String) {
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
    fn insert(
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
    fn random(&self, salt: u32, below: u32) -> String {
        let offset = u64::from(self.seed) * 7_919 + u64::from(salt) * 104_729;
        format!("((((i * 48271 + {offset}) % 2147483647) * 48271 % 2147483647) / 64 % {below})")
    }

    /// One of several texts.
    fn pick(&self, salt: u32, words: &[&str]) -> String {
        let count = u32::try_from(words.len()).unwrap_or(1);
        let arms: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(position, word)| format!("WHEN {position} THEN '{word}'"))
            .collect();
        format!("CASE {} {} END", self.random(salt, count), arms.join(" "))
    }

    /// An instant that many seconds before 2026-03-29, as the upstream's driver writes it.
    fn before(&self, seconds: &str) -> String {
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
    fn id(&self, prefix: &str, number: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!("'{prefix}-' || lpad(({number})::text, 7, '0')"),
            Dialect::Sqlite => format!("'{prefix}-' || printf('%07d', {number})"),
        }
    }

    /// A UUID from a number, different for each `kind`.
    fn uuid(&self, kind: u8, number: &str) -> String {
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
    fn flag(&self, condition: &str) -> String {
        match self.dialect {
            Dialect::Postgres => format!("({condition})"),
            Dialect::Sqlite => format!("CASE WHEN {condition} THEN 1 ELSE 0 END"),
        }
    }
}

/// Creates the tables and fills them.
///
/// # Errors
/// [`Error::Refused`] when one of the tables exists: a seed never touches rows of somebody else.
pub async fn seed(session: &Session, options: &Options) -> Result<Report> {
    if options.profile == Profile::Molecule && !options.hazards.is_empty() {
        return Err(Error::usage(
            "the profile molecule plants no hazards",
            "leave --hazards out",
        ));
    }
    let wanted = planted(
        &options.hazards,
        match options.profile {
            Profile::CoderLegacy => coder_legacy::PLANTED,
            _ => bifrost_hazards::PLANTED,
        },
    )?;
    let connection = session.connect(Access::Create).await?;
    let catalog = Catalog::read(&connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    let tables = match options.profile {
        Profile::BifrostLegacy => bifrost_legacy::tables(session.dialect()),
        Profile::BifrostCredentials => bifrost_credentials::tables(session.dialect()),
        Profile::CoderLegacy => coder_legacy::tables(session.dialect()),
        Profile::Molecule => molecule::tables(session.dialect()),
    };
    let ledger = match options.profile {
        Profile::BifrostLegacy | Profile::BifrostCredentials => MIGRATIONS,
        Profile::CoderLegacy | Profile::Molecule => SCHEMA_MIGRATIONS,
    };
    if let Some(table) = tables
        .iter()
        .map(|table| table.name.as_str())
        .chain([ledger])
        .find(|table| catalog.has_table(table))
    {
        return Err(Error::refused(
            "not_empty",
            format!("the database has a table {table} already"),
            "seed an empty database; nothing was changed",
        ));
    }
    let later = environment::later_on_path(
        &connection,
        tables
            .iter()
            .map(|table| table.name.as_str())
            .chain([ledger]),
    )
    .await
    .map_err(Error::database("look for the tables in other schemas"))?;
    if !later.is_empty() {
        return Err(doctor::refusal(later));
    }
    let dialect = session.dialect();
    let db_context = |what: &str| Error::database(format!("seed {what}"));
    if dialect == Dialect::Sqlite && !wanted.is_empty() {
        // Some hazards are references to nothing, which an old release without foreign keys could write.
        connection
            .execute_unprepared("PRAGMA foreign_keys = OFF")
            .await
            .map_err(db_context("the database"))?;
    }
    let transaction = connection
        .begin()
        .await
        .map_err(db_context("the database"))?;
    for statement in ledgers::of(options.profile, dialect) {
        transaction
            .execute_unprepared(&statement)
            .await
            .map_err(db_context("the ledger"))?;
    }
    let types = match options.profile {
        Profile::Molecule => molecule::types(dialect),
        Profile::CoderLegacy => coder_legacy::types(dialect),
        Profile::BifrostLegacy | Profile::BifrostCredentials => Vec::new(),
    };
    for statement in types {
        transaction
            .execute_unprepared(&statement)
            .await
            .map_err(db_context("the types"))?;
    }
    for table in &tables {
        transaction
            .execute_unprepared(&table.sql(dialect))
            .await
            .map_err(db_context(&table.name))?;
        // A foreign key needs what it refers to to be unique from the start.
        for index in table
            .separate_indexes(dialect)
            .filter(|index| index.constraint)
        {
            transaction
                .execute_unprepared(&index.sql(dialect, &table.name))
                .await
                .map_err(db_context(&index.name))?;
        }
    }
    let maker = Maker {
        dialect,
        seed: options.rng_seed,
    };
    let mut report = Report::default();
    let fills = match options.profile {
        Profile::BifrostLegacy => bifrost_legacy::fills(&maker, options.virtual_keys),
        Profile::BifrostCredentials => bifrost_credentials::fills(&maker, options.virtual_keys),
        Profile::CoderLegacy => coder_legacy::fills(&maker, options.virtual_keys),
        Profile::Molecule => molecule::fills(&maker, options.virtual_keys),
    };
    for fill in fills {
        let rows = transaction
            .execute_unprepared(&fill.sql)
            .await
            .map_err(db_context(fill.table))?
            .rows_affected();
        report.changes.push(Change {
            table: fill.table.to_owned(),
            action: "insert".to_owned(),
            rows,
            sample_ids: Vec::new(),
        });
    }
    for table in &tables {
        for index in table
            .separate_indexes(dialect)
            .filter(|index| !index.constraint)
        {
            transaction
                .execute_unprepared(&index.sql(dialect, &table.name))
                .await
                .map_err(db_context(&index.name))?;
        }
    }
    let mut planted = Vec::new();
    for hazard in wanted {
        for statement in (hazard.plant)(dialect) {
            transaction
                .execute_unprepared(&statement)
                .await
                .map_err(db_context(hazard.code))?;
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
    report.result = Some(CommandResult::Planted(PlantedResult { planted }));
    transaction
        .commit()
        .await
        .map_err(db_context("the database"))?;
    if dialect == Dialect::Postgres {
        // Autovacuum would do it a minute later; a plan made before that is made blindly.
        connection
            .execute_unprepared("ANALYZE")
            .await
            .map_err(db_context("statistics"))?;
    }
    Ok(report)
}
