//! The registry: every track that this program knows. Nothing else outside their folders names one to an engine.

mod billing;
pub(crate) mod governance;
pub(crate) mod providers;

use std::sync::OnceLock;

use tollgate_migration::registry::{self, NotInstalled};

use crate::module::Module;

/// Tollgate's own, in the order of their output.
static BUILT_IN: [&Module; 3] = [&governance::MODULE, &providers::MODULE, &billing::MODULE];

static INSTALLED: OnceLock<Vec<&'static Module>> = OnceLock::new();

/// The tracks of a program.
#[derive(Clone)]
pub struct Registry(Vec<&'static Module>);

impl Registry {
    /// None yet.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Tollgate's own: governance, providers, billing.
    pub fn built_in() -> Self {
        Self(BUILT_IN.to_vec())
    }

    /// One more, behind the others in every output.
    #[must_use]
    pub fn with(mut self, module: &'static Module) -> Self {
        self.0.push(module);
        self
    }

    /// Makes them the tracks of this process, once, before anything asks for one.
    ///
    /// # Errors
    /// [`NotInstalled`] where two have one name, or something was asked before.
    pub fn install(self) -> Result<(), NotInstalled> {
        registry::install(self.0.iter().map(|module| module.track).collect())?;
        INSTALLED.set(self.0).map_err(|_| NotInstalled::Settled)
    }
}

/// In the order of their output. Asking settles them.
pub(crate) fn all() -> &'static [&'static Module] {
    INSTALLED.get_or_init(|| BUILT_IN.to_vec())
}
