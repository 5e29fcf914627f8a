//! One binary for all integration tests: linking is what costs time.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its name is its documentation"
)]

mod addresses;
mod bad_input;
mod billing;
mod budgets;
mod capture;
mod concurrency;
mod config;
mod config_word;
mod corruption;
mod credentials;
mod doctor;
mod drift;
mod embedding;
mod entities;
mod environment;
mod example;
mod fault_injection;
mod files;
mod gateway_key;
mod gateways;
mod golden;
mod handover;
mod json_output;
mod legacy_quirks;
mod migration_conformance;
mod migrator;
mod model_configs;
mod multi_budget;
mod online;
mod pace;
mod plans;
mod provider_key;
mod providers;
mod rebuild;
mod rehearsal;
mod releases;
mod repair;
mod resume;
mod row_security;
mod secrets;
mod shapes;
mod shards;
mod shared;
mod snapshot_verify;
mod squawk;
mod versions;
mod waiting;

use tollgate_tests::Tollgate;

/// The binary that was built with these tests.
fn tollgate() -> Tollgate {
    Tollgate::new(env!("CARGO_BIN_EXE_tollgate-under-test"))
}

/// The binary that knows a track: the example's has a command line of its own.
fn tollgate_of(track: tollgate_migration::Track) -> Tollgate {
    if track == seats::TRACK {
        Tollgate::new(env!("CARGO_BIN_EXE_seats-under-test"))
    } else {
        tollgate()
    }
}

/// A connection to a database that is no test's own.
async fn opened(url: &str) -> tollgate_service::Connection {
    tollgate_service::Location::parse(url)
        .unwrap()
        .connect(
            tollgate_service::Access::Write,
            std::time::Duration::from_secs(10),
        )
        .await
        .unwrap()
}

/// How large the large tests are: 1 in the standing suite; `just measure` runs them at the sizes of the published
/// figures.
fn scale() -> u32 {
    std::env::var("TOLLGATE_TEST_SCALE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

/// Whether a long list of cases tries the one at this place: all of them on SQLite, every second one on PostgreSQL, where a
/// database costs ten times as much. `just release-check` tries all on both.
fn is_tried(backend: tollgate_tests::Backend, place: usize) -> bool {
    backend == tollgate_tests::Backend::Sqlite
        || place.is_multiple_of(2)
        || std::env::var_os("TOLLGATE_TEST_ALL").is_some()
}

/// A measured figure, shown with `--nocapture`.
#[expect(
    clippy::print_stdout,
    reason = "figures are what `just measure` is run for"
)]
fn say(figure: &str) {
    println!("{figure}");
}
