//! The servers of the integration tests, for benches that need them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the harness is that of the integration tests")]

#[path = "../tests/it/support/broker.rs"]
pub(crate) mod broker;
#[path = "../tests/it/support/redis.rs"]
pub(crate) mod redis;

use std::time::{Duration, Instant};

/// Looks again and again until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
