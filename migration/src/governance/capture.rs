//! What old code changes while contract runs (PostgreSQL): three tables' triggers note it, so that the full catch-up can happen
//! outside of the lock, and what is left to do under it is what was touched since.
//!
//! No trigger names a column of the gateway's as a column: its own `DROP COLUMN` would fail on one that a killed run left, or every
//! later update would. The function writes with its owner's rights and swallows the absence of the table, so that leftovers never
//! stop a gateway. Whether everything is as it was made, and nothing was missed, is proven under the lock.

use crate::catalog::{Catalog, Trigger};
use crate::context::Context;
use crate::dialect::Dialect;
use crate::plan::Blocks;
use crate::plan_builder::PlanBuilder;
use crate::track::Ask;

use super::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};

/// The notes: which row, what it referred to before and after, and whose it was.
pub const TOUCHED: &str = "tollgate_touched";

/// The question whether a capture is there as it was made.
pub(super) const INTACT: Ask = ("capture_intact", intact);

/// The question whether anything of a capture is there: without its function, no trigger is.
pub(super) const LEFT: Ask = ("capture_left", left);

const FUNCTION: &str = "tollgate_note";

/// A table, the column whose change is noted, and the one that says whose the row is.
struct Captured {
    table: &'static str,
    column: &'static str,
    owner: Option<&'static str>,
}

/// The tables with what of them this database has.
fn captured(catalog: &Catalog) -> Vec<Captured> {
    [
        (VIRTUAL_KEYS, "budget_id", None),
        (PROVIDER_CONFIGS, "budget_id", Some("virtual_key_id")),
        (BUDGETS, "calendar_aligned", None),
    ]
    .into_iter()
    .map(|(table, column, owner)| Captured {
        table,
        column,
        owner: owner.filter(|owner| catalog.has_column(table, owner)),
    })
    .collect()
}

const MOVED: &str = "tollgate_note_moved";
const CAME: &str = "tollgate_note_came";
const EMPTIED: &str = "tollgate_note_emptied";

/// The state of the capture, as one text: every trigger with its definition and whether it fires, and the function's body.
fn fingerprint() -> String {
    format!(
        "(SELECT md5(COALESCE(string_agg(concat_ws(' ', t.tgrelid::regclass, t.tgenabled::text, pg_get_triggerdef(t.oid)), ',' \
         ORDER BY t.tgrelid, t.tgname), '') || COALESCE((SELECT string_agg(p.prosrc, '') FROM pg_proc p \
         WHERE p.proname = '{FUNCTION}' AND p.pronamespace = quote_ident(current_schema())::regnamespace), '')) \
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname IN ('{MOVED}', '{CAME}', '{EMPTIED}') \
         AND c.relnamespace = quote_ident(current_schema())::regnamespace)"
    )
}

/// Finds a row where the capture is as it was made: the same table of notes, the same triggers, and no table emptied since.
fn is_intact() -> String {
    format!(
        "EXISTS (SELECT 1 FROM {TOUCHED} n WHERE n.source = '' AND n.old_id = '{TOUCHED}'::regclass::oid::text \
         AND n.new_id = {}) AND NOT EXISTS (SELECT 1 FROM {TOUCHED} n WHERE n.old_id IS NULL AND n.new_id IS NULL)",
        fingerprint()
    )
}

fn intact(catalog: &Catalog) -> Option<String> {
    let has = |column: &str| catalog.has_column(TOUCHED, column);
    let is_ours = has("source") && has("old_id") && has("new_id");
    (catalog.dialect == Dialect::Postgres && is_ours)
        .then(|| format!("SELECT 1 AS one WHERE {}", is_intact()))
}

/// Finds a row where something of the capture is not as it was made.
pub(super) fn proof() -> String {
    format!("SELECT '{TOUCHED}' AS id WHERE NOT ({})", is_intact())
}

/// Finds a row where anything of a capture is there.
fn left(catalog: &Catalog) -> Option<String> {
    (catalog.dialect == Dialect::Postgres).then(|| {
        format!(
            "SELECT 1 AS one WHERE to_regclass('{TOUCHED}') IS NOT NULL \
             OR EXISTS (SELECT 1 FROM pg_proc p WHERE p.proname = '{FUNCTION}' \
             AND p.pronamespace = quote_ident(current_schema())::regnamespace)"
        )
    })
}

/// Begins to note, in a transaction of its own; what an earlier run has left is gone then. Nothing where one is at work already.
pub(super) fn begin(context: &Context, builder: &mut PlanBuilder) {
    if context.answers.contains(INTACT.0) {
        return;
    }
    let catalog = builder.catalog.clone();
    let schema = Dialect::Postgres.quote(&catalog.schema);
    let tables = captured(&catalog);
    let names: Vec<&str> = tables.iter().map(|captured| captured.table).collect();
    builder.boundary();
    builder.statement(
        format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
            Dialect::Postgres.quote_all(&names)
        ),
        "triggers note what old code changes from here on, until contract commits",
        Blocks::Writers,
    );
    for (sql, blocks) in removals(builder) {
        builder.part(sql, "what a run that was killed has left", blocks);
    }
    builder.part(
        format!(
            "CREATE TABLE {TOUCHED} (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text NOT NULL, old_id text, \
             new_id text, old_value text, new_value text, old_owner text, new_owner text)"
        ),
        "the list",
        Blocks::Nothing,
    );
    builder.part(
        format!(
            "CREATE FUNCTION {schema}.{FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog, pg_temp AS $note$ DECLARE was jsonb; becomes jsonb; BEGIN \
             IF TG_OP IN ('UPDATE', 'DELETE') THEN was := to_jsonb(OLD); END IF; \
             IF TG_OP IN ('UPDATE', 'INSERT') THEN becomes := to_jsonb(NEW); END IF; \
             INSERT INTO {schema}.{TOUCHED} (source, old_id, new_id, old_value, new_value, old_owner, new_owner) \
             VALUES (TG_TABLE_NAME, was->>'id', becomes->>'id', was->>TG_ARGV[0], becomes->>TG_ARGV[0], was->>TG_ARGV[1], becomes->>TG_ARGV[1]); \
             RETURN NULL; EXCEPTION WHEN undefined_table OR insufficient_privilege THEN RETURN NULL; END $note$"
        ),
        "what notes",
        Blocks::Nothing,
    );
    for captured in &tables {
        watch(builder, &schema, captured);
    }
    builder.part(
        format!(
            "INSERT INTO {TOUCHED} (source, old_id, new_id) VALUES ('', '{TOUCHED}'::regclass::oid::text, {})",
            fingerprint()
        ),
        "what is there is written down, to be proven at the end",
        Blocks::Nothing,
    );
    builder
        .catalog
        .tables
        .entry(TOUCHED.to_owned())
        .or_default();
    builder.boundary();
}

/// The triggers of one table.
fn watch(builder: &mut PlanBuilder, schema: &str, captured: &Captured) {
    let Captured {
        table,
        column,
        owner,
    } = captured;
    let call = format!(
        "EXECUTE FUNCTION {schema}.{FUNCTION}('{column}', '{}')",
        owner.unwrap_or_default()
    );
    let differs: Vec<String> = std::iter::once(*column)
        .chain(*owner)
        .map(|column| {
            format!("(to_jsonb(old)->>'{column}') IS DISTINCT FROM (to_jsonb(new)->>'{column}')")
        })
        .collect();
    for (name, when) in [
        (
            MOVED,
            format!(
                "AFTER UPDATE ON {table} FOR EACH ROW WHEN ({})",
                differs.join(" OR ")
            ),
        ),
        (
            CAME,
            format!("AFTER INSERT OR DELETE ON {table} FOR EACH ROW"),
        ),
        (
            EMPTIED,
            format!("AFTER TRUNCATE ON {table} FOR EACH STATEMENT"),
        ),
    ] {
        builder.part(
            format!("CREATE TRIGGER {name} {when} {call}"),
            "changes are noted",
            Blocks::Writers,
        );
        builder.part(
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"),
            "by whoever they are made",
            Blocks::Writers,
        );
        if let Some(live) = builder.catalog.tables.get_mut(*table) {
            live.triggers.push(Trigger {
                name: name.to_owned(),
                definition: String::new(),
            });
        }
    }
}

/// Takes the capture away, whatever of it is there.
pub(super) fn end(builder: &mut PlanBuilder) {
    for (at, (sql, blocks)) in removals(builder).into_iter().enumerate() {
        if at == 0 {
            builder.statement(sql, "nothing is noted any more", blocks);
        } else {
            builder.part(sql, "what noted, and the list", blocks);
        }
    }
}

/// What takes it away. The triggers go first: a writer's waits for the list while its rows are locked.
fn removals(builder: &mut PlanBuilder) -> Vec<(String, Blocks)> {
    let mut removals = Vec::new();
    for table in [VIRTUAL_KEYS, PROVIDER_CONFIGS, BUDGETS] {
        let Some(live) = builder.catalog.tables.get_mut(table) else {
            continue;
        };
        // Whoever asks for one that is not there waits for the table all the same. In one order, whatever the catalog's: a plan that is
        // made again is the same one.
        for name in [MOVED, CAME, EMPTIED] {
            let there = live.triggers.len();
            live.triggers.retain(|trigger| trigger.name != name);
            if live.triggers.len() < there {
                removals.push((
                    format!("DROP TRIGGER IF EXISTS {name} ON {table}"),
                    Blocks::Everyone,
                ));
            }
        }
    }
    removals.push((
        format!("DROP FUNCTION IF EXISTS {FUNCTION}()"),
        Blocks::Nothing,
    ));
    removals.push((format!("DROP TABLE IF EXISTS {TOUCHED}"), Blocks::Nothing));
    builder.catalog.tables.remove(TOUCHED);
    removals
}

/// The same in a transaction of its own, where a run that was killed has left something.
pub(super) fn clear(context: &Context, builder: &mut PlanBuilder) {
    if context.answers.contains(LEFT.0) {
        builder.boundary();
        end(builder);
        builder.boundary();
    }
}

/// The budgets that anything was noted of: `budget`.
pub(super) fn budgets() -> String {
    format!(
        "SELECT x.budget AS budget FROM (SELECT old_value AS budget FROM {TOUCHED} WHERE source <> '{BUDGETS}' \
         UNION SELECT new_value FROM {TOUCHED} WHERE source <> '{BUDGETS}' \
         UNION SELECT old_id FROM {TOUCHED} WHERE source = '{BUDGETS}' \
         UNION SELECT new_id FROM {TOUCHED} WHERE source = '{BUDGETS}') x WHERE x.budget <> ''"
    )
}

/// The virtual keys whose flag may be another one: those that were noted, and those behind the budgets that were: `id`.
pub(super) fn keys() -> String {
    let budgets = budgets();
    format!(
        "SELECT old_id AS id FROM {TOUCHED} WHERE source = '{VIRTUAL_KEYS}' AND old_id IS NOT NULL \
         UNION SELECT new_id FROM {TOUCHED} WHERE source = '{VIRTUAL_KEYS}' AND new_id IS NOT NULL \
         UNION SELECT old_owner FROM {TOUCHED} WHERE source = '{PROVIDER_CONFIGS}' AND old_owner IS NOT NULL \
         UNION SELECT new_owner FROM {TOUCHED} WHERE source = '{PROVIDER_CONFIGS}' AND new_owner IS NOT NULL \
         UNION SELECT r.id FROM ({budgets}) t JOIN {VIRTUAL_KEYS} r ON r.budget_id = t.budget \
         UNION SELECT r.virtual_key_id FROM ({budgets}) t JOIN {PROVIDER_CONFIGS} r ON r.budget_id = t.budget"
    )
}

/// The mark of what was found by a walk and not noted by a trigger.
const FOUND: &str = "found";

/// Notes the rows of a table that a query names in a column `id`, as if they had just been touched.
pub(super) fn find(builder: &mut PlanBuilder, table: &str, ids: &str, purpose: &str) {
    builder.bookkeeping(
        format!(
            "INSERT INTO {TOUCHED} (source, old_id, new_owner) SELECT '{table}', found.id, '{FOUND}' FROM ({ids}) found"
        ),
        purpose,
    );
}

/// Forgets what a walk has found, when it is done: what is touched after it is noted again.
pub(super) fn forget_found(builder: &mut PlanBuilder) {
    builder.bookkeeping(
        format!(
            "DELETE FROM {TOUCHED} WHERE new_owner = '{FOUND}' AND source <> '{PROVIDER_CONFIGS}'"
        ),
        "what was found is done",
    );
}
