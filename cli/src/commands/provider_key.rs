//! `tollgate provider-key …`

use std::time::Duration;

use tollgate_service::providers::provider_key::{self, Fallback, Request, Source, Target};
use tollgate_service::{CommandResult, Outcome, Report, Result};

use crate::arguments::{Arguments, ProviderKeyCommand};
use crate::commands::session;
use crate::output::{Answer, View};

/// Stands for the default model config.
const DEFAULT: &str = "default";

pub(super) async fn run(arguments: &Arguments, command: &ProviderKeyCommand) -> Answer {
    let name = arguments.command.name();
    match resolve(arguments, command).await {
        Ok((result, text)) => {
            let outcome = Outcome::from(Report::answering(CommandResult::Answer(result)));
            Answer::new(name, outcome, View::Plain(text))
        }
        Err(error) => Answer::failed(name, error),
    }
}

async fn resolve(
    arguments: &Arguments,
    command: &ProviderKeyCommand,
) -> Result<(serde_json::Value, String)> {
    let ProviderKeyCommand::Resolve {
        model_config,
        user,
        byok,
        fallback_env,
    } = command;
    let fallback = fallback_env.then(|| Fallback::from(|name| std::env::var(name).ok()));
    let target = if model_config == DEFAULT {
        Target::DefaultModelConfig
    } else {
        Target::ModelConfig(model_config.clone())
    };
    let request = Request {
        target,
        user: user.as_deref(),
        byok: *byok,
        fallback: fallback.as_ref(),
    };
    let session = session(arguments, Duration::ZERO)?;
    let resolved = provider_key::resolve_in(&session, &request).await?;
    let from = match (resolved.source, &resolved.key_id) {
        (Source::User, Some(id)) => format!("the user's own key {id}"),
        (_, Some(id)) => format!("central key {id}"),
        (Source::Provider, None) => "the keys in the provider's settings".to_owned(),
        (Source::Fallback, None) => "the key of the environment".to_owned(),
        (_, None) => "no key, but the machine's own credentials".to_owned(),
    };
    let text = format!(
        "{from}, for {} provider {}",
        resolved.provider_type, resolved.provider_id
    );
    Ok((serde_json::json!(resolved), text))
}
