//! How a delivery ends: its effect is confirmed, what is under way is counted, and then it is acknowledged.
//!
//! If the process dies in between, the job is there twice, which replay makes harmless; acknowledged first, it would be lost, or
//! count as under way until its run is complete.

use tokio::time::{Instant, sleep};

use super::delivery::{AGAIN, Began, DEAD_BEFORE, Desk, End};
use crate::job::Job;
use crate::message::{JobMessage, RecordMessage};
use crate::metrics::End as Metered;
use crate::queue::{Delivery, Message, QueueError, QueueErrorKind, Settled, declare};

/// How often that is tried which does no harm if it is lost: the collector clears what is left.
const TOLD_LATER: u32 = 60;

impl Desk {
    /// Makes the end durable, then acknowledges.
    pub(super) async fn finish(
        &self,
        delivery: Delivery,
        mut message: JobMessage,
        job_id: &str,
        (started, end): (Began, End),
        began: Instant,
    ) {
        let (fleet, run) = (&self.fleet, delivery.run.clone());
        match end {
            End::Record(record) => {
                let (item, status, tries) = (record.item_id.clone(), record.status, record.by_try());
                tracing::info!(run, item, status = status.name(), score = record.score, "done");
                let body = serde_json::to_vec(&RecordMessage::new(*record, &message.job)).unwrap_or_default();
                match self.publish(&fleet.topology.record(job_id, body), None).await {
                    Ok(()) => {
                        self.metrics.job_recorded(status, &tries);
                        self.ended(&run, job_id).await;
                        self.end(Metered::Acked, Ok(delivery.ack().await));
                    }
                    Err(error) if error.kind == QueueErrorKind::Invalid => {
                        self.dead(delivery, &message.job, "record_too_long", &error.to_string()).await;
                    }
                    Err(error) => tracing::warn!(%error, item, "a record was not published; its job comes again"),
                }
            }
            End::Continue => {
                tracing::info!(run, item = message.job.item_id, "put back, to go on in another delivery");
                message.worked_seconds += began.elapsed().as_secs();
                let mut body = message.encode();
                while body.is_err() && message.carried.pop().is_some() {
                    let item = &message.job.item_id;
                    tracing::error!(item, "a reply that was paid for is too long to travel: it is lost");
                    body = message.encode();
                }
                match body {
                    Ok(body) => match self.publish(&fleet.topology.job(&run, job_id, body), Some(&run)).await {
                        Ok(()) => {
                            self.ended(&run, job_id).await;
                            self.end(Metered::Continued, Ok(delivery.ack().await));
                        }
                        Err(error) => tracing::warn!(%error, "a job was not put back; it comes again"),
                    },
                    Err(error) => self.dead(delivery, &message.job, "too_long", &error).await,
                }
            }
            End::Park(tier, reason) => {
                tracing::info!(run, item = message.job.item_id, reason, seconds = tier.wait().as_secs(), "waits");
                let counted = match started {
                    Began::Yes => fleet.jobs.park(&run, job_id, reason).await,
                    Began::No => fleet.jobs.wait(&run, job_id, reason).await,
                };
                if let Err(error) = counted {
                    tracing::debug!(%error, "a waiting job is not counted");
                    if started == Began::Yes {
                        self.ended_later(&run, job_id);
                    }
                }
                let body = delivery.body.clone();
                self.end(Metered::Parked(reason), delivery.park(tier, body).await);
            }
            End::Dead(reason, detail) => self.dead(delivery, &message.job, reason, &detail).await,
            End::GiveBack => {
                tracing::info!(run, item = message.job.item_id, "given back");
                if started == Began::Yes {
                    self.ended(&run, job_id).await;
                }
                self.end(Metered::GivenBack, Ok(delivery.give_back().await));
            }
            End::Panicked => self.end(Metered::GivenBack, Ok(delivery.give_back().await)),
        }
    }

    /// Publishes until it is confirmed; a topology that is gone is made again, with the queue of `run` if the message goes
    /// there. Errors: it stops, or can never be sent.
    async fn publish(&self, message: &Message, run: Option<&str>) -> Result<(), QueueError> {
        loop {
            match self.fleet.publisher.publish(message).await {
                Err(error) if error.kind == QueueErrorKind::Topology => {
                    tracing::warn!(%error, "the topology is declared again");
                    // Noted before it is made again, or its producer would not know that what was in it is lost.
                    if let Some(run) = run
                        && let Err(error) = self.fleet.runs.queue_lost(run).await
                    {
                        tracing::warn!(%error, run, "a lost queue could not be noted; trying again");
                        sleep(AGAIN).await;
                        continue;
                    }
                    declare(&self.fleet.outgoing, &self.fleet.topology, run.as_slice()).await?;
                }
                Err(error) if error.kind == QueueErrorKind::Refused => {
                    tracing::warn!(%error, "trying again");
                    sleep(AGAIN).await;
                }
                ended => return ended,
            }
        }
    }

    async fn dead(&self, delivery: Delivery, job: &Job, reason: &'static str, detail: &str) {
        let (run, job_id) = (delivery.run.clone(), job.id());
        tracing::warn!(run, job_id, reason, detail, "a job is a dead letter");
        let letter = delivery.letter(reason, detail);
        if let Err(error) = self.publish(&letter, None).await {
            return self.end(Metered::Dead(reason), Err(error));
        }
        // One that counted already may have been sent back since, and started.
        if reason != DEAD_BEFORE {
            // Without this count its run would never be complete.
            while let Err(error) = self.fleet.runs.died(job).await {
                tracing::debug!(%error, "a dead letter is not counted yet");
                tokio::select! {
                    () = self.fleet.shutdown.drain.cancelled() => return,
                    () = sleep(AGAIN) => {}
                }
            }
        }
        self.end(Metered::Dead(reason), Ok(delivery.ack().await));
    }

    pub(super) async fn unreadable(&self, delivery: Delivery, reason: &'static str, detail: &str) {
        let run = delivery.run.clone();
        tracing::warn!(run, reason, detail, "a message is no job; it is a dead letter");
        let settled = delivery.dead(reason, detail).await;
        // It is no job of the run: only the metrics count it.
        self.end(Metered::Dead(reason), settled);
    }

    /// The job's start counts no more; told later if it cannot be told now.
    pub(super) async fn ended(&self, run: &str, job_id: &str) {
        if let Err(error) = self.fleet.jobs.end(run, job_id).await {
            tracing::debug!(%error, "the end of a job is not counted yet");
            self.ended_later(run, job_id);
        }
    }

    /// Told in passing until it is done, or was tried often enough.
    fn ended_later(&self, run: &str, job_id: &str) {
        let (jobs, run, job_id) = (self.fleet.jobs.clone(), run.to_owned(), job_id.to_owned());
        self.fleet.redis.in_passing(async move {
            for _ in 0..TOLD_LATER {
                sleep(AGAIN).await;
                if jobs.end(&run, &job_id).await.is_ok() {
                    return;
                }
            }
        });
    }

    /// Takes note of how a delivery ended.
    pub(super) fn end(&self, end: Metered, settled: Result<Settled, QueueError>) {
        self.pipelines.count_media();
        match settled {
            Ok(Settled::Told) => {
                self.metrics.deliveries_acked(u64::from(end != Metered::GivenBack));
                self.metrics.delivery_ended(end);
            }
            Ok(Settled::Lost) => {
                self.metrics.deliveries_lost(1);
                self.metrics.delivery_ended(end);
            }
            Err(error) => tracing::warn!(%error, ?end, "a delivery has no end; its job comes again"),
        }
    }
}
