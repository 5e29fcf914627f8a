//! Molecule's workspaces and their secrets (`docs/upstream/molecule.md`, behind migration 043).

pub mod global_secret;
pub mod workspace;
pub mod workspace_secret;
