//! When a failed call is sent again: pure, so that it can be tested as a table.
//!
//! The official SDKs resend what can never succeed and ignore the provider's hints. Here only two kinds of failure are
//! worth another attempt, the provider's hint comes first and is never undercut, and attempts are counted. Waits are
//! exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015): the whole wait is
//! random, since fixed waits with a little noise keep callers that failed together together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::provider::{CallError, CallErrorKind};

/// How often, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included; 0 and 1 both mean no second one.
    pub attempts: u32,
    /// Longest wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// Longest wait of our own making. A provider's hint may be longer.
    pub max: Duration,
}

impl Policy {
    /// How long to wait before the next attempt, or none if there must not be one.
    ///
    /// `attempt` is the number of the one that failed, from 1. `jitter` is drawn from 0..=1 by the caller. With a hint the
    /// wait is the hint plus at most `base`, so that callers paused together do not come back together. A day's quota
    /// is no pause between attempts: its call is parked, not retried.
    pub fn delay(&self, attempt: u32, error: &CallError, jitter: f64) -> Option<Duration> {
        if attempt >= self.attempts || !is_transient(error.kind) {
            return None;
        }
        let jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        Some(match error.retry_after {
            Some(hint) => hint.saturating_add(self.base.min(self.max).mul_f64(jitter)),
            None => self.ceiling(attempt).mul_f64(jitter),
        })
    }

    /// The longest wait of our own after this attempt.
    fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }
}

/// Whether a later attempt of the same request can succeed.
fn is_transient(kind: CallErrorKind) -> bool {
    match kind {
        CallErrorKind::Throttled | CallErrorKind::Unavailable | CallErrorKind::FileNotReady => true,
        CallErrorKind::DayExhausted
        | CallErrorKind::Refused
        | CallErrorKind::KeyRefused
        | CallErrorKind::ModelUnknown
        | CallErrorKind::FileGone => false,
    }
}

/// 0..1, from the clock's lowest bits through a hash: retries need to be apart, not unpredictable.
pub fn jitter() -> f64 {
    static DRAWS: AtomicUsize = AtomicUsize::new(0);
    let draw = DRAWS.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let hash = blake3::hash(format!("{draw} {}", now.as_nanos()).as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::Billed;
    use crate::quota::NamedLimit;

    const POLICY: Policy = Policy { attempts: 5, base: Duration::from_secs(1), max: Duration::from_secs(6) };
    const KINDS: [CallErrorKind; 8] = [
        CallErrorKind::Throttled,
        CallErrorKind::DayExhausted,
        CallErrorKind::Unavailable,
        CallErrorKind::Refused,
        CallErrorKind::KeyRefused,
        CallErrorKind::ModelUnknown,
        CallErrorKind::FileGone,
        CallErrorKind::FileNotReady,
    ];

    fn error(kind: CallErrorKind, retry_after: Option<Duration>) -> CallError {
        CallError { kind, billed: Billed::No, message: "x".to_owned(), retry_after, limit: NamedLimit::default() }
    }

    #[test]
    fn only_throttling_outages_and_files_under_way_are_sent_again() {
        let again: Vec<_> =
            KINDS.into_iter().filter(|kind| POLICY.delay(1, &error(*kind, None), 0.5).is_some()).collect();
        assert_eq!(again, [CallErrorKind::Throttled, CallErrorKind::Unavailable, CallErrorKind::FileNotReady]);
    }

    #[test]
    fn the_wait_doubles_up_to_its_maximum_and_ends_with_the_attempts() {
        let waits: Vec<_> = (1..=6)
            .map(|attempt| {
                POLICY.delay(attempt, &error(CallErrorKind::Unavailable, None), 1.0).map(|wait| wait.as_secs())
            })
            .collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(6), None, None]);
    }

    #[test]
    fn a_hint_beyond_our_own_maximum_is_kept_and_spread_by_the_base() {
        let hinted = error(CallErrorKind::Throttled, Some(Duration::from_secs(34)));
        assert_eq!(POLICY.delay(1, &hinted, 0.0), Some(Duration::from_secs(34)));
        assert_eq!(POLICY.delay(4, &hinted, 1.0), Some(Duration::from_secs(35)));
    }

    #[test]
    fn no_attempts_means_no_retry() {
        let policy = Policy { attempts: 0, ..POLICY };
        assert_eq!(policy.delay(1, &error(CallErrorKind::Unavailable, None), 0.5), None);
    }

    proptest! {
        #[test]
        fn no_wait_undercuts_the_hint_or_exceeds_its_bound(
            attempts in 0_u32..50, attempt in 0_u32.., base in 0_u64..1 << 40, max in 0_u64..1 << 40,
            hint in proptest::option::of(0_u64..), jitter in proptest::num::f64::ANY, kind in 0_usize..6,
        ) {
            let policy = Policy { attempts, base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let hint = hint.map(Duration::from_secs);
            if let Some(wait) = policy.delay(attempt, &error(KINDS[kind], hint), jitter) {
                prop_assert!(attempt < attempts);
                prop_assert!(wait >= hint.unwrap_or_default());
                prop_assert!(wait <= hint.unwrap_or_default().saturating_add(policy.max));
            }
        }
    }
}
