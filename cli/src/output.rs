//! The one place that prints: JSON for machines, text for people.

mod text;

use std::io::Write;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tollgate_service::{Change, CommandResult, Error, Finding, Outcome, Report, TrackReport};

use crate::arguments::{Arguments, Output};

pub(crate) use text::gateways;

/// How an answer is shown as text.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// As its own result says it.
    Own,
    /// What would be done.
    Plan {
        /// With every statement.
        sql: bool,
    },
    /// Bytes that are ready, printed as they are.
    Raw(Vec<u8>),
    /// Text that is ready.
    Plain(String),
}

/// A secret that is printed once, with the answer that it belongs to.
pub(crate) struct Secret {
    /// The secret.
    pub text: SecretString,
    /// What to do where it could not be printed.
    pub when_lost: String,
}

/// What a command answers.
pub(crate) struct Answer {
    command: &'static str,
    report: Report,
    error: Option<Problem>,
    view: View,
    exit_code: u8,
    secret: Option<Secret>,
}

struct Problem {
    code: &'static str,
    message: String,
    hint: String,
}

#[derive(Serialize)]
struct Json<'a> {
    command: &'a str,
    ok: bool,
    exit_code: u8,
    duration_ms: u64,
    tracks: &'a [TrackReport],
    changes: &'a [Change],
    findings: &'a [Finding],
    result: Option<&'a CommandResult>,
    error: Option<JsonError<'a>>,
}

#[derive(Serialize)]
struct JsonError<'a> {
    code: &'a str,
    message: &'a str,
    hint: &'a str,
}

impl Answer {
    /// Whether something that the command is about is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.error
            .as_ref()
            .is_some_and(|problem| problem.code == "not_found")
    }

    pub(crate) fn new(command: &'static str, outcome: Outcome, view: View) -> Self {
        let Outcome {
            mut report, error, ..
        } = outcome;
        let exit_code = error.as_ref().map_or(0, Error::exit_code);
        if let Some(error) = &error {
            // What stopped the run weighs more than what was said of it before.
            report.findings.retain(|found| {
                !error
                    .findings()
                    .iter()
                    .any(|finding| finding.code == found.code && finding.table == found.table)
            });
            report.findings.extend_from_slice(error.findings());
        }
        Self {
            command,
            report,
            error: error.map(|error| Problem {
                code: error.code(),
                message: error.to_string(),
                hint: error.hint(),
            }),
            view,
            exit_code,
            secret: None,
        }
    }

    pub(crate) fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    pub(crate) fn failed(command: &'static str, error: Error) -> Self {
        Self::new(command, Outcome::from(Err(error)), View::Own)
    }

    /// A wrong call, in clap's words.
    pub(crate) fn usage(text: &str) -> Self {
        let (message, hint) = text.split_once("\n\n").unwrap_or((text, ""));
        Self {
            command: "",
            report: Report::default(),
            error: Some(Problem {
                code: "usage",
                message: message.trim_start_matches("error: ").trim().to_owned(),
                hint: hint.trim().to_owned(),
            }),
            view: View::Own,
            exit_code: 2,
            secret: None,
        }
    }

    pub(crate) fn exiting_with_3_when(mut self, found: bool) -> Self {
        if found && self.exit_code == 0 {
            self.exit_code = 3;
        }
        self
    }

    /// The one JSON object.
    pub(crate) fn json(&self, duration_ms: u64) -> String {
        let mut result = self.report.result.clone();
        if let (Some(secret), Some(CommandResult::Answer(serde_json::Value::Object(result)))) =
            (&self.secret, &mut result)
        {
            result.insert("secret".to_owned(), secret.text.expose_secret().into());
        }
        let json = Json {
            command: self.command,
            ok: self.exit_code == 0,
            exit_code: self.exit_code,
            duration_ms,
            tracks: &self.report.tracks,
            changes: &self.report.changes,
            findings: &self.report.findings,
            result: result.as_ref(),
            error: self.error.as_ref().map(|problem| JsonError {
                code: problem.code,
                message: &problem.message,
                hint: &problem.hint,
            }),
        };
        // Every part serialises: strings, numbers and values that came from JSON.
        serde_json::to_string(&json).unwrap_or_default()
    }
}

/// Prints an answer and returns the exit code.
pub(crate) fn print(answer: &Answer, arguments: &Arguments, elapsed: Duration) -> u8 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    if let Some(secret) = &answer.secret {
        let text = match arguments.output {
            Output::Json => answer.json(millis),
            Output::Text => format!(
                "{}\nsecret: {}\nit is not shown again",
                text::render(&answer.report, &answer.view, false).trim_end(),
                secret.text.expose_secret()
            ),
        };
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            stderr(&format!(
                "error: the secret could not be printed: {error}\n hint: {}",
                secret.when_lost
            ));
            return 1;
        }
        return answer.exit_code;
    }
    let written = match arguments.output {
        Output::Json => write(format!("{}\n", answer.json(millis)).as_bytes()),
        Output::Text => {
            let body = text::render(&answer.report, &answer.view, answer.error.is_some());
            let mut bytes = match &answer.view {
                View::Raw(bytes) => bytes.clone(),
                _ => Vec::new(),
            };
            if !body.is_empty() {
                bytes.extend_from_slice(body.trim_end().as_bytes());
                bytes.push(b'\n');
            }
            let written = write(&bytes);
            if let Some(problem) = &answer.error {
                let mut message = format!("error: {}", problem.message);
                if !problem.hint.is_empty() {
                    message.push_str(&format!("\n hint: {}", problem.hint));
                }
                stderr(&message);
            }
            written
        }
    };
    match written {
        Ok(()) => answer.exit_code,
        Err(error) => {
            // Whoever asked has no answer; what was done is done all the same.
            stderr(&format!("error: the result could not be written: {error}"));
            answer.exit_code.max(1)
        }
    }
}

/// Bytes on stdout, all of them or an error.
fn write(bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// A line on stdout; whether it was written.
pub(crate) fn stdout(line: &str) -> bool {
    match write(format!("{line}\n").as_bytes()) {
        Ok(()) => true,
        Err(error) => {
            stderr(&format!("error: the answer could not be written: {error}"));
            false
        }
    }
}

/// A line on stderr.
pub(crate) fn stderr(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
