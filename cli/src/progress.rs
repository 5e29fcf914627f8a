//! Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate_service::{Event, Observer};

use crate::arguments::{Arguments, Output};

/// How often a log line says how far a backfill has come.
const EVERY: Duration = Duration::from_secs(10);

/// Watches a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    said: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let on_terminal = std::io::stderr().is_terminal()
            && !arguments.quiet
            && arguments.log_format == Output::Text;
        let bar = on_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("  {bar:24.cyan/dim} {percent:>3}%  {msg}  ETA {eta}")
            {
                bar.set_style(style.progress_chars("━━─"));
            }
            bar
        });
        Self {
            bar,
            said: Mutex::new(Instant::now()),
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn due(&self) -> bool {
        let Ok(mut said) = self.said.lock() else {
            return false;
        };
        if said.elapsed() < EVERY {
            return false;
        }
        *said = Instant::now();
        true
    }
}

fn rate(rows: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    rows.saturating_mul(1000) / millis
}

impl Observer for Progress {
    fn note(&self, event: Event) {
        match event {
            Event::Migration { version, summary } => {
                tracing::debug!(version, summary, "begins");
                if let Some(bar) = &self.bar {
                    bar.set_message(version);
                }
            }
            Event::Step(purpose) => tracing::debug!(purpose, "step"),
            Event::Backfill(at) => {
                if let Some(bar) = &self.bar {
                    bar.set_length(at.bound);
                    bar.set_position(at.position);
                    bar.set_message(format!(
                        "{}: {} rows, {}/s",
                        at.purpose,
                        at.rows,
                        rate(at.rows, at.elapsed)
                    ));
                } else if self.due() {
                    let percent = at.position.saturating_mul(100) / at.bound.max(1);
                    tracing::info!(
                        percent,
                        rows = at.rows,
                        per_second = rate(at.rows, at.elapsed),
                        "{}",
                        at.purpose
                    );
                }
            }
            Event::BackfillDone(at) => {
                tracing::debug!(rows = at.rows, elapsed = ?at.elapsed, "{}", at.purpose);
            }
            Event::Holds(reason) => match &self.bar {
                Some(bar) => bar.set_message(reason),
                None => tracing::info!("holding: {reason}"),
            },
            Event::GoesOn => {
                if self.bar.is_none() {
                    tracing::info!("going on");
                }
            }
            Event::Applied {
                version,
                duration,
                rows,
            } => tracing::debug!(version, ?duration, rows, "done"),
        }
    }
}
