//! One batch: claimed, published, confirmed.

use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::feed::Batch;
use super::rejects::Reject;
use super::room::Room;
use super::{again, patiently};
use crate::corpus::reader::Place;
use crate::fleet::Fleet;
use crate::job::{Item, Job};
use crate::message::JobMessage;
use crate::queue::{Message, QueueErrorKind};
use crate::shared::runs::{Fate, ItemMark, RunInfo};

/// After a signal, a broker that is there has taken a batch in a fraction of this.
const LAST: Duration = Duration::from_secs(10);
/// A batch that takes longer is told of.
const SLOW: Duration = Duration::from_secs(30);

/// Why enqueueing ends before the corpora do.
#[derive(Debug)]
pub(super) enum Halt {
    /// A signal.
    Stopped,
    /// What has to be set right first.
    Setup(String),
    /// What the same command mends.
    Again(String),
    /// A corpus that cannot be read on.
    Failed(String),
}

/// Enqueues batches into one run.
pub(super) struct Enqueuer<'a> {
    fleet: &'a Fleet,
    run: &'a str,
    recipe: String,
    room: Room<'a>,
    sealed: bool,
    opened: OnceCell<()>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Which corpus, and how much of it was read.
    pub(super) corpus: usize,
    pub(super) place: Place,
    /// Items that were not enqueued before.
    pub(super) enqueued: u64,
    /// Items that were.
    pub(super) already: u64,
    /// Of those, the ones enqueued again as their queue was lost.
    pub(super) mended: u64,
    /// Items that the batch has twice.
    pub(super) duplicates: u64,
    /// Lines that were not enqueued.
    pub(super) rejects: Vec<Reject>,
}

/// An item that can be enqueued.
struct Ready {
    number: u64,
    id: String,
    mark: ItemMark,
    message: Message,
}

impl<'a> Enqueuer<'a> {
    pub(super) fn new(fleet: &'a Fleet, run: &'a RunInfo, recipe: String) -> Result<Self, Halt> {
        let room = Room::new(fleet, fleet.topology.run(&run.name)?.name);
        Ok(Self { fleet, run: &run.name, recipe, room, sealed: run.sealed, opened: OnceCell::new() })
    }

    /// Enqueues a batch. Dropped half-way, what was claimed is published by the next run over it.
    pub(super) async fn enqueue(&self, batch: Result<Batch, String>) -> Result<Done, Halt> {
        let batch = batch.map_err(Halt::Failed)?;
        let name = batch.name.clone();
        let mut done = Done { corpus: batch.corpus, place: batch.place, ..Done::default() };
        let all = self.ready(batch, &mut done);
        let marks: Vec<ItemMark> = all.iter().map(|ready| ready.mark).collect();
        let fates = patiently(self.fleet, || self.fleet.runs.claim(self.run, &marks)).await?;
        let (mut messages, mut marks) = (Vec::new(), Vec::new());
        for (ready, fate) in all.into_iter().zip(fates) {
            match fate {
                Fate::New | Fate::Unconfirmed | Fate::Lost => {
                    done.mended += u64::from(fate == Fate::Lost);
                    messages.push(ready.message);
                    marks.push(ready.mark);
                }
                Fate::Known => done.already += 1,
                Fate::Other => {
                    let reason = format!(
                        "id {:?} stands for other content in this run: give the changed item another id, or start another run",
                        ready.id
                    );
                    done.rejects.push(Reject::new(&name, ready.number, reason, None));
                }
            }
        }
        if marks.is_empty() {
            return Ok(done);
        }
        self.unseal().await?;
        self.publish(&messages).await?;
        let total = marks.len() as u64;
        done.enqueued = patiently(self.fleet, || self.fleet.runs.confirm(self.run, &marks)).await?;
        // What somebody else has confirmed meanwhile, or before its queue was lost.
        done.already += total - done.enqueued;
        Ok(done)
    }

    /// What of a batch can be enqueued, each once.
    fn ready(&self, batch: Batch, done: &mut Done) -> Vec<Ready> {
        let mut all = Vec::with_capacity(batch.rows.len());
        batch.distinct(&mut done.rejects, &mut done.duplicates, |number, id, digest, item| {
            let message = self.message(item)?;
            all.push(Ready { number, mark: ItemMark::new(&id, digest), id, message });
            Ok(())
        });
        all
    }

    fn message(&self, item: Item) -> Result<Message, String> {
        let job = Job::new(self.run, 0, item);
        let id = job.id();
        let body = JobMessage::new(self.recipe.clone(), job).encode()?;
        Ok(self.fleet.topology.job(self.run, id, body))
    }

    /// A run that gets more items is not complete.
    async fn unseal(&self) -> Result<(), Halt> {
        if !self.sealed {
            return Ok(());
        }
        let opened = self.opened.get_or_try_init(|| async {
            patiently(self.fleet, || self.fleet.runs.seal(self.run, false)).await.map(|_| ())
        });
        opened.await?;
        Ok(())
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), Halt> {
        let places = messages.len() as u64;
        self.room.take(places).await?;
        let published = async {
            loop {
                match self.fleet.publisher.publish_all(messages).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind == QueueErrorKind::Refused => again(self.fleet, &error.message).await?,
                    Err(error) => return Err(Halt::from(error)),
                }
            }
        };
        let slow = async {
            loop {
                sleep(SLOW).await;
                tracing::warn!(
                    run = self.run,
                    "the broker has not confirmed a batch for {} s. Is it away, or out of memory or disk? A queue whose broker was \
                     killed right after it was made may hang for ever: delete it, and run this command again",
                    SLOW.as_secs()
                );
            }
        };
        let last = async {
            self.fleet.shutdown.drain.cancelled().await;
            sleep(LAST).await;
        };
        tokio::select! {
            biased;
            published = published => published?,
            () = last => return Err(Halt::Stopped),
            () = slow => {}
        }
        self.room.filled(places).await;
        Ok(())
    }
}
