//! `aurelia run`: a corpus, or one clip, through the pipeline on one machine.
//!
//! ```text
//! open directory -> plan (read the corpus once: count, reject, compare) -> intake -> job -> sink -> tally
//! ```
//!
//! A slot first, then an item: nothing is taken that cannot start. Run again, it goes on where it was: items with a
//! record are skipped, all others are run from their start, and what they had paid for is read from the journal. What is
//! nobody's fault ends the intake; jobs under way finish their call, which is stored, and are left for the next time.

pub mod directory;
pub mod pin;
pub mod plan;
pub mod records;
pub mod sink;
pub mod summary;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::{self, OpenError, RunSettings};
use crate::fault::Halt;
use crate::job::Job;
use crate::pipeline::{Leave, NoRecord, Pipeline};
use crate::quota::gate::Gate;
use crate::recipe::Recipe;
use crate::record::{Record, Status};
use crate::shutdown::Shutdown;
use crate::state::StateError;

use directory::Directory;
use plan::{Fingerprint, Plan, Source};
use sink::Sink;
pub use summary::{Summary, Tally};

/// What to run and where to keep it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The items.
    pub source: Source,
    /// The output directory.
    pub out: PathBuf,
    /// The run's name; none: that of the directory.
    pub name: Option<String>,
    /// Whether one recipe owns the directory. Off for a single clip, where each recipe is a run of its own.
    pub pinned: bool,
    /// Items run at once.
    pub concurrency: usize,
    /// Most items run this time.
    pub limit: Option<u64>,
    /// Records with one of these are asked for again.
    pub retry: BTreeSet<Status>,
    /// Money and waiting.
    pub settings: RunSettings,
}

/// A run as it goes, for those who show it.
#[derive(Debug, Default)]
pub struct View {
    /// Counts so far.
    pub tally: Mutex<Tally>,
    /// Quota and money, once the run is open.
    pub gate: OnceLock<Arc<Gate>>,
}

impl View {
    /// The counts.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a run did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Configuration, keys, recipe or directory do not fit: exit code 64.
    #[error("{0}")]
    Setup(String),
    /// Another process is at it: exit code 75.
    #[error("{0}")]
    Busy(String),
    /// The disk or a file failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl From<StateError> for RunError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Held { .. } => Self::Busy(error.to_string()),
            StateError::Newer { .. } => Self::Setup(error.to_string()),
            StateError::Failed { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::State(error) => error.into(),
            OpenError::Halt(halt) => Self::Setup(halt.to_string()),
        }
    }
}

/// Runs what has no record yet.
pub async fn run(
    config: &Config,
    recipe: Recipe,
    options: &Options,
    shutdown: &Shutdown,
    view: &View,
) -> Result<Summary, RunError> {
    let began = Instant::now();
    // Keys, prices and the corpus first: nothing is written for a run that cannot start.
    context::lines(config, &recipe).map_err(|halt| RunError::Setup(halt.to_string()))?;
    drop(plan::lines(&options.source)?);
    context::tools(config).map_err(RunError::Setup)?;
    let directory = Directory::open(config, &recipe, options).await?;
    let mut records = directory.records(&options.retry)?;
    let plan = Plan::make(&options.source, Some((&directory, &records)), &shutdown.drain).await?;
    let context = context::open(
        config,
        recipe,
        Arc::clone(&directory.state),
        &directory.place,
        &directory.media_cache(),
        &options.settings,
    )
    .await?;
    // Set once per view; a second run with the same view shows the first one's money.
    let _first = view.gate.set(Arc::clone(&context.gate));
    if !options.retry.is_empty() && !records.retry.is_empty() {
        let again = plan::retried(&options.source, &records, options.limit.unwrap_or(u64::MAX))?;
        directory.supersede(&again, &options.retry, &mut records)?;
    }
    if !options.pinned {
        // The clip itself may be another one behind the same name: its jobs are run again, and replay what was paid.
        directory.forget(&mut records)?;
    }
    *view.tally() = Tally::starting(&records, &plan, options);
    let sink = Arc::new(Sink::open(&directory.records_path()).map_err(RunError::Failed)?);
    let pipeline = Arc::new(context.pipeline);
    let leave = (config.worker.job_deadline, shutdown.drain.clone());
    let mut jobs = Jobs { running: JoinSet::new(), names: HashMap::new(), halt: None, leave };
    let intake = plan::pending(&options.source, &directory.run, &mut records)?;
    let limit = options.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    for job in intake.take(limit) {
        let job = job.map_err(RunError::Failed)?;
        jobs.make_room(options.concurrency, view, shutdown).await;
        if jobs.halt.is_some() || shutdown.drain.is_cancelled() {
            break;
        }
        jobs.start(job, &pipeline, &sink);
    }
    jobs.make_room(1, view, shutdown).await;
    let totals = context.gate.totals();
    let tally = view.tally().clone();
    if jobs.halt.is_none() && tally.written + tally.panicked < tally.wanted {
        let changed = || Halt::Worker("the corpus changed while it was read; run the same command again".to_owned());
        jobs.halt = Some(if shutdown.drain.is_cancelled() { Halt::Stopped } else { changed() });
    }
    if jobs.halt.is_none() {
        directory.retry_is_over()?;
    }
    Ok(Summary::new(&directory, &plan, tally, totals, pipeline.library.stats(), jobs.halt, began.elapsed()))
}

/// The jobs under way.
struct Jobs {
    running: JoinSet<(Job, Result<Record, Halt>)>,
    names: HashMap<tokio::task::Id, String>,
    halt: Option<Halt>,
    leave: (Duration, CancellationToken),
}

impl Jobs {
    fn start(&mut self, job: Job, pipeline: &Arc<Pipeline>, sink: &Arc<Sink>) {
        let (pipeline, sink) = (Arc::clone(pipeline), Arc::clone(sink));
        let (name, (job_deadline, stop)) = (job.item_id.clone(), self.leave.clone());
        let task = self.running.spawn(async move {
            // Appended by the job itself, so that jobs that end together share one fsync.
            let leave = Leave { job_deadline, stop: &stop };
            let result = kept(pipeline.run(&job, leave).await, &sink).await;
            (job, result)
        });
        self.names.insert(task.id(), name);
    }

    /// Waits until fewer than `slots` jobs run.
    async fn make_room(&mut self, slots: usize, view: &View, shutdown: &Shutdown) {
        while self.running.len() >= slots {
            let ended = tokio::select! {
                biased;
                () = shutdown.abort.cancelled() => {
                    self.running.shutdown().await;
                    self.halt.get_or_insert(Halt::Stopped);
                    return;
                }
                ended = self.running.join_next_with_id() => ended,
            };
            match ended {
                None => return,
                Some(Ok((id, (job, result)))) => {
                    self.names.remove(&id);
                    self.finish(&job, result, view, shutdown);
                }
                Some(Err(error)) => {
                    let item = self.names.remove(&error.id()).unwrap_or_default();
                    tracing::error!(%item, %error, "a job panicked, which is a defect; it has no record");
                    view.tally().panicked += 1;
                }
            }
        }
    }

    fn finish(&mut self, job: &Job, result: Result<Record, Halt>, view: &View, shutdown: &Shutdown) {
        let halt = match result {
            Ok(record) => {
                tracing::info!(item = %job.item_id, status = record.status.name(), score = record.score, "done");
                view.tally().count(&record);
                return;
            }
            Err(halt) => halt,
        };
        // The first reason counts: the jobs that stop because of it all say "stopped".
        if self.halt.is_none() && !(halt == Halt::Stopped && shutdown.drain.is_cancelled()) {
            self.halt = Some(halt);
        }
        shutdown.drain.cancel();
    }
}

/// A job's record once it is durable, or why the run ends.
async fn kept(result: Result<Record, NoRecord>, sink: &Sink) -> Result<Record, Halt> {
    match result {
        Ok(record) => sink.append(&record).await.map(|()| record).map_err(Halt::Worker),
        Err(NoRecord::Halt(halt)) => Err(halt),
        Err(NoRecord::Missing(_)) => Err(Halt::Worker("a job was run offline".to_owned())),
    }
}

/// A 16-byte name of an item: enough to tell 10^9 items apart, small enough to keep them all.
pub fn fingerprint(text: &str) -> Fingerprint {
    let hash = blake3::hash(text.as_bytes());
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hash.as_bytes()[..16]);
    fingerprint
}
