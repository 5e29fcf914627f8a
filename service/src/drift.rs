//! Drift: how the live schema differs from the one that the applied migrations make.
//!
//! Expected is the golden schema of the last applied migration. What a database lacked or had beyond it when it was
//! adopted is no drift, nor is what a later upstream adds; what a Tollgate migration created is required, exactly.

mod diff;
mod tables;

pub use diff::diff;
pub(crate) use tables::tables_of;

use std::collections::BTreeSet;

use tollgate_migration::golden::tables;
use tollgate_migration::plan::Created;
use tollgate_migration::registry::golden;
use tollgate_migration::schema::{Difference, canonical, differences, kind};
use tollgate_migration::{Catalog, Context, Ledger, Track};

use crate::history::History;
pub use crate::report::result::Drift;

/// How the track's tables differ from the golden schema of a version.
pub(crate) fn against(catalog: &Catalog, version: &str) -> Vec<Difference> {
    let Some(expected) = golden(catalog.dialect, version).filter(|golden| !golden.is_empty())
    else {
        // Saying nothing would look like agreement.
        return vec![Difference {
            object: format!("{version} golden schema"),
            expected: Some("in this build".to_owned()),
            live: None,
        }];
    };
    let live = canonical(catalog, tables(&expected));
    differences(&expected, &live)
}

/// Every difference of a track, tolerated ones included.
///
/// Where the gateway owns the database, only what Tollgate made is compared: the rest is the gateway's, and changes with its
/// versions. What the gateway has done since is no drift either.
pub(crate) fn examine(live: &Context, track: Track, history: &History) -> Vec<Drift> {
    examine_under(&live.catalog, live.ledger(track), track, history)
}

/// The same where the ledger is given.
pub(crate) fn examine_under(
    catalog: &Catalog,
    ledger: &Ledger,
    track: Track,
    history: &History,
) -> Vec<Drift> {
    let owned = ledger.owns();
    // A release that wrote down no ledger leaves it open, and the gateway has the benefit of the doubt.
    let moved = owned
        && history
            .current(track)
            .and_then(|current| history.entries.get(&current))
            .is_some_and(|entry| {
                entry.created.ledger.is_none() || has_moved(ledger, &entry.created)
            });
    let left = if owned {
        left_to_gateway(catalog, track, history)
    } else {
        BTreeSet::new()
    };
    let Some(current) = history.current(track) else {
        return Vec::new();
    };
    let created: Vec<(String, &Created)> = history
        .entries
        .values()
        .flat_map(|entry| {
            let objects = entry.created.objects(catalog);
            objects.into_iter().map(|object| (object, &entry.created))
        })
        .collect();
    let known = Known {
        catalog,
        ledger,
        track,
        history,
        created,
        moved,
        left,
    };
    against(catalog, &current)
        .into_iter()
        .map(|difference| Drift {
            track,
            table: difference.table().to_owned(),
            kind: difference.kind(),
            line: difference.line(),
            tolerated: known.tolerates(&difference),
            object: difference.object,
            expected: difference.expected,
            live: difference.live,
        })
        .collect()
}

/// What explains a difference.
struct Known<'a> {
    catalog: &'a Catalog,
    ledger: &'a Ledger,
    track: Track,
    history: &'a History,
    /// Each object that a step made.
    created: Vec<(String, &'a Created)>,
    /// The gateway has migrated since.
    moved: bool,
    /// Tables that are the gateway's to make.
    left: BTreeSet<String>,
}

impl Known<'_> {
    fn tolerates(&self, difference: &Difference) -> bool {
        let index_name = difference.object.split(" index ").nth(1);
        let ours = self.created.iter().find(|(object, _)| {
            *object == difference.object
                || index_name.is_some_and(|name| *object == format!(" index {name}"))
        });
        if let Some((_, by)) = ours {
            // What made it in that form knew why: a column without NOT NULL on a table that had rows.
            if difference.live.is_some() && by.tolerates(difference) {
                return true;
            }
            if self.ledger.owns() && has_moved(self.ledger, by) {
                return true;
            }
            // A column that refers to another follows its type, whatever an old version gave that.
            return difference.live.is_some()
                && self
                    .track
                    .type_inherited_from(&difference.object)
                    .is_some_and(|(table, column)| {
                        self.catalog.column(table, column).is_some_and(|parent| {
                            difference.live.as_deref()
                                == Some(&kind(self.catalog.dialect, &parent.kind))
                        })
                    });
        }
        if self.moved || self.left.contains(difference.table()) {
            return true;
        }
        let adopted = self
            .history
            .entries
            .values()
            .any(|entry| entry.created.tolerates(difference));
        let definition = difference
            .live
            .as_deref()
            .or(difference.expected.as_deref())
            .unwrap_or_default();
        adopted
            || self.track.is_later_upstream(
                &difference.object,
                definition,
                difference.live.is_none(),
            )
    }
}

/// How the tables that a step would have made differ from that, where they are left to the gateway.
pub(crate) fn as_left(catalog: &Catalog, track: Track, version: &str) -> Vec<Difference> {
    let left = tables_made_by(catalog, track, version);
    against(catalog, version)
        .into_iter()
        .filter(|difference| left.contains(difference.table()))
        .collect()
}

/// Tables of steps that are not recorded: they wait, and whatever is there of them is the gateway's.
fn left_to_gateway(catalog: &Catalog, track: Track, history: &History) -> BTreeSet<String> {
    track
        .migrations()
        .iter()
        .filter(|migration| !history.entries.contains_key(migration.version))
        .flat_map(|migration| tables_made_by(catalog, track, migration.version))
        .collect()
}

/// The tables that a step makes on a fresh database.
fn tables_made_by(catalog: &Catalog, track: Track, version: &str) -> BTreeSet<String> {
    let after = |version: &str| golden(catalog.dialect, version).unwrap_or_default();
    let before = track
        .migrations()
        .iter()
        .take_while(|migration| migration.version != version)
        .last()
        .map(|migration| after(migration.version))
        .unwrap_or_default();
    let before: BTreeSet<&str> = tables(&before).collect();
    tables(&after(version))
        .filter(|table| !before.contains(table))
        .map(str::to_owned)
        .collect()
}

/// Whether the gateway has migrated since a step was recorded.
pub(crate) fn has_moved(ledger: &Ledger, created: &Created) -> bool {
    created
        .ledger
        .as_ref()
        .is_some_and(|then| ledger.newest().as_ref() != Some(then))
}
