//! What is simulated.

use aurelia::quota::{Limits, MINUTE, margins};
use jiff::tz::TimeZone;

use super::chance::{Lognormal, Random};
use super::provider::Watch;
use super::{SECOND, START};

/// Calls to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// So many in all, in bursts.
    Bursts(u64),
    /// Always more than can be done.
    Endless,
}

/// Sizes of calls, in tokens: from, to; and so many of a hundred are large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) small: (u64, u64),
    pub(crate) large: u64,
    pub(crate) large_percent: u64,
}

impl Mix {
    /// 2,000 tokens at the mean.
    pub(crate) const LIGHT: Self = Self { small: (500, 3_500), large: 0, large_percent: 0 };
    /// 4,400 tokens at the mean.
    pub(crate) const HEAVY: Self = Self { small: (3_000, 3_000), large: 10_000, large_percent: 20 };

    pub(crate) fn draw(self, random: &mut Random) -> u64 {
        if self.large_percent > 0 && random.below(100) < self.large_percent {
            self.large
        } else {
            random.between(self.small.0, self.small.1)
        }
    }
}

/// From sending to the arrival.
pub(crate) enum Way {
    /// Anything up to so many microseconds.
    Even(u64),
    Lognormal(Lognormal),
}

pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) workers: usize,
    /// What freezes and crashes together.
    pub(crate) nodes: usize,
    /// Microseconds.
    pub(crate) span: u64,
    pub(crate) work: Work,
    /// In turns, each for `phase` microseconds.
    pub(crate) mixes: Vec<Mix>,
    pub(crate) phase: u64,
    /// How many percent too many tokens are reserved, at most.
    pub(crate) over_percent: u64,
    /// Of a worker, behind its appointment.
    pub(crate) lateness: Lognormal,
    pub(crate) way: Way,
    pub(crate) freezes_per_hour: u64,
    pub(crate) crashes_per_hour: u64,
    pub(crate) hiccups_per_hour: u64,
    pub(crate) seed: u64,
}

impl Plan {
    /// A day of a fleet, or some hours of it: three calls a minute for each worker, and three thousand tokens for each call.
    /// So much work comes as the limit allows. Nodes of 20 workers freeze once an hour and crash three times a day; the
    /// provider stumbles six times an hour; and the way varies by all that the core allows for.
    pub(crate) fn day(workers: usize, minutes: u64, mixes: Vec<Mix>) -> Self {
        let n = 3 * u64::try_from(workers).unwrap_or(0);
        let nodes = (workers / 20).max(1);
        let per_node = u64::try_from(nodes).unwrap_or(0);
        Self {
            limits: Limits {
                requests_per_minute: Some(n),
                tokens_per_minute: Some(3_000 * n),
                requests_per_day: Some(24 * 60 * n),
                day_resets: TimeZone::get("America/Los_Angeles").unwrap_or(TimeZone::UTC),
                spread_seconds: 10.0,
            },
            workers,
            nodes,
            span: minutes * MINUTE,
            work: Work::Bursts(minutes * n),
            mixes,
            phase: 30 * MINUTE,
            over_percent: 10,
            // 99th percentile 40 ms.
            lateness: Lognormal::new(2.0, 1.288),
            way: Way::Even(margins::way(10 * SECOND)),
            freezes_per_hour: per_node,
            crashes_per_hour: per_node.div_ceil(8),
            hiccups_per_hour: 6,
            seed: 1,
        }
    }

    /// Half an hour of more demand than there can be supply, against limits per minute. Nothing is late but what stalls.
    pub(crate) fn saturated(requests: Option<u64>, tokens: Option<u64>, spread_seconds: f64, mix: Mix) -> Self {
        Self {
            limits: Limits {
                requests_per_minute: requests,
                tokens_per_minute: tokens,
                requests_per_day: None,
                day_resets: TimeZone::UTC,
                spread_seconds,
            },
            nodes: 8,
            work: Work::Endless,
            over_percent: 0,
            lateness: Lognormal::new(0.0, 0.0),
            way: Way::Lognormal(Lognormal::way()),
            freezes_per_hour: 0,
            crashes_per_hour: 0,
            hiccups_per_hour: 0,
            ..Self::day(400, 30, vec![mix])
        }
    }

    /// The sizes of calls made now.
    pub(super) fn mix(&self, now: u64) -> Mix {
        let phase = usize::try_from((now - START) / self.phase).unwrap_or(0);
        self.mixes[phase % self.mixes.len()]
    }

    /// What the provider allows, by the letter: so many in 60 s, and in proportion where they are spread.
    pub(super) fn windows(&self) -> Vec<Watch> {
        let Some(n) = self.limits.requests_per_minute else { return Vec::new() };
        let mut windows = vec![Watch::new(n, 60 * SECOND, n)];
        if self.limits.spread_seconds < 60.0 {
            windows.push(Watch::new(n / 6, 10 * SECOND, n / 6));
        }
        windows
    }

    pub(super) fn token_window(&self) -> Option<Watch> {
        let entries = self.limits.requests_per_minute.unwrap_or(10_000);
        self.limits.tokens_per_minute.map(|n| Watch::new(n, 60 * SECOND, entries))
    }
}
