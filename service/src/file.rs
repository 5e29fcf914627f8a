//! The files beside a SQLite database: whose they are, and what reading may leave there.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};
use sqlx::sqlite::SqliteConnectOptions;

use crate::error::{Error, Result};

/// The folders in which SQLite looks for room, in its order.
const ROOMS: [&str; 4] = ["/var/tmp", "/usr/tmp", "/tmp", "."];

/// A path with something behind its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Refuses what is there and is no plain file: a device would be read for ever, or for nothing.
pub(crate) fn check_kind(path: &Path, display: &str) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Error::NotADatabase {
            place: display.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether the database keeps a write-ahead log (bytes 18 and 19 of its header).
fn is_wal(path: &Path) -> bool {
    let mut header = [0u8; 20];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok()
        && header[18] == 2
}

/// How a file is opened for reading only. A log that nobody has open would be created by the reader, and then the gateway's
/// user could not write it; or it could not be created at all. Without a log the file itself is all there is.
pub(crate) fn to_read(options: SqliteConnectOptions) -> SqliteConnectOptions {
    let path = options.get_filename().to_path_buf();
    let logged = std::fs::metadata(beside(&path, "-wal")).is_ok_and(|meta| meta.len() > 0);
    let shared = beside(&path, "-shm").exists();
    if logged || shared || !is_wal(&path) {
        return options;
    }
    let me = rustix::process::geteuid();
    // The superuser's SQLite gives what it creates to the database's owner.
    let leaves_ours =
        !me.is_root() && std::fs::metadata(&path).is_ok_and(|meta| meta.uid() != me.as_raw());
    options.immutable(leaves_ours || !may_write(&folder(&path)))
}

/// Where there is no folder for temporary files, sorting happens in memory.
pub(crate) fn with_temporary_storage(options: SqliteConnectOptions) -> SqliteConnectOptions {
    let named = ["SQLITE_TMPDIR", "TMPDIR"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    let usual = ROOMS.into_iter().map(PathBuf::from);
    if named
        .chain(usual)
        .any(|room| room.is_dir() && may_write(&room))
    {
        return options;
    }
    options.pragma("temp_store", "MEMORY")
}

/// What to do about a file that cannot be opened, behind SQLite's own words.
pub(crate) fn advice(path: &Path, reason: String) -> String {
    let room = folder(path);
    if is_wal(path) && !may_write(&room) {
        return format!(
            "{reason}; its write-ahead log needs the folder {} to be writable: give this user that right, or read a copy",
            room.display()
        );
    }
    reason
}

/// The file whose lock is the database's: with the owner and mode of the database, so that it is in nobody's way who may
/// write that. It is never followed as a link, and never taken where somebody else's file has its name.
///
/// # Errors
/// [`Error::File`], and [`Error::Refused`] where the file is something else.
pub(crate) fn open_lock(database: &Path) -> Result<(File, PathBuf)> {
    let path = beside(database, ".lock");
    let failed = |source| Error::File {
        path: path.display().to_string(),
        source,
    };
    let open = |write: bool, create: bool| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .create_new(create)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
    };
    let model = std::fs::metadata(database).map_err(failed)?;
    // Somebody may create it between the looks, and an older one that only its owner may write can still be locked.
    let file = match open(true, true) {
        Ok(made) => {
            like(&made, &model).map_err(failed)?;
            return Ok((made, path));
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            open(true, false).or_else(|_| open(false, false))
        }
        Err(error) => Err(error),
    };
    let file = match file {
        Ok(file) => file,
        Err(error) if path.is_symlink() => {
            return Err(not_ours(&path, &format!("it is a link ({error})")));
        }
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(not_ours(&path, "it is no plain file"));
    }
    let mut text = String::new();
    (&file)
        .take(4096)
        .read_to_string(&mut text)
        .map_err(|_| not_ours(&path, "what is in it is not Tollgate's"))?;
    if !text.is_empty() && !text.contains("(pid ") {
        return Err(not_ours(&path, "what is in it is not Tollgate's"));
    }
    // One that an earlier release left is given to the database's owner, by whoever may do so.
    let _ = like(&file, &model);
    Ok((file, path))
}

fn not_ours(path: &Path, why: &str) -> Error {
    Error::refused(
        "lock_file",
        format!("{} is not Tollgate's lock file: {why}", path.display()),
        "move it away; nothing was changed",
    )
}

/// Gives a file the owner and mode of another.
fn like(file: &File, model: &Metadata) -> std::io::Result<()> {
    let meta = file.metadata()?;
    if (meta.uid(), meta.gid()) != (model.uid(), model.gid()) {
        // Only the superuser may; a group of its own may still be given.
        let _ = std::os::unix::fs::fchown(file, Some(model.uid()), Some(model.gid()));
    }
    let mode = model.permissions().mode() & 0o666;
    if meta.permissions().mode() & 0o777 != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
