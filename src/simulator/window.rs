//! Sliding-window quotas, exact to the microsecond.
//!
//! The window holds every admitted request with its time; nothing is bucketed, since the client under test is judged by
//! these numbers and a bucket's edge would blame or excuse it wrongly. Pure: the caller brings the clock.

use std::collections::{HashMap, VecDeque};

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::settings::Limit;

/// Which of a limit's two counts was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Requests,
    Tokens,
}

/// A refusal: what stands in the way, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) limit: Limit,
    pub(crate) counted: Counted,
    pub(crate) used: u64,
    pub(crate) asked: u64,
    /// Microseconds until it fits; `None`: larger than the whole window, it never will.
    pub(crate) wait_us: Option<u64>,
}

/// How much room a limit has: for the headers that tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Microseconds until the window is empty.
    pub(crate) full_in_us: u64,
}

/// How a limit was used by one key on one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitUse {
    /// The limit.
    pub limit: Limit,
    /// Fingerprint of the key.
    pub key: String,
    /// Model name.
    pub model: String,
    /// Requests admitted.
    pub admitted: u64,
    /// Tokens admitted.
    pub tokens: u64,
    /// Requests refused.
    pub refused: u64,
    /// First admission, microseconds since the start.
    pub first_us: u64,
    /// Last admission, microseconds since the start.
    pub last_us: u64,
    /// Most requests that stood in one window.
    pub peak_requests: u64,
    /// Most tokens that stood in one window.
    pub peak_tokens: u64,
    /// Admitted over what the limit allows in the time from first to last, the greater of requests and tokens; absent
    /// before one whole window has gone by.
    pub utilisation: Option<f64>,
}

struct Window {
    entries: VecDeque<(u64, u64)>,
    tokens: u64,
    usage: LimitUse,
}

/// All windows of a set of limits.
pub(crate) struct Windows {
    limits: Vec<(Limit, GlobMatcher)>,
    open: HashMap<(usize, String, String), Window>,
}

impl Windows {
    /// Limits whose glob is broken are left out; settings are checked before.
    pub(crate) fn new(limits: &[Limit]) -> Self {
        let compiled =
            limits.iter().filter_map(|limit| Some((limit.clone(), Glob::new(&limit.model).ok()?.compile_matcher())));
        Self { limits: compiled.collect(), open: HashMap::new() }
    }

    /// Admits a request into every window it falls under, or into none.
    pub(crate) fn admit(&mut self, now_us: u64, key: &str, model: &str, tokens: u64) -> Result<(), Box<Denied>> {
        let matching: Vec<usize> = (0..self.limits.len()).filter(|&at| self.limits[at].1.is_match(model)).collect();
        let mut worst: Option<Box<Denied>> = None;
        for &at in &matching {
            let window = self.window(at, key, model);
            window.expire(now_us);
            if let Some(denied) = window.deny(now_us, tokens) {
                let longer = |old: &Denied| old.wait_us.unwrap_or(u64::MAX) < denied.wait_us.unwrap_or(u64::MAX);
                if worst.as_deref().is_none_or(longer) {
                    worst = Some(Box::new(denied));
                }
                window.usage.refused += 1;
            }
        }
        if let Some(denied) = worst {
            return Err(denied);
        }
        for &at in &matching {
            self.window(at, key, model).push(now_us, tokens);
        }
        Ok(())
    }

    /// Room left for requests and for tokens, by the tightest windows shorter than a day.
    pub(crate) fn room(&self, now_us: u64, key: &str, model: &str) -> (Option<Room>, Option<Room>) {
        let mine = self.open.iter().filter(|((_, k, m), _)| k == key && m == model).map(|(_, window)| window);
        let (mut requests, mut tokens): (Option<Room>, Option<Room>) = (None, None);
        for window in mine {
            let limit = &window.usage.limit;
            let last = window.entries.back().map_or(0, |&(at, _)| at + limit.window_ms * 1_000);
            let room = |limit: u64, used: u64| Room {
                limit,
                remaining: limit.saturating_sub(used),
                full_in_us: last.saturating_sub(now_us),
            };
            let tighter = |old: Option<Room>, new: Room| match old {
                Some(old) if old.remaining <= new.remaining => Some(old),
                _ => Some(new),
            };
            if let Some(most) = limit.requests {
                requests = tighter(requests, room(most, window.entries.len() as u64));
            }
            if let Some(most) = limit.tokens {
                tokens = tighter(tokens, room(most, window.tokens));
            }
        }
        (requests, tokens)
    }

    /// How each window was used.
    pub(crate) fn usage(&self) -> Vec<LimitUse> {
        let mut all: Vec<LimitUse> = self.open.values().map(Window::report).collect();
        all.sort_by(|a, b| (&a.model, &a.key, a.limit.window_ms).cmp(&(&b.model, &b.key, b.limit.window_ms)));
        all
    }

    fn window(&mut self, at: usize, key: &str, model: &str) -> &mut Window {
        let limit = &self.limits[at].0;
        self.open.entry((at, key.to_owned(), model.to_owned())).or_insert_with(|| Window {
            entries: VecDeque::new(),
            tokens: 0,
            usage: LimitUse {
                limit: limit.clone(),
                key: key.to_owned(),
                model: model.to_owned(),
                admitted: 0,
                tokens: 0,
                refused: 0,
                first_us: 0,
                last_us: 0,
                peak_requests: 0,
                peak_tokens: 0,
                utilisation: None,
            },
        })
    }
}

impl Window {
    fn length_us(&self) -> u64 {
        self.usage.limit.window_ms.saturating_mul(1_000)
    }

    fn expire(&mut self, now_us: u64) {
        let length = self.length_us();
        while let Some(&(at, tokens)) = self.entries.front() {
            if at + length > now_us {
                break;
            }
            self.entries.pop_front();
            self.tokens -= tokens;
        }
    }

    fn deny(&self, now_us: u64, tokens: u64) -> Option<Denied> {
        let denied =
            |counted, used, asked, wait_us| Denied { limit: self.usage.limit.clone(), counted, used, asked, wait_us };
        let until = |at: u64| Some((at + self.length_us()).saturating_sub(now_us));
        let standing = self.entries.len() as u64;
        if let Some(most) = self.usage.limit.tokens {
            if tokens > most {
                return Some(denied(Counted::Tokens, self.tokens, tokens, None));
            }
            if self.tokens + tokens > most {
                let mut excess = self.tokens + tokens - most;
                let freed = self.entries.iter().find(|(_, held)| {
                    excess = excess.saturating_sub(*held);
                    excess == 0
                });
                return Some(denied(Counted::Tokens, self.tokens, tokens, freed.and_then(|&(at, _)| until(at))));
            }
        }
        let most = self.usage.limit.requests?;
        let first = self.entries.front().filter(|_| standing >= most)?;
        Some(denied(Counted::Requests, standing, 1, until(first.0)))
    }

    fn push(&mut self, now_us: u64, tokens: u64) {
        self.entries.push_back((now_us, tokens));
        self.tokens += tokens;
        let usage = &mut self.usage;
        if usage.admitted == 0 {
            usage.first_us = now_us;
        }
        usage.last_us = now_us;
        usage.admitted += 1;
        usage.tokens += tokens;
        usage.peak_requests = usage.peak_requests.max(self.entries.len() as u64);
        usage.peak_tokens = usage.peak_tokens.max(self.tokens);
    }

    fn report(&self) -> LimitUse {
        let usage = &self.usage;
        let elapsed = usage.last_us - usage.first_us;
        #[expect(clippy::cast_precision_loss, reason = "a share to show, not to count with")]
        let share = |used: u64, most: Option<u64>| {
            most.map(|most| used as f64 / (most as f64 * elapsed as f64 / self.length_us() as f64))
        };
        let utilisation = (elapsed >= self.length_us()).then(|| {
            let requests = share(usage.admitted, usage.limit.requests);
            let tokens = share(usage.tokens, usage.limit.tokens);
            requests.into_iter().chain(tokens).fold(0.0, f64::max)
        });
        LimitUse { utilisation, ..usage.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(requests: Option<u64>, tokens: Option<u64>, window_ms: u64) -> Windows {
        Windows::new(&[Limit { model: "gemini-*".into(), requests, tokens, window_ms, bare: false }])
    }

    #[test]
    fn the_window_slides_and_has_no_edges() {
        let mut w = windows(Some(2), None, 10_000);
        assert!(w.admit(0, "k", "gemini-x", 1).is_ok());
        assert!(w.admit(9_000_000, "k", "gemini-x", 1).is_ok());
        let denied = w.admit(9_999_999, "k", "gemini-x", 1).unwrap_err();
        assert_eq!((denied.counted, denied.wait_us), (Counted::Requests, Some(1)));
        assert!(w.admit(10_000_000, "k", "gemini-x", 1).is_ok());
        assert_eq!(w.admit(10_000_001, "k", "gemini-x", 1).unwrap_err().wait_us, Some(8_999_999));
    }

    #[test]
    fn keys_and_models_have_windows_of_their_own() {
        let mut w = windows(Some(1), None, 1_000);
        assert!(w.admit(0, "a", "gemini-x", 1).is_ok());
        assert!(w.admit(0, "b", "gemini-x", 1).is_ok());
        assert!(w.admit(0, "a", "gemini-y", 1).is_ok());
        assert!(w.admit(0, "a", "gpt-4o", 1).is_ok() && w.admit(0, "a", "gpt-4o", 1).is_ok());
        assert!(w.admit(0, "a", "gemini-x", 1).is_err());
    }

    #[test]
    fn tokens_wait_until_enough_of_them_have_left() {
        let mut w = windows(None, Some(100), 1_000);
        for (at, tokens) in [(0, 30), (100_000, 30), (200_000, 40)] {
            assert!(w.admit(at, "k", "gemini-x", tokens).is_ok());
        }
        assert_eq!(w.admit(300_000, "k", "gemini-x", 50).unwrap_err().wait_us, Some(800_000));
        assert_eq!(w.admit(300_000, "k", "gemini-x", 101).unwrap_err().wait_us, None);
    }

    #[test]
    fn a_refusal_by_one_limit_takes_nothing_from_another() {
        let limit = |requests, window_ms| Limit {
            model: "*".into(),
            requests: Some(requests),
            tokens: None,
            window_ms,
            bare: false,
        };
        let mut w = Windows::new(&[limit(2, 1_000), limit(1, 100)]);
        assert!(w.admit(0, "k", "m", 1).is_ok());
        for now in 1..50 {
            assert!(w.admit(now, "k", "m", 1).is_err());
        }
        assert!(w.admit(100_000, "k", "m", 1).is_ok(), "the 49 refused ones are in no window");
    }

    #[test]
    fn use_is_reported_as_a_share_of_the_limit() {
        let mut w = windows(Some(10), None, 1_000);
        for n in 0..=20 {
            assert!(w.admit(n * 100_000, "k", "gemini-x", 1).is_ok());
        }
        let usage = &w.usage()[0];
        assert_eq!((usage.admitted, usage.peak_requests, usage.refused), (21, 10, 0));
        assert!((usage.utilisation.unwrap() - 1.05).abs() < 1e-9);
    }
}
