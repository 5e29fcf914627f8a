//! What a boot of Coder's does to providers and their keys (`docs/upstream/coder.md` A3).

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::ledger::{SCHEMA_MIGRATIONS, Target};
use tollgate_migration::providers::coder;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, CHAT_USER_KEYS, MODEL_CONFIGS, NAME_PREFIX, PROVIDER_KEYS, PROVIDERS, TYPE,
    USER_KEYS, cutover,
};
use tollgate_migration::{Context, Dialect, Track};

use crate::connection::Connection;
use crate::rehearse::boot::{plainly, run, steps, unowned};

/// Coder's 495 to 505.
pub(super) async fn boot(connection: &Connection, target: &Target) -> Result<(), DbErr> {
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
