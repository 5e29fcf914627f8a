//! SIGINT and SIGTERM: the first asks the work to stop at the next safe place, the second ends the process at once.
//! Either way nothing is half-applied, for every write is in a transaction.

use tokio::signal::unix::{SignalKind, signal};
use tollgate_service::ShutdownSignal;

const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// Begins to watch for signals.
#[expect(
    clippy::disallowed_methods,
    reason = "the second signal asks for exactly that, and every write is in a transaction"
)]
pub(crate) fn watch() -> ShutdownSignal {
    let stop = ShutdownSignal::default();
    let asked = stop.clone();
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        tracing::warn!("signals cannot be watched; stopping takes SIGKILL, which is safe too");
        return stop;
    };
    tokio::spawn(async move {
        let mut asked_before = false;
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => INTERRUPT,
                _ = terminate.recv() => TERMINATE,
            };
            if asked_before {
                std::process::exit(i32::from(128 + number));
            }
            asked_before = true;
            asked.request(number);
            tracing::info!("stopping at the next safe place; a second signal ends at once");
        }
    });
    stop
}
