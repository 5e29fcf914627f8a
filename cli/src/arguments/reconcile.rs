//! `tollgate reconcile …`, and the deletions that clean up.

use std::time::Duration;

use clap::{Args, Subcommand};
use tollgate_service::reconcile::Shard;

use super::Wait;
use crate::choices::NameConflicts;

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
        /// A file of NAME=value lines, in which env.NAME of the config file is looked up before the environment
        #[arg(long, value_name = "FILE")]
        env_file: Option<std::path::PathBuf>,
        /// Delete virtual keys that the file lacks, and provider configs that it lacks of a key, with all that is theirs;
        /// says how much that may be with --max-changes, or looks with --dry-run or --check
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
    /// Only this shard of the rows, I of N from 1/N to N/N: each in a process of its own, at the same time
    ///
    /// credentials, flows and resets are divided. Every row is one shard's; --max-changes counts per shard. A run without
    /// --shard, the same shard, or one of another N at the same time exits 5. On SQLite they run one after another.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// On how many connections a sweep works at once, beside the one that holds the lock (PostgreSQL)
    #[arg(long, value_name = "N", default_value_t = 1, env = "TOLLGATE_PARALLEL", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub parallel: u8,
    #[command(flatten)]
    pub wait: Wait,
}
