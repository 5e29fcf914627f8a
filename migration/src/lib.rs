#![doc = include_str!("../README.md")]

pub mod adoption;
pub mod billing;
pub mod catalog;
pub mod choice;
pub mod context;
pub mod ddl;
pub mod dialect;
mod embedded;
pub mod gateway;
pub mod golden;
pub mod governance;
pub mod ledger;
pub mod loss;
pub mod migration;
pub mod paged;
pub mod plan;
pub mod plan_builder;
pub mod providers;
mod reading;
mod rebuild;
pub mod registry;
pub mod schema;
pub mod track;

pub use catalog::Catalog;
pub use choice::{Choice, Choices};
pub use context::Context;
pub use dialect::Dialect;
pub use ledger::Ledger;
pub use migration::{Migration, Phase};
pub use plan::{Created, Plan};
pub use track::Track;
