//! One binary for all integration tests: linking is what costs time.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its name is its documentation"
)]

mod bad_input;
mod contract;
mod entities;
mod multi_budget;
mod rebuild;
mod together;

use tollgate_tests::Tollgate;

/// The binary that was built with these tests.
fn tollgate() -> Tollgate {
    Tollgate::new(env!("CARGO_BIN_EXE_tollgate-under-test"))
}
