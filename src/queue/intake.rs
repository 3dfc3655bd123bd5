//! Jobs, one for each free slot: what cannot start now stays at the broker, where an idle worker can have it.
//!
//! `basic.get` instead of a consumer: a consumer's prefetch holds jobs that have not started, which other workers cannot have, whose
//! deadline runs, and which count as returned when this worker dies. Jobs last seconds, so half a millisecond per
//! message does not matter.

use lapin::options::BasicGetOptions;

use super::channels::{Channels, Use};
use super::delivery::Delivery;
use super::error::QueueError;
use super::link::Link;
use super::publisher::{Publisher, short};
use super::topology::Topology;

/// Deliveries held at once; a protocol's channel each.
const HELD: usize = 1024;

/// Takes jobs over a link of its own. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake {
    channels: Channels,
    publisher: Publisher,
    topology: Topology,
}

impl Intake {
    /// An intake over this link; what its deliveries publish goes through `publisher`.
    pub fn new(link: Link, publisher: Publisher, topology: Topology) -> Self {
        Self { channels: Channels::new(link, Use::Take, HELD), publisher, topology }
    }

    /// Takes the next job of a run, if there is one; waits for the broker as long as it takes. Take a slot first.
    ///
    /// Cancel safe: what was taken and not handed out goes back to its queue, and counts as returned once.
    ///
    /// Errors: [`super::QueueErrorKind::Unavailable`] where the broker was lost or did not answer (ask again),
    /// [`super::QueueErrorKind::Topology`] where the run has no queue, [`super::QueueErrorKind::Stopped`].
    pub async fn take(&self, run: &str) -> Result<Option<Delivery>, QueueError> {
        let queue = self.topology.run(run)?.name;
        let lent = self.channels.lend().await?;
        let get = lent.channel.basic_get(short("queue", &queue)?, BasicGetOptions { no_ack: false });
        let message = lent.session.answer(&format!("taking from queue {queue}"), get).await?;
        let Some(message) = message else {
            lent.bring_back();
            return Ok(None);
        };
        Ok(Some(Delivery::new(message.delivery, lent, self.publisher.clone(), self.topology.clone())))
    }
}
