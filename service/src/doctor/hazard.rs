//! A question about the data or the schema that is asked before a migration runs.

use futures_util::future::BoxFuture;
use tollgate_migration::Context;

use super::query::Queries;
use crate::connection::Connection;
use crate::error::Result;
use crate::report::{Finding, Severity};

/// What some hazards need to know of the data before they can be put into SQL.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Every distinct reset duration, and its nanoseconds where it can be read.
    pub durations: Vec<(String, Option<i64>)>,
}

/// A question about the data or the schema.
pub struct Hazard {
    /// Its stable code.
    pub code: &'static str,
    /// How much a finding weighs.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// What would happen.
    pub effect: &'static str,
    /// The flag or command that resolves it.
    pub resolve: &'static str,
    /// The slugs of the migrations it concerns; it is asked while one of them is to run. Without any it speaks of drift,
    /// and is asked by `doctor` alone, always.
    pub concerns: &'static [&'static str],
    /// One query per table it can be found in; none where this schema cannot have the hazard.
    pub queries: fn(&Context, &Facts) -> Queries,
    /// Whether it speaks of what is dropped or cleared: the record of a run then lists every row.
    pub drops: bool,
    /// Whether it can come back when its migration is done: the doctor asks for it always.
    pub returns: bool,
    /// What the operator's choice makes of it, and the choice; `None` where there is none.
    pub choice: fn(&Context) -> Option<(&'static str, &'static str)>,
    /// What would happen to these very rows, where one line for all is not enough.
    pub detail: Option<Detail>,
    /// Findings that no query makes.
    pub more: Option<More>,
    /// Whether a boot of the gateway's, up to this version, stops on it.
    pub stops_boot: fn(i64) -> bool,
}

/// Says what would happen to the rows of a table that a hazard names.
pub type Detail =
    for<'a> fn(&'a Connection, &'a Context, &'a str, Samples) -> BoxFuture<'a, Result<String>>;

/// Looks for a hazard in another way than by a query.
pub type More =
    for<'a> fn(&'a Connection, &'a Context, Samples) -> BoxFuture<'a, Result<Vec<Finding>>>;

impl Hazard {
    /// A hazard of which nothing more is to be said; to be completed by what it is.
    pub const PLAIN: Self = Self {
        code: "",
        severity: Severity::Warning,
        title: "",
        effect: "",
        resolve: "",
        concerns: &[],
        queries: |_, _| Queries::none(),
        drops: false,
        returns: false,
        choice: |_| None,
        detail: None,
        more: None,
        stops_boot: |_| false,
    };
}

/// How many ids a finding lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Samples {
    /// The first few.
    First(u32),
    /// Every one.
    All,
}

impl Default for Samples {
    fn default() -> Self {
        Self::First(10)
    }
}
