//! A stream of records for the one collector that the broker serves at a time.
//!
//! Unlike jobs, records are taken ahead and acknowledged many at once: all up to a tag, when the shard they are in is durable. Four
//! things end a stream, and only two of them are said by it: an error, an end, the end of the connection, and its silence. In
//! all four everything unacknowledged comes again, under other tags and in another order, so the caller is told once, in its
//! place in the stream, and old tags acknowledge nothing.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::{sleep, timeout};

use super::delivery::{DETAIL, DETAIL_LONGEST, ORIGIN, REASON, RECORD, RUN, Settled};
use super::error::{QueueError, QueueErrorKind};
use super::link::{Link, Session};
use super::publisher::{LONGEST, Message, short};
use super::topology::Topology;
use crate::retry::jitter;

/// Handing an acknowledgement to the connection, and saying good-bye.
const ACK: Duration = Duration::from_secs(5);
/// Longest wait before the stream is opened again.
const AGAIN: Duration = Duration::from_secs(2);

/// A record that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was published.
    pub body: Vec<u8>,
    /// The id it was published under; a record may come twice.
    pub id: String,
    /// Acknowledges this record and all before it.
    pub tag: Tag,
}

impl Record {
    /// It as a dead letter: `reason` is a word to sort by, `detail` for people. Publish it, then count it as dealt with. Of a body
    /// that is too long for any message the beginning is kept.
    pub fn dead(&self, topology: &Topology, run: &str, reason: &str, detail: &str) -> Message {
        let body = &self.body[..self.body.len().min(LONGEST)];
        let detail: String = detail.chars().take(DETAIL_LONGEST).collect();
        Message::new(topology.dead_exchange(), run, self.id.clone(), body)
            .with_text(REASON, reason)
            .with_text(DETAIL, &detail)
            .with_text(RUN, run)
            .with_text(ORIGIN, RECORD)
    }
}

/// A place in the stream, as long as it is the same stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    stream: u64,
    delivery: u64,
}

/// What the stream holds next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// A record.
    Record(Record),
    /// The stream was lost, and why: what was not acknowledged comes again, and its tags are void.
    Rebuilt(String),
}

/// The stream of records, over a link of its own.
#[derive(Debug)]
pub struct Records {
    link: Link,
    queue: String,
    prefetch: u16,
    /// Streams opened so far.
    opened: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    session: Session,
    channel: Channel,
    consumer: Consumer,
}

impl Records {
    /// A stream with up to `prefetch` records unacknowledged: at least as many as a shard holds, or it starves.
    pub fn new(link: Link, topology: &Topology, prefetch: u16) -> Self {
        Self { link, queue: topology.records().name, prefetch, opened: 0, open: None }
    }

    /// The next record, or word that the stream was lost; waits as long as it takes. Cancel safe.
    ///
    /// Errors: [`QueueErrorKind::Topology`] (a missing queue), [`QueueErrorKind::Denied`], [`QueueErrorKind::Stopped`].
    pub async fn next(&mut self) -> Result<Arrival, QueueError> {
        loop {
            let Some(open) = &mut self.open else {
                self.reopen().await?;
                continue;
            };
            let lost = tokio::select! {
                biased;
                () = self.link.stop().cancelled() => return Err(QueueError::stopped()),
                // The connection's error and the probe of its silence both end the session.
                () = open.session.over() => "the connection was lost".to_owned(),
                next = open.consumer.next() => match next {
                    Some(Ok(delivery)) => return Ok(Arrival::Record(record(delivery, self.opened))),
                    Some(Err(error)) => error.to_string(),
                    // What a deleted queue looks like.
                    None => "the broker ended the stream".to_owned(),
                },
            };
            self.open = None;
            tracing::warn!(queue = self.queue, why = lost, "the stream of records was lost; opening it again");
            return Ok(Arrival::Rebuilt(lost));
        }
    }

    /// Acknowledges all records up to this one.
    pub async fn ack_through(&mut self, tag: Tag) -> Settled {
        let Some(open) = self.open.as_ref().filter(|_| tag.stream == self.opened) else {
            return Settled::Lost;
        };
        let ack = open.channel.basic_ack(tag.delivery, BasicAckOptions { multiple: true });
        match timeout(ACK, ack).await {
            Ok(Ok(())) if open.channel.status().connected() => Settled::Told,
            _ => Settled::Lost,
        }
    }

    /// Ends the stream: what is unacknowledged goes back at once, to the next collector.
    pub async fn close(mut self) {
        if let Some(open) = self.open.take() {
            drop(timeout(ACK, open.channel.close(200, "bye".into())).await);
        }
    }

    /// Opens the stream; a failure that passes is waited out. Cancel safe: what is half open is dropped.
    async fn reopen(&mut self) -> Result<(), QueueError> {
        loop {
            let session = self.link.session().await?;
            match self.consume(session).await {
                Ok(open) => {
                    self.opened += 1;
                    self.open = Some(open);
                    return Ok(());
                }
                Err(error) if error.kind == QueueErrorKind::Unavailable => {
                    tracing::warn!(%error, "the stream of records is not open yet; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = self.link.stop().cancelled() => return Err(QueueError::stopped()),
                () = sleep(AGAIN.mul_f64(jitter())) => {}
            }
        }
    }

    async fn consume(&self, session: Session) -> Result<Open, QueueError> {
        let channel = session.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        session.answer("setting the prefetch", qos).await?;
        let (queue, options) = (short("queue", &self.queue)?, BasicConsumeOptions::default());
        let consume = channel.basic_consume(queue, String::new().into(), options, FieldTable::default());
        let consumer = session.answer(&format!("consuming queue {}", self.queue), consume).await?;
        Ok(Open { session, channel, consumer })
    }
}

fn record(delivery: lapin::message::Delivery, stream: u64) -> Record {
    let id = delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    Record { body: delivery.data, id, tag: Tag { stream, delivery: delivery.delivery_tag } }
}
