//! What may stand on the command line.

mod ask;
mod migrate;
mod names;
mod prove;
mod reconcile;

use std::time::Duration;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tollgate_service::ShutdownSignal;
use tollgate_service::Track;

use crate::words;

pub(crate) use ask::*;
pub(crate) use migrate::*;
pub(crate) use prove::*;
pub(crate) use reconcile::*;

/// Migrates and reconciles the database behind an LLM gateway.
///
/// Point it at a PostgreSQL or SQLite database that a gateway (Bifrost, Coder, Molecule) created, recognise it with `migrate adopt`, look
/// with `migrate plan`, and migrate with `migrate up`, while the gateway goes on serving.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    bin_name = "tollgate",
    version,
    propagate_version = true
)]
#[command(after_help = "\
Exit codes: 0 done; 1 failed, nothing half-applied; 2 wrong call; 3 --check found pending migrations or drift;
4 refused, see the findings; 5 another run holds the lock; 130 and 143 stopped by a signal, resumable.

Try it without a database:  tollgate demo")]
pub(crate) struct Arguments {
    /// The database: postgres://user@host:5432/name or sqlite://path/to/file.db
    #[arg(long, global = true, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// A file that holds the database's address, or `-` for standard input: every user of a machine sees the arguments of its
    /// processes, a password in --database-url among them
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TOLLGATE_DATABASE_URL_FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<std::path::PathBuf>,

    /// The track to work on; may be repeated [default: those that the database carries]
    #[arg(
        long = "track",
        global = true,
        value_name = "TRACK",
        env = "TOLLGATE_TRACK",
        value_delimiter = ','
    )]
    pub tracks: Vec<Track>,

    /// How results are printed on stdout
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "TOLLGATE_OUTPUT"
    )]
    pub output: Output,

    /// How logs and progress are printed on stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "TOLLGATE_LOG_FORMAT"
    )]
    pub log_format: Output,

    /// How long connecting may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, env = "TOLLGATE_CONNECT_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub connect_timeout: u64,

    /// How long a statement waits for somebody else's lock on a table or row: 5s, 500ms; a bare number is seconds
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "5s",
        env = "TOLLGATE_LOCK_TIMEOUT",
        value_parser = patience
    )]
    pub lock_timeout: Duration,

    /// Log more; repeat for more still
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    #[command(subcommand)]
    pub command: Command,

    /// What a signal asks.
    #[arg(skip)]
    pub stop: ShutdownSignal,
}

/// A way of printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For machines: exactly one object.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at the migrations, apply them, undo them
    #[command(subcommand)]
    Migrate(Migrate),
    /// Find what would fail, be lost or change, before the deploy
    ///
    /// Reads only. Exits 4 when a finding blocks `migrate up`. Works before `migrate adopt` too.
    Doctor(Doctor),
    /// Write down what the database holds, as digests, for `verify` to compare with
    ///
    /// Reads only. The file names tables, columns, counts and ids of rows, and sums of amounts; values stand in it only as
    /// digests under a random salt of its own. Its size does not grow with the rows.
    Snapshot {
        /// The file to write
        #[arg(short = 'o', long = "out", value_name = "FILE")]
        file: std::path::PathBuf,
    },
    /// Prove that the database is whole, and that nothing of a snapshot was lost
    ///
    /// Reads only. Exits 4 and names table, column and rows where the schema differs from what the applied migrations make,
    /// an index or constraint is not in force, a row has no parent or two owners; with --snapshot also where a row, a value,
    /// an owner or a flag of the snapshot is gone, or is new. What the doctor announced and `up` did is no finding.
    Verify {
        /// A file that `tollgate snapshot` wrote before the migration
        #[arg(long, value_name = "FILE", env = "TOLLGATE_SNAPSHOT")]
        snapshot: Option<std::path::PathBuf>,
        #[command(flatten)]
        next: Next,
    },
    /// Copy the database, migrate the copy, and prove that nothing was lost
    ///
    /// The source is only read. On SQLite the file is copied to a temporary folder (TMPDIR); on PostgreSQL the tables of the
    /// tracks are copied into a schema of their own in the database of --scratch-url, which is dropped at the end. Exits as
    /// `migrate up` would, and 4 where `verify` finds something.
    Rehearse(Rehearse),
    /// Compare the live schema with what the applied migrations make
    #[command(subcommand)]
    Schema(Schema),
    /// Bring drifted rows back in line
    #[command(subcommand)]
    Reconcile(Reconcile),
    /// MCP clients and all that hangs on them
    #[command(subcommand)]
    McpClient(McpClient),
    /// Virtual keys and all that is theirs
    #[command(subcommand)]
    VirtualKey(VirtualKey),
    /// Provider configs of virtual keys and all that is theirs
    #[command(subcommand)]
    ProviderConfig(ProviderConfig),
    /// Whether a request is within its budgets, and what it cost
    ///
    /// For a gateway that embeds tollgate-service, or one that is stopped: a Bifrost that runs keeps usage in memory and
    /// writes it back on its next tick.
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// Which key answers for a model and a user
    #[command(subcommand)]
    ProviderKey(ProviderKeyCommand),
    /// The keys with which gateway replicas authenticate
    #[command(subcommand)]
    GatewayKey(GatewayKeyCommand),
    /// How a workspace pays for its models
    #[command(subcommand)]
    BillingMode(BillingMode),
    /// Whether a workspace may store a secret
    #[command(subcommand)]
    WorkspaceSecret(WorkspaceSecret),
    /// What changed this database: the last runs, or one of them with its report in full
    ///
    /// Reads only. A report lists every budget that was cloned and every row that lost something.
    History {
        /// Show this run, with its report
        #[arg(long, value_name = "ID")]
        run: Option<i64>,
        /// How many runs to list
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Fill an empty database with a made-up gateway's rows
    ///
    /// For demonstrations, rehearsals and measurements. The same seed makes the same rows; a database with any of the
    /// tables is refused.
    Seed(Seed),
    /// Migrate a made-up gateway database in a temporary folder, and show what happens
    Demo(Demo),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A duration that is waited; a bare number is seconds.
fn patience(word: &str) -> Result<Duration, String> {
    let seconds = word.parse::<u64>().ok().map(Duration::from_secs);
    let parsed = seconds.or_else(|| {
        tollgate_service::duration::parse(word)
            .filter(|nanoseconds| *nanoseconds > 0)
            .map(|nanoseconds| Duration::from_nanos(nanoseconds.unsigned_abs()))
    });
    parsed
        .filter(|waits| (1..=86_400_000).contains(&waits.as_millis()))
        .ok_or_else(|| "a duration from 1ms to 24h, such as 5s or 500ms".to_owned())
}

impl Arguments {
    /// Reads the command line of this process. A variable of Tollgate's that is empty counts as unset, as compose files and
    /// manifests write it.
    ///
    /// Commands of tracks that the program does not have are left out of its help.
    pub(crate) fn read(name: &'static str) -> Result<Self, clap::Error> {
        let command = words::hide_absent(Self::command().name(name).bin_name(name));
        let matches = without_empty_variables(command).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let empty = arg
            .get_env()
            .and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty());
        if empty {
            // There is no way to take a variable from an argument; nobody sets this one.
            arg.env("TOLLGATE_NO_SUCH_VARIABLE").hide_env(true)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
