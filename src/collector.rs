//! `aurelia-collector`: records from workers become data sets, each record once.
//!
//! ```text
//! queue of records -> batch -> writer -> per run: shard, then manifest -> acknowledged up to the batch's last record
//! message   what is read of a record       batch     when a shard is closed          writer    one batch after another
//! dataset   shards, dedupe, take-over       known     the manifest when nothing comes  index     which records there are
//! manifest  what a data set consists of     shard     the content of its files         sink      directory or bucket
//! replies   the journal beside a shard      retry     what can be asked for again      state     Redis, there or not
//! output    whether the sink can be written    show      what is waited for, and shown at the end
//! read      the records of a data set, for those who look at them
//! bury      dead letters whose jobs have a record
//! ```
//!
//! A record is delivered at least once and kept once: nothing is acknowledged before the manifest that lists its shard is
//! durable, and what comes again is found in the index of ids and dropped. The broker serves one collector at a time; a second one waits and
//! takes over. That two are at work for a moment is expected, and is settled by the manifest ([`dataset`]).
//!
//! When the stream is lost, the open batch is dropped: all of it comes again, under tags of the new stream, while its old tags
//! acknowledge nothing. A batch that is being written is finished; its records come again too, and are known by then.

mod batch;
mod bury;
mod dataset;
mod index;
mod known;
pub mod manifest;
mod message;
mod output;
pub mod read;
mod replies;
pub mod retry;
mod shard;
mod show;
pub mod sink;
mod state;
mod trouble;
mod writer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::{self, ConfigFiles, Failure};
use crate::config::Shared;
use crate::fleet::Fleet;
use crate::health::{self, Health};
use crate::queue::{Arrival, QueueErrorKind, Records, Tag, declare};

use batch::{Batch, Bounds};
use show::{complete, show};
use writer::{View, Writer};

/// From the signal to stop until what is under way is left to the next collector.
const GRACE: Duration = Duration::from_secs(10);
/// Before a queue that is missing is declared again.
const AGAIN: Duration = Duration::from_secs(2);

/// Gathers the records of a fleet into data sets.
#[derive(Debug, Parser)]
#[command(
    name = "aurelia-collector",
    version,
    max_term_width = 110,
    after_help = "\
Data sets are in collector.output: NAME/records-NNNNN.jsonl.zst and NAME/manifest.json for each run NAME. Start a second
collector for the case that the first one dies: it waits until then.

Exit codes: 0 done or told to stop, 1 something failed, 2 usage, 64 configuration."
)]
pub struct CollectorArgs {
    #[command(flatten)]
    config: ConfigFiles,
    /// The run that is waited for and shown. Records of all runs are collected all the same: they share one queue
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Ends once the run (without --run: every run that is registered) is complete
    #[arg(long)]
    until_complete: bool,
    /// At the end shows the counts as JSON
    #[arg(long)]
    json: bool,
}

/// The program.
pub fn main() -> ExitCode {
    let args = CollectorArgs::parse();
    cli::launch("aurelia-collector", collect(args))
}

async fn collect(args: CollectorArgs) -> Result<u8, Failure> {
    let loaded = cli::configure(&args.config)?;
    let output = &loaded.config.collector.output;
    if output.is_empty() {
        return Err(Failure::setup(
            "collector.output is not set: where data sets go; set AURELIA__COLLECTOR__OUTPUT to a directory, or to \
             s3://BUCKET/PREFIX",
        ));
    }
    let keep = match &loaded.config.shared {
        Shared::Redis { keep, .. } => *keep,
        _ => Duration::ZERO,
    };
    let fleet = Fleet::open(loaded.config, "aurelia-collector").map_err(Failure::setup)?;
    let (metrics, health) = health::start(&fleet, "aurelia-collector").await?;
    health.expect(output::OUTPUT);
    let watched = output::watch(fleet.config.clone(), health.clone());
    fleet.tasks().spawn(fleet.closing().run_until_cancelled_owned(watched));
    let (view, shown) = watch::channel(None);
    let abandon = CancellationToken::new();
    let writer = Writer::new(&fleet, state::Fleet::new(fleet.redis.clone(), keep), view, metrics, abandon.clone());
    let mut tasks = JoinSet::new();
    let (batches, waiting) = mpsc::channel(1);
    let (told, done) = mpsc::channel(4);
    let writer = tasks.spawn(writer.run(waiting, told));
    let shutdown = fleet.shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = shutdown.listen().await {
            tracing::error!(%error, "signals cannot be listened to");
        }
    });
    let mut stream = Stream::new(&fleet, batches, done, health);
    let ended = stream.run(&fleet, &args, shown.clone()).await;
    let _late = timeout(GRACE, stream.finish(&fleet)).await;
    abandon.cancel();
    stream.records.close().await;
    fleet.close().await;
    writer.abort();
    let panicked = drain(tasks).await;
    ended?;
    if panicked {
        return Err(Failure::failed(
            "what writes shards ended early, which is a defect; nothing is lost, start it again",
        ));
    }
    show(&args, &shown);
    Ok(0)
}

/// Whether a task panicked.
async fn drain(mut tasks: JoinSet<()>) -> bool {
    tasks.abort_all();
    let mut panicked = false;
    while let Some(ended) = tasks.join_next().await {
        panicked |= ended.is_err_and(|error| error.is_panic());
    }
    panicked
}

/// From the queue to the writer, and back.
struct Stream {
    records: Records,
    bounds: Bounds,
    open: Batch,
    batches: Option<mpsc::Sender<Batch>>,
    done: mpsc::Receiver<Tag>,
    /// Batches handed to the writer and not yet done.
    under_way: usize,
    health: Health,
    beat: Interval,
}

impl Stream {
    fn new(fleet: &Fleet, batches: mpsc::Sender<Batch>, done: mpsc::Receiver<Tag>, health: Health) -> Self {
        let bounds = Bounds::new(&fleet.config.collector);
        let records = Records::new(fleet.incoming.clone(), &fleet.topology, bounds.prefetch());
        let (open, batches, beat) = (Batch::default(), Some(batches), Health::beat());
        Self { records, bounds, open, batches, done, under_way: 0, health, beat }
    }

    /// Takes records until told to stop, or until what is waited for is complete.
    async fn run(
        &mut self,
        fleet: &Fleet,
        args: &CollectorArgs,
        mut shown: watch::Receiver<View>,
    ) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = fleet.shutdown.drain.cancelled() => return Ok(()),
            () = self.health.beating(declared(fleet)) => {}
        }
        loop {
            let full = self.open.is_full(&self.bounds);
            let due = self.open.due(&self.bounds);
            let is_due = full || due.is_some_and(|due| due <= Instant::now());
            let batches = self.batches.clone();
            let room = async {
                match &batches {
                    Some(batches) => batches.reserve().await.map_err(|_| ()),
                    None => Err(()),
                }
            };
            tokio::select! {
                biased;
                () = fleet.shutdown.drain.cancelled() => return Ok(()),
                _ = self.beat.tick() => self.health.tick(),
                done = self.done.recv() => match done {
                    Some(tag) => self.acknowledge(tag).await,
                    None => return Ok(()),
                },
                // The view is of what is durable, so there is nothing more to write for it.
                () = complete(args, &mut shown), if args.until_complete => return Ok(()),
                room = room, if is_due => match room {
                    Ok(room) => {
                        room.send(std::mem::take(&mut self.open));
                        self.under_way += 1;
                    }
                    Err(()) => return Ok(()),
                },
                arrival = self.records.next(), if !full => match arrival {
                    Ok(Arrival::Record(record)) => self.open.take_in(record, &fleet.topology),
                    Ok(Arrival::Rebuilt(_)) => self.open = Batch::default(),
                    Err(error) if error.kind == QueueErrorKind::Stopped => return Ok(()),
                    Err(error) => {
                        tracing::warn!(%error, "the queue of records is not there; declaring it again");
                        self.open = Batch::default();
                        tokio::select! {
                            () = fleet.shutdown.drain.cancelled() => return Ok(()),
                            () = async { sleep(AGAIN).await; self.health.beating(declared(fleet)).await } => {}
                        }
                    }
                },
                () = async { if let Some(due) = due { sleep_until(due.into()).await } }, if due.is_some() && !is_due => {}
            }
        }
    }

    /// Writes what there is.
    async fn finish(&mut self, fleet: &Fleet) {
        if let Some(batches) = self.batches.take()
            && self.open.tag.is_some()
            && batches.send(std::mem::take(&mut self.open)).await.is_ok()
        {
            self.under_way += 1;
        }
        while self.under_way > 0 {
            tokio::select! {
                biased;
                () = fleet.shutdown.abort.cancelled() => return,
                done = self.done.recv() => match done {
                    Some(tag) => self.acknowledge(tag).await,
                    None => return,
                },
            }
        }
    }

    /// A batch is durable. That the broker heard of it is not sure: what it did not hear of comes again, and is known.
    async fn acknowledge(&mut self, tag: Tag) {
        self.under_way = self.under_way.saturating_sub(1);
        let settled = self.records.ack_through(tag).await;
        tracing::debug!(?settled, "a batch is durable");
    }
}

/// Makes what records come from, however long it takes. Cancel safe.
async fn declared(fleet: &Fleet) {
    let mut trouble = trouble::Trouble::new("the topology cannot be declared");
    while let Err(error) = declare(&fleet.outgoing, &fleet.topology, &[]).await {
        sleep(trouble.failed(&error.message).max(AGAIN)).await;
    }
}
