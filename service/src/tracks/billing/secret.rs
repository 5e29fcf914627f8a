//! The secret-write gate (`docs/upstream/molecule.md` §B4): a workspace that the platform pays for stores no key that would
//! bypass it.

use serde::Serialize;

use super::bypass::BYPASS_KEYS;
use super::mode::{Mode, Resolution};

/// Whether a secret may be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gate {
    /// Whether it may.
    pub allowed: bool,
    /// The name as it is compared: trimmed and in upper case.
    pub key: String,
    /// The workspace.
    pub workspace_id: String,
    /// How it pays.
    pub resolved_mode: Mode,
    /// Why it may not.
    pub reason: Option<String>,
    /// The command that would allow it.
    pub resolve: Option<String>,
}

/// Judges a name. Where the mode could not be resolved the resolution is the safe one, so the gate is closed then.
pub fn check(resolution: &Resolution, key: &str) -> Gate {
    let key = key.trim().to_uppercase();
    let bypasses = BYPASS_KEYS.contains(&key.as_str());
    let allowed = !(bypasses && resolution.resolved_mode == Mode::PlatformManaged);
    let workspace = &resolution.workspace_id;
    Gate {
        allowed,
        workspace_id: workspace.clone(),
        resolved_mode: resolution.resolved_mode,
        reason: (!allowed).then(|| {
            format!("workspace {workspace} is platform_managed, and {key} would bypass the platform's proxy")
        }),
        resolve: (!allowed).then(|| format!("tollgate billing-mode set {workspace} byok")),
        key,
    }
}
