//! `aurelia-worker`: stateless; takes jobs from the queues of all active runs, and publishes records.
//!
//! ```text
//! slots -> board (which run is next) -> as many messages -> delivery (a job's way) -> ends (what becomes of it) -> slot
//! ```
//!
//! A slot first, then a message: nothing is taken that cannot start. While the shared state does not answer, no run is known
//! to be active and nothing is taken. A signal ends the intake; calls in flight end and are stored, what is not done goes
//! back to its queue, and nothing of it is paid for again but for calls that outlast the grace, which are cut.

mod board;
mod cli;
mod delivery;
mod ends;
mod faults;
mod pipelines;
mod runs;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

pub use cli::main;

use crate::cli::Failure;
use crate::context::fleet::Common;
use crate::fleet::Fleet;
use crate::health::{self, Health};
use crate::price::Nano;
use crate::queue::{Delivery, Intake, QueueError, QueueErrorKind, declare};
use board::Next;
use delivery::Desk;
use faults::{Faults, joined};
use pipelines::Pipelines;
use runs::Runs;
use slots::Slots;

/// Before the end of the grace, what still runs is cut, so that saying good-bye has time.
const FAREWELL: Duration = Duration::from_secs(3);
/// So much of it for telling broker and Redis of the jobs that were cut.
const GIVEN_BACK: Duration = Duration::from_secs(2);

/// Works until told to stop, or until this machine turns out not to be able to.
///
/// # Errors
/// Configuration that does not fit, or a machine that fails one job after the other.
pub async fn work(fleet: Fleet, cache: std::path::PathBuf, concurrency: usize) -> Result<u8, Failure> {
    let grace = fleet.config.worker.grace.saturating_sub(FAREWELL).max(Duration::from_secs(1));
    let (metrics, health) = health::start(&fleet, "aurelia-worker").await?;
    let common =
        Common::open(&fleet, metrics.clone(), cache).await.map_err(|error| Failure::setup(error.to_string()))?;
    let fleet = Arc::new(fleet);
    let drain = fleet.shutdown.drain.clone();
    let mut beat = Health::beat();
    tokio::select! {
        biased;
        () = drain.cancelled() => {
            fleet.close().await;
            return Ok(0);
        }
        declared = health.beating(declare(&fleet.outgoing, &fleet.topology, &[])) => declared.map_err(|e| broken(&e))?,
    };
    let intake = Intake::new(fleet.incoming.clone(), fleet.publisher.clone(), fleet.topology.clone());
    let faults = Arc::new(Faults::new(fleet.config.worker.most_faults));
    let pipelines = Pipelines::new(fleet.runs.clone(), common);
    let desk = Arc::new(Desk::new(Arc::clone(&fleet), pipelines, Arc::clone(&faults), metrics.clone()));
    let mut taker = Taker { runs: Runs::new(fleet.runs.clone()), intake };
    let slots = Slots::new(concurrency);
    let (mut looks, mut waited) = (interval(slots::LOOK), metrics.quota_waited());
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = JoinSet::new();
    loop {
        let taken = {
            // Kept over the ends of jobs: dropped, it may bring a message back that it had taken.
            let mut next = std::pin::pin!(taker.next(&slots));
            loop {
                tokio::select! {
                    biased;
                    () = drain.cancelled() => break None,
                    () = faults.too_many() => break None,
                    _ = beat.tick() => health.tick(),
                    _ = looks.tick() => {
                        let so_far = metrics.quota_waited();
                        let now = slots.fit(so_far.saturating_sub(waited), running.len(), slots::LOOK);
                        waited = so_far;
                        metrics.slots(now, slots.wanted(running.len(), running.len() >= now));
                    }
                    Some(ended) = running.join_next() => joined(ended),
                    taken = &mut next => break Some(taken.map_err(|e| broken(&e))?),
                }
            }
        };
        let Some(taken) = taken else { break };
        for taken in taken {
            let desk = Arc::clone(&desk);
            running.spawn(async move { desk.serve(taken).await });
        }
    }
    drain.cancel();
    tokio::select! {
        () = fleet.shutdown.abort.cancelled() => {}
        () = leave(&mut running, &desk, grace) => {}
    }
    // Dropped deliveries go back to their queues.
    running.shutdown().await;
    fleet.close().await;
    faults.verdict()
}

/// Lets jobs end their calls; those that take longer than `grace` go back as they are.
async fn leave(running: &mut JoinSet<()>, desk: &Desk, grace: Duration) {
    if timeout(grace, all(running)).await.is_err() {
        tracing::warn!("some jobs did not stop in time; they go back to their queues");
        // Not dropped: their starts would count against jobs that took no worker with them.
        desk.cut.cancel();
        drop(timeout(GIVEN_BACK, all(running)).await);
    }
}

async fn all(running: &mut JoinSet<()>) {
    while let Some(ended) = running.join_next().await {
        joined(ended);
    }
}

/// A job and the slot that it was taken for.
struct Taken {
    delivery: Delivery,
    /// The most money for its run.
    ceiling: Option<Nano>,
    _slot: OwnedSemaphorePermit,
}

/// Takes messages for free slots.
struct Taker {
    runs: Runs,
    intake: Intake,
}

impl Taker {
    /// The next deliveries, one at least, each with its slot; waits as long as it takes. Cancel safe: what was taken and not
    /// handed out goes back.
    async fn next(&mut self, slots: &Slots) -> Result<Vec<Taken>, QueueError> {
        let first = slots.acquire().await.map_err(|_| QueueError::stopped())?;
        let mut free = vec![first];
        loop {
            self.runs.refresh().await;
            let (run, at_once) = match self.runs.board.next(Instant::now()) {
                Next::Run(run, at_once) => (run, at_once),
                Next::At(at) => {
                    sleep_until(at.min(self.runs.due())).await;
                    continue;
                }
            };
            free.truncate(at_once);
            while free.len() < at_once
                && let Some(slot) = slots.try_acquire()
            {
                free.push(slot);
            }
            let answers = join_all(free.iter().map(|_| self.intake.take(&run))).await;
            let taken = self.sort(&run, answers, &mut free)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    /// What the answers of a run's queue mean for its next turn, and what was taken, each with one of the slots.
    fn sort(
        &mut self,
        run: &str,
        answers: Vec<Result<Option<Delivery>, QueueError>>,
        free: &mut Vec<OwnedSemaphorePermit>,
    ) -> Result<Vec<Taken>, QueueError> {
        let (mut taken, mut empty) = (Vec::new(), false);
        for answer in answers {
            match answer {
                Ok(Some(delivery)) => {
                    self.runs.board.took(run);
                    let ceiling = self.runs.ceiling(run);
                    taken.extend(free.pop().map(|slot| Taken { delivery, ceiling, _slot: slot }));
                }
                Ok(None) => empty = true,
                Err(error) if error.kind == QueueErrorKind::Unavailable => {
                    tracing::debug!(%error, run, "no job could be taken");
                    empty = true;
                }
                Err(error) if error.kind == QueueErrorKind::Stopped => return Err(error),
                Err(error) => {
                    // No queue: its producer makes it again, and what was in it (ARCHITECTURE.md, "A queue that is lost").
                    // No rights, or no name for a queue: the other runs go on.
                    tracing::warn!(%error, run, "no job can be taken from a run; if its queue is gone, run its producer again");
                    self.runs.board.missing(run, Instant::now());
                }
            }
        }
        if empty {
            self.runs.board.empty(run, Instant::now(), crate::retry::jitter());
        }
        Ok(taken)
    }
}

fn broken(error: &QueueError) -> Failure {
    Failure::setup(error.to_string())
}
