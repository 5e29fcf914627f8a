//! One step of a track.

use serde::{Deserialize, Serialize};

use crate::context::{Context, slug_of};
use crate::loss::Loss;
use crate::plan::{Created, Plan};
use crate::plan_builder::PlanBuilder;

/// What a migration does to a running gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Adds; old code keeps working.
    Expand,
    /// Moves data, in batches.
    Backfill,
    /// Removes what only old code used.
    Contract,
}

impl Phase {
    /// The phase's word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Backfill => "backfill",
            Self::Contract => "contract",
        }
    }
}

/// One step of a track: a function from what the database looks like to what will be done.
pub struct Migration {
    /// `mYYYYMMDD_NNNNNN_slug`.
    pub version: &'static str,
    /// What it does to a running gateway.
    pub phase: Phase,
    /// What it does, as one line.
    pub summary: &'static str,
    /// Emits the statements that are still missing.
    pub up: fn(&Context, &mut PlanBuilder),
    /// Emits the statements that undo what `up` created here.
    pub down: fn(&Context, &Created, &mut PlanBuilder),
    /// What `down` would lose, asked before its first statement. The context is that of the whole run.
    pub losses: fn(&Context, &Created) -> Vec<Loss>,
}

impl Migration {
    /// The part of the version behind its date and number.
    pub fn slug(&self) -> &'static str {
        slug_of(self.version)
    }

    /// The plan for a database, and the context as it will be afterwards.
    pub fn plan_up(&self, context: &Context) -> (Plan, Context) {
        let mut builder = PlanBuilder::new(&context.catalog);
        (self.up)(context, &mut builder);
        let (plan, catalog) = builder.finish();
        let mut after = context.clone();
        after.catalog = catalog;
        after
            .history
            .insert(self.version.to_owned(), plan.created.clone());
        (plan, after)
    }

    /// The plan that undoes what `up` created, and the context as it will be afterwards.
    pub fn plan_down(&self, context: &Context, created: &Created) -> (Plan, Context) {
        let mut builder = PlanBuilder::new(&context.catalog);
        (self.down)(context, created, &mut builder);
        let (plan, catalog) = builder.finish();
        let mut after = context.clone();
        after.catalog = catalog;
        after.history.remove(self.version);
        (plan, after)
    }
}
