//! The gate's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Microseconds since the epoch, set once and then running evenly: a clock that steps would bend the windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    epoch: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), epoch: now() }
    }

    pub(super) fn now(&self) -> u64 {
        self.epoch.saturating_add(micros(self.started.elapsed()))
    }

    pub(super) fn instant(&self, at: u64) -> Instant {
        self.started + Duration::from_micros(at.saturating_sub(self.epoch))
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2)
}

/// For people.
pub(super) fn timestamp(micros: u64) -> jiff::Timestamp {
    i64::try_from(micros).ok().and_then(|m| jiff::Timestamp::from_microsecond(m).ok()).unwrap_or(jiff::Timestamp::MAX)
}

/// The time by the machine's clock, in microseconds since the Unix epoch.
pub fn now() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
