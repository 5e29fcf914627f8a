//! Which rows a step inserts or changes, written down before it does, where no rule tells them from a gateway's own. Its `down`
//! touches these and no others.

use super::PlanBuilder;
use crate::catalog::Catalog;
use crate::dialect::Dialect;
use crate::plan::Blocks;

/// The table of rows that steps have changed: `what` (step and kind) and the row's id.
pub const CHANGED: &str = "tollgate_changed";

/// The ids that were written down, as a query with the column `id`; none where nothing ever was.
pub fn remembered(catalog: &Catalog, what: &str) -> Option<String> {
    catalog.has_table(CHANGED).then(|| {
        format!(
            "SELECT id FROM {CHANGED} WHERE what = {}",
            catalog.dialect.text(what)
        )
    })
}

/// Creates the list.
pub fn create() -> String {
    format!(
        "CREATE TABLE {CHANGED} (what varchar(255) NOT NULL, id varchar(255) NOT NULL, PRIMARY KEY (what, id))"
    )
}

/// Writes down the rows that a query names in its column `id`. A repeat adds what is new.
pub fn note(dialect: Dialect, what: &str, rows: &str) -> String {
    format!(
        "INSERT INTO {CHANGED} (what, id) SELECT {}, CAST(due.id AS varchar(255)) FROM ({rows}) due \
         WHERE due.id IS NOT NULL ON CONFLICT (what, id) DO NOTHING",
        dialect.text(what)
    )
}

impl PlanBuilder {
    /// Writes down the rows that a query names in its column `id`. A repeat adds what is new.
    pub fn remember(&mut self, what: &str, rows: &str) {
        if !self.catalog.has_table(CHANGED) {
            self.ddl(
                create(),
                "a list of the rows that are changed, so that they can be changed back".to_owned(),
                Blocks::Nothing,
            );
            self.catalog.tables.entry(CHANGED.to_owned()).or_default();
        }
        self.bookkeeping(
            note(self.dialect(), what, rows),
            "the rows that are about to be changed are noted",
        );
    }

    /// Strikes out what a step had written down: it is undone.
    pub fn forget(&mut self, whats: &[&str]) {
        if !self.catalog.has_table(CHANGED) {
            return;
        }
        let dialect = self.dialect();
        let list: Vec<String> = whats.iter().map(|what| dialect.text(what)).collect();
        self.bookkeeping(
            format!("DELETE FROM {CHANGED} WHERE what IN ({})", list.join(", ")),
            "what was noted of these rows goes with them",
        );
    }
}
