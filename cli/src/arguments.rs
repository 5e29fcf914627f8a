//! What may stand on the command line.

use std::time::Duration;

use crate::choices::{NameConflicts, Preparations, Resolutions};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tollgate_service::ShutdownSignal;
use tollgate_service::doctor::Samples;
use tollgate_service::{Phase, Track};

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

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// What is applied, what is pending, and manual schema changes since
    ///
    /// Reads only. With --check, exits 3 when migrations are pending or the schema has drifted.
    Status {
        /// Exit 3 when migrations are pending or the schema has drifted
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        next: Next,
    },
    /// What `up` would do on this database
    ///
    /// Reads only: the schema, the history, and the data that hazards are looked for in.
    Plan {
        /// Exit 3 when migrations are pending
        #[arg(long)]
        check: bool,
        /// Print every statement
        #[arg(long)]
        sql: bool,
        #[command(flatten)]
        choice: Choice,
    },
    /// Apply what is pending
    ///
    /// Takes the track's lock, looks for hazards, and stops before the first write when one blocks. Safe to run from
    /// several replicas at once: one does the work, the others find nothing left to do. Safe to stop and to repeat.
    Up(Up),
    /// Undo the last migration, or all behind --to
    ///
    /// Removes only what `up` created here; an adopted migration never goes down.
    Down {
        /// The last migration that stays applied, by name or slug
        #[arg(long, value_name = "MIGRATION")]
        to: Option<String>,
        /// Go on where rows or values cannot be kept; each is listed
        #[arg(long)]
        allow_data_loss: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Repair rows on which the gateway's own migration would stop or lose something
    ///
    /// For gateways that migrate themselves: run it while every gateway is stopped (a Bifrost that runs keeps writing usage to
    /// the budgets of before), then start the new one, then run it with --finish. It changes rows only: shared budgets get
    /// copies, calendar flags without a place in the next schema are remembered, orphaned model configs retired. Can be
    /// repeated. Exits 4 while something is left, 2 where there is no ledger.
    Prepare(Prepare),
    /// Tell Coder's ledger which of its migrations are done
    ///
    /// Coder runs every migration above its ledger's number at boot, and fails on what is there already. After `up --phase
    /// backfill` (504) or contract (505, which does it by itself) this proves that the database is what the number promises,
    /// and moves it in one transaction. From then on no old replica can restart. Exits 4 with each difference otherwise.
    Handover {
        #[command(flatten)]
        wait: Wait,
    },
    /// Set the record of a step that neither `up` nor `down` can finish
    ///
    /// Shows how the schema differs from what the step makes and from what the one before makes, then writes one row of the
    /// history or deletes it. Changes no table of the gateway. A step that is settled as applied never goes down.
    Resolve {
        /// The step, by name or slug
        #[arg(value_name = "STEP")]
        step: String,
        /// What the record is to say
        #[arg(long = "as", value_enum, value_name = "STATE")]
        state: StateWord,
        /// Show what the catalog says and write nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Recognise a database that a gateway created
    ///
    /// Marks the migrations whose result it already has. Changes no table of the gateway.
    Adopt {
        /// Say what it is and write nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub choice: Choice,
    /// Write a copy of a SQLite database to FILE before anything changes
    #[arg(long, value_name = "FILE")]
    pub backup: Option<std::path::PathBuf>,
    /// How long a batch of a backfill should take, in milliseconds [default: 50 on PostgreSQL, 10 on SQLite]
    #[arg(long, value_name = "MS", env = "TOLLGATE_BATCH_MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub batch_ms: Option<u64>,
    #[command(flatten)]
    pub wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// PostgreSQL: the database in which a schema for the copy is made, and dropped again
    #[arg(
        long,
        value_name = "URL",
        env = "TOLLGATE_SCRATCH_URL",
        hide_env_values = true
    )]
    pub scratch_url: Option<String>,
    /// Rehearse the gateway's own migration to the version of --for, on two copies: without `migrate prepare`, and with it
    #[arg(long, requires = "next_version")]
    pub gateway: bool,
    #[command(flatten)]
    pub choice: Choice,
    /// How long a batch of a backfill should take, in milliseconds [default: 50 on PostgreSQL, 10 on SQLite]
    #[arg(long, value_name = "MS", env = "TOLLGATE_BATCH_MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub batch_ms: Option<u64>,
}

/// The gateway that boots next.
#[derive(Debug, Args)]
pub(crate) struct Next {
    /// The gateway version that boots next (Bifrost 1.5.8, Coder 505 or 2.34, Molecule 043): what is past it waits
    ///
    /// Without it: as far as the version that the gateway's ledger shows, or to the end of the one change that is done in its
    /// stead (Bifrost before 1.5: 1.5.8; Coder 502 to 504: 505).
    #[arg(long = "for", value_name = "VERSION", env = "TOLLGATE_FOR")]
    pub next_version: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Choice {
    #[command(flatten)]
    pub next: Next,
    /// Stop before the first migration of a later phase
    #[arg(long, value_enum, env = "TOLLGATE_PHASE")]
    pub phase: Option<PhaseWord>,
    /// The last migration to apply, by name or slug
    #[arg(long, value_name = "MIGRATION")]
    pub to: Option<String>,
    /// Adopt first where there is no history; goes on where there is
    #[arg(long)]
    pub adopt: bool,
    #[command(flatten)]
    pub resolutions: Resolutions,
}

#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// Behind the gateway's own migration: put back what was remembered
    #[arg(long)]
    pub finish: bool,
    #[command(flatten)]
    pub next: Next,
    #[command(flatten)]
    pub resolutions: Preparations,
    #[command(flatten)]
    pub wait: Wait,
}

/// What a record is to say, as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateWord {
    /// The step stands
    Applied,
    /// The step is not there
    Pending,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// Name every difference: table, column, type, default, key, check, index, trigger
    ///
    /// Reads only. With --check, exits 3 when there is drift. What a database lacked or had beyond a fresh install when
    /// it was adopted is listed as tolerated, and is no drift.
    Diff {
        /// Exit 3 when there is drift
        #[arg(long)]
        check: bool,
    },
    /// Put foreign keys right that name a table which does not exist
    ///
    /// SQLite: what a rebuild by rename leaves (E005). The stored text is corrected, and no row is touched. Exits 4 with what it
    /// must leave.
    Repair {
        /// Say what would be repaired and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Reconcile {
    /// Credentials of virtual keys follow the keys' grants on MCP clients
    ///
    /// An active credential whose key lost the grant is orphaned, an orphaned one whose key has it again is reactivated,
    /// and pending flows that can no longer finish are deleted: OAuth and headers alike. Rows of users and sessions,
    /// needs_reauth, needs_update and rows without a virtual key are never touched. A gateway reads these rows live.
    Credentials {
        /// Only this virtual key
        #[arg(
            long,
            value_name = "ID",
            conflicts_with = "mcp_client",
            allow_hyphen_values = true
        )]
        virtual_key: Option<String>,
        /// Every virtual key that holds any row of this MCP client (its client_id)
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        mcp_client: Option<String>,
        #[command(flatten)]
        how: Routine,
    },
    /// Delete flows that ran out, and credentials that have been orphaned for long
    Flows {
        /// Delete credentials that have been orphaned for longer than this (30d, 12h) [default: never]
        #[arg(long, value_name = "DURATION", value_parser = ttl)]
        orphan_ttl: Option<Duration>,
        #[command(flatten)]
        how: Routine,
    },
    /// Header keys in lower case and without spaces, in rows that are not encrypted
    ///
    /// Of keys that fold to one name the last keeps its value, and the row is reported. What is no JSON is reported and left.
    HeaderKeys(Routine),
    /// Header credentials that lack a header their MCP client now requires become needs_update
    HeaderRequirements {
        /// The client's client_id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        mcp_client: String,
        #[command(flatten)]
        how: Routine,
    },
    /// Budgets and rate limits whose window is over reset, rolling or on the calendar
    ///
    /// UTC; weeks begin on Monday. Alignment applies to 1d, 1w, 1M, 1Y and their aliases, anything else rolls. Alignment that
    /// was turned on inside a window keeps what was used in it. For a gateway that embeds tollgate-service, or one that is
    /// stopped: a Bifrost that runs keeps usage in memory and writes it back on its next tick.
    Resets {
        /// Forget request ids of `budget record` that are older than this
        #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = ttl)]
        request_retention: Duration,
        #[command(flatten)]
        routine: Routine,
    },
    /// AI providers and their keys follow what old code still writes into the legacy tables
    ///
    /// For the time between the copy (`migrate up --phase backfill`) and contract, while old and new code run side by side:
    /// new, edited, cleared and resurrected rows are carried over, the newest of two wins. Contract does the same first.
    /// A gateway reads these rows live.
    ProviderKeys {
        #[command(flatten)]
        resolutions: NameConflicts,
        #[command(flatten)]
        routine: Routine,
    },
    /// Stored billing modes outside the three become NULL; what they were is in the report
    Billing(Routine),
    /// The governance section of a config file and the database agree
    ///
    /// Customers, teams, virtual keys, provider configs, budgets and rate limits. Usage and last resets of what is there are
    /// kept; a new budget starts from what its owner has spent in the closest shorter one. A list that is present is
    /// complete for its owner, an empty one deletes all, an absent one is left alone. An entry that has not changed in the
    /// file since it was applied last never overrides an edit made elsewhere. All of it is one transaction; a file with a
    /// mistake changes nothing. For a gateway that embeds tollgate-service, or one that is stopped.
    Config {
        /// The config file, JSON with a governance section; `-` is standard input
        #[arg(long, value_name = "FILE")]
        file: std::path::PathBuf,
        /// Delete virtual keys that the file lacks, and provider configs that it lacks of a key, with all that is theirs
        #[arg(long)]
        prune: bool,
        /// Let the file win over edits made elsewhere, of entries that have not changed too
        #[arg(long)]
        force: bool,
        /// Go on where the file limits somebody in a way that is not written here, or has a section that nobody knows
        #[arg(long)]
        allow_unread: bool,
        #[command(flatten)]
        routine: Routine,
    },
    /// Every routine of the tracks present that needs no file and no argument
    ///
    /// header-keys, credentials, flows, resets, provider-keys and billing, in this order. One whose tables are missing is
    /// skipped; one that fails does not keep the others from running.
    All(Routine),
    /// One routine that needs no file and no argument, by its name
    ///
    /// For the routines that a program's own tracks bring along, which have no word of their own here. An unknown name is
    /// answered with those that there are.
    Run {
        /// The routine's name
        routine: String,
        #[command(flatten)]
        how: Routine,
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

fn ttl(word: &str) -> Result<Duration, String> {
    match tollgate_service::duration::parse(word) {
        Some(nanoseconds) if nanoseconds > 0 => {
            Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
        }
        _ => Err("a duration above zero, such as 30d, 12h or 1h30m".to_owned()),
    }
}

impl Reconcile {
    /// How the routine runs, whichever it is.
    pub(crate) fn how(&self) -> &Routine {
        match self {
            Self::Credentials { how, .. }
            | Self::Flows { how, .. }
            | Self::HeaderRequirements { how, .. }
            | Self::Run { how, .. } => how,
            Self::Resets { routine, .. }
            | Self::ProviderKeys { routine, .. }
            | Self::Config { routine, .. } => routine,
            Self::HeaderKeys(how) | Self::Billing(how) | Self::All(how) => how,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum VirtualKey {
    /// Delete a virtual key with all that is its own, in one transaction
    ///
    /// Provider configs, budgets, rate limits, MCP grants, flows and credentials go with it. A budget or rate limit that
    /// another row still refers to stays and is reported. For a gateway that embeds tollgate-service, or one that is stopped.
    Delete {
        /// The virtual key's id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Say what would go and delete nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderConfig {
    /// Delete a provider config with its budgets, rate limit and keys' assignments, in one transaction
    ///
    /// A budget or rate limit that another row still refers to stays and is reported. For a gateway that embeds
    /// tollgate-service, or one that is stopped.
    Delete {
        /// The provider config's number
        id: i64,
        /// Say what would go and delete nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Exit 0 when every budget above a request allows it, 4 with the first that does not
    ///
    /// In this order: provider config, virtual key, team, the team's customer, the key's own customer. A budget blocks when
    /// its usage has reached its limit; one whose window is over counts as zero. Reads only.
    Check {
        #[command(flatten)]
        asked: Asked,
        /// What the request will cost, where that is known: refuse it when that goes beyond a limit
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        cost: Option<String>,
    },
    /// Add what a request cost to every budget above it, in one transaction
    ///
    /// A window that is over resets with it. For a gateway that embeds tollgate-service, or one that is stopped: a
    /// Bifrost that runs keeps usage in memory and writes it back on its next tick.
    Record {
        #[command(flatten)]
        asked: Asked,
        /// The cost, a decimal number in the currency of the budgets
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        cost: String,
        /// The request's id: a cost that comes with an id that was recorded before adds nothing
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        request_id: Option<String>,
    },
    /// How the budgets above a virtual key stand
    List {
        /// The virtual key's id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        virtual_key: String,
        /// Only those that a request to this provider meets
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        provider: Option<String>,
    },
}

/// A request.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// The virtual key's id
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub virtual_key: String,
    /// The provider that the request goes to
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub provider: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum McpClient {
    /// Delete an MCP client with its grants, flows and credentials, in one transaction
    Delete {
        /// The client's client_id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Count the rows and delete nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderKeyCommand {
    /// Say which key is used, from where, or why there is none; never the key itself
    ///
    /// Reads only. In this order: the model config is there and enabled, so is its provider; the user's own key (with --user
    /// and --byok), the provider's oldest central key, the key of the environment (--fallback-env), and for bedrock the
    /// machine's own credentials. A model config without a provider means the one enabled provider of its type. Exits 1 with
    /// the reason when no key is usable.
    Resolve {
        /// The model config's id, or `default`
        #[arg(long, value_name = "ID")]
        model_config: String,
        /// On whose behalf
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// Users may bring keys of their own; without it a stored one is ignored
        #[arg(long)]
        byok: bool,
        /// Where the provider has no key, one of the environment stands in: for openai the first of
        /// CODER_AI_GATEWAY_OPENAI_KEY, CODER_AIBRIDGE_OPENAI_KEY and OPENAI_API_KEY, and so for each type
        #[arg(long)]
        fallback_env: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayKeyCommand {
    /// Create a key and show its secret, once
    ///
    /// The database holds a hash; nothing can show the secret again.
    Create {
        /// Words of a to z and 0 to 9 with single dashes between them, at most 64 characters; upper case is folded
        #[arg(allow_hyphen_values = true)]
        name: String,
    },
    /// The keys, oldest first, without their secrets
    List,
    /// Delete a key; whoever holds its secret is refused from the next request on
    Delete {
        /// The key's name, or its id
        #[arg(value_name = "ID|NAME", allow_hyphen_values = true)]
        key: String,
    },
    /// Say whose key the secret on standard input is, and note its use
    ///
    /// Exits 1 for a secret that is unknown, malformed or deleted, without saying which. Secrets are never arguments.
    Authenticate,
}

#[derive(Debug, Args)]
pub(crate) struct Routine {
    /// Print the changes and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the changes, change nothing, and exit 3 when there are any
    #[arg(long)]
    pub check: bool,
    /// Stop before the first write when more rows than this would change
    #[arg(long, value_name = "N")]
    pub max_changes: Option<u64>,
    #[command(flatten)]
    pub wait: Wait,
}

/// Any text is a legal id, mode or default here, a leading dash included: the answer is one of the three all the same.
#[derive(Debug, Subcommand)]
pub(crate) enum BillingMode {
    /// The mode of a workspace: one of platform_managed, byok and disabled, beside an error too
    Get {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Set the mode of a workspace
    Set {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        /// platform_managed, byok or disabled
        #[arg(allow_hyphen_values = true)]
        mode: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Let a workspace inherit the organisation's default
    Clear {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Filter an environment from stdin to what the workspace's container may have
    ///
    /// Under platform_managed the names that bypass the platform's proxy are removed and the proxy's settings, read from
    /// tollgate's own environment, are injected; where they are missing nothing is injected and the exit is 4.
    Strip {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
        /// The environment is a JSON object, not KEY=VALUE lines
        #[arg(long)]
        json_env: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OrgDefault {
    /// The organisation's default; what is none of the three counts as platform_managed
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        env = "MOLECULE_LLM_BILLING_MODE"
    )]
    pub org_default: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceSecret {
    /// Exit 0 when the secret may be written, 4 with the reason when not
    Check {
        /// The workspace's id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        workspace: String,
        /// The secret's name, compared trimmed and in upper case
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        key: String,
        #[command(flatten)]
        org: OrgDefault,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub next: Next,
    /// Look for this hazard only; may be repeated
    #[arg(
        long = "code",
        value_name = "CODE",
        value_delimiter = ',',
        ignore_case = true
    )]
    pub codes: Vec<String>,
    /// How many ids a finding lists: a number, or `all`
    #[arg(long, value_name = "N|all", default_value = "10", value_parser = samples)]
    pub samples: Samples,
}

fn samples(word: &str) -> Result<Samples, String> {
    if word == "all" {
        return Ok(Samples::All);
    }
    word.parse()
        .map(Samples::First)
        .map_err(|_| "a number, or `all`".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// The gateway that is imitated
    #[arg(long, value_enum)]
    pub profile: ProfileWord,
    /// How many virtual keys it has
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=5_000_000))]
    pub virtual_keys: u32,
    /// Plant hazards and say where: all that one legacy database can have together, or those named
    #[arg(long, value_name = "CODES", num_args = 0..=1, require_equals = true, default_missing_value = "all", value_delimiter = ',')]
    pub hazards: Option<Vec<String>>,
    /// The seed of the values
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub rng_seed: u32,
}

/// A gateway, as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProfileWord {
    /// Bifrost 1.4.24, before multi-budget, with its ledger
    BifrostLegacy,
    /// A program of its own, without ledger: the same budgets, and per-user MCP credentials, ten to a virtual key, some of
    /// which have drifted from their grants
    BifrostCredentials,
    /// Coder at 502, before the provider-key cutover, with its ledger on PostgreSQL; --virtual-keys counts its users, each
    /// with a key of their own
    CoderLegacy,
    /// Molecule with billing modes, with its ledger on PostgreSQL; --virtual-keys counts its workspaces
    Molecule,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// How long to wait while another run holds the lock, in seconds; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60, env = "TOLLGATE_WAIT_LOCK",
          value_parser = clap::value_parser!(u64).range(..=86_400))]
    wait_lock: u64,
}

impl Wait {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.wait_lock)
    }
}

/// A phase, as a word of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PhaseWord {
    /// Adds; old code keeps working
    Expand,
    /// Moves data, in batches
    Backfill,
    /// Removes what only old code used
    Contract,
}

impl From<PhaseWord> for Phase {
    fn from(word: PhaseWord) -> Self {
        match word {
            PhaseWord::Expand => Self::Expand,
            PhaseWord::Backfill => Self::Backfill,
            PhaseWord::Contract => Self::Contract,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many virtual keys the made-up gateway has
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub virtual_keys: u32,
    /// Keep the database and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// The commands that are about one track's tables.
const OF_TRACKS: [(Track, &[&str]); 3] = [
    (
        Track::GOVERNANCE,
        &[
            "mcp-client",
            "virtual-key",
            "provider-config",
            "budget",
            "seed",
            "demo",
        ],
    ),
    (Track::PROVIDERS, &["provider-key", "gateway-key"]),
    (Track::BILLING, &["billing-mode", "workspace-secret"]),
];

impl Arguments {
    /// Reads the command line of this process. A variable of Tollgate's that is empty counts as unset, as compose files and
    /// manifests write it.
    ///
    /// Commands of tracks that the program does not have are left out of its help.
    pub(crate) fn read(name: &'static str) -> Result<Self, clap::Error> {
        let mut command = Self::command().name(name).bin_name(name);
        let absent = OF_TRACKS
            .iter()
            .filter(|(track, _)| !Track::all().contains(track))
            .flat_map(|(_, commands)| *commands);
        for absent in absent {
            command = command.mut_subcommand(absent, |command| command.hide(true));
        }
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

impl Command {
    /// The gateway version that boots next, where one was named.
    pub(crate) fn next(&self) -> Option<&str> {
        let next = match self {
            Self::Migrate(Migrate::Status { next, .. }) | Self::Verify { next, .. } => next,
            Self::Migrate(Migrate::Plan { choice, .. }) => &choice.next,
            Self::Migrate(Migrate::Up(up)) => &up.choice.next,
            Self::Migrate(Migrate::Prepare(prepare)) => &prepare.next,
            Self::Doctor(doctor) => &doctor.next,
            Self::Rehearse(rehearse) => &rehearse.choice.next,
            _ => return None,
        };
        next.next_version.as_deref()
    }

    /// Whether the command only reads, so that a signal may end it anywhere.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Migrate(Migrate::Status { .. } | Migrate::Plan { .. })
            | Self::Migrate(
                Migrate::Adopt { dry_run: true, .. } | Migrate::Resolve { dry_run: true, .. },
            )
            | Self::Doctor(_)
            | Self::Snapshot { .. }
            | Self::Verify { .. }
            | Self::Schema(Schema::Diff { .. } | Schema::Repair { dry_run: true, .. })
            | Self::Budget(BudgetCommand::Check { .. } | BudgetCommand::List { .. })
            | Self::ProviderKey(_)
            | Self::GatewayKey(GatewayKeyCommand::List)
            | Self::BillingMode(BillingMode::Get { .. } | BillingMode::Strip { .. })
            | Self::WorkspaceSecret(_)
            | Self::History { .. } => true,
            Self::Reconcile(routine) => routine.how().dry_run || routine.how().check,
            _ => false,
        }
    }

    /// The command's name in the JSON answer.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Migrate(Migrate::Status { .. }) => "migrate status",
            Self::Migrate(Migrate::Plan { .. }) => "migrate plan",
            Self::Migrate(Migrate::Up(_)) => "migrate up",
            Self::Migrate(Migrate::Down { .. }) => "migrate down",
            Self::Migrate(Migrate::Adopt { .. }) => "migrate adopt",
            Self::Migrate(Migrate::Resolve { .. }) => "migrate resolve",
            Self::Migrate(Migrate::Handover { .. }) => "migrate handover",
            Self::Migrate(Migrate::Prepare(_)) => "migrate prepare",
            Self::Doctor(_) => "doctor",
            Self::Snapshot { .. } => "snapshot",
            Self::Verify { .. } => "verify",
            Self::Rehearse(_) => "rehearse",
            Self::Schema(Schema::Diff { .. }) => "schema diff",
            Self::Schema(Schema::Repair { .. }) => "schema repair",
            Self::Reconcile(Reconcile::Credentials { .. }) => "reconcile credentials",
            Self::Reconcile(Reconcile::Flows { .. }) => "reconcile flows",
            Self::Reconcile(Reconcile::HeaderKeys(_)) => "reconcile header-keys",
            Self::Reconcile(Reconcile::HeaderRequirements { .. }) => {
                "reconcile header-requirements"
            }
            Self::Reconcile(Reconcile::Resets { .. }) => "reconcile resets",
            Self::Budget(BudgetCommand::Check { .. }) => "budget check",
            Self::Budget(BudgetCommand::Record { .. }) => "budget record",
            Self::Budget(BudgetCommand::List { .. }) => "budget list",
            Self::VirtualKey(VirtualKey::Delete { .. }) => "virtual-key delete",
            Self::ProviderConfig(ProviderConfig::Delete { .. }) => "provider-config delete",
            Self::Reconcile(Reconcile::ProviderKeys { .. }) => "reconcile provider-keys",
            Self::Reconcile(Reconcile::Billing(_)) => "reconcile billing",
            Self::Reconcile(Reconcile::Config { .. }) => "reconcile config",
            Self::Reconcile(Reconcile::All(_)) => "reconcile all",
            Self::Reconcile(Reconcile::Run { .. }) => "reconcile run",
            Self::McpClient(McpClient::Delete { .. }) => "mcp-client delete",
            Self::ProviderKey(ProviderKeyCommand::Resolve { .. }) => "provider-key resolve",
            Self::GatewayKey(GatewayKeyCommand::Create { .. }) => "gateway-key create",
            Self::GatewayKey(GatewayKeyCommand::List) => "gateway-key list",
            Self::GatewayKey(GatewayKeyCommand::Delete { .. }) => "gateway-key delete",
            Self::GatewayKey(GatewayKeyCommand::Authenticate) => "gateway-key authenticate",
            Self::BillingMode(BillingMode::Get { .. }) => "billing-mode get",
            Self::BillingMode(BillingMode::Set { .. }) => "billing-mode set",
            Self::BillingMode(BillingMode::Clear { .. }) => "billing-mode clear",
            Self::BillingMode(BillingMode::Strip { .. }) => "billing-mode strip",
            Self::WorkspaceSecret(WorkspaceSecret::Check { .. }) => "workspace-secret check",
            Self::History { .. } => "history",
            Self::Seed(_) => "seed",
            Self::Demo(_) => "demo",
            Self::Completions { .. } => "completions",
        }
    }
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
