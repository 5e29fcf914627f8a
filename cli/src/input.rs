//! What is read from files and standard input.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use tollgate_service::{Error, Result};

/// The text of a file, or of standard input for `-`; a byte order mark is no part of it.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|source| Error::File {
        path: path.display().to_string(),
        source,
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Variables of a file of `NAME=value` lines, as Docker and dotenv tools read them. A message says where a
/// mistake stands, never what stands there: it may be a secret.
///
/// # Errors
/// [`Error::File`] where it cannot be read, [`Error::Rejected`] where a line is none.
pub(crate) fn variables(path: &Path) -> Result<HashMap<String, String>> {
    let text = text(path)?;
    // Tools differ in what these stand for, and a secret that is cut short is a weaker one.
    let unclear = text
        .lines()
        .position(|line| !line.trim_start().starts_with('#') && line.contains(['$', '\\']));
    if let Some(before) = unclear {
        return Err(Error::Rejected {
            what: format!(
                "{}: line {} holds a dollar sign or a backslash, which are not taken as they stand",
                path.display(),
                before + 1
            ),
        });
    }
    dotenvy::from_read_iter(text.as_bytes())
        .enumerate()
        .map(|(before, variable)| {
            variable.map_err(|_| Error::Rejected {
                what: format!(
                    "{}: what follows the {before} variables at its beginning is no NAME=value",
                    path.display()
                ),
            })
        })
        .collect()
}

/// Standard input in a file that only this user may read, gone when dropped.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn spooled() -> Result<tempfile::NamedTempFile> {
    let copied = tempfile::NamedTempFile::new().and_then(|mut file| {
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        Ok(file)
    });
    copied.map_err(|source| Error::File {
        path: "standard input".to_owned(),
        source,
    })
}
