#![doc = include_str!("../README.md")]

mod address;
mod clock;
pub mod connection;
pub mod database;
pub mod doctor;
pub mod drift;
pub mod duration;
pub mod error;
mod fault;
mod file;
pub mod history;
mod instant;
mod lock;
pub mod migrator;
pub mod module;
mod nearest;
pub mod observer;
mod parameters;
pub mod prepare;
mod process;
pub mod reconcile;
pub mod rehearse;
pub mod repair;
pub mod report;
mod retry;
mod rows;
pub mod runner;
pub mod runs;
mod secret;
pub mod seed;
mod session;
pub mod shutdown;
pub mod snapshot;
mod sqlstate;
mod statement;
mod tracks;
pub mod verify;

pub use clock::Clock;
pub use connection::{Connection, Transaction};
pub use database::{Access, Location};
pub use error::{Error, Result};
pub use observer::{Event, Observer, Progress, Silent};
pub use report::{
    Applied, Change, CommandResult, Finding, Outcome, Pending, Report, Severity, TrackReport,
};
pub use shutdown::ShutdownSignal;
pub use tollgate_migration::governance::SHARED_BUDGETS;
pub use tollgate_migration::plan::Blocks;
pub use tollgate_migration::providers::NAME_CONFLICTS;
pub use tollgate_migration::{Choice, Choices, Phase, Track};
pub use tracks::{Registry, billing, governance, providers};
