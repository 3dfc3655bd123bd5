//! An account of which most calls fail is left alone, and tried again by one call at a time.
//!
//! Each process has its own breakers, from what it saw itself: the provider's trouble is seen by everybody within a few
//! calls, and needs no store. What an ask waits here counts as the provider's outage, unlike what it waits for a quota. Only an
//! answer that the provider gives is a sign of life; a refusal for speed is neither good nor bad.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// Calls are counted over so long.
const WINDOW: Duration = Duration::from_secs(30);
/// Fewer failures than this open nothing.
const LEAST: u32 = 10;
/// The first time that an account is left alone; it doubles.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(2);
/// Between two calls that try whether the account is back.
const PROBES: Duration = Duration::from_secs(1);

/// One account's.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when it is counted.
    since: Option<Instant>,
    well: u32,
    ill: u32,
    opened: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    at: Instant,
    /// The next call that may go.
    next: Instant,
    pause: Duration,
}

impl Breaker {
    /// Whether a call may go; else how long none may. Where it is being tried, the one call that may go is this one.
    pub(super) fn enter(&self, now: Instant) -> Result<(), Duration> {
        match &mut lock(&self.0).opened {
            None => Ok(()),
            Some(opened) if now < opened.next => Err(opened.next - now),
            Some(opened) => {
                opened.next = now + PROBES;
                Ok(())
            }
        }
    }

    /// An answer to a call that was sent at `sent`.
    pub(super) fn well(&self, sent: Instant) {
        let mut state = lock(&self.0);
        if state.opened.as_ref().is_some_and(|opened| sent < opened.at) {
            return;
        }
        state.opened = None;
        state.well = state.well.saturating_add(1);
    }

    /// A call sent at `sent` that the provider failed, `now`. Says for how long the account is left alone, where that is new.
    pub(super) fn ill(&self, sent: Instant, now: Instant) -> Option<Duration> {
        let mut state = lock(&self.0);
        let pause = match &state.opened {
            Some(opened) if sent < opened.at => return None,
            Some(opened) => (opened.pause * 2).min(LONGEST),
            None => {
                if state.since.is_none_or(|since| now > since + WINDOW) {
                    *state = State { since: Some(now), ..State::default() };
                }
                state.ill = state.ill.saturating_add(1);
                if state.ill < LEAST || state.ill < state.well {
                    return None;
                }
                FIRST
            }
        };
        *state = State { opened: Some(Opened { at: now, next: now + pause, pause }), ..State::default() };
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn broken(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        let told: Vec<_> = (0..LEAST).filter_map(|_| breaker.ill(now, now)).collect();
        assert_eq!(told, [FIRST]);
        breaker
    }

    #[test]
    fn an_account_of_which_most_calls_fail_is_left_alone_and_then_tried_by_one_call_a_second() {
        let now = Instant::now();
        let breaker = broken(now);
        assert_eq!(breaker.enter(now + SECOND), Err(4 * SECOND));
        assert_eq!(breaker.enter(now + FIRST), Ok(()));
        assert_eq!(breaker.enter(now + FIRST), Err(SECOND), "one at a time");
        assert_eq!(breaker.enter(now + FIRST + SECOND), Ok(()));
        assert_eq!(breaker.ill(now + FIRST, now + FIRST + SECOND), Some(2 * FIRST), "for longer each time");
        assert_eq!(breaker.enter(now + FIRST + 2 * SECOND), Err(9 * SECOND));
        breaker.well(now + 4 * FIRST);
        assert_eq!(breaker.enter(now + 4 * FIRST), Ok(()));
        assert_eq!(breaker.enter(now + 4 * FIRST), Ok(()), "all may go again");
    }

    #[test]
    fn a_few_failures_among_many_answers_open_nothing() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for n in 0..1_000 {
            breaker.well(now);
            if n % 20 == 0 {
                assert_eq!(breaker.ill(now, now), None);
            }
        }
        assert_eq!(breaker.enter(now), Ok(()));
    }

    #[test]
    fn failures_that_are_long_ago_do_not_count() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for n in 0..100 {
            let now = now + SECOND * 4 * n;
            assert_eq!(breaker.ill(now, now), None, "{n}");
        }
    }

    #[test]
    fn the_end_of_a_call_that_was_sent_before_says_nothing_of_an_open_account() {
        let now = Instant::now();
        let breaker = broken(now + SECOND);
        assert_eq!(breaker.ill(now, now + 3 * SECOND), None);
        breaker.well(now);
        assert!(breaker.enter(now + 2 * SECOND).is_err());
    }
}
