#![doc = include_str!("../README.md")]
#![expect(
    missing_docs,
    reason = "the entity derives generate items without docs; tables and columns have theirs"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the derives' cascading saves begin transactions; Tollgate does not call them"
)]

pub mod billing;
pub mod governance;
mod id;
pub mod providers;
mod secret;

pub use id::Id;
pub use secret::{Secret, SecretBytes};
