//! Finds what would make a migration fail, lose something or change behaviour, before it runs.

mod governance;

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::{Context, Migration, Track};

use crate::error::{Error, Result};
use crate::report::{Finding, Severity};

/// A question about the data or the schema. Its query names the offending rows in a column `id`.
pub(crate) struct Hazard {
    /// Its stable code.
    pub code: &'static str,
    /// How much a finding weighs.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// What would happen.
    pub effect: &'static str,
    /// The flag or command that resolves it.
    pub resolve: &'static str,
    /// The slugs of the migrations it concerns; it is asked while one of them is to run.
    pub concerns: &'static [&'static str],
    /// One query per table it can be found in; none where this schema cannot have the hazard.
    pub queries: fn(&Context) -> Vec<(&'static str, String)>,
}

/// How many ids a finding lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// The first few.
    First(u32),
    /// Every one.
    All,
}

impl Default for Samples {
    fn default() -> Self {
        Self::First(10)
    }
}

fn hazards(track: Track) -> &'static [Hazard] {
    match track {
        Track::Governance => governance::HAZARDS,
    }
}

/// Looks for the hazards of the migrations that are to run. One statement per hazard and table; nothing is written.
///
/// # Errors
/// [`Error::Database`] naming the hazard whose question failed.
pub(crate) async fn examine<C: ConnectionTrait>(
    connection: &C,
    context: &Context,
    track: Track,
    migrations: &[&'static Migration],
    samples: Samples,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for hazard in hazards(track) {
        let concerned = hazard
            .concerns
            .iter()
            .any(|slug| migrations.iter().any(|migration| migration.slug() == *slug));
        if !concerned {
            continue;
        }
        for (table, query) in (hazard.queries)(context) {
            let (rows, sample_ids) = ids(connection, context, &query, samples)
                .await
                .map_err(Error::database(format!("look for hazard {}", hazard.code)))?;
            if rows > 0 {
                findings.push(finding(hazard, table, rows, sample_ids));
            }
        }
    }
    Ok(findings)
}

fn finding(hazard: &Hazard, table: &str, rows: u64, sample_ids: Vec<String>) -> Finding {
    Finding {
        code: hazard.code.to_owned(),
        severity: hazard.severity,
        title: hazard.title.to_owned(),
        table: table.to_owned(),
        rows,
        sample_ids,
        effect: hazard.effect.to_owned(),
        resolve: hazard.resolve.to_owned(),
    }
}

/// Counts what a query names, and lists the first of it.
pub(crate) async fn ids<C: ConnectionTrait>(
    connection: &C,
    context: &Context,
    query: &str,
    samples: Samples,
) -> std::result::Result<(u64, Vec<String>), sea_orm::DbErr> {
    let limit = match samples {
        Samples::First(count) => format!(" LIMIT {}", count.max(1)),
        Samples::All => String::new(),
    };
    let rows = connection
        .query_all_raw(Statement::from_string(
            context.catalog.dialect.backend(),
            format!(
                "SELECT CAST(found.id AS text) AS id, count(*) OVER () AS total FROM ({query}) found \
                 ORDER BY found.id{limit}"
            ),
        ))
        .await?;
    let total: i64 = rows.first().map_or(Ok(0), |row| row.try_get("", "total"))?;
    let mut ids = rows
        .iter()
        .map(|row| {
            row.try_get::<Option<String>>("", "id")
                .map(Option::unwrap_or_default)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if samples == Samples::First(0) {
        ids.clear();
    }
    Ok((total.unsigned_abs(), ids))
}

/// The refusal for what blocks.
pub(crate) fn refusal(findings: Vec<Finding>) -> Error {
    let mut codes: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Blocking)
        .map(|finding| finding.code.as_str())
        .collect();
    codes.dedup();
    let message = format!(
        "doctor found {}, which blocks the migration",
        codes.join(", ")
    );
    Error::Refused {
        code: "blocked",
        message,
        hint: "resolve what the findings name, then run the command again; nothing was changed"
            .to_owned(),
        findings,
    }
}

/// The refusal for a hazard that has come up since the doctor looked, found under the migration's own lock.
pub(crate) fn refusal_under_lock(code: &str, table: &str, ids: Vec<String>) -> Error {
    let found = Track::ALL
        .into_iter()
        .flat_map(hazards)
        .find(|hazard| hazard.code == code)
        .map(|hazard| {
            let rows = ids.len() as u64;
            finding(hazard, table, rows, ids.into_iter().take(10).collect())
        });
    Error::Refused {
        code: "blocked",
        message: format!(
            "{code} has come up since the doctor looked; the migration was rolled back"
        ),
        hint: "resolve what the finding names, then run the command again".to_owned(),
        findings: found.into_iter().collect(),
    }
}
