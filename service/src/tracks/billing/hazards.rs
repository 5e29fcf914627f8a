//! The hazards of the billing track (`docs/upstream/molecule.md` §B1, §B4).

use tollgate_migration::billing::GARBLED_MODES;
use tollgate_migration::billing::{
    MODE, WORKSPACE_SECRETS, WORKSPACES, garbled, is_over_mode, is_the_check,
};
use tollgate_migration::{Context, Dialect};

use crate::doctor::{Facts, Hazard, Queries};
use crate::parameters::Parameters;
use crate::report::Severity;
use crate::tracks::billing::bypass::BYPASS_KEYS;

pub(crate) const HAZARDS: &[Hazard] = &[
    Hazard {
        code: "B001",
        severity: Severity::Blocking,
        title: "a stored billing mode that is none of the three, or a column that another check guards",
        effect: "nobody can say how the workspace pays; the column's check could not be created",
        resolve: "--garbled-modes clear sets them NULL, so that they inherit, and replaces the check",
        concerns: &["llm_billing_mode"],
        queries: garbled_modes,
        drops: true,
        returns: true,
        choice: |context| {
            context.chose(&GARBLED_MODES).then_some((
                "the mode is cleared, and the right check takes the place of another",
                "resolved by --garbled-modes clear",
            ))
        },
        ..Hazard::PLAIN
    },
    Hazard {
        code: "B002",
        severity: Severity::Warning,
        title: "a provider key of a workspace that the platform pays for",
        effect: "the key is not injected into the workspace's environment while it is platform_managed; it stays stored",
        resolve: "tollgate billing-mode set WORKSPACE byok, where the workspace shall use its own key",
        concerns: &["billing_baseline", "llm_billing_mode"],
        queries: bypassed,
        ..Hazard::PLAIN
    },
];

fn garbled_modes(context: &Context, _: &Facts) -> Queries {
    if !context.catalog.has_column(WORKSPACES, MODE) {
        return Queries::none();
    }
    let mut parameters = Parameters::new(context.catalog.dialect);
    let mut arms = vec![format!(
        "SELECT CAST(id AS text) AS id FROM ({}) garbled",
        garbled(context.catalog.dialect)
    )];
    if let Some(table) = context.catalog.table(WORKSPACES) {
        arms.extend(
            table
                .checks
                .iter()
                .filter(|check| is_over_mode(check) && !is_the_check(check))
                .map(|check| {
                    let name = check
                        .name
                        .clone()
                        .unwrap_or_else(|| "without a name".to_owned());
                    format!(
                        "SELECT CAST({} AS text) AS id",
                        parameters.bind(format!("check {name}"))
                    )
                }),
        );
    }
    Queries::on(WORKSPACES, parameters.query(arms.join(" UNION ALL ")))
}

/// Workspaces without an override are taken for `platform_managed`: what the organisation chose stands in no table.
fn bypassed(context: &Context, _: &Facts) -> Queries {
    if !context
        .catalog
        .has_column(WORKSPACE_SECRETS, "workspace_id")
    {
        return Queries::none();
    }
    let names: Vec<String> = BYPASS_KEYS.iter().map(|key| format!("'{key}'")).collect();
    let open = if context.catalog.has_column(WORKSPACES, MODE) {
        format!(" AND (w.{MODE} IS NULL OR w.{MODE} NOT IN ('byok', 'disabled'))")
    } else {
        String::new()
    };
    let label = match context.catalog.dialect {
        Dialect::Postgres => "w.id::text || ' ' || s.key",
        Dialect::Sqlite => "w.id || ' ' || s.key",
    };
    Queries::on(
        WORKSPACE_SECRETS,
        format!(
            "SELECT {label} AS id FROM {WORKSPACE_SECRETS} s JOIN {WORKSPACES} w ON w.id = s.workspace_id \
             WHERE upper(trim(s.key)) IN ({}){open}",
            names.join(", ")
        ),
    )
}
