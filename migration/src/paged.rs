//! Passes whose pages are computed by the program, because no SQL of both backends says what they write: ids of version 5,
//! JSON that may be none.
//!
//! A step says how a page is read and what is written for what was read; it executes nothing. The runner reads, asks, and
//! writes each page in a transaction of its own.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use sea_orm::{DbErr, QueryResult, Statement};

use crate::dialect::Dialect;

/// What is written for one page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The statements of its transaction, in order; none where nothing is to be written. The rows that the first of them
    /// affects are the rows that the page changes.
    pub statements: Vec<Statement>,
    /// The key behind which the next page begins; `None` where what is written takes itself out of the next page.
    pub behind: Option<String>,
    /// Whether nothing is behind it.
    pub last: bool,
}

/// A pass over rows, page by page. A track brings its own with [`crate::plan_builder::PlanBuilder::paged`].
pub trait PagedStep: fmt::Debug + Send + Sync {
    /// What it is for, as one line.
    fn purpose(&self) -> &str;

    /// The table whose rows it changes, and the word for what it does to them: `update`, `insert`, `delete`, `clone`.
    fn changes(&self) -> (&str, &'static str);

    /// Statements before the first page of a round, in a transaction of their own. A repeat adds only what is new; a
    /// `CREATE` is left out where [`PagedStep::own_table`] is there.
    fn stage(&self) -> &[String] {
        &[]
    }

    /// The table of Tollgate's own that [`PagedStep::stage`] makes; later steps of the plan see it.
    fn own_table(&self) -> Option<&'static str> {
        None
    }

    /// How often it begins again while it finds something to change.
    fn rounds(&self) -> usize {
        1
    }

    /// Reads a page: the first one, or the one behind a key.
    fn read(&self, dialect: Dialect, behind: Option<&str>) -> Statement;

    /// What to write for what [`PagedStep::read`] has found. A row that was written meanwhile is left by the statements.
    ///
    /// # Errors
    /// Where the rows are not what was asked for.
    fn page(&self, dialect: Dialect, rows: &[QueryResult]) -> Result<Page, DbErr>;

    /// The statements of a page as they are shown and linted, with samples in the place of values.
    fn samples(&self) -> Vec<String>;

    /// A query whose single column `number` says about how many rows will change, asked before anything of the run has
    /// happened; `None` where it would cost as much as the pass.
    fn estimate(&self) -> Option<&str> {
        None
    }
}

/// A step in a plan. Two are the same where they say the same.
#[derive(Clone, Debug)]
pub struct Paged(Arc<dyn PagedStep>);

impl Paged {
    /// The step as a unit of a plan.
    pub fn new(step: impl PagedStep + 'static) -> Self {
        Self(Arc::new(step))
    }

    /// Everything it says in SQL: what stages it, and a page.
    pub fn statements(&self) -> Vec<String> {
        let mut statements = self.stage().to_vec();
        statements.extend(self.samples());
        statements
    }
}

impl Deref for Paged {
    type Target = dyn PagedStep;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}

impl PartialEq for Paged {
    fn eq(&self, other: &Self) -> bool {
        self.purpose() == other.purpose() && self.statements() == other.statements()
    }
}

impl Eq for Paged {}
