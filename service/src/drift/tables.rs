//! Which of a track's tables are there.

use tollgate_migration::registry::tables_of as named;

use tollgate_migration::{Context, Track};

/// Every table that any version of the track names and the database has.
pub(crate) fn tables_of(track: Track, context: &Context) -> Vec<String> {
    let mut names = named(context.catalog.dialect, track);
    names.retain(|table| context.catalog.has_table(table));
    names.into_iter().collect()
}
