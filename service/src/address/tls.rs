//! Encryption: libpq's parameters, and the files that it looks for in `~/.postgresql`.

use std::path::PathBuf;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::Parameters;
use crate::error::{Error, Result};

fn default_file(name: &str) -> Option<PathBuf> {
    std::env::home_dir()
        .map(|home| home.join(".postgresql").join(name))
        .filter(|path| path.is_file())
}

/// A file that is named must be there: a driver that finds none says only that a certificate cannot be read.
fn file(
    parameters: &Parameters,
    name: &str,
    variable: &str,
    usual: &str,
) -> Result<Option<PathBuf>> {
    match parameters.or_variable(name, variable) {
        None => Ok(default_file(usual)),
        Some(path) => {
            let path = PathBuf::from(path);
            if path.is_file() {
                Ok(Some(path))
            } else {
                Err(Error::usage(
                    format!("{name}={} is no file", path.display()),
                    "check the path",
                ))
            }
        }
    }
}

pub(super) fn apply(
    parameters: &Parameters,
    mut options: PgConnectOptions,
) -> Result<PgConnectOptions> {
    let mode = match parameters.or_variable("sslmode", "PGSSLMODE") {
        None => PgSslMode::Prefer,
        Some(word) => word.parse::<PgSslMode>().map_err(|_| {
            Error::usage(
                format!("sslmode={word} is not known"),
                "it is disable, allow, prefer, require, verify-ca or verify-full",
            )
        })?,
    };
    if matches!(mode, PgSslMode::Disable) {
        return Ok(options.ssl_mode(mode));
    }
    let root = match parameters.or_variable("sslrootcert", "PGSSLROOTCERT") {
        // The system's own authorities are what the driver trusts where no file is named.
        Some(word) if word == "system" => None,
        _ => file(parameters, "sslrootcert", "PGSSLROOTCERT", "root.crt")?,
    };
    // As in libpq: with a root certificate at hand, what is required is also verified.
    let mode = match mode {
        PgSslMode::Require if root.is_some() => PgSslMode::VerifyCa,
        mode => mode,
    };
    options = options.ssl_mode(mode);
    if let Some(root) = root {
        options = options.ssl_root_cert(root);
    }
    if let Some(certificate) = file(parameters, "sslcert", "PGSSLCERT", "postgresql.crt")? {
        options = options.ssl_client_cert(certificate);
    }
    if let Some(key) = file(parameters, "sslkey", "PGSSLKEY", "postgresql.key")? {
        options = options.ssl_client_key(key);
    }
    Ok(options)
}
