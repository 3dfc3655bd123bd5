//! What is away is said once, and so is that it is back.

use std::time::{Duration, Instant};

use crate::retry::jitter;

/// The first and the longest wait before something is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Something that fails at times.
#[derive(Debug)]
pub(super) struct Trouble {
    /// As a sentence begins: "the data set cannot be written".
    what: &'static str,
    failures: u32,
    again: Option<Instant>,
}

impl Trouble {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, failures: 0, again: None }
    }

    /// Notes a failure; returns how long to wait.
    pub(super) fn failed(&mut self, error: &str) -> Duration {
        if self.failures == 0 {
            tracing::warn!(error, "{}; trying again until it works, and nothing is lost meanwhile", self.what);
        } else {
            tracing::debug!(error, failures = self.failures, "{}", self.what);
        }
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1).mul_f64(jitter());
        self.failures = self.failures.saturating_add(1);
        self.again = Some(Instant::now() + wait);
        wait
    }

    /// Notes that it works.
    pub(super) fn over(&mut self) {
        if self.failures > 0 {
            tracing::warn!(failures = self.failures, "this is over: {}", self.what);
        }
        *self = Self::new(self.what);
    }

    /// Whether it is worth another attempt now.
    pub(super) fn may_try(&self) -> bool {
        self.again.is_none_or(|again| Instant::now() >= again)
    }
}
