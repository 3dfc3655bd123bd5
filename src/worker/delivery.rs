//! One delivery: a job's way from its message to its end.
//!
//! ```text
//! read -> start count -> pipeline -> record published -> end counted -> acknowledged
//! ```
//!
//! Every end is durable before the acknowledgement: a record, the job again as a new message (because its delivery took too
//! long, or because it waits for something), or a dead letter. What is nobody's fault costs the job nothing: run again, it
//! replays what was paid for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Taken;
use super::faults::Faults;
use super::pipelines::{NoPipeline, Pipelines};
use crate::fault::Halt;
use crate::fleet::Fleet;
use crate::message::{JobMessage, Unreadable};
use crate::metrics::{End as Metered, Metrics};
use crate::pipeline::{Leave, NoRecord, Pipeline};
use crate::price::Nano;
use crate::queue::{Delivery, Tier};
use crate::record::Record;
use crate::shared::jobs::{MOST_STARTS, Start};
use crate::state::StateError;

/// Between two attempts at something that must not be given up.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// Suspects run one at a time, so that the one that kills its worker is blamed alone.
const SUSPECTS: usize = 1;
/// How long one waits for its turn in its slot, before it waits at the broker: after a restart of the broker everything that
/// was under way is suspect, and nearly all of it is over in seconds.
const SUSPECT_TURN: Duration = Duration::from_secs(5);

/// Serves deliveries. One for the process.
pub(super) struct Desk {
    pub(super) fleet: Arc<Fleet>,
    pub(super) pipelines: Pipelines,
    faults: Arc<Faults>,
    pub(super) metrics: Metrics,
    suspects: Semaphore,
    /// The worker has no more time: jobs go back as they are, their calls in flight unfinished.
    pub(super) cut: CancellationToken,
}

/// Why another message of a dead letter's job is one.
pub(super) const DEAD_BEFORE: &str = "dead_before";

/// Whether a job was started in this delivery: only then does its end take back what counts against it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Began {
    Yes,
    No,
}

/// What becomes of a job.
pub(super) enum End {
    Record(Box<Record>),
    /// Its delivery took too long: the job again, to be taken up where it was.
    Continue,
    /// It waits.
    Park(Tier, &'static str),
    Dead(&'static str, String),
    /// For another worker, at once.
    GiveBack,
    /// The same, and its start keeps counting against it.
    Panicked,
}

impl End {
    /// Another letter of a job that counts as dead, so that nothing is lost if the first one was.
    fn dead_before() -> Self {
        Self::Dead(DEAD_BEFORE, "it is a dead letter already; aurelia dead requeue starts it again".to_owned())
    }
}

impl Desk {
    pub(super) fn new(fleet: Arc<Fleet>, pipelines: Pipelines, faults: Arc<Faults>, metrics: Metrics) -> Self {
        Self { fleet, pipelines, faults, metrics, suspects: Semaphore::new(SUSPECTS), cut: CancellationToken::new() }
    }

    /// Serves one delivery to its end. Dropped half-way, it goes back to its queue.
    pub(super) async fn serve(&self, Taken { delivery, ceiling, .. }: Taken) {
        let began = Instant::now();
        self.metrics.delivery_taken();
        let message = match JobMessage::decode(&delivery.body) {
            Ok(message) if message.job.run == delivery.run => message,
            Ok(message) => {
                let detail =
                    format!("its run is {:?}, and it came by the queue of {:?}", message.job.run, delivery.run);
                return self.unreadable(delivery, "wrong_run", &detail).await;
            }
            Err(Unreadable::Dead(reason, detail)) => return self.unreadable(delivery, reason, &detail).await,
            Err(Unreadable::Newer(version)) => {
                tracing::warn!(version, run = delivery.run, "a job waits for a newer worker");
                let body = delivery.body.clone();
                return self.end(Metered::Parked("newer"), delivery.park(Tier::Minute, body).await);
            }
        };
        let job_id = message.job.id();
        let mut message = message;
        let (started, end) = match self.start(&delivery, ceiling, &message, &job_id).await {
            Ok((pipeline, _suspect)) => {
                message.carried.clear();
                let end = self.job(&pipeline, &message, began).await;
                message.carried = pipeline.caller.unstored(&job_id);
                // What it has paid for travels with it, so it goes back as a new message.
                (Began::Yes, if message.carried.is_empty() { end } else { End::Continue })
            }
            Err(end) => (Began::No, end),
        };
        self.finish(delivery, message, &job_id, (started, end), began).await;
    }

    /// Counts the job's start; else why it does not start here and now.
    async fn start(
        &self,
        delivery: &Delivery,
        ceiling: Option<Nano>,
        message: &JobMessage,
        job_id: &str,
    ) -> Result<(Arc<Pipeline>, Option<SemaphorePermit<'_>>), End> {
        let run = &delivery.run;
        let pipeline = match self.pipelines.of(run, &message.recipe, ceiling).await {
            Ok(pipeline) => pipeline,
            Err(NoPipeline::NoRecipe) => {
                self.metrics.recipe_missing();
                tracing::warn!(run, recipe = message.recipe, "a recipe is not registered; run the producer again");
                return Err(End::Park(Tier::Minute, "recipe"));
            }
            Err(NoPipeline::State(error)) => return Err(self.no_state(&error).await),
            Err(NoPipeline::Halt(halt)) => {
                self.faults.one(halt);
                return Err(End::Park(Tier::Minute, "setup"));
            }
        };
        let suspect = self.count(delivery, job_id).await?;
        for carried in &message.carried {
            if let Err(error) = pipeline.caller.store_carried(carried).await {
                return Err(self.not_counted(run, job_id, &error).await);
            }
        }
        Ok((pipeline, suspect))
    }

    /// Counts the start; a suspect waits for its turn first.
    async fn count(&self, delivery: &Delivery, job_id: &str) -> Result<Option<SemaphorePermit<'_>>, End> {
        let (jobs, run) = (&self.fleet.jobs, &delivery.run);
        match jobs.start_first(run, job_id).await {
            Ok(Start::Yes(_)) => return Ok(None),
            Ok(Start::Suspect) => {}
            Ok(Start::Dead) => return Err(End::dead_before()),
            // If it was counted all the same, it is a suspect next time, and never more.
            Err(error) => return Err(self.no_state(&error).await),
        }
        // Straight back from a lost delivery: its worker may be alive and about to end it, and if it is dead, its claims
        // live on for seconds. Waiting here for either would be one more chance to be under way at a kill.
        if delivery.returned > 0 {
            return Err(End::Park(Tier::TenSeconds, "suspect"));
        }
        let Ok(Ok(turn)) = timeout(SUSPECT_TURN, self.suspects.acquire()).await else {
            return Err(End::Park(Tier::TenSeconds, "suspect"));
        };
        match jobs.start(run, job_id).await {
            Err(error) => Err(self.not_counted(run, job_id, &error).await),
            Ok(Start::Yes(started)) if started.is_poison() => {
                let detail = format!("it was started {MOST_STARTS} times, and each time its worker died with it");
                Err(End::Dead("poison", detail))
            }
            Ok(Start::Yes(_)) => Ok(Some(turn)),
            Ok(Start::Dead | Start::Suspect) => Err(End::dead_before()),
        }
    }

    /// The start may have been counted all the same.
    async fn not_counted(&self, run: &str, job_id: &str, error: &StateError) -> End {
        self.ended(run, job_id).await;
        self.no_state(error).await
    }

    /// Runs the job as far as it gets before its delivery's deadline.
    async fn job(&self, pipeline: &Pipeline, message: &JobMessage, began: Instant) -> End {
        let _running = self.metrics.job_starts();
        let stop = self.fleet.shutdown.drain.child_token();
        let deadline = self.fleet.config.worker.delivery_deadline.saturating_sub(began.elapsed());
        let timer = async {
            sleep(deadline).await;
            stop.cancel();
            std::future::pending().await
        };
        tokio::select! {
            end = self.run(pipeline, message, &stop) => end,
            never = timer => never,
            () = self.cut.cancelled() => End::GiveBack,
        }
    }

    async fn run(&self, pipeline: &Pipeline, message: &JobMessage, stop: &CancellationToken) -> End {
        let worked = Duration::from_secs(message.worked_seconds);
        let leave = Leave { job_deadline: self.fleet.config.worker.job_deadline.saturating_sub(worked), stop };
        let halt = match AssertUnwindSafe(pipeline.run(&message.job, leave)).catch_unwind().await {
            Ok(Ok(record)) => {
                self.faults.none();
                return End::Record(Box::new(record));
            }
            Ok(Err(NoRecord::Halt(halt))) => halt,
            Ok(Err(NoRecord::Missing(_))) => Halt::Worker("a job was run offline".to_owned()),
            Err(_) => {
                self.metrics.panicked();
                tracing::error!(item = message.job.item_id, "a job panicked, which is a defect");
                return End::Panicked;
            }
        };
        match halt {
            Halt::Stopped if self.fleet.shutdown.drain.is_cancelled() => End::GiveBack,
            Halt::Stopped => End::Continue,
            Halt::Wait { until, reason, .. } => End::Park(tier(until, reason), reason),
            Halt::Budget(why) => {
                tracing::warn!(why, "jobs wait for money");
                End::Park(Tier::TenMinutes, "budget")
            }
            Halt::Setup(_) => {
                self.faults.one(halt);
                End::Park(Tier::Minute, "setup")
            }
            Halt::Worker(_) => {
                self.faults.one(halt);
                End::Park(Tier::TenSeconds, "worker")
            }
        }
    }

    /// Nothing is known, so nothing is spent: the job waits at the broker. Given back, it would come again at once, and be a dead
    /// letter of the broker's after so many rounds.
    async fn no_state(&self, error: &StateError) -> End {
        tracing::debug!(%error, "a job waits for the shared state");
        tokio::select! {
            () = self.fleet.shutdown.drain.cancelled() => {}
            () = sleep(AGAIN) => {}
        }
        if self.fleet.shutdown.drain.is_cancelled() { End::GiveBack } else { End::Park(Tier::TenSeconds, "state") }
    }
}

/// The longest wait that is over by then, so that nothing waits too long. Money may be given before.
fn tier(until: jiff::Timestamp, reason: &str) -> Tier {
    let left = until.duration_since(jiff::Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    let longest = if reason == "budget" { Tier::TenMinutes.wait() } else { Tier::Hour.wait() };
    let mut tiers = Tier::ALL.into_iter().rev();
    tiers.find(|tier| tier.wait() <= left.min(longest)).unwrap_or(Tier::TenSeconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_back_when_its_wait_is_over_and_within_ten_minutes_where_it_waits_for_money() {
        let at = |minutes: i64, reason| tier(jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes), reason);
        assert_eq!(
            [2, 11, 61, 900].map(|minutes| at(minutes, "quota")),
            [Tier::Minute, Tier::TenMinutes, Tier::Hour, Tier::Hour]
        );
        assert_eq!([11, 900].map(|minutes| at(minutes, "budget")), [Tier::TenMinutes; 2]);
        assert_eq!(at(0, "budget"), Tier::TenSeconds);
    }
}
