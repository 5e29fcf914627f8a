//! Ids that are UUIDs on PostgreSQL and texts of any spelling on SQLite.

use std::fmt;
use std::str::FromStr;

use sea_orm::sea_query::{Expr, ExprTrait, Func, SimpleExpr};
use sea_orm::{ColumnTrait, DbErr, DeriveValueType, TryFromU64};
use uuid::Uuid;

/// A UUID, whichever way the database spells it: `uuid` on PostgreSQL; on SQLite text in upper or lower case, with hyphens or
/// without. Columns of it are read as text (`select_as`), which both backends can.
///
/// It is written and compared in the hyphenated lower-case form. PostgreSQL refuses a text where it wants a `uuid`, so a filter
/// goes by [`Id::is`], which both understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
#[sea_orm(value_type = "String", column_type = "Uuid")]
pub struct Id(pub Uuid);

impl Id {
    /// The condition that a column is this id. It asks for the column's text, and so for a scan: for tables of people's size.
    pub fn is<C: ColumnTrait>(self, column: C) -> SimpleExpr {
        let text = Expr::col(column.as_column_ref()).cast_as("text");
        Expr::expr(Func::lower(text)).eq(self.to_string())
    }
}

impl TryFromU64 for Id {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("a UUID"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl FromStr for Id {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self)
    }
}
