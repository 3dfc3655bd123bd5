//! How many messages are ready in a queue, and none of them any more.
//!
//! Only what is ready: what is unacknowledged, or has waited and is on its way back, the protocol tells nobody.

use lapin::ErrorKind;
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;

use super::error::QueueError;
use super::link::{Link, Session};
use super::publisher::short;

/// Messages ready in a queue; none: there is no such queue. Waits for the broker as long as it takes. Cancel safe.
///
/// A broker that was just started counts too few for a moment, until it has read its log.
pub async fn ready(link: &Link, queue: &str) -> Result<Option<u64>, QueueError> {
    count(&link.session().await?, queue).await
}

/// Takes all ready messages out of a queue for good, and tells how many; none: there is no such queue. Waits for the broker as
/// long as it takes. Dropped half-way, it may have been done.
pub async fn purge(link: &Link, queue: &str) -> Result<Option<u64>, QueueError> {
    let session = link.session().await?;
    let channel = session.channel().await?;
    let purge = channel.queue_purge(short("queue", queue)?, QueuePurgeOptions::default());
    session.answer(&format!("purging queue {queue}"), found(purge)).await.map(|purged| purged.map(u64::from))
}

/// As [`ready()`], over this session. On a channel of its own: the answer that there is none closes it.
pub(super) async fn count(session: &Session, queue: &str) -> Result<Option<u64>, QueueError> {
    let channel = session.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short("queue", queue)?, options, FieldTable::default());
    let answer = session.answer(&format!("looking for queue {queue}"), found(asked)).await?;
    Ok(answer.map(|queue| u64::from(queue.message_count())))
}

async fn found<T>(asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<Option<T>> {
    match asked.await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}
