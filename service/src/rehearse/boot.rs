//! A gateway's own migrations on a copy: what each does to the rows that a snapshot covers (`reference/bifrost.md` §2.1 and
//! §9.3, `coder.md` A3). Where the gateway's own statement would stop, this one does.

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ddl::Type::{BigInt, Bool, Text, Varchar};
use tollgate_migration::ddl::{column, index, unique_index};
use tollgate_migration::governance::bifrost;
use tollgate_migration::governance::{BUDGETS, KEYS, PROVIDER_CONFIGS, VIRTUAL_KEYS, mcp};
use tollgate_migration::ledger::{MIGRATIONS, SCHEMA_MIGRATIONS, Target};
use tollgate_migration::plan::{self, Blocks, Plan, Unit};
use tollgate_migration::providers::coder;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS, TYPE,
    USER_KEYS, cutover,
};
use tollgate_migration::script::PlanBuilder;
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::module::Module;

const TEAMS: &str = "governance_teams";
const RATE_LIMITS: &str = "governance_rate_limits";
const OF_CONFIGS: &str = "governance_virtual_key_provider_config_keys";
const CONFIGURED: &str = "config_providers";

/// One of Bifrost's migrations: its id, the release that brought it, and its work.
type Step = (&'static str, &'static str, fn(&Context, &mut PlanBuilder));

/// In the order in which it runs them.
const BIFROST: &[Step] = &[
    (
        "add_allow_all_keys_to_provider_config",
        "1.5.0-prerelease1",
        allow_all_keys,
    ),
    (
        "backfill_empty_virtual_key_configs",
        "1.5.0-prerelease1",
        fill_empty_keys,
    ),
    (
        "backfill_allowed_models_wildcard",
        "1.5.0-prerelease1",
        wildcards,
    ),
    ("add_multi_budget_tables", "1.5.0-prerelease2", multi_budget),
    ("migrate_calendar_aligned", "1.5.0-prerelease4", flags_again),
    (
        "add_team_budgets_to_budgets_table",
        "1.5.0-prerelease4",
        team_budgets,
    ),
    (
        "convert_mcp_client_tool_sync_interval_minutes_to_seconds",
        "1.5.0-prerelease6",
        seconds,
    ),
    ("gov_unique_team_names", "1.5.0", team_names),
    ("add_team_calendar_aligned_column", "1.5.3", team_flags),
    ("drop_legacy_calendar_aligned_columns", "1.5.3", drop_flags),
    (
        "backfill_vk_provider_config_blacklisted_models",
        "1.5.5",
        blacklists,
    ),
];

/// Boots the gateway of that version, as far as the track's rows are concerned.
///
/// # Errors
/// What stops the boot; what it had committed by then stays, as it would.
pub(super) async fn boot(
    connection: &Connection,
    track: Track,
    target: &Target,
) -> Result<(), DbErr> {
    (Module::of(track).boot)(connection, target).await
}

/// Molecule adds one column.
pub(crate) async fn molecule(connection: &Connection) -> Result<(), DbErr> {
    let live = Context::read(connection).await?;
    let Some(column) = Track::BILLING.find("llm_billing_mode") else {
        return Ok(());
    };
    let plan = column.plan_up(&unowned(live)).0;
    run(connection, steps(&plan)).await
}

/// The same database without ledgers: whoever boots makes everything itself.
fn unowned(mut live: Context) -> Context {
    live.ledgers.clear();
    live.upstream.clear();
    live
}

/// A statement, and whether a row of it stops the boot.
type Piece = (String, bool);

fn steps(plan: &Plan) -> Vec<Piece> {
    plan.units
        .iter()
        .flat_map(|unit| match unit {
            Unit::Transaction(steps) => steps
                .iter()
                .map(|step| (step.sql(), matches!(step, plan::Step::Guard(_))))
                .collect(),
            Unit::NonTransactional(statement) => {
                vec![(statement.sql.replace(" CONCURRENTLY", ""), false)]
            }
            Unit::Backfill(_) | Unit::CloneShared(_) | Unit::NormalizeHeaderNames(_) => Vec::new(),
        })
        .collect()
}

fn plainly(statements: Vec<String>) -> Vec<Piece> {
    statements.into_iter().map(|sql| (sql, false)).collect()
}

/// One transaction, as a gateway's migration is one.
async fn run(connection: &Connection, pieces: Vec<Piece>) -> Result<(), DbErr> {
    let sqlite = connection.dialect() == Dialect::Sqlite;
    if sqlite {
        // Ignored inside a transaction; dropping a parent with it on deletes its children.
        connection
            .execute_unprepared("PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON")
            .await?;
    }
    let transaction = connection.begin().await?;
    // As many statements as a migration has.
    for (sql, stops) in pieces {
        if !stops {
            transaction.execute_unprepared(&sql).await?;
            continue;
        }
        let found = transaction
            .query_one_raw(Statement::from_string(connection.dialect().backend(), sql))
            .await?;
        if let Some(row) = found {
            let id: String = row.try_get("", "id").unwrap_or_default();
            return Err(DbErr::Custom(format!("its preflight finds {id}")));
        }
    }
    transaction.commit().await?;
    if sqlite {
        connection
            .execute_unprepared("PRAGMA foreign_keys = ON; PRAGMA legacy_alter_table = OFF")
            .await?;
    }
    Ok(())
}

pub(crate) async fn bifrost(connection: &Connection, target: &Target) -> Result<(), DbErr> {
    let dialect = connection.dialect();
    for (id, release, work) in BIFROST {
        let brought = bifrost::parse(release).and_then(|stage| i64::try_from(stage).ok());
        let live = Context::read(connection).await?;
        if live.upstream_ran(id) || brought.is_none_or(|stage| stage > target.at) {
            continue;
        }
        let mut script = PlanBuilder::new(&live.catalog);
        work(&live, &mut script);
        let mut pieces = steps(&script.finish().0);
        pieces.push((
            format!(
                "INSERT INTO {MIGRATIONS} (id) VALUES ({})",
                dialect.text(id)
            ),
            false,
        ));
        run(connection, pieces)
            .await
            .map_err(|error| DbErr::Custom(format!("the gateway's {id} stops: {error}")))?;
    }
    // What else that release makes concerns no row here; its ledger says which one it is.
    let live = Context::read(connection).await?;
    match bifrost::mark(target.at).filter(|mark| !live.upstream_ran(mark)) {
        None => Ok(()),
        Some(mark) => {
            let sql = format!(
                "INSERT INTO {MIGRATIONS} (id) VALUES ({})",
                dialect.text(mark)
            );
            run(connection, plainly(vec![sql])).await
        }
    }
}

fn write(script: &mut PlanBuilder, table: &str, sql: String) {
    script.execute(table, sql, "the gateway's own", Blocks::Rows);
}

fn flag(script: &mut PlanBuilder, table: &str, name: &str) {
    script.add_column(table, &column(name, Bool).default("false"), None, None);
}

fn allow_all_keys(live: &Context, script: &mut PlanBuilder) {
    flag(script, PROVIDER_CONFIGS, "allow_all_keys");
    let some = if live.catalog.has_table(OF_CONFIGS) {
        format!(
            " WHERE NOT EXISTS (SELECT 1 FROM {OF_CONFIGS} k \
             WHERE k.table_virtual_key_provider_config_id = {PROVIDER_CONFIGS}.id)"
        )
    } else {
        String::new()
    };
    let yes = script.dialect().true_literal();
    write(
        script,
        PROVIDER_CONFIGS,
        format!("UPDATE {PROVIDER_CONFIGS} SET allow_all_keys = {yes}{some}"),
    );
}

fn fill_empty_keys(live: &Context, script: &mut PlanBuilder) {
    let yes = script.dialect().true_literal();
    if live.catalog.has_column(CONFIGURED, "name") {
        write(
            script,
            PROVIDER_CONFIGS,
            format!(
                "INSERT INTO {PROVIDER_CONFIGS} (virtual_key_id, provider, weight, allowed_models, allow_all_keys) \
                 SELECT v.id, p.name, 1, '[]', {yes} FROM {VIRTUAL_KEYS} v CROSS JOIN {CONFIGURED} p \
                 WHERE NOT EXISTS (SELECT 1 FROM {PROVIDER_CONFIGS} c WHERE c.virtual_key_id = v.id)"
            ),
        );
    }
    if live.catalog.has_table(mcp::GRANTS) && live.catalog.has_table(mcp::CLIENTS) {
        write(
            script,
            mcp::GRANTS,
            format!(
                "INSERT INTO {grants} (virtual_key_id, mcp_client_id, tools_to_execute) \
                 SELECT v.id, c.id, '[\"*\"]' FROM {VIRTUAL_KEYS} v CROSS JOIN {clients} c \
                 WHERE NOT EXISTS (SELECT 1 FROM {grants} g WHERE g.virtual_key_id = v.id)",
                grants = mcp::GRANTS,
                clients = mcp::CLIENTS,
            ),
        );
    }
}

fn wildcards(live: &Context, script: &mut PlanBuilder) {
    for (table, name) in [(PROVIDER_CONFIGS, "allowed_models"), (KEYS, "models_json")] {
        if live.catalog.has_column(table, name) {
            write(
                script,
                table,
                format!(
                    "UPDATE {table} SET {name} = '[\"*\"]' WHERE {name} IS NULL OR {name} IN ('[]', '')"
                ),
            );
        }
    }
}

fn multi_budget(live: &Context, script: &mut PlanBuilder) {
    let catalog = &live.catalog;
    let dialect = script.dialect();
    flag(script, VIRTUAL_KEYS, "calendar_aligned");
    for (table, owner, kind) in [
        (VIRTUAL_KEYS, "virtual_key_id", Varchar(255)),
        (PROVIDER_CONFIGS, "provider_config_id", BigInt),
    ] {
        script.add_column(BUDGETS, &column(owner, kind), None, None);
        script.create_index(BUDGETS, &index(&format!("idx_{BUDGETS}_{owner}"), &[owner]));
        if catalog.has_column(table, "budget_id") {
            // A scalar sub-select, as the gateway's: two owners stop it on PostgreSQL, and one of them wins on SQLite.
            write(
                script,
                BUDGETS,
                format!(
                    "UPDATE {BUDGETS} SET {owner} = (SELECT t.id FROM {table} t WHERE t.budget_id = {BUDGETS}.id) \
                     WHERE {owner} IS NULL AND EXISTS (SELECT 1 FROM {table} t WHERE t.budget_id = {BUDGETS}.id)"
                ),
            );
        }
    }
    if catalog.has_column(BUDGETS, "calendar_aligned") {
        write(
            script,
            VIRTUAL_KEYS,
            format!(
                "UPDATE {VIRTUAL_KEYS} SET calendar_aligned = {} WHERE id IN (SELECT virtual_key_id FROM {BUDGETS} WHERE {})",
                dialect.true_literal(),
                dialect.is_true("calendar_aligned"),
            ),
        );
        // On SQLite the gateway's own statement is wrong until 1.5.9, and the column stays.
        if dialect == Dialect::Postgres {
            script.drop_column(BUDGETS, "calendar_aligned");
        }
    }
    for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS] {
        script.drop_column(table, "budget_id");
    }
}

fn flags_again(live: &Context, script: &mut PlanBuilder) {
    let dialect = script.dialect();
    let aligned = dialect.is_true("v.calendar_aligned");
    for (table, through) in [
        (BUDGETS, format!("v.id = {BUDGETS}.virtual_key_id")),
        (RATE_LIMITS, format!("v.rate_limit_id = {RATE_LIMITS}.id")),
    ] {
        if !live.catalog.has_table(table) {
            continue;
        }
        flag(script, table, "calendar_aligned");
        if table == BUDGETS || live.catalog.has_column(VIRTUAL_KEYS, "rate_limit_id") {
            write(
                script,
                table,
                format!(
                    "UPDATE {table} SET calendar_aligned = {} WHERE EXISTS \
                     (SELECT 1 FROM {VIRTUAL_KEYS} v WHERE {through} AND {aligned})",
                    dialect.true_literal()
                ),
            );
        }
    }
}

fn team_budgets(live: &Context, script: &mut PlanBuilder) {
    script.add_column(BUDGETS, &column("team_id", Varchar(255)), None, None);
    script.create_index(
        BUDGETS,
        &index(&format!("idx_{BUDGETS}_team_id"), &["team_id"]),
    );
    if !live.catalog.has_column(TEAMS, "budget_id") {
        return;
    }
    script.guard(
        "G002",
        BUDGETS,
        format!(
            "SELECT b.id AS id FROM {BUDGETS} b JOIN {TEAMS} t ON t.budget_id = b.id \
             WHERE b.virtual_key_id IS NOT NULL OR b.provider_config_id IS NOT NULL"
        ),
    );
    write(
        script,
        BUDGETS,
        format!(
            "UPDATE {BUDGETS} SET team_id = (SELECT t.id FROM {TEAMS} t WHERE t.budget_id = {BUDGETS}.id) \
             WHERE team_id IS NULL AND EXISTS (SELECT 1 FROM {TEAMS} t WHERE t.budget_id = {BUDGETS}.id)"
        ),
    );
    script.drop_column(TEAMS, "budget_id");
}

fn seconds(live: &Context, script: &mut PlanBuilder) {
    if live.catalog.has_column(mcp::CLIENTS, "tool_sync_interval") {
        write(
            script,
            mcp::CLIENTS,
            format!(
                "UPDATE {} SET tool_sync_interval = tool_sync_interval * 60 WHERE tool_sync_interval > 0",
                mcp::CLIENTS
            ),
        );
    }
}

fn team_names(live: &Context, script: &mut PlanBuilder) {
    if !live.catalog.has_column(TEAMS, "name") {
        return;
    }
    // SQLite's table is made again with the index before its rows come back: equal names stop it.
    if script.dialect() == Dialect::Postgres {
        let oldest = if live.catalog.has_column(TEAMS, "created_at") {
            "created_at, id"
        } else {
            "id"
        };
        write(
            script,
            TEAMS,
            format!(
                "UPDATE {TEAMS} SET name = {TEAMS}.name || '-' || left({TEAMS}.id, 8) FROM (SELECT id, row_number() OVER \
                 (PARTITION BY name ORDER BY {oldest}) AS place FROM {TEAMS}) ranked \
                 WHERE ranked.id = {TEAMS}.id AND ranked.place > 1"
            ),
        );
    }
    script.create_index(
        TEAMS,
        &unique_index(&format!("idx_{TEAMS}_name"), &["name"]),
    );
}

fn team_flags(live: &Context, script: &mut PlanBuilder) {
    if !live.catalog.has_table(TEAMS) {
        return;
    }
    flag(script, TEAMS, "calendar_aligned");
    if live.catalog.has_column(BUDGETS, "calendar_aligned")
        && live.catalog.has_column(BUDGETS, "team_id")
    {
        let dialect = script.dialect();
        write(
            script,
            TEAMS,
            format!(
                "UPDATE {TEAMS} SET calendar_aligned = {} WHERE id IN (SELECT team_id FROM {BUDGETS} WHERE {})",
                dialect.true_literal(),
                dialect.is_true("calendar_aligned"),
            ),
        );
    }
}

fn drop_flags(_live: &Context, script: &mut PlanBuilder) {
    for table in [BUDGETS, RATE_LIMITS] {
        script.drop_column(table, "calendar_aligned");
    }
}

fn blacklists(_live: &Context, script: &mut PlanBuilder) {
    script.add_column(
        PROVIDER_CONFIGS,
        &column("blacklisted_models", Text),
        None,
        None,
    );
    write(
        script,
        PROVIDER_CONFIGS,
        format!(
            "UPDATE {PROVIDER_CONFIGS} SET blacklisted_models = '[]' WHERE blacklisted_models IS NULL OR blacklisted_models = ''"
        ),
    );
}

/// Coder's 495 to 505.
pub(crate) async fn coder(connection: &Connection, target: &Target) -> Result<(), DbErr> {
    let live = Context::read(connection).await?;
    let Some(number) = live.ledger(Track::PROVIDERS).number() else {
        return Ok(());
    };
    let reached = target.at.min(coder::FINISHED);
    if number < coder::EXPANDED
        && reached >= coder::EXPANDED
        && let Some(expand) = Track::PROVIDERS.find("provider_key_expand")
    {
        run(connection, steps(&expand.plan_up(&unowned(live)).0)).await?;
    }
    let live = Context::read(connection).await?;
    let stops = |number: i64| {
        move |error: DbErr| DbErr::Custom(format!("the gateway's {number} stops: {error}"))
    };
    if number < coder::COPIED && reached >= coder::COPIED {
        run(connection, plainly(copy(&live)))
            .await
            .map_err(stops(504))?;
    }
    if number < coder::FINISHED && reached >= coder::FINISHED {
        if live.catalog.has_table(CHAT_PROVIDERS) {
            let holder = connection
                .query_one_raw(Statement::from_string(
                    Dialect::Postgres.backend(),
                    cutover::name_holders(Dialect::Postgres),
                ))
                .await?;
            if holder.is_some() {
                return Err(stops(505)(DbErr::Custom(
                    "a live provider holds the name of a migrated one".to_owned(),
                )));
            }
        }
        run(connection, plainly(finish(&live)))
            .await
            .map_err(stops(505))?;
    }
    if reached > number {
        let moved = format!("UPDATE {SCHEMA_MIGRATIONS} SET version = {reached}");
        run(connection, plainly(vec![moved])).await?;
    }
    Ok(())
}

/// What 504 inserts for a legacy row, `p`.
fn new_provider() -> String {
    format!(
        "INSERT INTO {PROVIDERS} (id, type, name, display_name, enabled, base_url, created_at, updated_at) \
         SELECT p.id, p.provider::{}, '{NAME_PREFIX}' || p.provider, NULLIF(p.display_name, ''), p.enabled, p.base_url, \
         p.created_at, p.updated_at FROM {CHAT_PROVIDERS} p",
        TYPE.0
    )
}

fn links() -> String {
    format!(
        "UPDATE {MODEL_CONFIGS} c SET ai_provider_id = p.id FROM {CHAT_PROVIDERS} p \
         WHERE c.ai_provider_id IS NULL AND p.provider = c.provider"
    )
}

const KEY: &str = "api_key, api_key_key_id, created_at, updated_at";

fn copy(live: &Context) -> Vec<String> {
    let mut statements = vec![
        format!(
            "UPDATE {PROVIDERS} SET deleted = true, enabled = false, updated_at = now() WHERE NOT deleted \
             AND name IN (SELECT '{NAME_PREFIX}' || provider FROM {CHAT_PROVIDERS})"
        ),
        new_provider(),
        format!(
            "INSERT INTO {PROVIDER_KEYS} (id, provider_id, {KEY}) \
             SELECT gen_random_uuid(), id, {KEY} FROM {CHAT_PROVIDERS} WHERE api_key <> ''"
        ),
    ];
    if live.catalog.has_table(CHAT_USER_KEYS) {
        statements.push(format!(
            "INSERT INTO {USER_KEYS} (id, user_id, ai_provider_id, {KEY}) \
             SELECT id, user_id, chat_provider_id, {KEY} FROM {CHAT_USER_KEYS}"
        ));
    }
    statements.push(links());
    statements
}

fn finish(live: &Context) -> Vec<String> {
    let mut statements = vec![
        format!(
            "{} WHERE NOT EXISTS (SELECT 1 FROM {PROVIDERS} a WHERE a.id = p.id)",
            new_provider()
        ),
        format!(
            "UPDATE {PROVIDERS} a SET name = '{NAME_PREFIX}' || p.provider, display_name = NULLIF(p.display_name, ''), \
             enabled = p.enabled, base_url = p.base_url, deleted = false, updated_at = greatest(a.updated_at, p.updated_at) \
             FROM {CHAT_PROVIDERS} p WHERE a.id = p.id AND (p.updated_at > a.updated_at OR a.deleted)"
        ),
        format!(
            "DELETE FROM {PROVIDER_KEYS} k USING {CHAT_PROVIDERS} p WHERE k.provider_id = p.id AND p.api_key = '' \
             AND p.updated_at > k.updated_at"
        ),
        format!(
            "UPDATE {PROVIDER_KEYS} k SET api_key = p.api_key, api_key_key_id = p.api_key_key_id, updated_at = p.updated_at \
             FROM {CHAT_PROVIDERS} p WHERE k.provider_id = p.id AND p.api_key <> '' AND p.updated_at > k.updated_at \
             AND k.id = (SELECT o.id FROM {PROVIDER_KEYS} o WHERE o.provider_id = p.id ORDER BY o.created_at, o.id LIMIT 1)"
        ),
        format!(
            "INSERT INTO {PROVIDER_KEYS} (id, provider_id, api_key, api_key_key_id, created_at, updated_at) \
             SELECT gen_random_uuid(), p.id, p.api_key, p.api_key_key_id, p.updated_at, p.updated_at FROM {CHAT_PROVIDERS} p \
             WHERE p.api_key <> '' AND NOT EXISTS (SELECT 1 FROM {PROVIDER_KEYS} k WHERE k.provider_id = p.id)"
        ),
    ];
    if live.catalog.has_table(CHAT_USER_KEYS) {
        statements.push(format!(
            "INSERT INTO {USER_KEYS} AS k (id, user_id, ai_provider_id, {KEY}) \
             SELECT id, user_id, chat_provider_id, {KEY} FROM {CHAT_USER_KEYS} \
             ON CONFLICT (user_id, ai_provider_id) DO UPDATE SET api_key = excluded.api_key, \
             api_key_key_id = excluded.api_key_key_id, updated_at = excluded.updated_at \
             WHERE k.updated_at < excluded.updated_at"
        ));
    }
    statements.push(links());
    statements.push(format!(
        "ALTER TABLE {MODEL_CONFIGS} ADD CONSTRAINT chat_model_configs_ai_provider_required_when_active \
         CHECK (deleted = true OR ai_provider_id IS NOT NULL)"
    ));
    statements.push(format!("DROP TABLE IF EXISTS {CHAT_USER_KEYS}"));
    statements.push(format!("DROP TABLE IF EXISTS {CHAT_PROVIDERS}"));
    statements
}
