//! What one version of the gateway does and another does not, decided by its tables (`docs/upstream/bifrost.md` §10, §11).
//! A ledger may hold a mix; columns say what rows mean.

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::Dialect;
use tollgate_migration::governance::adoption::{GATEWAYS_OWN, unknown_columns};
use tollgate_migration::governance::mcp::CLIENTS;
use tollgate_migration::governance::{BUDGETS, VIRTUAL_KEYS};
use tollgate_migration::ledger::MIGRATIONS;

use crate::error::Error;
use crate::reconcile::all::NOT_ON_THIS_VERSION;
use crate::rows;
use crate::tracks::governance::budget::schema::Schema;

/// Limits of models, of every key or of one.
pub(crate) const MODEL_CONFIGS: &str = "governance_model_configs";
/// The gateway's providers.
pub(crate) const PROVIDERS: &str = "config_providers";

/// Budgets may belong to model configs: from 1.5.9 on, those of virtual keys and of their provider configs do.
pub(crate) fn has_budgets_of_model_configs(has: impl Fn(&str, &str) -> bool) -> bool {
    has(BUDGETS, "model_config_id")
}

/// A column by which a database of 1.6 or later is known whose windows lie on a lattice that begins when the budget was made,
/// whose limits may be raised for a time, and whose windows may be quarters.
pub(crate) fn has_anchored_windows(
    has: impl Fn(&str, &str) -> bool,
) -> Option<(&'static str, &'static str)> {
    [
        (VIRTUAL_KEYS, "expires_at"),
        (BUDGETS, "override_amount"),
        (BUDGETS, "reset_config_json"),
        // 1.6.0 to 1.6.2.
        (CLIENTS, "tool_execution_timeout"),
    ]
    .into_iter()
    .find(|(table, column)| has(table, column))
}

/// Refuses where windows begin, and limits are raised, as this version would not say.
pub(crate) fn refuse_anchored_windows(
    what: &str,
    has: impl Fn(&str, &str) -> bool,
) -> Result<(), Error> {
    match has_anchored_windows(has) {
        None => Ok(()),
        Some(sign) => Err(not_yet(
            what,
            sign,
            "and its windows begin at the budget's own time of day",
        )),
    }
}

/// The refusal where rows of a later version would be misunderstood.
pub(crate) fn not_yet(what: &str, sign: (&str, &str), why: &str) -> Error {
    let (table, column) = sign;
    Error::refused(
        NOT_ON_THIS_VERSION,
        format!(
            "{what} is not done on this version of the gateway: {table}.{column} is there, {why}"
        ),
        "do it in the gateway, or use a newer Tollgate; nothing was changed",
    )
}

/// Refuses what this version may misunderstand: rows of 2.1 and later, and what looks like a later version without its ledger.
pub(crate) async fn refuse_newer<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    has: impl Fn(&str, &str) -> bool,
) -> Result<(), Error> {
    let mut ran: Vec<String> = Vec::new();
    // Most databases have none of these columns, and their ledger need not be asked.
    if has(MIGRATIONS, "id")
        && GATEWAYS_OWN
            .iter()
            .any(|((table, column), ..)| has(table, column))
    {
        let ids = GATEWAYS_OWN.map(|(_, id, _)| format!("'{id}'")).join(", ");
        ran = rows::column(
            connection,
            Statement::from_string(
                dialect.backend(),
                format!("SELECT CAST(id AS text) AS id FROM {MIGRATIONS} WHERE id IN ({ids})"),
            ),
        )
        .await
        .map_err(Error::database(format!("read {MIGRATIONS}")))?;
    }
    let sign = unknown_columns(has, |id| ran.iter().any(|found| found == id))
        .into_iter()
        .next();
    match sign {
        None => Ok(()),
        Some((table, column)) => Err(Error::refused(
            "past_known",
            format!("the database is past what this version knows: {table}.{column} is there"),
            "use a newer Tollgate, or do it in the gateway; nothing was changed",
        )),
    }
}

/// The same, of a database that nobody has looked at yet.
pub(crate) async fn refuse_unknown<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> Result<(), Error> {
    let schema = Schema::load(connection, dialect)
        .await
        .map_err(Error::database("look which version this is"))?;
    refuse_newer(connection, dialect, |table, column| {
        schema.has(table, column)
    })
    .await
}
