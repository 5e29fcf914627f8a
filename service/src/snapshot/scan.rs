//! Walks a table once, row by row as they arrive, into sketches of a fixed size.

use std::collections::{BTreeMap, HashMap};

use futures_util::{FutureExt, TryStreamExt};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Row};
use tollgate_migration::{Catalog, Dialect};

use super::cell::{self, Canonical, ExactSum, Kind};
use super::copy::{self, Lines};
use super::sketch::{Presence, Salted, Sketch};
use crate::connection::{Connection, Driver, Watch, query_failed};
use crate::fault;
use crate::shutdown::ShutdownSignal;

/// What is to be walked.
#[derive(Clone, Debug)]
pub struct Walk {
    /// What is selected: the id's parts, then the columns that are digested.
    pub selected: String,
    /// From where, with joins and condition.
    pub from: String,
    /// How many of its columns make up the id.
    pub key: usize,
    /// The columns that are digested, with how they are compared.
    pub(crate) columns: Vec<(String, Kind)>,
    /// Those of them that are summed.
    pub summed: Vec<String>,
}

/// What a walk came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    pub rows: u64,
    pub presence: Presence,
    pub columns: BTreeMap<String, Sketch>,
    pub sums: BTreeMap<String, String>,
}

/// How a table's rows are read where it is not just as they are.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Joined to the table, whose alias is `t`.
    pub join: String,
    /// Rows that are left out fail this; empty for none.
    pub condition: String,
    /// Expressions in the place of columns.
    pub instead: HashMap<&'static str, String>,
    /// Columns that are covered elsewhere.
    pub without: Vec<&'static str>,
    /// The only columns that are covered; all when empty.
    pub only: &'static [&'static str],
    /// Columns of amounts.
    pub amounts: &'static [&'static str],
    /// Columns of text that count in their canonical form, each with what makes it.
    pub canonical: Vec<(&'static str, Canonical)>,
}

/// The walk over a table of the catalog.
pub(crate) fn table(catalog: &Catalog, name: &str, reading: &Reading) -> Option<Walk> {
    let dialect = catalog.dialect;
    let table = catalog.table(name)?;
    let key: Vec<&str> = if table.primary_key.is_empty() {
        // Without a key a row is the whole of itself.
        table
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect()
    } else {
        table.primary_key.iter().map(String::as_str).collect()
    };
    let own = |column: &str| format!("t.{}", dialect.quote(column));
    let mut selected: Vec<String> = key
        .iter()
        .map(|column| match dialect {
            Dialect::Postgres => format!("{}::text", own(column)),
            Dialect::Sqlite => format!("CAST({} AS text)", own(column)),
        })
        .collect();
    let mut columns = Vec::new();
    for column in &table.columns {
        let name = column.name.as_str();
        if reading.without.contains(&name)
            || !(reading.only.is_empty() || reading.only.contains(&name))
        {
            continue;
        }
        let source = reading
            .instead
            .get(column.name.as_str())
            .cloned()
            .unwrap_or_else(|| own(&column.name));
        selected.push(match dialect {
            Dialect::Postgres => cell::postgres_expression(&column.kind, &source),
            Dialect::Sqlite => source,
        });
        let canonical = reading
            .canonical
            .iter()
            .find(|(name, _)| *name == column.name);
        let kind = match canonical {
            Some(&(_, canonical)) => Kind::Canonical(canonical),
            None => cell::kind(dialect, &column.kind),
        };
        columns.push((column.name.clone(), kind));
    }
    let condition = if reading.condition.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", reading.condition)
    };
    Some(Walk {
        selected: selected.join(", "),
        from: format!("{} t {}{condition}", dialect.quote(name), reading.join),
        key: key.len(),
        columns,
        summed: reading
            .amounts
            .iter()
            .map(|&name| name.to_owned())
            .collect(),
    })
}

/// The walk over a fact: a query of one text column.
pub(crate) fn fact(sql: &str) -> Walk {
    Walk {
        selected: "f.fact".to_owned(),
        from: format!("({sql}) f"),
        key: 1,
        columns: Vec::new(),
        summed: Vec::new(),
    }
}

/// What is done with each row: its id, then each column's cell.
trait Visitor {
    fn row(&mut self, id: &str) -> u64;
    fn cell(&mut self, row: u64, position: usize, bytes: &[u8], number: Option<f64>);
}

/// Walks.
pub(crate) async fn walk(
    connection: &Connection,
    walk: &Walk,
    salted: &Salted,
    stop: &ShutdownSignal,
) -> Result<Walked, DbErr> {
    struct Digesting<'a> {
        salted: &'a Salted,
        columns: Vec<(Salted, Sketch)>,
        presence: Presence,
        rows: u64,
        sums: Vec<Option<ExactSum>>,
    }
    impl Visitor for Digesting<'_> {
        fn row(&mut self, id: &str) -> u64 {
            let row = self.salted.id(id.as_bytes());
            self.presence.add(row, id.as_bytes());
            self.rows += 1;
            row
        }
        fn cell(&mut self, row: u64, position: usize, bytes: &[u8], number: Option<f64>) {
            let (salted, sketch) = &mut self.columns[position];
            sketch.add(row, salted.value(row, bytes));
            if let (Some(sum), Some(number)) = (&mut self.sums[position], number) {
                sum.add(number);
            }
        }
    }
    let mut digesting = Digesting {
        salted,
        columns: walk
            .columns
            .iter()
            .map(|(name, _)| (salted.column(name), Sketch::default()))
            .collect(),
        presence: Presence::default(),
        rows: 0,
        sums: walk
            .columns
            .iter()
            .map(|(name, _)| walk.summed.contains(name).then(ExactSum::default))
            .collect(),
    };
    visit(connection, walk, &mut digesting, stop).await?;
    let mut walked = Walked {
        rows: digesting.rows,
        presence: digesting.presence,
        ..Walked::default()
    };
    for (position, ((name, _), (_, sketch))) in
        walk.columns.iter().zip(digesting.columns).enumerate()
    {
        walked.columns.insert(name.clone(), sketch);
        if let Some(sum) = &digesting.sums[position] {
            walked.sums.insert(name.clone(), sum.text());
        }
    }
    if connection.dialect() == Dialect::Postgres {
        for name in walked.sums.keys().cloned().collect::<Vec<_>>() {
            // Exact there, and the server has the numbers already. As many statements as amounts: at most a handful.
            let sql = format!(
                "SELECT COALESCE(trim_scale(sum(t.{}::numeric))::text, '0') AS total FROM {}",
                Dialect::Postgres.quote(&name),
                walk.from
            );
            let row = connection
                .query_one_raw(Statement::from_string(Dialect::Postgres.backend(), sql))
                .await?;
            if let Some(row) = row {
                walked.sums.insert(name, row.try_get("", "total")?);
            }
        }
    }
    Ok(walked)
}

/// The ids of the rows with these hashes, found by walking once more.
pub(crate) async fn named(
    connection: &Connection,
    walk: &Walk,
    salted: &Salted,
    wanted: &[u64],
    stop: &ShutdownSignal,
) -> Result<HashMap<u64, String>, DbErr> {
    struct Naming<'a> {
        salted: &'a Salted,
        wanted: std::collections::HashSet<u64>,
        found: HashMap<u64, String>,
    }
    impl Visitor for Naming<'_> {
        fn row(&mut self, id: &str) -> u64 {
            let row = self.salted.id(id.as_bytes());
            if self.wanted.contains(&row) {
                self.found.insert(row, id.to_owned());
            }
            row
        }
        fn cell(&mut self, _: u64, _: usize, _: &[u8], _: Option<f64>) {}
    }
    let mut naming = Naming {
        salted,
        wanted: wanted.iter().copied().collect(),
        found: HashMap::new(),
    };
    visit(
        connection,
        &Walk {
            columns: Vec::new(),
            ..walk.clone()
        },
        &mut naming,
        stop,
    )
    .await?;
    Ok(naming.found)
}

/// How many rows are walked before a signal is looked for.
const LOOK: u64 = 4096;

async fn visit(
    connection: &Connection,
    walk: &Walk,
    visitor: &mut impl Visitor,
    stop: &ShutdownSignal,
) -> Result<(), DbErr> {
    fault::statement()?;
    match connection.driver().await? {
        Driver::Postgres(mut wire) => {
            let (connection, watch) = wire.parts();
            visit_copy(connection, &watch, walk, visitor, stop).await?;
            wire.finish().await
        }
        Driver::Sqlite(pool) => visit_rows(pool, walk, visitor, stop).await,
    }
}

async fn visit_copy(
    connection: &mut PgConnection,
    watch: &Watch,
    walk: &Walk,
    visitor: &mut impl Visitor,
    stop: &ShutdownSignal,
) -> Result<(), DbErr> {
    let sql = format!(
        "COPY (SELECT {} FROM {}) TO STDOUT",
        walk.selected, walk.from
    );
    let mut arriving = watch
        .over(connection.copy_out_raw(&sql))
        .await
        .map_err(query_failed)?;
    let (mut lines, mut room) = (Lines::default(), Vec::new());
    let (mut name, mut bytes) = (String::new(), Vec::new());
    let mut seen = 0u64;
    loop {
        // What has arrived already is not waited for.
        let next = match arriving.try_next().now_or_never() {
            Some(next) => next,
            None => watch.over(arriving.try_next()).await,
        };
        let Some(piece) = next.map_err(query_failed)? else {
            return Ok(());
        };
        lines.arrived(&piece, |line| {
            let mut columns = line.split(|&byte| byte == b'\t');
            name.clear();
            for (position, part) in columns.by_ref().take(walk.key).enumerate() {
                if position > 0 {
                    name.push(',');
                }
                let part = copy::text(part, &mut room).unwrap_or_default();
                name.push_str(std::str::from_utf8(part).map_err(unreadable)?);
            }
            let hash = visitor.row(&name);
            for ((position, (_, kind)), column) in walk.columns.iter().enumerate().zip(columns) {
                cell::postgres(copy::text(column, &mut room), *kind, &mut bytes);
                visitor.cell(hash, position, &bytes, None);
            }
            seen += 1;
            if seen.is_multiple_of(LOOK) && stop.check().is_err() {
                return Err(DbErr::Custom(HALTED.to_owned()));
            }
            Ok(())
        })?;
    }
}

fn unreadable(error: std::str::Utf8Error) -> DbErr {
    DbErr::Custom(format!("an id is no text: {error}"))
}

async fn visit_rows(
    pool: &SqlitePool,
    walk: &Walk,
    visitor: &mut impl Visitor,
    stop: &ShutdownSignal,
) -> Result<(), DbErr> {
    let sql = format!("SELECT {} FROM {}", walk.selected, walk.from);
    let mut rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch(pool);
    let (mut name, mut bytes) = (String::new(), Vec::new());
    let mut seen = 0u64;
    while let Some(row) = rows.try_next().await.map_err(query_failed)? {
        name.clear();
        for part in 0..walk.key {
            if part > 0 {
                name.push(',');
            }
            let text: Option<&str> = row.try_get(part).map_err(query_failed)?;
            name.push_str(text.unwrap_or_default());
        }
        let hash = visitor.row(&name);
        for (position, (_, kind)) in walk.columns.iter().enumerate() {
            let number =
                cell::sqlite(&row, walk.key + position, *kind, &mut bytes).map_err(query_failed)?;
            visitor.cell(hash, position, &bytes, number);
        }
        seen += 1;
        if seen.is_multiple_of(LOOK) && stop.check().is_err() {
            return Err(DbErr::Custom(HALTED.to_owned()));
        }
    }
    Ok(())
}

/// What a walk that was asked to stop says; the caller asks the stop itself for the reason.
const HALTED: &str = "stopped";
