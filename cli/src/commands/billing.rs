//! `tollgate billing-mode …` and `tollgate workspace-secret …`

use std::io::Read;
use std::time::Duration;

use tollgate_service::billing::environment::{Proxy, strip_lines, strip_object};
use tollgate_service::billing::{mode, secret};
use tollgate_service::{CommandResult, Error, Outcome, Report};

use crate::arguments::{Arguments, BillingMode, WorkspaceSecret};
use crate::commands::session;
use crate::output::{Answer, View};

pub(super) async fn mode(arguments: &Arguments, command: &BillingMode) -> Answer {
    let name = arguments.command.name();
    let session = session(arguments, Duration::ZERO);
    match command {
        BillingMode::Get { workspace, org } => {
            // Whoever asks gets one of the three, whatever stands in the way.
            let (resolution, error) = match session {
                Ok(session) => mode::resolve_in(&session, workspace, &org.org_default).await,
                Err(error) => (mode::closed(workspace, &org.org_default), Some(error)),
            };
            let text = resolution.resolved_mode.name().to_owned();
            answer(
                name,
                serde_json::json!(resolution),
                error,
                View::Plain(text),
            )
        }
        BillingMode::Set {
            workspace,
            mode: text,
            org,
        } => match session {
            Ok(session) => match mode::set(&session, workspace, Some(text)).await {
                Ok(_) => confirmed(name, &session, workspace, &org.org_default).await,
                Err(error) => Answer::failed(name, error),
            },
            Err(error) => Answer::failed(name, error),
        },
        BillingMode::Clear { workspace, org } => match session {
            Ok(session) => match mode::set(&session, workspace, None).await {
                Ok(_) => confirmed(name, &session, workspace, &org.org_default).await,
                Err(error) => Answer::failed(name, error),
            },
            Err(error) => Answer::failed(name, error),
        },
        BillingMode::Strip {
            workspace,
            org,
            json_env,
        } => {
            let (resolution, error, runtime) = match session {
                Ok(session) => {
                    let (resolution, error) =
                        mode::resolve_in(&session, workspace, &org.org_default).await;
                    // A database that has just failed is not asked again.
                    let runtime = match error {
                        None => mode::runtime(&session, workspace).await,
                        Some(_) => String::new(),
                    };
                    (resolution, error, runtime)
                }
                Err(error) => (
                    mode::closed(workspace, &org.org_default),
                    Some(error),
                    String::new(),
                ),
            };
            strip(name, &resolution, error, &runtime, *json_env)
        }
    }
}

/// What a workspace resolves to after a write.
async fn confirmed(
    name: &'static str,
    session: &tollgate_service::runner::Session,
    workspace: &str,
    org_default: &str,
) -> Answer {
    let (resolution, error) = mode::resolve_in(session, workspace, org_default).await;
    let text = resolution.resolved_mode.name().to_owned();
    answer(
        name,
        serde_json::json!(resolution),
        error,
        View::Plain(text),
    )
}

fn strip(
    name: &'static str,
    resolution: &mode::Resolution,
    error: Option<Error>,
    runtime: &str,
    json_env: bool,
) -> Answer {
    let mut input = Vec::new();
    if let Err(source) = std::io::stdin().lock().read_to_end(&mut input) {
        return Answer::failed(
            name,
            Error::File {
                path: "standard input".to_owned(),
                source,
            },
        );
    }
    let proxy = Proxy::from(|name| std::env::var(name).ok());
    let mode = resolution.resolved_mode;
    let (environment, unproxied) = if json_env {
        match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&input) {
            Ok(object) if object.values().any(|value| !value.is_string()) => {
                return Answer::failed(
                    name,
                    Error::Rejected {
                        what: "standard input has a variable whose value is no text".to_owned(),
                    },
                );
            }
            Ok(object) => {
                let stripped = strip_object(object, mode, &proxy, runtime);
                let mut text = serde_json::to_string_pretty(&stripped.environment)
                    .unwrap_or_default()
                    .into_bytes();
                text.push(b'\n');
                (text, stripped.unproxied)
            }
            Err(error) => {
                return Answer::failed(
                    name,
                    Error::Rejected {
                        what: format!("standard input is no JSON object of variables: {error}"),
                    },
                );
            }
        }
    } else {
        let stripped = strip_lines(&input, mode, &proxy, runtime);
        (stripped.environment, stripped.unproxied)
    };
    let error = error.or_else(|| {
        unproxied.then(|| {
            Error::refused(
                "missing_proxy",
                "the workspace is platform_managed, and the proxy's address or token is missing",
                "set MOLECULE_LLM_BASE_URL and MOLECULE_LLM_USAGE_TOKEN; the keys were stripped and nothing was injected",
            )
        })
    });
    let result = serde_json::json!({
        "workspace_id": resolution.workspace_id,
        "resolved_mode": mode,
        "environment": String::from_utf8_lossy(&environment),
    });
    answer(name, result, error, View::Raw(environment))
}

pub(super) async fn secret(arguments: &Arguments, command: &WorkspaceSecret) -> Answer {
    let name = arguments.command.name();
    let WorkspaceSecret::Check {
        workspace,
        key,
        org,
    } = command;
    let (resolution, error) = match session(arguments, Duration::ZERO) {
        Ok(session) => mode::resolve_in(&session, workspace, &org.org_default).await,
        Err(error) => (mode::closed(workspace, &org.org_default), Some(error)),
    };
    let mut gate = secret::check(&resolution, key);
    // Closed on error, whatever the name.
    gate.allowed &= error.is_none();
    let text = if gate.allowed { "allowed" } else { "refused" };
    let error = error.or_else(|| {
        gate.reason.as_ref().map(|reason| {
            Error::refused(
                "bypass_key",
                reason.clone(),
                gate.resolve.clone().unwrap_or_default(),
            )
        })
    });
    answer(
        name,
        serde_json::json!(gate),
        error,
        View::Plain(text.to_owned()),
    )
}

fn answer(
    name: &'static str,
    result: serde_json::Value,
    error: Option<Error>,
    view: View,
) -> Answer {
    let report = Report::answering(CommandResult::Answer(result));
    Answer::new(name, Outcome::new(report, error), view)
}
