//! What the engines ask of a track beside its migrations.

use futures_util::future::BoxFuture;
use sea_orm::DbErr;
use tollgate_migration::ledger::Target;
use tollgate_migration::{Context, Track};

use crate::connection::Connection;
use crate::doctor::Hazard;
use crate::report::Finding;
use crate::snapshot::moved::Fact;
use crate::snapshot::scan::{self, Reading, Walk};
use crate::tracks;
use crate::verify::invariants::Question;

/// A table, or a column of it.
pub(crate) type Leftover = (&'static str, Option<&'static str>);

/// A track as the engines see it.
pub(crate) struct Module {
    /// Its migrations.
    pub track: Track,
    /// The advisory key that its gateway takes before it migrates, in that program's own source; `None` where it takes none.
    pub gateway_lock: Option<i64>,
    /// The tables that show in which schema the track is, where its marker tables do not: other products have those too.
    pub signs: Option<&'static [&'static str]>,
    /// What the doctor looks for.
    pub hazards: &'static [Hazard],
    /// Which rows make no sense without another: child, its column, and the parent, whose key is `id`.
    pub parents: &'static [(&'static str, &'static str, &'static str)],
    /// What must hold of the rows.
    pub invariants: fn(&Context) -> Vec<Question>,
    /// Tables and columns that contract drops, where they are there all the same; no column stands for the whole table.
    pub left_by_contract: fn(&Context) -> Vec<Leftover>,
    /// Migrations of the gateway's on which steps rely: the id, whether its work is there, and what that is.
    pub relied_upon: fn(&Context) -> Vec<(&'static str, bool, &'static str)>,
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
    /// How a table's rows are read.
    pub reading: fn(&Context, &str) -> Reading,
    /// Columns that come back from a `down` with what the new schema could say.
    pub rewritten_by_down: &'static [(&'static str, &'static str)],
    /// Boots the gateway of that version, as far as the track's rows are concerned.
    pub boot: for<'a> fn(&'a Connection, &'a Target) -> BoxFuture<'a, Result<(), DbErr>>,
}

impl Module {
    /// The module of a track. Every track is registered with one.
    pub(crate) fn of(track: Track) -> &'static Self {
        tracks::ALL
            .iter()
            .copied()
            .find(|module| module.track == track)
            .unwrap_or(tracks::ALL[0])
    }

    /// The walk over a section: what the track says of it, or over the table of that name.
    pub(crate) fn section(&self, context: &Context, name: &str) -> Option<Walk> {
        (self.walk)(context, name)
            .or_else(|| scan::table(&context.catalog, name, &(self.reading)(context, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_track_has_its_module() {
        for track in Track::ALL {
            assert_eq!(Module::of(track).track, track);
        }
        assert_eq!(tracks::ALL.len(), Track::ALL.len());
    }
}
