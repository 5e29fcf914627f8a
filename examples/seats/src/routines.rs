//! What drifts while programs run, and is put right.

use tollgate_service::module::NamedRoutine;
use tollgate_service::reconcile::run;
use tollgate_service::reconcile::sweep::Sweep;

use crate::{SEATS, TRACK};

/// Seats that nobody holds any more are given up.
static VACANT: Sweep = Sweep {
    name: "vacant-seats",
    track: TRACK,
    table: SEATS,
    columns: &["id", "holder", "active"],
    action: "gave up",
    set: |dialect| format!("active = {}", dialect.false_literal()),
    due: |dialect| format!("{} AND trim(holder) = ''", dialect.is_true("active")),
};

pub(super) const ALL: &[NamedRoutine] = &[NamedRoutine {
    name: "vacant-seats",
    about: "seats that nobody holds are in nobody's use",
    run: |session, options, now, stop| Box::pin(run(session, options, now, stop, &VACANT)),
}];
