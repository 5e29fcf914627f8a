//! `reconcile header-keys`: header keys in lower case and without spaces around them (`docs/upstream/bifrost.md` §4.12).
//!
//! Reads and writes `config_mcp_clients.per_user_header_keys_json`, a list of names, and
//! `mcp_per_user_header_credentials.headers_json`, an object by name, in rows that are not encrypted. Of names that fold to
//! one the last keeps its value. What is no JSON is reported and left. `updated_at` stays: orphaned rows age on it.

use std::collections::HashMap;
use std::fmt;

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_migration::governance::header_keys;
use tollgate_migration::plan::NormalizeHeaderNames;
use tollgate_migration::{Context, Dialect, Track};

use super::{Options, Routine, count, run};
use crate::connection::Connection;
use crate::doctor::{Samples, ids};
use crate::error::{Error, Result};
use crate::report::{Finding, Outcome, Report, Severity};
use crate::retry::{self, Turns, backoff};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

/// Rows of one transaction.
const PAGE: usize = 500;

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// It is folded already.
    Same,
    /// It becomes this; whether names fell together.
    Changed(String, bool),
    /// It is not the JSON that it should be.
    Malformed,
}

/// The canonical form of a header's name.
pub(crate) fn canonical(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The entries of an object in their order, equal names and all.
pub(crate) struct Entries(pub Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Entries;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Folds a list or an object.
pub(crate) fn fold(text: &str, list: bool) -> Folded {
    if list {
        fold_list(text)
    } else {
        fold_object(text)
    }
}

fn fold_list(text: &str) -> Folded {
    let Ok(names) = serde_json::from_str::<Vec<String>>(text) else {
        return Folded::Malformed;
    };
    let mut folded: Vec<String> = Vec::new();
    for name in &names {
        let name = canonical(name);
        if !folded.contains(&name) {
            folded.push(name);
        }
    }
    if folded == names {
        return Folded::Same;
    }
    let collided = folded.len() < names.len();
    serde_json::to_string(&folded).map_or(Folded::Malformed, |json| Folded::Changed(json, collided))
}

fn fold_object(text: &str) -> Folded {
    let Ok(Entries(entries)) = serde_json::from_str::<Entries>(text) else {
        return Folded::Malformed;
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut folded: Vec<(String, &RawValue)> = Vec::new();
    let mut same = true;
    for (name, value) in &entries {
        let canonical = canonical(name);
        same &= canonical == *name;
        if let Some(&place) = places.get(&canonical) {
            folded[place].1 = value;
        } else {
            places.insert(canonical.clone(), folded.len());
            folded.push((canonical, value));
        }
    }
    let collided = folded.len() < entries.len();
    if same && !collided {
        return Folded::Same;
    }
    let parts: Option<Vec<String>> = folded
        .iter()
        .map(|(name, value)| {
            let name = serde_json::to_string(name).ok()?;
            Some(format!("{name}:{}", value.get()))
        })
        .collect();
    parts.map_or(Folded::Malformed, |parts| {
        Folded::Changed(format!("{{{}}}", parts.join(",")), collided)
    })
}

/// What a walk over one column found and did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    /// Rows that were, or would be, folded.
    pub folded: u64,
    /// The first of their ids.
    pub folded_ids: Vec<String>,
    /// Rows in which names fell together.
    pub collided: Vec<String>,
    /// Rows that are no JSON.
    pub malformed: Vec<String>,
}

/// How a walk goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// Whether rows without anything to fold are read too, for the sake of those that are no JSON.
    pub all: bool,
    /// Whether it writes.
    pub write: bool,
}

/// Walks a column page by page, each page a transaction of its own. A statement or two per page: the pages are bounded,
/// and what is JSON no SQL of PostgreSQL 15 can say without failing.
pub(crate) async fn walk(
    connection: &Connection,
    dialect: Dialect,
    fold: &NormalizeHeaderNames,
    how: How,
    stop: &ShutdownSignal,
) -> Result<Walked> {
    let db_context = || Error::database(format!("fold the header keys of {}", fold.table));
    let mut walked = Walked::default();
    let mut behind = fold.start().to_owned();
    loop {
        stop.check()?;
        let rows = connection
            .query_all_raw(Statement::from_sql_and_values(
                dialect.backend(),
                fold.page(dialect, how.all, PAGE),
                [behind.clone().into()],
            ))
            .await
            .map_err(db_context())?;
        let mut due: Vec<(String, String, String)> = Vec::new();
        for row in &rows {
            let id: String = row.try_get("", "id").map_err(db_context())?;
            let json: String = row.try_get("", "json").map_err(db_context())?;
            behind.clone_from(&id);
            match self::fold(&json, fold.list) {
                Folded::Same => {}
                Folded::Malformed => walked.malformed.push(id),
                Folded::Changed(folded, collided) => {
                    if collided {
                        walked.collided.push(id.clone());
                    }
                    due.push((id, json, folded));
                }
            }
        }
        if !due.is_empty() {
            let turns = Turns::of(connection);
            let rows = if how.write {
                (|| write(connection, dialect, fold, &due))
                    .retry(backoff())
                    .when(|error| turns.again(error))
                    .await
                    .map_err(db_context())?
            } else {
                due.len() as u64
            };
            walked.folded += rows;
            let room = super::SAMPLES.saturating_sub(walked.folded_ids.len());
            walked
                .folded_ids
                .extend(due.into_iter().take(room).map(|(id, ..)| id));
        }
        if rows.len() < PAGE {
            return Ok(walked);
        }
    }
}

async fn write(
    connection: &Connection,
    dialect: Dialect,
    fold: &NormalizeHeaderNames,
    due: &[(String, String, String)],
) -> std::result::Result<u64, DbErr> {
    let mut rows = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (id, was, folded) in due {
        let mut parameters = Vec::new();
        for text in [id, was, folded] {
            values.push(text.clone().into());
            parameters.push(dialect.parameter(values.len()));
        }
        rows.push(format!("({})", parameters.join(", ")));
    }
    let transaction = retry::begin(connection).await?;
    let written = transaction
        .execute_raw(Statement::from_sql_and_values(
            dialect.backend(),
            fold.write(&rows.join(", ")),
            values,
        ))
        .await?
        .rows_affected();
    transaction.commit().await?;
    Ok(written)
}

/// G012, in three forms.
fn hazard(
    fold: &NormalizeHeaderNames,
    title: &str,
    effect: &str,
    resolve: &str,
    ids: Vec<String>,
) -> Finding {
    Finding {
        code: "G012".to_owned(),
        severity: Severity::Warning,
        title: title.to_owned(),
        table: fold.table.to_owned(),
        column: Some(fold.column.to_owned()),
        rows: ids.len() as u64,
        sample_ids: ids,
        effect: effect.to_owned(),
        resolve: resolve.to_owned(),
    }
}

fn findings(fold: &NormalizeHeaderNames, walked: &Walked, samples: Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    if !walked.collided.is_empty() {
        found.push(hazard(
            fold,
            "header keys that fold to the same name",
            "the last of them keeps its value, and the others are dropped",
            "write each header once",
            walked.collided.clone(),
        ));
    }
    if !walked.malformed.is_empty() {
        found.push(hazard(
            fold,
            "header keys that are no JSON",
            "the text is left as it is, and no reader can use it",
            "submit the headers again, or delete the row",
            walked.malformed.clone(),
        ));
    }
    if let Samples::First(most) = samples {
        for finding in &mut found {
            finding.sample_ids.truncate(most as usize);
        }
    }
    found
}

/// Encrypted rows, which nobody here can read.
async fn encrypted(
    connection: &impl ConnectionTrait,
    fold: &NormalizeHeaderNames,
    samples: Samples,
) -> Result<Option<Finding>> {
    if !fold.encrypted {
        return Ok(None);
    }
    let sql = format!(
        "SELECT id FROM {} WHERE COALESCE(encryption_status, '') NOT IN ('', 'plain_text')",
        fold.table
    );
    let (rows, sample_ids) = ids(connection, sql, samples)
        .await
        .map_err(Error::database("count encrypted headers"))?;
    Ok((rows > 0).then(|| Finding {
        rows,
        ..hazard(
            fold,
            "encrypted header keys, which cannot be folded",
            "left as they are; a name in mixed case is not found by today's readers",
            "let the gateway write them again",
            sample_ids,
        )
    }))
}

/// Hazard G012: read-only, one pass over the columns.
pub(crate) async fn examine(
    connection: &Connection,
    context: &Context,
    samples: Samples,
) -> Result<Vec<Finding>> {
    let how = How {
        all: true,
        write: false,
    };
    let mut found = Vec::new();
    for fold in header_keys(context) {
        let walked = walk(
            connection,
            context.catalog.dialect,
            &fold,
            how,
            &ShutdownSignal::default(),
        )
        .await?;
        found.extend(findings(&fold, &walked, samples));
        found.extend(encrypted(connection, &fold, samples).await?);
    }
    Ok(found)
}

struct HeaderKeys<'a> {
    stop: &'a ShutdownSignal,
}

impl HeaderKeys<'_> {
    async fn run(&self, connection: &Connection, write: bool, report: &mut Report) -> Result<()> {
        let context = Context::read(connection)
            .await
            .map_err(Error::database("read the catalog"))?;
        let folds = header_keys(&context);
        if folds.is_empty() {
            return Err(Error::NotFound {
                what: "table that holds header keys; `tollgate migrate up --to mcp_credentials` makes them".to_owned(),
            });
        }
        let how = How { all: false, write };
        for fold in folds {
            let walked = walk(connection, context.catalog.dialect, &fold, how, self.stop).await?;
            count(
                &mut report.changes,
                fold.table,
                "update",
                walked.folded,
                walked.folded_ids.clone(),
            );
            let samples = Samples::default();
            report.findings.extend(findings(&fold, &walked, samples));
            report
                .findings
                .extend(encrypted(connection, &fold, samples).await?);
        }
        Ok(())
    }
}

impl Routine for HeaderKeys<'_> {
    fn name(&self) -> &'static str {
        "header-keys"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let mut report = Report::default();
        self.run(connection, false, &mut report).await?;
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        self.run(connection, true, report).await
    }
}

/// Runs the routine.
pub async fn fold_header_keys(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    run(session, options, now, stop, &HeaderKeys { stop }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Folded {
        Folded::Changed(text.to_owned(), false)
    }

    fn collided(text: &str) -> Folded {
        Folded::Changed(text.to_owned(), true)
    }

    #[test]
    fn names_are_folded_and_values_are_not() {
        assert_eq!(
            fold(r#"{"X-Api-Key": "SeCrEt", "b":1.50}"#, false),
            changed(r#"{"x-api-key":"SeCrEt","b":1.50}"#)
        );
        assert_eq!(
            fold(r#"{" x ":"é\u00e9"}"#, false),
            changed(r#"{"x":"é\u00e9"}"#)
        );
        assert_eq!(fold(r#"["X-Key", "y"]"#, true), changed(r#"["x-key","y"]"#));
    }

    #[test]
    fn what_is_folded_stays_as_it_is_written() {
        for text in [r#"{ "x" : "A" }"#, "{}", r#"{"":1}"#] {
            assert_eq!(fold(text, false), Folded::Same, "{text}");
        }
        assert_eq!(fold(r#"[ "a" ]"#, true), Folded::Same);
    }

    #[test]
    fn of_names_that_fall_together_the_last_keeps_its_value() {
        assert_eq!(
            fold(r#"{"Key":"1","other":"2","KEY":"3"}"#, false),
            collided(r#"{"key":"3","other":"2"}"#)
        );
        assert_eq!(fold(r#"["A","a"]"#, true), collided(r#"["a"]"#));
    }

    #[test]
    fn what_is_no_json_of_its_kind_is_malformed() {
        for text in ["", "{", "[1]", r#"["a"]"#, "null", r#"{"a":}"#, "{} x"] {
            assert_eq!(fold(text, false), Folded::Malformed, "{text}");
        }
        for text in ["{}", "[1]", r#"["a",null]"#, "x"] {
            assert_eq!(fold(text, true), Folded::Malformed, "{text}");
        }
    }
}
