//! Every statement for PostgreSQL passes squawk's linter, or stands in the list of exemptions with a reason.

use std::collections::BTreeSet;

use squawk_linter::Linter;
use squawk_syntax::SourceFile;
use tollgate_migration::governance::SHARED_BUDGETS;
use tollgate_migration::plan::Unit;
use tollgate_migration::{Choices, Context, Track};
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

/// Rule, a part of the statement, and why it is all right there.
const EXEMPT: &[(&str, &str, &str)] = &[
    (
        "require-concurrent-index-creation",
        "ON \"chat_",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"ai_",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"user_ai_provider_keys",
        "on tables that the same run has created",
    ),
    (
        "ban-drop-table",
        "chat_provider",
        "contract exists to do that, after it has caught up",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"workspace",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"global_",
        "on tables that the same run has created",
    ),
    (
        "prefer-bigint-over-int",
        "integer",
        "the types are upstream's own, and two kinds of owner",
    ),
    (
        "require-concurrent-index-creation",
        "ON tollgate_clones",
        "Tollgate's own table, created with it",
    ),
    (
        "ban-drop-function",
        "tollgate_note()",
        "Tollgate's own, while contract runs",
    ),
    (
        "ban-drop-table",
        "tollgate_touched",
        "Tollgate's own, while contract runs",
    ),
    (
        "ban-drop-constraint",
        "\"fk_governance_",
        "the cascading key takes its place in the same transaction",
    ),
    (
        "prefer-text-field",
        "character varying",
        "the types are upstream's own",
    ),
    (
        "prefer-robust-stmts",
        "",
        "the script looks in the catalog and emits only what is missing; IF NOT EXISTS would hide a difference",
    ),
    (
        "prefer-text-field",
        "varchar",
        "the types are upstream's own",
    ),
    (
        "prefer-identity",
        "bigserial",
        "the types are upstream's own",
    ),
    (
        "ban-drop-column",
        "\"budget_id\"",
        "contract exists to do that, after it has caught up",
    ),
    (
        "ban-drop-column",
        "\"calendar_aligned\"",
        "contract exists to do that, after it has caught up",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"governance_",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"config_",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"oauth_user_",
        "on tables that the same run has created",
    ),
    (
        "require-concurrent-index-creation",
        "ON \"mcp_per_user_",
        "on tables that the same run has created",
    ),
    (
        "require-lock-timeout",
        "",
        "the runner sets it in every transaction; a concurrent build blocks nobody",
    ),
    (
        "require-statement-timeout",
        "",
        "a build or validation takes as long as the table is large, and blocks nobody meanwhile",
    ),
];

/// Every statement of a track on a database, each with whether it runs in a transaction.
fn statements(context: &Context, track: Track) -> Vec<(bool, String)> {
    let mut context = context.clone();
    let mut found = Vec::new();
    for migration in track.migrations() {
        if context.history.contains_key(migration.version) {
            continue;
        }
        let (plan, after) = migration.plan_up(&context);
        for unit in &plan.units {
            match unit {
                Unit::Transaction(steps) => {
                    found.extend(steps.iter().map(|step| (true, step.sql())));
                }
                Unit::NonTransactional(statement) => found.push((false, statement.sql.clone())),
                Unit::Backfill(pass) => found.push((
                    true,
                    pass.batch("r.ctid >= '(0,0)'::tid AND r.ctid < '(9,0)'::tid"),
                )),
                Unit::Paged(step) => {
                    found.extend(step.statements().into_iter().map(|sql| (true, sql)));
                }
            }
        }
        context = after;
    }
    found
}

#[tokio::test]
async fn every_statement_passes_the_linter_or_is_exempt_for_a_reason() {
    let fresh = TestDatabase::new(Backend::Postgres).await;
    let old = legacy(Backend::Postgres, Shape::Full, Calendar::Flag).await;
    let mut used: BTreeSet<usize> = BTreeSet::new();
    let mut complaints = Vec::new();
    let mut linted = 0;
    for database in [&fresh, &old] {
        let mut context = Context::read(&database.connection).await.unwrap();
        context.choices = Choices::none().with(&SHARED_BUDGETS);
        for &track in Track::all() {
            for (in_transaction, sql) in statements(&context, track) {
                linted += 1;
                let text = format!("{sql};");
                let parsed = SourceFile::parse(&text);
                assert!(
                    parsed.errors().is_empty(),
                    "{:?} in {text}",
                    parsed.errors()
                );
                let mut linter = Linter::with_default_rules();
                linter.settings.assume_in_transaction = in_transaction;
                for violation in linter.lint(&parsed, &text) {
                    let rule = violation.code.to_string();
                    let exemption = EXEMPT
                        .iter()
                        .position(|(code, part, _)| *code == rule && text.contains(part));
                    match exemption {
                        Some(position) => {
                            used.insert(position);
                        }
                        None => complaints.push(format!("{rule}: {text}")),
                    }
                }
            }
        }
    }
    assert!(linted > 30, "{linted} statements");
    assert!(complaints.is_empty(), "{complaints:#?}");
    let idle: Vec<_> = EXEMPT
        .iter()
        .enumerate()
        .filter(|(position, _)| !used.contains(position))
        .map(|(_, exemption)| exemption)
        .collect();
    assert!(idle.is_empty(), "exemptions that nothing needs: {idle:#?}");
}
