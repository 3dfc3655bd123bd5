//! Numbers that look random and are the same in every run.

use std::time::Duration;

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From `least` to `most`.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Exponential, in microseconds.
    pub(crate) fn gap(&mut self, mean: u64) -> u64 {
        micros(-self.share().ln() * Duration::from_micros(mean).as_secs_f64())
    }

    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        let whole = u32::try_from(self.next() >> 32).unwrap_or(0);
        (f64::from(whole) + 1.0) / 4_294_967_296.0
    }
}

/// A lognormal distribution of times, as so many draws from it.
pub(crate) struct Lognormal(Vec<u64>);

/// Enough for one in a thousand to be sixteen draws.
const DRAWS: usize = 1 << 14;

impl Lognormal {
    /// By its median in milliseconds and the deviation of its logarithm.
    pub(crate) fn new(median_ms: f64, sigma: f64) -> Self {
        let mut random = Random(1);
        let mut draw = || {
            let (radius, angle) = (-2.0 * random.share().ln(), random.share() * std::f64::consts::TAU);
            micros(median_ms / 1e3 * (sigma * radius.sqrt() * angle.cos()).exp())
        };
        Self((0..DRAWS).map(|_| draw()).collect())
    }

    /// From the appointment to the server: 5th percentile 20 ms, median 63, 95th 200, 99.9th 550.
    pub(crate) fn way() -> Self {
        Self::new(63.0, 0.702)
    }

    /// The same with nothing above `most` microseconds.
    pub(crate) fn up_to(mut self, most: u64) -> Self {
        self.0.iter_mut().for_each(|draw| *draw = (*draw).min(most));
        self
    }

    /// In microseconds.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        self.0[usize::try_from(random.next()).unwrap_or(0) % DRAWS]
    }
}

fn micros(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_micros()).unwrap_or(u64::MAX)
}
