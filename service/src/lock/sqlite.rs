//! A lock on a file beside the database. It is opened only after the database proved writable, so that a look at
//! somebody else's file leaves nothing behind, and never deleted: deleting would let two runs lock two files.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};

use crate::database::{Location, canonical};
use crate::error::{Error, Result};
use crate::file;

/// A held lock.
pub(crate) struct SqliteLock {
    _file: File,
}

/// One try for the lock.
pub(super) enum Tried {
    Held(SqliteLock),
    Busy(String),
}

/// SQLite has one writer at a time, so one lock serves every track.
pub(super) fn try_lock(location: &Location) -> Result<Tried> {
    let database = location
        .file()
        .map(|path| canonical(&path))
        .unwrap_or_default();
    let (mut file, path) = file::open_lock(&database)?;
    match file.try_lock() {
        Ok(()) => {
            let note = format!(
                "{}, since {}",
                crate::process::applied_by(),
                chrono::Utc::now().format("%Y-%m-%d %H:%M:%S UTC")
            );
            // The note is for whoever waits; a file that this user may only read is locked all the same.
            let _ = file
                .set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(note.as_bytes()));
            Ok(Tried::Held(SqliteLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.read_to_string(&mut holder));
            Ok(Tried::Busy(match read {
                Ok(length) if length > 0 => holder,
                _ => format!("somebody who locked {}", path.display()),
            }))
        }
        Err(TryLockError::Error(source)) => Err(Error::File {
            path: path.display().to_string(),
            source,
        }),
    }
}
