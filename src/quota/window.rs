//! What was appointed in the last stretch of time, in buckets.
//!
//! An entry counts until its whole bucket has left the stretch, so the log errs on the safe side by at most one bucket
//! (1/250 of the stretch). Times are handed out in rising order, so only windows that end at the newest entry or later
//! are ever asked about, and the ring reaches back from there: its size does not depend on the rate, nor on how far ahead
//! appointments lie. An entry per request was rejected for its memory, two counters weighted by overlap (the usual
//! "sliding window counter") because it only estimates.

/// Buckets to a stretch.
const BUCKETS: u64 = 250;

/// A log that keeps `limit` in any `reach`.
#[derive(Debug, Clone)]
pub struct WindowLog {
    limit: u64,
    /// The stretch and its jitter, in microseconds.
    reach: u64,
    /// Of a bucket, in microseconds.
    width: u64,
    counts: Box<[u64]>,
    /// Number of the newest bucket: its time divided by the width.
    head: u64,
    total: u64,
}

impl WindowLog {
    /// A log that allows `limit` in any `stretch`, when what it counts arrives up to `jitter` late (microseconds).
    pub fn new(limit: u64, stretch: u64, jitter: u64) -> Self {
        let (reach, width) = (stretch + jitter, (stretch / BUCKETS).max(1));
        let buckets = usize::try_from(reach.div_ceil(width) + 2).unwrap_or(usize::MAX);
        Self { limit, reach, width, counts: vec![0; buckets].into(), head: 0, total: 0 }
    }

    /// Limit, reach, width and number of the buckets: what a log elsewhere needs to do the same.
    #[cfg(feature = "fleet")]
    pub(super) fn parameters(&self) -> [u64; 4] {
        [self.limit, self.reach, self.width, self.counts.len() as u64]
    }

    /// What it allows in its reach.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Allows another amount from now on.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// What was counted after `from` and up to `to`, to within a bucket, as far as it is still known.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        let buckets = self.oldest().max(from / self.width + 1)..=self.head.min(to / self.width);
        buckets.map(|bucket| self.counts[self.slot(bucket)]).fold(0, u64::saturating_add)
    }

    /// The limit under which `amount` passes, where all that is allowed is asked for.
    pub fn allowing(&self, amount: u64) -> u64 {
        let stretch = u128::from(self.width * BUCKETS);
        u64::try_from(u128::from(amount) * u128::from(self.reach + self.width) / stretch).unwrap_or(u64::MAX)
    }

    /// How long an entry may matter, in microseconds.
    pub fn reach(&self) -> u64 {
        self.reach
    }

    /// The earliest time from `from` on at which `amount` more fits; one above the limit goes alone. `from` is not before the
    /// newest entry.
    pub fn earliest(&self, from: u64, amount: u64) -> u64 {
        let (mut at, mut held) = (from, self.total);
        for bucket in self.oldest()..=self.head {
            let leaves = (bucket + 1) * self.width + self.reach;
            if leaves > at {
                if held.saturating_add(amount) <= self.limit {
                    break;
                }
                at = leaves;
            }
            held = held.saturating_sub(self.counts[self.slot(bucket)]);
        }
        at
    }

    /// Counts `amount` at `at`. What is too old to matter is left out.
    pub fn add(&mut self, at: u64, amount: u64) {
        let bucket = at / self.width;
        self.advance(bucket);
        if bucket >= self.oldest() {
            let slot = self.slot(bucket);
            self.counts[slot] = self.counts[slot].saturating_add(amount);
            self.total = self.total.saturating_add(amount);
        }
    }

    /// Takes `amount` back from the bucket of `at`, and no more than is there.
    pub fn remove(&mut self, at: u64, amount: u64) {
        let bucket = at / self.width;
        if (self.oldest()..=self.head).contains(&bucket) {
            let slot = self.slot(bucket);
            let taken = amount.min(self.counts[slot]);
            self.counts[slot] -= taken;
            self.total = self.total.saturating_sub(taken);
        }
    }

    /// What each bucket holds with the last moment it covers, newest first; empty ones are left out.
    pub fn newest_first(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.oldest()..=self.head)
            .rev()
            .map(|bucket| ((bucket + 1) * self.width - 1, self.counts[self.slot(bucket)]))
            .filter(|&(_, count)| count > 0)
    }

    fn advance(&mut self, bucket: u64) {
        let fresh = bucket.saturating_sub(self.head).min(self.counts.len() as u64);
        for passed in (bucket + 1).saturating_sub(fresh)..=bucket {
            if passed > self.head {
                let slot = self.slot(passed);
                self.total = self.total.saturating_sub(std::mem::take(&mut self.counts[slot]));
            }
        }
        self.head = self.head.max(bucket);
    }

    fn oldest(&self) -> u64 {
        (self.head + 1).saturating_sub(self.counts.len() as u64)
    }

    fn slot(&self, bucket: u64) -> usize {
        usize::try_from(bucket % self.counts.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000_000;

    #[test]
    fn the_limit_holds_in_the_reach_and_wastes_at_most_one_bucket() {
        for (limit, stretch, jitter) in [(1, 1_000_000, 0), (10, 60_000_000, 550_000), (100, 10_000_000, 150_000)] {
            let mut log = WindowLog::new(limit, stretch, jitter);
            for _ in 0..limit {
                assert_eq!(log.earliest(START, 1), START);
                log.add(START, 1);
            }
            let next = log.earliest(START, 1) - START;
            assert!(next > stretch + jitter, "{next}");
            assert!(next <= stretch + jitter + stretch / 250, "{next}");
        }
    }

    #[test]
    fn a_large_amount_waits_for_just_enough_to_leave() {
        let mut log = WindowLog::new(100, 250_000, 0);
        for i in 0..10 {
            log.add(START + i * 1_000, 10);
        }
        assert_eq!(log.earliest(START + 9_000, 25), START + 2_000 + 1_000 + 250_000);
        assert_eq!(log.earliest(START + 9_000, 100), START + 9_000 + 1_000 + 250_000);
    }

    #[test]
    fn what_is_taken_back_is_free_at_once_and_only_once() {
        let mut log = WindowLog::new(2, 1_000_000, 0);
        log.add(START, 1);
        log.add(START + 400_000, 1);
        log.remove(START, 1);
        log.remove(START, 1);
        assert_eq!(log.earliest(START + 400_000, 1), START + 400_000);
        assert!(log.earliest(START + 400_000, 2) > START + 1_400_000);
        log.remove(START + 90_000_000, 1);
        log.remove(START - 90_000_000, 1);
        assert!(log.earliest(START + 400_000, 2) > START + 1_400_000);
    }

    #[test]
    fn an_entry_older_than_the_reach_is_left_out_whatever_the_order() {
        let mut log = WindowLog::new(5, 1_000_000, 0);
        log.add(START + 10_000_000, 1);
        log.add(START, 5);
        log.add(START + 9_500_000, 3);
        assert_eq!(log.newest_first().map(|(_, count)| count).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(log.earliest(START + 10_000_000, 1), START + 10_000_000);
    }

    #[test]
    fn amounts_whose_sum_does_not_fit_saturate() {
        let mut log = WindowLog::new(10, 1_000_000, 0);
        log.add(START, u64::MAX);
        log.add(START + 100_000, u64::MAX);
        assert!(log.earliest(START + 200_000, 1) > START + 1_000_000);
        log.remove(START, u64::MAX);
        log.remove(START + 100_000, u64::MAX);
        log.add(START + 5_000_000, 1);
        assert_eq!(log.earliest(START + 5_000_000, 9), START + 5_000_000);
    }

    #[test]
    fn its_size_does_not_depend_on_the_limit_nor_on_how_far_ahead_entries_lie() {
        for (stretch, jitter) in [(1_000_000, 80_000), (10_000_000, 150_000), (60_000_000, 550_000)] {
            let mut log = WindowLog::new(1_000_000_000, stretch, jitter);
            (0..1_000).for_each(|i| log.add(START + i * 1_000_000, 1_000_000));
            assert!(size_of_val(&*log.counts) < 2_300, "{}", log.counts.len());
        }
    }
}
