//! `aurelia-producer`: from corpora to jobs in a run's queue, each counted once.
//!
//! ```text
//! args      the command line                        feed      reads corpora on a thread of its own, in batches
//! enqueue   one batch: claim, publish, confirm      room      waits while the queue is full
//! offsets   what need not be read again             rejects   lines that are no items, and why
//! dry       counts and estimates, asks nobody       show      progress and the summary
//! ```
//!
//! A batch of items is claimed in the shared state, published, and confirmed there once the broker has all of it. Whatever
//! is killed in between is claimed and not confirmed, and is published again by the next run over it: so nothing is lost, and
//! what is published twice has one job id and ends in one record. Nothing here remembers items: the shared state tells the
//! new from the known, so memory is a few batches, however long the corpus. The offsets only save reading, and are not
//! believed where the shared state was emptied or the queue was lost since.
//!
//! A queue that is gone although its run has items (broker.md, 1.4) is noticed before it is made again, and noted first; then
//! each of its items is enqueued again, whoever reads it, without being counted again.

mod args;
mod dry;
mod enqueue;
mod feed;
mod offsets;
mod rejects;
mod room;
mod show;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use futures_util::StreamExt as _;
use tokio::time::sleep;

use crate::cli::{Failure, configure, launch, recipe_file, say};
use crate::config::Config;
use crate::fleet::Fleet;
use crate::price::Nano;
use crate::queue::{QueueError, QueueErrorKind, declare, ready};
use crate::recipe::Recipe;
use crate::shared::runs::{NewRun, Phase, Registered, RunInfo};
use crate::state::StateError;
use args::ProducerArgs;
use enqueue::{Enqueuer, Halt};
use offsets::Offsets;
use rejects::Rejects;
use show::Summary;

/// Batches under way at once.
const BATCHES: usize = 4;
/// Between two attempts at a Redis that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Parses the command line, runs, and maps the end to an exit code.
pub fn main() -> ExitCode {
    let args = ProducerArgs::parse();
    launch("aurelia-producer", run(args))
}

async fn run(args: ProducerArgs) -> Result<u8, Failure> {
    args.check()?;
    let config = configure(&args.config)?.config;
    let recipe = recipe_file(args.recipe.as_ref())?
        .with(args.threshold, args.max_tries)?
        .resolve(|provider| !any_key(&config) || config.has_key(provider));
    if args.dry_run {
        return dry::run(&args, &config, &recipe).await;
    }
    let ceiling = args.budget_usd;
    let fleet = Fleet::open(config, "aurelia-producer").map_err(Failure::setup)?;
    let shutdown = fleet.shutdown.clone();
    let done = tokio::select! {
        biased;
        listening = shutdown.listen() => Err(Failure::failed(format!("signals cannot be received: {listening:?}"))),
        () = shutdown.abort.cancelled() => Err(stopped(&args)),
        done = produce(&args, &fleet, &recipe, ceiling) => done,
    };
    // Unless it was told to end at once.
    if !shutdown.abort.is_cancelled() {
        fleet.close().await;
    }
    done
}

/// Keys live at the workers; a producer that has none takes every provider to have one.
fn any_key(config: &Config) -> bool {
    config.providers.values().any(|provider| !provider.credentials.is_empty())
}

async fn produce(args: &ProducerArgs, fleet: &Fleet, recipe: &Recipe, ceiling: Option<Nano>) -> Result<u8, Failure> {
    let began = Instant::now();
    let info = prepare(args, fleet, recipe, ceiling).await.map_err(|halt| failure(halt, args))?;
    let mut offsets = Offsets::open(args, &info)?;
    let mut rejects = Rejects::open(args.rejects.as_deref(), &offsets)?;
    let sources = feed::open(args, &fleet.config.store, &offsets).await?;
    let mut summary = Summary::new(&args.run, offsets.rejected());
    let bar = show::Bar::new(args.json, &sources, &fleet.shutdown);
    let size = usize::try_from(fleet.config.queue.max_ready).unwrap_or(usize::MAX);
    let batches = feed::start(sources, size);
    let enqueuer = Enqueuer::new(fleet, &info, recipe.digest()).map_err(|halt| failure(halt, args))?;
    let work = batches.take_until(fleet.shutdown.drain.cancelled()).map(|batch| enqueuer.enqueue(batch));
    let mut work = std::pin::pin!(work.buffered(BATCHES));
    let mut halt = None;
    while let Some(done) = work.next().await {
        match done {
            Ok(done) => {
                rejects.add(&done.rejects)?;
                offsets.advance(&done, rejects.mark())?;
                summary.add(&done);
                bar.show(&summary, offsets.bytes());
            }
            Err(end) => {
                halt = Some(end);
                break;
            }
        }
    }
    bar.clear();
    offsets.write()?;
    rejects.tell(&summary);
    let end = match halt {
        None if fleet.shutdown.drain.is_cancelled() => Some(Halt::Stopped),
        None => finish(args, fleet, &info, &mut summary).await.err(),
        halt => halt,
    };
    summary.seconds = began.elapsed().as_secs_f64();
    summary.print(args.json)?;
    match end {
        Some(halt) => Err(failure(halt, args)),
        None => Ok(u8::from(summary.rejected > 0)),
    }
}

/// Makes what is enqueued into, and registers the run.
async fn prepare(args: &ProducerArgs, fleet: &Fleet, recipe: &Recipe, ceiling: Option<Nano>) -> Result<RunInfo, Halt> {
    let name = args.run.as_str();
    let queue = fleet.topology.run(name)?.name;
    let new = NewRun { name, recipe, lane: args.lane.into(), ceiling };
    if let Registered::OtherRecipe(other) = patiently(fleet, || fleet.runs.register(&new)).await? {
        return Err(Halt::Setup(format!(
            "run {name:?} has recipe {}, and this one is {}: a run has one recipe; enqueue with that one, or under another \
             --run (which keys are set here can make a difference too: roles fall back to providers that have one)",
            short(&other),
            short(&recipe.digest())
        )));
    }
    let before = info(fleet, name).await?;
    if before.phase == Phase::Cancelled {
        return Err(Halt::Setup(format!("run {name:?} is cancelled; take another --run, or resume it first")));
    }
    let there = loop {
        match ready(&fleet.incoming, &queue).await {
            Ok(ready) => break ready.is_some(),
            Err(error) if error.kind == QueueErrorKind::Unavailable => again(fleet, &error.message).await?,
            Err(error) => return Err(error.into()),
        }
    };
    let lost = !there && before.may_be_queued();
    if lost {
        patiently(fleet, || fleet.runs.queue_lost(name)).await?;
        say(&format!(
            "the queue of run {name:?} is gone, with what was in it of {} items: it is made again, and what is read now is \
             enqueued again without being counted twice\n",
            before.enqueued
        ));
    }
    let runs = [name];
    tokio::select! {
        declared = declare(&fleet.incoming, &fleet.topology, &runs) => declared.map(|_| ())?,
        () = fleet.shutdown.drain.cancelled() => return Err(Halt::Stopped),
    }
    info(fleet, name).await
}

/// Seals the run, if it is the one that was begun with.
async fn finish(args: &ProducerArgs, fleet: &Fleet, began: &RunInfo, summary: &mut Summary) -> Result<(), Halt> {
    let now = patiently(fleet, || fleet.runs.get(&args.run)).await?;
    if now.is_none_or(|now| now.created_at != began.created_at) {
        return Err(Halt::Again(
            "the shared state was emptied meanwhile, and what was enqueued before is not known any more".to_owned(),
        ));
    }
    if !args.no_seal {
        summary.sealed = patiently(fleet, || fleet.runs.seal(&args.run, true)).await?;
    }
    Ok(())
}

async fn info(fleet: &Fleet, name: &str) -> Result<RunInfo, Halt> {
    let info = patiently(fleet, || fleet.runs.get(name)).await?;
    info.ok_or_else(|| Halt::Again("the shared state was emptied meanwhile".to_owned()))
}

/// Asks the shared state until it answers: nothing is enqueued that could not be counted.
async fn patiently<T, F>(fleet: &Fleet, mut ask: impl FnMut() -> F) -> Result<T, Halt>
where
    F: Future<Output = Result<T, StateError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => again(fleet, &error.to_string()).await?,
        }
    }
}

async fn again(fleet: &Fleet, why: &str) -> Result<(), Halt> {
    tracing::warn!(why, "waiting, and trying again");
    tokio::select! {
        () = sleep(AGAIN) => Ok(()),
        () = fleet.shutdown.drain.cancelled() => Err(Halt::Stopped),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn stopped(args: &ProducerArgs) -> Failure {
    failure(Halt::Stopped, args)
}

fn failure(halt: Halt, args: &ProducerArgs) -> Failure {
    let run = &args.run;
    match halt {
        Halt::Setup(message) => Failure::setup(message),
        Halt::Failed(message) => Failure::failed(message),
        Halt::Again(message) => Failure { code: 75, message: format!("{message}; run the same command again") },
        Halt::Stopped => Failure {
            code: 75,
            message: format!(
                "stopped before the end, and run {run:?} is not sealed; the same command goes on where it was"
            ),
        },
    }
}

impl From<QueueError> for Halt {
    fn from(error: QueueError) -> Self {
        match error.kind {
            QueueErrorKind::Stopped => Self::Stopped,
            QueueErrorKind::Topology if error.message.contains("reaches no queue") => {
                Self::Again(format!("the run's queue was lost: {}", error.message))
            }
            QueueErrorKind::Invalid | QueueErrorKind::Topology | QueueErrorKind::Denied => Self::Setup(error.message),
            QueueErrorKind::Unavailable | QueueErrorKind::Refused => Self::Again(error.message),
        }
    }
}

/// Of a text, for many.
type Text = Arc<str>;
