//! `tollgate migrate …`, and the options that it shares with others.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tollgate_service::Phase;

use crate::choices::{Preparations, Resolutions};

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
    /// Make runs hold between two batches, from another terminal
    ///
    /// A run that is at work finishes its batch, keeps its lock, lets gateways boot, and waits for `migrate resume`; one that
    /// starts meanwhile holds before its first write, and says so. For the tracks that --track names, or all that are there.
    Pause,
    /// Let runs go on that `migrate pause` holds
    Resume,
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
    /// How long to rest after each batch (200ms, 1s)
    #[arg(long, value_name = "DURATION", env = "TOLLGATE_BATCH_DELAY", value_parser = super::patience)]
    pub batch_delay: Option<Duration>,
    /// Hold between two batches while a standby is further behind than this (5s); PostgreSQL, needs pg_monitor
    #[arg(long, value_name = "DURATION", env = "TOLLGATE_MAX_LAG", value_parser = super::patience)]
    pub max_lag: Option<Duration>,
    /// On how many connections a backfill works at once, beside the one that holds the lock
    #[arg(long, value_name = "N", default_value_t = 1, env = "TOLLGATE_PARALLEL", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub parallel: u8,
    #[command(flatten)]
    pub wait: Wait,
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
