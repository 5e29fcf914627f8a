//! What a database's refusal means, by its code.

use sea_orm::{DbErr, RuntimeErr};

/// PostgreSQL's deadlock and serialization failure, SQLite's busy: nothing was done, and the next try may find the way
/// free. A lock timeout is none: the wait has had its time.
pub(crate) fn is_transient(error: &DbErr) -> bool {
    let Some(code) = code(error) else {
        return false;
    };
    // SQLite's codes are numbers whose low byte is the primary code: 5 is BUSY, 6 is LOCKED.
    matches!(code.as_str(), "40P01" | "40001")
        || code
            .parse::<u32>()
            .is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 5 | 6))
}

/// The same, or a lock that was not to be had in time: for a run that backs off until `--wait-lock`.
pub(crate) fn is_busy(error: &DbErr) -> bool {
    is_transient(error) || code(error).is_some_and(|code| code == "55P03")
}

/// PostgreSQL's and SQLite's refusal of a row whose parent is not there.
pub(crate) fn is_foreign_key_violation(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "23503" | "787"))
}

/// SQLite's refusal to read, on a connection that may not write, what a killed writer left half-written: it has to be undone
/// first, from the journal (776) or the write-ahead log (264).
pub(crate) fn needs_recovery(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "776" | "264"))
}

/// The refusal of a column that is not there. SQLite has no code for it.
pub(crate) fn is_missing_column(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == "42703") || error.to_string().contains("no such column")
}

fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))
    | DbErr::Conn(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    error
        .as_database_error()
        .and_then(|error| error.code())
        .map(|code| code.into_owned())
}

/// PostgreSQL's refusal of a table that another transaction has just made, `IF NOT EXISTS` or not: of the table itself, of
/// the row type that comes with it, or of their rows in the catalog.
pub(crate) fn is_made_twice(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "23505" | "42P07" | "42710"))
}
