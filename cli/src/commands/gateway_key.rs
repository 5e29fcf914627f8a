//! `tollgate gateway-key …`

use std::io::Read;
use std::time::Duration;

use chrono::Utc;
use comfy_table::{Table, presets};
use tollgate_service::gateway_key::{self, GatewayKey};
use tollgate_service::{Error, Outcome, Report, Result};

use crate::arguments::{Arguments, GatewayKeyCommand};
use crate::commands::session;
use crate::output::{Answer, View};

/// The longest input that is read: a secret has 43 characters, and what is longer is none.
const LONGEST: u64 = 4096;

pub(super) async fn run(arguments: &Arguments, command: &GatewayKeyCommand) -> Answer {
    let name = arguments.command.name();
    let answered = match command {
        GatewayKeyCommand::Create { name } => create(arguments, name).await,
        GatewayKeyCommand::List => list(arguments).await,
        GatewayKeyCommand::Delete { key } => delete(arguments, key).await,
        GatewayKeyCommand::Authenticate => authenticate(arguments).await,
    };
    match answered {
        Ok((result, text)) => {
            let report = Report {
                result: Some(result),
                ..Report::default()
            };
            let outcome = Outcome {
                report,
                error: None,
            };
            Answer::new(name, outcome, View::Plain(text))
        }
        Err(error) => Answer::failed(name, error),
    }
}

/// What a command of this file answers: for machines and for people.
type Answered = Result<(serde_json::Value, String)>;

async fn create(arguments: &Arguments, name: &str) -> Answered {
    // A name that cannot be is said before anything is connected to.
    let name = name.parse()?;
    let session = session(arguments, Duration::ZERO)?;
    let created = gateway_key::create(&session, &name, &mut rand::rng(), Utc::now()).await?;
    let key = &created.key;
    let text = format!(
        "gateway key {} ({})\nsecret: {}\nit is not shown again",
        key.name,
        key.id,
        created.secret()
    );
    let result = serde_json::json!({
        "id": key.id,
        "name": key.name,
        "secret_prefix": key.secret_prefix,
        "created_at": key.created_at,
        "secret": created.secret(),
    });
    Ok((result, text))
}

async fn list(arguments: &Arguments) -> Answered {
    let keys = gateway_key::list(&session(arguments, Duration::ZERO)?).await?;
    let text = if keys.is_empty() {
        "no gateway keys".to_owned()
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "NAME",
            "SECRET",
            "CREATED",
            "LAST USED",
            "ID",
        ]);
        for key in &keys {
            table.add_row([
                key.name.clone(),
                format!("{}…", key.secret_prefix),
                key.created_at.clone(),
                key.last_used_at
                    .clone()
                    .unwrap_or_else(|| "never".to_owned()),
                key.id.clone(),
            ]);
        }
        table.trim_fmt()
    };
    Ok((serde_json::json!({ "keys": keys }), text))
}

async fn delete(arguments: &Arguments, key: &str) -> Answered {
    let session = session(arguments, Duration::ZERO)?;
    let deleted = gateway_key::delete(&session, key, Utc::now()).await?;
    answered("deleted", &deleted)
}

async fn authenticate(arguments: &Arguments) -> Answered {
    let session = session(arguments, Duration::ZERO)?;
    let mut presented = Vec::new();
    std::io::stdin()
        .lock()
        .take(LONGEST)
        .read_to_end(&mut presented)
        .map_err(|source| Error::File {
            path: "standard input".to_owned(),
            source,
        })?;
    // What an editor or `echo` puts behind a line.
    if presented.last() == Some(&b'\n') {
        presented.pop();
        if presented.last() == Some(&b'\r') {
            presented.pop();
        }
    }
    let key = gateway_key::authenticate(&session, &presented).await?;
    answered("authenticated", &key)
}

fn answered(what: &str, key: &GatewayKey) -> Answered {
    Ok((
        serde_json::json!(key),
        format!("{what}: gateway key {} ({})", key.name, key.id),
    ))
}
