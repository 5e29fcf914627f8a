//! `tollgate budget …`

use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tollgate_service::governance::budget::{self, Cost, Standing};
use tollgate_service::{
    Access, CommandResult, Error, Finding, Outcome, Report, Result, ShutdownSignal,
};

use crate::arguments::{Arguments, Asked, BudgetCommand};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(
    arguments: &Arguments,
    command: &BudgetCommand,
    stop: &ShutdownSignal,
) -> Answer {
    let name = arguments.command.name();
    let (report, text, error) = match answer(arguments, command, stop).await {
        Ok(answered) => answered,
        Err(error) => return Answer::failed(name, error),
    };
    Answer::new(name, Outcome::new(report, error), View::Plain(text))
}

type Answered = (Report, String, Option<Error>);

fn report(result: serde_json::Value, findings: impl IntoIterator<Item = Finding>) -> Report {
    let mut report = Report::answering(CommandResult::Answer(result));
    report.findings.extend(findings);
    report
}

async fn answer(
    arguments: &Arguments,
    command: &BudgetCommand,
    stop: &ShutdownSignal,
) -> Result<Answered> {
    let now = Utc::now();
    match command {
        BudgetCommand::Check { asked, cost } => check(arguments, asked, cost.as_deref(), now).await,
        BudgetCommand::Record {
            asked,
            cost,
            request_id,
        } => record(arguments, asked, cost, request_id.as_deref(), now).await,
        BudgetCommand::Reset {
            id,
            reason,
            dry_run,
            wait,
        } => {
            let session = session(arguments, wait.duration())?;
            let (begun, report) = budget::reset(&session, id, reason, *dry_run, now, stop).await?;
            let budget::Begun {
                budget,
                usage_before,
                ..
            } = &begun;
            let text = format!(
                "budget {id} {}: {usage_before} of {} had been spent; the next window begins at {}",
                if *dry_run {
                    "would begin again"
                } else {
                    "begins again"
                },
                budget.max_limit,
                budget.resets_at.as_deref().unwrap_or("no time")
            );
            Ok((report, text, None))
        }
        BudgetCommand::List {
            virtual_key,
            provider,
            model,
        } => {
            let session = session(arguments, Duration::ZERO)?;
            let (connection, budgets) = budget::open(&session, Access::Read).await?;
            let standings = budgets
                .list(
                    &connection,
                    &budget::Asked {
                        virtual_key,
                        provider: provider.as_deref(),
                        model: model.as_deref(),
                    },
                    now,
                )
                .await?;
            let text = table("no budgets", &standings);
            let result = serde_json::json!({ "budgets": standings });
            Ok((report(result, None), text, None))
        }
    }
}

async fn check(
    arguments: &Arguments,
    asked: &Asked,
    cost: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Answered> {
    let cost: Option<Cost> = cost.map(str::parse).transpose()?;
    let session = session(arguments, Duration::ZERO)?;
    let (connection, budgets) = budget::open(&session, Access::Read).await?;
    let verdict = budgets
        .check(&connection, &asked.request(), cost.as_ref(), now)
        .await?;
    let (text, error) = match &verdict.blocked_by {
                None if asked.model.is_none() && budgets.asks_models() => (
                    "allowed, as far as no limit of a single model says otherwise (--model names the request's)"
                        .to_owned(),
                    None,
                ),
                None => ("allowed".to_owned(), None),
                Some(by) => ("refused".to_owned(), Some(refusal(by, cost.as_ref()))),
            };
    Ok((report(serde_json::json!(verdict), None), text, error))
}

async fn record(
    arguments: &Arguments,
    asked: &Asked,
    cost: &str,
    request_id: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Answered> {
    let cost: Cost = cost.parse()?;
    if request_id.is_some_and(|id| id.trim().is_empty()) {
        return Err(Error::usage(
            "the request id is empty",
            "give each request an id of its own, or leave --request-id out",
        ));
    }
    let session = session(arguments, Duration::ZERO)?;
    let (connection, budgets) = budget::open(&session, Access::Write).await?;
    let recorded = budgets
        .record(&connection, &asked.request(), &cost, request_id, now)
        .await?;
    let text = if recorded.recorded {
        table(
            "recorded; no budget stands above this request",
            &recorded.budgets,
        )
    } else {
        "recorded before; nothing was added".to_owned()
    };
    let findings = recorded.unnoticed();
    Ok((report(serde_json::json!(recorded), findings), text, None))
}

/// Why a budget says no, and when it may say yes again.
fn refusal(by: &Standing, cost: Option<&Cost>) -> Error {
    let Standing {
        budget_id,
        owner,
        current_usage: usage,
        max_limit: limit,
        ..
    } = by;
    let message = match cost {
        Some(cost) if !by.is_spent => format!(
            "budget {budget_id} of {owner} would be exceeded: {usage} of {limit} are spent, and the request costs {}",
            cost.as_str()
        ),
        _ => format!("budget {budget_id} of {owner} is spent: {usage} of {limit}"),
    };
    let hint = match &by.resets_at {
        _ if limit.is_nothing() => "its limit allows nothing; raise it in the gateway".to_owned(),
        None => "it never resets: its duration or its last reset cannot be read".to_owned(),
        Some(at) => format!("it counts from zero again at {at}"),
    };
    Error::refused("budget_exceeded", message, hint)
}

/// One line per budget, in the order in which they are asked.
fn table(none: &str, standings: &[Standing]) -> String {
    if standings.is_empty() {
        return none.to_owned();
    }
    let mut out = String::new();
    for standing in standings {
        let again = standing.resets_at.as_deref().unwrap_or("never");
        let _ = writeln!(
            out,
            "{:<28} {:<24} {} of {} per {}{}, resets {again}{}",
            standing.owner,
            standing.budget_id,
            standing.current_usage,
            standing.max_limit,
            standing.reset_duration,
            if standing.calendar_aligned {
                " of the calendar"
            } else {
                ""
            },
            if standing.allows { "" } else { ", spent" },
        );
    }
    out.trim_end().to_owned()
}
