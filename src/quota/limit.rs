//! One limit per minute: what is declared of it, what refusals taught, and what was appointed under it.

use super::learn::{Learned, MOST, Passed};
use super::margins::{burst, short_window, way};
use super::{MINUTE, pace::Pace, window::WindowLog};

/// What passed is not reckoned from less, in microseconds.
const SHORTEST: u64 = 1_000_000;

/// Requests or tokens per minute.
#[derive(Debug, Clone)]
pub struct Limit {
    /// None: nothing is, and it is only measured.
    declared: Option<u64>,
    learned: Learned,
    minute: WindowLog,
    /// The window that spreads it, and what that allows of what is declared.
    short: Option<(WindowLog, u64)>,
    /// What the provider refused of what is logged. It stays logged, since some count what they refuse.
    refused: WindowLog,
    pace: Pace,
    /// Since when it is logged; 0: it is not yet.
    since: u64,
}

impl Limit {
    /// `n` requests per minute, spread over windows of `spread_seconds`.
    pub fn of_requests(n: u64, spread_seconds: f64, tolerance: u64) -> Self {
        let mut limit = Self::new(Some(n), Pace::even(n, burst(n)), tolerance);
        limit.short = short_window(n, spread_seconds)
            .map(|(count, stretch)| (WindowLog::new(count, stretch, tolerance + way(stretch)), count));
        limit
    }

    /// Requests that nobody has declared.
    pub fn unknown(tolerance: u64) -> Self {
        Self::new(None, Pace::unknown(), tolerance)
    }

    /// `n` tokens per minute.
    pub fn of_tokens(n: u64, tolerance: u64) -> Self {
        Self::new(Some(n), Pace::loose(n), tolerance)
    }

    fn new(declared: Option<u64>, pace: Pace, tolerance: u64) -> Self {
        let log = || WindowLog::new(0, MINUTE, tolerance + way(MINUTE));
        let (minute, refused, learned) = (log(), log(), Learned::new(declared));
        let mut limit = Self { declared, learned, minute, short: None, refused, pace, since: 0 };
        limit.apply();
        limit
    }

    /// Takes over what was learned.
    fn apply(&mut self) {
        let n = self.learned.per_minute().or(self.declared).unwrap_or(MOST);
        self.minute.set_limit(n);
        self.pace.set_rate(n);
        if let (Some((short, count)), Some(declared)) = (&mut self.short, self.declared) {
            let part = u128::from(*count) * u128::from(n) / u128::from(declared.max(1));
            // Of fewer, rounding would take too much; the minute holds them.
            short.set_limit(u64::try_from(part).unwrap_or(u64::MAX).max(12).min(*count));
        }
    }

    /// What it allows per minute at present.
    pub fn per_minute(&self) -> u64 {
        self.minute.limit()
    }

    /// How long an entry may matter, in microseconds.
    pub fn reach(&self) -> u64 {
        self.minute.reach()
    }

    /// Limit, reach, width and buckets of the minute's log and of the short one (0: none), and the pace's rate, period and slack.
    #[cfg(feature = "fleet")]
    pub(super) fn parameters(&self) -> ([u64; 4], [u64; 4], [u64; 3]) {
        let short = self.short.as_ref().map_or([0; 4], |(short, _)| short.parameters());
        (self.minute.parameters(), short, self.pace.parameters())
    }

    /// The earliest time from `from` on at which `amount` fits.
    pub fn earliest(&self, from: u64, amount: u64) -> u64 {
        let at = self.minute.earliest(self.pace.earliest(from), amount);
        self.short.as_ref().map_or(at, |(short, _)| short.earliest(at, amount))
    }

    /// When everything taken so far is paid for, but for what may be taken in advance; not before `now`.
    pub fn paid(&self, now: u64) -> u64 {
        self.pace.earliest(now)
    }

    /// Takes `amount` at `at`.
    pub fn take(&mut self, at: u64, amount: u64) {
        self.log(at, amount);
        self.pace.take(at, amount);
    }

    /// Counts `amount` at `at`: no more of it than is declared, since no provider can have allowed more.
    pub fn log(&mut self, at: u64, amount: u64) {
        let amount = amount.min(self.declared.unwrap_or(u64::MAX));
        self.since = if self.since == 0 { at } else { self.since };
        self.learned.called(at);
        self.minute.add(at, amount);
        if let Some((short, _)) = &mut self.short {
            short.add(at, amount);
        }
    }

    /// What is logged is all there is to go by; `newest` is its latest time.
    pub fn restore(&mut self, newest: u64) {
        self.pace.restore(tightest(&self.minute, self.short.as_ref()), newest);
    }

    /// Takes `amount` of `at` back; `newest` is the latest time logged.
    pub fn give_back(&mut self, at: u64, amount: u64, newest: u64) {
        self.minute.remove(at, amount);
        if let Some((short, _)) = &mut self.short {
            short.remove(at, amount);
        }
        self.pace.recover(tightest(&self.minute, self.short.as_ref()), newest);
    }

    /// What was `reserved` at `at` turned out as `actual`.
    pub fn settle(&mut self, at: u64, reserved: u64, actual: u64) {
        let actual = actual.min(self.declared.unwrap_or(u64::MAX));
        self.minute.remove(at, reserved.saturating_sub(actual));
        self.minute.add(at, actual.saturating_sub(reserved));
        self.pace.correct(reserved, actual);
    }

    /// A refusal, at `now`, of `amount` sent at `sent`; `told`: the limit that the provider names. What
    /// is allowed per minute from now on, where that cuts it.
    pub fn refused(&mut self, now: u64, sent: u64, amount: u64, told: Option<u64>) -> Option<u64> {
        self.refused.add(sent, amount.min(self.declared.unwrap_or(u64::MAX)));
        let from = sent.saturating_sub(MINUTE);
        let passed = self.minute.within(from, sent).saturating_sub(self.refused.within(from, sent));
        // What passes is less than what is allowed, by what the logs keep back.
        let log = tightest(&self.minute, self.short.as_ref());
        let passed = Passed {
            per_minute: log.allowing(to_minute(passed, self.since, sent)),
            whole: sent >= self.since + MINUTE,
        };
        self.learned.refused(now, sent, passed, told).then(|| {
            self.apply();
            self.per_minute()
        })
    }

    /// Raises what was cut, where it is time to.
    pub fn raise(&mut self, now: u64) {
        let (minute, since) = (&self.minute, self.since);
        if self.learned.raise(now, || used(minute, since, now)) {
            self.apply();
        }
    }

    /// Thousandths of what it allows that are in use.
    pub fn fill(&self, now: u64) -> u64 {
        used(&self.minute, self.since, now).saturating_mul(1_000) / self.per_minute().max(1)
    }
}

/// The log with the shorter window.
fn tightest<'a>(minute: &'a WindowLog, short: Option<&'a (WindowLog, u64)>) -> &'a WindowLog {
    short.map_or(minute, |(short, _)| short)
}

/// What is in use per minute at `now`, of a log that began at `since`.
fn used(minute: &WindowLog, since: u64, now: u64) -> u64 {
    to_minute(minute.within(now.saturating_sub(MINUTE), u64::MAX), since, now)
}

/// So much of the last minute before `now`, or of what there is of it since `since`, per minute.
fn to_minute(amount: u64, since: u64, now: u64) -> u64 {
    amount.saturating_mul(MINUTE) / now.saturating_sub(since).clamp(SHORTEST, MINUTE)
}
