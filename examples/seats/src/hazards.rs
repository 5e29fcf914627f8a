//! What would be lost.

use tollgate_migration::Context;
use tollgate_service::Severity;
use tollgate_service::module::{Facts, Hazard, Queries};

use crate::{SEATS, VACANT_SEATS};

pub(super) const ALL: &[Hazard] = &[
    Hazard {
        code: "S001",
        severity: Severity::Blocking,
        title: "a state that is neither on nor off",
        effect: "a flag cannot say what it means, and contract drops the word",
        resolve: "write on or off",
        concerns: &["seat_flag_backfill", "seat_flag_contract"],
        queries: garbled,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "S002",
        severity: Severity::Blocking,
        title: "a seat in use that nobody holds",
        effect: "the routine would give it up at its first run",
        resolve: "--vacant-seats off turns it off; or name its holder",
        concerns: &["seat_flag_backfill"],
        choice: |context| {
            context
                .chose(&VACANT_SEATS)
                .then_some(("it is turned off", "resolved by --vacant-seats off"))
        },
        queries: |context, _| {
            if !context.catalog.has_column(SEATS, "state") {
                return Queries::none();
            }
            Queries::on(
                SEATS,
                format!("SELECT id FROM {SEATS} WHERE state = 'on' AND trim(holder) = ''"),
            )
        },
        ..Hazard::PLAIN
    },
];

fn garbled(context: &Context, _: &Facts) -> Queries {
    if !context.catalog.has_column(SEATS, "state") {
        return Queries::none();
    }
    Queries::on(
        SEATS,
        format!("SELECT id FROM {SEATS} WHERE state IS NULL OR state NOT IN ('on', 'off')"),
    )
}
