//! Where the tests make the n-th statement of a process fail, or end the process in its place.
//!
//! Without the feature `faults`, which only the tests' binary has, there is nothing here.

#[cfg(not(feature = "faults"))]
use sea_orm::DbErr;

/// Called before every statement, commits included.
#[cfg(not(feature = "faults"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "with the feature it is the wrapper that fails"
)]
pub(crate) fn statement() -> Result<(), DbErr> {
    Ok(())
}

#[cfg(feature = "faults")]
pub(crate) use injected::statement;

#[cfg(feature = "faults")]
mod injected {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use sea_orm::DbErr;

    static ISSUED: AtomicU64 = AtomicU64::new(0);
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

    #[derive(PartialEq)]
    enum Kind {
        Fail,
        Kill,
        /// Only counts, into the mark.
        Count,
    }

    struct Fault {
        kind: Kind,
        at: u64,
        /// Written when the fault strikes, so that a run that survives it is told from one that never came so far.
        mark: Option<String>,
    }

    /// `TOLLGATE_FAULT=fail:N`, `kill:N` or `count:0`, with a file in `TOLLGATE_FAULT_MARK`.
    fn configured() -> Option<Fault> {
        let text = std::env::var("TOLLGATE_FAULT").ok()?;
        let (kind, at) = text.split_once(':')?;
        Some(Fault {
            kind: match kind {
                "fail" => Kind::Fail,
                "kill" => Kind::Kill,
                "count" => Kind::Count,
                _ => return None,
            },
            at: at.parse().ok()?,
            mark: std::env::var("TOLLGATE_FAULT_MARK").ok(),
        })
    }

    /// Called before every statement, commits included.
    pub(crate) fn statement() -> Result<(), DbErr> {
        let Some(fault) = FAULT.get_or_init(configured) else {
            return Ok(());
        };
        let number = ISSUED.fetch_add(1, Ordering::SeqCst) + 1;
        if fault.kind != Kind::Count && number != fault.at {
            return Ok(());
        }
        if let Some(mark) = &fault.mark {
            let _ = std::fs::write(mark, number.to_string());
        }
        if fault.kind == Kind::Count {
            return Ok(());
        }
        if fault.kind == Kind::Kill {
            // As SIGKILL does: no destructor runs, nothing is flushed, the server finds a broken connection.
            std::process::abort();
        }
        Err(DbErr::Custom(format!(
            "injected fault at statement {}",
            fault.at
        )))
    }
}
