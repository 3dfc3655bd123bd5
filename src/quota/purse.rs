//! The run's money: ceilings that what is spent and what is reserved never pass together, in all and on each day.
//!
//! A call reserves its upper bound before it leaves and gives back what it did not cost. One that does not fit waits while
//! calls in flight may still give something back; when none is, it never will, and the run ends, or goes on the next day. A day
//! goes from midnight to midnight UTC, and what a call costs counts on the day on which it was reserved.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::day::DAY;
use super::ledger::{End, Totals};
use crate::fault::Halt;
use crate::lock::lock;
use crate::price::Nano;

/// The run's money: what is spent, what is reserved, and the ceilings.
#[derive(Debug)]
pub(super) struct Purse {
    ceilings: Ceilings,
    inner: Mutex<PurseInner>,
    changed: Notify,
}

#[derive(Debug)]
struct PurseInner {
    totals: Totals,
    reserved: Nano,
    in_flight: usize,
    /// Days since the epoch, and what was spent on this one.
    day: u64,
    today: Nano,
}

/// Most money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// In all.
    pub total: Option<Nano>,
    /// On one day.
    pub per_day: Option<Nano>,
}

/// Why no money was reserved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoHold {
    Halt(Halt),
    /// The day's money is spent; the next one begins then, in microseconds since the epoch.
    Tomorrow(u64),
}

/// What became of reserving once.
enum Took {
    Money,
    /// Calls in flight hold it.
    Nothing,
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
    day: u64,
    open: bool,
}

impl Purse {
    /// A purse from which `totals` are gone, and `today` on the day of `now`.
    pub(super) fn new(ceilings: Ceilings, totals: Totals, today: Nano, now: u64) -> Self {
        let inner = PurseInner { totals, reserved: Nano::ZERO, in_flight: 0, day: now / DAY, today };
        Self { ceilings, inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// What is spent, calls in flight left out.
    pub(super) fn totals(&self) -> Totals {
        lock(&self.inner).totals
    }

    /// Reserves `bound`; waits while calls in flight may still give money back.
    pub(super) async fn hold(
        self: &Arc<Self>,
        bound: Nano,
        clock: &Clock,
        stop: &CancellationToken,
    ) -> Result<Hold, NoHold> {
        loop {
            let changed = self.changed.notified();
            let now = clock.now();
            if let Took::Money = self.take(bound, now)? {
                return Ok(Hold { purse: Arc::clone(self), bound, day: now / DAY, open: true });
            }
            tokio::select! {
                () = stop.cancelled() => return Err(NoHold::Halt(Halt::Stopped)),
                () = changed => {}
            }
        }
    }

    /// Reserves `bound`, if it fits; an error when it does not and no call in flight could change that.
    fn take(&self, bound: Nano, now: u64) -> Result<Took, NoHold> {
        let mut inner = lock(&self.inner);
        if now / DAY > inner.day {
            (inner.day, inner.today) = (now / DAY, Nano::ZERO);
        }
        let wanted = |spent: Nano| spent.saturating_add(inner.reserved).saturating_add(bound);
        let (spent, total) = (inner.totals.spent, wanted(inner.totals.spent));
        let too_much = |ceiling: Option<Nano>, wanted: Nano| ceiling.filter(|ceiling| wanted > *ceiling);
        if let Some(ceiling) = too_much(self.ceilings.total, total) {
            if inner.in_flight > 0 {
                return Ok(Took::Nothing);
            }
            return Err(NoHold::Halt(Halt::Budget(format!(
                "the budget does not allow the next call: {spent} of {ceiling} are used and it may cost up to {bound}; \
                 raise --budget-usd to {total} or more and run the same command again"
            ))));
        }
        if too_much(self.ceilings.per_day, wanted(inner.today)).is_some() {
            if inner.in_flight > 0 {
                return Ok(Took::Nothing);
            }
            if self.ceilings.per_day.is_some_and(|ceiling| bound > ceiling) {
                return Err(NoHold::Halt(Halt::Budget(format!(
                    "the budget of no day allows the next call: it may cost up to {bound}; raise budget.per_day_usd to that \
                     or more and run the same command again"
                ))));
            }
            return Err(NoHold::Tomorrow((inner.day + 1) * DAY));
        }
        inner.reserved = inner.reserved.saturating_add(bound);
        inner.in_flight += 1;
        Ok(Took::Money)
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
            if inner.day == self.day {
                inner.today = inner.today.saturating_add(cost);
            }
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
