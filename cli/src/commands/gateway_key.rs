//! `tollgate gateway-key …`

use std::io::Read;
use std::time::Duration;

use chrono::Utc;
use comfy_table::{Table, presets};
use tollgate_service::providers::gateway_key::{self, GatewayKey};
use tollgate_service::{Change, CommandResult, Error, Outcome, Report, Result};

use crate::arguments::{Arguments, GatewayKeyCommand};
use crate::commands::session;
use crate::output::{Answer, Secret, View};

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
        Ok(answered) => {
            let mut report = Report::answering(CommandResult::Answer(answered.result));
            report.changes = answered.changes;
            let answer = Answer::new(name, Outcome::from(report), View::Plain(answered.text));
            match answered.secret {
                Some(secret) => answer.with_secret(secret),
                None => answer,
            }
        }
        Err(error) => Answer::failed(name, error),
    }
}

/// What a command of this file answers: for machines and for people. A new secret stands beside it, in a type that does not
/// print itself.
struct Answered {
    result: serde_json::Value,
    text: String,
    changes: Vec<Change>,
    secret: Option<Secret>,
}

async fn create(arguments: &Arguments, name: &str) -> Result<Answered> {
    // A name that cannot be is said before anything is connected to.
    let name = name.parse()?;
    let session = session(arguments, Duration::ZERO)?;
    let (created, changes) =
        gateway_key::create(&session, &name, &mut rand::rng(), Utc::now()).await?;
    let key = &created.key;
    Ok(Answered {
        result: serde_json::json!({
            "id": key.id,
            "name": key.name,
            "secret_prefix": key.secret_prefix,
            "created_at": key.created_at,
        }),
        text: format!("gateway key {} ({})", key.name, key.id),
        changes,
        secret: Some(Secret {
            text: created.secret().to_owned().into(),
            when_lost: format!(
                "nothing can show it again; run `tollgate gateway-key delete {}` and create another",
                key.name
            ),
        }),
    })
}

async fn list(arguments: &Arguments) -> Result<Answered> {
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
    Ok(Answered {
        result: serde_json::json!({ "keys": keys }),
        text,
        changes: Vec::new(),
        secret: None,
    })
}

async fn delete(arguments: &Arguments, key: &str) -> Result<Answered> {
    let session = session(arguments, Duration::ZERO)?;
    let (deleted, changes) = gateway_key::delete(&session, key, Utc::now()).await?;
    Ok(answered("deleted", &deleted, changes))
}

async fn authenticate(arguments: &Arguments) -> Result<Answered> {
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
    Ok(answered("authenticated", &key, Vec::new()))
}

fn answered(what: &str, key: &GatewayKey, changes: Vec<Change>) -> Answered {
    Answered {
        result: serde_json::json!(key),
        text: format!("{what}: gateway key {} ({})", key.name, key.id),
        changes,
        secret: None,
    }
}
