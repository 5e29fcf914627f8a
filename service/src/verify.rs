//! `verify`: what must hold of a database, and with a snapshot, that nothing of what it held was lost.

pub(crate) mod explained;
pub(crate) mod invariants;
mod preservation;

use std::path::Path;

use crate::database::Access;
use crate::doctor::environment;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::report::result::{Compared, VerifyResult};
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::{Session, idle};
use crate::runs;
use crate::shutdown::ShutdownSignal;
use crate::snapshot::file::Snapshot;
use crate::snapshot::{live, view};
use crate::tracks;

/// Something that must hold.
pub struct Invariant {
    /// The code of a finding that it does not.
    pub code: &'static str,
    /// What is wrong then, as one line.
    pub title: &'static str,
    /// What comes of it.
    pub effect: &'static str,
    /// What to do.
    pub resolve: &'static str,
}

pub(crate) const RESTORE: &str = "compare with the backup, and correct the rows or restore it";

/// What must hold of every track; a track's own are its module's.
const INVARIANTS: &[Invariant] = &[
    Invariant {
        code: "V001",
        title: "the schema is not what the applied migrations make",
        effect: "what relies on it fails or is not enforced",
        resolve: "undo the change by hand; `tollgate schema diff` lists all of them",
    },
    Invariant {
        code: "V002",
        title: "an index is INVALID",
        effect: "it is kept up to date and never used, and a unique one may hold duplicates",
        resolve: "drop it, and build it again with CREATE INDEX CONCURRENTLY",
    },
    Invariant {
        code: "V003",
        title: "a constraint is NOT VALID",
        effect: "rows from before it may break it",
        resolve: "ALTER TABLE … VALIDATE CONSTRAINT …",
    },
    Invariant {
        code: "V004",
        title: "a row violates its foreign key",
        effect: "the row refers to one that is not there; its next write fails",
        resolve: "create the parent, or delete the row",
    },
    Invariant {
        code: "V006",
        title: "a row's parent is not there",
        effect: "nothing reaches the row, and no foreign key keeps it from piling up",
        resolve: "create the parent, or delete the row",
    },
    Invariant {
        code: "V007",
        title: "a legacy column or table is still there",
        effect: "old code would write to what nothing reads",
        resolve: "drop it, or find out which program created it again",
    },
    Invariant {
        code: "V101",
        title: "something of the schema that the snapshot has is gone or changed",
        effect: "it was there before and no migration removes it",
        resolve: "create it again",
    },
    Invariant {
        code: "V102",
        title: "rows of the snapshot are gone",
        effect: "no migration deletes them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V103",
        title: "there are rows that the snapshot has not",
        effect: "no migration inserts them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V104",
        title: "values differ from the snapshot",
        effect: "no migration changes them",
        resolve: RESTORE,
    },
    Invariant {
        code: "V105",
        title: "what the snapshot says has lost its place",
        effect: "it should have exactly one in the new schema",
        resolve: RESTORE,
    },
    Invariant {
        code: "V106",
        title: "something holds now that the snapshot does not say",
        effect: "no migration makes it true",
        resolve: RESTORE,
    },
];

/// A broken invariant.
pub(crate) fn finding(
    code: &str,
    table: &str,
    column: Option<&str>,
    rows: u64,
    sample_ids: Vec<String>,
) -> Finding {
    let of_tracks = tracks::all().iter().flat_map(|module| module.codes);
    let invariant = INVARIANTS
        .iter()
        .chain(of_tracks)
        .find(|invariant| invariant.code == code);
    let text =
        |pick: fn(&Invariant) -> &'static str| invariant.map(pick).unwrap_or_default().to_owned();
    Finding {
        code: code.to_owned(),
        severity: Severity::Blocking,
        title: text(|invariant| invariant.title),
        table: table.to_owned(),
        column: column.map(str::to_owned),
        rows,
        sample_ids,
        effect: text(|invariant| invariant.effect),
        resolve: text(|invariant| invariant.resolve),
    }
}

/// Verifies every track, read-only; with a snapshot every track of it too.
///
/// # Errors
/// [`Error::Refused`] with the findings where something is broken or lost; [`Error::Rejected`] for a file that is no
/// snapshot of this version or of another backend; what connecting and reading may answer.
pub async fn verify(
    session: &Session,
    snapshot: Option<&Path>,
    observer: &dyn Observer,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let taken = snapshot.map(Snapshot::read).transpose()?;
    if let Some(taken) = &taken
        && taken.backend != session.dialect().name()
    {
        return Err(Error::Rejected {
            what: format!(
                "the snapshot is of a {} database, and this is {}",
                taken.backend,
                session.dialect().name()
            ),
        });
    }
    let connection = session.connect(Access::Read).await?;
    view(&connection, session.dialect()).await?;
    let mut report = Report::default();
    let mut compared = Vec::new();
    let mut tracks = session.tracks(&connection).await?;
    if let Some(taken) = &taken {
        // A track that is gone altogether is the greatest loss of all.
        for part in &taken.tracks {
            if session.tracks.is_empty() && !tracks.iter().any(|(track, _)| *track == part.track) {
                tracks.push((part.track, false));
            }
        }
    }
    for (track, exists) in tracks {
        stop.check()?;
        environment::refuse_hidden(&connection, track).await?;
        let (live, history) = live(session, &connection, track, exists).await?;
        let before = taken
            .as_ref()
            .and_then(|taken| taken.tracks.iter().find(|part| part.track == track));
        let past: Vec<Finding> = environment::ledger::examine(track, &live)
            .into_iter()
            .filter(|finding| finding.code == "G016")
            .collect();
        if !past.is_empty() {
            // Nothing of what is there now can be held against what is known.
            report.findings.extend(past);
            report.tracks.push(idle(track, &history));
            continue;
        }
        let mut found = invariants::examine(&connection, track, &live, &history).await?;
        if let (Some(taken), Some(before)) = (&taken, before) {
            for finding in &mut found {
                let was = before.broken.iter().find(|broken| {
                    broken.code == finding.code
                        && broken.table == finding.table
                        && broken.column == finding.column
                });
                if was.is_some_and(|was| finding.rows <= was.rows) {
                    finding.severity = Severity::Info;
                    finding.effect = format!("{}; it was so in the snapshot", finding.effect);
                }
            }
            let salt = taken.salt()?;
            let undone = match crate::instant::parse(&taken.taken_at) {
                Some(at) => runs::any_since(&connection, session.dialect(), "migrate down", at)
                    .await
                    .map_err(Error::database(format!("read {}", runs::TABLE)))?,
                None => false,
            };
            let (mut lost, sections) = preservation::examine(
                &connection,
                &preservation::Comparison {
                    before,
                    live: &live,
                    history: &history,
                    salt: &salt,
                    undone,
                    observer,
                    stop,
                },
                &found,
            )
            .await?;
            if let Some(then) = &before.ledger {
                let gained = explained::gained(then, live.ledger(track));
                explained::explain(&connection, track, &live, &gained, &mut lost).await?;
            }
            found.extend(lost);
            compared.extend(sections);
        }
        report.findings.extend(found);
        report.tracks.push(idle(track, &history));
    }
    report.result = Some(CommandResult::Verified(VerifyResult {
        snapshot: snapshot.map(|path| path.display().to_string()),
        taken_at: taken.as_ref().map(|taken| taken.taken_at.clone()),
        compared,
    }));
    Ok(report)
}

/// The refusal where anything is broken or lost.
pub fn failure(report: &Report) -> Option<Error> {
    report.is_blocked().then(|| {
        let mut codes: Vec<&str> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Blocking)
            .map(|finding| finding.code.as_str())
            .collect();
        codes.sort_unstable();
        codes.dedup();
        Error::Refused {
            code: "verify_failed",
            message: format!("the database is not as it should be: {}", codes.join(", ")),
            hint: "the findings name table, column and rows; nothing was changed".to_owned(),
            findings: Vec::new(),
        }
    })
}
