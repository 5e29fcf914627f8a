//! What a gateway's own migrations rewrite.

/// One column that some of the gateway's own migrations rewrite: held against this, it is no loss.
pub struct Rewrite {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The migrations that do.
    pub ids: &'static [&'static str],
    /// The value that they write, where there is one.
    pub value: Option<&'static str>,
}

impl Rewrite {
    /// A column that they rewrite with what nobody can foresee.
    pub const fn any(
        table: &'static str,
        column: &'static str,
        ids: &'static [&'static str],
    ) -> Self {
        Self {
            table,
            column,
            ids,
            value: None,
        }
    }
}
