//! The hazards of the governance track (`docs/upstream/bifrost.md` §2.2 to §2.4).

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tollgate_migration::governance::SHARED_BUDGETS;
use tollgate_migration::governance::adoption;
use tollgate_migration::governance::mcp::{self, Kind};
use tollgate_migration::governance::owners::{self, LegacyColumns, Owner};
use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Context, Dialect, Track};

use super::{boots, claims};
use crate::connection::Connection;
use crate::doctor::{Facts, Hazard, Queries, Query};
use crate::duration;
use crate::parameters::Parameters;
use crate::report::Severity;
use crate::tracks::governance::budget::schema::RATE_LIMITS;
use crate::tracks::governance::credentials::Present;
use crate::tracks::governance::header_keys;

/// Migrations that move owners and flags.
const MOVES: &[&str] = &["multi_budget_backfill", "multi_budget_contract"];
/// Migrations after which the legacy columns are gone.
const DROPS: &[&str] = &["multi_budget_contract"];
/// Migrations that create the owners' foreign keys.
const CONSTRAINS: &[&str] = &["multi_budget_expand", "multi_budget_constraints"];
/// Every migration behind the baseline.
const ANY: &[&str] = &[
    "multi_budget_expand",
    "mcp_credentials",
    "multi_budget_backfill",
    "multi_budget_constraints",
    "canonical_header_keys",
    "multi_budget_contract",
];

/// No migration: rows that a routine brings in line.
const DRIFT: &[&str] = &[];

pub(crate) const HAZARDS: &[Hazard] = &[
    Hazard {
        code: "G001",
        severity: Severity::Blocking,
        title: "a budget has several owners",
        effect: "the new schema gives a budget one owner; the others would be left without a limit",
        resolve: "--shared-budgets clone gives each further owner a copy with the same usage",
        concerns: MOVES,
        queries: shared,
        choice: cloned,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G002",
        severity: Severity::Blocking,
        title: "a budget also belongs to a team, customer, provider or model config",
        effect: "deleting the virtual key would delete the other owner's budget with it",
        resolve: "--shared-budgets clone gives the virtual key or provider config a copy with the same usage",
        concerns: MOVES,
        queries: |context, _| claims::such(context, "referred > 0 AND others > 0"),
        choice: cloned,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G003",
        severity: Severity::Warning,
        title: "a reference to a budget that does not exist",
        effect: "the reference is dropped with its column; its owner has no limit now and none afterwards",
        resolve: "nothing to do, or create the budget before the migration",
        concerns: MOVES,
        queries: dangling,
        drops: true,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G004",
        severity: Severity::Info,
        title: "a budget reference that is an empty text",
        effect: "treated as no reference",
        resolve: "nothing to do",
        concerns: MOVES,
        queries: |context, _| per_owner(context, "r.budget_id = ''"),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G005",
        severity: Severity::Info,
        title: "a budget without owner",
        effect: "kept as it is; it may belong to something that Tollgate does not know",
        resolve: "nothing to do",
        concerns: MOVES,
        queries: ownerless,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G006",
        severity: Severity::Info,
        title: "a provider config's budget follows the calendar",
        effect: "its virtual key gets the flag, which upstream's own migration loses",
        resolve: "nothing to do",
        concerns: MOVES,
        queries: promoted,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G007",
        severity: Severity::Warning,
        title: "a budget that does not follow the calendar will do so with its virtual key",
        effect: "the flag belongs to the virtual key in the new schema; this budget's window moves to the calendar's",
        resolve: "align all budgets of the virtual key, or none, before the migration",
        concerns: MOVES,
        queries: also_aligned,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G008",
        severity: Severity::Warning,
        title: "upstream's own migration ran and left a legacy column behind",
        effect: "what it says is stale: it gives an owner only to a budget that has none, and a flag only from a provider config's budget",
        resolve: "nothing to do; contract drops it",
        concerns: MOVES,
        queries: leftovers,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G009",
        severity: Severity::Warning,
        title: "a budget whose window or limit makes no sense",
        effect: "moved as it is; the gateway cannot reset or enforce it",
        resolve: "give it a duration such as 1d or 24h and a limit of zero or more",
        concerns: MOVES,
        queries: senseless,
        returns: true,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G010",
        severity: Severity::Warning,
        title: "two budgets of one owner have the same duration",
        effect: "both are kept and both are enforced",
        resolve: "delete one of them in the gateway",
        concerns: ANY,
        queries: same_duration,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G011",
        severity: Severity::Warning,
        title: "a virtual key's config hash was computed with its budget's id",
        effect: "the next boot with a config file sees a change and overwrites edits made elsewhere, once",
        resolve: "bring the config file up to date before the gateway boots with it",
        concerns: DROPS,
        queries: stale_hash,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G012",
        severity: Severity::Warning,
        title: "header keys that fold to the same name, or that cannot be folded",
        effect: "of keys that fold to one name the last keeps its value",
        resolve: "write each header once",
        concerns: &["canonical_header_keys"],
        // What is JSON, SQL cannot say on PostgreSQL 15: the doctor reads the rows.
        queries: |_, _| Queries::none(),
        drops: true,
        more: Some(|connection, context, samples| {
            Box::pin(header_keys::examine(connection, context, samples))
        }),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G013",
        severity: Severity::Warning,
        title: "a credential that does not follow its key's grants",
        effect: "an active one without a grant still opens the door, an orphaned one with a grant keeps it shut",
        resolve: "tollgate reconcile credentials",
        concerns: DRIFT,
        queries: drifted_credentials,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G014",
        severity: Severity::Warning,
        title: "a credential of a virtual key that names no virtual key",
        effect: "no grant speaks for it, so no reconciliation touches it",
        resolve: "delete the row, or give it its key",
        concerns: DRIFT,
        queries: keyless,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G015",
        severity: Severity::Blocking,
        title: "a budget whose owner does not exist",
        effect: "the foreign key to the owner cannot be created",
        resolve: "set the owner column to NULL, or restore the owner",
        concerns: CONSTRAINS,
        queries: ownerless_by_key,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G016",
        severity: Severity::Blocking,
        title: "the database is past what this track knows",
        effect: "it is behind 2.0.0-prerelease3, or has objects of a later version that no ledger explains: what rows mean there is not known",
        resolve: "use a newer Tollgate; nothing is written here",
        concerns: ANY,
        queries: too_new,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G017",
        severity: Severity::Warning,
        title: "a calendar flag without a place in the new schema",
        effect: "the budget belongs to a team, customer, provider or nobody; the flag is dropped with its column, and the window rolls until a later version of the gateway has a place for it",
        resolve: "nothing to do: it is remembered, `migrate up` puts it back once there is a place, and `migrate down` gives it back to the budget",
        concerns: DROPS,
        queries: placeless_flag,
        drops: true,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G018",
        severity: Severity::Blocking,
        title: "a view, rule or trigger depends on a column that will be dropped",
        effect: "the column cannot be dropped, or what depends on it would break",
        resolve: "drop or rewrite it, then run again",
        concerns: DROPS,
        queries: dependents,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G019",
        severity: Severity::Blocking,
        title: "two credentials of one binding",
        effect: "the unique index over the binding cannot be built",
        resolve: "delete all but the newest of each binding",
        concerns: &["mcp_credentials"],
        queries: |context, _| {
            // The gateway's own migrations build these indexes, or do not.
            if context.ledger(Track::GOVERNANCE).owns() {
                return Queries::none();
            }
            Kind::ALL
                .into_iter()
                .filter_map(|kind| {
                    Some((kind.credentials(), mcp::duplicate_bindings(context, kind)?))
                })
                .collect()
        },
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G020",
        severity: Severity::Warning,
        title: "a duration that the gateway does not parse: the window never resets there",
        effect: "what was spent stays spent for the gateway, and nobody is told; `reconcile resets` reads it as it is meant",
        resolve: "write 1d, 1w, 1M or 1Y",
        concerns: DRIFT,
        queries: words_for_durations,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G021",
        severity: Severity::Warning,
        title: "a budget that teams, customers, providers or model configs share",
        effect: "the gateway's own migration stops on it (1.5.0 for two teams, 1.5.9 for the others), or leaves it two owners",
        resolve: "`tollgate migrate prepare --shared-budgets clone`, with every gateway stopped",
        concerns: DRIFT,
        queries: boots::shared_without_a_key,
        stops_boot: |target| boots::is_past("1.5.0-prerelease4", target),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G022",
        severity: Severity::Warning,
        title: "team names on which the gateway's boot stops when they become unique",
        effect: "on SQLite the jump from 1.4 fails; on PostgreSQL the gateway renames by the first 8 characters of the id, and panics on a shorter one or collides on equal ones",
        resolve: "rename the teams in the gateway before",
        concerns: DRIFT,
        queries: boots::team_names,
        stops_boot: |target| boots::is_past("1.5.0", target),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G023",
        severity: Severity::Warning,
        title: "a virtual key with two configs of one provider",
        effect: "at 1.5.9 they become one, their budgets add up and one rate limit is orphaned",
        resolve: "merge them in the gateway before",
        concerns: DRIFT,
        queries: boots::twin_configs,
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G024",
        severity: Severity::Warning,
        title: "OAuth rows on which the merge of 2.0 stops",
        effect: "two clients on one OAuth config, a second token of one binding, or a token without mode: that boot stops",
        resolve: "give each client a config of its own, and delete the older token, before 2.0",
        concerns: DRIFT,
        queries: boots::unmergeable,
        stops_boot: |target| boots::is_past("2.0.0-prerelease1", target),
        ..Hazard::PLAIN
    },
    Hazard {
        code: "G025",
        severity: Severity::Warning,
        title: "a column that the boots of 1.5.3 to 1.5.8 drop is gone already",
        effect: "on PostgreSQL each of these boots fails; 1.5.9 and later pass",
        resolve: "`tollgate schema repair` adds it again",
        concerns: DRIFT,
        queries: boots::missing_flags,
        stops_boot: |target| boots::is_past("1.5.3", target),
        ..Hazard::PLAIN
    },
];

/// Names that are known without asking the database, as a query.
fn names(context: &Context, table: &'static str, names: &[String]) -> Queries {
    if names.is_empty() {
        return Queries::none();
    }
    Queries::on(table, Query::names(context.catalog.dialect, names))
}

fn per_owner(context: &Context, condition: &str) -> Queries {
    Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            let table = owner.table();
            (
                table,
                format!("SELECT r.id AS id FROM {table} r WHERE {condition}"),
            )
        })
        .collect()
}

fn shared(context: &Context, _: &Facts) -> Queries {
    let shared = claims::such(context, "claimed > 1");
    match owners::owned_twice(context) {
        None => shared,
        Some(twice) if claims::claimed(context).is_none() => Queries::on(BUDGETS, twice),
        Some(twice) => Queries::on(
            BUDGETS,
            Query::over_shared(format!(
                "SELECT id FROM {} WHERE claimed > 1 UNION {twice}",
                claims::CLAIMED
            )),
        ),
    }
}

fn dangling(context: &Context, _: &Facts) -> Queries {
    per_owner(
        context,
        &format!(
            "r.budget_id <> '' AND NOT EXISTS (SELECT 1 FROM {BUDGETS} b WHERE b.id = r.budget_id)"
        ),
    )
}

fn ownerless(context: &Context, _: &Facts) -> Queries {
    if claims::claimed(context).is_none() {
        return Queries::on(
            BUDGETS,
            format!(
                "SELECT b.id AS id FROM {BUDGETS} b WHERE {}",
                claims::unowned(context)
            ),
        );
    }
    claims::such(context, "referred = 0 AND others = 0 AND unowned")
}

/// Whether flags are to be moved at all.
fn moves_flags(context: &Context) -> bool {
    owners::has_legacy_flag(context)
        && Owner::BOTH
            .into_iter()
            .any(|owner| owner.has_legacy_reference(context))
}

fn promoted(context: &Context, _: &Facts) -> Queries {
    if !moves_flags(context) || !Owner::ProviderConfig.has_legacy_reference(context) {
        return Queries::none();
    }
    let flagged = context.catalog.dialect.is_true("b.calendar_aligned");
    Queries::on(
        BUDGETS,
        format!(
            "SELECT DISTINCT b.id AS id FROM {PROVIDER_CONFIGS} r JOIN {BUDGETS} b ON b.id = r.budget_id \
             JOIN {VIRTUAL_KEYS} v ON v.id = r.virtual_key_id WHERE {flagged} AND r.budget_id <> ''"
        ),
    )
}

fn also_aligned(context: &Context, _: &Facts) -> Queries {
    if !moves_flags(context) {
        return Queries::none();
    }
    let sources: &[Owner] = match owners::legacy(context) {
        LegacyColumns::Authoritative => &Owner::BOTH,
        LegacyColumns::Stale => &[Owner::ProviderConfig],
    };
    let Some(flagged) = owners::flagged_by_legacy(context, sources) else {
        return Queries::none();
    };
    let unaligned = format!(
        "NOT ({})",
        context.catalog.dialect.is_true("b.calendar_aligned")
    );
    let arms: Vec<String> = Owner::BOTH
        .into_iter()
        .filter(|owner| owner.has_legacy_reference(context))
        .map(|owner| {
            let key = match owner {
                Owner::VirtualKey => "r.id",
                Owner::ProviderConfig => "r.virtual_key_id",
            };
            format!(
                "SELECT b.id AS id FROM {} r JOIN {BUDGETS} b ON b.id = r.budget_id \
                 WHERE {unaligned} AND r.budget_id <> '' AND EXISTS (SELECT 1 FROM flagged WHERE flagged.id = {key})",
                owner.table()
            )
        })
        .collect();
    Queries::on(
        BUDGETS,
        format!(
            "WITH flagged AS MATERIALIZED ({flagged}) {}",
            arms.join(" UNION ")
        ),
    )
}

fn leftovers(context: &Context, _: &Facts) -> Queries {
    if owners::legacy(context) == LegacyColumns::Authoritative {
        return Queries::none();
    }
    let mut queries = Queries::none();
    for owner in Owner::BOTH {
        if owner.has_legacy_reference(context) {
            queries.extend(names(context, owner.table(), &["budget_id".to_owned()]));
        }
    }
    if owners::has_legacy_flag(context) {
        queries.extend(names(context, BUDGETS, &["calendar_aligned".to_owned()]));
    }
    queries
}

fn senseless(context: &Context, facts: &Facts) -> Queries {
    let dialect = context.catalog.dialect;
    let unreadable: Vec<&str> = facts
        .durations
        .iter()
        .filter(|(_, nanoseconds)| nanoseconds.is_none_or(|nanoseconds| nanoseconds <= 0))
        .map(|(text, _)| text.as_str())
        .collect();
    let infinite = match dialect {
        Dialect::Postgres => "b.max_limit::text IN ('NaN', 'Infinity')",
        Dialect::Sqlite => {
            "typeof(b.max_limit) NOT IN ('real', 'integer') OR abs(b.max_limit) = 9e999"
        }
    };
    let mut conditions = vec!["b.max_limit < 0".to_owned(), infinite.to_owned()];
    let mut parameters = Parameters::new(dialect);
    if !unreadable.is_empty() {
        // One parameter, however many texts: there is no end to what somebody may have written.
        let listed = parameters.bind(serde_json::json!(unreadable).to_string());
        let listed = match dialect {
            Dialect::Postgres => {
                format!("SELECT json_array_elements_text(CAST({listed} AS json))")
            }
            Dialect::Sqlite => format!("SELECT value FROM json_each({listed})"),
        };
        conditions.push(format!("CAST(b.reset_duration AS text) IN ({listed})"));
    }
    let sql = format!(
        "SELECT b.id AS id FROM {BUDGETS} b WHERE {}",
        conditions.join(" OR ")
    );
    Queries::on(BUDGETS, parameters.query(sql))
}

fn same_duration(context: &Context, facts: &Facts) -> Queries {
    let dialect = context.catalog.dialect;
    let lengths: BTreeMap<&str, i64> = facts
        .durations
        .iter()
        .filter_map(|(text, nanoseconds)| Some((text.as_str(), (*nanoseconds)?)))
        .collect();
    if lengths.is_empty() {
        return Queries::none();
    }
    let mut parameters = Parameters::new(dialect);
    let lengths = parameters.bind(serde_json::json!(lengths).to_string());
    let lengths = match dialect {
        Dialect::Postgres => format!(
            "SELECT key AS written, CAST(value AS bigint) AS length FROM json_each_text(CAST({lengths} AS json))"
        ),
        Dialect::Sqlite => {
            format!("SELECT key AS written, value AS length FROM json_each({lengths})")
        }
    };
    let queries: Vec<String> = Owner::BOTH
        .into_iter()
        .filter(|owner| context.catalog.has_column(BUDGETS, owner.column()))
        .map(|owner| {
            let column = owner.column();
            // Grouped first: few owners have two of one length, and a window would sort all budgets.
            let budgets = format!(
                "SELECT b.id AS id, b.{column} AS owner, l.length AS length FROM {BUDGETS} b \
                 JOIN ({lengths}) l ON l.written = CAST(b.reset_duration AS text) WHERE b.{column} IS NOT NULL"
            );
            format!(
                "SELECT b.id AS id FROM ({budgets}) b JOIN (SELECT owner, length FROM ({budgets}) each_budget \
                 GROUP BY owner, length HAVING count(*) > 1) twins ON twins.owner = b.owner AND twins.length = b.length"
            )
        })
        .collect();
    if queries.is_empty() {
        return Queries::none();
    }
    Queries::on(BUDGETS, parameters.query(queries.join(" UNION ")))
}

fn stale_hash(context: &Context, _: &Facts) -> Queries {
    if !context.catalog.has_column(VIRTUAL_KEYS, "config_hash") {
        return Queries::none();
    }
    let mut arms = Vec::new();
    if Owner::VirtualKey.has_legacy_reference(context) {
        arms.push(format!(
            "SELECT v.id AS id FROM {VIRTUAL_KEYS} v WHERE v.config_hash <> '' AND v.budget_id <> ''"
        ));
    }
    if Owner::ProviderConfig.has_legacy_reference(context) {
        arms.push(format!(
            "SELECT v.id AS id FROM {VIRTUAL_KEYS} v JOIN {PROVIDER_CONFIGS} p ON p.virtual_key_id = v.id \
             WHERE v.config_hash <> '' AND p.budget_id <> ''"
        ));
    }
    if arms.is_empty() {
        return Queries::none();
    }
    Queries::on(VIRTUAL_KEYS, arms.join(" UNION "))
}

fn ownerless_by_key(context: &Context, _: &Facts) -> Queries {
    let dialect = context.catalog.dialect;
    let mut queries = Queries::none();
    // While old code writes the legacy columns, an owner that is gone was deleted since the backfill, and is no owner.
    if owners::legacy(context) == LegacyColumns::Stale {
        for owner in Owner::BOTH {
            let column = owner.column();
            if context.catalog.has_column(BUDGETS, column) {
                queries.push(
                    BUDGETS,
                    format!(
                        "SELECT b.id AS id FROM {BUDGETS} b WHERE b.{column} IS NOT NULL \
                         AND NOT EXISTS (SELECT 1 FROM {} r WHERE r.id = b.{column})",
                        owner.table()
                    ),
                );
            }
        }
    }
    if dialect == Dialect::Sqlite {
        // A varchar key of SQLite carries no NOT NULL of its own, and NULL can own nothing.
        queries.extend(per_owner(context, "r.id IS NULL AND r.budget_id <> ''"));
    }
    queries
}

fn too_new(context: &Context, _: &Facts) -> Queries {
    adoption::newer_than_supported(context)
        .into_iter()
        .flat_map(|(table, sign)| names(context, table, &[sign.to_owned()]))
        .collect()
}

fn placeless_flag(context: &Context, _: &Facts) -> Queries {
    if !owners::has_legacy_flag(context) {
        return Queries::none();
    }
    if claims::claimed(context).is_none() {
        let flagged = context.catalog.dialect.is_true("b.calendar_aligned");
        return Queries::on(
            BUDGETS,
            format!(
                "SELECT b.id AS id FROM {BUDGETS} b WHERE {flagged} AND {}",
                claims::unowned(context)
            ),
        );
    }
    // A budget that somebody else has too stays with them; the copy takes the flag to the virtual key.
    claims::such(
        context,
        "aligned AND ((unowned AND referred = 0) OR (referred > 0 AND others > 0))",
    )
}

fn dependents(context: &Context, _: &Facts) -> Queries {
    let mut dropped = vec![(VIRTUAL_KEYS, "budget_id"), (PROVIDER_CONFIGS, "budget_id")];
    if owners::has_legacy_flag(context) {
        dropped.push((BUDGETS, "calendar_aligned"));
    }
    dropped
        .into_iter()
        .flat_map(|(table, column)| {
            let found: Vec<String> = context
                .catalog
                .dependents
                .iter()
                .filter(|dependent| dependent.table == table && dependent.column == column)
                .map(|dependent| {
                    format!("{} {}", dependent.kind, dependent.name)
                        .trim()
                        .to_owned()
                })
                .collect();
            names(context, table, &found)
        })
        .collect()
}

/// Durations in words, which no version of the gateway parses (`docs/upstream/bifrost.md` §3.1).
fn words_for_durations(context: &Context, _: &Facts) -> Queries {
    [
        (BUDGETS, "reset_duration"),
        (RATE_LIMITS, "token_reset_duration"),
        (RATE_LIMITS, "request_reset_duration"),
    ]
    .into_iter()
    .filter(|(table, column)| {
        context.catalog.has_column(table, "id") && context.catalog.has_column(table, column)
    })
    .map(|(table, column)| {
        (
            table,
            format!(
                "SELECT id FROM {table} WHERE lower(CAST({column} AS text)) IN ('daily', 'weekly', 'monthly', 'yearly')"
            ),
        )
    })
    .collect()
}

/// Credentials that `reconcile credentials` would orphan or reactivate.
fn drifted_credentials(context: &Context, _facts: &Facts) -> Queries {
    let catalog = &context.catalog;
    let present = Present::of(catalog.dialect, |table, column| {
        catalog.has_column(table, column)
    });
    present
        .kinds()
        .iter()
        .map(|kind| {
            let table = kind.credentials();
            let arms = [present.to_orphan(), present.to_reactivate()]
                .map(|due| format!("SELECT r.id AS id FROM {table} r WHERE {due}"));
            (table, arms.join(" UNION ALL "))
        })
        .collect()
}

/// Credentials and flows in `vk` mode without a virtual key.
fn keyless(context: &Context, _facts: &Facts) -> Queries {
    let catalog = &context.catalog;
    Kind::ALL
        .into_iter()
        .filter(|kind| kind.is_in_force(|table, column| catalog.has_column(table, column)))
        .flat_map(|kind| [(kind.credentials(), "auth_mode"), (kind.flows(), "flow_mode")])
        .filter(|(table, mode)| {
            ["id", "virtual_key_id", mode]
                .iter()
                .all(|column| catalog.has_column(table, column))
        })
        .map(|(table, mode)| {
            (
                table,
                format!(
                    "SELECT id FROM {table} WHERE {mode} = 'vk' AND (virtual_key_id IS NULL OR virtual_key_id = '')"
                ),
            )
        })
        .collect()
}

/// The distinct reset durations: a handful, however many budgets there are.
pub(super) async fn known(
    connection: &Connection,
    context: &Context,
    codes: &[&str],
) -> std::result::Result<Facts, DbErr> {
    let mut facts = Facts::default();
    // Every row is read for them, so only where a hazard needs them.
    let asked = codes.iter().any(|code| matches!(*code, "G009" | "G010"));
    if !asked || !context.catalog.has_column(BUDGETS, "reset_duration") {
        return Ok(facts);
    }
    let sql = format!("SELECT DISTINCT CAST(reset_duration AS text) AS duration FROM {BUDGETS}");
    for row in connection
        .query_all_raw(Statement::from_string(
            context.catalog.dialect.backend(),
            sql,
        ))
        .await?
    {
        if let Some(text) = row.try_get::<Option<String>>("", "duration")? {
            let nanoseconds = duration::parse(&text);
            facts.durations.push((text, nanoseconds));
        }
    }
    Ok(facts)
}

fn cloned(context: &Context) -> Option<(&'static str, &'static str)> {
    context.chose(&SHARED_BUDGETS).then_some((
        "every further owner gets a copy of its own, with the same usage",
        "resolved by --shared-budgets clone",
    ))
}
