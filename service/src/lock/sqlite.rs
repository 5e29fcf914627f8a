//! A lock on a file beside the database. It is opened only after the database proved writable, so that a look at
//! somebody else's file leaves nothing behind, and never deleted: deleting would let two runs lock two files.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::{Lock, Try};
use crate::database::{Location, canonical};
use crate::error::{Error, Result};

/// A held lock.
pub(crate) struct SqliteLock {
    _file: File,
}

fn path(location: &Location) -> PathBuf {
    let mut path = location
        .file()
        .map(|path| canonical(&path).into_os_string())
        .unwrap_or_default();
    path.push(".lock");
    PathBuf::from(path)
}

/// SQLite has one writer at a time, so one lock serves every track.
pub(super) fn try_lock(location: &Location) -> Result<Try> {
    let path = path(location);
    let failed = |source| Error::File {
        path: path.display().to_string(),
        source,
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let note = format!(
                "{}, since {}",
                crate::runs::applied_by(),
                chrono::Utc::now().format("%Y-%m-%d %H:%M:%S UTC")
            );
            file.set_len(0)
                .and_then(|()| file.write_all(note.as_bytes()))
                .map_err(failed)?;
            Ok(Try::Held(Lock::Sqlite(SqliteLock { _file: file })))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let read = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.read_to_string(&mut holder));
            Ok(Try::Busy(match read {
                Ok(length) if length > 0 => holder,
                _ => format!("somebody who locked {}", path.display()),
            }))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
