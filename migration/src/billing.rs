//! The billing track: how a Molecule workspace pays for its models (`docs/upstream/molecule.md`).

pub mod adoption;
mod m20260401_000001_billing_baseline;
mod m20260402_000002_llm_billing_mode;
pub mod molecule;
mod tables;
mod versions;

use crate::catalog::Check;
use crate::choice::Choice;
use crate::ledger;
use crate::migration::Migration;
use crate::track::{Definition, Track};

/// Where agents live; a removed one stays with the status `removed`.
pub const WORKSPACES: &str = "workspaces";
/// Secrets of one workspace.
pub const WORKSPACE_SECRETS: &str = "workspace_secrets";
/// Secrets of all workspaces; one of the same key in a workspace wins.
pub const GLOBAL_SECRETS: &str = "global_secrets";
/// The column that says how a workspace pays; NULL inherits the organisation's default.
pub const MODE: &str = "llm_billing_mode";
/// The modes that are recognised, exactly as written.
pub const MODES: [&str; 3] = ["platform_managed", "byok", "disabled"];

/// The tables as a fresh install before the billing mode has them.
pub fn tables(dialect: crate::Dialect) -> Vec<crate::ddl::TableSpec> {
    tables::all(dialect)
}

/// The native enum of a workspace's status: its name and labels.
pub fn status() -> (&'static str, [&'static str; 8]) {
    tables::STATUS
}

/// Stored billing modes that are none are cleared (B001).
pub const GARBLED_MODES: Choice = Choice {
    flag: "garbled-modes",
    variable: "TOLLGATE_GARBLED_MODES",
    word: Some(("clear", "Set to NULL, so that the workspace inherits")),
    about: "What happens to stored billing modes that are none: `clear` sets them NULL and replaces another check",
    prepares: false,
};

/// The track's migrations, oldest first.
pub const MIGRATIONS: &[&Migration] = &[
    &m20260401_000001_billing_baseline::MIGRATION,
    &m20260402_000002_llm_billing_mode::MIGRATION,
];

const DEFINITION: Definition = Definition {
    name: "billing",
    gateway: "Molecule",
    ledger_table: ledger::SCHEMA_MIGRATIONS,
    versions: &versions::VERSIONS,
    gateway_lock: None,
    migrations: MIGRATIONS,
    goldens: crate::goldens!("schema/billing":
        "m20260401_000001_billing_baseline",
        "m20260402_000002_llm_billing_mode",
    ),
    marker_tables: &[WORKSPACES],
    signs: Some(&[WORKSPACE_SECRETS]),
    reads: &[],
    common_names: &[WORKSPACES],
    is_foreign_table: |table, columns| table == WORKSPACES && adoption::is_foreign_table(columns),
    recognise: adoption::recognise,
    newer_than_supported: |_| Vec::new(),
    inherited_types: &[],
    is_later_upstream: |_, _, _| false,
    asks: &[],
    choices: &[GARBLED_MODES],
};

impl Track {
    /// Molecule's workspaces and how they pay for their models.
    pub const BILLING: Self = Self::new(&DEFINITION);
}

/// Whether a check is over the billing mode.
pub fn is_over_mode(check: &Check) -> bool {
    crate::catalog::sqlite_ddl::words(&check.definition)
        .iter()
        .any(|word| word == MODE)
}

/// Whether a check lets exactly the recognised modes through, and NULL: in one of the forms that upstream's `IN` takes.
pub fn is_the_check(check: &Check) -> bool {
    let lower = check.definition.to_lowercase();
    let mut named: Vec<&str> = lower.split('\'').skip(1).step_by(2).collect();
    named.sort_unstable();
    let mut wanted = MODES;
    wanted.sort_unstable();
    if named != wanted {
        return false;
    }
    // The structure: literals become `?`, and what is left are words and `=`.
    let mut structure = String::new();
    for (position, piece) in lower.split('\'').enumerate() {
        if position % 2 == 1 {
            structure.push_str(" ? ");
        } else {
            structure.push_str(
                &piece
                    .replace("::text", " ")
                    .replace("::character varying", " ")
                    .replace('=', " = "),
            );
        }
    }
    let words: Vec<&str> = structure
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '=' | '?' | '<' | '>' | '~')))
        .filter(|word| !word.is_empty())
        .collect();
    let words = words.join(" ").replace(MODE, "m");
    matches!(
        words.as_str(),
        "check m in ? ? ?"
            | "check m is null or m in ? ? ?"
            | "check m in ? ? ? or m is null"
            | "check m = any array ? ? ?"
            | "check m is null or m = any array ? ? ?"
            | "check m = any array ? ? ? or m is null"
    )
}

/// Whether the column is guarded by that check and by no other.
pub fn is_guarded(table: &crate::catalog::Table) -> bool {
    let mut over = table
        .checks
        .iter()
        .filter(|check| is_over_mode(check))
        .peekable();
    over.peek().is_some() && over.all(|check| is_the_check(check) && check.validated)
}

/// The condition that a row of `workspaces` stores none of the three. On SQLite only text is text: a blob of the same
/// bytes is none.
pub fn is_garbled(dialect: crate::Dialect) -> String {
    let three = MODES.join("', '");
    match dialect {
        crate::Dialect::Postgres => format!("{MODE} IS NOT NULL AND {MODE} NOT IN ('{three}')"),
        crate::Dialect::Sqlite => {
            format!(
                "{MODE} IS NOT NULL AND (typeof({MODE}) <> 'text' OR {MODE} NOT IN ('{three}'))"
            )
        }
    }
}

/// Workspaces whose stored mode is none of the three: `id`.
pub fn garbled(dialect: crate::Dialect) -> String {
    format!("SELECT id FROM {WORKSPACES} WHERE {}", is_garbled(dialect))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(definition: &str) -> Check {
        Check {
            name: None,
            definition: definition.to_owned(),
            validated: true,
        }
    }

    #[test]
    fn only_the_check_itself_is_the_check() {
        for right in [
            "CHECK (llm_billing_mode IS NULL OR llm_billing_mode IN ('platform_managed', 'byok', 'disabled'))",
            "CHECK (((llm_billing_mode IS NULL) OR (llm_billing_mode = ANY (ARRAY['platform_managed'::text, 'byok'::text, 'disabled'::text]))))",
            "check (`llm_billing_mode` in ('byok','disabled','platform_managed'))",
        ] {
            assert!(is_the_check(&check(right)), "{right}");
        }
        for wrong in [
            "CHECK (llm_billing_mode IN ('platform_managed', 'byok'))",
            "CHECK (llm_billing_mode NOT IN ('platform_managed', 'byok', 'disabled'))",
            "CHECK (llm_billing_mode IS NOT NULL AND llm_billing_mode IN ('platform_managed', 'byok', 'disabled'))",
            "CHECK (llm_billing_mode IN ('platform_managed', 'byok', 'disabled') OR length(llm_billing_mode) > 0)",
            "CHECK (llm_billing_mode <> ALL (ARRAY['platform_managed'::text, 'byok'::text, 'disabled'::text]))",
        ] {
            assert!(!is_the_check(&check(wrong)), "{wrong}");
        }
    }
}
