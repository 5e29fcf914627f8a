//! The command line of Tollgate: arguments, output, exit codes. It knows no SQL.
//!
//! A program with tracks of its own is [`main`] with a [`Registry`] of them.

mod arguments;
mod choices;
mod commands;
mod input;
mod output;
mod progress;
mod signals;
mod words;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use clap::error::ErrorKind;
pub use tollgate_service::Registry;

use tollgate_service::Error;
use tollgate_service::providers::gateway_key::without_secrets;
use tracing::Instrument;

use arguments::{Arguments, Output};
use output::Answer;

/// Runs the command line of this process, for these tracks.
pub fn main(tracks: Registry) -> ExitCode {
    let name = tracks.name();
    if let Err(error) = tracks.install() {
        output::stderr(&format!("tollgate: {error}"));
        return ExitCode::FAILURE;
    }
    let mut arguments = match Arguments::read(name) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log(&arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::stderr(&format!("tollgate: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    // Every event of a log that programs read says which run it is of.
    let run = match arguments.log_format {
        Output::Json => tracing::info_span!("run", id = %uuid::Uuid::new_v4()),
        Output::Text => tracing::Span::none(),
    };
    let work = async {
        let stop = signals::watch();
        arguments.stop = stop.clone();
        let answer = if arguments.command.only_reads() {
            tokio::select! {
                answer = commands::run(&arguments, &stop) => answer,
                // Nothing is under way that would have to come to an end.
                signal = stop.requested() => Answer::failed(arguments.command.name(), Error::Stopped { signal }),
            }
        } else {
            commands::run(&arguments, &stop).await
        };
        output::print(&answer, &arguments, started.elapsed())
    };
    let code = runtime.block_on(work.instrument(run));
    // A driver's thread that hangs in a dead connection must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// What clap says about a wrong call: help and version on stdout with 0, the rest on stderr with 2.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        let help = error.render();
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let text = if coloured {
            help.ansi().to_string()
        } else {
            help.to_string()
        };
        return if output::stdout(text.trim_end()) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let rendered = without_secrets(&without_passwords(&error.render().to_string()));
    // The contract holds for wrong calls too: whoever asked for JSON gets JSON.
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let json = words.iter().any(|word| word == "--output=json")
        || words
            .windows(2)
            .any(|pair| pair[0] == "--output" && pair[1] == "json")
        || std::env::var("TOLLGATE_OUTPUT").is_ok_and(|word| word == "json");
    if json {
        output::stdout(&Answer::usage(rendered.trim()).json(0));
    } else {
        output::stderr(rendered.trim_end());
    }
    ExitCode::from(2)
}

/// Hides what stands between `://` and the last `@` of a word: an address that was given without its option is
/// repeated by the parser, password and all.
fn without_passwords(text: &str) -> String {
    let hide = |word: &str| match (word.find("://"), word.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &word[..scheme + 3], &word[at..])
        }
        _ => word.to_owned(),
    };
    text.split_inclusive(char::is_whitespace)
        .map(hide)
        .collect()
}

fn log(arguments: &Arguments) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    // The driver logs statements with what is bound to them, so it stays quiet at any level.
    let filter = tracing_subscriber::EnvFilter::default()
        .add_directive(LevelFilter::WARN.into())
        .add_directive(directive("tollgate", level))
        .add_directive(directive("tollgate_cli", level))
        .add_directive(directive("tollgate_service", level))
        .add_directive(directive("tollgate_migration", level))
        .add_directive(directive("sqlx", LevelFilter::OFF));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // A second subscriber in one process (tests) is not an error worth ending for.
    let _ = match arguments.log_format {
        Output::Json => builder.json().try_init(),
        Output::Text => builder.without_time().try_init(),
    };
}

fn directive(
    target: &str,
    level: tracing_subscriber::filter::LevelFilter,
) -> tracing_subscriber::filter::Directive {
    format!("{target}={level}")
        .parse()
        .unwrap_or_else(|_| level.into())
}

#[cfg(test)]
mod tests {
    use super::without_passwords;

    #[test]
    fn a_password_in_a_misplaced_address_is_hidden() {
        assert_eq!(
            without_passwords(
                "error: unexpected argument 'postgres://u:p@ss#w/rd@host/db' found\n"
            ),
            "error: unexpected argument 'postgres://***@host/db' found\n"
        );
        assert_eq!(without_passwords("no address"), "no address");
    }
}
