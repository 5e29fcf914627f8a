//! `reconcile config`: the governance section of a config file and the rows agree (`docs/upstream/bifrost.md` §3.5, §5).
//!
//! Reads and closes customers, teams, virtual keys, provider configs, budgets and rate limits. Never touches usage and
//! last resets of what is there, MCP grants, `config_hash`, nor what the file does not speak
//! of. The entries go into the database in bulk, and what differs is found there: one set of statements, however long the
//! file is. Everything is one transaction.
//!
//! Tollgate remembers a hash of each entry that it applied. An entry that has not changed since never overrides an edit
//! that was made elsewhere.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps its keys and usage in memory.

mod actions;
mod assignments;
mod batch;
mod entry;
mod entry_writer;
mod fields;
mod file;
mod staging;
mod summary;
mod validation;
mod variables;
mod write;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::PathBuf;

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Context, Dialect, Track};

use self::batch::Batch;
use self::entry_writer::{EntryWriter, Notes};
use self::file::Problem;
use self::staging::{APPLIED, Staging};
pub use variables::Variables;

use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::reconcile::{Options, Routine, change_limit, run};
use crate::report::{Outcome, Report};
use crate::retry::{self, Turns, backoff};
use crate::runner::Session;
use crate::secret;
use crate::shutdown::ShutdownSignal;
use crate::tracks::governance::budget::schema::Schema;
use crate::tracks::governance::shape;

/// Batches that may wait for the database.
const AHEAD: usize = 1;
/// Problems that are named.
const MOST: usize = 5;

/// Which file, and how it is applied.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// What messages call it: its path, or where it came from.
    pub name: String,
    /// Virtual keys that the file lacks, and provider configs that it lacks of a key, are deleted.
    pub prune: bool,
    /// The file wins over edits made elsewhere, of entries that have not changed too.
    pub force: bool,
    /// Goes on where the file limits somebody in a way that is not written here.
    pub allow_unread: bool,
    /// Where `env.NAME` is looked up.
    pub variables: Variables,
}

struct Config<'a> {
    file: &'a ConfigFile,
    options: Options,
    now: DateTime<Utc>,
    stop: &'a ShutdownSignal,
}

fn db_context(name: &str) -> impl FnOnce(DbErr) -> Error {
    Error::database(format!("apply {name}"))
}

impl Config<'_> {
    fn db_context(&self) -> impl FnOnce(DbErr) -> Error {
        db_context(&self.file.name)
    }

    fn rejected(&self, problems: &[Problem], number: usize) -> Error {
        let named: Vec<String> = problems
            .iter()
            .take(MOST)
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        let more = number.saturating_sub(named.len());
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        Error::Rejected {
            what: secret::shortened(&format!("{}: {}{more}", self.file.name, named.join("; "))),
        }
    }

    /// The catalog, of a schema that this routine can work on.
    async fn catalog(&self, connection: &Connection) -> Result<Catalog> {
        let catalog = Context::read(connection)
            .await
            .map_err(self.db_context())?
            .catalog;
        if let Some(what) = write::stands_in_the_way(&catalog) {
            return Err(Error::MissingSchema { what });
        }
        if shape::has_budgets_of_model_configs(|table, column| catalog.has_column(table, column)) {
            return Err(shape::not_yet(
                "applying a config file",
                (BUDGETS, "model_config_id"),
                "and a budget of the file would stand beside the one that is in force",
            ));
        }
        for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS] {
            if catalog.has_column(table, "budget_id") {
                return Err(Error::refused(
                    "not_contracted",
                    format!(
                        "{table}.budget_id is still there: the move of budgets to their owners is not finished"
                    ),
                    "run `tollgate migrate up` first; nothing was changed",
                ));
            }
        }
        Ok(catalog)
    }

    /// Loads the file, and says what is to be done.
    async fn stage<C: ConnectionTrait>(
        &self,
        staging: &Staging<'_, C>,
        report: &mut Report,
    ) -> Result<()> {
        staging.prepare().await.map_err(self.db_context())?;
        let notes = self.load(staging).await?;
        self.stop.check()?;
        let applied = staging.catalog.has_table(APPLIED);
        staging
            .resolve(applied, self.file.force)
            .await
            .map_err(self.db_context())?;
        staging
            .decide(self.file.prune, notes.virtual_keys)
            .await
            .map_err(self.db_context())?;
        let (problems, number) = staging
            .validate(notes.allow_unread)
            .await
            .map_err(self.db_context())?;
        if !problems.is_empty() {
            return Err(self.rejected(&problems, number));
        }
        if let Some((path, number)) = staging
            .new_keys_among_encrypted()
            .await
            .map_err(self.db_context())?
        {
            return Err(Error::refused(
                "encrypted",
                format!(
                    "{}: {path}: the database encrypts its virtual keys, and {number} of the file are new",
                    self.file.name
                ),
                "create them in the gateway, which holds the encryption key; nothing was changed",
            ));
        }
        self.stop.check()?;
        staging
            .summarize(&notes, report)
            .await
            .map_err(self.db_context())
    }

    /// The file is read beside the database: one reads ahead while the other stores.
    async fn load<C: ConnectionTrait>(&self, staging: &Staging<'_, C>) -> Result<Notes> {
        let path = self.file.path.clone();
        let failed = |source| Error::File {
            path: self.file.name.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(failed)?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(failed(std::io::ErrorKind::IsADirectory.into()));
        }
        let (sender, mut batches) = tokio::sync::mpsc::channel::<Batch>(AHEAD);
        let (now, allow_unread, form) = (self.now, self.file.allow_unread, staging.form());
        let variables = self.file.variables.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let env = |name: &str| variables.get(name);
            let mut reader = BufReader::with_capacity(1 << 20, &file);
            skip_mark(&mut reader);
            let head = file::Head::read(reader).map_err(|problem| (vec![problem], 1))?;
            file.rewind().map_err(unreadable)?;
            let mut writer = EntryWriter::new(now, &env, head, form, allow_unread, |batch| {
                // Nobody takes it any more where the database has failed, which is named there.
                let _ = sender.blocking_send(batch);
            });
            let mut reader = BufReader::with_capacity(1 << 20, file);
            skip_mark(&mut reader);
            file::read(reader, &mut writer).map_err(|problem| (vec![problem], 1))?;
            writer.finish().map_err(|(problems, more)| {
                let number = problems.len() + more;
                (problems, number)
            })
        });
        staging
            .load_all(&mut batches)
            .await
            .map_err(self.db_context())?;
        match reading.await {
            Ok(Ok(notes)) => Ok(notes),
            Ok(Err((problems, number))) => Err(self.rejected(&problems, number)),
            Err(error) => Err(failed(std::io::Error::other(error))),
        }
    }

    async fn transaction(&self, connection: &Connection, catalog: &Catalog) -> Result<Report> {
        let schema = Schema::load(connection, catalog.dialect)
            .await
            .map_err(self.db_context())?;
        let transaction = retry::begin(connection).await.map_err(self.db_context())?;
        let mut report = Report::default();
        let staging = Staging {
            connection: &transaction,
            stream: Some(&transaction).filter(|begun| begun.streams()),
            catalog,
        };
        self.stage(&staging, &mut report).await?;
        change_limit(self.options, &report)?;
        let done = staging
            .write(&schema, self.now)
            .await
            .map_err(self.db_context())?;
        transaction.commit().await.map_err(self.db_context())?;
        for (kind, rows) in done {
            let table = fields::resource(kind).table;
            for change in &mut report.changes {
                if change.table == table && change.action == "update" {
                    change.rows = rows;
                }
            }
        }
        report.changes.retain(|change| change.rows > 0);
        Ok(report)
    }
}

/// A file whose beginning cannot be found again.
fn unreadable(error: std::io::Error) -> (Vec<Problem>, usize) {
    let problem = Problem {
        path: "$".to_owned(),
        message: error.to_string(),
    };
    (vec![problem], 1)
}

/// Passes over a byte order mark, which editors put before a text and no JSON has.
fn skip_mark(reader: &mut impl BufRead) {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    // What cannot be read here cannot be read behind either, and is named there.
    if reader
        .fill_buf()
        .is_ok_and(|beginning| beginning.starts_with(MARK))
    {
        reader.consume(MARK.len());
    }
}

impl Routine for Config<'_> {
    fn name(&self) -> &'static str {
        "config"
    }

    fn track(&self) -> Track {
        Track::GOVERNANCE
    }

    fn holds_limit(&self) -> bool {
        true
    }

    fn access_to_plan(&self, dialect: Dialect) -> Access {
        match dialect {
            // The file's entries go into temporary tables, which a read-only transaction cannot make.
            Dialect::Postgres => Access::Write,
            Dialect::Sqlite => Access::Read,
        }
    }

    async fn plan(&self, connection: &Connection) -> Result<Report> {
        let catalog = &self.catalog(connection).await?;
        let mut report = Report::default();
        if catalog.dialect == Dialect::Postgres {
            let transaction = connection.begin().await.map_err(self.db_context())?;
            let staging = Staging {
                connection: &transaction,
                stream: Some(&transaction).filter(|begun| begun.streams()),
                catalog,
            };
            self.stage(&staging, &mut report).await?;
            transaction.rollback().await.map_err(self.db_context())?;
            return Ok(report);
        }
        // Temporary tables are in a database of their own, which a file that is opened read-only has too.
        let staging = Staging {
            connection,
            stream: None,
            catalog,
        };
        self.stage(&staging, &mut report).await?;
        staging.forget().await.map_err(self.db_context())?;
        Ok(report)
    }

    async fn apply(&self, connection: &Connection, report: &mut Report) -> Result<()> {
        let catalog = self.catalog(connection).await?;
        let turns = Turns::of(connection);
        *report = (|| self.transaction(connection, &catalog))
            .retry(backoff())
            .when(|error: &Error| matches!(error, Error::Database { source, .. } if turns.again(source)))
            .await?;
        Ok(())
    }
}

/// Runs the routine. The outcome's error is [`Error::Rejected`] where the file is not what it should be, with the path in
/// it; [`Error::NotFound`] where budgets have no owners here; [`Error::Refused`] where a new key would have to be
/// encrypted, or when the change limit holds. Nothing was changed then.
pub async fn config(
    session: &Session,
    file: &ConfigFile,
    options: Options,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Outcome {
    run(
        session,
        options,
        now,
        stop,
        &Config {
            file,
            options,
            now,
            stop,
        },
    )
    .await
}
