//! How many jobs at once: as many as the quota keeps busy, and no more than `worker.concurrency`.
//!
//! Little's law: what is in flight is the rate times the time it takes. A job that waits for an appointment adds nothing to the
//! rate, so of `n` jobs that spend the share `w` of their time waiting, `n (1 - w)` would do. Twice that and a few more are kept:
//! with fewer a slow call would cost rate, and what is kept waiting costs a message and no memory of media. Where hardly
//! anything waits, the number doubles. So workers beyond the quota hold a few jobs each, stay cheap, and tell an autoscaler so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// Between two looks at what waits.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// Of a new look in the average.
const WEIGHT: f64 = 0.3;
/// Waiting for less than this share of the time, more jobs would do more.
const IDLE: f64 = 0.1;
/// Jobs that are kept beyond twice those that are busy.
const RESERVE: f64 = 4.0;

/// The slots of a worker. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    permits: Arc<Semaphore>,
    count: Arc<Mutex<Count>>,
}

#[derive(Debug)]
struct Count {
    fit: Fit,
    /// Permits that are taken out of use as soon as they are free.
    surplus: usize,
}

/// The number, and what it rests on.
#[derive(Debug)]
struct Fit {
    most: usize,
    now: usize,
    /// The share of their time that jobs wait, averaged.
    waiting: f64,
}

impl Fit {
    fn new(most: usize) -> Self {
        Self { most, now: most, waiting: 0.0 }
    }

    /// Takes note that of `running` jobs' time over `span` so much was waiting.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small counts"
    )]
    fn note(&mut self, waited: Duration, running: usize, span: Duration) {
        if running == 0 {
            return;
        }
        let share = (waited.as_secs_f64() / (span.as_secs_f64() * running as f64)).clamp(0.0, 1.0);
        self.waiting += (share - self.waiting) * WEIGHT;
        let wanted = if self.waiting < IDLE {
            self.now.saturating_mul(2)
        } else {
            (running as f64 * (1.0 - self.waiting) * 2.0 + RESERVE).ceil() as usize
        };
        self.now = wanted.clamp(1, self.most);
    }

    /// How many jobs at once would be done by a fleet of such workers, each as large as it may be: what is there to be done, or
    /// what the quota has room for, whichever is less; up to twice as many as fit here.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small counts"
    )]
    fn wanted(&self, running: usize, more_is_ready: bool) -> usize {
        let work = if more_is_ready { self.most.saturating_mul(2) } else { running };
        let room = if self.waiting < IDLE {
            self.most.saturating_mul(2)
        } else {
            (running as f64 * (1.0 - self.waiting)).ceil() as usize
        };
        work.min(room)
    }
}

impl Slots {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        let count = Count { fit: Fit::new(most), surplus: 0 };
        Self { permits: Arc::new(Semaphore::new(most)), count: Arc::new(Mutex::new(count)) }
    }

    /// The next free one. Cancel safe.
    pub(super) async fn acquire(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await?;
            if let Some(permit) = self.kept(permit) {
                return Ok(permit);
            }
        }
    }

    /// One that is free now.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
            if let Some(permit) = self.kept(permit) {
                return Some(permit);
            }
        }
    }

    fn kept(&self, permit: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let mut count = lock(&self.count);
        if count.surplus == 0 {
            return Some(permit);
        }
        count.surplus -= 1;
        permit.forget();
        None
    }

    /// Fits their number to what was waited by `running` jobs over `span`. Returns how many there are now.
    pub(super) fn fit(&self, waited: Duration, running: usize, span: Duration) -> usize {
        let mut count = lock(&self.count);
        let before = count.fit.now;
        count.fit.note(waited, running, span);
        let now = count.fit.now;
        if now < before {
            let gone = self.permits.forget_permits(before - now);
            count.surplus += before - now - gone;
        } else {
            let kept = count.surplus.min(now - before);
            count.surplus -= kept;
            self.permits.add_permits(now - before - kept);
        }
        now
    }

    /// See [`Fit::wanted`].
    pub(super) fn wanted(&self, running: usize, more_is_ready: bool) -> usize {
        lock(&self.count).fit.wanted(running, more_is_ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After many looks at so many jobs at most, which the quota keeps busy to the number of `busy`.
    fn settled(fit: &mut Fit, busy: usize) -> usize {
        for _ in 0..60 {
            let running = fit.now;
            let waited = SECOND * u32::try_from(running.saturating_sub(busy)).unwrap();
            fit.note(waited, running, SECOND);
        }
        fit.now
    }

    #[test]
    fn there_are_twice_as_many_as_the_quota_keeps_busy_and_a_few_more() {
        let mut fit = Fit::new(1_000);
        let now = settled(&mut fit, 50);
        assert!((100..=110).contains(&now), "{now}");
        assert_eq!(fit.wanted(now, true), 50, "an autoscaler is told what is busy");
        assert_eq!(settled(&mut fit, 1_000), 1_000, "all of them, where there is room");
        assert_eq!(fit.wanted(1_000, true), 2_000, "and that more would do more");
        assert_eq!(fit.wanted(1_000, false), 1_000, "but not where there is no more work");
    }

    #[test]
    fn a_worker_beyond_the_quota_keeps_a_few_jobs_and_is_back_within_a_dozen_looks() {
        let mut fit = Fit::new(64);
        assert!(settled(&mut fit, 0) <= 5, "{fit:?}");
        for _ in 0..12 {
            let running = fit.now;
            fit.note(Duration::ZERO, running, SECOND);
        }
        assert_eq!(fit.now, 64);
    }

    #[test]
    fn nothing_is_learned_where_nothing_runs() {
        let mut fit = Fit::new(8);
        fit.note(SECOND, 0, SECOND);
        assert_eq!(fit.now, 8);
    }

    #[tokio::test]
    async fn slots_in_use_are_taken_away_when_they_are_free_and_given_back_later() {
        let slots = Slots::new(20);
        let held: Vec<_> = (0..20).map(|_| slots.try_acquire().unwrap()).collect();
        for _ in 0..40 {
            slots.fit(SECOND * 20, 20, SECOND);
        }
        let now = slots.fit(SECOND * 20, 20, SECOND);
        assert!(now < 8, "{now}");
        drop(held);
        let held: Vec<_> = std::iter::from_fn(|| slots.try_acquire()).collect();
        assert_eq!(held.len(), now);
        for _ in 0..40 {
            slots.fit(Duration::ZERO, 5, SECOND);
        }
        drop(held);
        assert_eq!(std::iter::from_fn(|| slots.try_acquire()).collect::<Vec<_>>().len(), 20);
    }
}
