//! Deleting a virtual key or a provider config with all that is theirs, in the order that real foreign keys allow
//! (`docs/upstream/bifrost.md` §4.10).
//!
//! What is theirs goes in one transaction: join rows, MCP grants, flows and credentials, budgets, provider configs, the
//! key, rate limits. A budget or rate limit that another row still refers to stays, without its owner, and is reported.
//!
//! For a gateway that embeds this crate, or one that is stopped: a Bifrost that runs keeps its keys in memory.

use std::collections::{BTreeMap, BTreeSet};

use backon::Retryable;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Dialect, Track};

use crate::connection::Connection;
use crate::database::Access;
use crate::error::{Error, Result};
use crate::lock::{Gateway, Lock};
use crate::parameters::Parameters;
use crate::reconcile::{SAMPLES, count};
use crate::report::result::DeletionResult;
use crate::report::{Change, CommandResult, Finding, Report, Severity};
use crate::retry::{self, Turns, backoff};
use crate::rows;
use crate::runner::{Session, prove_writable};
use crate::runs::RunOutcome;
use crate::shutdown::ShutdownSignal;
use crate::tracks::governance::budget::schema::{CUSTOMERS, RATE_LIMITS, TEAMS};
use crate::tracks::governance::credentials::{
    count_rows_of_virtual_key, delete_rows_of_virtual_key,
};
use crate::tracks::governance::shape::{self, MODEL_CONFIGS, has_budgets_of_model_configs};

/// Which keys of a provider a config may use.
pub(crate) const JOIN: &str = "governance_virtual_key_provider_config_keys";
pub(crate) const JOIN_COLUMN: &str = "table_virtual_key_provider_config_id";

/// What is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// A virtual key, by its id.
    VirtualKey(String),
    /// What a virtual key may do on one provider, by its number.
    ProviderConfig(i64),
}

impl Deletion {
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
    ids: Ids,
    budgets: OwnedRows,
    rate_limits: OwnedRows,
}

/// The owners of budgets and rate limits that go with the target.
#[derive(Debug, Default)]
struct Ids {
    configs: Vec<i64>,
    /// Model configs of the key alone, which have its budgets from 1.5.9 on.
    models: Vec<String>,
}

/// Rows of a kind that go, and those that somebody else still needs, with who that is.
#[derive(Debug, Default)]
struct OwnedRows {
    go: Vec<String>,
    stay: BTreeMap<String, BTreeSet<String>>,
}

/// Deletes it; with `dry_run` says what would go.
///
/// # Errors
/// [`Error::NotFound`] where it is not there; [`Error::Locked`]; what the database says, with nothing deleted.
pub async fn delete(
    session: &Session,
    target: &Deletion,
    dry_run: bool,
    now: DateTime<Utc>,
    stop: &ShutdownSignal,
) -> Result<Report> {
    let access = if dry_run { Access::Read } else { Access::Write };
    let connection = session.connect(access).await?;
    let db_context = || Error::database(format!("delete {}", target.what()));
    let mut report = Report::answering(result(target, dry_run));
    if dry_run {
        let catalog = schema(&connection, target).await?;
        let planned = plan(&connection, &catalog, target, false)
            .await
            .map_err(db_context())?
            .ok_or_else(|| missing(target))?;
        report.changes = count_deletions(&connection, &catalog, target, &planned)
            .await
            .map_err(db_context())?;
        report.findings = kept(&planned);
        return Ok(report);
    }
    prove_writable(session, &connection).await?;
    let (lock, connection) = Lock::take(
        session,
        connection,
        &[Track::GOVERNANCE],
        Gateway::Boots,
        stop,
    )
    .await?;
    // Read now that no migration can change it: what it was before the lock says nothing.
    let catalog = schema(&connection, target).await?;
    let turns = Turns::of(&connection);
    let deleted = (|| async {
        // Whoever waits for a held row can be told to stop between two tries.
        stop.check()?;
        transaction(&connection, &catalog, target)
            .await
            .map_err(db_context())
    })
    .retry(backoff())
    .when(|error: &Error| matches!(error, Error::Database { source, .. } if turns.again(source)))
    .await;
    let (changes, findings) = deleted?.ok_or_else(|| missing(target))?;
    report.changes = changes;
    report.findings = findings;
    session
        .record_run(
            &connection,
            target.command(),
            now,
            RunOutcome::Done,
            &report,
        )
        .await;
    lock.release().await;
    Ok(report)
}

/// The same in a transaction of the caller's, which commits it or undoes it. It takes no lock of Tollgate's, tries nothing
/// again, and records no run: the report says what was deleted.
///
/// # Errors
/// Those of [`delete`] but for the lock's.
pub async fn delete_in<C: ConnectionTrait>(transaction: &C, target: &Deletion) -> Result<Report> {
    let catalog = schema(transaction, target).await?;
    let (changes, findings) = delete_all(transaction, &catalog, target)
        .await
        .map_err(Error::database(format!("delete {}", target.what())))?
        .ok_or_else(|| missing(target))?;
    Ok(Report {
        changes,
        findings,
        ..Report::answering(result(target, false))
    })
}

fn result(target: &Deletion, dry_run: bool) -> CommandResult {
    CommandResult::Deleted(match target {
        Deletion::VirtualKey(id) => DeletionResult {
            virtual_key_id: Some(id.clone()),
            dry_run,
            ..DeletionResult::default()
        },
        Deletion::ProviderConfig(id) => DeletionResult {
            provider_config_id: Some(*id),
            dry_run,
            ..DeletionResult::default()
        },
    })
}

/// The schema, where it is one that this version deletes from.
async fn schema<C: ConnectionTrait>(connection: &C, target: &Deletion) -> Result<Catalog> {
    let catalog = Catalog::read(connection)
        .await
        .map_err(Error::database(format!("delete {}", target.what())))?;
    if !catalog.has_table(VIRTUAL_KEYS) || !catalog.has_table(PROVIDER_CONFIGS) {
        return Err(Error::MissingSchema {
            what: format!("table {VIRTUAL_KEYS} here"),
        });
    }
    shape::refuse_newer(connection, catalog.dialect, |table, column| {
        catalog.has_column(table, column)
    })
    .await?;
    Ok(catalog)
}

fn missing(target: &Deletion) -> Error {
    Error::NotFound {
        what: target.what(),
    }
}

/// What stays, and for whose sake.
fn kept(owned: &Owned) -> Vec<Finding> {
    [
        (BUDGETS, "a budget", &owned.budgets),
        (RATE_LIMITS, "a rate limit", &owned.rate_limits),
    ]
    .into_iter()
    .filter(|(_, _, owned)| !owned.stay.is_empty())
    .map(|(table, noun, owned)| {
        let whose: BTreeSet<&str> = owned.stay.values().flatten().map(String::as_str).collect();
        Finding {
            code: "R004".to_owned(),
            severity: Severity::Warning,
            title: format!("{noun} that somebody else refers to stays"),
            table: table.to_owned(),
            column: None,
            rows: u64::try_from(owned.stay.len()).unwrap_or(u64::MAX),
            sample_ids: owned.stay.keys().take(SAMPLES).cloned().collect(),
            effect: format!(
                "it is referred to by {}",
                whose.into_iter().collect::<Vec<_>>().join(", ")
            ),
            resolve: "nothing to do; it belongs to whoever is left".to_owned(),
        }
    })
    .collect()
}

/// Who of an owner column's values is deleted: the key, its provider configs, or its model configs.
#[derive(Clone, Copy, Debug)]
enum Mine {
    Key,
    Configs,
    Models,
}

impl Mine {
    /// The ids, bound; `None` where there is none of the kind.
    fn bind(self, target: &Deletion, ids: &Ids, parameters: &mut Parameters) -> Option<String> {
        match self {
            Self::Key => target.key().map(|id| parameters.bind(id)),
            Self::Configs => (!ids.configs.is_empty()).then(|| parameters.list(&ids.configs)),
            Self::Models => (!ids.models.is_empty()).then(|| parameters.list(&ids.models)),
        }
    }
}

/// A row, and whose it is.
#[derive(FromQueryResult)]
struct Whose {
    id: String,
    whose: String,
}

async fn texts<C: ConnectionTrait>(
    connection: &C,
    statement: Statement,
) -> std::result::Result<Vec<(String, String)>, DbErr> {
    let found: Vec<Whose> = rows::all(connection, statement).await?;
    Ok(found.into_iter().map(|row| (row.id, row.whose)).collect())
}

/// Finds what is theirs; `None` where the owner is not there. With `lock` its row and its configs are locked first.
async fn plan<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    target: &Deletion,
    lock: bool,
) -> std::result::Result<Option<Owned>, DbErr> {
    let dialect = catalog.dialect;
    let lock = if lock && dialect == Dialect::Postgres {
        "FOR UPDATE"
    } else {
        ""
    };
    let mut owned = Owned::default();
    let mut parameters = Parameters::new(dialect);
    let condition = match target {
        Deletion::VirtualKey(id) => {
            let mut key = Parameters::new(dialect);
            let sql = format!(
                "SELECT id FROM {VIRTUAL_KEYS} WHERE id = {} {lock}",
                key.bind(id.as_str())
            );
            if connection
                .query_one_raw(key.statement(sql))
                .await?
                .is_none()
            {
                return Ok(None);
            }
            format!("virtual_key_id = {}", parameters.bind(id.as_str()))
        }
        Deletion::ProviderConfig(id) => format!("id = {}", parameters.bind(*id)),
    };
    owned.ids.configs = rows::column(
        connection,
        parameters.statement(format!(
            "SELECT CAST(id AS bigint) AS id FROM {PROVIDER_CONFIGS} WHERE {condition} ORDER BY id {lock}"
        )),
    )
    .await?;
    if matches!(target, Deletion::ProviderConfig(_)) && owned.ids.configs.is_empty() {
        return Ok(None);
    }
    owned.ids.models = model_configs(connection, catalog, target, lock).await?;
    owned.budgets = owned_rows(
        connection,
        catalog,
        target,
        &owned.ids,
        BUDGETS,
        "budget_id",
    )
    .await?;
    owned.rate_limits = owned_rows(
        connection,
        catalog,
        target,
        &owned.ids,
        RATE_LIMITS,
        "rate_limit_id",
    )
    .await?;
    Ok(Some(owned))
}

/// The model configs that go: of the key all that are its own; with a provider config the one for all models of its provider,
/// unless another config of the key has that provider.
async fn model_configs<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    target: &Deletion,
    lock: &str,
) -> std::result::Result<Vec<String>, DbErr> {
    let has = |table: &str, column: &str| catalog.has_column(table, column);
    if !has_budgets_of_model_configs(has) || !has(MODEL_CONFIGS, "scope_id") {
        return Ok(Vec::new());
    }
    let mut parameters = Parameters::new(catalog.dialect);
    let condition = match target {
        Deletion::VirtualKey(id) => format!("m.scope_id = {}", parameters.bind(id.as_str())),
        Deletion::ProviderConfig(id) => {
            let id = parameters.bind(*id);
            format!(
                "m.model_name = '*' AND EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c WHERE c.id = {id} \
                 AND c.virtual_key_id = m.scope_id AND c.provider = m.provider AND NOT EXISTS \
                 (SELECT 1 FROM {PROVIDER_CONFIGS} o WHERE o.virtual_key_id = c.virtual_key_id AND o.provider = c.provider \
                 AND o.id <> c.id))"
            )
        }
    };
    rows::column(
        connection,
        parameters.statement(format!(
            "SELECT m.id AS id FROM {MODEL_CONFIGS} m WHERE m.scope = 'virtual_key' AND {condition} ORDER BY m.id {lock}"
        )),
    )
    .await
}

/// The rows of a table that are theirs, by an owner column of the row or by a reference to it.
async fn owned_rows<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    target: &Deletion,
    ids: &Ids,
    table: &str,
    reference: &str,
) -> std::result::Result<OwnedRows, DbErr> {
    if !catalog.has_table(table) {
        return Ok(OwnedRows::default());
    }
    let mut claims = Claims {
        target,
        ids,
        table,
        dialect: catalog.dialect,
        mine: Parameters::new(catalog.dialect),
        not_mine: Parameters::new(catalog.dialect),
        theirs: Vec::new(),
        others: Vec::new(),
    };
    claims.by_owner_columns(catalog);
    claims.by_references(catalog, reference);
    if claims.theirs.is_empty() {
        return Ok(OwnedRows::default());
    }
    let theirs = claims.theirs.join(" OR ");
    let mut owned = OwnedRows {
        go: texts(
            connection,
            claims.mine.statement(format!(
                "SELECT b.id AS id, '' AS whose FROM {table} b WHERE {theirs} ORDER BY b.id"
            )),
        )
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect(),
        stay: BTreeMap::new(),
    };
    if owned.go.is_empty() || claims.others.is_empty() {
        return Ok(owned);
    }
    let needed = format!(
        "SELECT o.id AS id, o.whose AS whose FROM ({}) o WHERE o.id IN ({}) ORDER BY 1, 2",
        claims.others.join(" UNION ALL "),
        claims.not_mine.list(&owned.go)
    );
    for (id, whose) in texts(connection, claims.not_mine.statement(needed)).await? {
        owned.stay.entry(id).or_default().insert(whose);
    }
    owned.go.retain(|id| !owned.stay.contains_key(id));
    Ok(owned)
}

/// Who claims rows of a table: those that are deleted, and the same rows as seen from others, who stay.
struct Claims<'a> {
    target: &'a Deletion,
    ids: &'a Ids,
    table: &'a str,
    dialect: Dialect,
    mine: Parameters,
    not_mine: Parameters,
    /// Conditions, each of which makes a row theirs.
    theirs: Vec<String>,
    /// Queries of id and owner, of everybody else.
    others: Vec<String>,
}

impl Claims<'_> {
    /// By the row's own columns.
    fn by_owner_columns(&mut self, catalog: &Catalog) {
        let table = self.table;
        for (name, kind, whose) in [
            ("virtual_key_id", Some(Mine::Key), "virtual key"),
            ("provider_config_id", Some(Mine::Configs), "provider config"),
            ("model_config_id", Some(Mine::Models), "model config"),
            ("team_id", None, "team"),
            ("customer_id", None, "customer"),
        ] {
            if !catalog.has_column(table, name) {
                continue;
            }
            let column = format!("b.{name}");
            if let Some(ids) = self.bind_mine(kind) {
                self.theirs.push(format!("{column} IN ({ids})"));
            }
            let stays = self.is_not_mine(&column, kind);
            self.others.push(format!(
                "SELECT b.id AS id, '{whose} ' || CAST({column} AS text) AS whose FROM {table} b \
                 WHERE {column} IS NOT NULL AND {stays}"
            ));
        }
    }

    /// By what refers to the row.
    fn by_references(&mut self, catalog: &Catalog, reference: &str) {
        for (name, column) in referrers(catalog, self.table, reference) {
            let id = if catalog.has_column(name, "id") {
                "CAST(x.id AS text)"
            } else {
                "''"
            };
            let kind = match name {
                VIRTUAL_KEYS => Some(Mine::Key),
                PROVIDER_CONFIGS => Some(Mine::Configs),
                MODEL_CONFIGS => Some(Mine::Models),
                _ => None,
            };
            if let Some(ids) = self.bind_mine(kind) {
                self.theirs.push(format!(
                    "b.id IN (SELECT x.{column} FROM {name} x WHERE x.id IN ({ids}) AND x.{column} IS NOT NULL)"
                ));
            }
            let stays = self.is_not_mine("x.id", kind);
            self.others.push(format!(
                "SELECT x.{column} AS id, '{name} ' || {id} AS whose FROM {name} x WHERE x.{column} IS NOT NULL AND {stays}"
            ));
        }
    }

    fn bind_mine(&mut self, kind: Option<Mine>) -> Option<String> {
        kind.and_then(|kind| kind.bind(self.target, self.ids, &mut self.mine))
    }

    /// Of nobody's ids none is theirs.
    fn is_not_mine(&mut self, column: &str, kind: Option<Mine>) -> String {
        let ids = kind.and_then(|kind| kind.bind(self.target, self.ids, &mut self.not_mine));
        ids.map_or_else(
            || "1 = 1".to_owned(),
            |ids| {
                format!(
                    "NOT COALESCE({column} IN ({ids}), {})",
                    self.dialect.false_literal()
                )
            },
        )
    }
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
async fn count_deletions(
    connection: &Connection,
    catalog: &Catalog,
    target: &Deletion,
    owned: &Owned,
) -> std::result::Result<Vec<Change>, DbErr> {
    let mut changes = Vec::new();
    if catalog.has_table(JOIN) && !owned.ids.configs.is_empty() {
        let mut parameters = Parameters::new(catalog.dialect);
        let sql = format!(
            "SELECT count(*) AS number FROM {JOIN} WHERE {JOIN_COLUMN} IN ({})",
            parameters.list(&owned.ids.configs)
        );
        let joined = rows::count(connection, parameters.statement(sql)).await?;
        count(&mut changes, JOIN, "delete", joined, None);
    }
    if let Some(key) = target.key() {
        changes.extend(count_rows_of_virtual_key(connection, key).await?);
    }
    let detached = owned_and_needed(connection, catalog, target, owned).await?;
    add_changes(&mut changes, target, owned, detached);
    Ok(changes)
}

/// The rows that are known by name.
fn add_changes(changes: &mut Vec<Change>, target: &Deletion, owned: &Owned, detached: Vec<String>) {
    let mut tell = |table: &str, action: &str, ids: Vec<String>| {
        let rows = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        count(changes, table, action, rows, ids);
    };
    tell(BUDGETS, "detach", detached);
    tell(BUDGETS, "delete", owned.budgets.go.clone());
    tell(
        PROVIDER_CONFIGS,
        "delete",
        owned.ids.configs.iter().map(i64::to_string).collect(),
    );
    tell(MODEL_CONFIGS, "delete", owned.ids.models.clone());
    tell(
        VIRTUAL_KEYS,
        "delete",
        target.key().map(str::to_owned).into_iter().collect(),
    );
    tell(RATE_LIMITS, "delete", owned.rate_limits.go.clone());
}

async fn transaction(
    connection: &Connection,
    catalog: &Catalog,
    target: &Deletion,
) -> std::result::Result<Option<(Vec<Change>, Vec<Finding>)>, DbErr> {
    let transaction = retry::begin(connection).await?;
    let deleted = delete_all(&transaction, catalog, target).await?;
    transaction.commit().await?;
    Ok(deleted)
}

async fn delete_all<C: ConnectionTrait>(
    transaction: &C,
    catalog: &Catalog,
    target: &Deletion,
) -> std::result::Result<Option<(Vec<Change>, Vec<Finding>)>, DbErr> {
    let dialect = catalog.dialect;
    let Some(owned) = plan(transaction, catalog, target, true).await? else {
        return Ok(None);
    };
    let mut changes = Vec::new();
    if catalog.has_table(JOIN) && !owned.ids.configs.is_empty() {
        let mut parameters = Parameters::new(dialect);
        let sql = format!(
            "DELETE FROM {JOIN} WHERE {JOIN_COLUMN} IN ({})",
            parameters.list(&owned.ids.configs)
        );
        let rows = transaction
            .execute_raw(parameters.statement(sql))
            .await?
            .rows_affected();
        count(&mut changes, JOIN, "delete", rows, None);
    }
    if let Some(key) = target.key() {
        changes.extend(delete_rows_of_virtual_key(transaction, key).await?);
    }
    let detached = owned_and_needed(transaction, catalog, target, &owned).await?;
    // As many statements as tables and columns.
    for statement in statements(catalog, target, &owned) {
        transaction.execute_raw(statement).await?;
    }
    add_changes(&mut changes, target, &owned, detached);
    Ok(Some((changes, kept(&owned))))
}

/// Which of the budgets that stay lose an owner: by a column of theirs, not by a reference alone.
async fn owned_and_needed<C: ConnectionTrait>(
    connection: &C,
    catalog: &Catalog,
    target: &Deletion,
    owned: &Owned,
) -> std::result::Result<Vec<String>, DbErr> {
    let stay: Vec<String> = owned.budgets.stay.keys().cloned().collect();
    let mut parameters = Parameters::new(catalog.dialect);
    let arms: Vec<String> = OWNER_COLUMNS
        .into_iter()
        .filter(|(column, _)| catalog.has_column(BUDGETS, column))
        .filter_map(|(column, mine)| {
            let ids = mine.bind(target, &owned.ids, &mut parameters)?;
            Some(format!("b.{column} IN ({ids})"))
        })
        .collect();
    if stay.is_empty() || arms.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT b.id AS id, '' AS whose FROM {BUDGETS} b WHERE b.id IN ({}) AND ({}) ORDER BY b.id",
        parameters.list(&stay),
        arms.join(" OR ")
    );
    let found = texts(connection, parameters.statement(sql)).await?;
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

/// The owner columns of budgets, each with whom of them is deleted.
const OWNER_COLUMNS: [(&str, Mine); 3] = [
    ("virtual_key_id", Mine::Key),
    ("provider_config_id", Mine::Configs),
    ("model_config_id", Mine::Models),
];

/// The owners themselves, in the order in which they are deleted.
const OWNERS: [(&str, Mine); 3] = [
    (MODEL_CONFIGS, Mine::Models),
    (PROVIDER_CONFIGS, Mine::Configs),
    (VIRTUAL_KEYS, Mine::Key),
];

/// What goes by name, in the order that foreign keys of every version allow: references before what they refer to, and
/// what stays loses its owner before a cascade could take it along. Rows go in the order of their ids.
fn statements(catalog: &Catalog, target: &Deletion, owned: &Owned) -> Vec<Statement> {
    let dialect = catalog.dialect;
    let mut statements = Vec::new();
    let stay: Vec<String> = owned.budgets.stay.keys().cloned().collect();
    for (column, mine) in OWNER_COLUMNS {
        let mut parameters = Parameters::new(dialect);
        if !stay.is_empty()
            && catalog.has_column(BUDGETS, column)
            && let Some(ids) = mine.bind(target, &owned.ids, &mut parameters)
        {
            let sql = format!(
                "UPDATE {BUDGETS} SET {column} = NULL WHERE {column} IN ({ids}) AND id IN ({})",
                parameters.list(&stay)
            );
            statements.push(parameters.statement(sql));
        }
    }
    for (table, mine) in OWNERS {
        for column in ["budget_id", "rate_limit_id"] {
            let mut parameters = Parameters::new(dialect);
            if catalog.has_column(table, column)
                && let Some(ids) = mine.bind(target, &owned.ids, &mut parameters)
            {
                statements.push(parameters.statement(format!(
                    "UPDATE {table} SET {column} = NULL WHERE id IN ({ids}) AND {column} IS NOT NULL"
                )));
            }
        }
    }
    let mut delete = |table: &str, ids: Option<String>, parameters: Parameters| {
        if let Some(ids) = ids {
            statements
                .push(parameters.statement(format!("DELETE FROM {table} WHERE id IN ({ids})")));
        }
    };
    let named = |ids: &[String], parameters: &mut Parameters| {
        (!ids.is_empty()).then(|| parameters.list(ids))
    };
    let mut parameters = Parameters::new(dialect);
    delete(
        BUDGETS,
        named(&owned.budgets.go, &mut parameters),
        parameters,
    );
    for (table, mine) in OWNERS {
        let mut parameters = Parameters::new(dialect);
        delete(
            table,
            mine.bind(target, &owned.ids, &mut parameters),
            parameters,
        );
    }
    let mut parameters = Parameters::new(dialect);
    delete(
        RATE_LIMITS,
        named(&owned.rate_limits.go, &mut parameters),
        parameters,
    );
    statements
}
