//! `migrate handover`: tells Coder's ledger which of its migrations Tollgate has done (`docs/upstream/coder.md` A10). Coder believes
//! its ledger and checks nothing, so everything that the number promises is proven first.

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::catalog::Catalog;
use tollgate_migration::ledger::SCHEMA_MIGRATIONS;
use tollgate_migration::providers::coder;
use tollgate_migration::providers::cutover;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, GATEWAY_KEYS, MODEL_CONFIGS, PROVIDERS, TYPE, USER_KEYS, USERS,
    has_legacy,
};
use tollgate_migration::registry::golden;
use tollgate_migration::schema::canonical;
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::doctor::{self, Samples, environment};
use crate::error::{Error, Result};
use crate::history::{self, History};
use crate::lock::{Gateway, Lock};
use crate::report::result::HandoverResult;
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::up::read_again;
use crate::runner::{Session, context, idle, prove_writable};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;

/// Moves the ledger to the number that the applied steps stand for: 503 after expand, 504 after backfill, 505 after contract.
///
/// # Errors
/// [`Error::Usage`] for another track; [`Error::Refused`] with each difference where the state is not proven;
/// [`Error::Locked`].
pub async fn handover(session: &Session, stop: &ShutdownSignal) -> Result<Report> {
    let started = session.clock.now();
    if session
        .tracks
        .iter()
        .any(|track| *track != Track::PROVIDERS)
    {
        return Err(Error::usage(
            "only Coder's ledger is handed over: Bifrost's and Molecule's migrations find their work done",
            "leave --track out, or name --track providers",
        ));
    }
    let connection = session.connect(Access::Write).await?;
    let exists = session
        .tracks(&connection)
        .await?
        .into_iter()
        .find(|(track, _)| *track == Track::PROVIDERS);
    let Some((track, exists)) = exists else {
        return Err(Error::usage(
            format!(
                "{} has no tables of track providers",
                session.location.display
            ),
            "only Coder's ledger is handed over",
        ));
    };
    let history = session.history(&connection, track, exists).await?;
    let live = context(&connection, &history).await?;
    let mut report = Report::default();
    if due(&live, &history)?.is_none() {
        describe(&mut report, &live, &history, None);
        return Ok(report);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) =
        Lock::take(session, connection, &[track], Gateway::Waits, stop).await?;
    let outcome = locked(session, &connection, &mut report).await;
    if outcome.is_ok() {
        session
            .record_run(
                &connection,
                "migrate handover",
                started,
                RunOutcome::Done,
                &report,
            )
            .await;
    }
    lock.release().await;
    outcome.map(|()| report)
}

/// From which number to which the ledger is to move.
fn due(live: &Context, history: &History) -> Result<Option<(i64, i64)>> {
    let blocking = environment::ledger::blocking(Track::PROVIDERS, live);
    if !blocking.is_empty() {
        return Err(doctor::refusal(blocking));
    }
    let Some(number) = live.ledger(Track::PROVIDERS).number() else {
        return Ok(None);
    };
    let applied = |slug: &str| {
        Track::PROVIDERS
            .find(slug)
            .is_some_and(|migration| history.entries.contains_key(migration.version))
    };
    let stands_for = [
        ("provider_key_contract", coder::FINISHED),
        ("provider_key_backfill", coder::COPIED),
        ("provider_key_expand", coder::EXPANDED),
    ]
    .into_iter()
    .find(|(slug, _)| applied(slug))
    .map(|(_, number)| number);
    Ok(stands_for
        .filter(|stands_for| *stands_for > number)
        .map(|stands_for| (number, stands_for)))
}

fn describe(report: &mut Report, live: &Context, history: &History, moved: Option<(i64, i64)>) {
    let number = live.ledger(Track::PROVIDERS).number();
    report.result = Some(CommandResult::HandedOver(HandoverResult {
        from: moved.map(|(from, _)| from).or(number),
        to: moved.map(|(_, to)| to).or(number),
        moved: moved.is_some(),
    }));
    report.tracks = vec![idle(Track::PROVIDERS, history)];
}

async fn locked(session: &Session, connection: &Connection, report: &mut Report) -> Result<()> {
    let track = Track::PROVIDERS;
    let history = read_again(session, connection, track).await?;
    let live = context(connection, &history).await?;
    let Some((from, to)) = due(&live, &history)? else {
        describe(report, &live, &history, None);
        return Ok(());
    };
    if let Some(step) = &history.in_progress {
        return Err(Error::refused(
            "in_progress",
            format!("{} has begun and not ended", step.version),
            "finish it with `tollgate migrate up` first; nothing was changed",
        ));
    }
    let differences = differences(connection, &live, to).await?;
    let blocking = differences
        .iter()
        .filter(|finding| finding.severity == Severity::Blocking)
        .count();
    if blocking > 0 {
        return Err(Error::Refused {
            code: "not_proven",
            message: format!(
                "the database is not what Coder means by {to}: {blocking} {}",
                if blocking == 1 {
                    "difference"
                } else {
                    "differences"
                }
            ),
            hint: "mend each, then run the command again; the ledger stays as it is".to_owned(),
            findings: differences,
        });
    }
    report.findings.extend(differences);
    let failed = || Error::database("move Coder's ledger");
    let transaction = connection.begin().await.map_err(failed())?;
    let moved = transaction
        .execute_raw(Statement::from_sql_and_values(
            session.dialect().backend(),
            format!(
                "UPDATE {SCHEMA_MIGRATIONS} SET version = {to} WHERE version = {from} AND NOT dirty"
            ),
            [],
        ))
        .await
        .map_err(failed())?
        .rows_affected();
    if moved != 1 {
        return Err(Error::refused(
            "ledger_moved",
            format!("Coder's ledger is not at {from} any more"),
            "run the command again; nothing was changed",
        ));
    }
    // What stood at the number of then stands at this one.
    for entry in history.entries.values() {
        let mut entry = entry.clone();
        entry.created.ledger = Some(to.to_string());
        entry.created.moved_from.get_or_insert(from);
        history::rewrite_created(&transaction, track, &entry)
            .await
            .map_err(failed())?;
    }
    transaction.commit().await.map_err(failed())?;
    describe(report, &live, &history, Some((from, to)));
    Ok(())
}

fn difference(table: &str, what: Vec<String>, rows: u64, why: &str) -> Finding {
    Finding {
        code: "handover".to_owned(),
        severity: Severity::Blocking,
        title: "differs from what the number promises".to_owned(),
        table: table.to_owned(),
        column: None,
        rows,
        sample_ids: what,
        effect: why.to_owned(),
        resolve: "mend it, or leave the ledger where it is".to_owned(),
    }
}

/// How the database differs from the state that a number stands for.
async fn differences(connection: &Connection, live: &Context, number: i64) -> Result<Vec<Finding>> {
    let catalog = &live.catalog;
    let mut found = objects(live, number);
    let labels = catalog.enums.get(TYPE.0).map_or(0, Vec::len);
    if labels < 8 {
        found.push(difference(
            PROVIDERS,
            vec![format!("{} has {labels} labels", TYPE.0)],
            1,
            "the copy needs a label for each family",
        ));
    }
    if !deletes_keys(connection).await? {
        found.push(difference(
            USERS,
            vec!["no trigger deletes the keys of a user who is soft-deleted".to_owned()],
            1,
            "no later migration of Coder's makes one",
        ));
    }
    let legacy = has_legacy(catalog);
    if (number == coder::FINISHED) == legacy {
        found.push(difference(
            CHAT_PROVIDERS,
            vec![
                if legacy {
                    "it is there"
                } else {
                    "it is not there"
                }
                .to_owned(),
            ],
            1,
            "the legacy tables stand until 505, and no longer",
        ));
    }
    if let Some(table) = in_the_way(live, number) {
        found.push(difference(
            table,
            vec![table.to_owned()],
            1,
            "a later migration of Coder's makes this table and fails where it is",
        ));
    }
    for (table, sql, why) in forbidden_rows(catalog, number) {
        let (rows, ids) = doctor::ids(connection, sql.as_str(), Samples::default())
            .await
            .map_err(Error::database("prove the state for Coder"))?;
        if rows > 0 {
            found.push(difference(table, ids, rows, why));
        }
    }
    if legacy {
        // What 504 and 505 stop on, or lose.
        let asked = ["P001", "P002", "P003", "P004", "P005", "P006", "P007"];
        let track = Track::PROVIDERS;
        for mut finding in
            doctor::examine_only(connection, live, track, &asked, Samples::default()).await?
        {
            if finding.code == "P004" {
                finding.severity = Severity::Warning;
                finding.resolve = "505 is Coder's own from here on, and asks nobody".to_owned();
            }
            found.push(finding);
        }
    }
    Ok(found)
}

/// Rows that a later migration of Coder's would fail on: table, a query of their ids, and why.
fn forbidden_rows(catalog: &Catalog, number: i64) -> Vec<(&'static str, String, &'static str)> {
    let legacy = has_legacy(catalog);
    let mut rows: Vec<(&'static str, String, &'static str)> = Vec::new();
    if legacy && number == coder::EXPANDED {
        rows.push((
            PROVIDERS,
            format!("SELECT a.id AS id FROM {PROVIDERS} a JOIN {CHAT_PROVIDERS} p ON p.id = a.id"),
            "504 inserts these rows and would fail on them",
        ));
        rows.push((
            USER_KEYS,
            format!(
                "SELECT k.id AS id FROM {USER_KEYS} k JOIN {CHAT_USER_KEYS} r ON r.id = k.id \
                 OR r.user_id = k.user_id AND r.chat_provider_id = k.ai_provider_id"
            ),
            "504 inserts these rows and would fail on them",
        ));
    }
    if !legacy && let Some(lonely) = cutover::without_provider(catalog) {
        rows.push((
            MODEL_CONFIGS,
            lonely,
            "505's check refuses an active model config without a provider",
        ));
    }
    rows
}

/// The table of a migration behind the number that is there already.
fn in_the_way(live: &Context, number: i64) -> Option<&'static str> {
    (number < coder::GATEWAY_KEYS && live.catalog.has_table(GATEWAY_KEYS)).then_some(GATEWAY_KEYS)
}

/// Objects of 503, and the check of 505, against what a fresh run makes.
fn objects(live: &Context, number: i64) -> Vec<Finding> {
    let check = "chat_model_configs check chat_model_configs_ai_provider_required_when_active";
    let is_ours = |object: &str| {
        object.starts_with(&format!("{USER_KEYS} "))
            || object.starts_with(&format!("{MODEL_CONFIGS} ")) && object.contains("ai_provider")
    };
    let slug = if number == coder::FINISHED {
        "provider_key_contract"
    } else {
        "provider_key_expand"
    };
    let expected = Track::PROVIDERS
        .find(slug)
        .and_then(|migration| golden(Dialect::Postgres, migration.version))
        .unwrap_or_default();
    let is = canonical(&live.catalog, [USER_KEYS, MODEL_CONFIGS]);
    let mut found = Vec::new();
    for (object, definition) in expected.iter().filter(|(object, _)| is_ours(object)) {
        let there = is.get(object).map(|is| is.trim_end_matches(", not valid"));
        if there != Some(definition.as_str()) {
            let table = object.split(' ').next().unwrap_or_default();
            let line = match there {
                None => format!("no {object}"),
                Some(there) => format!("{object}: is {there}, should be {definition}"),
            };
            found.push(difference(
                table,
                vec![line],
                1,
                "Coder's later migrations build on it",
            ));
        }
    }
    if number < coder::FINISHED && is.contains_key(check) {
        found.push(difference(
            MODEL_CONFIGS,
            vec![check.to_owned()],
            1,
            "505 adds this check and fails where it is there",
        ));
    }
    found
}

/// Whether a soft delete of a user takes the user's keys along, by Coder's own function or by Tollgate's trigger.
async fn deletes_keys(connection: &Connection) -> Result<bool> {
    let sql = format!(
        "SELECT 1 AS one FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid \
         WHERE c.relname = '{USERS}' AND c.relnamespace = quote_ident(current_schema())::regnamespace \
         AND t.tgenabled <> 'D' AND p.prosrc LIKE '%{USER_KEYS}%' LIMIT 1"
    );
    Ok(connection
        .query_one_raw(Statement::from_string(Dialect::Postgres.backend(), sql))
        .await
        .map_err(Error::database("look for the trigger on users"))?
        .is_some())
}
