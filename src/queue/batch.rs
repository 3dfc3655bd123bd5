//! Many messages at once, all confirmed.
//!
//! One channel carries the whole batch, and its confirms are awaited together: a channel for each message costs a task's turn
//! and a place among the channels for each. Which of several messages came back cannot be told, as the library gives a
//! returned message to whichever confirm comes next; so a batch of which anything came back, was refused or is unknown is sent
//! again whole, one by one, the safe way. That some are then in the queue twice is what readers have to take anyway.

use futures_util::future::try_join_all;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;

use super::error::{QueueError, QueueErrorKind};
use super::publisher::{LONGEST, Message, Publisher, short};

impl Publisher {
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
