//! Which of three modes a workspace's models are paid by (`docs/upstream/molecule.md` §B2, §B3).
//!
//! Whoever asks gets one of the three, beside an error too. Only an exact, recognised text opens anything: a typo, a
//! database that fails and a text that nobody knows all close to `platform_managed`.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, Statement};
use serde::Serialize;
use tollgate_migration::billing::{MODE, WORKSPACES};
use tollgate_migration::{Dialect, Track};
use uuid::Uuid;

use crate::database::{Access, columns, dialect_of};
use crate::error::{Error, Result};
use crate::runner::Session;
use crate::sqlstate::is_missing_column;

/// How long the database may take to say a mode before the answer is the safe one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a workspace pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Through the platform's metered proxy.
    PlatformManaged,
    /// With keys of its own.
    Byok,
    /// Not at all; at the gate treated like its own keys.
    Disabled,
}

impl Mode {
    /// The mode of exactly that text: case and spaces count.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "platform_managed" => Some(Self::PlatformManaged),
            "byok" => Some(Self::Byok),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }

    /// The text it is stored as.
    pub fn name(self) -> &'static str {
        match self {
            Self::PlatformManaged => "platform_managed",
            Self::Byok => "byok",
            Self::Disabled => "disabled",
        }
    }
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the workspace's row says.
    WorkspaceOverride,
    /// The organisation's default.
    OrgDefault,
    /// Neither said anything that is known.
    ConstantFallback,
}

/// How a workspace pays, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Resolution {
    /// The workspace that was asked for.
    pub workspace_id: String,
    /// The answer.
    pub resolved_mode: Mode,
    /// What decided.
    pub source: Source,
    /// What the row says, as it is stored, known or not.
    pub workspace_override: Option<String>,
    /// The organisation's default, `platform_managed` where it is none of the three.
    pub org_default: Mode,
}

/// Decides from what the row says: `None` without a row (or without an id to ask for), `Some(None)` for NULL.
pub fn decide(workspace: &str, org_default: &str, stored: Option<Option<&str>>) -> Resolution {
    let known = Mode::parse(org_default);
    let default = known.unwrap_or(Mode::PlatformManaged);
    let rung = Resolution {
        workspace_id: workspace.to_owned(),
        resolved_mode: default,
        source: if known.is_some() {
            Source::OrgDefault
        } else {
            Source::ConstantFallback
        },
        workspace_override: None,
        org_default: default,
    };
    let Some(Some(text)) = stored else {
        return rung;
    };
    let workspace_override = Some(text.to_owned());
    match Mode::parse(text) {
        Some(mode) => Resolution {
            resolved_mode: mode,
            source: Source::WorkspaceOverride,
            workspace_override,
            ..rung
        },
        // A typo must not open what the default would: upstream falls through to it.
        None if default == Mode::PlatformManaged => Resolution {
            workspace_override,
            ..rung
        },
        None => Resolution {
            resolved_mode: Mode::PlatformManaged,
            source: Source::ConstantFallback,
            workspace_override,
            ..rung
        },
    }
}

/// The safe answer, for a database that could not say: the organisation's default does not count.
pub fn closed(workspace: &str, org_default: &str) -> Resolution {
    Resolution {
        resolved_mode: Mode::PlatformManaged,
        source: Source::ConstantFallback,
        ..decide(workspace, org_default, None)
    }
}

/// Resolves the mode on a connection. The answer is always usable; the error beside it says why it is the safe one.
pub async fn resolve<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    workspace: &str,
    org_default: &str,
) -> (Resolution, Option<Error>) {
    if workspace.is_empty() {
        return (decide(workspace, org_default, None), None);
    }
    let asked = match Row::of(dialect, workspace) {
        Ok(row) => tokio::time::timeout(PATIENCE, stored(connection, dialect, &row)).await,
        Err(error) => return (closed(workspace, org_default), Some(error)),
    };
    match asked {
        Ok(Ok(stored)) => (
            decide(
                workspace,
                org_default,
                stored.as_ref().map(|mode| mode.as_deref()),
            ),
            None,
        ),
        Ok(Err(source)) => (
            closed(workspace, org_default),
            Some(failed(
                format!("read the billing mode of {workspace}"),
                source,
            )),
        ),
        Err(_) => (
            closed(workspace, org_default),
            Some(Error::Database {
                db_context: format!("read the billing mode of {workspace}"),
                source: DbErr::Custom(format!("no answer within {} s", PATIENCE.as_secs())),
            }),
        ),
    }
}

/// The same on a session's database; one that cannot be reached closes too.
pub async fn resolve_in(
    session: &Session,
    workspace: &str,
    org_default: &str,
) -> (Resolution, Option<Error>) {
    if workspace.is_empty() {
        return (decide(workspace, org_default, None), None);
    }
    match session.connect_at_once(Access::Read).await {
        Ok(connection) => resolve(&connection, session.dialect(), workspace, org_default).await,
        Err(error) => (closed(workspace, org_default), Some(error)),
    }
}

/// A column that is not there has its reason, and one way out.
fn failed(db_context: String, source: DbErr) -> Error {
    if is_missing_column(&source) {
        return Error::NotFound {
            what: format!(
                "column {MODE} of {WORKSPACES} (`tollgate migrate up --track billing` adds it, before Molecule's 20260630120000 only)"
            ),
        };
    }
    Error::database(db_context)(source)
}

/// What picks a workspace: its id is the first parameter.
struct Row<'a> {
    dialect: Dialect,
    id: &'a str,
}

impl<'a> Row<'a> {
    /// Ids are UUIDs on PostgreSQL; a text that is none names no workspace there, and asking the database would be an
    /// error of its own.
    fn of(dialect: Dialect, id: &'a str) -> Result<Self> {
        if dialect == Dialect::Postgres && Uuid::parse_str(id).is_err() {
            return Err(Error::usage(
                format!("{id:?} is no workspace id"),
                "ids are UUIDs, such as 00000000-0000-4000-8000-000000000000",
            ));
        }
        Ok(Self { dialect, id })
    }

    /// The statement, `sql` and its condition.
    fn statement(&self, sql: &str) -> Statement {
        let condition = match self.dialect {
            Dialect::Sqlite => "id = ?1",
            Dialect::Postgres => "id = CAST($1 AS uuid)",
        };
        Statement::from_sql_and_values(
            self.dialect.backend(),
            format!("{sql} WHERE {condition}"),
            [self.id.into()],
        )
    }
}

async fn stored<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    row: &Row<'_>,
) -> std::result::Result<Option<Option<String>>, DbErr> {
    // SQLite's text may hold any bytes, which no String can; hexadecimal can be read whatever they are.
    let mode = match dialect {
        Dialect::Postgres => format!("CAST({MODE} AS text)"),
        Dialect::Sqlite => {
            format!(
                "CASE WHEN typeof({MODE}) = 'text' THEN hex(CAST({MODE} AS blob)) \
                 WHEN {MODE} IS NOT NULL THEN hex(CAST('not text: ' || quote({MODE}) AS blob)) END"
            )
        }
    };
    refuse_anothers(connection, dialect).await?;
    let row = connection
        .query_one_raw(row.statement(&format!("SELECT {mode} AS mode FROM {WORKSPACES}")))
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let text: Option<String> = row.try_get("", "mode")?;
    Ok(Some(match dialect {
        Dialect::Postgres => text,
        Dialect::Sqlite => text.map(|hex| String::from_utf8_lossy(&bytes(&hex)).into_owned()),
    }))
}

/// Several products have a table of that name; what another's says is no answer, and writing it would be worse.
async fn refuse_anothers<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
) -> std::result::Result<(), DbErr> {
    let columns = columns(connection, dialect, WORKSPACES).await?;
    if Track::BILLING.is_foreign_table(WORKSPACES, columns.iter().map(String::as_str)) {
        return Err(DbErr::Custom(format!(
            "{WORKSPACES} belongs to another product"
        )));
    }
    Ok(())
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .filter_map(|pair| std::str::from_utf8(pair).ok())
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

/// Sets or clears a workspace's mode. The text is checked before the database is asked; `updated_at` does not move.
///
/// # Errors
/// [`Error::Usage`] for an unknown mode or an empty id, [`Error::NotFound`] for a workspace that is not there.
pub async fn set(session: &Session, workspace: &str, mode: Option<&str>) -> Result<Resolution> {
    // What is wrong with the call is said before anything is connected to.
    let mode = checked(session.dialect(), workspace, mode)?;
    let connection = session.connect(Access::Write).await?;
    write(&connection, session.dialect(), workspace, mode).await
}

/// The same on a connection, or in a transaction, of the caller's.
///
/// # Errors
/// Those of [`set`].
pub async fn set_in<C: ConnectionTrait>(
    connection: &C,
    workspace: &str,
    mode: Option<&str>,
) -> Result<Resolution> {
    let dialect = dialect_of(connection).map_err(Error::database("set the billing mode"))?;
    let mode = checked(dialect, workspace, mode)?;
    write(connection, dialect, workspace, mode).await
}

fn checked(dialect: Dialect, workspace: &str, mode: Option<&str>) -> Result<Option<Mode>> {
    let mode = match mode {
        None => None,
        Some(text) => Some(Mode::parse(text).ok_or_else(|| {
            Error::usage(
                format!("unknown billing mode {text:?}"),
                "platform_managed, byok or disabled, exactly so; `billing-mode clear` inherits the organisation's",
            )
        })?),
    };
    if workspace.is_empty() {
        return Err(Error::usage(
            "workspace id required",
            "name the workspace whose mode is to change",
        ));
    }
    Row::of(dialect, workspace)?;
    Ok(mode)
}

async fn write<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    workspace: &str,
    mode: Option<Mode>,
) -> Result<Resolution> {
    let row = Row::of(dialect, workspace)?;
    refuse_anothers(connection, dialect)
        .await
        .map_err(Error::database("set the billing mode"))?;
    let value = mode.map_or_else(|| "NULL".to_owned(), |mode| dialect.text(mode.name()));
    let changed = connection
        .execute_raw(row.statement(&format!("UPDATE {WORKSPACES} SET {MODE} = {value}")))
        .await
        .map_err(|source| failed(format!("set the billing mode of {workspace}"), source))?
        .rows_affected();
    if changed == 0 {
        return Err(Error::NotFound {
            what: format!("workspace {workspace}"),
        });
    }
    Ok(decide(workspace, "", Some(mode.map(Mode::name))))
}

/// What runs in a workspace; blank where the database does not say, which is no reason to fail.
pub async fn runtime(session: &Session, workspace: &str) -> String {
    let dialect = session.dialect();
    let (Ok(row), Ok(connection)) = (
        Row::of(dialect, workspace),
        session.connect_at_once(Access::Read).await,
    ) else {
        return String::new();
    };
    let asked =
        connection.query_one_raw(row.statement(&format!("SELECT runtime FROM {WORKSPACES}")));
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Some(row))) => row
            .try_get::<Option<String>>("", "runtime")
            .ok()
            .flatten()
            .unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of §B2, by name: stored is the row, `None` for no row.
    #[test]
    fn the_documented_branches() {
        use Mode::{Byok, Disabled, PlatformManaged};
        use Source::{ConstantFallback, OrgDefault, WorkspaceOverride};
        for (name, workspace, org, stored, mode, source, has_override) in [
            (
                "workspace_override_byok_overrides_pm_org",
                "w",
                "platform_managed",
                Some(Some("byok")),
                Byok,
                WorkspaceOverride,
                true,
            ),
            (
                "workspace_override_disabled_overrides_pm_org",
                "w",
                "platform_managed",
                Some(Some("disabled")),
                Disabled,
                WorkspaceOverride,
                true,
            ),
            (
                "workspace_override_null_inherits_byok_org",
                "w",
                "byok",
                Some(None),
                Byok,
                OrgDefault,
                false,
            ),
            (
                "workspace_override_null_inherits_pm_org",
                "w",
                "platform_managed",
                Some(None),
                PlatformManaged,
                OrgDefault,
                false,
            ),
            (
                "workspace_override_garbled_falls_through_to_pm_org_DEFAULT_CLOSED",
                "w",
                "platform_managed",
                Some(Some("byokk")),
                PlatformManaged,
                OrgDefault,
                true,
            ),
            (
                "workspace_override_garbled_org_garbled_constant_fallback",
                "w",
                "garbled",
                Some(Some("nonsense")),
                PlatformManaged,
                ConstantFallback,
                true,
            ),
            (
                "workspace_row_missing_falls_through_to_org_byok",
                "w",
                "byok",
                None,
                Byok,
                OrgDefault,
                false,
            ),
            (
                "workspace_id_empty_pre_provision_org_only",
                "",
                "byok",
                None,
                Byok,
                OrgDefault,
                false,
            ),
            (
                "workspace_id_empty_org_garbled_constant_fallback",
                "",
                "",
                None,
                PlatformManaged,
                ConstantFallback,
                false,
            ),
            // The deliberate difference: upstream resolves this one to byok.
            (
                "workspace_override_garbled_closes_under_byok_org",
                "w",
                "byok",
                Some(Some("byokk")),
                PlatformManaged,
                ConstantFallback,
                true,
            ),
            (
                "workspace_override_garbled_closes_under_disabled_org",
                "w",
                "disabled",
                Some(Some("BYOK")),
                PlatformManaged,
                ConstantFallback,
                true,
            ),
        ] {
            let resolved = decide(workspace, org, stored);
            assert_eq!(
                (
                    resolved.resolved_mode,
                    resolved.source,
                    resolved.workspace_override.is_some()
                ),
                (mode, source, has_override),
                "{name}"
            );
        }
        let failed = closed("w", "byok");
        assert_eq!(
            (failed.resolved_mode, failed.source),
            (PlatformManaged, ConstantFallback),
            "db_error_default_closed_to_pm_with_error"
        );
    }

    /// Over many texts and defaults: the answer opens only on an exact, recognised value.
    #[test]
    fn nothing_but_an_exact_value_opens() {
        let texts = [
            "",
            " ",
            "byok",
            "byok ",
            " byok",
            "BYOK",
            "Byok",
            "byok\n",
            "byok\0",
            "disabled",
            "Disabled",
            "platform_managed",
            "null",
            "NULL",
            "b\u{443}ok",
            "🔑",
            "byok,disabled",
        ];
        for org in texts {
            for text in texts {
                for stored in [None, Some(None), Some(Some(text))] {
                    let mode = decide("w", org, stored).resolved_mode;
                    let opened_by = match stored {
                        Some(Some(text)) => text,
                        _ => org,
                    };
                    if mode != Mode::PlatformManaged {
                        assert_eq!(mode.name(), opened_by, "{org:?} {stored:?}");
                    }
                }
            }
        }
    }
}
