//! Dead letters, for whoever looks: one after the other, each kept until it is said what becomes of it.
//!
//! They are taken without an acknowledgement, over one channel. What is neither requeued nor dropped goes back when that channel is
//! closed, by us or by our end. So somebody who looks takes nothing away, but while he looks others see less. `basic.get` instead of
//! a consumer, since it says when there is no more: about a thousand a second.
//!
//! Our own dead letters say in headers why they are dead. Those of the broker say it in `x-death`.

use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel};
use serde::Serialize;
use tokio::time::timeout;

use super::delivery::{
    ACK, DETAIL, HISTORY, ORIGIN, PARKED, REASON, RECORD, RETURNED, RUN, Settled, history, number, text,
};
use super::error::{QueueError, QueueErrorKind};
use super::link::{Link, Session};
use super::publisher::{Message, Publisher, short};
use super::topology::Topology;
use crate::job::Job;
use crate::message::JobMessage;

/// What died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A job.
    Job,
    /// A record, which the collector could not take.
    Record,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The id it was published under: a job's, or what a stranger gave it.
    pub id: String,
    /// The run it belongs to.
    pub run: String,
    /// Why it is dead, as a word to sort by.
    pub reason: String,
    /// The last error, for people.
    pub detail: String,
    /// The waits and dead-letterings that the broker noted, one a line.
    pub history: String,
    /// How often it was parked.
    pub parked: u64,
    /// How often it came back to its queue.
    pub returned: u64,
    /// Whether a program of ours made it a dead letter, not the broker.
    pub ours: bool,
    /// What died.
    pub origin: Origin,
    /// What was published.
    pub body: Vec<u8>,
}

impl DeadLetter {
    /// The job that it is of; none: a record's, or of what nobody can read as a job of its run.
    pub fn job(&self) -> Option<Job> {
        let message = (self.origin == Origin::Job).then(|| JobMessage::decode(&self.body).ok())??;
        (message.job.run == self.run).then_some(message.job)
    }
}

/// A dead letter that is held: dropped without an end, it goes back when the channel is closed.
#[derive(Debug)]
pub struct Held {
    /// What it is.
    pub letter: DeadLetter,
    acker: Acker,
}

/// A look at the dead letters of a prefix. While it is there, what it has handed out is seen by nobody else.
#[derive(Debug)]
pub struct DeadLetters {
    session: Session,
    channel: Channel,
    topology: Topology,
    queue: String,
}

impl DeadLetters {
    /// Begins to look; waits for the broker as long as it takes. Cancel safe.
    pub async fn open(link: &Link, topology: &Topology) -> Result<Self, QueueError> {
        let session = link.session().await?;
        let channel = session.channel().await?;
        Ok(Self { session, channel, topology: topology.clone(), queue: topology.dead().name })
    }

    /// The next one that was not yet handed out.
    ///
    /// Errors: [`QueueErrorKind::Unavailable`] where the broker was lost: what was held goes back, so begin again.
    /// [`QueueErrorKind::Topology`] where nothing was ever declared.
    pub async fn next(&self) -> Result<Option<Held>, QueueError> {
        let get = self.channel.basic_get(short("queue", &self.queue)?, BasicGetOptions { no_ack: false });
        let message = self.session.answer(&format!("taking from queue {}", self.queue), get).await?;
        Ok(message.map(|message| {
            let acker = message.delivery.acker.clone();
            Held { letter: letter(message.delivery, &self.topology), acker }
        }))
    }

    /// Sends it where it came from, and takes it out of the dead ones once that is confirmed.
    ///
    /// Errors are those of [`Publisher::publish`]; it then stays dead.
    pub async fn requeue(&self, held: Held, publisher: &Publisher) -> Result<Settled, QueueError> {
        publisher.publish(&self.again(&held.letter)).await?;
        Ok(self.drop_letter(held).await)
    }

    /// Takes it out of the dead ones for good.
    pub async fn drop_letter(&self, held: Held) -> Settled {
        let told = timeout(ACK, held.acker.ack(BasicAckOptions::default())).await;
        if matches!(told, Ok(Ok(true))) && self.channel.status().connected() { Settled::Told } else { Settled::Lost }
    }

    /// Ends the look: what is still held goes back, and what was said before has arrived.
    pub async fn close(self) -> Result<(), QueueError> {
        let close = self.channel.close(200, "bye".into());
        self.session.answer("closing the look at dead letters", close).await
    }

    /// As it was published at first, without what was noted of it since.
    fn again(&self, letter: &DeadLetter) -> Message {
        match letter.origin {
            Origin::Job => self.topology.job(&letter.run, letter.id.clone(), letter.body.clone()),
            Origin::Record => self.topology.record(letter.id.clone(), letter.body.clone()),
        }
    }
}

impl DeadLetters {
    /// Whether an error means that nothing was ever declared under this prefix.
    pub fn is_undeclared(error: &QueueError) -> bool {
        error.kind == QueueErrorKind::Topology
    }
}

fn letter(message: lapin::message::Delivery, topology: &Topology) -> DeadLetter {
    let headers = message.properties.headers().clone().unwrap_or_default();
    let id = message.properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    let said = |name: &str| text(&headers, name);
    let from = said("x-first-death-queue").unwrap_or_default();
    let is_record = from == topology.records().name || said(ORIGIN).as_deref() == Some(RECORD);
    let origin = if is_record { Origin::Record } else { Origin::Job };
    let noted = history(&headers);
    DeadLetter {
        id,
        run: said(RUN).unwrap_or_else(|| message.routing_key.as_str().to_owned()),
        ours: said(REASON).is_some(),
        reason: said(REASON).or_else(|| last_death(&headers)).unwrap_or_else(|| "unknown".to_owned()),
        detail: said(DETAIL).unwrap_or_else(|| noted.lines().next().unwrap_or_default().to_owned()),
        history: said(HISTORY).unwrap_or(noted),
        parked: number(&headers, PARKED).unwrap_or(0),
        returned: number(&headers, RETURNED).unwrap_or(0),
        origin,
        body: message.data,
    }
}

/// The broker's word for the last death, for example "delivery_limit".
fn last_death(headers: &FieldTable) -> Option<String> {
    use lapin::types::AMQPValue;
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    text(last, "reason")
}
