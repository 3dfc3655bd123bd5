//! The pace beside the logs: GCRA, so that a window is not used up in one burst.
//!
//! It smooths; what may never be passed is the logs' business. Hence two freedoms that a lone GCRA could not take. An
//! amount larger than the burst goes when its turn comes and leaves a debt, so nothing starves. And when appointments are
//! given back, the pace is worked out again from the log: exact for all windows within the log's reach, and longer ones are
//! bound by the log itself. Paying each slot back as it is given back was rejected: slots of before an idle stretch would
//! come back as a burst.

use crate::quota::{MINUTE, window::WindowLog};

/// A pace of some amount per minute.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Amount per `period`.
    rate: u64,
    /// In microseconds.
    period: u64,
    /// How far the schedule may run ahead of time, in microseconds: the burst, less what is being asked for.
    slack: u64,
    /// When everything taken so far is paid for.
    paid: u64,
}

impl Pace {
    /// `per_minute` in a minute, with bursts of `burst`.
    pub fn even(per_minute: u64, burst: u64) -> Self {
        let mut pace = Self { rate: per_minute.max(1), period: MINUTE, slack: 0, paid: 0 };
        pace.slack = pace.cost(burst.saturating_sub(1));
        pace
    }

    /// A fifth faster than `per_minute` in a minute, with bursts of one hundredth of it and one more amount of any size.
    /// Tokens are paced so: an estimate is corrected later, and a pace at the limit itself would lose what was estimated
    /// too high (measured with 2M/min: 1.2 costs < 0.1 % with small requests, 1 % with requests of 1.5 % of the limit).
    pub fn loose(per_minute: u64) -> Self {
        Self { rate: per_minute.max(1), period: MINUTE / 6 * 5, slack: MINUTE / 120, paid: 0 }
    }

    /// A pace that nobody has declared yet, with bursts of half a second.
    pub fn unknown() -> Self {
        Self { rate: 1, period: MINUTE, slack: MINUTE / 120, paid: 0 }
    }

    /// Goes on with another amount in its period.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate.max(1);
    }

    /// Rate, period and slack: what a pace elsewhere needs to do the same.
    #[cfg(feature = "fleet")]
    pub(super) fn parameters(&self) -> [u64; 3] {
        [self.rate, self.period, self.slack]
    }

    /// The earliest time from `from` on that keeps the pace.
    pub fn earliest(&self, from: u64) -> u64 {
        from.max(self.paid.saturating_sub(self.slack))
    }

    /// Takes `amount` at `at`.
    pub fn take(&mut self, at: u64, amount: u64) {
        self.paid = self.paid.max(at).saturating_add(self.cost(amount));
    }

    /// Corrects an amount taken before.
    pub fn correct(&mut self, taken: u64, actual: u64) {
        self.paid = self.paid.saturating_add(self.cost(actual)).saturating_sub(self.cost(taken));
    }

    /// Works the pace out again from what `log` still holds, none of it later than `newest`. It never gets slower.
    pub fn recover(&mut self, log: &WindowLog, newest: u64) {
        self.paid = self.paid.min(self.paid_for(log, newest));
    }

    /// Works the pace out from nothing but `log`, none of it later than `newest`.
    pub fn restore(&mut self, log: &WindowLog, newest: u64) {
        self.paid = self.paid_for(log, newest);
    }

    /// The latest, over all entries, of its time plus the cost of it and of all that follow; an entry counts as late as its
    /// bucket allows.
    fn paid_for(&self, log: &WindowLog, newest: u64) -> u64 {
        let (mut since, mut paid) = (0_u64, 0);
        for (end, count) in log.newest_first() {
            since = since.saturating_add(count);
            paid = paid.max(end.min(newest).saturating_add(self.cost(since)));
        }
        paid
    }

    /// What `amount` takes, in microseconds, rounded up.
    fn cost(&self, amount: u64) -> u64 {
        let cost = (u128::from(amount) * u128::from(self.period)).div_ceil(u128::from(self.rate));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000_000;

    fn run(pace: &mut Pace, log: &mut WindowLog, count: usize, from: u64) -> Vec<u64> {
        (0..count)
            .map(|_| {
                let at = pace.earliest(from);
                pace.take(at, 1);
                log.add(at, 1);
                at
            })
            .collect()
    }

    #[test]
    fn a_burst_is_followed_by_even_steps() {
        let (mut pace, mut log) = (Pace::even(600, 3), WindowLog::new(600, MINUTE, 0));
        let offsets: Vec<u64> = run(&mut pace, &mut log, 6, START).iter().map(|at| at - START).collect();
        assert_eq!(offsets, [0, 0, 0, 100_000, 200_000, 300_000]);
    }

    #[test]
    fn an_amount_larger_than_the_burst_goes_and_leaves_a_debt() {
        let mut pace = Pace::loose(2_000_000);
        assert_eq!(pace.earliest(START), START);
        pace.take(START, 200_000);
        assert_eq!(pace.earliest(START), START + 5_000_000 - 500_000);
        pace.correct(200_000, 100_000);
        assert_eq!(pace.earliest(START), START + 2_500_000 - 500_000);
    }

    #[test]
    fn a_slot_given_back_returns_but_never_more_than_the_burst() {
        let (mut pace, mut log) = (Pace::even(600, 3), WindowLog::new(100, MINUTE / 6, 0));
        let given = run(&mut pace, &mut log, 30, START);
        let newest = given[29];
        assert_eq!(pace.earliest(newest), newest + 100_000);
        for at in &given[10..20] {
            log.remove(*at, 1);
        }
        pace.recover(&log, newest);
        let again = run(&mut pace, &mut log, 3, newest);
        assert_eq!(again[0], newest);
        assert!(again[1] <= newest + MINUTE / 6 / 250, "two are back at once, but for one bucket of the log");
        assert!(again[2] >= newest + 100_000, "and the other eight are not");
    }

    #[test]
    fn a_restored_pace_is_never_faster_than_the_one_that_was_lost() {
        let (mut pace, mut log) = (Pace::even(600, 6), WindowLog::new(600, MINUTE, 0));
        let newest = run(&mut pace, &mut log, 40, START)[39];
        let mut restored = Pace::even(600, 6);
        restored.restore(&log, newest);
        assert!(restored.earliest(newest) >= pace.earliest(newest));
        assert!(restored.earliest(newest) <= pace.earliest(newest) + MINUTE / 250);
    }
}
