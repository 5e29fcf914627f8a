//! Who runs this process, and what it calls itself.

/// Who runs this process: user, host and process id, as far as the environment says.
pub fn applied_by() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{} (pid {})", host(), std::process::id())
}

/// What this process calls itself on a server.
pub(crate) fn application_name() -> String {
    format!("tollgate (pid {})", std::process::id())
}

/// Whether a session of that name is a run of Tollgate's.
pub(crate) fn is_ours(application: &str) -> bool {
    application.starts_with("tollgate (pid ")
}

/// The machine's name.
pub(crate) fn host() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
