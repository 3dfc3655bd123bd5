//! One run's data set: rows are added to it, each record once, in shards that are there whole or not at all.
//!
//! ```text
//! read the manifest -> drop what it has -> ids, replies, retry, records (created once each) -> manifest by compare-and-swap
//! ```
//!
//! A shard's number is taken by creating its first file, and a manifest is only ever replaced by one that was made from it. So two
//! collectors may be at one data set: who loses the swap reads the manifest anew, drops what it has by now, and writes the rest
//! under another number. Files that no manifest lists are what a killed collector left. They are removed only after the
//! manifest was written once more, so that whoever wrote them and lives loses its swap; what is in them and in no shard is
//! written again as a new shard first, so that a broker that lost its queue has cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::index::{self, Index, Item};
use super::known::Known;
use super::manifest::{Due, Kind, NAME, Shard, Totals};
use super::message::{Head, Row};
use super::replies;
use super::shard::{self, Made, Packed};
use super::sink::Sink;
use super::state::Fleet;
use crate::metrics::Metrics;
use crate::record::Status;
use crate::shared::runs::RunInfo;

/// Files of ids read at once when a data set is opened.
const READERS: usize = 16;
/// Swaps lost in a row after which it is looked into later.
const MOST_LOST: usize = 20;

/// A data set that is open.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) known: Known,
    index: Index,
    /// Records of shards that no manifest lists, and the files that go once those are in one.
    adopted: Vec<Arc<Row>>,
    strays: Vec<String>,
    pending: Option<Pending>,
    metrics: Metrics,
}

/// A shard under way. A failure leaves it, so that another attempt goes on with it under the same number.
#[derive(Debug)]
struct Pending {
    number: u32,
    rows: Arc<Vec<Arc<Row>>>,
    made: Made,
    totals: Totals,
    keys: Vec<String>,
    replies: Option<Packed>,
    due: Option<Due>,
    created: usize,
}

impl Dataset {
    /// Opens the data set of a run; there may be none yet.
    pub(super) async fn open(sink: &Sink, run: &str, metrics: &Metrics) -> Result<Self, String> {
        for _ in 0..MOST_LOST {
            let known = Known::read(sink, run).await?;
            let (adopted, strays) = (Vec::new(), Vec::new());
            let metrics = metrics.clone();
            let mut set = Self { known, index: Index::default(), adopted, strays, pending: None, metrics };
            set.load(sink, 0).await?;
            if set.clean(sink).await? {
                return Ok(set);
            }
            set.metrics.manifest_conflict();
        }
        Err(format!("{} is replaced by others again and again", sink.path(run, NAME)))
    }

    /// Adds rows. When it returns they are in shards that the manifest lists, or were before. Failed, it is to be called again
    /// with the same rows.
    pub(super) async fn add(&mut self, sink: &Sink, fleet: &mut Fleet, rows: &[Arc<Row>]) -> Result<(), String> {
        for _ in 0..MOST_LOST {
            if self.pending.is_none() {
                self.pending = self.begin(fleet, rows).await?;
            }
            let Some(pending) = &mut self.pending else {
                self.metrics.duplicate_records(rows.len() as u64);
                return self.remove_strays(sink).await;
            };
            let known = self.adopted.len() + rows.len() - pending.rows.len();
            let shard = pending.create(sink, &self.known.manifest.run).await?;
            let mut next = self.known.manifest.clone();
            next.totals = pending.totals.clone();
            if let Some(row) = pending.rows.first().filter(|_| next.recipe_digest.is_empty()) {
                next.recipe_digest.clone_from(&row.recipe_digest);
            }
            next.shards.push(shard);
            let info = fleet.info(&next.run).await;
            if let Some(info) = &info {
                next.judge(info, false);
            }
            if self.known.save(sink, next).await? {
                self.durable(fleet, info.as_ref()).await;
                self.metrics.duplicate_records(known as u64);
                self.adopted.clear();
                return self.remove_strays(sink).await;
            }
            tracing::info!(run = self.known.manifest.run, "another collector wrote the manifest; reading it anew");
            self.metrics.manifest_conflict();
            self.pending = None;
            self.reload(sink).await?;
        }
        Err(format!("{} is replaced by others again and again", sink.path(&self.known.manifest.run, NAME)))
    }

    /// Whether it has the record of this job.
    pub(super) fn has(&self, item_id: &str, revision: u32) -> bool {
        self.index.has(Item::new(item_id), revision)
    }

    /// The part of these rows, and of what is adopted, that no shard has.
    async fn begin(&self, fleet: &mut Fleet, rows: &[Arc<Row>]) -> Result<Option<Pending>, String> {
        let mut totals = self.known.manifest.totals.clone();
        let mut above = Index::default();
        let mut fresh = Vec::with_capacity(rows.len());
        for row in self.adopted.iter().chain(rows) {
            if above.add(Some(&self.index), row.item, row.mark, &mut totals) {
                totals.cost_nano_usd = totals.cost_nano_usd.saturating_add(row.cost_nano_usd);
                totals.tries.add(&row.tries);
                fresh.push(Arc::clone(row));
            }
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let rows = Arc::new(fresh);
        let keys = replies::keys(&rows);
        let (made, found) = tokio::join!(shard::make(Arc::clone(&rows)), fleet.replies(&keys));
        let (replies, due) = match found {
            Some(found) => {
                let packed = replies::pack(found).await?;
                let there = packed.as_ref().map_or(0, |packed| packed.rows);
                totals.replies_missing += (keys.len() as u64).saturating_sub(there);
                let due = packed.is_some().then_some(Due::Expire);
                (packed, due)
            }
            None => (None, Some(Due::Pack)),
        };
        let number = self.known.manifest.next();
        Ok(Some(Pending { number, rows, made: made?, totals, keys, replies, due, created: 0 }))
    }

    /// What follows a manifest that lists the shard.
    async fn durable(&mut self, fleet: &mut Fleet, info: Option<&RunInfo>) {
        let Some(pending) = self.pending.take() else { return };
        let mut scratch = Totals::default();
        for row in pending.rows.iter() {
            self.index.add(None, row.item, row.mark, &mut scratch);
        }
        let manifest = &mut self.known.manifest;
        if let Some(shard) = manifest.shards.last() {
            self.metrics.shard_written(&shard.by_status, shard.bytes());
        }
        tracing::info!(run = manifest.run, number = pending.number, rows = pending.rows.len(), "a shard is written");
        if pending.due == Some(Due::Expire)
            && fleet.expire(&pending.keys).await
            && let Some(last) = manifest.shards.last_mut()
        {
            last.replies_due = None;
            self.known.unsaved = true;
        }
        if let Some(info) = info {
            fleet.tell(info, &self.known.manifest.collected()).await;
        }
    }

    async fn reload(&mut self, sink: &Sink) -> Result<(), String> {
        let known = Known::read(sink, &self.known.manifest.run).await?;
        let same = |n: usize, shard: &Shard| known.manifest.shards.get(n).is_some_and(|s| s.ids == shard.ids);
        let extends = self.known.manifest.shards.iter().enumerate().all(|(n, shard)| same(n, shard));
        let from = if extends { self.known.manifest.shards.len() } else { 0 };
        if !extends {
            self.index = Index::default();
        }
        self.known = known;
        self.load(sink, from).await
    }

    /// Reads the ids of the shards from this one on.
    async fn load(&mut self, sink: &Sink, from: usize) -> Result<(), String> {
        let run = self.known.manifest.run.clone();
        let shards: Vec<Shard> = self.known.manifest.shards[from..].to_vec();
        let mut read = stream::iter(shards)
            .map(|shard| {
                let run = &run;
                async move { ids(sink, run, &shard).await }
            })
            .buffered(READERS);
        let mut scratch = Totals::default();
        while let Some(entries) = read.try_next().await? {
            for (item, mark) in index::decode(&entries) {
                self.index.add(None, item, mark, &mut scratch);
            }
        }
        Ok(())
    }

    /// Looks for files that the manifest does not list. False: another collector wrote the manifest meanwhile.
    async fn clean(&mut self, sink: &Sink) -> Result<bool, String> {
        let run = self.known.manifest.run.clone();
        let listed: HashSet<&str> = self.known.manifest.files().collect();
        let is_stray = |name: &String| {
            !listed.contains(name.as_str()) && (Kind::of(name).is_some() || super::sink::is_unfinished(name))
        };
        let strays: Vec<String> = sink.list(&run).await?.into_iter().filter(is_stray).collect();
        if strays.is_empty() {
            return Ok(true);
        }
        if !self.known.save(sink, self.known.manifest.clone()).await? {
            return Ok(false);
        }
        let numbers = strays.iter().filter_map(|name| match Kind::of(name) {
            Some((Kind::Records, number)) => Some(number),
            _ => None,
        });
        let mut adopted = Vec::new();
        for number in numbers {
            adopted.extend(orphan(sink, &run, number).await?.into_iter().map(Arc::new));
        }
        tracing::warn!(
            run,
            files = strays.len(),
            records = adopted.len(),
            "a collector that was killed left files; \
             what is whole is taken over, the rest comes again"
        );
        (self.adopted, self.strays) = (adopted, strays);
        if self.adopted.is_empty() {
            self.remove_strays(sink).await?;
        }
        Ok(true)
    }

    async fn remove_strays(&mut self, sink: &Sink) -> Result<(), String> {
        self.adopted.clear();
        while let Some(name) = self.strays.last() {
            sink.remove(&self.known.manifest.run, name).await?;
            self.strays.pop();
        }
        Ok(())
    }
}

impl Pending {
    /// Creates the files that are not there yet, the records last.
    async fn create(&mut self, sink: &Sink, run: &str) -> Result<Shard, String> {
        'number: loop {
            let files = [
                (Kind::Ids, Some(&self.made.ids)),
                (Kind::Replies, self.replies.as_ref()),
                (Kind::Retry, self.made.retry.as_ref()),
                (Kind::Records, Some(&self.made.records)),
            ];
            let number = self.number;
            let part = |n: usize| files[n].1.map(|packed| packed.part(files[n].0.name(number)));
            for (kind, packed) in files.iter().skip(self.created) {
                if let Some(packed) = packed
                    && !sink.create(run, &kind.name(number), packed.content.clone()).await?
                {
                    self.number = number.saturating_add(1);
                    self.created = 0;
                    continue 'number;
                }
                self.created += 1;
            }
            let [Some(ids), replies, retry, Some(records)] = [0, 1, 2, 3].map(part) else { continue };
            let (by_status, cost_nano_usd) = (self.made.by_status.clone(), self.made.cost_nano_usd);
            return Ok(Shard { records, by_status, cost_nano_usd, ids, retry, replies, replies_due: self.due });
        }
    }
}

/// The ids of a shard: from beside it, else from its records.
pub(super) async fn ids(sink: &Sink, run: &str, shard: &Shard) -> Result<Vec<u8>, String> {
    if let Some(content) = sink.read(run, &shard.ids.name).await?
        && shard::is_whole(&shard.ids, &content).await
    {
        return Ok(content.into());
    }
    let path = sink.path(run, &shard.records.name);
    tracing::warn!(path, "the ids beside a shard are not what was written; reading the shard itself");
    let Some(content) = sink.read(run, &shard.records.name).await? else {
        return Err(format!("{path} is gone, and the manifest lists it; put it back"));
    };
    let text = shard::text(content).await.map_err(|error| format!("{path}: {error}; put it back"))?;
    let rows = text.lines().filter_map(|line| Row::again(line, None));
    Ok(index::encode(rows.map(|row| (row.item, row.mark))))
}

/// The records of a shard that no manifest lists; none if it is not whole. Of what may be asked for again the job must be there.
async fn orphan(sink: &Sink, run: &str, number: u32) -> Result<Vec<Row>, String> {
    let mut texts = [String::new(), String::new()];
    for (text, kind) in texts.iter_mut().zip([Kind::Records, Kind::Retry]) {
        if let Some(content) = sink.read(run, &kind.name(number)).await? {
            *text = shard::text(content).await.unwrap_or_default();
        }
    }
    let [records, retry] = texts;
    let jobs: HashMap<(Item, u32), &str> = retry
        .lines()
        .filter_map(|line| {
            let job: JobHead<'_> = serde_json::from_str(line).ok()?;
            Some(((Item::new(&job.item_id), job.revision), line))
        })
        .collect();
    let row = |line: &str| {
        let head: Head<'_> = serde_json::from_str(line).ok()?;
        let job = jobs.get(&(Item::new(&head.item_id), head.revision)).copied();
        let usable = head.run == run && (head.status == Status::Accepted || job.is_some());
        usable.then(|| Row::again(line, job)).flatten()
    };
    Ok(records.lines().filter_map(row).collect())
}

#[derive(serde::Deserialize)]
struct JobHead<'a> {
    #[serde(borrow)]
    item_id: std::borrow::Cow<'a, str>,
    revision: u32,
}
