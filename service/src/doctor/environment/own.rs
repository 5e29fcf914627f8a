//! Relations that have a name of Tollgate's own and are something else.

use tollgate_migration::plan_builder::CHANGED;
use tollgate_migration::{Catalog, Track};

use super::finding;
use crate::report::Finding;
use crate::runner::{checkpoint, pauses};
use crate::runs;
use crate::tracks;

/// The columns by which each of Tollgate's tables is known.
fn known(track: Track) -> Vec<(String, &'static [&'static str])> {
    let mut known: Vec<(String, &'static [&'static str])> = vec![
        (track.history_table(), &["version", "applied_at"]),
        (
            checkpoint::TABLE.to_owned(),
            &["migration", "pass", "position"],
        ),
        (
            runs::TABLE.to_owned(),
            &["id", "kind", "started_at", "report"],
        ),
        (pauses::TABLE.to_owned(), &["track", "since", "paused_by"]),
        (CHANGED.to_owned(), &["what", "id"]),
    ];
    // Their names are taken, whichever track the database carries.
    for module in tracks::all() {
        let own = module.own_tables.iter();
        known.extend(own.map(|(table, columns)| ((*table).to_owned(), *columns)));
    }
    known
}

/// The names of Tollgate's own tables.
pub(super) fn names(track: Track) -> Vec<String> {
    known(track).into_iter().map(|(name, _)| name).collect()
}

/// Tables and views that stand where Tollgate would write.
pub(super) fn squatters(track: Track, catalog: &Catalog) -> Vec<Finding> {
    known(track)
        .into_iter()
        .filter(|(name, columns)| {
            catalog.is_other_relation(name)
                || catalog.has_table(name)
                    && !columns.iter().all(|column| catalog.has_column(name, column))
        })
        .map(|(name, _)| {
            let mut found = finding("E004", &name, vec![name.clone()]);
            found.title = "a relation has a name of Tollgate's own and is not Tollgate's".to_owned();
            found.effect = "Tollgate keeps its records under that name and would fail, or write into somebody else's".to_owned();
            found.resolve = "rename it".to_owned();
            found
        })
        .collect()
}
