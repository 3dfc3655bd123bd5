//! Channels to take and to bring back: one thing at a time on each.
//!
//! A channel is lent to one publish or to one delivery. So a confirm and a return cannot be taken for another message's (one
//! frame of the broker may confirm many, and the library keeps no account of which of them came back); a message to an
//! exchange that is gone, which costs the channel, costs no other message; and a delivery that is held for too long, for which the
//! broker closes its channel, takes no other delivery with it. Channels are opened as they are needed and kept; how many there
//! may be is the bound of what is under way at once.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::QueueError;
use super::link::{Link, Session};

/// What the channels are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Each message is confirmed.
    Publish,
    /// Messages are taken and acknowledged.
    Take,
}

/// The channels of one link. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    purpose: Use,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<(u64, Channel)>>,
}

/// A channel that is lent. Dropped, it is closed, and what was taken on it goes back to its queue.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) channel: Channel,
    pub(super) session: Session,
    channels: Channels,
    _permit: OwnedSemaphorePermit,
}

impl Channels {
    pub(super) fn new(link: Link, purpose: Use, most: usize) -> Self {
        let free = Arc::new(Semaphore::new(most));
        Self { inner: Arc::new(Inner { link, purpose, free, idle: Mutex::default() }) }
    }

    pub(super) fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Takes a channel of the session that stands; waits for a session and for a free place. Cancel safe.
    ///
    /// Fails when told to stop, or when the broker gives no channel.
    pub(super) async fn lend(&self) -> Result<Lent, QueueError> {
        let permit = tokio::select! {
            biased;
            () = self.inner.link.stop().cancelled() => return Err(QueueError::stopped()),
            permit = Arc::clone(&self.inner.free).acquire_owned() => permit.map_err(|_| QueueError::stopped())?,
        };
        let session = self.inner.link.session().await?;
        let channel = match self.idle(&session) {
            Some(channel) => channel,
            None => self.open(&session).await?,
        };
        Ok(Lent { channel, session, channels: self.clone(), _permit: permit })
    }

    fn idle(&self, session: &Session) -> Option<Channel> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(number, channel)| *number == session.number && channel.status().connected());
        idle.pop().map(|(_, channel)| channel)
    }

    async fn open(&self, session: &Session) -> Result<Channel, QueueError> {
        let channel = session.channel().await?;
        if self.inner.purpose == Use::Publish {
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            session.answer("asking for confirms", select).await?;
        }
        Ok(channel)
    }
}

impl Lent {
    /// Brings the channel back: nothing is pending on it.
    pub(super) fn bring_back(self) {
        let mut idle = self.channels.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((self.session.number, self.channel));
    }
}
