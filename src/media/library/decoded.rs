//! Frames and sound of one content: from memory, from disk, or made by the one whose turn it is.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::super::cache::{Making, Turn};
use super::super::decode::Decoded;
use super::super::probe::Plan;
use super::super::{Kind, MediaError, MediaErrorKind, Prepared, decode, probe, source};
use super::{From, Inner, Key, Outcome, Source, blocking};
use crate::lock::lock;

impl Inner {
    /// Frames and sound.
    pub(super) async fn decoded(self: &Arc<Self>, key: Key, from: From) -> Outcome {
        if let Some(prepared) = self.remembered(&key) {
            return prepared;
        }
        let make = || self.clone().make(key.clone(), from).boxed();
        self.flights.run(key.clone(), make).await
    }

    async fn make(self: Arc<Self>, key: Key, from: From) -> Outcome {
        // It may have been finished between the look at the memory and the start of this flight.
        if let Some(outcome) = self.remembered(&key) {
            return outcome;
        }
        let (inner, (sha256, kind)) = (self.clone(), key.clone());
        let look = move || inner.cache.load(&sha256, kind);
        let name = self.cache.name(&key.0, kind);
        let space = self.cache.space();
        if let Some(prepared) = space.settled(&name, self.patience(), look.clone()).await? {
            return Ok(self.found(key, prepared));
        }
        // What has to be fetched is fetched before there is a slot or a lock: a server is waited for by nobody else.
        let source = self.open(&key.0, from).await?;
        let (making, _slot) = match space.turn(&name, &self.slots, self.patience(), look).await? {
            Turn::Done(prepared) => return Ok(self.found(key, prepared)),
            Turn::Mine(making, slot) => (Arc::new(making), slot),
        };
        let made = self.clone().decode(&key, source, making).await;
        made.map(|prepared| self.keep(key.clone(), prepared)).inspect_err(|error| {
            if matches!(error.kind, MediaErrorKind::Invalid | MediaErrorKind::Killed) {
                lock(&self.failures).insert(key, error.clone());
            }
        })
    }

    async fn decode(self: Arc<Self>, key: &Key, source: Source, making: Arc<Making>) -> Result<Prepared, MediaError> {
        let (inner, here) = (self.clone(), making.clone());
        let work = blocking(move || inner.cache.space().with_room(0, || here.work())).await?;
        let (file, dir) = (&*source.file, &*work);
        let (plan, decoded) = self.attempts(|| self.read(file, dir, key.1)).await?;
        let (inner, (sha256, kind)) = (self.clone(), key.clone());
        blocking(move || {
            source::unchanged(&source.file, &source.identity)?;
            inner.cache.save(&making, &sha256, kind, source.identity.bytes, plan.duration, &decoded)
        })
        .await
    }

    async fn read(&self, file: &File, dir: &Path, kind: Kind) -> Result<(Plan, Decoded), MediaError> {
        let input = || file.try_clone().map_err(|error| MediaError::worker(format!("cannot share a file: {error}")));
        self.counts.probes.fetch_add(1, Ordering::Relaxed);
        let plan = probe::run(input()?, dir, kind, &self.limits).await?;
        self.counts.decodes.fetch_add(u64::from(self.wants.frames || self.wants.sound), Ordering::Relaxed);
        let decoded = decode::run(input()?, dir, &plan, &self.settings, self.wants, &self.limits).await?;
        Ok((plan, decoded))
    }

    /// What was on disk.
    fn found(&self, key: Key, prepared: Prepared) -> Arc<Prepared> {
        self.counts.disk_hits.fetch_add(1, Ordering::Relaxed);
        self.keep(key, prepared)
    }

    fn keep(&self, key: Key, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        lock(&self.memory).insert(key, &prepared);
        prepared
    }
}
