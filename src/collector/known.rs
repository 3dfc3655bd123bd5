//! A manifest as it was last read or written, and what is to be done about it when no record comes.

use super::manifest::{Due, Kind, Manifest, NAME, Part, Shard};
use super::replies;
use super::shard::{self, Packed};
use super::sink::{Sink, Version};
use super::state::Fleet;
use crate::shared::runs::RunInfo;

/// Shards whose replies are seen to in one go.
const SEEN_TO: usize = 16;

/// A manifest.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) manifest: Manifest,
    version: Option<Version>,
    /// It says more than what is written.
    pub(super) unsaved: bool,
}

impl Known {
    /// Of a run without one.
    pub(super) fn new(run: &str) -> Self {
        Self { manifest: Manifest::new(run), version: None, unsaved: false }
    }

    /// Reads the manifest of a run; there may be none yet.
    pub(super) async fn read(sink: &Sink, run: &str) -> Result<Self, String> {
        let found = sink.manifest(run).await?;
        let (manifest, version) = match found {
            Some((content, version)) => (Manifest::read(&sink.path(run, NAME), &content)?, Some(version)),
            None => (Manifest::new(run), None),
        };
        if manifest.run != run {
            let path = sink.path(run, NAME);
            return Err(format!("{path} is that of run {:?}; move it away with its shards", manifest.run));
        }
        Ok(Self { manifest, version, unsaved: false })
    }

    /// Replaces it. False: another collector did.
    pub(super) async fn save(&mut self, sink: &Sink, mut next: Manifest) -> Result<bool, String> {
        let content = next.write()?;
        let Some(version) = sink.swap(&next.run, self.version.as_ref(), content.into()).await? else {
            return Ok(false);
        };
        *self = Self { manifest: next, version: Some(version), unsaved: false };
        Ok(true)
    }

    /// Whether nothing is left to be done about it.
    pub(super) fn is_settled(&self) -> bool {
        !self.unsaved && self.manifest.shards.iter().all(|shard| shard.replies_due.is_none())
    }

    /// Packs replies that could not be had, tells the journal how long to keep those that are packed, and notes what became of
    /// the run; `dead`: see [`Manifest::judge`]. False: another collector wrote the manifest.
    pub(super) async fn see_to(
        &mut self,
        sink: &Sink,
        fleet: &mut Fleet,
        info: &RunInfo,
        dead: bool,
    ) -> Result<bool, String> {
        let mut next = self.manifest.clone();
        let mut changed = self.unsaved | next.judge(info, dead);
        let run = next.run.clone();
        let mut missing = 0;
        for shard in next.shards.iter_mut().filter(|shard| shard.replies_due.is_some()).take(SEEN_TO) {
            if shard.replies_due == Some(Due::Pack) {
                let Some(lacking) = pack(sink, fleet, &run, shard).await? else { break };
                (missing, changed) = (missing + lacking, true);
            } else if expire(sink, fleet, &run, shard).await? {
                changed = true;
            } else {
                break;
            }
        }
        next.totals.replies_missing += missing;
        if changed && !self.save(sink, next).await? {
            return Ok(false);
        }
        let collected = self.manifest.collected();
        if info.collected != collected {
            fleet.tell(info, &collected).await;
        }
        Ok(true)
    }
}

/// Packs the replies of a shard that was written without them. How many are missing; none: the journal does not answer.
async fn pack(sink: &Sink, fleet: &mut Fleet, run: &str, shard: &mut Shard) -> Result<Option<u64>, String> {
    let keys = replies::keys_of(&text(sink, run, &shard.records).await?);
    let Some(found) = fleet.replies(&keys).await else { return Ok(None) };
    let packed = replies::pack(found).await?;
    let there = packed.as_ref().map_or(0, |packed| packed.rows);
    shard.replies = match (packed, shard.number()) {
        (Some(packed), Some(number)) => Some(put(sink, run, Kind::Replies.name(number), &packed).await?),
        _ => None,
    };
    shard.replies_due = shard.replies.is_some().then_some(Due::Expire);
    Ok(Some((keys.len() as u64).saturating_sub(there)))
}

/// Creates a file of replies. What a killed collector left of the same name is replaced: no manifest lists it.
async fn put(sink: &Sink, run: &str, name: String, packed: &Packed) -> Result<Part, String> {
    if !sink.create(run, &name, packed.content.clone()).await? {
        sink.remove(run, &name).await?;
        if !sink.create(run, &name, packed.content.clone()).await? {
            return Err(format!("{} is made by another collector", sink.path(run, &name)));
        }
    }
    Ok(packed.part(name))
}

/// Tells the journal how long to keep the replies of a shard. False: it does not answer.
async fn expire(sink: &Sink, fleet: &mut Fleet, run: &str, shard: &mut Shard) -> Result<bool, String> {
    if let Some(replies) = &shard.replies {
        let keys = replies::packed_keys(&text(sink, run, replies).await?);
        if !fleet.expire(&keys).await {
            return Ok(false);
        }
    }
    shard.replies_due = None;
    Ok(true)
}

/// The text of a file that the manifest lists.
pub(super) async fn text(sink: &Sink, run: &str, part: &Part) -> Result<String, String> {
    let path = sink.path(run, &part.name);
    let content = sink.read(run, &part.name).await?;
    let content = content.ok_or_else(|| format!("{path} is gone, and the manifest lists it; put it back"))?;
    shard::text(content).await.map_err(|error| format!("{path}: {error}; put it back"))
}

impl Manifest {
    /// Notes what the registry says of the run; whether that is new. A run with dead letters is complete when it is known that
    /// none of them is of a job that has a record (`dead`), which would count twice. That is looked at again once the run was
    /// opened again.
    pub(super) fn judge(&mut self, info: &RunInfo, dead: bool) -> bool {
        let complete = self.has_all(info) && (dead || !self.waits_for_dead(info));
        let new = (info.sealed, info.purged, complete);
        let changed = (self.sealed, self.purged, self.complete) != new;
        (self.sealed, self.purged, self.complete) = new;
        changed
    }

    /// Whether no record is to be expected any more, if each job counts once.
    pub(super) fn has_all(&self, info: &RunInfo) -> bool {
        info.sealed && info.remaining(self.totals.jobs) == 0
    }

    /// Whether the dead letters decide if it is complete.
    pub(super) fn waits_for_dead(&self, info: &RunInfo) -> bool {
        let known = self.complete && info.collected.complete;
        info.dead > 0 && !known && self.has_all(info)
    }
}
