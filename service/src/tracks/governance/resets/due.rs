//! Which windows are over: the tables and their counters, one query of what is due, and what cannot be read.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::Dialect;
use tollgate_migration::governance::BUDGETS;

use super::{PAGE, db_context};
use crate::connection::Connection;
use crate::error::Result;
use crate::instant;
use crate::parameters::Parameters;
use crate::reconcile::SAMPLES;
use crate::reconcile::part::Part;
use crate::report::{Finding, Severity};
use crate::rows;
use crate::tracks::governance::budget::schema::{Alignments, RATE_LIMITS, Schema};
use crate::tracks::governance::budget::window::Window;

/// Times in spellings that SQLite does not read, each with the instant, for as long as the connection lives.
const TIMES: &str = "tollgate_times";

/// A table with its counters, each with its window.
pub(super) struct Kind {
    pub(super) table: &'static str,
    counters: &'static [Counter],
}

pub(super) struct Counter {
    pub(super) usage: &'static str,
    pub(super) last: &'static str,
    pub(super) word: &'static str,
}

/// What rolls over.
pub(super) const KINDS: [Kind; 2] = [
    Kind {
        table: BUDGETS,
        counters: &[Counter {
            usage: "current_usage",
            last: "last_reset",
            word: "reset_duration",
        }],
    },
    Kind {
        table: RATE_LIMITS,
        counters: &[
            Counter {
                usage: "token_current_usage",
                last: "token_last_reset",
                word: "token_reset_duration",
            },
            Counter {
                usage: "request_current_usage",
                last: "request_last_reset",
                word: "request_reset_duration",
            },
        ],
    },
];

/// SQLite reads a text as the time that the gateway means: a whole date and time in one of the forms that its drivers write.
/// Of others it may read one that is none (`2026-02-30`, `now`), or none where there is one (`+0200 CEST`).
fn is_plain(text: &str) -> String {
    format!(
        "(typeof({text}) = 'text' AND {text} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' \
         AND date(substr({text}, 1, 10)) = substr({text}, 1, 10) AND substr({text}, 12, 2) < '24' AND substr({text}, 15, 2) < '60' AND substr({text}, 18, 2) < '60' \
         AND julianday({text}) IS NOT NULL)"
    )
}

impl Counter {
    /// The columns of its window, from a `b` whose last reset stands as `read_N` and its window in `wN`.
    fn joined(number: usize, alignments: &Alignments) -> String {
        let w = format!("w{number}");
        format!(
            "{w}.word AS word_{number}, {w}.cutoff AS cutoff_{number}, {w}.start AS begun_{number}, {w}.unit AS unit_{number}, \
             ({w}.start IS NOT NULL AND {}) AS aligned_{number}",
            alignments.is_on()
        )
    }

    fn is_there(&self, schema: &Schema, table: &str) -> bool {
        [self.usage, self.last, self.word]
            .iter()
            .all(|column| schema.has(table, column))
    }

    /// Its last reset in `b`, in a spelling that is read; NULL where it is none.
    fn last(&self, dialect: Dialect) -> String {
        let last = format!("b.{}", self.last);
        match dialect {
            Dialect::Postgres => last,
            Dialect::Sqlite => format!(
                "CASE WHEN {} THEN {last} ELSE (SELECT t.at FROM temp.{TIMES} t WHERE t.word = {last}) END",
                is_plain(&last)
            ),
        }
    }

    /// The columns of what is due, from a `b` with [`Counter::joined`]: `action_N`, `last_N` (as it was found) and `start_N` (of the
    /// window that is open now).
    fn columns(
        &self,
        number: usize,
        dialect: Dialect,
        alignments: &Alignments,
        now: DateTime<Utc>,
    ) -> String {
        let of = |column: &str| format!("b.{column}_{number}");
        let read = of("read");
        let last = format!("b.{}", self.last);
        let (start, aligned, unit) = (of("begun"), of("aligned"), of("unit"));
        let then = instant::compared(dialect, &read);
        // What began with a unit followed the calendar then.
        let boundary = match dialect {
            Dialect::Postgres => {
                format!("date_trunc({unit}, {read} AT TIME ZONE 'UTC') = {read} AT TIME ZONE 'UTC'")
            }
            Dialect::Sqlite => format!(
                "(strftime('%H:%M:%f', {read}) = '00:00:00.000' AND CASE {unit} WHEN 'day' THEN 1 \
                 WHEN 'week' THEN strftime('%w', {read}) = '1' WHEN 'month' THEN strftime('%d', {read}) = '01' \
                 ELSE strftime('%m-%d', {read}) = '01-01' END)"
            ),
        };
        // A time that cannot be read is never taken for past.
        format!(
            "CASE WHEN {word} IS NULL THEN NULL WHEN {last} IS NULL THEN 'reset' WHEN {read} IS NULL THEN NULL \
             WHEN {aligned} THEN CASE WHEN {then} >= {start_then} THEN NULL \
             WHEN {then} <= {cutoff} OR {boundary} OR COALESCE(b.{usage}, 0) = 0 OR NOT {young} THEN 'reset' ELSE 'align' END \
             WHEN {then} <= {cutoff} THEN 'reset' END AS action_{number}, {last} AS last_{number}, {word} AS word_{number}, \
             CASE WHEN {aligned} THEN {start} ELSE {now} END AS start_{number}",
            start_then = instant::compared(dialect, &start),
            word = of("word"),
            cutoff = instant::compared(dialect, &of("cutoff")),
            usage = self.usage,
            young = alignments.may_be_on_since(&start),
            now = instant::literal(dialect, now),
        )
    }
}

/// The durations that are stored, each with its window.
pub(super) type Words = Vec<(String, Window)>;

/// The durations as rows of SQL, each with the bounds of its window, and the newest moment at which a window that is over can have
/// begun.
fn listed(dialect: Dialect, words: &Words, now: DateTime<Utc>) -> (Vec<String>, DateTime<Utc>) {
    let mut newest = DateTime::<Utc>::MIN_UTC;
    let rows: Vec<String> = words
        .iter()
        .map(|(word, window)| {
            let begun = window.unit().map(|unit| unit.start(now));
            let cutoff = window.cutoff(now);
            let latest = begun.map_or(cutoff, |begun| begun.max(cutoff));
            newest = newest.max(latest);
            let (start, unit) = match (window.unit().zip(begun), dialect) {
                (Some((unit, begun)), _) => {
                    (instant::literal(dialect, begun), dialect.text(unit.name()))
                }
                (None, Dialect::Postgres) => (
                    "CAST(NULL AS timestamptz)".to_owned(),
                    "CAST(NULL AS text)".to_owned(),
                ),
                (None, Dialect::Sqlite) => ("NULL".to_owned(), "NULL".to_owned()),
            };
            format!(
                "({}, {}, {start}, {unit}, {})",
                dialect.text(word),
                instant::literal(dialect, cutoff),
                instant::literal(dialect, latest)
            )
        })
        .collect();
    (rows, newest)
}

impl Kind {
    /// The counters that are there.
    pub(super) fn here(&self, schema: &Schema) -> Vec<&'static Counter> {
        self.counters
            .iter()
            .filter(|counter| schema.has(self.table, "id") && counter.is_there(schema, self.table))
            .collect()
    }

    /// A query of what is due: `id`, `action`, and the columns of each counter. `None` where no duration can be read.
    pub(super) fn due(
        &self,
        schema: &Schema,
        counters: &[&Counter],
        words: &Words,
        part: &Part,
        now: DateTime<Utc>,
    ) -> Option<String> {
        if words.is_empty() || counters.is_empty() {
            return None;
        }
        let dialect = schema.dialect;
        let (rows, newest) = listed(dialect, words, now);
        let alignments = if self.table == BUDGETS {
            schema.alignment_of_budgets()
        } else {
            schema.alignment_of_rate_limits()
        };
        let numbered = || counters.iter().enumerate();
        let reads: Vec<String> = numbered()
            .map(|(number, counter)| format!("{} AS read_{number}", counter.last(dialect)))
            .collect();
        let columns: Vec<String> = numbered()
            .map(|(number, counter)| counter.columns(number, dialect, &alignments, now))
            .collect();
        let joins: Vec<String> = numbered()
            .map(|(number, counter)| {
                format!(
                    "LEFT JOIN words w{number} ON w{number}.word = b.{}",
                    counter.word
                )
            })
            .collect();
        // Whoever owns it, a window that has begun since is open still: most rows are asked for nothing else.
        let over: Vec<String> = numbered()
            .map(|(number, counter)| {
                format!(
                    "w{number}.word IS NOT NULL AND (b.{} IS NULL OR {} <= {})",
                    counter.last,
                    instant::compared(dialect, &format!("b.read_{number}")),
                    instant::compared(dialect, &format!("w{number}.latest"))
                )
            })
            .collect();
        let windows: Vec<String> = numbered()
            .map(|(number, _)| Counter::joined(number, &alignments))
            .collect();
        // Whoever owns a row is looked up once for it, and not again for every mention.
        let fence = match dialect {
            Dialect::Postgres => " OFFSET 0",
            Dialect::Sqlite => " LIMIT -1 OFFSET 0",
        };
        let is = |word: &str, join: &str| {
            numbered()
                .map(|(number, _)| format!("COALESCE(r.action_{number}, '') {word}"))
                .collect::<Vec<_>>()
                .join(join)
        };
        Some(format!(
            "WITH words (word, cutoff, start, unit, latest) AS (VALUES {rows}) \
             SELECT r.*, CASE WHEN {reset} THEN 'reset' ELSE 'align' END AS action \
             FROM (SELECT b.id AS id, {columns} FROM (SELECT b.*, {windows} FROM (SELECT b.*, {reads} FROM {table} b{old}) b \
             {joins} WHERE {over}{fence}) b{fence}) r WHERE {any}",
            windows = windows.join(", "),
            old = Self::old(counters, dialect, part, newest),
            over = over.join(" OR "),
            rows = rows.join(", "),
            reset = is("= 'reset'", " OR "),
            any = is("<> ''", " OR "),
            columns = columns.join(", "),
            reads = reads.join(", "),
            table = self.table,
            joins = joins.join(" "),
        ))
    }

    /// Keeps what no duration can have left open, by what the index over last resets serves. SQLite's are texts.
    fn old(counters: &[&Counter], dialect: Dialect, part: &Part, newest: DateTime<Utc>) -> String {
        let in_part = part.condition(dialect, "b.id");
        if dialect == Dialect::Sqlite {
            return format!(" WHERE {in_part}");
        }
        let newest = instant::literal(dialect, newest);
        let arms: Vec<String> = counters
            .iter()
            .map(|counter| format!("b.{0} IS NULL OR b.{0} <= {newest}", counter.last))
            .collect();
        format!(" WHERE ({}) AND {in_part}", arms.join(" OR "))
    }

    /// The durations that are stored; those that cannot be read are findings.
    pub(super) async fn words(
        &self,
        connection: &Connection,
        counters: &[&Counter],
    ) -> Result<(Words, Vec<Finding>)> {
        let dialect = connection.dialect();
        let mut words: Words = Vec::new();
        let mut findings = Vec::new();
        for counter in counters {
            let mut unknown: Vec<String> = Vec::new();
            let word = counter.word;
            let sql = format!(
                "SELECT DISTINCT {word} AS word FROM {} WHERE {word} IS NOT NULL ORDER BY 1",
                self.table
            );
            for word in texts(connection, &sql).await.map_err(db_context())? {
                match Window::parse(&word) {
                    Some(window) if words.iter().all(|(known, _)| *known != word) => {
                        words.push((word, window));
                    }
                    Some(_) => {}
                    None => unknown.push(word),
                }
            }
            if !unknown.is_empty() {
                let mut parameters = Parameters::new(dialect);
                let condition = format!("{word} IN ({})", parameters.list(&unknown));
                findings.extend(
                    self.finding(connection, &condition, parameters, word, &UNKNOWN)
                        .await?,
                );
            }
            if dialect == Dialect::Sqlite {
                spell(connection, self.table, counter.last)
                    .await
                    .map_err(db_context())?;
                let condition = format!(
                    "{last} IS NOT NULL AND NOT {plain} AND NOT EXISTS \
                     (SELECT 1 FROM temp.{TIMES} t WHERE t.word = {last})",
                    last = counter.last,
                    plain = is_plain(counter.last)
                );
                let none = Parameters::new(dialect);
                findings.extend(
                    self.finding(connection, &condition, none, counter.last, &UNREAD)
                        .await?,
                );
            }
        }
        Ok((words, findings))
    }

    async fn finding(
        &self,
        connection: &Connection,
        condition: &str,
        parameters: Parameters,
        column: &str,
        what: &What,
    ) -> Result<Option<Finding>> {
        let sql = format!(
            "SELECT id AS id, count(*) OVER () AS number FROM {} WHERE {condition} ORDER BY id LIMIT {SAMPLES}",
            self.table
        );
        let (rows, sample_ids) = ids(connection, parameters.statement(sql))
            .await
            .map_err(db_context())?;
        Ok((rows > 0).then(|| Finding {
            code: what.code.to_owned(),
            severity: Severity::Warning,
            title: what.title.to_owned(),
            table: self.table.to_owned(),
            column: Some(column.to_owned()),
            rows,
            sample_ids,
            effect: what.effect.to_owned(),
            resolve: what.resolve.to_owned(),
        }))
    }
}

/// What a finding says.
struct What {
    code: &'static str,
    title: &'static str,
    effect: &'static str,
    resolve: &'static str,
}

const UNKNOWN: What = What {
    code: "R002",
    title: "a reset duration that cannot be read or is not above zero",
    effect: "nobody can say when its window is over; it is never reset",
    resolve: "correct the duration: 1d, 1w, 1M, 1Y, 12h or 1h30m",
};

const UNREAD: What = What {
    code: "R001",
    title: "a time that cannot be read",
    effect: "nobody can say whether the window is over; it is not reset",
    resolve: "write it as 2026-03-29 10:11:12+00:00",
};

/// Texts of a query, by its column `word`.
async fn texts(connection: &Connection, sql: &str) -> std::result::Result<Vec<String>, DbErr> {
    rows::column(
        connection,
        Statement::from_string(connection.dialect().backend(), sql.to_owned()),
    )
    .await
}

/// Notes the instants of times that SQLite does not read as they are meant, in pages.
async fn spell(connection: &Connection, table: &str, last: &str) -> std::result::Result<(), DbErr> {
    connection
        .execute_unprepared(&format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {TIMES} (word text PRIMARY KEY, at text NOT NULL)"
        ))
        .await?;
    let mut behind = String::new();
    loop {
        let sql = format!(
            "SELECT DISTINCT CAST({last} AS text) AS word FROM {table} WHERE {last} IS NOT NULL AND NOT {} \
             AND CAST({last} AS text) > {} ORDER BY 1 LIMIT {PAGE}",
            is_plain(last),
            Dialect::Sqlite.text(&behind)
        );
        let words = texts(connection, &sql).await?;
        let Some(end) = words.last() else {
            return Ok(());
        };
        behind.clone_from(end);
        let pairs: Vec<(&String, String)> = words
            .iter()
            .filter_map(|word| Some((word, instant::text(instant::parse(word)?))))
            .collect();
        connection
            .execute_raw(Statement::from_sql_and_values(
                Dialect::Sqlite.backend(),
                format!(
                    "INSERT OR IGNORE INTO temp.{TIMES} (word, at) \
                     SELECT json_extract(j.value, '$[0]'), json_extract(j.value, '$[1]') FROM json_each(?1) j"
                ),
                [serde_json::json!(pairs).to_string().into()],
            ))
            .await?;
    }
}

/// How many rows a query has, by its column `number`, and their ids.
pub(super) async fn ids(
    connection: &Connection,
    statement: Statement,
) -> std::result::Result<(u64, Vec<String>), DbErr> {
    let rows = connection.query_all_raw(statement).await?;
    let number: i64 = rows
        .first()
        .map_or(Ok(0), |row| row.try_get("", "number"))?;
    let ids = rows
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<std::result::Result<_, DbErr>>()?;
    Ok((number.unsigned_abs(), ids))
}
