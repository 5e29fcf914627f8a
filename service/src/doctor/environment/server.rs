//! What a PostgreSQL server says about policies, rights, event triggers and publications.

use sea_orm::{DbErr, FromQueryResult, Statement, Value};
use tollgate_migration::Dialect;

use super::finding;
use super::needs::Needs;
use crate::connection::Connection;
use crate::report::{Finding, Severity};
use crate::rows;

type Result<T> = std::result::Result<T, DbErr>;

/// Asks with names as parameters; `{names}` stands for their list.
async fn ask<'a, T: FromQueryResult>(
    connection: &Connection,
    sql: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<T>> {
    let values: Vec<Value> = names.into_iter().map(Value::from).collect();
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<String> = (1..=values.len())
        .map(|position| Dialect::Postgres.parameter(position))
        .collect();
    rows::all(
        connection,
        Statement::from_sql_and_values(
            Dialect::Postgres.backend(),
            sql.replace("{names}", &places.join(", ")),
            values,
        ),
    )
    .await
}

/// A table, and what is to be said of it.
#[derive(FromQueryResult)]
struct Told {
    name: String,
    what: String,
}

#[derive(FromQueryResult)]
struct Hidden {
    name: String,
    policies: String,
}

#[derive(FromQueryResult)]
struct MayCreate {
    name: String,
    may: bool,
}

#[derive(FromQueryResult)]
struct EventTrigger {
    name: String,
    harmless: bool,
}

/// Tables of the current schema, as `c`.
const HERE: &str = "pg_class c WHERE c.relnamespace = quote_ident(current_schema())::regnamespace \
    AND c.relkind IN ('r', 'p') AND c.relname::text IN ({names})";

/// Tables whose rows a policy hides from this role, with the policies.
pub(super) async fn hidden(
    connection: &Connection,
    tables: &[String],
) -> Result<Vec<(String, Vec<String>)>> {
    let sql = format!(
        "SELECT c.relname::text AS name, COALESCE((SELECT string_agg('policy ' || p.polname::text, E'\\n' ORDER BY p.polname) \
         FROM pg_policy p WHERE p.polrelid = c.oid), 'no policy, so that every row is hidden') AS policies \
         FROM {HERE} AND row_security_active(c.oid) ORDER BY 1"
    );
    let hidden: Vec<Hidden> = ask(connection, &sql, tables.iter().map(String::as_str)).await?;
    Ok(hidden
        .into_iter()
        .map(|row| {
            let policies = row.policies.lines().map(str::to_owned).collect();
            (row.name, policies)
        })
        .collect())
}

/// What this role may not do and must.
pub(super) async fn missing_rights(connection: &Connection, needs: &Needs) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let owned = format!(
        "SELECT c.relname::text AS name, format('owned by %s', pg_get_userbyid(c.relowner)) AS what \
         FROM {HERE} AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1"
    );
    let written = format!(
        "SELECT c.relname::text AS name, format('no %s', concat_ws(', ', \
         CASE WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END, \
         CASE WHEN NOT has_table_privilege(c.oid, 'INSERT') THEN 'INSERT' END, \
         CASE WHEN NOT has_table_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END, \
         CASE WHEN NOT has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END)) AS what \
         FROM {HERE} AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
         AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1"
    );
    // An owner may have taken rights from itself, too.
    let updated = format!(
        "SELECT c.relname::text AS name, format('no %s', concat_ws(', ', \
         CASE WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END, \
         CASE WHEN NOT has_table_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END)) AS what \
         FROM {HERE} AND pg_has_role(c.relowner, 'USAGE') \
         AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE')) ORDER BY 1"
    );
    let only_written = needs.written.difference(&needs.owned);
    let both = needs.written.intersection(&needs.owned);
    let told: [Vec<Told>; 3] = [
        ask(connection, &owned, needs.owned.iter().map(String::as_str)).await?,
        ask(connection, &written, only_written.map(String::as_str)).await?,
        ask(connection, &updated, both.map(String::as_str)).await?,
    ];
    for row in told.into_iter().flatten() {
        found.push(finding("E002", &row.name, vec![row.what]));
    }
    if needs.creates {
        let schema: Option<MayCreate> = rows::one(
            connection,
            Statement::from_string(
                Dialect::Postgres.backend(),
                "SELECT COALESCE(current_schema(), 'none')::text AS name, \
                 COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may",
            ),
        )
        .await?;
        if let Some(MayCreate {
            name: schema,
            may: false,
        }) = schema
        {
            found.push(finding(
                "E002",
                "",
                vec![format!("no CREATE on schema {schema}")],
            ));
        }
    }
    Ok(found)
}

/// Event triggers that fire for a statement of the plans. One whose function can raise an error may stop it; what another
/// does is not known.
pub(super) async fn event_triggers(connection: &Connection, needs: &Needs) -> Result<Vec<Finding>> {
    let sql = "SELECT e.evtname::text AS name, \
         (l.lanname = 'plpgsql' AND p.prosrc !~* 'raise\\s+(exception|sqlstate|using|''|[a-z_0-9]+\\s*(;|using))') \
         OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') AS harmless \
         FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_language l ON l.oid = p.prolang \
         WHERE e.evtenabled NOT IN ('D', 'R') AND e.evtevent <> 'login' \
         AND (e.evttags IS NULL OR e.evttags && ARRAY[{names}]::text[]) ORDER BY 1";
    let mut found = Vec::new();
    let triggers: Vec<EventTrigger> = ask(connection, sql, needs.tags.iter().copied()).await?;
    for EventTrigger { name, harmless } in triggers {
        let mut told = finding("E003", "", vec![format!("event trigger {name}")]);
        if harmless {
            told.severity = Severity::Info;
            told.title = "an event trigger will see the migration's statements".to_owned();
            told.effect = "its function raises no error".to_owned();
            told.resolve = "nothing to do".to_owned();
        }
        found.push(told);
    }
    Ok(found)
}

/// Published tables whose rows the server will not update or delete, for it could not tell subscribers which.
pub(super) async fn without_identity(
    connection: &Connection,
    tables: &[String],
) -> Result<Vec<Finding>> {
    let sql = format!(
        "SELECT c.relname::text AS name, format('publication %s', min(p.pubname)) AS what FROM pg_publication p, {HERE} \
         AND (p.pubupdate OR p.pubdelete) AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS \
         (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)) \
         AND EXISTS (SELECT 1 FROM pg_publication_tables t WHERE t.pubname = p.pubname AND t.tablename = c.relname \
         AND t.schemaname = current_schema()) GROUP BY c.relname ORDER BY 1"
    );
    let told: Vec<Told> = ask(connection, &sql, tables.iter().map(String::as_str)).await?;
    Ok(told
        .into_iter()
        .map(|row| finding("E003", &row.name, vec![row.what]))
        .collect())
}
