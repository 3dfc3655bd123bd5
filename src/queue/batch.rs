//! Many messages at once, all confirmed.
//!
//! One channel carries the whole batch, and its confirms are awaited together: a channel for each message costs a task's turn
//! and a place among the channels for each. Which of several messages came back cannot be told, as the library gives a
//! returned message to whichever confirm comes next; so a batch of which anything came back, was refused or is unknown is sent
//! again whole, one by one, the safe way. That some are then in the queue twice is what readers have to take anyway.
//!
//! Messages of many callers become batches by themselves: while one is on its way, whoever comes next waits and goes with the
//! next. One of those who wait sends for all ([`Publisher::in_company`]), so there is no task whose death they would not notice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::try_join_all;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use tokio::sync::oneshot;

use super::error::{QueueError, QueueErrorKind};
use super::publisher::{LONGEST, Message, Outcome, Publisher, short};
use crate::lock::lock;

/// Most messages in a batch.
const MOST: usize = 64;

/// A message, and who is told whether it was confirmed, or has to go alone.
type Waiting = (Message, oneshot::Sender<Told>);

#[derive(Debug, Clone, Copy)]
enum Told {
    Confirmed,
    /// Something in its batch was not.
    Alone,
}

/// Those who send to one place: what is wrong with a place holds up, and doubles, nothing of another.
pub(super) type Companies = Mutex<HashMap<(String, String), Arc<Company>>>;

/// Who waits for the next batch, and whose turn it is to send it.
#[derive(Debug, Default)]
pub(super) struct Company {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

impl Publisher {
    /// Sends a message once, together with those of others; as [`Publisher::publish_once`] in all else.
    pub(super) async fn in_company(&self, message: &Message) -> Result<Outcome, QueueError> {
        message.fits()?;
        let place = (message.exchange.clone(), message.key.clone());
        let company = Arc::clone(lock(&self.companies).entry(place).or_default());
        let (tell, mut told) = oneshot::channel();
        lock(&company.waiting).push((message.clone(), tell));
        loop {
            tokio::select! {
                biased;
                told = &mut told => return match told {
                    Ok(Told::Confirmed) => Ok(Outcome::Confirmed),
                    // Outside of the turn: what is wrong with one holds up nobody else.
                    Ok(Told::Alone) => self.publish_once(message).await,
                    Err(_) => Ok(Outcome::Unknown("whoever sent it was stopped".to_owned())),
                },
                _turn = company.turn.lock() => self.send_all(&company).await,
            }
        }
    }

    /// Sends what waits.
    async fn send_all(&self, company: &Company) {
        let (messages, told): (Vec<_>, Vec<_>) = {
            let mut waiting = lock(&company.waiting);
            let many = waiting.len().min(MOST);
            waiting.drain(..many).unzip()
        };
        let outcome = if matches!(self.at_once(&messages).await, Ok(true)) { Told::Confirmed } else { Told::Alone };
        for tell in told {
            tell.send(outcome).ok();
        }
    }

    /// Sends messages until all are known to be in a queue, in any order; as [`Publisher::publish`] in all else.
    pub async fn publish_all(&self, messages: &[Message]) -> Result<(), QueueError> {
        if messages.iter().all(|message| message.body.len() <= LONGEST) && self.at_once(messages).await? {
            return Ok(());
        }
        try_join_all(messages.iter().map(|message| self.publish(message))).await.map(drop)
    }

    /// Whether all were sent and confirmed, and nothing came back.
    async fn at_once(&self, messages: &[Message]) -> Result<bool, QueueError> {
        let lent = match self.channels.lend().await {
            Ok(lent) => lent,
            Err(error) if error.kind == QueueErrorKind::Unavailable => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            let (exchange, key) = (short("exchange", &message.exchange)?, short("key", &message.key)?);
            let properties = message.properties()?;
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let sent = lent.channel.basic_publish(exchange, key, options, &message.body, properties);
            match lent.session.answer("publishing", sent).await {
                Ok(confirm) => confirms.push(confirm),
                // Told again, and better, of the message that it is about.
                Err(_) => return Ok(false),
            }
        }
        let mut clean = true;
        for confirm in confirms {
            match lent.session.answer("publishing", confirm).await {
                Ok(Confirmation::Ack(None)) => {}
                Ok(_) => clean = false,
                Err(_) => return Ok(false),
            }
        }
        if clean {
            lent.bring_back();
        }
        Ok(clean)
    }
}
