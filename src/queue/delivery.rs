//! A job that was taken, and the four ways it ends: acknowledged, parked, dead, given back.
//!
//! What ends a delivery with a message publishes it first, waits until it is confirmed, and only then acknowledges. If the process
//! dies between the two, the job is there twice, which replay makes harmless; the other order would lose it.

use std::time::Duration;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;

use super::channels::Lent;
use super::error::QueueError;
use super::publisher::{Message, Publisher};
use super::topology::{Tier, Topology};

/// How often a job was parked.
pub(super) const PARKED: &str = "aurelia-parked";
/// What a dead letter says of itself.
pub(super) const REASON: &str = "aurelia-reason";
pub(super) const DETAIL: &str = "aurelia-detail";
pub(super) const RUN: &str = "aurelia-run";
/// What died, where that is no job.
pub(super) const ORIGIN: &str = "aurelia-origin";
pub(super) const RECORD: &str = "record";
pub(super) const RETURNED: &str = "aurelia-returned";
pub(super) const HISTORY: &str = "aurelia-history";
/// Longest detail of a dead letter, in characters.
pub(super) const DETAIL_LONGEST: usize = 4000;
/// Queueing an acknowledgement at the client.
pub(super) const ACK: Duration = Duration::from_secs(5);

/// A job that was taken. Dropped without an end, it goes back to its queue.
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub body: Vec<u8>,
    /// The id it was published under; a job may come twice under one id.
    pub id: String,
    /// The run it belongs to.
    pub run: String,
    /// How often it was parked.
    pub parked: u32,
    /// How often it came back to its queue unacknowledged since it was last published; cuts count too.
    pub returned: u64,
    headers: FieldTable,
    acker: Acker,
    lent: Lent,
    publisher: Publisher,
    topology: Topology,
}

/// What became of the end of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The broker was told. That it heard is not confirmed by anybody, so the job may still come again.
    Told,
    /// The delivery was lost with its connection: the job comes again, and this is no error of it.
    Lost,
}

impl Delivery {
    pub(super) fn new(message: lapin::message::Delivery, lent: Lent, publisher: Publisher, topology: Topology) -> Self {
        let headers = message.properties.headers().clone().unwrap_or_default();
        let id = message.properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
        Self {
            id,
            run: message.routing_key.as_str().to_owned(),
            parked: number(&headers, PARKED).and_then(|parked| u32::try_from(parked).ok()).unwrap_or(0),
            returned: number(&headers, "x-delivery-count").unwrap_or(0),
            body: message.data,
            headers,
            acker: message.acker,
            lent,
            publisher,
            topology,
        }
    }

    /// Ends it: its effect is durable, confirmed by whoever keeps it.
    pub async fn ack(self) -> Settled {
        let told = timeout(ACK, self.acker.ack(BasicAckOptions::default())).await;
        self.settled(matches!(told, Ok(Ok(true))))
    }

    /// Has it come back to its run after the tier's wait, with this body, and frees the slot.
    ///
    /// Errors are those of [`Publisher::publish`]; the job then goes back to its queue.
    pub async fn park(self, tier: Tier, body: impl Into<Vec<u8>>) -> Result<Settled, QueueError> {
        let parked = self.parked.saturating_add(1);
        // Headers are made anew: what a broker counted in the old ones would be counted on.
        let message = Message::new(self.topology.wait(tier), self.run.clone(), self.id.clone(), body)
            .with(PARKED, i64::from(parked));
        self.publisher.publish(&message).await?;
        Ok(self.ack().await)
    }

    /// Makes it a [dead letter](Delivery::letter).
    ///
    /// Errors are those of [`Publisher::publish`]; the job then goes back to its queue.
    pub async fn dead(self, reason: &str, detail: &str) -> Result<Settled, QueueError> {
        self.publisher.publish(&self.letter(reason, detail)).await?;
        Ok(self.ack().await)
    }

    /// It as a dead letter: `reason` is a word to sort by, `detail` the last error, for people. Publish it, then end it.
    pub fn letter(&self, reason: &str, detail: &str) -> Message {
        let detail: String = detail.chars().take(DETAIL_LONGEST).collect();
        Message::new(self.topology.dead_exchange(), self.run.clone(), self.id.clone(), self.body.clone())
            .with_text(REASON, reason)
            .with_text(DETAIL, &detail)
            .with_text(RUN, &self.run)
            .with(PARKED, i64::from(self.parked))
            .with(RETURNED, i64::try_from(self.returned).unwrap_or(i64::MAX))
            .with_text(HISTORY, &history(&self.headers))
    }

    /// Gives it back to its queue at once, for another worker; it comes back at the front and counts as returned.
    pub async fn give_back(self) -> Settled {
        let options = BasicNackOptions { requeue: true, multiple: false };
        let told = timeout(ACK, self.acker.nack(options)).await;
        self.settled(matches!(told, Ok(Ok(true))))
    }

    fn settled(self, told: bool) -> Settled {
        if told && self.lent.channel.status().connected() {
            self.lent.bring_back();
            return Settled::Told;
        }
        tracing::debug!(id = self.id, "the delivery was lost with its connection; it comes again");
        Settled::Lost
    }
}

/// The waits and dead-letterings that the broker noted, one a line.
pub(super) fn history(headers: &FieldTable) -> String {
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return String::new();
    };
    let line = |death: &AMQPValue| {
        let AMQPValue::FieldTable(death) = death else { return None };
        let [reason, queue] = ["reason", "queue"].map(|name| text(death, name).unwrap_or_default());
        Some(format!("{reason} in {queue}, times {}", number(death, "count").unwrap_or(1)))
    };
    deaths.as_slice().iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn number(table: &FieldTable, name: &str) -> Option<u64> {
    match table.inner().get(name)? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::Timestamp(number) => Some(*number),
        _ => None,
    }
}

pub(super) fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}
