//! Who works, how far they are, and who was asked to hold.

use std::fmt::Write as _;

use tollgate_service::Track;
use tollgate_service::report::result::{Pause, PauseResult, StatusResult};

use super::line;

/// What a status says of a track besides its steps.
pub(super) fn at_work(out: &mut String, result: &StatusResult, track: Track) {
    for run in result.running.iter().filter(|run| run.track == track) {
        let _ = writeln!(out, "  running   {}", run.holder);
    }
    for step in result.in_progress.iter().filter(|step| step.track == track) {
        let _ = writeln!(out, "  at        {} ({})", step.version, step.direction);
        for pass in result
            .passes
            .iter()
            .filter(|pass| pass.version == step.version)
        {
            let _ = writeln!(
                out,
                "            {}: {} %, {} rows",
                pass.pass, pass.percent, pass.rows
            );
        }
    }
    for pause in result.paused.iter().filter(|pause| pause.track == track) {
        let _ = writeln!(out, "  paused    {}", since(pause));
    }
}

fn since(pause: &Pause) -> String {
    format!("since {} by {}", pause.since, pause.by)
}

/// What `migrate pause` and `migrate resume` have done.
pub(super) fn paused(out: &mut String, result: &PauseResult) {
    for pause in &result.paused {
        let _ = writeln!(
            out,
            "{}: paused {}; `tollgate migrate resume` lets it go on",
            pause.track,
            since(pause)
        );
    }
    for pause in &result.resumed {
        let _ = writeln!(out, "{}: goes on; was paused {}", pause.track, since(pause));
    }
    if result.paused.is_empty() && result.resumed.is_empty() {
        line(out, "nothing was paused");
    }
}
