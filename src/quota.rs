//! How fast an account may be used: the arithmetic, without a clock, I/O or waiting.
//!
//! A caller asks once and is told when to send: an [`Appointment`] that nobody else has. So nobody polls, nobody races,
//! and a limit is used to the full without a refusal. Time is a count of microseconds since the Unix epoch, passed in;
//! every number stays below 2^53, so that a Lua script can do the same.
//!
//! *Bound.* An appointment at `a` reaches the server between `a` and `a + J`, shifted by a constant: `J` is the
//! tolerance (a later one is [missed](Account::missed), given back and never sent) plus the spread of the way there. So
//! what arrives in any stretch `W` was appointed within `W + J`, and a log that never holds more than `N` in `W + J` keeps
//! every window of `W`, sliding or aligned: utilisation `W / (W + J + g)`, with `g` the width of the log's buckets.
//! Providers cut minutes into shorter windows, so requests have a second log: `n = N s / 60` in `s + J`, `s` being
//! [`Limits::spread_seconds`]. A pace beside the logs (GCRA at `N / W`, burst `b` of 1 % of `N` and at least 6) gives at
//! most `b + N (t + J) / W` in any `t`, which is what servers with a small token bucket ask for.
//!
//! *Rejected.* GCRA alone: `N` in `w` needs a rate of `(N - b) / (w + J)`, so every bit of burst costs utilisation, and a
//! slot given back is lost; a log gets it back by subtraction, and the pace is worked out again from the log. Fixed
//! windows: twice the limit passes around their edge. Polling a counter: the fleet races for each slot, and a large
//! request starves. One log entry per request: memory would grow with the rate.

pub mod account;
pub mod clock;
pub mod day;
mod desk;
pub mod gate;
pub mod learn;
pub mod ledger;
pub mod limit;
pub mod margins;
pub mod pace;
mod purse;
#[cfg(test)]
mod random;
pub mod window;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use account::Account;

/// One minute in microseconds.
pub const MINUTE: u64 = 60_000_000;

/// A queue of appointments that ends later than this, in microseconds from now, takes no more. What is given back is used
/// again behind the queue, so a slot lost to a stall costs (delay of the give-back + this) / window of itself: with 480
/// stalls of 2 s an hour in one of 8 workers, 600/min spread over 10 s were used to 96.3 % at 5 s, 97.7 % at 1 s.
pub const HORIZON: u64 = 1_000_000;

/// The longest a caller is told to stay away because of [`Why::Horizon`], in microseconds.
pub const LONGEST_ABSENCE: u64 = MINUTE;

/// What a provider allows one account, which is a provider, a credential and a model. `None`: no such limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests in any 60 seconds.
    pub requests_per_minute: Option<u64>,
    /// Tokens in any 60 seconds, as the provider counts them.
    pub tokens_per_minute: Option<u64>,
    /// Requests from one local midnight to the next.
    pub requests_per_day: Option<u64>,
    /// The time zone whose midnight resets the day's count (Gemini: `America/Los_Angeles`).
    pub day_resets: TimeZone,
    /// The shortest window, in seconds, in which the requests per minute hold in proportion. From 60 on, and when it is
    /// not positive, only the minute counts. Windows under 10 s cost utilisation: 1 s leaves about 92 %.
    pub spread_seconds: f64,
}

impl Limits {
    /// An account that its provider does not limit.
    pub fn none() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            requests_per_day: None,
            day_resets: TimeZone::UTC,
            spread_seconds: 0.0,
        }
    }
}

/// What a refusal for being too fast says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusal {
    /// How long ago the call was sent, in microseconds.
    pub ago: u64,
    /// Tokens reserved for it.
    pub tokens: u64,
    /// What the provider says of the limit that was met.
    pub limit: NamedLimit,
}

/// The limit that a refusal names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamedLimit {
    /// Which one.
    pub of: Scarce,
    /// What it is per minute.
    pub per_minute: Option<u64>,
}

/// A limit that turned out lower than was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Which one.
    pub of: Scarce,
    /// What is used of it per minute from now on.
    pub per_minute: u64,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scarce {
    /// Nobody says.
    #[default]
    Unknown,
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
}

impl Scarce {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// The right to send one request, at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// When to send: microseconds since the Unix epoch, never earlier than this.
    pub at: u64,
    /// Tokens reserved.
    pub tokens: u64,
}

/// Why there is no appointment now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The day's requests are used up, or the provider says so.
    DayQuota,
    /// The day's money.
    DayBudget,
    /// The provider asked for a pause.
    Paused,
    /// The queue of appointments is as long as it may be, or tokens taken beyond what was reserved are not paid for yet.
    Horizon,
}

/// What a caller is told. Only [`Answer::Go`] reserves anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send at the appointment's time, and settle; or give it back.
    Go(Appointment),
    /// Ask again at this time, not before.
    Later {
        /// Microseconds since the Unix epoch.
        at: u64,
        /// What stands in the way.
        why: Why,
    },
    /// It can never be sent under these limits.
    Never {
        /// The limit, its value and the way out.
        why: String,
    },
}
