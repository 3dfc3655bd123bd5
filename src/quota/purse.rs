//! The run's money: a ceiling that what is spent and what is reserved never pass together.
//!
//! A call reserves its upper bound before it leaves and gives back what it did not cost. One that does not fit waits while
//! calls in flight may still give something back; when none is, it never will, and the run ends.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ledger::{End, Totals};
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::Nano;

/// The run's money: what is spent, what is reserved, and the ceiling.
#[derive(Debug)]
pub(super) struct Purse {
    ceiling: Option<Nano>,
    inner: Mutex<PurseInner>,
    changed: Notify,
}

#[derive(Debug)]
struct PurseInner {
    totals: Totals,
    reserved: Nano,
    in_flight: usize,
}

/// Whether an attempt left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    No,
}

/// Money reserved for one attempt.
#[derive(Debug)]
pub(super) struct Hold {
    purse: Arc<Purse>,
    bound: Nano,
    open: bool,
}

impl Purse {
    /// A purse from which `totals` are gone.
    pub(super) fn new(ceiling: Option<Nano>, totals: Totals) -> Self {
        let inner = Mutex::new(PurseInner { totals, reserved: Nano::ZERO, in_flight: 0 });
        Self { ceiling, inner, changed: Notify::new() }
    }

    /// What is spent, calls in flight left out.
    pub(super) fn totals(&self) -> Totals {
        lock(&self.inner).totals
    }

    /// Reserves `bound`; waits while calls in flight may still give money back.
    pub(super) async fn hold(self: &Arc<Self>, bound: Nano, stop: &CancellationToken) -> Result<Hold, Halt> {
        loop {
            let changed = self.changed.notified();
            if self.take(bound)? {
                return Ok(Hold { purse: Arc::clone(self), bound, open: true });
            }
            tokio::select! {
                () = stop.cancelled() => return Err(Halt::Stopped),
                () = changed => {}
            }
        }
    }

    /// Whether `bound` was reserved; an error when it never can be.
    fn take(&self, bound: Nano) -> Result<bool, Halt> {
        let mut inner = lock(&self.inner);
        let spent = inner.totals.spent;
        let wanted = spent.saturating_add(inner.reserved).saturating_add(bound);
        if let Some(ceiling) = self.ceiling.filter(|ceiling| wanted > *ceiling) {
            if inner.in_flight > 0 {
                return Ok(false);
            }
            return Err(Halt::Budget(format!(
                "the budget does not allow the next call: {spent} of {ceiling} are used and it may cost up to {bound}; \
                 raise --budget-usd to {wanted} or more and run the same command again"
            )));
        }
        inner.reserved = inner.reserved.saturating_add(bound);
        inner.in_flight += 1;
        Ok(true)
    }
}

impl Hold {
    /// The attempt is over and cost so much.
    pub(super) fn release(mut self, sent: Sent, cost: Nano, end: End) {
        self.end(sent, cost, end);
    }

    fn end(&mut self, sent: Sent, cost: Nano, end: End) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        {
            let mut inner = lock(&self.purse.inner);
            inner.reserved = inner.reserved.saturating_sub(self.bound);
            inner.in_flight -= 1;
            inner.totals.spent = inner.totals.spent.saturating_add(cost);
            inner.totals.calls += u64::from(sent == Sent::Yes);
            if end == End::Unconfirmed {
                inner.totals.unconfirmed = inner.totals.unconfirmed.saturating_add(cost);
            }
        }
        self.purse.changed.notify_waiters();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let bound = self.bound;
        self.end(Sent::Yes, bound, End::Unconfirmed);
    }
}
