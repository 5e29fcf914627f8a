//! Copies of shared budgets on the legacy schema, whoever shares them: virtual keys, provider configs, teams, customers,
//! providers and model configs (`docs/upstream/bifrost.md` §2.2).

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::governance::clones::{CLONES, copy_id};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS, sharing};
use tollgate_migration::{Context, Dialect};

use crate::connection::{Connection, Transaction};
use crate::database::existing;
use crate::report::Report;
use crate::rows;

/// A kind of owner on the legacy schema: its number in the list of copies, its table and its name in derived ids. Who comes
/// first here keeps the original.
struct Kind {
    number: i32,
    table: &'static str,
    name: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind {
        number: 2,
        table: "governance_teams",
        name: "team",
    },
    Kind {
        number: 3,
        table: "governance_customers",
        name: "customer",
    },
    Kind {
        number: 4,
        table: "config_providers",
        name: "provider",
    },
    Kind {
        number: 5,
        table: "governance_model_configs",
        name: "model_config",
    },
    Kind {
        number: 0,
        table: VIRTUAL_KEYS,
        name: "virtual_key",
    },
    Kind {
        number: 1,
        table: PROVIDER_CONFIGS,
        name: "provider_config",
    },
];

/// The word for a kind of owner, as the list of copies numbers it.
pub(crate) fn word(number: i32) -> &'static str {
    KINDS
        .iter()
        .find(|kind| kind.number == number)
        .map_or("owner", |kind| kind.name)
}

/// How many copies are made in one transaction.
const PAGE: usize = 200;

/// Whether the gateway's migration is still to come.
pub(crate) fn is_legacy(live: &Context) -> bool {
    live.catalog.has_column(VIRTUAL_KEYS, "budget_id")
        && !live.catalog.has_column(BUDGETS, "virtual_key_id")
}

fn present(live: &Context) -> impl Iterator<Item = (usize, &'static Kind)> {
    KINDS
        .iter()
        .enumerate()
        .filter(|(_, kind)| live.catalog.has_column(kind.table, "budget_id"))
}

/// Every claim on a budget: `place`, `kind`, `owner` as text, `budget`.
fn claims(live: &Context) -> String {
    let arms: Vec<String> = present(live)
        .map(|(place, kind)| {
            format!(
                "SELECT {place} AS place, {} AS kind, CAST(t.id AS text) AS owner, t.budget_id AS budget FROM {} t \
                 WHERE t.budget_id IS NOT NULL AND t.budget_id <> ''",
                kind.number, kind.table
            )
        })
        .collect();
    arms.join(" UNION ALL ")
}

/// Every claim that cannot keep the original: `budget`, `kind`, `owner`.
fn further(live: &Context) -> String {
    // The same order on both backends: numbers by their value, texts byte by byte.
    let order = match live.catalog.dialect {
        Dialect::Postgres => {
            "CASE WHEN c.kind IN (1, 4) THEN lpad(c.owner, 20, '0') ELSE c.owner END COLLATE \"C\""
        }
        Dialect::Sqlite => {
            "CASE WHEN c.kind IN (1, 4) THEN printf('%020d', c.owner) ELSE c.owner END"
        }
    };
    format!(
        "SELECT budget, kind, owner FROM (SELECT c.budget, c.kind, c.owner, \
         row_number() OVER (PARTITION BY c.budget ORDER BY c.place, {order}) AS rank \
         FROM ({}) c JOIN {BUDGETS} b ON b.id = c.budget) ranked WHERE rank > 1",
        claims(live)
    )
}

/// Budgets with more than one owner: `id`.
pub(crate) fn shared(live: &Context) -> Option<String> {
    is_legacy(live).then(|| {
        format!(
            "SELECT budget AS id FROM ({}) c JOIN {BUDGETS} b ON b.id = c.budget GROUP BY budget HAVING count(*) > 1",
            claims(live)
        )
    })
}

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// The copies.
    pub copies: Vec<String>,
    /// The budgets that were shared.
    pub originals: Vec<String>,
    /// Copies of earlier runs whose usage was raised to the original's.
    pub raised: Vec<String>,
}

/// Gives every further owner a copy of its own, same limit, window and usage, and re-points it. The number of transactions
/// is that of the copies by pages.
pub(super) async fn make(connection: &Connection, live: &Context) -> Result<Made, DbErr> {
    let dialect = live.catalog.dialect;
    let mut made = Made {
        raised: raise(connection, live).await?,
        ..Made::default()
    };
    let Some((columns, copied)) = sharing::copied_columns(live) else {
        return Ok(made);
    };
    let sql = format!(
        "SELECT budget, kind, owner FROM ({}) further ORDER BY budget, kind, owner LIMIT {PAGE}",
        further(live)
    );
    loop {
        let found: Vec<Further> = rows::all(
            connection,
            Statement::from_string(dialect.backend(), sql.clone()),
        )
        .await?;
        if found.is_empty() {
            made.originals.sort();
            made.originals.dedup();
            return Ok(made);
        }
        let copies: Vec<Copy> = found.into_iter().map(Copy::of).collect();
        let transaction = connection.begin().await?;
        ensure(&transaction, dialect).await?;
        page(&transaction, live, &copies, (&columns, &copied)).await?;
        transaction.commit().await?;
        for copy in copies {
            made.originals.push(copy.original);
            made.copies.push(copy.id);
        }
    }
}

/// Makes a page of copies, points their owners to them and puts them on record, in the caller's transaction.
async fn page(
    transaction: &Transaction,
    live: &Context,
    copies: &[Copy],
    (columns, copied): (&str, &str),
) -> Result<(), DbErr> {
    let dialect = live.catalog.dialect;
    let (given, values) = given(dialect, copies);
    let run = async |sql: String| {
        transaction
            .execute_raw(Statement::from_sql_and_values(
                dialect.backend(),
                sql,
                values.clone(),
            ))
            .await
            .map(|done| done.rows_affected())
    };
    run(format!(
        "{given} INSERT INTO {BUDGETS} (id, {columns}) SELECT given.copy, {copied} FROM given \
         JOIN {BUDGETS} b ON b.id = given.original \
         WHERE NOT EXISTS (SELECT 1 FROM {BUDGETS} there WHERE there.id = given.copy)"
    ))
    .await?;
    let mut pointed = 0;
    // As many as there are kinds of owners.
    for (_, kind) in present(live) {
        pointed += run(format!(
            "{given} UPDATE {table} SET budget_id = given.copy FROM given WHERE given.kind = {number} \
             AND CAST({table}.id AS text) = given.owner AND {table}.budget_id = given.original",
            table = kind.table,
            number = kind.number,
        ))
        .await?;
    }
    run(format!(
        "{given} INSERT INTO {CLONES} (original, kind, owner, copy, settled) \
         SELECT original, kind, owner, copy, 0 FROM given WHERE 1 = 1 \
         ON CONFLICT (original, kind, owner) DO UPDATE SET copy = excluded.copy, settled = 0"
    ))
    .await?;
    if pointed == 0 {
        return Err(DbErr::Custom(
            "a page of copies re-pointed nobody; nothing of it was kept".to_owned(),
        ));
    }
    Ok(())
}

/// The copies as a relation that statements select from, and its values.
fn given(dialect: Dialect, copies: &[Copy]) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = Vec::new();
    let mut rows: Vec<String> = Vec::new();
    for copy in copies {
        let at = values.len();
        let [original, owner, id] = [1, 2, 3].map(|n| dialect.parameter(at + n));
        let kind = copy.kind;
        rows.push(match dialect {
            Dialect::Postgres => format!("({original}::text, {kind}, {owner}::text, {id}::text)"),
            Dialect::Sqlite => format!("({original}, {kind}, {owner}, {id})"),
        });
        values.extend([
            copy.original.clone().into(),
            copy.owner.clone().into(),
            copy.id.clone().into(),
        ]);
    }
    let relation = format!(
        "WITH given (original, kind, owner, copy) AS (VALUES {})",
        rows.join(", ")
    );
    (relation, values)
}

/// A copy to be made of a budget, for a further owner.
struct Copy {
    original: String,
    kind: i32,
    owner: String,
    id: String,
}

impl Copy {
    fn of(further: Further) -> Self {
        let Further {
            budget,
            kind,
            owner,
        } = further;
        Self {
            id: copy_id(&budget, word(kind), &owner).to_string(),
            original: budget,
            kind,
            owner,
        }
    }
}

/// An owner that needs a copy.
#[derive(FromQueryResult)]
struct Further {
    budget: String,
    kind: i32,
    owner: String,
}

/// A gateway that ran in between spent on the original: its copies in the same window have spent as much.
async fn raise(connection: &Connection, live: &Context) -> Result<Vec<String>, DbErr> {
    let dialect = live.catalog.dialect;
    if !live.catalog.has_table(CLONES) {
        return Ok(Vec::new());
    }
    // SQLite knows no alias behind RETURNING, and PostgreSQL two columns of that name.
    let (same, id) = match dialect {
        Dialect::Postgres => ("o.last_reset IS NOT DISTINCT FROM b.last_reset", "b.id"),
        Dialect::Sqlite => ("julianday(o.last_reset) IS julianday(b.last_reset)", "id"),
    };
    let transaction = connection.begin().await?;
    let raised = rows::column(
        &transaction,
        Statement::from_string(
            dialect.backend(),
            format!(
                "UPDATE {BUDGETS} AS b SET current_usage = o.current_usage FROM {} c JOIN {BUDGETS} o ON o.id = c.original \
                 WHERE c.copy = b.id AND {same} AND COALESCE(b.current_usage, 0) < o.current_usage RETURNING {id} AS id",
                CLONES
            ),
        ),
    )
    .await?;
    transaction.commit().await?;
    Ok(raised)
}

async fn ensure<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<(), DbErr> {
    if existing(connection, dialect, &[CLONES.to_owned()])
        .await?
        .is_empty()
    {
        for statement in sharing::list() {
            connection.execute_unprepared(&statement).await?;
        }
    }
    Ok(())
}

/// Every copy of a shared budget, where the run made any: the record has them all, the answer their number.
pub(super) async fn made(connection: &Connection, report: &Report) -> Vec<serde_json::Value> {
    let dialect = connection.dialect();
    if !report.changes.iter().any(|change| change.action == "clone") {
        return Vec::new();
    }
    let sql = format!(
        "SELECT original, kind, owner, copy FROM {} WHERE copy IS NOT NULL ORDER BY original, kind, owner",
        CLONES
    );
    let rows = connection
        .query_all_raw(sea_orm::Statement::from_string(dialect.backend(), sql))
        .await;
    let text = |row: &sea_orm::QueryResult, name: &str| {
        row.try_get::<Option<String>>("", name).unwrap_or_default()
    };
    rows.unwrap_or_default()
        .iter()
        .map(|row| {
            let kind = row.try_get::<i32>("", "kind").unwrap_or_default();
            serde_json::json!({
                "original": text(row, "original"), "owner": text(row, "owner"), "copy": text(row, "copy"),
                "kind": word(kind),
            })
        })
        .collect()
}
