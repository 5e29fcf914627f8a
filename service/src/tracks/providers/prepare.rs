//! What `migrate prepare` does before a Coder does its cutover.

use tollgate_migration::plan_builder::{CHANGED, create_list, note as note_rows};
use tollgate_migration::providers::coder;
use tollgate_migration::providers::{MODEL_CONFIGS, PROVIDERS, cutover, has_legacy};
use tollgate_migration::providers::{NAME_CONFLICTS, ORPHANED_MODELS};
use tollgate_migration::{Context, Track};

use crate::doctor::{self, Samples};
use crate::error::Result;
use crate::prepare::{Work, not_moved};
use crate::report::{Finding, Report};

/// What stops Coder's cutover, as far as rows can mend it.
pub(super) async fn prepare(
    work: &Work<'_>,
    live: &Context,
    report: &mut Report,
    left: &mut Vec<Finding>,
) -> Result<&'static str> {
    if !has_legacy(&live.catalog) {
        return Ok("the cutover is done; there is nothing to prepare");
    }
    let dialect = live.catalog.dialect;
    let has_providers = live.catalog.has_table(PROVIDERS);
    if live.chose(&ORPHANED_MODELS)
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
        work.write(
            cutover::without_provider(&live.catalog),
            &statements,
            MODEL_CONFIGS,
            "retire",
            report,
        )
        .await?;
    }
    if live.chose(&NAME_CONFLICTS) && has_providers {
        work.write(
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
        work.connection,
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

/// The cutover carries every row: only whether it is done is to be said.
pub(super) fn finish(live: &Context) -> Result<&'static str> {
    match live.ledger(Track::PROVIDERS).number() {
        Some(number) if number < coder::FINISHED => Err(not_moved(Track::PROVIDERS)),
        _ => Ok("nothing was remembered: the cutover carries every row"),
    }
}
