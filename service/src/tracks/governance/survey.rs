//! Counts and sums of what a migration must not lose, in the words of either schema.

use sea_orm::{ConnectionTrait, Statement};
use serde::Serialize;
use tollgate_migration::governance::owners::{self, Owner};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Context};

use crate::database::Access;
use crate::error::{Error, Result};
use crate::runner::Session;

/// What a governance database holds. Sums are texts, so that no digit passes through a float.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Survey {
    /// Rows of budgets.
    pub budgets: i64,
    /// Rows of virtual keys.
    pub virtual_keys: i64,
    /// Rows of provider configs.
    pub provider_configs: i64,
    /// Budgets that a virtual key owns.
    pub owned_by_virtual_keys: i64,
    /// Budgets that a provider config owns.
    pub owned_by_provider_configs: i64,
    /// Virtual keys whose windows follow the calendar, by their own flag or a budget's.
    pub aligned_virtual_keys: i64,
    /// The sum of usage.
    pub usage: String,
    /// The sum of limits.
    pub limits: String,
}

/// Surveys the governance tables, whichever of the two schemas they have.
///
/// # Errors
/// What connecting and reading may answer.
pub async fn survey(session: &Session) -> Result<Survey> {
    let connection = session.connect(Access::Read).await?;
    let context = Context::read(&connection)
        .await
        .map_err(Error::database("read the catalog"))?;
    let sql = format!(
        "SELECT (SELECT count(*) FROM {BUDGETS}) AS budgets, (SELECT count(*) FROM {VIRTUAL_KEYS}) AS virtual_keys, \
         (SELECT count(*) FROM {PROVIDER_CONFIGS}) AS provider_configs, ({}) AS by_keys, ({}) AS by_configs, ({}) AS aligned, \
         (SELECT CAST(sum(current_usage) AS text) FROM {BUDGETS}) AS usage_sum, \
         (SELECT CAST(sum(max_limit) AS text) FROM {BUDGETS}) AS limit_sum",
        owned(&context.catalog, Owner::VirtualKey),
        owned(&context.catalog, Owner::ProviderConfig),
        aligned(&context),
    );
    let db_context = || Error::database("survey the governance tables");
    let row = connection
        .query_one_raw(Statement::from_string(
            context.catalog.dialect.backend(),
            sql,
        ))
        .await
        .map_err(db_context())?
        .ok_or_else(|| Error::refused("empty_answer", "the survey came back empty", ""))?;
    let number = |name: &str| row.try_get::<i64>("", name).map_err(db_context());
    let text = |name: &str| {
        row.try_get::<Option<String>>("", name)
            .map(Option::unwrap_or_default)
            .map_err(db_context())
    };
    Ok(Survey {
        budgets: number("budgets")?,
        virtual_keys: number("virtual_keys")?,
        provider_configs: number("provider_configs")?,
        owned_by_virtual_keys: number("by_keys")?,
        owned_by_provider_configs: number("by_configs")?,
        aligned_virtual_keys: number("aligned")?,
        usage: text("usage_sum")?,
        limits: text("limit_sum")?,
    })
}

fn owned(catalog: &Catalog, owner: Owner) -> String {
    if catalog.has_column(BUDGETS, owner.column()) {
        format!(
            "SELECT count(*) FROM {BUDGETS} WHERE {} IS NOT NULL",
            owner.column()
        )
    } else {
        format!(
            "SELECT count(*) FROM {BUDGETS} b JOIN {} r ON r.budget_id = b.id",
            owner.table()
        )
    }
}

fn aligned(context: &Context) -> String {
    if context.catalog.has_column(VIRTUAL_KEYS, "calendar_aligned") {
        format!(
            "SELECT count(*) FROM {VIRTUAL_KEYS} WHERE {}",
            context.catalog.dialect.is_true("calendar_aligned")
        )
    } else if owners::has_legacy_flag(context) {
        owners::flagged_by_legacy(context, &Owner::BOTH).map_or_else(
            || "SELECT 0".to_owned(),
            |flagged| format!("SELECT count(*) FROM ({flagged}) flagged"),
        )
    } else {
        "SELECT 0".to_owned()
    }
}
