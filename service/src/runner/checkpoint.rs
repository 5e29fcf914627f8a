//! How far a migration of several transactions has come, written in the transactions themselves.

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::{Created, Dialect};

use crate::database::existing;
use crate::report::result::PassState;
use crate::rows;

/// The table of checkpoints.
pub(crate) const TABLE: &str = "tollgate_backfills";

/// The pass name under which a step that goes up is on record, with what it creates, until it is done.
const UP: &str = "";
/// The same for a step that goes down: what it takes away.
const DOWN: &str = "down";

/// Whether a step is applied or undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It is applied.
    Up,
    /// It is undone.
    Down,
}

impl Direction {
    fn pass(self) -> &'static str {
        match self {
            Self::Up => UP,
            Self::Down => DOWN,
        }
    }

    /// The command that goes this way.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A step of several transactions that has begun and not ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InProgress {
    /// The step.
    pub version: String,
    /// Which way it went.
    pub direction: Direction,
    /// What it has created, or is about to take away.
    pub created: Created,
    /// Whether the history lists the step all the same, as release 0.1.0 left it.
    pub listed: bool,
}

/// Where a pass stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromQueryResult)]
pub(crate) struct Checkpoint {
    /// Everything before this place of the physical order is done.
    pub position: i64,
    /// Where the pass ends, fixed when it began.
    pub bound: i64,
    /// The file the positions speak of; a rewritten table has another one (PostgreSQL).
    pub file: i64,
    /// Rows changed so far.
    pub rows: i64,
}

/// Creates the table on first need.
pub(crate) async fn ensure<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> Result<(), DbErr> {
    if !existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(());
    }
    connection
        .execute_unprepared(&format!(
            "CREATE TABLE {TABLE} (migration varchar(255) NOT NULL, pass varchar(255) NOT NULL, \
             position bigint NOT NULL, bound bigint NOT NULL, file bigint NOT NULL, {} bigint NOT NULL, \
             created text, PRIMARY KEY (migration, pass))",
            dialect.quote("rows")
        ))
        .await?;
    Ok(())
}

async fn write<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    sql: String,
    values: Vec<Value>,
) -> Result<(), DbErr> {
    connection
        .execute_raw(Statement::from_sql_and_values(
            dialect.backend(),
            sql,
            values,
        ))
        .await
        .map(|_| ())
}

/// Reads a pass's checkpoint.
pub(crate) async fn read<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    migration: &str,
    pass: &str,
) -> Result<Option<Checkpoint>, DbErr> {
    let sql = format!(
        "SELECT position, bound, file, {} AS rows FROM {TABLE} WHERE migration = {} AND pass = {}",
        dialect.quote("rows"),
        dialect.parameter(1),
        dialect.parameter(2)
    );
    let values = [migration.into(), pass.into()];
    rows::one(
        connection,
        Statement::from_sql_and_values(dialect.backend(), sql, values),
    )
    .await
}

/// What writes a pass's checkpoint. It carries its values, so that it can go in one message with what follows.
pub(crate) fn saving(
    dialect: Dialect,
    migration: &str,
    pass: &str,
    checkpoint: &Checkpoint,
) -> String {
    let rows = dialect.quote("rows");
    format!(
        "INSERT INTO {TABLE} (migration, pass, position, bound, file, {rows}) VALUES ({}, {}, {}, {}, {}, {}) \
         ON CONFLICT (migration, pass) DO UPDATE SET position = excluded.position, bound = excluded.bound, \
         file = excluded.file, {rows} = excluded.{rows}",
        dialect.text(migration),
        dialect.text(pass),
        checkpoint.position,
        checkpoint.bound,
        checkpoint.file,
        checkpoint.rows,
    )
}

/// Writes a pass's checkpoint.
pub(crate) async fn save<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    migration: &str,
    pass: &str,
    checkpoint: &Checkpoint,
) -> Result<(), DbErr> {
    let sql = saving(dialect, migration, pass, checkpoint);
    connection.execute_unprepared(&sql).await.map(|_| ())
}

/// Forgets what a pass's parts came to when it was divided otherwise.
pub(crate) async fn keep_only<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    migration: &str,
    pass: &str,
    names: &[&str],
) -> Result<(), DbErr> {
    let kept: Vec<String> = names.iter().map(|name| dialect.text(name)).collect();
    let sql = format!(
        "DELETE FROM {TABLE} WHERE migration = {} AND (pass = {} OR substr(pass, 1, {}) = {}) AND pass NOT IN ({})",
        dialect.text(migration),
        dialect.text(pass),
        pass.chars().count() + 1,
        dialect.text(&format!("{pass} ")),
        kept.join(", ")
    );
    write(connection, dialect, sql, Vec::new()).await
}

/// How much of it was walked, in percent. The parts of a table are of one size, so that a part's number and end say where it
/// begins; a whole table begins at its first block, or about its first rowid.
fn percent(pass: &str, position: i64, bound: i64) -> u64 {
    let (position, bound) = (i128::from(position), i128::from(bound));
    let part = pass
        .rsplit_once(' ')
        .and_then(|(_, part)| part.split_once('/')?.0.parse::<i128>().ok())
        .unwrap_or(1)
        .max(1);
    let from = bound * (part - 1) / part;
    let walked = (position - from).max(0) * 100 / (bound - from).max(1);
    u64::try_from(walked.min(100)).unwrap_or_default()
}

/// A pass of a step in progress, as it stands.
#[derive(FromQueryResult)]
struct Pass {
    migration: String,
    pass: String,
    position: i64,
    bound: i64,
    rows: i64,
}

/// How far the passes of a migration are.
pub(crate) async fn passes<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    migration: &str,
) -> Result<Vec<PassState>, DbErr> {
    let sql = format!(
        "SELECT migration, pass, position, bound, {} AS rows FROM {TABLE} WHERE migration = {} AND pass NOT IN ('{UP}', '{DOWN}') \
         ORDER BY pass",
        dialect.quote("rows"),
        dialect.text(migration)
    );
    let passes: Vec<Pass> =
        rows::all(connection, Statement::from_string(dialect.backend(), sql)).await?;
    Ok(passes
        .into_iter()
        .map(|pass| PassState {
            version: pass.migration,
            percent: percent(&pass.pass, pass.position, pass.bound),
            pass: pass.pass,
            rows: pass.rows.unsigned_abs(),
        })
        .collect())
}

/// A row of a step.
#[derive(FromQueryResult)]
struct Begun {
    migration: String,
    pass: String,
    created: Option<String>,
}

/// The steps that have begun and not ended, of every track.
pub(crate) async fn in_progress<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> Result<Vec<InProgress>, DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT migration, pass, created FROM {TABLE} WHERE pass IN ('{UP}', '{DOWN}') ORDER BY migration, pass"
    );
    let begun: Vec<Begun> =
        rows::all(connection, Statement::from_string(dialect.backend(), sql)).await?;
    begun
        .into_iter()
        .map(|row| {
            Ok(InProgress {
                version: row.migration,
                listed: false,
                direction: if row.pass == DOWN {
                    Direction::Down
                } else {
                    Direction::Up
                },
                created: match row.created {
                    None => Created::default(),
                    Some(json) => serde_json::from_str(&json)
                        .map_err(|error| DbErr::Custom(error.to_string()))?,
                },
            })
        })
        .collect()
}

/// Puts a step on record before its first transaction, with its direction. One that turns round begins its passes again.
pub(crate) async fn announce<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    step: &InProgress,
    turned: bool,
) -> Result<(), DbErr> {
    if turned {
        clear(connection, dialect, &step.version).await?;
    }
    let p = |n| dialect.parameter(n);
    let sql = format!(
        "INSERT INTO {TABLE} (migration, pass, position, bound, file, {}, created) VALUES ({}, {}, 0, 0, 0, 0, {}) \
         ON CONFLICT (migration, pass) DO UPDATE SET created = excluded.created",
        dialect.quote("rows"),
        p(1),
        p(2),
        p(3)
    );
    let json =
        serde_json::to_string(&step.created).map_err(|error| DbErr::Custom(error.to_string()))?;
    write(
        connection,
        dialect,
        sql,
        vec![
            step.version.clone().into(),
            step.direction.pass().into(),
            json.into(),
        ],
    )
    .await
}

/// Forgets a migration's checkpoints: it is done, or undone.
pub(crate) async fn clear<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    migration: &str,
) -> Result<(), DbErr> {
    if existing(connection, dialect, &[TABLE.to_owned()])
        .await?
        .is_empty()
    {
        return Ok(());
    }
    let sql = format!(
        "DELETE FROM {TABLE} WHERE migration = {}",
        dialect.parameter(1)
    );
    write(connection, dialect, sql, vec![migration.into()]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_where_the_one_before_ends() {
        assert_eq!(percent("owners", 50, 200), 25);
        assert_eq!(percent("owners 4/4", 300, 400), 0);
        assert_eq!(percent("owners 4/4", 350, 400), 50);
        assert_eq!(percent("owners 1/4", 100, 100), 100);
        assert_eq!(percent("owners", i64::MAX, i64::MAX), 100);
        assert_eq!(percent("owners", -5, 0), 0);
    }
}
