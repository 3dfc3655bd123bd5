//! The simulated provider: what it counts, and its hiccups.
//!
//! It knows nothing of the arithmetic that is tested. Every arrival is kept to the microsecond for as long as it lies in a
//! window, and every window that ends with an arrival is looked at: no sliding window holds more than one of these.

use std::collections::VecDeque;

use super::chance::{Lognormal, Random};

const SECOND: u64 = 1_000_000;

/// An exact sliding window.
pub(crate) struct Watch {
    pub(crate) stretch: u64,
    pub(crate) limit: u64,
    /// Time and amount of what lies in it.
    entries: VecDeque<(u64, u64)>,
    held: u64,
    /// The most it ever held.
    pub(crate) peak: u64,
    /// Arrivals that found it too full.
    pub(crate) violations: u64,
}

impl Watch {
    /// A window of `stretch` microseconds; `entries`: about how many it holds.
    pub(crate) fn new(limit: u64, stretch: u64, entries: u64) -> Self {
        let entries = VecDeque::with_capacity(usize::try_from(entries + 1).unwrap_or(0));
        Self { stretch, limit, entries, held: 0, peak: 0, violations: 0 }
    }

    /// An arrival, not before the last one.
    pub(crate) fn see(&mut self, at: u64, amount: u64) {
        while let Some(&(first, gone)) = self.entries.front()
            && first + self.stretch <= at
        {
            self.held -= gone;
            self.entries.pop_front();
        }
        self.entries.push_back((at, amount));
        self.held += amount;
        self.peak = self.peak.max(self.held);
        self.violations += u64::from(self.held > self.limit);
    }
}

/// What a call is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// What was asked for.
    Good,
    /// 503.
    Unavailable,
    /// 429, and until when nothing may be sent.
    Pause(u64),
}

/// What is wrong with it for a while.
#[derive(Debug, Clone, Copy)]
enum Hiccup {
    /// So many of a hundred calls are answered 503.
    Down(u64),
    /// All calls of one second are answered 429.
    Throttle(u64),
    /// Replies take so many times as long.
    Slow(u64),
}

pub(crate) struct Provider {
    /// Requests, in every window that is promised.
    pub(crate) requests: Vec<Watch>,
    /// Tokens.
    pub(crate) tokens: Option<Watch>,
    latency: Lognormal,
    /// The latest one, and when it ends.
    hiccup: (Hiccup, u64),
    pub(crate) hiccups: u64,
}

impl Provider {
    pub(crate) fn new(requests: Vec<Watch>, tokens: Option<Watch>) -> Self {
        // Median 2.5 s, 99th percentile 10 s.
        let latency = Lognormal::new(2_500.0, 0.6);
        Self { requests, tokens, latency, hiccup: (Hiccup::Slow(1), 0), hiccups: 0 }
    }

    /// Another hiccup begins.
    pub(crate) fn stumble(&mut self, now: u64, random: &mut Random) {
        self.hiccups += 1;
        self.hiccup = match random.below(4) {
            0 | 1 => (Hiccup::Down(random.between(30, 100)), now + random.between(5, 30) * SECOND),
            2 => (Hiccup::Throttle(now + random.between(2, 20) * SECOND), now + SECOND),
            _ => (Hiccup::Slow(random.between(2, 6)), now + random.between(20, 60) * SECOND),
        };
    }

    /// A call arrives: its reply, and when that is there.
    pub(crate) fn call(&mut self, now: u64, tokens: u64, random: &mut Random) -> (Reply, u64) {
        self.requests.iter_mut().for_each(|watch| watch.see(now, 1));
        if let Some(watch) = &mut self.tokens {
            watch.see(now, tokens);
        }
        let refused = now + random.between(20_000, 100_000);
        match self.hiccup {
            (Hiccup::Down(share), until) if now < until && random.below(100) < share => (Reply::Unavailable, refused),
            (Hiccup::Throttle(pause), until) if now < until => (Reply::Pause(pause), refused),
            (Hiccup::Slow(times), until) if now < until => (Reply::Good, now + times * self.latency.draw(random)),
            _ => (Reply::Good, now + self.latency.draw(random)),
        }
    }

    /// Windows that held too much, over all.
    pub(crate) fn violations(&self) -> u64 {
        self.requests.iter().chain(&self.tokens).map(|watch| watch.violations).sum()
    }
}
