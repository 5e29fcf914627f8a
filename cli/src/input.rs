//! What is read from files and standard input.

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
