//! Writes batches, one after another, and looks after what is written when none comes.
//!
//! A batch is done when every record of it is in a shard that a manifest lists and every dead letter of it is confirmed. Until
//! then it is tried again, whatever is away; what makes it wait holds up the batches behind it, not the broker's heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::bury::bury;
use super::dataset::Dataset;
use super::known::Known;
use super::manifest::Manifest;
use super::message::Row;
use super::sink::Sink;
use super::state::Fleet;
use super::trouble::Trouble;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::queue::{Publisher, QueueErrorKind, Tag, Topology, declare};
use crate::shared::runs::RunInfo;

/// Between two looks at the registry of runs.
const LOOK: Duration = Duration::from_secs(1);
/// After so long without a record it is looked whether another collector is at the data set.
const SILENT: Duration = Duration::from_secs(2);
/// A data set that is complete is closed after so long without a record, for the memory of its ids.
const CLOSE_AFTER: Duration = Duration::from_mins(5);

/// What is known of a run, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Registered, and so expected to be complete one day.
    pub(super) registered: bool,
    /// Its manifest without the shards.
    pub(super) manifest: Manifest,
    /// Their number.
    pub(super) shards: usize,
    /// Nothing is left to be done about it.
    settled: bool,
}

/// The runs as of the last look; none: nobody has answered yet.
pub(super) type View = Option<BTreeMap<String, Shown>>;

/// Who writes.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Option<Sink>,
    config: Config,
    fleet: Fleet,
    publisher: Publisher,
    link: crate::queue::Link,
    topology: Topology,
    open: BTreeMap<String, (Dataset, Instant)>,
    /// Manifests of data sets that are not open, complete ones.
    closed: BTreeMap<String, Shown>,
    writing: Trouble,
    looking: Trouble,
    view: watch::Sender<View>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Writer {
    pub(super) fn new(
        fleet: &crate::fleet::Fleet,
        state: Fleet,
        view: watch::Sender<View>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        Self {
            sink: None,
            config: fleet.config.clone(),
            fleet: state,
            publisher: fleet.publisher.clone(),
            link: fleet.outgoing.clone(),
            topology: fleet.topology.clone(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            writing: Trouble::new("records cannot be written"),
            looking: Trouble::new("data sets cannot be looked after"),
            view,
            metrics,
            stop,
        }
    }

    /// Writes what comes until nothing more does, or until told to stop. What is acknowledged goes to `done`.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Batch>, done: mpsc::Sender<Tag>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                batch = batches.recv() => {
                    let Some(batch) = batch else { return };
                    let Some(tag) = batch.tag else { continue };
                    if !self.batch(batch).await || done.send(tag).await.is_err() {
                        return;
                    }
                }
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Makes a batch durable. False: told to stop before.
    async fn batch(&mut self, batch: Batch) -> bool {
        for message in &batch.dead {
            loop {
                let Err(error) = self.publisher.publish(message).await else { break };
                match error.kind {
                    QueueErrorKind::Stopped => return false,
                    QueueErrorKind::Topology => drop(declare(&self.link, &self.topology, &[]).await),
                    _ => {}
                }
                if !self.pause(&error.message).await {
                    return false;
                }
            }
            self.metrics.no_records(1);
        }
        let mut runs: BTreeMap<String, Vec<Arc<Row>>> = BTreeMap::new();
        for row in batch.rows {
            if let Some(rows) = runs.get_mut(&row.run) {
                rows.push(row);
            } else {
                runs.insert(row.run.clone(), vec![row]);
            }
        }
        for (run, rows) in &runs {
            while let Err(error) = self.add(run, rows).await {
                if !self.pause(&error).await {
                    return false;
                }
            }
            self.writing.over();
        }
        true
    }

    async fn pause(&mut self, error: &str) -> bool {
        let wait = self.writing.failed(error);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = sleep(wait) => true,
        }
    }

    async fn add(&mut self, run: &str, rows: &[Arc<Row>]) -> Result<(), String> {
        let sink = self.sink().await?;
        if !self.open.contains_key(run) {
            let set = Dataset::open(&sink, run, &self.metrics).await?;
            self.open.insert(run.to_owned(), (set, Instant::now()));
            self.closed.remove(run);
        }
        let Some((set, last)) = self.open.get_mut(run) else { return Ok(()) };
        *last = Instant::now();
        set.add(&sink, &mut self.fleet, rows).await
    }

    async fn sink(&mut self) -> Result<Sink, String> {
        if self.sink.is_none() {
            self.sink = Some(Sink::open(&self.config).await?);
        }
        self.sink.clone().ok_or_else(String::new)
    }

    /// Sees to all runs that are not known to be complete, and shows them.
    async fn look(&mut self) {
        if !self.looking.may_try() {
            return;
        }
        let Some(runs) = self.fleet.list().await else { return };
        match self.look_at(&runs).await {
            Ok(()) => {
                self.looking.over();
                self.show(&runs);
            }
            Err(error) => {
                self.looking.failed(&error);
            }
        }
    }

    async fn look_at(&mut self, runs: &[RunInfo]) -> Result<(), String> {
        let sink = self.sink().await?;
        for info in runs {
            if self.is_settled(info) {
                continue;
            }
            if let Some((set, last)) = self.open.get_mut(&info.name) {
                let dead = set.known.manifest.waits_for_dead(info)
                    && bury(&self.link, &self.topology, &mut self.fleet, set, info).await.unwrap_or_else(|error| {
                        tracing::warn!(error, run = info.name, "its dead letters are not looked through; trying again");
                        false
                    });
                let known = &mut set.known;
                // What another collector added is not known here until the manifest is read anew.
                let silent = last.elapsed() > SILENT && !known.manifest.complete;
                let ours = !silent || Known::read(&sink, &info.name).await?.manifest.writer == known.manifest.writer;
                let kept = ours && known.see_to(&sink, &mut self.fleet, info, dead).await?;
                if !kept {
                    self.metrics.manifest_conflict();
                }
                let complete = known.manifest.complete && known.is_settled();
                if kept && !(complete && last.elapsed() > CLOSE_AFTER) {
                    continue;
                }
                self.open.remove(&info.name);
            } else {
                let mut known = Known::read(&sink, &info.name).await?;
                if known.manifest.waits_for_dead(info) {
                    // Which jobs have a record is known of an open one; it is judged at the next look.
                    let set = Dataset::open(&sink, &info.name, &self.metrics).await?;
                    self.open.insert(info.name.clone(), (set, Instant::now()));
                    self.closed.remove(&info.name);
                } else if known.see_to(&sink, &mut self.fleet, info, false).await? {
                    self.closed.insert(info.name.clone(), shown(&known, true));
                } else {
                    self.metrics.manifest_conflict();
                }
            }
        }
        Ok(())
    }

    /// Whether nothing can have changed about a run that is not open.
    fn is_settled(&self, info: &RunInfo) -> bool {
        self.closed.get(&info.name).is_some_and(|known| {
            let manifest = &known.manifest;
            let same = (manifest.sealed, manifest.purged) == (info.sealed, info.purged);
            known.settled
                && manifest.complete
                && same
                && manifest.has_all(info)
                && info.collected == manifest.collected()
        })
    }

    fn show(&self, runs: &[RunInfo]) {
        let mut view = self.closed.clone();
        for (name, (set, _)) in &self.open {
            let registered = runs.iter().any(|info| info.name == *name);
            view.insert(name.clone(), shown(&set.known, registered));
        }
        for info in runs {
            view.entry(info.name.clone()).or_insert_with(|| shown(&Known::new(&info.name), true));
        }
        self.view.send_replace(Some(view));
    }
}

fn shown(known: &Known, registered: bool) -> Shown {
    let manifest = &known.manifest;
    let shards = manifest.shards.len();
    let head = Manifest { shards: Vec::new(), ..manifest.clone() };
    Shown { registered, manifest: head, shards, settled: known.is_settled() }
}
