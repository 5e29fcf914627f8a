//! `rehearse --gateway`: what the gateway's own migration would lose, without `migrate prepare` and with it, on two copies.

use tollgate_migration::Track;
use tollgate_migration::ledger::Target;

use super::{Rehearsal, boot};
use crate::database::{Access, Location};
use crate::error::{Error, Result};
use crate::observer::Event;
use crate::prepare;
use crate::report::result::{BootResult, BootedCopy, Compared};
use crate::report::{CommandResult, Finding, Report, Severity};
use crate::runner::{Session, context};
use crate::snapshot::snapshot;
use crate::verify::{failure, verify};

/// What came of one copy.
#[derive(Debug, Default)]
struct Ended {
    /// What stopped the boot.
    stopped: Option<String>,
    /// What `verify` found behind it.
    found: Vec<Finding>,
    compared: Vec<Compared>,
}

impl Ended {
    fn lost(&self) -> Vec<&Finding> {
        self.found
            .iter()
            .filter(|finding| finding.severity == Severity::Blocking)
            .collect()
    }

    fn result(&self) -> BootedCopy {
        BootedCopy {
            stopped: self.stopped.clone(),
            lost: self.lost().into_iter().cloned().collect(),
            compared: self.compared.clone(),
        }
    }
}

impl Rehearsal<'_> {
    /// Two copies, one prepared; the same boot on both.
    pub(super) async fn beside_the_gateway(&self, report: &mut Report) -> Result<()> {
        if self.session.target.is_none() {
            return Err(Error::usage(
                "nobody said which version of the gateway boots next",
                "name it with --for VERSION",
            ));
        }
        let source = self.session.connect(Access::Read).await?;
        let tracks = self.session.tracks(&source).await?;
        let names: Vec<Track> = tracks.iter().map(|(track, _)| *track).collect();
        self.session.check_target(&names)?;
        let [(track, exists)] = tracks[..] else {
            return Err(Error::usage(
                "a gateway's boot is one track's",
                "name it with --track",
            ));
        };
        let mut history = self.session.history(&source, track, exists).await?;
        let live = context(&source, &history).await?;
        if !live.ledger(track).owns() {
            return Err(Error::usage(
                format!(
                    "{} has no ledger of a gateway: none will migrate it at boot",
                    self.session.location.display
                ),
                "leave --gateway out: `tollgate migrate up` does the migration itself",
            ));
        }
        self.session.aim(track, &live, &mut history)?;
        let Some(target) = history.target.take() else {
            return Err(Error::usage(
                "nobody said which version of the gateway boots next",
                "name it with --for VERSION",
            ));
        };
        let boot = Boot { track, target };
        let without = self
            .on_a_copy(&source, "alone", async |location, _| {
                self.boots(location, &boot, false).await
            })
            .await?;
        let with = self
            .on_a_copy(&source, "prepared", async |location, _| {
                self.boots(location, &boot, true).await
            })
            .await?;
        report.result = Some(CommandResult::Booted(BootResult {
            gateway: track.gateway(),
            version: boot.target.words.clone(),
            without_prepare: without.result(),
            with_prepare: with.result(),
        }));
        if without.stopped.is_some() || !without.lost().is_empty() {
            report.findings.push(alone(&boot, &without));
        }
        report.findings.extend(with.found.iter().cloned());
        if let Some(stopped) = with.stopped {
            return Err(Error::refused(
                "boot_stops",
                format!("the boot stops although the copy was prepared: {stopped}"),
                "resolve what it names; the source was only read",
            ));
        }
        let verified = Report {
            findings: with.found,
            ..Report::default()
        };
        failure(&verified).map_or(Ok(()), Err)
    }

    async fn boots(&self, location: Location, boot: &Boot, prepared: bool) -> Result<Ended> {
        let (observer, stop) = (self.observer, self.stop);
        let scratch = Session {
            location,
            ..self.session.clone()
        };
        let word = if prepared { "prepared" } else { "alone" };
        let file = self.folder.join(format!("{word}.snapshot"));
        snapshot(&scratch, &file, self.now, observer, stop).await?;
        let mut options = self.options.prepare.clone();
        if prepared {
            observer.note(Event::Step("prepare the copy".to_owned()));
            let outcome = prepare::prepare(&scratch, options.clone(), stop).await;
            outcome.error.map_or(Ok(()), Err)?;
        }
        observer.note(Event::Step(format!(
            "boot {} {} on the copy",
            boot.track.gateway(),
            boot.target.words
        )));
        let connection = scratch
            .location
            .connect(Access::Write, scratch.connect_timeout)
            .await?;
        let mut ended = Ended::default();
        if let Err(error) = boot::boot(&connection, boot.track, &boot.target).await {
            ended.stopped = Some(error.to_string());
        }
        connection
            .close()
            .await
            .map_err(Error::database("end the boot"))?;
        if ended.stopped.is_some() {
            return Ok(ended);
        }
        if prepared {
            options.finish = true;
            let outcome = prepare::prepare(&scratch, options, stop).await;
            outcome.error.map_or(Ok(()), Err)?;
        }
        let verified = verify(&scratch, Some(&file), observer, stop).await?;
        ended.compared = verified
            .result
            .as_ref()
            .map(|result| result.compared().to_vec())
            .unwrap_or_default();
        ended.found = verified.findings;
        Ok(ended)
    }
}

/// Which gateway boots.
struct Boot {
    track: Track,
    target: Target,
}

/// What the gateway's migration does to a database that nobody has prepared.
fn alone(boot: &Boot, without: &Ended) -> Finding {
    let lost = without.lost();
    let mut effect = match &without.stopped {
        Some(why) => format!("the boot stops: {why}"),
        None => lost
            .iter()
            .map(|finding| {
                format!(
                    "{} {}{}: {} {}",
                    finding.code,
                    finding.table,
                    finding
                        .column
                        .as_ref()
                        .map_or_else(String::new, |column| format!(".{column}")),
                    finding.rows,
                    if finding.rows == 1 { "row" } else { "rows" },
                )
            })
            .collect::<Vec<_>>()
            .join("; "),
    };
    if effect.is_empty() {
        effect = "it stops".to_owned();
    }
    Finding {
        code: "rehearse".to_owned(),
        severity: Severity::Info,
        title: format!(
            "without `migrate prepare` {} {} stops or loses something",
            boot.track.gateway(),
            boot.target.words
        ),
        table: lost
            .first()
            .map_or_else(String::new, |finding| finding.table.clone()),
        column: None,
        rows: lost.iter().map(|finding| finding.rows).sum(),
        sample_ids: lost
            .iter()
            .flat_map(|finding| finding.sample_ids.clone())
            .take(10)
            .collect(),
        effect,
        resolve: "`tollgate migrate prepare` before the boot, `--finish` behind it".to_owned(),
    }
}
