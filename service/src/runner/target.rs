//! The gateway version that boots next: `up` goes as far as it can live with, and what is past it waits.

use tollgate_migration::gateway::waits_for;
use tollgate_migration::ledger::Target;
use tollgate_migration::{Context, Track};

use super::Session;
use crate::error::{Error, Result};
use crate::history::History;
use crate::report::result::{GatewayState, WaitingStep};

impl Session {
    /// Says in a history which of its steps wait for a later version of the gateway.
    ///
    /// # Errors
    /// [`Error::Usage`] for a version that the track does not know.
    pub(crate) fn aim(&self, track: Track, context: &Context, history: &mut History) -> Result<()> {
        history.target = Some(match &self.target {
            Some(word) => named(track, word)?,
            None => Target::of(track, context.ledger(track)),
        });
        Ok(())
    }

    /// Refuses a named version where it is not clear whose it is.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub(crate) fn check_target(&self, tracks: &[Track]) -> Result<()> {
        match (&self.target, tracks) {
            (None, _) => Ok(()),
            (Some(word), [track]) => named(*track, word).map(|_| ()),
            (Some(_), _) => Err(Error::usage(
                "--for names a version of one gateway, and several tracks are meant",
                "name one with --track",
            )),
        }
    }
}

fn named(track: Track, word: &str) -> Result<Target> {
    Target::parse(track, word).map_err(|unknown| {
        Error::usage(
            format!(
                "--for {word} is no version of {} that this Tollgate knows",
                track.gateway()
            ),
            format!("it knows {}", unknown.known),
        )
    })
}

/// Steps that wait for a later version of the gateway.
pub(crate) fn waiting(track: Track, history: &History) -> Vec<WaitingStep> {
    let Some(target) = &history.target else {
        return Vec::new();
    };
    track
        .migrations()
        .iter()
        .filter(|migration| {
            !history.entries.contains_key(migration.version)
                && !target.reaches(track, migration.slug())
        })
        .map(|migration| WaitingStep {
            track,
            version: migration.version.to_owned(),
            phase: migration.phase,
            waits_for: waits_for(track, migration.slug()),
        })
        .collect()
}

/// What a track's gateway has recorded, for a result.
pub(crate) fn gateway(track: Track, context: &Context, history: &History) -> Option<GatewayState> {
    let ledger = context.ledger(track);
    let version = track.words(ledger)?;
    Some(GatewayState {
        track,
        gateway: track.gateway(),
        ledger: track.ledger_table(),
        version,
        newest: ledger.newest(),
        target: history.target.as_ref().map(|target| target.words.clone()),
    })
}
