//! What proves something: `doctor`, `rehearse`, `schema`; and what makes databases up for it.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Subcommand};
use tollgate_service::doctor::Samples;
use tollgate_service::seed::seeds;

use super::{Choice, Next, Wait};

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
    #[arg(long, value_parser = profiles())]
    pub profile: String,
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

/// The databases that can be made up, as words of the command line.
fn profiles() -> PossibleValuesParser {
    let known = seeds().into_iter();
    known
        .map(|seed| PossibleValue::new(seed.name).help(seed.about))
        .collect::<Vec<_>>()
        .into()
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
