//! Which version of the billing schema a database without history stands at.

use crate::adoption::{Recognised, Unknown};
use crate::context::Context;
use crate::dialect::Dialect;

use super::{MODE, WORKSPACES, is_guarded};

/// Columns that show whose `workspaces` table this is.
const OF_CODER: [&str; 3] = ["owner_id", "organization_id", "template_id"];

/// Whether another product owns the `workspaces` table.
pub fn is_foreign_table(columns: &[&str]) -> bool {
    columns.iter().any(|column| OF_CODER.contains(column))
}

/// Recognises a database.
///
/// # Errors
/// [`Unknown`] with every difference; a `workspaces` table of another product is one.
pub fn recognise(context: &Context) -> Result<Recognised, Unknown> {
    let mut differences = Vec::new();
    match context.catalog.table(WORKSPACES) {
        None => differences.push(format!("there is no table {WORKSPACES}")),
        Some(table) => {
            let anothers: Vec<&str> = OF_CODER
                .into_iter()
                .filter(|column| table.column(column).is_some())
                .collect();
            if !anothers.is_empty() {
                differences.push(format!(
                    "{WORKSPACES} belongs to another product: it has {}, which are Coder's",
                    anothers.join(", ")
                ));
            }
            if let Some(mode) = table.column(MODE) {
                let text = match context.catalog.dialect {
                    Dialect::Postgres => {
                        mode.kind == "text" || mode.kind.starts_with("character varying")
                    }
                    Dialect::Sqlite => true,
                };
                if !text {
                    differences.push(format!("{WORKSPACES}.{MODE} is {}, not text", mode.kind));
                }
                if mode.not_null {
                    differences.push(format!(
                        "{WORKSPACES}.{MODE} is NOT NULL, so that nothing can inherit"
                    ));
                }
                if let Some(default) = mode
                    .default
                    .as_deref()
                    .filter(|default| !default.to_lowercase().starts_with("null"))
                {
                    differences.push(format!(
                        "{WORKSPACES}.{MODE} has the default {default}, which every new workspace would get"
                    ));
                }
            }
            if table.primary_key != ["id"] {
                differences.push(format!("the primary key of {WORKSPACES} is not (id)"));
            }
        }
    }
    if !differences.is_empty() {
        return Err(Unknown {
            nearest: "Molecule before llm_billing_mode",
            differences,
        });
    }
    let table = context.catalog.table(WORKSPACES);
    let has_mode = context.catalog.has_column(WORKSPACES, MODE);
    let checked = table.is_some_and(is_guarded);
    Ok(if has_mode && checked {
        Recognised {
            shape: "Molecule, with llm_billing_mode",
            applied: vec!["billing_baseline", "llm_billing_mode"],
            created: None,
        }
    } else if has_mode {
        Recognised {
            shape: "Molecule, with an llm_billing_mode that another check guards, or none",
            applied: vec!["billing_baseline"],
            created: None,
        }
    } else {
        Recognised {
            shape: "Molecule, before llm_billing_mode",
            applied: vec!["billing_baseline"],
            created: None,
        }
    })
}
