//! What is counted over a day.

/// Buckets to a doubling: quantiles are right to 3 %.
const FINE: u64 = 32;

/// How long what took.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    all: u64,
    /// In microseconds.
    pub(crate) longest: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; 64 * 32], all: 0, longest: 0 }
    }

    pub(crate) fn see(&mut self, micros: u64) {
        let doublings = (micros | FINE).ilog2() - FINE.ilog2();
        let bucket = u64::from(doublings) * FINE + (micros >> doublings);
        self.counts[usize::try_from(bucket).unwrap_or(0)] += 1;
        self.all += 1;
        self.longest = self.longest.max(micros);
    }

    /// What so many of a thousand did not exceed, in microseconds, rounded up to the end of its bucket.
    pub(crate) fn thousandths(&self, share: u64) -> u64 {
        let mut left = (self.all * share).div_ceil(1_000);
        for (bucket, count) in (0_u64..).zip(&self.counts) {
            if left <= *count {
                let doublings = (bucket / FINE).saturating_sub(1);
                return (((bucket - doublings * FINE + 1) << doublings) - 1).min(self.longest);
            }
            left -= count;
        }
        self.longest
    }
}

/// What was used of a limit while there was demand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Seconds with demand from beginning to end.
    pub(crate) seconds: u64,
    pub(crate) amount: u64,
}

impl Used {
    /// In thousandths of a percent of `per_minute`.
    pub(crate) fn of(self, per_minute: u64) -> u64 {
        self.amount * 100_000 * 60 / (per_minute * self.seconds).max(1)
    }
}

/// How evenly calls were shared out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fairness {
    /// Jain's index: 1 when all had the same, 1/n when one had all.
    pub(crate) jain: f64,
    /// The mean of the slowest tenth beside that of all.
    pub(crate) slowest_tenth: f64,
}

impl Fairness {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
    pub(crate) fn of(mut counts: Vec<u64>) -> Self {
        counts.sort_unstable();
        let n = counts.len() as f64;
        let sum: f64 = counts.iter().map(|&count| count as f64).sum();
        let squares: f64 = counts.iter().map(|&count| (count as f64).powi(2)).sum();
        let tenth = (counts.len() / 10).max(1);
        let slowest = counts[..tenth].iter().sum::<u64>() as f64 / tenth as f64;
        Self { jain: sum * sum / (n * squares), slowest_tenth: slowest / (sum / n) }
    }
}
