//! The steps, oldest first: the legacy table, the flag, its value, and the word goes.

use tollgate_migration::ddl::Type::{Bool, Text, Time, Varchar};
use tollgate_migration::ddl::{TableSpec, column, index};
use tollgate_migration::loss::Loss;
use tollgate_migration::plan::{Action, Backfill, Blocks, Created};
use tollgate_migration::plan_builder::PlanBuilder;
use tollgate_migration::{Context, Dialect, Migration, Phase};

use crate::badges::Badges;
use crate::{SEATS, VACANT_SEATS};

/// In the order in which they run.
pub const ALL: &[&Migration] = &[&BASELINE, &EXPAND, &BACKFILL, &CONTRACT];

const BASELINE: Migration = Migration {
    version: "m20260101_000001_seats_baseline",
    phase: Phase::Expand,
    summary: "the legacy table, where there is none",
    up: |_, builder| {
        builder.create_table(&TableSpec {
            name: SEATS.to_owned(),
            columns: vec![
                column("id", Varchar(64)).not_null(),
                column("holder", Text).not_null(),
                column("state", Text),
                column("last_seen", Time),
            ],
            primary_key: vec!["id".to_owned()],
            foreign_keys: vec![],
            checks: vec![],
            indexes: vec![index("idx_seats_holder", &["holder"])],
        });
    },
    down: undo,
    losses: Loss::of_tables,
};

const EXPAND: Migration = Migration {
    version: "m20260102_000002_seat_flag_expand",
    phase: Phase::Expand,
    summary: "the flag beside the word, and a badge",
    up: |_, builder| {
        builder.add_column(SEATS, &column("active", Bool).default("false"), None, None);
        builder.add_column(SEATS, &column("badge", Varchar(36)), None, None);
    },
    down: undo,
    // Until contract the word says the same.
    losses: |_, _| Vec::new(),
};

const BACKFILL: Migration = Migration {
    version: "m20260102_000003_seat_flag_backfill",
    phase: Phase::Backfill,
    summary: "the flag says what the word says, and every seat gets its badge",
    up: |context, builder| {
        if context.catalog.has_column(SEATS, "state") {
            if context.chose(&VACANT_SEATS) {
                builder.update(
                    SEATS,
                    format!(
                        "UPDATE {SEATS} SET state = 'off' WHERE state = 'on' AND trim(holder) = ''"
                    ),
                    "seats that nobody holds are turned off",
                    Blocks::Rows,
                );
            }
            builder.backfill(pass(builder.dialect()));
        }
        builder.paged(Badges);
    },
    down: |context, _, builder| {
        if context.catalog.has_column(SEATS, "active") {
            let no = builder.dialect().false_literal();
            builder.update(
                SEATS,
                format!(
                    "UPDATE {SEATS} SET active = {no}, badge = NULL WHERE active <> {no} OR badge IS NOT NULL"
                ),
                "flags and badges as they were before",
                Blocks::Rows,
            );
        }
    },
    // The word says the same, but where new code has turned a seat on by its flag.
    losses: |context, _| {
        let dialect = context.catalog.dialect;
        if !context.catalog.has_column(SEATS, "state") {
            return Vec::new();
        }
        vec![Loss {
            table: SEATS.to_owned(),
            what: "the flag says on, and the word does not".to_owned(),
            sql: format!(
                "SELECT id FROM {SEATS} WHERE {} AND COALESCE(state, '') <> 'on'",
                dialect.is_true("active")
            ),
        }]
    },
};

const CONTRACT: Migration = Migration {
    version: "m20260102_000004_seat_flag_contract",
    phase: Phase::Contract,
    summary: "catches up with what old code wrote, then drops the word",
    up: |context, builder| {
        if !context.catalog.has_column(SEATS, "state") {
            return;
        }
        builder.lock_tables(&[SEATS]);
        // Somebody may have written one since the doctor looked.
        builder.guard(
            "S001",
            SEATS,
            format!("SELECT id FROM {SEATS} WHERE state IS NULL OR state NOT IN ('on', 'off')"),
        );
        let dialect = builder.dialect();
        builder.update(
            SEATS,
            format!(
                "UPDATE {SEATS} SET active = ({}) WHERE {}",
                wanted(dialect),
                due(dialect)
            ),
            "flags of words that old code wrote since the backfill",
            Blocks::Everyone,
        );
        builder.drop_column(SEATS, "state");
    },
    down: |context, created, builder| {
        for dropped in &created.dropped {
            if context.catalog.has_column(&dropped.table, &dropped.name) {
                continue;
            }
            builder.lock_tables(&[SEATS]);
            builder.restore_column(dropped);
            let active = builder.dialect().is_true("active");
            builder.update(
                SEATS,
                format!("UPDATE {SEATS} SET state = CASE WHEN {active} THEN 'on' ELSE 'off' END"),
                "the word says what the flag says",
                Blocks::Everyone,
            );
            builder.restore_constraints(dropped);
        }
    },
    losses: |_, _| Vec::new(),
};

fn undo(_context: &Context, created: &Created, builder: &mut PlanBuilder) {
    builder.undo(created);
}

/// What the flag is to be.
fn wanted(dialect: Dialect) -> String {
    let (yes, no) = (dialect.true_literal(), dialect.false_literal());
    format!("CASE WHEN state = 'on' THEN {yes} ELSE {no} END")
}

/// Rows whose flag says something else.
fn due(dialect: Dialect) -> String {
    format!(
        "active {} ({})",
        dialect.is_distinct_from(),
        wanted(dialect)
    )
}

fn pass(dialect: Dialect) -> Backfill {
    let (wanted, due) = (wanted(dialect), due(dialect));
    Backfill {
        name: "flag".to_owned(),
        purpose: "seats get their flag".to_owned(),
        table: SEATS.to_owned(),
        changes: SEATS.to_owned(),
        action: Action::Update,
        alias: "r".to_owned(),
        sql: format!(
            "UPDATE {SEATS} AS r SET active = ({wanted}) WHERE {} AND {due}",
            Backfill::RANGE
        ),
        remaining: format!("SELECT count(*) AS number FROM {SEATS} WHERE {due}"),
        estimate: format!("SELECT count(*) AS number FROM {SEATS} WHERE state = 'on'"),
    }
}
