//! `tollgate demo`: the main job on a made-up database, on one screen.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use tollgate_service::governance::credentials::{Scope, credentials};
use tollgate_service::governance::seed as governance;
use tollgate_service::governance::survey::{Survey, survey};
use tollgate_service::reconcile::Options;
use tollgate_service::runner::status::status;
use tollgate_service::runner::{Session, up};
use tollgate_service::seed;
use tollgate_service::{
    Choices, CommandResult, Error, Outcome, Report, Result, SHARED_BUDGETS, ShutdownSignal, Silent,
    doctor, snapshot, verify,
};

use crate::arguments::{Arguments, Demo};
use crate::output::{Answer, View, gateways};
use crate::progress::Progress;

pub(super) async fn run(arguments: &Arguments, options: &Demo, stop: &ShutdownSignal) -> Answer {
    let name = arguments.command.name();
    match folder(options.keep) {
        Ok((folder, _guard)) => match show(arguments, options, &folder, stop).await {
            Ok((text, report)) => Answer::new(name, Outcome::from(report), View::Plain(text)),
            Err(error) => Answer::failed(name, error),
        },
        Err(source) => Answer::failed(
            name,
            Error::File {
                path: std::env::temp_dir().display().to_string(),
                source,
            },
        ),
    }
}

/// A temporary folder, and the guard that removes it unless it is to be kept.
fn folder(keep: bool) -> std::io::Result<(std::path::PathBuf, Option<tempfile::TempDir>)> {
    let folder = tempfile::Builder::new()
        .prefix("tollgate-demo-")
        .tempdir()?;
    if keep {
        Ok((folder.keep(), None))
    } else {
        Ok((folder.path().to_path_buf(), Some(folder)))
    }
}

/// A database of the demo, and the screen that it fills.
struct Stage<'a> {
    session: Session,
    options: &'a Demo,
    folder: &'a Path,
    stop: &'a ShutdownSignal,
    out: String,
}

async fn show(
    arguments: &Arguments,
    options: &Demo,
    folder: &Path,
    stop: &ShutdownSignal,
) -> Result<(String, Report)> {
    let file = folder.join("gateway.db");
    let mut session: Session = format!("sqlite://{}", file.display()).parse()?;
    session.connect_timeout = Duration::from_secs(arguments.connect_timeout);
    let mut stage = Stage {
        session,
        options,
        folder,
        stop,
        out: String::new(),
    };
    let before = stage.plant().await?;
    stage.examine().await?;
    let mut report = stage.migrate(arguments).await?;
    let after = stage.compare_with(&before, &report).await?;
    stage.verify().await?;
    stage.boot_and_reconcile().await?;
    stage.say_what_is_next(&file);
    report.result = Some(CommandResult::answer(
        serde_json::json!({ "before": before, "after": after }),
    ));
    Ok((stage.out, report))
}

impl Stage<'_> {
    fn say(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn snapshot_file(&self) -> PathBuf {
        self.folder.join("before.json")
    }

    /// Makes the database up, and takes a snapshot of it.
    async fn plant(&mut self) -> Result<Survey> {
        let started = Instant::now();
        let mut wanted = seed::Options::of(&governance::LEGACY, self.options.virtual_keys);
        wanted.hazards.push("all".to_owned());
        seed::seed(&self.session, &wanted).await?;
        let before = survey(&self.session).await?;
        self.say(&format!(
            "A database of Bifrost 1.4.24, from before multi-budget, with a hazard of every kind: {} virtual keys,\n\
             {} provider configs, {} budgets ({} ms)\n",
            before.virtual_keys,
            before.provider_configs,
            before.budgets,
            started.elapsed().as_millis()
        ));
        let now = chrono::Utc::now();
        snapshot::snapshot(
            &self.session,
            &self.snapshot_file(),
            now,
            &Silent,
            self.stop,
        )
        .await?;
        self.say("$ tollgate snapshot -o before.json\n");
        Ok(before)
    }

    async fn examine(&mut self) -> Result<()> {
        self.say("$ tollgate doctor");
        let findings = match doctor::doctor(&self.session, &doctor::Options::default()).await {
            Ok(report) => report.findings,
            Err(error) => error.findings().to_vec(),
        };
        for finding in &findings {
            self.say(&format!(
                "  {:<8} {}  {:>4} {}",
                format!("{:?}", finding.severity).to_lowercase(),
                finding.code,
                finding.rows,
                finding.title
            ));
        }
        Ok(())
    }

    /// Is refused, chooses, and migrates.
    async fn migrate(&mut self, arguments: &Arguments) -> Result<Report> {
        self.say("\n$ tollgate migrate up --adopt");
        let progress = Progress::new(arguments);
        let mut choice = up::Options::default();
        choice.adopt = true;
        let refused = up::up(&self.session, &choice, &progress, self.stop).await;
        let Some(refusal) = refused.error else {
            return Err(differs("a shared budget was migrated without a word"));
        };
        self.say(&format!(
            "  exit {}: {refusal}; nothing was changed",
            refusal.exit_code()
        ));
        self.say("\n$ tollgate migrate up --adopt --shared-budgets clone");
        choice.choices = Choices::none().with(&SHARED_BUDGETS);
        let outcome = up::up(&self.session, &choice, &progress, self.stop).await;
        progress.finish();
        if let Some(error) = outcome.error {
            return Err(error);
        }
        for applied in outcome
            .report
            .tracks
            .iter()
            .flat_map(|track| &track.applied)
        {
            self.say(&format!(
                "  {:<9} {:<44} {:>6} rows {:>5} ms",
                applied.phase.name(),
                applied.version,
                applied.rows,
                applied.duration_ms
            ));
        }
        Ok(outcome.report)
    }

    /// Counts again, and migrates again: nothing is lost, and nothing is left to do.
    async fn compare_with(&mut self, before: &Survey, report: &Report) -> Result<Survey> {
        let after = survey(&self.session).await?;
        self.say(&format!("\n{}\n", compare(before, &after)));
        let again = up::up(&self.session, &up::Options::default(), &Silent, self.stop).await;
        if let Some(error) = again.error {
            return Err(error);
        }
        let mut tracks = again.report.tracks.iter();
        if !is_kept(before, &after, report) || tracks.any(|track| !track.applied.is_empty()) {
            return Err(differs(&format!(
                "what the demo counted before and after differs:\n{}",
                self.out
            )));
        }
        Ok(after)
    }

    async fn verify(&mut self) -> Result<()> {
        let file = self.snapshot_file();
        let verified = verify::verify(&self.session, Some(&file), &Silent, self.stop).await?;
        if let Some(error) = verify::failure(&verified) {
            return Err(error);
        }
        self.say(
            "$ tollgate verify --snapshot before.json\n\
             \x20 every invariant holds; every row, value, owner and flag of the snapshot is there\n",
        );
        self.say(
            "Nothing lost: every owner has its budget, every flag its key. The 3 copies have the usage of their\n\
             originals, so that nobody may spend more than before. A second `up` finds nothing to do.\n",
        );
        Ok(())
    }

    async fn boot_and_reconcile(&mut self) -> Result<()> {
        governance::boot(&self.session, self.options.virtual_keys, 1).await?;
        self.say(
            "Bifrost 1.5.8 boots, finds the work done, makes its tables of per-user credentials, and users consent:",
        );
        self.say("$ tollgate migrate status");
        gateways(&mut self.out, &status(&self.session).await?);
        self.out.push('\n');
        grants(&self.session, &mut self.out, self.stop).await
    }

    fn say_what_is_next(&mut self, file: &Path) {
        let url = if self.options.keep {
            format!("sqlite://{}", file.display())
        } else {
            "sqlite://gateway.db".to_owned()
        };
        self.say(&format!(
            "Next, on a database of yours (a copy first):\n\
             \x20 export DATABASE_URL={url}\n\
             \x20 tollgate migrate adopt --dry-run   # what is it?\n\
             \x20 tollgate doctor --samples all      # what would fail, be lost or change?\n\
             \x20 tollgate migrate plan --adopt --sql # what would happen, statement by statement?\n\
             \x20 tollgate rehearse --adopt          # does it work, on a copy?\n\
             \x20 tollgate migrate up --adopt        # do it; `migrate down` takes it back"
        ));
    }
}

/// By hand: two further owners of the shared budget, and the key beside the team's, each with the usage of its original;
/// the flags of a team, a customer and nobody have no place.
fn is_kept(before: &Survey, after: &Survey, report: &Report) -> bool {
    let copies = report
        .changes
        .iter()
        .find(|change| change.action == "clone")
        .map_or(0, |change| change.rows);
    let owned = |survey: &Survey| survey.owned_by_virtual_keys + survey.owned_by_provider_configs;
    copies == 3
        && after.budgets == before.budgets + 3
        && owned(after) == owned(before)
        && after.aligned_virtual_keys == before.aligned_virtual_keys
        && after.virtual_keys == before.virtual_keys
        && after.provider_configs == before.provider_configs
}

fn differs(what: &str) -> Error {
    Error::refused(
        "demo_differs",
        what,
        "this is a defect of Tollgate; please report it",
    )
}

/// A grant is taken away and given back, and the stored token follows.
async fn grants(session: &Session, out: &mut String, stop: &ShutdownSignal) -> Result<()> {
    let (key, client) = governance::granted_token(session).await?;
    let how = Options::default();
    let scope = Scope::VirtualKey(key.clone());
    let steps = [
        (
            "$ tollgate reconcile credentials   # drifted before Tollgate came".to_owned(),
            &Scope::All,
            &[][..],
        ),
        (
            format!(
                "{key} loses MCP client {client}:\n$ tollgate reconcile credentials --virtual-key {key}"
            ),
            &scope,
            &["orphan"],
        ),
        (
            format!("and has it again:\n$ tollgate reconcile credentials --virtual-key {key}"),
            &scope,
            &["reactivate"],
        ),
    ];
    for (text, scope, expected) in steps {
        match expected {
            ["orphan"] => governance::take(session, &key, &client).await?,
            ["reactivate"] => governance::give(session, &key, &client).await?,
            _ => {}
        }
        let _ = writeln!(out, "{text}");
        let done = credentials(session, scope, how, chrono::Utc::now(), stop).await;
        if let Some(error) = done.error {
            return Err(error);
        }
        for change in &done.report.changes {
            let _ = writeln!(
                out,
                "  {:<10} {:>5} of {}",
                change.action, change.rows, change.table
            );
        }
        let actions: Vec<&str> = done
            .report
            .changes
            .iter()
            .map(|change| change.action.as_str())
            .collect();
        if !expected.is_empty() && actions.as_slice() != expected {
            return Err(Error::refused(
                "demo_differs",
                format!("the token did not follow its grant:\n{out}"),
                "this is a defect of Tollgate; please report it",
            ));
        }
        out.push('\n');
    }
    Ok(())
}

fn compare(before: &Survey, after: &Survey) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "before", "after", ""]);
    let rows: [(&str, String, String); 6] = [
        (
            "budgets",
            before.budgets.to_string(),
            after.budgets.to_string(),
        ),
        (
            "  owned by virtual keys",
            before.owned_by_virtual_keys.to_string(),
            after.owned_by_virtual_keys.to_string(),
        ),
        (
            "  owned by provider configs",
            before.owned_by_provider_configs.to_string(),
            after.owned_by_provider_configs.to_string(),
        ),
        (
            "virtual keys on calendar windows",
            before.aligned_virtual_keys.to_string(),
            after.aligned_virtual_keys.to_string(),
        ),
        ("sum of usage", before.usage.clone(), after.usage.clone()),
        ("sum of limits", before.limits.clone(), after.limits.clone()),
    ];
    for (what, before, after) in rows {
        let same = if before == after { "same" } else { "+ copies" };
        table.add_row([what.to_owned(), before, after, same.to_owned()]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
