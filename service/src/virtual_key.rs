//! Deleting a virtual key or a provider config with all that is theirs, in the order that real foreign keys allow
//! (`reference/bifrost.md` §4.10).
//!
//! What is theirs goes in one transaction: join rows, MCP grants, flows and credentials, budgets, provider configs, the
//! key, rate limits. A budget or rate limit that another row still refers to stays, without its owner, and is reported.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps its keys in memory.

use std::collections::{BTreeMap, BTreeSet};

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::adoption::past;
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Context, Dialect, Track};

use crate::budget::schema::{CUSTOMERS, RATE_LIMITS, TEAMS};
use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::lock::{Gateway, Lock};
use crate::reconcile::credentials::{count_rows_of_virtual_key, delete_rows_of_virtual_key};
use crate::reconcile::{SAMPLES, count};
use crate::report::{Change, Finding, Report, Severity};
use crate::retry::{backoff, is_transient};
use crate::runner::{Session, prove_writable};
use crate::stop::Stop;

/// Which keys of a provider a config may use.
pub(crate) const JOIN: &str = "governance_virtual_key_provider_config_keys";
pub(crate) const JOIN_COLUMN: &str = "table_virtual_key_provider_config_id";

/// What is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doomed {
    /// A virtual key, by its id.
    VirtualKey(String),
    /// What a virtual key may do on one provider, by its number.
    ProviderConfig(i64),
}

impl Doomed {
    fn command(&self) -> &'static str {
        match self {
            Self::VirtualKey(_) => "virtual-key delete",
            Self::ProviderConfig(_) => "provider-config delete",
        }
    }

    fn what(&self) -> String {
        match self {
            Self::VirtualKey(id) => format!("virtual key {id:?}"),
            Self::ProviderConfig(id) => format!("provider config {id}"),
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::VirtualKey(id) => Some(id),
            Self::ProviderConfig(_) => None,
        }
    }
}

/// Everything of one owner. It is bounded by what hangs on one key, so it is held in memory and named row by row.
#[derive(Debug, Default)]
struct Owned {
    configs: Vec<i64>,
    budgets: Goods,
    rate_limits: Goods,
}

/// Rows of a kind that go, and those that somebody else still needs, with who that is.
#[derive(Debug, Default)]
struct Goods {
    go: Vec<String>,
    stay: BTreeMap<String, BTreeSet<String>>,
}

/// Deletes it; with `dry_run` says what would go.
///
/// # Errors
/// [`Error::NotFound`] where it is not there; [`Error::Locked`]; what the database says, with nothing deleted.
pub async fn delete(
    session: &Session,
    doomed: &Doomed,
    dry_run: bool,
    now: DateTime<Utc>,
    stop: &Stop,
) -> Result<Report> {
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let doing = || Error::database(format!("delete {}", doomed.what()));
    let mut report = Report {
        result: Some(match doomed {
            Doomed::VirtualKey(id) => {
                serde_json::json!({ "virtual_key_id": id, "dry_run": dry_run })
            }
            Doomed::ProviderConfig(id) => {
                serde_json::json!({ "provider_config_id": id, "dry_run": dry_run })
            }
        }),
        ..Report::default()
    };
    if dry_run {
        let catalog = schema(&connection, doomed).await?;
        let planned = plan(&connection, &catalog, doomed, false)
            .await
            .map_err(doing())?
            .ok_or_else(|| missing(doomed))?;
        report.changes = foretell(&connection, &catalog, doomed, &planned)
            .await
            .map_err(doing())?;
        report.findings = kept(&planned);
        return Ok(report);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(
        session,
        connection,
        &[Track::Governance],
        Gateway::Boots,
        stop,
    )
    .await?;
    // Read now that no migration can change it: what it was before the lock says nothing.
    let catalog = schema(&connection, doomed).await?;
    let deleted = (|| async {
        // Whoever waits for a held row can be told to stop between two tries.
        stop.check()?;
        transaction(&connection, &catalog, doomed)
            .await
            .map_err(doing())
    })
    .retry(backoff())
    .when(|error: &Error| matches!(error, Error::Database { source, .. } if is_transient(source)))
    .await;
    let (changes, findings) = deleted?.ok_or_else(|| missing(doomed))?;
    report.changes = changes;
    report.findings = findings;
    session
        .record_run(&connection, doomed.command(), now, "done", &report)
        .await;
    lock.release().await;
    Ok(report)
}

/// The schema, where it is one that this version deletes from.
async fn schema(connection: &Connection, doomed: &Doomed) -> Result<Catalog> {
    let catalog = Context::read(connection)
        .await
        .map_err(Error::database(format!("delete {}", doomed.what())))?
        .catalog;
    if !catalog.has_table(VIRTUAL_KEYS) || !catalog.has_table(PROVIDER_CONFIGS) {
        return Err(Error::NotFound {
            what: format!("table {VIRTUAL_KEYS} here"),
        });
    }
    if let Some((table, sign)) = past(&catalog).first() {
        return Err(Error::refused(
            "past_known",
            format!("the database is past what this version knows: it has {table} ({sign})"),
            "use a newer Tollgate, or delete it in the gateway: what is the key's there would stay; nothing was changed",
        ));
    }
    Ok(catalog)
}

fn missing(doomed: &Doomed) -> Error {
    Error::NotFound {
        what: doomed.what(),
    }
}

/// What stays, and for whose sake.
fn kept(owned: &Owned) -> Vec<Finding> {
    [
        (BUDGETS, "a budget", &owned.budgets),
        (RATE_LIMITS, "a rate limit", &owned.rate_limits),
    ]
    .into_iter()
    .filter(|(_, _, goods)| !goods.stay.is_empty())
    .map(|(table, noun, goods)| {
        let whose: BTreeSet<&str> = goods.stay.values().flatten().map(String::as_str).collect();
        Finding {
            code: "R004".to_owned(),
            severity: Severity::Warning,
            title: format!("{noun} that somebody else refers to stays"),
            table: table.to_owned(),
            column: None,
            rows: u64::try_from(goods.stay.len()).unwrap_or(u64::MAX),
            sample_ids: goods.stay.keys().take(SAMPLES).cloned().collect(),
            effect: format!(
                "it is referred to by {}",
                whose.into_iter().collect::<Vec<_>>().join(", ")
            ),
            resolve: "nothing to do; it belongs to whoever is left".to_owned(),
        }
    })
    .collect()
}

fn list(dialect: Dialect, ids: &[String]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| dialect.text(id)).collect();
    ids.join(", ")
}

fn numbers(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    ids.join(", ")
}

async fn texts<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    sql: String,
) -> std::result::Result<Vec<(String, String)>, DbErr> {
    connection
        .query_all_raw(Statement::from_string(dialect.backend(), sql))
        .await?
        .iter()
        .map(|row| Ok((row.try_get("", "id")?, row.try_get("", "whose")?)))
        .collect()
}

/// Finds what is theirs; `None` where the owner is not there. With `lock` its row and its configs are locked first.
async fn plan<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    doomed: &Doomed,
    lock: bool,
) -> std::result::Result<Option<Owned>, DbErr> {
    let dialect = catalog.dialect;
    let lock = if lock && dialect == Dialect::Postgres {
        "FOR UPDATE"
    } else {
        ""
    };
    let mut owned = Owned::default();
    let condition = match doomed {
        Doomed::VirtualKey(id) => {
            let there = connection
                .query_one_raw(Statement::from_string(
                    dialect.backend(),
                    format!(
                        "SELECT id FROM {VIRTUAL_KEYS} WHERE id = {} {lock}",
                        dialect.text(id)
                    ),
                ))
                .await?;
            if there.is_none() {
                return Ok(None);
            }
            format!("virtual_key_id = {}", dialect.text(id))
        }
        Doomed::ProviderConfig(id) => format!("id = {id}"),
    };
    for row in connection
        .query_all_raw(Statement::from_string(
            dialect.backend(),
            format!(
                "SELECT CAST(id AS bigint) AS id FROM {PROVIDER_CONFIGS} WHERE {condition} ORDER BY id {lock}"
            ),
        ))
        .await?
    {
        owned.configs.push(row.try_get("", "id")?);
    }
    if matches!(doomed, Doomed::ProviderConfig(_)) && owned.configs.is_empty() {
        return Ok(None);
    }
    owned.budgets = goods(
        connection,
        catalog,
        doomed,
        &owned.configs,
        BUDGETS,
        "budget_id",
    )
    .await?;
    owned.rate_limits = goods(
        connection,
        catalog,
        doomed,
        &owned.configs,
        RATE_LIMITS,
        "rate_limit_id",
    )
    .await?;
    Ok(Some(owned))
}

/// The rows of a table that are theirs, by an owner column of the row or by a reference to it.
async fn goods<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    doomed: &Doomed,
    configs: &[i64],
    table: &str,
    reference: &str,
) -> std::result::Result<Goods, DbErr> {
    let dialect = catalog.dialect;
    if !catalog.has_table(table) {
        return Ok(Goods::default());
    }
    let configs = if configs.is_empty() {
        "NULL".to_owned()
    } else {
        numbers(configs)
    };
    let key = doomed.key().map(|id| dialect.text(id));
    // Theirs, and the same rows as seen from others: a reference by whoever is not being deleted.
    let mut theirs = Vec::new();
    let mut others = Vec::new();
    let mut column = |name: &str, mine: Option<String>, whose: &str| {
        if !catalog.has_column(table, name) {
            return;
        }
        let not_mine = match &mine {
            Some(mine) => {
                theirs.push(format!("b.{name} IN ({mine})"));
                // Of nobody's configs none is mine.
                format!(
                    "NOT COALESCE(b.{name} IN ({mine}), {})",
                    dialect.falsehood()
                )
            }
            None => "1 = 1".to_owned(),
        };
        others.push(format!(
            "SELECT b.id AS id, '{whose} ' || CAST(b.{name} AS text) AS whose FROM {table} b \
             WHERE b.{name} IS NOT NULL AND {not_mine}"
        ));
    };
    column("virtual_key_id", key.clone(), "virtual key");
    column(
        "provider_config_id",
        Some(configs.clone()),
        "provider config",
    );
    column("team_id", None, "team");
    column("customer_id", None, "customer");
    for (name, column) in referrers(catalog, table, reference) {
        let id = if catalog.has_column(name, "id") {
            "CAST(x.id AS text)"
        } else {
            "''"
        };
        let mine = match name {
            VIRTUAL_KEYS => key.as_ref().map(|key| format!("x.id IN ({key})")),
            PROVIDER_CONFIGS => Some(format!("x.id IN ({configs})")),
            _ => None,
        };
        let not_mine = mine.as_ref().map_or_else(
            || "1 = 1".to_owned(),
            |mine| format!("NOT COALESCE({mine}, {})", dialect.falsehood()),
        );
        if let Some(mine) = mine {
            theirs.push(format!(
                "b.id IN (SELECT x.{column} FROM {name} x WHERE {mine} AND x.{column} IS NOT NULL)"
            ));
        }
        others.push(format!(
            "SELECT x.{column} AS id, '{name} ' || {id} AS whose FROM {name} x WHERE x.{column} IS NOT NULL AND {not_mine}"
        ));
    }
    if theirs.is_empty() {
        return Ok(Goods::default());
    }
    let theirs = theirs.join(" OR ");
    let mut goods = Goods {
        go: texts(
            connection,
            dialect,
            format!("SELECT b.id AS id, '' AS whose FROM {table} b WHERE {theirs} ORDER BY b.id"),
        )
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect(),
        stay: BTreeMap::new(),
    };
    if goods.go.is_empty() || others.is_empty() {
        return Ok(goods);
    }
    for (id, whose) in texts(
        connection,
        dialect,
        format!(
            "SELECT o.id AS id, o.whose AS whose FROM ({}) o WHERE o.id IN ({}) ORDER BY 1, 2",
            others.join(" UNION ALL "),
            list(dialect, &goods.go)
        ),
    )
    .await?
    {
        goods.stay.entry(id).or_default().insert(whose);
    }
    goods.go.retain(|id| !goods.stay.contains_key(id));
    Ok(goods)
}

/// Every table and column that refers to a table: by a column of the reference's name, or by a foreign key, whether or not
/// this track knows it.
pub(crate) fn referrers<'a>(
    catalog: &'a Catalog,
    table: &str,
    reference: &'a str,
) -> BTreeSet<(&'a str, &'a str)> {
    let mut referring = BTreeSet::new();
    for (name, live) in &catalog.tables {
        let known = [VIRTUAL_KEYS, PROVIDER_CONFIGS, TEAMS, CUSTOMERS].contains(&name.as_str())
            || name.starts_with("config_")
            || name.starts_with("governance_");
        if known && name != table && live.column(reference).is_some() {
            referring.insert((name.as_str(), reference));
        }
        for key in live
            .foreign_keys
            .iter()
            .filter(|key| key.parent == table && key.columns.len() == 1 && name != table)
        {
            referring.insert((name.as_str(), key.columns[0].as_str()));
        }
    }
    referring
}

/// What the transaction will do, counted.
async fn foretell(
    connection: &Connection,
    catalog: &Catalog,
    doomed: &Doomed,
    owned: &Owned,
) -> std::result::Result<Vec<Change>, DbErr> {
    let mut changes = Vec::new();
    let dialect = catalog.dialect;
    if catalog.has_table(JOIN) && !owned.configs.is_empty() {
        let row = connection
            .query_one_raw(Statement::from_string(
                dialect.backend(),
                format!(
                    "SELECT count(*) AS number FROM {JOIN} WHERE {JOIN_COLUMN} IN ({})",
                    numbers(&owned.configs)
                ),
            ))
            .await?;
        let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "number"))?;
        count(&mut changes, JOIN, "delete", rows.unsigned_abs(), None);
    }
    if let Some(key) = doomed.key() {
        changes.extend(count_rows_of_virtual_key(connection, key).await?);
    }
    let detached = owned_and_needed(connection, catalog, doomed, owned).await?;
    told(&mut changes, doomed, owned, detached);
    Ok(changes)
}

/// The rows that are known by name.
fn told(changes: &mut Vec<Change>, doomed: &Doomed, owned: &Owned, detached: Vec<String>) {
    let mut tell = |table: &str, action: &str, ids: Vec<String>| {
        let rows = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        count(changes, table, action, rows, ids);
    };
    tell(BUDGETS, "detach", detached);
    tell(BUDGETS, "delete", owned.budgets.go.clone());
    tell(
        PROVIDER_CONFIGS,
        "delete",
        owned.configs.iter().map(i64::to_string).collect(),
    );
    tell(
        VIRTUAL_KEYS,
        "delete",
        doomed.key().map(str::to_owned).into_iter().collect(),
    );
    tell(RATE_LIMITS, "delete", owned.rate_limits.go.clone());
}

async fn transaction(
    connection: &Connection,
    catalog: &Catalog,
    doomed: &Doomed,
) -> std::result::Result<Option<(Vec<Change>, Vec<Finding>)>, DbErr> {
    let dialect = catalog.dialect;
    let transaction = connection.begin().await?;
    if dialect == Dialect::Postgres {
        transaction
            .execute_unprepared("SET LOCAL lock_timeout = '500ms'")
            .await?;
    }
    let Some(owned) = plan(&transaction, catalog, doomed, true).await? else {
        return Ok(None);
    };
    let mut changes = Vec::new();
    let configs = numbers(&owned.configs);
    if catalog.has_table(JOIN) && !owned.configs.is_empty() {
        let rows = transaction
            .execute_unprepared(&format!(
                "DELETE FROM {JOIN} WHERE {JOIN_COLUMN} IN ({configs})"
            ))
            .await?
            .rows_affected();
        count(&mut changes, JOIN, "delete", rows, None);
    }
    if let Some(key) = doomed.key() {
        changes.extend(delete_rows_of_virtual_key(&transaction, key).await?);
    }
    let detached = owned_and_needed(&transaction, catalog, doomed, &owned).await?;
    for sql in statements(catalog, doomed, &owned) {
        transaction.execute_unprepared(&sql).await?;
    }
    transaction.commit().await?;
    told(&mut changes, doomed, &owned, detached);
    Ok(Some((changes, kept(&owned))))
}

/// Which of the budgets that stay lose an owner: by a column of theirs, not by a reference alone.
async fn owned_and_needed<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    doomed: &Doomed,
    owned: &Owned,
) -> std::result::Result<Vec<String>, DbErr> {
    let dialect = catalog.dialect;
    let stay: Vec<String> = owned.budgets.stay.keys().cloned().collect();
    let arms: Vec<String> = owner_columns(catalog, doomed, owned)
        .into_iter()
        .map(|(column, mine)| format!("b.{column} IN ({mine})"))
        .collect();
    if stay.is_empty() || arms.is_empty() {
        return Ok(Vec::new());
    }
    let found = texts(
        connection,
        dialect,
        format!(
            "SELECT b.id AS id, '' AS whose FROM {BUDGETS} b WHERE b.id IN ({}) AND ({}) ORDER BY b.id",
            list(dialect, &stay),
            arms.join(" OR ")
        ),
    )
    .await?;
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

/// The owner columns of budgets that are there, each with whom of them is deleted.
fn owner_columns(catalog: &Catalog, doomed: &Doomed, owned: &Owned) -> Vec<(&'static str, String)> {
    let key = doomed.key().map(|id| catalog.dialect.text(id));
    let configs = (!owned.configs.is_empty()).then(|| numbers(&owned.configs));
    [("virtual_key_id", key), ("provider_config_id", configs)]
        .into_iter()
        .filter(|(column, _)| catalog.has_column(BUDGETS, column))
        .filter_map(|(column, mine)| Some((column, mine?)))
        .collect()
}

/// What goes by name, in the order that foreign keys of every version allow: references before what they refer to, and
/// what stays loses its owner before a cascade could take it along. Rows go in the order of their ids.
fn statements(catalog: &Catalog, doomed: &Doomed, owned: &Owned) -> Vec<String> {
    let dialect = catalog.dialect;
    let configs = (!owned.configs.is_empty()).then(|| numbers(&owned.configs));
    let key = doomed.key().map(|id| dialect.text(id));
    let mut statements = Vec::new();
    let stay: Vec<String> = owned.budgets.stay.keys().cloned().collect();
    for (column, mine) in owner_columns(catalog, doomed, owned) {
        if !stay.is_empty() {
            statements.push(format!(
                "UPDATE {BUDGETS} SET {column} = NULL WHERE id IN ({}) AND {column} IN ({mine})",
                list(dialect, &stay)
            ));
        }
    }
    for (table, mine) in [(PROVIDER_CONFIGS, &configs), (VIRTUAL_KEYS, &key)] {
        for column in ["budget_id", "rate_limit_id"] {
            if let Some(mine) = mine
                && catalog.has_column(table, column)
            {
                statements.push(format!(
                    "UPDATE {table} SET {column} = NULL WHERE id IN ({mine}) AND {column} IS NOT NULL"
                ));
            }
        }
    }
    let mut delete = |table: &str, ids: Option<String>| {
        if let Some(ids) = ids {
            statements.push(format!("DELETE FROM {table} WHERE id IN ({ids})"));
        }
    };
    let named = |ids: &[String]| (!ids.is_empty()).then(|| list(dialect, ids));
    delete(BUDGETS, named(&owned.budgets.go));
    delete(PROVIDER_CONFIGS, configs);
    delete(VIRTUAL_KEYS, key);
    delete(RATE_LIMITS, named(&owned.rate_limits.go));
    statements
}
