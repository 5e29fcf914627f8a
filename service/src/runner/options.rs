//! What the operator chose for `up`, and the database in its light.

use std::path::PathBuf;
use std::time::Duration;

use sea_orm::ConnectionTrait;
use tollgate_migration::{Choices, Context, Phase};

use super::context;
use crate::error::Result;
use crate::history::History;

/// What the operator chose.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Stop before the first migration of a later phase.
    pub phase: Option<Phase>,
    /// The last migration to be applied.
    pub to: Option<String>,
    /// No more of each track than so many.
    pub steps: Option<u32>,
    /// Adopt first where there is no history.
    pub adopt: bool,
    /// What is done where rows stand in the way.
    pub choices: Choices,
    /// SQLite: write a copy of the database here before anything changes.
    pub backup: Option<PathBuf>,
    /// How long a batch of a backfill should take; 50 ms on PostgreSQL and 10 ms on SQLite when absent.
    pub batch: Option<Duration>,
    /// How long a run rests after each batch.
    pub batch_delay: Duration,
    /// A run holds while a standby is further behind than this (PostgreSQL).
    pub max_lag: Option<Duration>,
    /// On how many connections a backfill works at once; 0 is one. SQLite has one writer.
    pub parallel: usize,
}

/// The live context, with what the operator chose.
pub(super) async fn live<C: ConnectionTrait>(
    connection: &C,
    history: &History,
    options: &Options,
) -> Result<Context> {
    let mut context = context(connection, history).await?;
    context.choices = options.choices.clone();
    Ok(context)
}
