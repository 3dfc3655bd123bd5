//! How many messages of a queue are ready.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::declare::is_missing;
use super::error::QueueError;
use super::link::Link;
use super::publisher::short;

/// Messages of the queue that nobody holds; none: there is no such queue. Waits for a connection as long as it takes. Cancel
/// safe.
///
/// Of a tier, only what has waited long enough is counted.
pub async fn ready(link: &Link, queue: &str) -> Result<Option<u64>, QueueError> {
    let session = link.session().await?;
    // On a channel of its own: the answer "no" closes it.
    let channel = session.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short("queue", queue)?, options, FieldTable::default());
    let found = async {
        match asked.await {
            Ok(queue) => Ok(Some(u64::from(queue.message_count()))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let ready = session.answer(&format!("looking at queue {queue}"), found).await?;
    if ready.is_some() {
        session.answer("closing a channel", channel.close(200, "bye".into())).await?;
    }
    Ok(ready)
}
