//! Advisory locks held by one open transaction on a connection of its own, so that they hold through a transaction
//! pooler and vanish with the process. A second kind of key, the work key, lasts as long as a run's last transaction.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
use sha2::{Digest, Sha256};
use tollgate_migration::Track;

use super::gateway::{HOLDER, HOLDING, gateways, query};
use super::{Claim, Gateway, Poll};
use crate::connection::{Opening, Server, Work};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::shutdown::ShutdownSignal;

/// The first half of every lock's key: "Toll".
pub(super) const LOCK: i32 = 0x546f_6c6c;
/// The first half of every work key: "Work".
const WORK: i32 = 0x576f_726b;
/// The first half of the lock's and of the work key of a shard: "Shar", "ShWk". The second is sixteen bits of the routine, then
/// how many shards there are, then which it is.
const SHARD: i32 = 0x5368_6172;
const SHARD_WORK: i32 = 0x5368_576b;
/// A held lock.
pub(crate) struct PostgresLock {
    work: Arc<Work>,
    wait: Duration,
    /// The gateways' own keys, where the run keeps gateways waiting.
    gateways: Vec<(Track, i64)>,
    tracks: Vec<Track>,
}

/// Two schemas of one database are two databases to Tollgate.
pub(super) fn key(schema: &str, track: Track) -> i32 {
    let digest = Sha256::digest(format!("{schema}\u{1f}{track}"));
    i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// The second half of a shard's keys.
fn shard_key(schema: &str, claim: &Claim) -> i32 {
    let digest = Sha256::digest(format!(
        "{schema}\u{1f}{}\u{1f}{}",
        claim.track, claim.routine
    ));
    i32::from_be_bytes([digest[0], digest[1], claim.shard.of(), claim.shard.index()])
}

async fn schema(server: &Server) -> std::result::Result<String, DbErr> {
    server
        .one(&query(
            "SELECT COALESCE(current_schema(), '')::text AS name",
        ))
        .await?
        .map_or(Ok(String::new()), |row| row.try_get_by_index(0))
}

/// Whether an advisory lock was to be had, until the transaction or savepoint ends: `form` is how it is wanted, and its key.
async fn is_had(server: &Server, form: &str) -> std::result::Result<bool, DbErr> {
    server
        .one(&query(format!(
            "SELECT pg_try_advisory_xact_lock{form} AS held"
        )))
        .await?
        .map_or(Ok(false), |row| row.try_get_by_index(0))
}

/// Whether every one of the keys was to be had, exclusively, until the transaction or savepoint ends.
async fn try_all(
    server: &Server,
    keys: &[(i32, i32)],
) -> std::result::Result<Option<usize>, DbErr> {
    for (position, (class, key)) in keys.iter().enumerate() {
        if !is_had(server, &format!("({class}, {key})")).await? {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// Who holds an advisory lock: `halves` as the server keeps the key, `kind` 1 for a bigint and 2 for two integers.
async fn holder(
    server: &Server,
    halves: (i64, i64),
    kind: i32,
) -> std::result::Result<Option<String>, DbErr> {
    server
        .one(&query(format!(
            "SELECT {HOLDER} FROM {HOLDING} AND l.objsubid = {kind} AND l.classid::bigint = {} AND l.objid::bigint = {} LIMIT 1",
            halves.0, halves.1
        )))
        .await?
        .map(|row| row.try_get_by_index(0))
        .transpose()
}

pub(super) fn unsigned(key: i32) -> i64 {
    i64::from(key.cast_unsigned())
}

impl PostgresLock {
    pub(super) async fn take(
        session: &Session,
        mut server: Server,
        tracks: &[Track],
        gateway: Gateway,
        stop: &ShutdownSignal,
    ) -> Result<Self> {
        let mut tracks = tracks.to_vec();
        tracks.sort();
        let failed = || Error::database("take the lock");
        let mut poll = Poll::new(session.wait_lock);
        let names = loop {
            crate::fault::statement().map_err(failed())?;
            server.hold(Opening::Lock).await.map_err(failed())?;
            let schema = schema(&server).await.map_err(failed())?;
            let names: Vec<i32> = tracks.iter().map(|&track| key(&schema, track)).collect();
            let keys: Vec<(i32, i32)> = names.iter().map(|&name| (LOCK, name)).collect();
            let Some(busy) = try_all(&server, &keys).await.map_err(failed())? else {
                break names;
            };
            let holder = holder(&server, (i64::from(LOCK), unsigned(names[busy])), 2)
                .await
                .map_err(failed())?
                .unwrap_or_else(|| "a run that has just ended".to_owned());
            server.release().await.map_err(failed())?;
            let track = tracks[busy];
            tracing::debug!(%track, %holder, "waiting for the lock");
            if !poll.again(stop).await? {
                return Err(Error::Locked { track, holder });
            }
        };
        let keys: Vec<(i32, i32)> = names.iter().map(|&name| (WORK, name)).collect();
        nothing_under_way(&server, &tracks, &keys, &mut poll, stop).await?;
        let lock = Self {
            wait: session.wait_lock,
            gateways: if gateway == Gateway::Waits {
                gateways(&tracks)
            } else {
                Vec::new()
            },
            tracks,
            work: Arc::new(Work {
                keys,
                lock: server,
                stop: stop.clone(),
                wait_lock: session.wait_lock,
            }),
        };
        lock.keep_gateway_out(stop).await?;
        Ok(lock)
    }

    /// Shards of one routine share the track's key, which everything else on the track wants alone.
    pub(super) async fn take_shard(
        session: &Session,
        mut server: Server,
        claim: Claim,
        stop: &ShutdownSignal,
    ) -> Result<Self> {
        let track = claim.track;
        let failed = || Error::database("take the shard's lock");
        let mut poll = Poll::new(session.wait_lock);
        let (name, shard) = loop {
            crate::fault::statement().map_err(failed())?;
            server.hold(Opening::Lock).await.map_err(failed())?;
            let schema = schema(&server).await.map_err(failed())?;
            let (name, shard) = (key(&schema, track), shard_key(&schema, &claim));
            let holder = busy_shard(&server, name, shard).await.map_err(failed())?;
            let Some(holder) = holder else {
                break (name, shard);
            };
            server.release().await.map_err(failed())?;
            tracing::debug!(%track, %holder, "waiting for the shard's lock");
            if !poll.again(stop).await? {
                return Err(Error::Locked { track, holder });
            }
        };
        // A dead run of this very shard; what others of them do is theirs.
        let own = [(SHARD_WORK, shard)];
        nothing_under_way(&server, &[track], &own, &mut poll, stop).await?;
        Ok(Self {
            wait: session.wait_lock,
            gateways: Vec::new(),
            tracks: vec![track],
            work: Arc::new(Work {
                keys: vec![(WORK, name), own[0]],
                lock: server,
                stop: stop.clone(),
                wait_lock: session.wait_lock,
            }),
        })
    }

    pub(super) fn work(&self) -> &Arc<Work> {
        &self.work
    }

    fn lost(&self, error: &DbErr) -> Error {
        Error::LockLost {
            reason: error.to_string(),
        }
    }

    pub(super) async fn keep_gateway_out(&self, stop: &ShutdownSignal) -> Result<()> {
        if self.gateways.is_empty() {
            return Ok(());
        }
        let server = &self.work.lock;
        let mut poll = Poll::new(self.wait);
        loop {
            // A savepoint is what a key can be let go with before the transaction ends.
            let tried = async {
                crate::fault::statement()?;
                server.simple("SAVEPOINT gateway").await?;
                for &(track, key) in &self.gateways {
                    if !is_had(server, &format!("({key})")).await? {
                        return Ok(Some((track, key)));
                    }
                }
                Ok(None)
            };
            let Some((gateway, key)) = tried.await.map_err(|error| self.lost(&error))? else {
                return Ok(());
            };
            let holder = holder(server, (key >> 32, key & 0xffff_ffff), 1)
                .await
                .map_err(|error| self.lost(&error))?;
            self.let_gateway_in().await?;
            if !poll.again(stop).await? {
                return Err(Error::Locked {
                    track: self.tracks.first().copied().unwrap_or(Track::all()[0]),
                    holder: format!(
                        "a {} that is migrating the database itself ({})",
                        gateway.gateway(),
                        holder.unwrap_or_else(|| "it has just ended".to_owned())
                    ),
                });
            }
        }
    }

    pub(super) async fn let_gateway_in(&self) -> Result<()> {
        if self.gateways.is_empty() {
            return Ok(());
        }
        self.work
            .lock
            .simple("ROLLBACK TO SAVEPOINT gateway; RELEASE SAVEPOINT gateway")
            .await
            .map(|_| ())
            .map_err(|error| self.lost(&error))
    }

    pub(super) async fn release(self) {
        // A failure here means the connection is gone, and the lock with it.
        if let Err(error) = self.work.lock.clone().release().await {
            tracing::debug!(%error, "the lock's connection was gone already");
        }
    }
}

/// Takes a shard's locks; otherwise says who has them: a run of the whole track, the same shard, or one of another number.
async fn busy_shard(
    server: &Server,
    name: i32,
    shard: i32,
) -> std::result::Result<Option<String>, DbErr> {
    let just_ended = || "a run that has just ended".to_owned();
    for (class, key, form) in [(LOCK, name, "_shared"), (SHARD, shard, "")] {
        if !is_had(server, &format!("{form}({class}, {key})")).await? {
            let halves = (i64::from(class), unsigned(key));
            return Ok(Some(
                holder(server, halves, 2).await?.unwrap_or_else(just_ended),
            ));
        }
    }
    // Two that begin at once with different numbers see each other, and neither goes on.
    server
        .one(&query(format!(
            "SELECT {HOLDER} FROM {HOLDING} AND l.objsubid = 2 AND l.classid::bigint = {SHARD} \
             AND (l.objid::bigint >> 16) = {} AND ((l.objid::bigint >> 8) & 255) <> {} LIMIT 1",
            unsigned(shard) >> 16,
            (unsigned(shard) >> 8) & 255
        )))
        .await?
        .map(|row| row.try_get_by_index::<String>(0))
        .transpose()
        .map(|other| other.map(|other| format!("shards of another number ({other})")))
}

/// A run that was killed may still be committing when its lock is free. As long as it is, it shares its work key, and
/// history is not read before nobody does. The try is rolled back at once, so that our own work can share the key.
async fn nothing_under_way(
    server: &Server,
    tracks: &[Track],
    keys: &[(i32, i32)],
    poll: &mut Poll,
    stop: &ShutdownSignal,
) -> Result<()> {
    let failed = || Error::database("look for an earlier run's last transaction");
    loop {
        crate::fault::statement().map_err(failed())?;
        server.simple("SAVEPOINT work").await.map_err(failed())?;
        let busy = try_all(server, keys).await.map_err(failed())?;
        server
            .simple("ROLLBACK TO SAVEPOINT work; RELEASE SAVEPOINT work")
            .await
            .map_err(failed())?;
        let Some(busy) = busy else {
            return Ok(());
        };
        let (class, key) = keys[busy];
        let holder = holder(server, (i64::from(class), unsigned(key)), 2)
            .await
            .map_err(failed())?
            .unwrap_or_else(|| "it has just ended".to_owned());
        let track = tracks[busy];
        tracing::info!(%track, %holder, "an earlier run's last transaction is still being committed; waiting for it");
        if !poll.again(stop).await? {
            return Err(Error::StillCommitting { track, holder });
        }
    }
}
