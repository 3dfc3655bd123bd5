//! Whose turn it is to make an entry: one process at a time, and only one that can begin at once.
//!
//! A slot first, then the entry's lock. The other way round, an entry was locked for as long as its maker's queue for slots
//! was, and whoever waited for it, with a patience for one preparation, gave up on a process that had not begun. So a lock is
//! held for the work alone, and that has its limits. It cannot come to a deadlock: with a slot in hand nobody waits for a
//! lock. The lock is tried, and if another process has it, the slot goes back at once and the wait begins anew without one,
//! so that waiting for others costs nobody a decoder. Within a process a key has one flight, so nobody meets itself here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Making, Space};
use crate::media::library::{acquire, blocking};
use crate::media::{MediaError, MediaErrorKind};

/// Between two looks at whether another process is done; it begins with the first and doubles up to the second.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Who makes an entry.
#[derive(Debug)]
pub(crate) enum Turn<'a, T> {
    /// The caller, with one of its slots.
    Mine(Making, SemaphorePermit<'a>),
    /// Nobody: it is there.
    Done(T),
}

impl Space {
    /// Waits until `look` finds what is wanted, or there is a slot and nobody else works on the entry `name`. A process that
    /// is killed lets the next one on. Errors: another process is at it for longer than `patience`. Cancel safe.
    pub(crate) async fn turn<'a, T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        slots: &'a Semaphore,
        patience: Duration,
        look: impl Fn() -> Option<T> + Clone + Send + 'static,
    ) -> Result<Turn<'a, T>, MediaError> {
        loop {
            if let Some(found) = self.settled(name, patience, look.clone()).await? {
                return Ok(Turn::Done(found));
            }
            let slot = acquire(slots).await?;
            let (space, of, look) = (self.clone(), name.to_owned(), look.clone());
            let begun = blocking(move || {
                let making = space.begin(&of)?;
                // It may have been finished while this one waited for its slot.
                Ok((making, look()))
            });
            match begun.await? {
                (_, Some(found)) => return Ok(Turn::Done(found)),
                (Some(making), None) => return Ok(Turn::Mine(making, slot)),
                // Somebody was faster.
                (None, None) => drop(slot),
            }
        }
    }

    /// Waits for as long as another process works on the entry `name`: what `look` finds then, or finds at once. Errors: that
    /// takes longer than `patience`. Cancel safe.
    pub(crate) async fn settled<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        patience: Duration,
        look: impl Fn() -> Option<T> + Clone + Send + 'static,
    ) -> Result<Option<T>, MediaError> {
        let (began, mut pause) = (Instant::now(), LOOKS.0);
        loop {
            let (space, of, look) = (self.clone(), name.to_owned(), look.clone());
            let looked = blocking(move || {
                let found = look();
                if found.is_some() {
                    return Ok(Some(found));
                }
                // What was finished between the look and the lock is found by the second look.
                Ok((!space.is_begun(&of)).then(look))
            });
            if let Some(settled) = looked.await? {
                return Ok(settled);
            }
            if pause == LOOKS.0 {
                tracing::debug!(entry = name, "another process makes it ready; waiting for it");
            }
            if began.elapsed() > patience {
                let message = format!("another process has been making it ready for {} s", patience.as_secs());
                return Err(MediaError::new(MediaErrorKind::Unavailable, message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOKS.1);
        }
    }
}
