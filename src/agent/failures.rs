//! What a failed attempt leads to: plain arithmetic over the failures of one ask, without a clock or waiting.
//!
//! Being too fast is no outage, so the two are counted apart. After a round of attempts an outage backs off and a
//! throttled account pauses, each for longer every time: a provider that says "again in 0 s" and refuses is not asked all
//! day long. Only outages end an ask by the deadline, and what it waits for a quota is not taken off it. Attempts that
//! may have been billed have a bound of their own, since each of them may cost as much as a reply.

use std::time::Duration;

use tokio::time::Instant;

use crate::provider::{Billed, CallError};
use crate::retry::Policy;

/// The longest pause between two rounds of attempts.
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);

/// How failures are met.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in a row.
    pub policy: Policy,
    /// The first pause after them; it doubles.
    pub backoff: Duration,
    /// How long a model is away before its fallback is asked.
    pub fallback_after: Duration,
}

/// What follows an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt of this round, after a pause.
    Attempt(Duration),
    /// The round is over: the next one, after a longer pause.
    Round(Duration),
    /// The deadline would pass.
    GiveUp,
}

/// The failures of one ask so far.
#[derive(Debug)]
pub(super) struct Failures {
    patience: Patience,
    /// How long outages are met with another attempt.
    deadline: Duration,
    /// Whether somebody else can be asked.
    has_fallback: bool,
    outages: u32,
    refusals: u32,
    unseen: u32,
    backoff: Duration,
    /// When the first outage was, moved on by what was waited at the gate since.
    since: Option<Instant>,
}

impl Failures {
    pub(super) fn new(patience: Patience, deadline: Duration, has_fallback: bool) -> Self {
        let deadline = if has_fallback { deadline.min(patience.fallback_after) } else { deadline };
        Self {
            patience,
            deadline,
            has_fallback,
            outages: 0,
            refusals: 0,
            unseen: 0,
            backoff: patience.backoff,
            since: None,
        }
    }

    /// So long the gate kept this ask waiting: nobody's outage.
    pub(super) fn waited(&mut self, wait: Duration) {
        self.since = self.since.map(|since| since + wait);
    }

    /// How long an account that is away is waited for; none: for as long as it takes.
    pub(super) fn longest_absence(&self) -> Option<Duration> {
        self.has_fallback.then_some(self.patience.fallback_after)
    }

    /// Whether a model that has answered nobody for so long is left to its fallback.
    fn gives_way(&self, down: Duration) -> bool {
        self.longest_absence().is_some_and(|longest| down > longest)
    }

    /// Counts an attempt that may have been billed; says so when there were too many.
    pub(super) fn too_many_unseen(&mut self, error: &CallError) -> Option<String> {
        self.unseen += u32::from(error.billed == Billed::Unknown);
        let most = self.patience.policy.attempts.max(1).saturating_mul(2);
        (self.unseen >= most).then(|| {
            format!(
                "{}; {} attempts ended like this, and each of them may have been billed",
                error.message, self.unseen
            )
        })
    }

    /// How long the account pauses after it was too fast.
    pub(super) fn throttled(&mut self, error: &CallError, jitter: f64) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        let policy = &self.patience.policy;
        policy.delay(self.refusals, error, jitter).unwrap_or_else(|| {
            let doublings = self.refusals.saturating_sub(policy.attempts.max(1)).min(31);
            let pause = policy.max.saturating_mul(1 << doublings).min(LONGEST_BACKOFF.max(policy.max));
            pause.max(error.retry_after.unwrap_or_default())
        })
    }

    /// Whether an ask may wait until an account that is left alone is tried again; it is an outage to it. `down`: how long the
    /// model has answered nobody.
    pub(super) fn may_wait(&mut self, pause: Duration, down: Duration, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        !self.gives_way(down) && now.duration_since(since).saturating_add(pause) <= self.deadline
    }

    /// What follows an outage that ended `now`; `down` as above.
    pub(super) fn outage(&mut self, error: &CallError, down: Duration, jitter: f64, now: Instant) -> Next {
        self.outages += 1;
        let since = *self.since.get_or_insert(now);
        let next = if let Some(pause) = self.patience.policy.delay(self.outages, error, jitter) {
            Next::Attempt(pause)
        } else {
            self.outages = 0;
            let pause = self.backoff;
            self.backoff = pause.saturating_mul(2).min(LONGEST_BACKOFF);
            Next::Round(pause)
        };
        let (Next::Attempt(pause) | Next::Round(pause)) = next else { return next };
        let end = now.duration_since(since).saturating_add(pause);
        if end > self.deadline || self.gives_way(down) { Next::GiveUp } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::CallErrorKind;
    use crate::quota::NamedLimit;

    const POLICY: Policy = Policy { attempts: 3, base: Duration::from_secs(1), max: Duration::from_mins(1) };
    const SECOND: Duration = Duration::from_secs(1);
    const UP: Duration = Duration::ZERO;
    const PATIENCE: Patience =
        Patience { policy: POLICY, backoff: Duration::from_secs(8), fallback_after: Duration::from_secs(10) };

    fn failures(deadline: Duration) -> Failures {
        Failures::new(PATIENCE, deadline, false)
    }

    fn error(kind: CallErrorKind, billed: Billed, retry_after: Option<Duration>) -> CallError {
        CallError { kind, billed, message: "gemini: x".to_owned(), retry_after, limit: NamedLimit::default() }
    }

    #[test]
    fn a_provider_that_throttles_with_an_empty_hint_is_asked_less_and_less() {
        let mut failures = failures(SECOND);
        let now = error(CallErrorKind::Throttled, Billed::No, Some(Duration::ZERO));
        let pauses: Vec<u64> = (0..8).map(|_| failures.throttled(&now, 0.0).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 60, 120, 240, 480, 600, 600]);
        let hint = error(CallErrorKind::Throttled, Billed::No, Some(Duration::from_hours(2)));
        assert_eq!(failures.throttled(&hint, 0.0), Duration::from_hours(2), "a longer hint is kept");
    }

    #[test]
    fn outages_come_in_rounds_with_longer_and_longer_pauses() {
        let mut failures = failures(Duration::from_hours(24));
        let down = error(CallErrorKind::Unavailable, Billed::No, None);
        let now = Instant::now();
        let next: Vec<Next> = (0..9).map(|_| failures.outage(&down, UP, 1.0, now)).collect();
        let round = |pause: u32| [Next::Attempt(SECOND), Next::Attempt(SECOND * 2), Next::Round(SECOND * pause)];
        assert_eq!(next, [round(8), round(16), round(32)].concat());
    }

    #[test]
    fn the_deadline_runs_from_the_first_outage_and_not_while_the_gate_waits() {
        let mut failures = failures(SECOND * 10);
        let down = error(CallErrorKind::Unavailable, Billed::No, None);
        let now = Instant::now();
        failures.waited(SECOND * 3_600);
        assert_eq!(failures.outage(&down, UP, 1.0, now), Next::Attempt(SECOND));
        failures.waited(SECOND * 3_600);
        let later = now + SECOND * 3_605;
        assert_eq!(failures.outage(&down, UP, 1.0, later), Next::Attempt(SECOND * 2));
        assert_eq!(failures.outage(&down, UP, 1.0, later), Next::GiveUp);
    }

    #[test]
    fn a_model_with_a_fallback_is_waited_for_no_longer_than_that_allows() {
        let down = error(CallErrorKind::Unavailable, Billed::No, None);
        let now = Instant::now();
        for (has_fallback, after_ten) in [(true, Next::GiveUp), (false, Next::Attempt(SECOND * 2))] {
            let mut failures = Failures::new(PATIENCE, Duration::from_hours(24), has_fallback);
            assert_eq!(failures.outage(&down, UP, 1.0, now), Next::Attempt(SECOND));
            assert_eq!(failures.outage(&down, UP, 1.0, now + SECOND * 10), after_ten);
            // It is down for others already.
            let mut failures = Failures::new(PATIENCE, Duration::from_hours(24), has_fallback);
            assert!(failures.may_wait(SECOND, SECOND * 10, now));
            assert_eq!(failures.may_wait(SECOND, SECOND * 11, now), !has_fallback);
            let next = failures.outage(&down, SECOND * 11, 1.0, now);
            assert_eq!(next, if has_fallback { Next::GiveUp } else { Next::Attempt(SECOND) });
        }
    }

    #[test]
    fn attempts_that_may_have_been_billed_are_repeated_only_so_often() {
        let mut failures = failures(Duration::from_hours(24));
        let (sent, answered) = (
            error(CallErrorKind::Unavailable, Billed::Unknown, None),
            error(CallErrorKind::Unavailable, Billed::No, None),
        );
        for _ in 0..5 {
            assert_eq!(failures.too_many_unseen(&sent), None);
            assert_eq!(failures.too_many_unseen(&answered), None);
        }
        let why = failures.too_many_unseen(&sent).unwrap();
        assert_eq!(why, "gemini: x; 6 attempts ended like this, and each of them may have been billed");
    }
}
