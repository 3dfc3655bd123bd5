//! A message into a queue of no use and out again: proof of the rights that work needs, which nothing else tells over AMQP.

use lapin::options::{BasicGetOptions, QueueDeleteOptions};

use super::declare::make;
use super::error::{QueueError, QueueErrorKind};
use super::link::Link;
use super::publisher::{Message, Publisher, short};
use super::topology::Topology;
use crate::retry::jitter;

const SONG: &[u8] = b"canary";

/// Makes a queue, has a message confirmed into it, gets it out, and deletes the queue. Waits for the broker as long as it takes;
/// dropped half-way, the queue goes by itself after a minute.
///
/// # Errors
/// [`QueueErrorKind::Denied`], or another one in the broker's words.
pub async fn canary(link: &Link, publisher: &Publisher, topology: &Topology) -> Result<(), QueueError> {
    let session = link.session().await?;
    let channel = session.channel().await?;
    let queue = topology.throw_away(&format!("canary-{}-{:x}", std::process::id(), jitter().to_bits()));
    make(&session, &channel, &queue).await?;
    publisher.publish(&Message::new(String::new(), queue.name.as_str(), "canary", SONG)).await?;
    let name = short("queue", &queue.name)?;
    let got = channel.basic_get(name.clone(), BasicGetOptions { no_ack: true });
    let got = session.answer("getting a message back", got).await?;
    let deleted = channel.queue_delete(name, QueueDeleteOptions::default());
    session.answer("deleting a queue of no use", deleted).await?;
    match got {
        Some(message) if message.data == SONG => Ok(()),
        _ => Err(QueueError::new(
            QueueErrorKind::Unavailable,
            format!("queue {} has not what was confirmed into it", queue.name),
        )),
    }
}
