//! What the engines ask of a track beside its migrations.

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sea_orm::DbErr;
use tollgate_migration::ddl::IndexSpec;
use tollgate_migration::ledger::Target;
use tollgate_migration::{Context, Track};

pub use crate::doctor::hazard::{Facts, Hazard};
pub use crate::doctor::query::{Queries, Query};
pub use crate::doctor::trouble::{Trouble, VersionTrouble};
pub use crate::prepare::work::{Preparation, Work};
pub use crate::repair::kind::Repair;
pub use crate::snapshot::cell::Canonical;
pub use crate::snapshot::fact::{Fact, SEPARATOR};
pub use crate::snapshot::scan::{Reading, Walk};
pub use crate::verify::invariant::{Invariant, Question};
pub use crate::verify::rewrite::Rewrite;

use crate::connection::Connection;
use crate::reconcile::options::Options;
use crate::report::{Finding, Outcome, Report};
use crate::seed::Seed;
use crate::session::Session;
use crate::shutdown::ShutdownSignal;
use crate::snapshot::scan;

/// A table, or a column of it.
pub type DroppedObject = (&'static str, Option<&'static str>);

/// What hazards of some codes need to know of the rows.
pub type Known =
    for<'a> fn(&'a Connection, &'a Context, &'a [&'a str]) -> BoxFuture<'a, Result<Facts, DbErr>>;

/// Runs a routine with the defaults of what it may be asked.
pub type RunRoutine =
    for<'a> fn(&'a Session, Options, DateTime<Utc>, &'a ShutdownSignal) -> BoxFuture<'a, Outcome>;

/// A routine that needs no file and no argument: `reconcile run NAME`, and a part of `reconcile all`.
pub struct NamedRoutine {
    /// Its word on the command line.
    pub name: &'static str,
    /// What it does, as one line.
    pub about: &'static str,
    /// Runs it; [`crate::reconcile::run`] does for a [`crate::reconcile::Routine`] all that is the same for every one.
    pub run: RunRoutine,
}

/// A track as the engines see it. [`Module::of_track`] has what one needs that is nobody else's.
pub struct Module {
    /// Its migrations.
    pub track: Track,
    /// The step from which on its hazards ask when a kind of run last began ([`Context::last_runs`]).
    pub asks_for_runs_since: Option<&'static str>,
    /// What the doctor looks for.
    pub hazards: &'static [Hazard],
    /// What some of them need to know of the rows before they can be put into SQL, for the codes that are asked.
    pub known: Known,
    /// A relation that several hazards ask of, under its name: their questions are one statement, which builds it once.
    pub shared: fn(&Context) -> Option<(&'static str, String)>,
    /// Which rows make no sense without another: child, its column, and the parent, whose key is `id`.
    pub parents: &'static [(&'static str, &'static str, &'static str)],
    /// What the codes of [`Module::invariants`] say.
    pub codes: &'static [Invariant],
    /// What must hold of the rows.
    pub invariants: fn(&Context) -> Vec<Question>,
    /// Tables and columns that contract drops, where they are there all the same; no column stands for the whole table.
    pub left_by_contract: fn(&Context) -> Vec<DroppedObject>,
    /// Migrations of the gateway's on which steps rely: the id, whether its work is there, and what that is.
    pub relied_upon: fn(&Context) -> Vec<(&'static str, bool, &'static str)>,
    /// What some versions of the gateway mean for the track; [`Module::versions`] says which of them is here.
    pub troubles: &'static [VersionTrouble],
    /// Versions of the gateway at which nothing can be done, or nothing is known.
    pub versions: fn(&Context) -> Vec<Finding>,
    /// Objects that are the gateway's own to make, each with the id of its migration.
    pub of_gateway: &'static [(&'static str, &'static str)],
    /// What is moved, on a database as it is now.
    pub facts: fn(&Context) -> Vec<Fact>,
    /// What is walked of the tables: each of them, and of those between which rows move the ones they move to, whether they are
    /// there yet or not.
    pub sections: fn(Vec<String>) -> Vec<String>,
    /// The walk over a section that is no table.
    pub walk: fn(&Context, &str) -> Option<Walk>,
    /// How many rows its migrations have copied for a further owner.
    pub count_copies:
        for<'a> fn(&'a Connection, &'a Context) -> BoxFuture<'a, crate::error::Result<u64>>,
    /// Looks whether the copies that the track's migrations make of rows are what they were made as.
    pub copies: for<'a> fn(
        &'a Connection,
        &'a Context,
    ) -> BoxFuture<'a, crate::error::Result<Vec<Finding>>>,
    /// How a table's rows are read.
    pub reading: fn(&Context, &str) -> Reading,
    /// Columns that the gateway's own migrations rewrite: no loss where one of them has run since.
    pub rewritten_by: &'static [Rewrite],
    /// Tables into which they insert rows, each with their ids.
    pub inserted_by: &'static [(&'static str, &'static [&'static str])],
    /// Columns that come back from a `down` with what the new schema could say.
    pub rewritten_by_down: &'static [(&'static str, &'static str)],
    /// Indexes that a rebuild of the gateway's has lost, by table.
    pub lost_indexes: fn(&Context) -> Vec<(String, IndexSpec)>,
    /// What else `schema repair` puts right.
    pub repairs: fn(&Context) -> Vec<Repair>,
    /// Prepares rows for a gateway that migrates itself.
    pub prepare: Preparation,
    /// Puts back behind its migration what that could not carry.
    pub finish: Preparation,
    /// The table of what is put back by every `up`, also where no step is pending.
    pub remembers: Option<&'static str>,
    /// Puts it back.
    pub put_back:
        for<'a> fn(&'a Connection, &'a mut Report) -> BoxFuture<'a, crate::error::Result<()>>,
    /// Every copy that a run made of a row, for its record.
    pub copied: for<'a> fn(&'a Connection, &'a Report) -> BoxFuture<'a, Vec<serde_json::Value>>,
    /// Tables of Tollgate's own that belong to this track, each with columns by which it is known.
    pub own_tables: &'static [(&'static str, &'static [&'static str])],
    /// The number of the gateway's ledger that each step stands for, where it counts.
    pub numbers: &'static [(&'static str, i64)],
    /// The step that is not undone where the gateway itself has done it: its next boot would do it again.
    pub irrevocable: Option<&'static str>,
    /// Databases of it that can be made up.
    pub seeds: &'static [&'static Seed],
    /// Its routines, in the order of `reconcile all`.
    pub routines: &'static [NamedRoutine],
    /// A table that is there and one that is gone where the routines' work is over for good.
    pub over: Option<(&'static str, &'static str)>,
    /// Boots the gateway of that version, as far as the track's rows are concerned.
    pub boot: for<'a> fn(&'a Connection, &'a Target) -> BoxFuture<'a, Result<(), DbErr>>,
}

const NOTHING_TO_PREPARE: Preparation = |_, _, _, _| {
    Box::pin(async { Ok("nothing to prepare: the gateway's migration adds a column") })
};

impl Module {
    /// The module of a track whose tables are the program's own: no gateway, no hazards, nothing that moves.
    pub const fn of_track(track: Track) -> Self {
        Self {
            track,
            asks_for_runs_since: None,
            hazards: &[],
            known: |_, _, _| Box::pin(async { Ok(Facts::default()) }),
            shared: |_| None,
            parents: &[],
            codes: &[],
            invariants: |_| Vec::new(),
            left_by_contract: |_| Vec::new(),
            relied_upon: |_| Vec::new(),
            troubles: &[],
            versions: |_| Vec::new(),
            of_gateway: &[],
            facts: |_| Vec::new(),
            sections: |tables| tables,
            walk: |_, _| None,
            count_copies: |_, _| Box::pin(async { Ok(0) }),
            copies: |_, _| Box::pin(async { Ok(Vec::new()) }),
            reading: |_, _| Reading::default(),
            rewritten_by: &[],
            inserted_by: &[],
            rewritten_by_down: &[],
            lost_indexes: |_| Vec::new(),
            repairs: |_| Vec::new(),
            prepare: NOTHING_TO_PREPARE,
            finish: NOTHING_TO_PREPARE,
            remembers: None,
            put_back: |_, _| Box::pin(async { Ok(()) }),
            copied: |_, _| Box::pin(async { Vec::new() }),
            own_tables: &[],
            numbers: &[],
            irrevocable: None,
            seeds: &[],
            routines: &[],
            over: None,
            boot: |_, _| Box::pin(async { Ok(()) }),
        }
    }

    /// The walk over a section: what the track says of it, or over the table of that name.
    pub(crate) fn section(&self, context: &Context, name: &str) -> Option<Walk> {
        (self.walk)(context, name)
            .or_else(|| scan::table(&context.catalog, name, &(self.reading)(context, name)))
    }
}
