//! A track of a program's own tables: who holds a seat of a chat product, and whether it is in use.
//!
//! The legacy table says so in a word (`state`: `on` or `off`), the new one in a flag (`active`). `docs/tracks.md` walks
//! through it file by file.

mod badges;
mod hazards;
pub mod migrations;
mod routines;
mod seed;

use tollgate_migration::adoption::{Recognised, Unknown};
use tollgate_migration::track::Definition;
use tollgate_migration::{Choice, Context, Track, goldens};
use tollgate_service::module::{Invariant, Module, Question};

/// The table.
pub const SEATS: &str = "seats";

/// A seat in use that nobody holds is turned off (S002).
pub const VACANT_SEATS: Choice = Choice {
    flag: "vacant-seats",
    variable: "SEATS_VACANT_SEATS",
    word: Some(("off", "Turned off, as the routine would")),
    about: "What happens to seats in use that nobody holds: `off` turns them off",
    prepares: false,
};

const DEFINITION: Definition = Definition {
    migrations: migrations::ALL,
    goldens: goldens!("schema":
        "m20260101_000001_seats_baseline",
        "m20260102_000002_seat_flag_expand",
        "m20260102_000003_seat_flag_backfill",
        "m20260102_000004_seat_flag_contract",
    ),
    marker_tables: &[SEATS],
    recognise,
    choices: &[VACANT_SEATS],
    ..Definition::named("seats")
};

/// What the migrations are.
pub const TRACK: Track = Track::new(&DEFINITION);

/// What the engines ask beside them.
pub static MODULE: Module = Module {
    hazards: hazards::ALL,
    codes: &[Invariant {
        code: "S101",
        title: "a seat in use that nobody holds",
        effect: "it is paid for",
        resolve: "`seats reconcile run vacant-seats` gives it up",
    }],
    invariants,
    seeds: &[&seed::LEGACY],
    routines: routines::ALL,
    ..Module::of_track(TRACK)
};

/// A database without history is the legacy one, or is not ours.
fn recognise(context: &Context) -> Result<Recognised, Unknown> {
    let has = |column: &str| context.catalog.has_column(SEATS, column);
    let lacking: Vec<String> = ["id", "holder", "state"]
        .into_iter()
        .filter(|column| !has(column))
        .map(|column| format!("{SEATS} has no column {column}"))
        .collect();
    if lacking.is_empty() {
        Ok(Recognised {
            shape: "seats with a state in words",
            applied: vec!["seats_baseline"],
            created: None,
        })
    } else {
        Err(Unknown {
            nearest: "the legacy table of seats",
            differences: lacking,
        })
    }
}

/// Behind the backfill, a seat that nobody holds is in nobody's use.
fn invariants(live: &Context) -> Vec<Question> {
    if live.created("seat_flag_backfill").is_none() {
        return Vec::new();
    }
    vec![Question {
        code: "S101",
        table: SEATS.to_owned(),
        column: Some("active".to_owned()),
        sql: format!(
            "SELECT id FROM {SEATS} WHERE {} AND trim(holder) = ''",
            live.catalog.dialect.is_true("active")
        ),
    }]
}
