//! Sent means confirmed: by a broker that has it on disk, in a queue.
//!
//! Every message is mandatory and confirmed. What comes back unroutable is confirmed as well, and is an error all the same. When a
//! confirm does not come, the message may be stored or not: it is sent again under the same id, so what reads the queue must
//! take an id twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::protocol::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Confirmation, PublisherConfirm};
use tokio::time::sleep;

use super::batch::Companies;
use super::channels::{Channels, Lent, Use};
use super::error::{QueueError, QueueErrorKind};
use super::link::Link;
use crate::retry::jitter;

/// Messages under way at once; further ones wait.
const UNDER_WAY: usize = 128;
/// Longest message: media and prompts do not belong in messages, and long ones are what a broker is slow with.
pub(super) const LONGEST: usize = 1 << 20;
/// Longest name or id that the protocol has room for.
const LONGEST_NAME: usize = 255;
/// Longest wait before a message is sent again.
const AGAIN: Duration = Duration::from_secs(2);
/// Stored on disk.
const PERSISTENT: u8 = 2;

/// A message and where it goes.
#[derive(Clone, PartialEq)]
pub struct Message {
    pub(super) exchange: String,
    pub(super) key: String,
    id: String,
    pub(super) body: Vec<u8>,
    headers: FieldTable,
    longest: usize,
}

/// What became of sending a message once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a queue.
    Confirmed,
    /// No queue is bound for it, or the exchange is gone; the broker's words.
    Returned(String),
    /// The broker did not take it: its queue is full, or something is wrong inside it.
    Refused,
    /// The confirm did not come: it may be in a queue or not. Why.
    Unknown(String),
}

impl Message {
    pub(super) fn new(
        exchange: String,
        key: impl Into<String>,
        id: impl Into<String>,
        body: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            exchange,
            key: key.into(),
            id: id.into(),
            body: body.into(),
            headers: FieldTable::default(),
            longest: LONGEST,
        }
    }

    /// Lets it be as long as this.
    pub(super) fn up_to(mut self, longest: usize) -> Self {
        self.longest = longest;
        self
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<AMQPValue>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Adds a header of text.
    pub(super) fn with_text(self, name: &'static str, text: &str) -> Self {
        self.with(name, LongString::from(text))
    }

    /// Whether the protocol and the broker have room for it.
    pub(super) fn fits(&self) -> Result<(), QueueError> {
        if self.body.len() > self.longest {
            let longest = self.longest;
            let text = format!("{self:?} is longer than {longest} bytes: keep what is large out of messages");
            return Err(QueueError::new(QueueErrorKind::Invalid, text));
        }
        short("exchange", &self.exchange)?;
        short("key", &self.key)?;
        short("message id", &self.id)?;
        Ok(())
    }

    pub(super) fn properties(&self) -> Result<BasicProperties, QueueError> {
        Ok(BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short("message id", &self.id)?)
            .with_headers(self.headers.clone()))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exchange, key, id, body, .. } = self;
        write!(f, "message {id:?} of {} bytes to {exchange:?} with key {key:?}", body.len())
    }
}

/// Sends messages over a link of its own. Clones share it.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(super) channels: Channels,
    pub(super) companies: Arc<Companies>,
}

impl Publisher {
    /// A publisher over this link, which nothing should be consumed over.
    pub fn new(link: Link) -> Self {
        Self { channels: Channels::new(link, Use::Publish, UNDER_WAY), companies: Arc::default() }
    }

    /// Sends a message until it is known to be in a queue; waits for the broker as long as it takes. Any number may be under
    /// way at once.
    ///
    /// Errors: [`QueueErrorKind::Topology`], [`QueueErrorKind::Refused`], [`QueueErrorKind::Denied`],
    /// [`QueueErrorKind::Invalid`], and [`QueueErrorKind::Stopped`], after which it may be in a queue or not. Dropped
    /// half-way, likewise.
    pub async fn publish(&self, message: &Message) -> Result<(), QueueError> {
        let mut alone = false;
        loop {
            // What was not confirmed once keeps no company: others would wait for it.
            let sent = if alone { self.publish_once(message).await? } else { self.in_company(message).await? };
            let why = match sent {
                Outcome::Confirmed => return Ok(()),
                Outcome::Returned(words) => {
                    let text = format!("{message:?} reaches no queue: {words}; declare the topology");
                    return Err(QueueError::new(QueueErrorKind::Topology, text));
                }
                Outcome::Refused => {
                    let text =
                        format!("{message:?} was refused by the broker: its queue is full, or the broker is ill");
                    return Err(QueueError::new(QueueErrorKind::Refused, text));
                }
                Outcome::Unknown(why) => why,
            };
            alone = true;
            tracing::debug!(id = message.id, why, "sent, but not confirmed; sending it again");
            tokio::select! {
                biased;
                () = self.channels.link().stop().cancelled() => return Err(QueueError::stopped()),
                () = sleep(AGAIN.mul_f64(jitter())) => {}
            }
        }
    }

    /// Sends a message once, as soon as there is a connection. Dropped half-way, it may have been sent.
    ///
    /// Errors are those of messages that cannot be sent at all, and of stopping.
    pub async fn publish_once(&self, message: &Message) -> Result<Outcome, QueueError> {
        message.fits()?;
        let (exchange, key) = (short("exchange", &message.exchange)?, short("key", &message.key)?);
        let properties = message.properties()?;
        let lent = match self.channels.lend().await {
            Ok(lent) => lent,
            Err(error) if error.kind == QueueErrorKind::Unavailable => return Ok(Outcome::Unknown(error.message)),
            Err(error) => return Err(error),
        };
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = async {
            let sent: PublisherConfirm =
                lent.channel.basic_publish(exchange, key, options, &message.body, properties).await?;
            sent.await
        };
        let confirmation = lent.session.answer("publishing", sent).await;
        outcome(lent, confirmation)
    }
}

fn outcome(lent: Lent, confirmation: Result<Confirmation, QueueError>) -> Result<Outcome, QueueError> {
    let outcome = match confirmation {
        Ok(Confirmation::Ack(None)) => Outcome::Confirmed,
        Ok(Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back))) => {
            Outcome::Returned(format!("{} {}", back.reply_code, back.reply_text))
        }
        Ok(Confirmation::Nack(None)) => Outcome::Refused,
        // Not a state of the world: the channel was opened with confirms.
        Ok(Confirmation::NotRequested) => return Ok(Outcome::Unknown("the channel has no confirms".to_owned())),
        // The channel is gone, or something is still pending on it: it is not brought back.
        Err(error) if error.kind == QueueErrorKind::Topology => return Ok(Outcome::Returned(error.message)),
        Err(error) if error.kind == QueueErrorKind::Unavailable => return Ok(Outcome::Unknown(error.message)),
        Err(error) => return Err(error),
    };
    lent.bring_back();
    Ok(outcome)
}

/// A name as the protocol has it.
pub(super) fn short(what: &str, name: &str) -> Result<ShortString, QueueError> {
    ShortString::try_new(name).map_err(|_| {
        let text = format!("the {what} {name:?} is longer than {LONGEST_NAME} bytes: shorten it");
        QueueError::new(QueueErrorKind::Invalid, text)
    })
}
