//! `reconcile all`: every routine of the tracks present that needs no file and no argument, one after another.
//!
//! A routine whose tables are missing is skipped. One that fails does not keep the others from running: stale credentials
//! are closed although a budget's duration is garbled. The first failure is the run's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tollgate_migration::providers::{CHAT_PROVIDERS, PROVIDERS};
use tollgate_migration::{NameConflicts, Track};

use super::credentials::{Scope, credentials};
use super::flows::flows;
use super::header_keys::fold_header_keys;
use super::provider_keys::provider_keys;
use super::resets::resets;
use super::{Options, billing, count};
use crate::database::{Access, existing};
use crate::error::Error;
use crate::report::{Finding, Outcome, Report, Severity};
use crate::runner::Session;
use crate::shutdown::ShutdownSignal;

/// A routine, as `all` runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    HeaderKeys,
    Credentials,
    Flows,
    Resets,
    ProviderKeys,
    Billing,
}

const PARTS: [Part; 6] = [
    Part::HeaderKeys,
    Part::Credentials,
    Part::Flows,
    Part::Resets,
    Part::ProviderKeys,
    Part::Billing,
];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::HeaderKeys => "header-keys",
            Self::Credentials => "credentials",
            Self::Flows => "flows",
            Self::Resets => "resets",
            Self::ProviderKeys => "provider-keys",
            Self::Billing => "billing",
        }
    }

    fn track(self) -> Track {
        match self {
            Self::ProviderKeys => Track::PROVIDERS,
            Self::Billing => Track::BILLING,
            _ => Track::GOVERNANCE,
        }
    }
}

/// How long `resets` keeps request ids here.
pub const REQUEST_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs them. The change limit holds for all of them together: nothing is changed when their sum is more.
pub async fn all(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let load = Options {
        dry_run: true,
        max_changes: None,
    };
    let held = |planned: &Outcome| {
        let most = options.max_changes?;
        let rows = planned.report.rows();
        (rows > most).then(|| Outcome {
            report: Report::default(),
            error: Some(super::held(rows, most)),
        })
    };
    if options.dry_run {
        let planned = each(session, load, now, stop).await;
        return held(&planned).unwrap_or(planned);
    }
    if options.max_changes.is_some() {
        let planned = each(session, load, now, stop).await;
        if let Some(held) = held(&planned) {
            return held;
        }
    }
    let apply = Options {
        max_changes: None,
        ..options
    };
    each(session, apply, now, stop).await
}

async fn each(
    session: &Session,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    let mut report = Report::default();
    let mut failed: Option<Error> = None;
    let mut told = Vec::new();
    for part in PARTS {
        if !session.tracks.is_empty() && !session.tracks.contains(&part.track()) {
            continue;
        }
        let outcome = match part {
            Part::HeaderKeys => fold_header_keys(session, options, now, stop).await,
            Part::Credentials => credentials(session, &Scope::All, options, now, stop).await,
            Part::Flows => flows(session, None, options, now, stop).await,
            Part::Resets => resets(session, REQUEST_RETENTION, options, now, stop).await,
            Part::ProviderKeys => {
                provider_keys(session, NameConflicts::default(), options, now, stop).await
            }
            Part::Billing => Outcome::from(billing::billing(session, options, stop).await),
        };
        let rows = outcome.report.rows();
        for change in outcome.report.changes {
            count(
                &mut report.changes,
                &change.table,
                &change.action,
                change.rows,
                change.sample_ids,
            );
        }
        report.findings.extend(outcome.report.findings);
        let word = match outcome.error {
            None => "done",
            Some(Error::NotFound { .. }) => "skipped",
            Some(error) => {
                let ends = !is_of_the_routine(&error);
                failed.get_or_insert(error);
                if ends {
                    break;
                }
                "failed"
            }
        };
        told.push(serde_json::json!({ "routine": part.name(), "outcome": word, "rows": rows }));
    }
    let all_skipped = told.iter().all(|one| one["outcome"] == "skipped");
    if failed.is_none() && all_skipped {
        match over(session).await {
            Ok(Some(finding)) => report.findings.push(finding),
            Ok(None) => {
                failed = Some(Error::NotFound {
                    what: "table of any routine here".to_owned(),
                });
            }
            Err(error) => failed = Some(error),
        }
    }
    report.result = Some(serde_json::json!({ "routines": told }));
    Outcome {
        report,
        error: failed,
    }
}

/// That every routine's work is over: a database behind the provider-key cutover has nothing left to be copied.
async fn over(session: &Session) -> crate::error::Result<Option<Finding>> {
    let connection = session.connect(Access::Read).await?;
    let names = [PROVIDERS, CHAT_PROVIDERS].map(str::to_owned);
    let found = existing(&connection, session.dialect(), &names)
        .await
        .map_err(Error::database("look for the tables of the tracks"))?;
    let over = found.iter().any(|name| name == PROVIDERS)
        && !found.iter().any(|name| name == CHAT_PROVIDERS)
        && (session.tracks.is_empty() || session.tracks.contains(&Track::PROVIDERS));
    Ok(over.then(|| Finding {
        code: "R020".to_owned(),
        severity: Severity::Info,
        title: "the routines of this database are over".to_owned(),
        table: PROVIDERS.to_owned(),
        column: None,
        rows: 0,
        sample_ids: Vec::new(),
        effect: "the cutover is done: there are no legacy rows to follow any more".to_owned(),
        resolve: "take the job out of cron".to_owned(),
    }))
}

/// Whether another routine may fare better: not where the database is out of reach or somebody has said stop.
fn is_of_the_routine(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused { .. }
            | Error::Database { .. }
            | Error::Rejected { .. }
            | Error::Locked { .. }
    )
}
