//! `migrate prepare`: for gateways that migrate themselves. While every gateway is stopped it repairs the rows on which the
//! gateway's own migration would stop or lose something, and remembers what that migration cannot carry; `--finish`, after
//! the boot, puts back what was remembered.
//!
//! It changes rows only, and can be repeated.

pub(crate) mod clones;
pub(crate) mod remembered;

use std::collections::BTreeMap;

use chrono::Utc;
use sea_orm::ConnectionTrait;
use tollgate_migration::governance::BUDGETS;
use tollgate_migration::providers::coder;
use tollgate_migration::providers::{MODEL_CONFIGS, PROVIDERS, cutover, has_legacy};
use tollgate_migration::script::{CHANGED, create_list, note as note_rows};
use tollgate_migration::{
    Context, NameConflicts, OrphanedModels, SharedBudgets, Track, governance,
};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::{self, Samples, environment};
use crate::error::{Error, Result};
use crate::history::History;
use crate::lock::{Gateway, Lock};
use crate::report::{Change, Finding, Outcome, Report, Severity};
use crate::runner::target::gateway;
use crate::runner::{Session, context, idle, prove_writable};
use crate::shutdown::ShutdownSignal;

/// What the operator chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Put back what was remembered, behind the gateway's own migration.
    pub finish: bool,
    /// What happens to shared budgets.
    pub shared_budgets: SharedBudgets,
    /// What happens to AI providers that hold the name of a migrated one.
    pub name_conflicts: NameConflicts,
    /// What happens to active model configs without a provider.
    pub orphaned_models: OrphanedModels,
    /// Whether it is accepted that policy flags of chat providers go.
    pub accept_policy_change: bool,
}

/// Prepares, or finishes.
///
/// The outcome's error is [`Error::Usage`] where there is no ledger; [`Error::Refused`] where something is left that rows
/// cannot mend or a flag is missing for, and for `finish` before the ledger has moved; [`Error::Locked`].
pub async fn prepare(session: &Session, options: Options, stop: &ShutdownSignal) -> Outcome {
    let mut report = Report::default();
    let error = run(session, options, stop, &mut report).await.err();
    Outcome { report, error }
}

async fn run(
    session: &Session,
    options: Options,
    stop: &ShutdownSignal,
    report: &mut Report,
) -> Result<()> {
    let started = Utc::now();
    let connection = session.connect(Access::Write).await?;
    let tracks = session.tracks(&connection).await?;
    let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
    session.check_target(&names)?;
    let live = read(&connection).await?;
    let owned: Vec<Track> = names
        .iter()
        .copied()
        .filter(|track| live.ledger(*track).owns())
        .collect();
    if owned.is_empty() {
        return Err(Error::usage(
            format!(
                "{} has no ledger of a gateway: none will migrate it at boot",
                session.location.display
            ),
            "`tollgate migrate up` does the migration itself",
        ));
    }
    for &track in &owned {
        environment::refuse_hidden(&connection, track).await?;
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(session, connection, &owned, Gateway::Waits, stop).await?;
    let work = Work {
        session,
        connection: &connection,
        options,
    };
    let outcome = work.tracks(&owned, report).await;
    if !report.changes.is_empty() {
        let (kind, word) = (
            if options.finish {
                "migrate prepare --finish"
            } else {
                "migrate prepare"
            },
            if outcome.is_ok() { "done" } else { "refused" },
        );
        session
            .record_run(&connection, kind, started, word, report)
            .await;
    }
    lock.release().await;
    outcome
}

async fn read(connection: &Connection) -> Result<Context> {
    context(connection, &History::default()).await
}

struct Work<'a> {
    session: &'a Session,
    connection: &'a Connection,
    options: Options,
}

impl Work<'_> {
    async fn tracks(&self, tracks: &[Track], report: &mut Report) -> Result<()> {
        let mut gateways = Vec::new();
        let mut left = Vec::new();
        let mut states = BTreeMap::new();
        for &track in tracks {
            let mut history = History::read(self.connection, self.session.dialect(), track)
                .await
                .map_err(Error::database("read the history"))?;
            let mut live = context(self.connection, &history).await?;
            live.shared_budgets = self.options.shared_budgets;
            live.name_conflicts = self.options.name_conflicts;
            live.orphaned_models = self.options.orphaned_models;
            live.accept_policy_change = self.options.accept_policy_change;
            self.session.aim(track, &live, &mut history)?;
            gateways.extend(gateway(track, &live, &history));
            report.tracks.push(idle(track, &history));
            let mut refused = environment::ledger::blocking(track, &live);
            refused.retain(|found| found.code != "P013");
            if !refused.is_empty() {
                left.extend(refused);
                continue;
            }
            let state = if track == Track::GOVERNANCE && self.options.finish {
                self.finish_governance(&live, report, &mut left).await?
            } else if track == Track::GOVERNANCE {
                self.governance(&live, report, &mut left).await?
            } else if track == Track::PROVIDERS && self.options.finish {
                finish_providers(&live)?
            } else if track == Track::PROVIDERS {
                self.providers(&live, report, &mut left).await?
            } else {
                "nothing to prepare: the gateway's migration adds a column"
            };
            let is_left = left
                .iter()
                .any(|found| found.severity == Severity::Blocking);
            let state = if is_left {
                "not prepared: what the findings name is left"
            } else {
                state
            };
            states.insert(track.name(), state);
        }
        report.result = Some(serde_json::json!({
            "gateways": gateways, "state": states, "finish": self.options.finish,
        }));
        if left
            .iter()
            .any(|found| found.severity == Severity::Blocking)
        {
            return Err(Error::Refused {
                code: "not_prepared",
                message: format!(
                    "{} is left, and the gateway's own migration would stop on it or lose it",
                    codes(&left)
                ),
                hint: "resolve what the findings name, then run the command again; the gateway has not been touched".to_owned(),
                findings: left,
            });
        }
        report.findings.extend(left);
        Ok(())
    }

    /// Budgets that are shared get copies; flags without a place in the next schema are remembered.
    async fn governance(
        &self,
        live: &Context,
        report: &mut Report,
        left: &mut Vec<Finding>,
    ) -> Result<&'static str> {
        if !clones::is_legacy(live) {
            return Ok(
                "the gateway has done its migration; `--finish` puts back what was remembered",
            );
        }
        let mut stops = environment::lost_parents(Track::GOVERNANCE, &live.catalog);
        stops.extend(
            doctor::examine_only(
                self.connection,
                live,
                Track::GOVERNANCE,
                &["G015", "G018", "G022"],
                Samples::default(),
            )
            .await?,
        );
        left.extend(stops.into_iter().map(|found| Finding {
            severity: Severity::Blocking,
            ..found
        }));
        if !left.is_empty() {
            return Ok("something is left that rows cannot mend");
        }
        if self.options.shared_budgets == SharedBudgets::Clone {
            let made = clones::make(self.connection, live)
                .await
                .map_err(Error::database("copy shared budgets"))?;
            if !made.copies.is_empty() {
                report.findings.push(note(
                    BUDGETS,
                    made.originals.clone(),
                    "budgets that were shared have copies now",
                    "a config file that still names a budget of theirs for another owner would share it again at the next boot",
                    "give each owner in the file a budget of its own, or leave its budget out",
                ));
            }
            changed(report, "clone", made.copies);
            changed(report, "raise", made.raised);
        }
        let shared = clones::shared(live);
        if let Some(sql) = shared {
            let (rows, ids) = self.ids(live, &sql).await?;
            if rows > 0 {
                let mut found = doctor::schema_finding("G001", BUDGETS, "");
                found.rows = rows;
                found.sample_ids = ids;
                left.push(found);
            }
        }
        let noted = remembered::note(self.connection, live)
            .await
            .map_err(Error::database("remember calendar flags"))?;
        changed(report, "remember flag", noted);
        Ok("prepared: start the new gateway, then run `tollgate migrate prepare --finish`")
    }

    async fn finish_governance(
        &self,
        live: &Context,
        report: &mut Report,
        left: &mut Vec<Finding>,
    ) -> Result<&'static str> {
        if clones::is_legacy(live) {
            return Err(not_moved(Track::GOVERNANCE));
        }
        let finished = remembered::finish(self.connection, live)
            .await
            .map_err(Error::database("put back calendar flags"))?;
        report.changes.extend(finished.changes);
        left.extend(finished.without_a_place);
        if report.changes.is_empty() {
            Ok("nothing was left to put back")
        } else {
            report.findings.push(note(
                governance::VIRTUAL_KEYS,
                Vec::new(),
                "a gateway that runs does not see the flags yet",
                "it reads them when it starts",
                "restart it",
            ));
            Ok("put back")
        }
    }

    /// What stops Coder's cutover, as far as rows can mend it.
    async fn providers(
        &self,
        live: &Context,
        report: &mut Report,
        left: &mut Vec<Finding>,
    ) -> Result<&'static str> {
        if !has_legacy(&live.catalog) {
            return Ok("the cutover is done; there is nothing to prepare");
        }
        let dialect = live.catalog.dialect;
        let has_providers = live.catalog.has_table(PROVIDERS);
        if self.options.orphaned_models == OrphanedModels::Retire
            && let Some(retire) = cutover::retire_lonely(&live.catalog)
        {
            let mut statements = Vec::new();
            if !live.catalog.has_table(CHANGED) {
                statements.push(create_list());
            }
            for (list, rows) in cutover::noted(&live.catalog, cutover::PREPARED) {
                statements.push(note_rows(dialect, list, &rows));
            }
            statements.push(retire);
            self.write(
                live,
                cutover::without_provider(&live.catalog),
                &statements,
                MODEL_CONFIGS,
                "retire",
                report,
            )
            .await?;
        }
        if self.options.name_conflicts == NameConflicts::Retire && has_providers {
            self.write(
                live,
                Some(cutover::name_holders(dialect)),
                &[cutover::retire(dialect)],
                PROVIDERS,
                "retire",
                report,
            )
            .await?;
        }
        let mut asked = vec!["P001", "P003", "P004", "P005", "P011"];
        if has_providers {
            asked.push("P002");
        }
        let found = doctor::examine_only(
            self.connection,
            live,
            Track::PROVIDERS,
            &asked,
            Samples::default(),
        )
        .await?;
        left.extend(found);
        let number = live.ledger(Track::PROVIDERS).number().unwrap_or_default();
        Ok(if number < coder::BEFORE {
            "prepared: the gateway's next boot does the cutover"
        } else {
            "prepared: the gateway's next boot does the cutover, or `tollgate migrate up` does"
        })
    }

    async fn ids(&self, live: &Context, sql: &str) -> Result<(u64, Vec<String>)> {
        doctor::ids(self.connection, live, sql, Samples::default())
            .await
            .map_err(Error::database("look for what is left"))
    }

    /// Runs statements over the rows that a query names, in one transaction. The last one changes them.
    async fn write(
        &self,
        live: &Context,
        due: Option<String>,
        statements: &[String],
        table: &str,
        action: &str,
        report: &mut Report,
    ) -> Result<()> {
        let Some(due) = due else { return Ok(()) };
        let (rows, ids) = self.ids(live, &due).await?;
        if rows == 0 {
            return Ok(());
        }
        let failed = || Error::database(format!("{action} rows of {table}"));
        let transaction = self.connection.begin().await.map_err(failed())?;
        let mut written = 0;
        for statement in statements {
            written = transaction
                .execute_unprepared(statement)
                .await
                .map_err(failed())?
                .rows_affected();
        }
        transaction.commit().await.map_err(failed())?;
        report.changes.push(Change {
            table: table.to_owned(),
            action: action.to_owned(),
            rows: written,
            sample_ids: ids,
        });
        Ok(())
    }
}

fn finish_providers(live: &Context) -> Result<&'static str> {
    match live.ledger(Track::PROVIDERS).number() {
        Some(number) if number < coder::FINISHED => Err(not_moved(Track::PROVIDERS)),
        _ => Ok("nothing was remembered: the cutover carries every row"),
    }
}

fn not_moved(track: Track) -> Error {
    Error::refused(
        "not_moved",
        format!(
            "{} has not done its migration yet: its ledger is where it was",
            track.gateway()
        ),
        "start the new gateway first; nothing was changed",
    )
}

fn codes(left: &[Finding]) -> String {
    let mut codes: Vec<&str> = left
        .iter()
        .filter(|found| found.severity == Severity::Blocking)
        .map(|found| found.code.as_str())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(", ")
}

fn changed(report: &mut Report, action: &str, ids: Vec<String>) {
    if !ids.is_empty() {
        report.changes.push(Change {
            table: BUDGETS.to_owned(),
            action: action.to_owned(),
            rows: ids.len() as u64,
            sample_ids: ids.into_iter().take(10).collect(),
        });
    }
}

fn note(table: &str, ids: Vec<String>, title: &str, effect: &str, resolve: &str) -> Finding {
    Finding {
        code: "prepare".to_owned(),
        severity: Severity::Info,
        title: title.to_owned(),
        table: table.to_owned(),
        column: None,
        rows: ids.len() as u64,
        sample_ids: ids.into_iter().take(10).collect(),
        effect: effect.to_owned(),
        resolve: resolve.to_owned(),
    }
}
