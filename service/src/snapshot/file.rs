//! The file between before and after: versioned JSON of a size that does not depend on the rows.
//!
//! Values stand in it only as digests under the file's own random salt; ids of rows stand in it, names of columns and
//! tables, counts, and the sums of amounts.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tollgate_migration::Track;
use tollgate_migration::schema::Schema;

use super::scan::Walked;
use super::sketch::{Presence, Salted, Sketch};
use crate::error::{Error, Result};

/// What the file says it is.
const FORMAT: &str = "tollgate-snapshot";
/// The version of the format that this build writes. It reads those before: version 1 hashed with SHA-256.
const VERSION: u32 = 2;

/// A database as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub format: String,
    pub version: u32,
    pub tool_version: String,
    pub taken_at: String,
    /// The address without its password.
    pub database: String,
    pub backend: String,
    /// Base64 of random bytes.
    pub salt: String,
    pub tracks: Vec<TrackSnapshot>,
}

/// One track of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrackSnapshot {
    pub track: Track,
    /// The last migration that was applied, or that the database was recognised as.
    pub at: Option<String>,
    /// The canonical schema of the track's tables.
    pub schema: Schema,
    /// Invariants that were broken already: how many rows, by code, table and column.
    pub broken: Vec<Broken>,
    pub tables: BTreeMap<String, Section>,
    pub facts: BTreeMap<String, Section>,
    /// Copies of shared budgets that were there already.
    pub copies: u64,
    /// What the gateway had recorded of its own migrations; absent where there was no ledger, and in files of 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Vec<String>>,
}

/// An invariant that was broken already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Broken {
    pub code: String,
    pub table: String,
    pub column: Option<String>,
    pub rows: u64,
}

/// The rows of a table, or a fact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub rows: u64,
    pub digest: String,
    pub presence: String,
    pub columns: BTreeMap<String, ColumnDigest>,
    pub sums: BTreeMap<String, String>,
}

/// The values of a column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ColumnDigest {
    pub digest: String,
    pub sketch: String,
}

impl Snapshot {
    pub(crate) fn new(database: &str, backend: &str, taken_at: String, salt: &[u8]) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at,
            database: database.to_owned(),
            backend: backend.to_owned(),
            salt: STANDARD.encode(salt),
            tracks: Vec::new(),
        }
    }

    fn salt(&self) -> Result<Vec<u8>> {
        STANDARD
            .decode(&self.salt)
            .ok()
            .filter(|salt| salt.len() >= 16)
            .ok_or_else(|| rejected("its salt is damaged"))
    }

    /// The hashes of the file.
    ///
    /// # Errors
    /// [`Error::Rejected`] where its salt is damaged.
    pub(crate) fn salted(&self) -> Result<Salted> {
        let salt = self.salt()?;
        Ok(match self.version {
            1 => Salted::of_version_1(&salt),
            _ => Salted::new(&salt),
        })
    }

    /// Writes the file again; an old one of that name is replaced only when the new one is whole.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let failed = |source| Error::File {
            path: path.display().to_string(),
            source,
        };
        let json = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            // A device or a pipe is written to; a new file in its place would be nobody's.
            return std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|mut device| device.write_all(&json))
                .map_err(failed);
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::PathBuf::from(partial);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .map_err(failed)?;
        let written = file
            .write_all(&json)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&partial, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written.map_err(failed)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Rejected`] for what is no snapshot of this version.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let bytes = std::fs::read(path).map_err(|source| Error::File {
            path: path.display().to_string(),
            source,
        })?;
        // An editor may have put a byte order mark in front.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let head: Head = serde_json::from_slice(bytes)
            .map_err(|_| rejected(&format!("{} is no snapshot", path.display())))?;
        if head.format != FORMAT || !(1..=VERSION).contains(&head.version) {
            return Err(rejected(&format!(
                "{} is {} version {}; this tollgate reads {FORMAT} up to version {VERSION}",
                path.display(),
                head.format,
                head.version
            )));
        }
        serde_json::from_slice(bytes)
            .map_err(|error| rejected(&format!("{} is damaged: {error}", path.display())))
    }
}

fn rejected(what: &str) -> Error {
    Error::Rejected {
        what: what.to_owned(),
    }
}

impl Section {
    pub(crate) fn of(walked: &Walked) -> Self {
        Self {
            rows: walked.rows,
            digest: walked.presence.digest(),
            presence: STANDARD.encode(walked.presence.bytes()),
            columns: walked
                .columns
                .iter()
                .map(|(name, sketch)| {
                    let column = ColumnDigest {
                        digest: sketch.digest(),
                        sketch: STANDARD.encode(sketch.bytes()),
                    };
                    (name.clone(), column)
                })
                .collect(),
            sums: walked.sums.clone(),
        }
    }

    pub(crate) fn presence(&self) -> Result<Presence> {
        STANDARD
            .decode(&self.presence)
            .ok()
            .and_then(|bytes| Presence::from_bytes(&bytes))
            .ok_or_else(|| rejected("a digest of the snapshot is damaged"))
    }
}

impl ColumnDigest {
    pub(crate) fn sketch(&self) -> Result<Sketch> {
        STANDARD
            .decode(&self.sketch)
            .ok()
            .and_then(|bytes| Sketch::from_bytes(&bytes))
            .ok_or_else(|| rejected("a digest of the snapshot is damaged"))
    }
}
