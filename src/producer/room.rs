//! Waits while the run's queue has as many jobs ready as it may have.
//!
//! The queue is asked only when what it had room for is used up, so a queue that is far from full costs nothing.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::again;
use super::enqueue::Halt;
use crate::fleet::Fleet;
use crate::queue::{QueueErrorKind, ready};

/// Between two looks at a full queue.
const LOOK: Duration = Duration::from_millis(500);

/// Room in one queue.
pub(super) struct Room<'a> {
    fleet: &'a Fleet,
    queue: String,
    most: u64,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Free by the last look, and not taken since.
    free: u64,
    /// Taken, and not known to be in the queue: a look may have counted them or not.
    open: u64,
}

impl<'a> Room<'a> {
    pub(super) fn new(fleet: &'a Fleet, queue: String) -> Self {
        Self { fleet, queue, most: fleet.config.queue.max_ready, places: Mutex::default() }
    }

    /// Takes so many places, as soon as there are.
    pub(super) async fn take(&self, places: u64) -> Result<(), Halt> {
        loop {
            {
                let mut now = self.places.lock().await;
                if now.free < places {
                    now.free = self.most.saturating_sub(self.ready().await?).saturating_sub(now.open);
                }
                if now.free >= places {
                    now.free -= places;
                    now.open += places;
                    return Ok(());
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.fleet.shutdown.drain.cancelled() => return Err(Halt::Stopped),
            }
        }
    }

    /// So many are in the queue, and a look counts them.
    pub(super) async fn filled(&self, places: u64) {
        self.places.lock().await.open -= places;
    }

    async fn ready(&self) -> Result<u64, Halt> {
        loop {
            match ready(&self.fleet.incoming, &self.queue).await {
                Ok(Some(ready)) => return Ok(ready),
                Ok(None) => return Err(Halt::Again(format!("the queue {} was lost", self.queue))),
                Err(error) if error.kind == QueueErrorKind::Unavailable => again(self.fleet, &error.message).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
