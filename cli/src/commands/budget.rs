//! `tollgate budget …`

use std::fmt::Write;
use std::time::Duration;

use chrono::Utc;
use tollgate_service::budget::{self, Cost, Standing};
use tollgate_service::{Access, Error, Outcome, Report, Result};

use crate::arguments::{Arguments, BudgetCommand};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn run(arguments: &Arguments, command: &BudgetCommand) -> Answer {
    let name = arguments.command.name();
    let (result, text, error) = match answer(arguments, command).await {
        Ok(answered) => answered,
        Err(error) => return Answer::failed(name, error),
    };
    let report = Report {
        result: Some(result),
        ..Report::default()
    };
    Answer::new(name, Outcome { report, error }, View::Plain(text))
}

type Answered = (serde_json::Value, String, Option<Error>);

async fn answer(arguments: &Arguments, command: &BudgetCommand) -> Result<Answered> {
    let now = Utc::now();
    match command {
        BudgetCommand::Check { asked, cost } => {
            let cost: Option<Cost> = cost.as_deref().map(str::parse).transpose()?;
            let session = session(arguments, Duration::ZERO)?;
            let (connection, budgets) = budget::open(&session, Access::Read).await?;
            let verdict = budgets
                .check(
                    &connection,
                    &asked.virtual_key,
                    &asked.provider,
                    cost.as_ref(),
                    now,
                )
                .await?;
            let (text, error) = match &verdict.blocked_by {
                None => ("allowed".to_owned(), None),
                Some(by) => {
                    let again = by.resets_at.as_ref().map_or_else(
                        || "it never resets: its duration cannot be read".to_owned(),
                        |at| format!("it counts from zero again at {at}"),
                    );
                    (
                        "refused".to_owned(),
                        Some(Error::refused(
                            "budget_exceeded",
                            format!(
                                "budget {} of {} is spent: {} of {}",
                                by.budget_id, by.owner, by.current_usage, by.max_limit
                            ),
                            again,
                        )),
                    )
                }
            };
            Ok((serde_json::json!(verdict), text, error))
        }
        BudgetCommand::Record {
            asked,
            cost,
            request_id,
        } => {
            let cost: Cost = cost.parse()?;
            let session = session(arguments, Duration::ZERO)?;
            let (connection, budgets) = budget::open(&session, Access::Write).await?;
            let recorded = budgets
                .record(
                    &connection,
                    &asked.virtual_key,
                    &asked.provider,
                    &cost,
                    request_id.as_deref(),
                    now,
                )
                .await?;
            let text = if recorded.recorded {
                table(
                    "recorded; no budget stands above this request",
                    &recorded.budgets,
                )
            } else {
                "recorded before; nothing was added".to_owned()
            };
            Ok((serde_json::json!(recorded), text, None))
        }
        BudgetCommand::List {
            virtual_key,
            provider,
        } => {
            let session = session(arguments, Duration::ZERO)?;
            let (connection, budgets) = budget::open(&session, Access::Read).await?;
            let standings = budgets
                .list(&connection, virtual_key, provider.as_deref(), now)
                .await?;
            let text = table("no budgets", &standings);
            Ok((serde_json::json!({ "budgets": standings }), text, None))
        }
    }
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
