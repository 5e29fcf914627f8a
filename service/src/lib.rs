#![doc = include_str!("../README.md")]

pub mod billing;
pub mod database;
pub mod doctor;
pub mod drift;
pub mod duration;
pub mod error;
pub mod history;
mod lock;
pub mod observer;
pub mod reconcile;
pub mod report;
mod retry;
pub mod runner;
pub mod runs;
pub mod seed;
pub mod stop;
pub mod survey;

pub use database::{Access, Location};
pub use error::{Error, Result};
pub use observer::{Event, Observer, Progress, Silent};
pub use report::{Applied, Change, Finding, Outcome, Pending, Report, Severity, TrackReport};
pub use stop::Stop;
pub use tollgate_migration::{GarbledModes, Phase, SharedBudgets, Track};
