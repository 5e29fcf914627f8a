//! The registry: every track that this program knows. Nothing else outside their folders names one to an engine.

mod billing;
mod governance;
mod providers;

use crate::module::Module;

/// In the order of their output.
pub(crate) static ALL: [&Module; 3] = [&governance::MODULE, &providers::MODULE, &billing::MODULE];
