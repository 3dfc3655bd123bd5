//! Servers that are down, and how long their sources wait for them.
//!
//! An outage belongs to a host, not to a source: it begins with the first fetch that used up its attempts and ends with an
//! answer. All sources of a host wait for the same end, so an outage costs a run its patience once, however many sources
//! there are; what is fetched after that gets one attempt, which is enough to see that the host is back. Nothing is held
//! through a wait, neither a place among the downloads nor a lock, so that other hosts and other processes go on. Rejected:
//! to fail at once (a server that starts anew takes minutes, and a corpus would be through in less), and a patience per
//! source (a corpus on a server that is gone would take years).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// An outage is forgotten when nobody has asked for so long.
const REMEMBERED: Duration = Duration::from_mins(1);

/// The hosts that are down.
#[derive(Debug)]
pub(super) struct Outages {
    /// How long an outage is waited for.
    patience: Duration,
    /// Longest wait between two fetches.
    longest: Duration,
    hosts: Mutex<HashMap<String, Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// Until when it is remembered.
    until: Instant,
}

impl Outages {
    pub(super) fn new(patience: Duration, longest: Duration) -> Self {
        Self { patience, longest, hosts: Mutex::default() }
    }

    /// Whether a host is known to be down: one attempt tells whether it still is.
    pub(super) fn is_down(&self, host: &str, now: Instant) -> bool {
        self.hosts().get(host).is_some_and(|outage| now < outage.until)
    }

    /// The host answers.
    pub(super) fn end(&self, host: &str) {
        self.hosts().remove(host);
    }

    /// A fetch failed: how long to wait before the next one, as long as the server's `hint` says if the patience lasts; none when
    /// the host was waited for long enough. `jitter`: 0 to 1.
    pub(super) fn pause(&self, host: &str, hint: Option<Duration>, jitter: f64, now: Instant) -> Option<Duration> {
        let mut hosts = self.hosts();
        hosts.retain(|_, outage| now < outage.until);
        let outage = hosts.entry(host.to_owned()).or_insert_with(|| {
            if !self.patience.is_zero() {
                tracing::warn!(host, "a source server is down; its sources wait for it (store.outage_seconds)");
            }
            Outage { since: now, until: now }
        });
        let left = self.patience.saturating_sub(now.duration_since(outage.since));
        let own = self.longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        // The last fetch comes when the patience ends, also where the server would have it later: to give up at once would use
        // up all its sources while it is away.
        let pause = (!left.is_zero()).then_some(own.max(hint.unwrap_or_default()).min(left));
        outage.until = now + pause.unwrap_or_default() + REMEMBERED;
        pause
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, HashMap<String, Outage>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_is_waited_for_until_its_patience_ends_and_then_gets_one_attempt() {
        let (outages, began) = (Outages::new(SECOND * 100, SECOND * 30), Instant::now());
        let pause = |after: u32, hint| outages.pause("a", hint, 1.0, began + SECOND * after);
        assert!(!outages.is_down("a", began));
        assert_eq!(pause(0, None), Some(SECOND * 30));
        assert!(outages.is_down("a", began) && !outages.is_down("b", began));
        assert_eq!(pause(30, Some(SECOND * 50)), Some(SECOND * 50), "the server knows better");
        assert_eq!(pause(80, Some(SECOND * 21)), Some(SECOND * 20), "but is not waited for longer");
        assert_eq!(pause(80, None), Some(SECOND * 20), "a last one at the end");
        assert_eq!(pause(100, None), None);
        assert_eq!(pause(150, None), None, "the next source does not begin another wait");
        assert!(outages.is_down("a", began + SECOND * 200));
        assert_eq!(pause(211, None), Some(SECOND * 30), "forgotten: an outage of its own");
    }

    #[test]
    fn an_answer_ends_an_outage_and_no_patience_means_no_wait() {
        let (outages, now) = (Outages::new(SECOND, SECOND * 30), Instant::now());
        assert_eq!(outages.pause("a", None, 0.0, now), Some(SECOND));
        outages.end("a");
        assert!(!outages.is_down("a", now));
        assert_eq!(outages.pause("a", None, 0.0, now + SECOND), Some(SECOND));
        let none = Outages::new(Duration::ZERO, SECOND);
        assert_eq!(none.pause("a", None, 1.0, now), None);
        assert!(none.is_down("a", now));
    }
}
