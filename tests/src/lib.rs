//! The harness of Tollgate's tests: an empty database per test on every backend, fixtures, and the command line.
//!
//! Nothing here skips: where no PostgreSQL can be had, the test that wants one fails and says how to get one.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

pub mod command;
pub mod database;
pub mod fixture;
pub mod proxy;
pub mod server;
pub mod versions;

pub use command::{Run, Tollgate};
pub use database::{Backend, Role, Template, TestDatabase};
pub use proxy::Proxy;
