//! Which columns an entry of each kind has, and how text becomes what they hold.

use tollgate_migration::governance::{BUDGETS, PROVIDER_CONFIGS, VIRTUAL_KEYS};
use tollgate_migration::{Catalog, Dialect};

use super::entry::Kind;
use crate::tracks::governance::budget::schema::{CUSTOMERS, RATE_LIMITS, TEAMS};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// Text; NULL where the file says nothing.
    Text,
    /// Text that a gateway reads as a list or prose: never NULL, this where the file says nothing.
    NonNullText(&'static str),
    /// The id of a row of another kind.
    Reference(Kind),
    /// Yes or no, and which where the file says nothing.
    Flag(bool),
    /// An amount or a weight, of any precision.
    Decimal,
    /// A whole number.
    Whole,
}

/// A column that the file may set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub column: &'static str,
    pub holds: ColumnType,
    /// Its place among the fields of the kind, in `present`.
    pub bit: u32,
}

const fn field(column: &'static str, holds: ColumnType, bit: u32) -> Field {
    Field { column, holds, bit }
}

/// A kind with its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    pub kind: Kind,
    pub table: &'static str,
    pub fields: &'static [Field],
    /// The field without which there is no new row.
    pub needed: Option<&'static str>,
}

/// In the order in which references allow them to be written, but for budgets, which go where their owner is there.
pub(super) const RESOURCES: [Resource; 6] = [
    Resource {
        kind: Kind::RateLimit,
        table: RATE_LIMITS,
        fields: &[
            field("token_max_limit", ColumnType::Whole, 0),
            field("token_reset_duration", ColumnType::Text, 1),
            field("request_max_limit", ColumnType::Whole, 2),
            field("request_reset_duration", ColumnType::Text, 3),
        ],
        needed: None,
    },
    Resource {
        kind: Kind::Customer,
        table: CUSTOMERS,
        fields: &[
            field("name", ColumnType::Text, 0),
            field("budget_id", ColumnType::Reference(Kind::Budget), 1),
            field("rate_limit_id", ColumnType::Reference(Kind::RateLimit), 2),
        ],
        needed: Some("name"),
    },
    Resource {
        kind: Kind::Team,
        table: TEAMS,
        fields: &[
            field("name", ColumnType::Text, 0),
            field("customer_id", ColumnType::Reference(Kind::Customer), 1),
            field("budget_id", ColumnType::Reference(Kind::Budget), 2),
            field("rate_limit_id", ColumnType::Reference(Kind::RateLimit), 3),
            field("calendar_aligned", ColumnType::Flag(false), TEAM_FLAG),
        ],
        needed: Some("name"),
    },
    Resource {
        kind: Kind::VirtualKey,
        table: VIRTUAL_KEYS,
        fields: &[
            field("name", ColumnType::Text, 0),
            field("description", ColumnType::NonNullText(""), 1),
            field("is_active", ColumnType::Flag(true), 2),
            field("team_id", ColumnType::Reference(Kind::Team), 3),
            field("customer_id", ColumnType::Reference(Kind::Customer), 4),
            field("rate_limit_id", ColumnType::Reference(Kind::RateLimit), 5),
            field("calendar_aligned", ColumnType::Flag(false), KEY_FLAG),
        ],
        needed: Some("name"),
    },
    Resource {
        kind: Kind::ProviderConfig,
        table: PROVIDER_CONFIGS,
        fields: &[
            field("provider", ColumnType::Text, 0),
            field("weight", ColumnType::Decimal, 1),
            field("allowed_models", ColumnType::NonNullText("[]"), 2),
            field("blacklisted_models", ColumnType::NonNullText("[]"), 3),
            field("allow_all_keys", ColumnType::Flag(false), 4),
            field("rate_limit_id", ColumnType::Reference(Kind::RateLimit), 5),
        ],
        needed: Some("provider"),
    },
    Resource {
        kind: Kind::Budget,
        table: BUDGETS,
        fields: &[
            field("max_limit", ColumnType::Decimal, 0),
            field("reset_duration", ColumnType::Text, 1),
        ],
        needed: None,
    },
];

/// The bit of a team's calendar flag.
pub(super) const TEAM_FLAG: u32 = 4;
/// The bit of a virtual key's calendar flag.
pub(super) const KEY_FLAG: u32 = 6;

/// The thing of a kind; of what has no table of its own, budgets.
pub(super) fn resource(kind: Kind) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind)
        .unwrap_or(&RESOURCES[5])
}

/// The owner column of budgets for a kind of owner.
pub(super) fn owner_column(kind: Kind) -> &'static str {
    match kind {
        Kind::ProviderConfig => "provider_config_id",
        Kind::Team => "team_id",
        Kind::Customer => "customer_id",
        _ => "virtual_key_id",
    }
}

/// The kinds that own budgets by a column that is there.
pub(super) fn owners(catalog: &Catalog) -> Vec<Kind> {
    [
        Kind::VirtualKey,
        Kind::ProviderConfig,
        Kind::Team,
        Kind::Customer,
    ]
    .into_iter()
    .filter(|kind| catalog.has_column(BUDGETS, owner_column(*kind)))
    .collect()
}

impl Resource {
    /// Whether its rows refer to a budget that is theirs.
    pub(super) fn refers_to_budgets(&self) -> bool {
        matches!(self.kind, Kind::Customer | Kind::Team)
    }

    /// Its fields that the database has columns for.
    pub(super) fn here(&self, catalog: &Catalog) -> Vec<Field> {
        self.fields
            .iter()
            .filter(|field| catalog.has_column(self.table, field.column))
            .copied()
            .collect()
    }

    /// The temporary table of what is done to its rows.
    pub(super) fn actions(&self) -> String {
        format!("tollgate_do_{}", self.kind.name())
    }

    /// The row whose id is a text. The text is converted, not the id: an index finds it.
    pub(super) fn is_row(&self, alias: &str, text: &str) -> String {
        if self.kind == Kind::ProviderConfig {
            // PostgreSQL may look at rows of other kinds before it sorts them out.
            format!("{alias}.id = {}", number(text))
        } else {
            format!("{alias}.id = {text}")
        }
    }
}

impl Field {
    /// What a row gets where the file says nothing of it.
    pub(super) fn default(&self, dialect: Dialect) -> String {
        match self.holds {
            ColumnType::NonNullText(text) => dialect.text(text),
            ColumnType::Flag(true) => dialect.true_literal().to_owned(),
            ColumnType::Flag(false) => dialect.false_literal().to_owned(),
            ColumnType::Text | ColumnType::Reference(_) => null(dialect, "text"),
            ColumnType::Decimal => null(dialect, decimal(dialect)),
            ColumnType::Whole => null(dialect, "bigint"),
        }
    }

    /// The text of an entry as what the column holds.
    pub(super) fn cast(&self, dialect: Dialect, text: &str) -> String {
        match self.holds {
            ColumnType::Text | ColumnType::Reference(_) | ColumnType::NonNullText(_) => {
                text.to_owned()
            }
            ColumnType::Flag(_) => format!(
                "CASE {text} WHEN '1' THEN {} WHEN '0' THEN {} END",
                dialect.true_literal(),
                dialect.false_literal()
            ),
            ColumnType::Decimal => format!("CAST({text} AS {})", decimal(dialect)),
            ColumnType::Whole => format!("CAST({text} AS bigint)"),
        }
    }

    /// A stored value as it is compared, NULL being what its absence means.
    pub(super) fn compared(&self, dialect: Dialect, stored: &str) -> String {
        match self.holds {
            ColumnType::NonNullText(_) => format!("COALESCE({stored}, {})", self.default(dialect)),
            ColumnType::Flag(_) => format!(
                "CASE WHEN {stored} IS NULL THEN {} WHEN {} THEN {} ELSE {} END",
                self.default(dialect),
                dialect.is_true(stored),
                dialect.true_literal(),
                dialect.false_literal()
            ),
            ColumnType::Decimal if dialect == Dialect::Sqlite => format!("CAST({stored} AS real)"),
            _ => stored.to_owned(),
        }
    }
}

/// The number that a text is; NULL for another text.
pub(super) fn number(text: &str) -> String {
    format!(
        "CAST(CASE WHEN {text} <> '' AND ltrim(ltrim({text}, '-'), '0123456789') = '' THEN {text} END AS bigint)"
    )
}

pub(super) fn decimal(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres => "numeric",
        Dialect::Sqlite => "real",
    }
}

fn null(dialect: Dialect, kind: &str) -> String {
    match dialect {
        Dialect::Postgres => format!("CAST(NULL AS {kind})"),
        Dialect::Sqlite => "NULL".to_owned(),
    }
}
