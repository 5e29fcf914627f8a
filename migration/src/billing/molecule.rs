//! Molecule's files (`docs/upstream/molecule.md` B6, B7).

/// The file that drops the column again.
pub const DROPPED: &str = "20260630120000";

/// Files that every ledger has: it exists since 2026-04-18, and the first boot with it runs all files.
const KNOWN: [&str; 4] = [
    "001_workspaces.sql",
    "004_secrets.sql",
    "009_activity_logs.sql",
    "012_global_secrets.sql",
];

/// Whether a file name is one of Molecule's.
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || name.contains("llm_billing_mode") || number(name) == DROPPED
}

/// The number before a file's words.
pub fn number(name: &str) -> &str {
    name.split('_').next().unwrap_or(name)
}

/// The one dated file from before the last of the numbered ones, behind which it sorts.
const EARLY: &str = "20260417000000";

/// The file that shows the version: the newest, and none that only sorts behind it.
pub fn version(files: &[String]) -> Option<&str> {
    files
        .iter()
        .rev()
        .find(|name| number(name) != EARLY)
        .or_else(|| files.last())
        .map(String::as_str)
}

/// A file as a version.
pub fn words(name: &str) -> String {
    name.trim_end_matches(".sql")
        .trim_end_matches(".up")
        .to_owned()
}

/// Whether the ledger is past the column: the file that drops it, or a later one, has run.
pub fn is_past(files: &[String]) -> bool {
    files
        .iter()
        .any(|name| number(name).len() == DROPPED.len() && number(name) >= DROPPED)
}
