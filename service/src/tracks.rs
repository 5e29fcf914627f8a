//! The registry: every track that this program knows. Nothing else outside their folders names one to an engine.

pub mod billing;
pub mod governance;
pub mod providers;

use std::sync::OnceLock;

use tollgate_migration::Track;
use tollgate_migration::registry::{self, NotInstalled};

use crate::migrator::OfTrack;
use crate::module::Module;

/// Bifrost's budgets, virtual keys and their owners.
pub struct Governance;

impl OfTrack for Governance {
    const TRACK: Track = Track::GOVERNANCE;
}

/// Coder's AI providers and the keys to them.
pub struct Providers;

impl OfTrack for Providers {
    const TRACK: Track = Track::PROVIDERS;
}

/// Molecule's workspaces and how they pay for their models.
pub struct Billing;

impl OfTrack for Billing {
    const TRACK: Track = Track::BILLING;
}

/// Tollgate's own, in the order of their output.
static BUILT_IN: [&Module; 3] = [&governance::MODULE, &providers::MODULE, &billing::MODULE];

static INSTALLED: OnceLock<Vec<&'static Module>> = OnceLock::new();

/// The tracks of a program, and what it is called.
#[derive(Clone)]
pub struct Registry {
    modules: Vec<&'static Module>,
    name: &'static str,
}

impl Registry {
    /// None yet.
    pub fn empty() -> Self {
        Self {
            modules: Vec::new(),
            name: "tollgate",
        }
    }

    /// Tollgate's own: governance, providers, billing.
    pub fn built_in() -> Self {
        Self {
            modules: BUILT_IN.to_vec(),
            ..Self::empty()
        }
    }

    /// One more, behind the others in every output.
    #[must_use]
    pub fn with(mut self, module: &'static Module) -> Self {
        self.modules.push(module);
        self
    }

    /// The name of the program, as its help says it.
    #[must_use]
    pub fn called(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The same.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes them the tracks of this process, once, before anything asks for one.
    ///
    /// # Errors
    /// [`NotInstalled`] where two have one name, or something was asked before.
    pub fn install(self) -> Result<(), NotInstalled> {
        registry::install(self.modules.iter().map(|module| module.track).collect())?;
        INSTALLED
            .set(self.modules)
            .map_err(|_| NotInstalled::Settled)
    }
}

/// In the order of their output. Asking settles them.
pub(crate) fn all() -> &'static [&'static Module] {
    INSTALLED.get_or_init(|| BUILT_IN.to_vec())
}

impl Module {
    /// The module of a track. Every track is registered with one.
    pub(crate) fn of(track: Track) -> &'static Self {
        let modules = all();
        modules
            .iter()
            .copied()
            .find(|module| module.track == track)
            .unwrap_or(modules[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_track_has_its_module() {
        for &track in Track::all() {
            assert_eq!(Module::of(track).track, track);
        }
        assert_eq!(all().len(), Track::all().len());
    }
}
