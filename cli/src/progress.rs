//! Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere, whatever a command is at.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate_service::{Event, Observer};

use crate::arguments::{Arguments, Output};

/// How often a log line says how far a backfill has come, or what is being done.
const EVERY: Duration = Duration::from_secs(10);
/// How long something lasts before a terminal says what it is.
const SOON: Duration = Duration::from_secs(2);
/// How far, in what is known of it.
const BAR: &str = "  {bar:24.cyan/dim} {percent:>3}%  {msg}  ETA {eta}";
/// What is being done, where nobody knows how much there is of it.
const SPINNER: &str = "  {spinner} {msg}  {elapsed}";

/// Watches a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// Whether each step is an event of its own.
    json: bool,
    now: Arc<Mutex<Now>>,
    /// Dropped when there is nothing more to say.
    ticking: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// What is being done.
struct Now {
    what: String,
    /// What it was at before it held.
    held: Option<String>,
    since: Instant,
    said: Instant,
}

impl Progress {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let on_terminal = std::io::stderr().is_terminal()
            && !arguments.quiet
            && arguments.log_format == Output::Text;
        let bar =
            on_terminal.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let now = Instant::now();
        let progress = Self {
            bar,
            json: arguments.log_format == Output::Json,
            now: Arc::new(Mutex::new(Now {
                what: arguments.command.name().to_owned(),
                held: None,
                since: now,
                said: now,
            })),
            ticking: Mutex::default(),
        };
        progress.style(SPINNER);
        progress.tick();
        progress
    }

    /// Says from a thread of its own what lasts: whoever works is busy.
    fn tick(&self) {
        let (sender, done) = channel::<()>();
        let (now, bar) = (Arc::clone(&self.now), self.bar.clone());
        let run = tracing::Span::current();
        let ticker = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                let _run = run.enter();
                while done.recv_timeout(Duration::from_millis(500))
                    == Err(RecvTimeoutError::Timeout)
                {
                    let Ok(mut now) = now.lock() else { return };
                    match &bar {
                        Some(bar) if bar.length().is_none() && now.since.elapsed() >= SOON => {
                            bar.set_message(now.what.clone());
                            bar.tick();
                        }
                        Some(_) => {}
                        None if now.said.elapsed() >= EVERY => {
                            now.said = Instant::now();
                            tracing::info!(
                                seconds = now.since.elapsed().as_secs(),
                                "at work: {}",
                                now.what
                            );
                        }
                        None => {}
                    }
                }
            });
        if let (Ok(ticker), Ok(mut ticking)) = (ticker, self.ticking.lock()) {
            *ticking = Some((sender, ticker));
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        let ticking = self
            .ticking
            .lock()
            .ok()
            .and_then(|mut ticking| ticking.take());
        if let Some((sender, ticker)) = ticking {
            drop(sender);
            let _ = ticker.join();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn style(&self, template: &str) {
        if let (Some(bar), Ok(style)) = (&self.bar, ProgressStyle::with_template(template)) {
            bar.set_style(style.progress_chars("━━─"));
        }
    }

    /// Something else is being done.
    fn begins(&self, what: String) {
        if self.json {
            tracing::info!(step = what, "step");
        } else {
            tracing::debug!(step = what, "step");
        }
        if let Some(bar) = &self.bar
            && bar.length().is_some()
        {
            bar.unset_length();
            bar.reset_elapsed();
            self.style(SPINNER);
        }
        if let Ok(mut now) = self.now.lock() {
            now.what = what;
            now.since = Instant::now();
        }
    }

    fn due(&self) -> bool {
        let Ok(mut now) = self.now.lock() else {
            return false;
        };
        if now.said.elapsed() < EVERY {
            return false;
        }
        now.said = Instant::now();
        true
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
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
                self.begins(version);
            }
            Event::Step(purpose) => self.begins(purpose),
            Event::Backfill(at) => {
                if let Some(bar) = &self.bar {
                    if bar.length().is_none() {
                        bar.reset_eta();
                        self.style(BAR);
                    }
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
            Event::Holds(reason) => {
                match &self.bar {
                    Some(bar) => bar.set_message(reason.clone()),
                    None => tracing::info!("holding: {reason}"),
                }
                if let Ok(mut now) = self.now.lock() {
                    let what = std::mem::replace(&mut now.what, reason);
                    now.held.get_or_insert(what);
                    now.said = Instant::now();
                }
            }
            Event::GoesOn => {
                if self.bar.is_none() {
                    tracing::info!("going on");
                }
                if let Ok(mut now) = self.now.lock()
                    && let Some(what) = now.held.take()
                {
                    now.what = what;
                }
            }
            Event::Applied {
                version,
                duration,
                rows,
            } => tracing::debug!(version, ?duration, rows, "done"),
            _ => {}
        }
    }
}
