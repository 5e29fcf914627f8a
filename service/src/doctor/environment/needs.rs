//! What a role must be allowed for plans to run, read off their own statements.

use std::collections::BTreeSet;

use tollgate_migration::{Context, Plan, Track};

use crate::statement::Touched;

/// Rights, by what they are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Tables that are altered, indexed or dropped, which only their owner may.
    pub owned: BTreeSet<String>,
    /// Tables that rows are written into.
    pub written: BTreeSet<String>,
    /// Whether something is created in the schema.
    pub creates: bool,
    /// The statements' command tags, as event triggers know them.
    pub tags: BTreeSet<&'static str>,
}

/// What the plans need, and the record of them.
pub(super) fn of(track: Track, live: &Context, plans: &[Plan]) -> Needs {
    let mut needs = Needs::default();
    for sql in plans.iter().flat_map(Plan::statements) {
        let touched = Touched::by(&sql);
        needs.creates |= !touched.created.is_empty();
        needs
            .tags
            .extend(Some(touched.tag).filter(|tag| !tag.is_empty()));
        // A lock takes the right to write, and comes before what alters.
        if sql.starts_with("LOCK TABLE ") {
            needs.written.extend(touched.altered);
        } else {
            needs.owned.extend(touched.altered);
        }
        needs.written.extend(touched.written);
    }
    if !plans.is_empty() {
        let history = track.history_table();
        if live.catalog.has_table(&history) {
            needs.written.insert(history);
        } else {
            needs.creates = true;
            needs.tags.insert("CREATE TABLE");
        }
    }
    // What a plan makes by itself is this role's own.
    let exists = |name: &String| live.catalog.has_table(name);
    needs.owned.retain(exists);
    needs.written.retain(exists);
    needs
}
