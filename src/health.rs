//! Whether a daemon lives and can work, told over HTTP beside its metrics.
//!
//! `/healthz` fails when the main loop has not come round for too long: such a process is restarted. `/readyz` fails while something
//! it needs is away: such a process is left alone, as it comes back by itself. The two are never mixed, or a broker's
//! restart would restart the whole fleet.
//!
//! There is no protection on the port, so it is on this machine alone by default, and it says nothing that is secret: the
//! words of errors name addresses without their passwords.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Interval, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{Failure, say};
use crate::fleet::Fleet;
use crate::lock::lock;
use crate::metrics::{LinkName, Metrics};
use crate::queue;

/// The main loop comes round at least so often, and is stuck when it does not for so long.
const BEAT: Duration = Duration::from_secs(2);
const STUCK: Duration = Duration::from_secs(30);
/// Between two looks at Redis.
const LOOK: Duration = Duration::from_secs(2);
/// What is said of a check before its first result.
const UNKNOWN: &str = "not looked at yet";

/// The names of the checks that [`watch()`] keeps.
pub const PUBLISHES: &str = "broker publishes";
/// See [`PUBLISHES`].
pub const CONSUMES: &str = "broker consumes";
/// See [`PUBLISHES`].
pub const REDIS: &str = "redis";

/// A daemon's state of health. Clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    patience: Duration,
    ticked: Mutex<Instant>,
    checks: Mutex<BTreeMap<&'static str, Result<(), String>>>,
}

impl Health {
    /// A daemon whose main loop comes round at least every `patience`.
    pub fn new(patience: Duration) -> Self {
        let inner = Inner { patience, ticked: Mutex::new(Instant::now()), checks: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The main loop came round.
    pub fn tick(&self) {
        *lock(&self.inner.ticked) = Instant::now();
    }

    /// When the main loop has to come round though nothing happens.
    pub fn beat() -> Interval {
        interval(BEAT)
    }

    /// Waits for what may take long as the main loop waits: coming round.
    pub async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let (mut work, mut beat) = (std::pin::pin!(work), Self::beat());
        loop {
            tokio::select! {
                _ = beat.tick() => self.tick(),
                done = &mut work => return done,
            }
        }
    }

    /// Names what is needed before anything is known of it: not ready until it is [`set`](Self::set).
    pub fn expect(&self, check: &'static str) {
        lock(&self.inner.checks).entry(check).or_insert_with(|| Err(UNKNOWN.to_owned()));
    }

    /// Notes what a check found.
    pub fn set(&self, check: &'static str, found: Result<(), String>) {
        lock(&self.inner.checks).insert(check, found);
    }

    /// Whether the main loop has come round lately; if not, in words.
    pub fn live(&self) -> Result<(), String> {
        let (since, patience) = (lock(&self.inner.ticked).elapsed(), self.inner.patience);
        if since <= patience {
            return Ok(());
        }
        Err(format!(
            "the main loop has not come round for {} s, and should within {} s",
            since.as_secs(),
            patience.as_secs()
        ))
    }

    /// What keeps it from its work; nothing: it is ready.
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        let checks = lock(&self.inner.checks);
        checks.iter().filter_map(|(name, found)| Some((*name, found.as_ref().err()?.clone()))).collect()
    }
}

/// A daemon's counters and its health: watched, served until the fleet is closed, and `name` says where.
///
/// # Errors
/// The address cannot be had.
pub async fn start(fleet: &Fleet, name: &str) -> Result<(Metrics, Health), Failure> {
    let (metrics, health) = (Metrics::new().map_err(Failure::failed)?, Health::new(STUCK));
    watch(fleet, &health, &metrics);
    let listen = fleet.config.telemetry.listen;
    let served = serve(listen, metrics.clone(), health.clone(), fleet.tasks(), fleet.closing()).await;
    if let Some(address) = served.map_err(Failure::setup)? {
        say(&format!("{name}: metrics and health at http://{address}\n"));
    }
    Ok((metrics, health))
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `stop`; returns where, which is nowhere without an address.
///
/// # Errors
/// The address cannot be had.
pub async fn serve(
    listen: Option<SocketAddr>,
    metrics: Metrics,
    health: Health,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Option<SocketAddr>, String> {
    let Some(wanted) = listen else { return Ok(None) };
    let failed = |error| format!("telemetry.listen {wanted}: {error}; take another port, or 0 for a free one");
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let app = Router::new()
        .route("/metrics", get(tell_metrics))
        .route("/healthz", get(tell_life))
        .route("/readyz", get(tell_readiness))
        .with_state((metrics, health));
    tasks.spawn(async move {
        // A reader that is slow must not hold the end of the process up, so nobody's answer is waited for.
        let served = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            served = async { axum::serve(listener, app).await } => served,
        };
        if let Err(error) = served {
            tracing::error!(%error, "metrics and health are served no more");
        }
    });
    Ok(Some(bound))
}

async fn tell_metrics(State((metrics, health)): State<(Metrics, Health)>) -> Response {
    metrics.ready(health.missing().is_empty());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.text()).into_response()
}

async fn tell_life(State((_, health)): State<(Metrics, Health)>) -> Response {
    match health.live() {
        Ok(()) => "ok\n".into_response(),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")).into_response(),
    }
}

async fn tell_readiness(State((metrics, health)): State<(Metrics, Health)>) -> Response {
    let missing = health.missing();
    metrics.ready(missing.is_empty());
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": missing.is_empty(), "missing": missing });
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// Keeps the checks of what every program of a fleet needs: both connections to the broker, and Redis. Ends with the fleet.
///
/// A broker that takes no messages makes a daemon not ready as well: what it did could not be told to anybody.
pub fn watch(fleet: &Fleet, health: &Health, metrics: &Metrics) {
    for check in [PUBLISHES, CONSUMES, REDIS] {
        health.expect(check);
    }
    for (check, name, link) in
        [(PUBLISHES, LinkName::Publishes, &fleet.outgoing), (CONSUMES, LinkName::Consumes, &fleet.incoming)]
    {
        let watched = watch_link(check, name, link.state(), health.clone(), metrics.clone());
        fleet.tasks().spawn(fleet.closing().run_until_cancelled_owned(watched));
    }
    let (redis, health, metrics) = (fleet.redis.clone(), health.clone(), metrics.clone());
    let watched = async move {
        let mut seen = Seen::default();
        loop {
            let found = redis.ping().await.map_err(|error| error.to_string());
            if found.is_err() {
                metrics.redis_failed();
            }
            if seen.comes_back(found.is_ok()) {
                metrics.reconnected(LinkName::Redis);
            }
            health.set(REDIS, found);
            sleep(LOOK).await;
        }
    };
    fleet.tasks().spawn(fleet.closing().run_until_cancelled_owned(watched));
}

async fn watch_link(
    check: &'static str,
    name: LinkName,
    mut state: watch::Receiver<queue::State>,
    health: Health,
    metrics: Metrics,
) {
    let mut seen = Seen::default();
    loop {
        let now = state.borrow_and_update().clone();
        // A blocked connection stands.
        if seen.comes_back(!matches!(now, queue::State::Connecting(_))) {
            metrics.reconnected(name);
        }
        health.set(
            check,
            match now {
                queue::State::Connected => Ok(()),
                queue::State::Connecting(why) => Err(format!("not connected: {why}")),
                queue::State::Blocked(why) => Err(format!("the broker takes no messages: {why}")),
            },
        );
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Tells a return from a first arrival.
#[derive(Debug, Default)]
struct Seen {
    before: bool,
    lost: bool,
}

impl Seen {
    fn comes_back(&mut self, there: bool) -> bool {
        let back = there && self.before && self.lost;
        self.lost = !there && (self.before || self.lost);
        self.before |= there;
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_that_is_expected_was_found() {
        let health = Health::new(Duration::from_mins(1));
        health.expect("a");
        assert_eq!(health.missing(), [("a", UNKNOWN.to_owned())].into());
        health.set("a", Ok(()));
        health.expect("a");
        health.set("b", Err("away".to_owned()));
        assert_eq!(health.missing(), [("b", "away".to_owned())].into());
        health.set("b", Ok(()));
        assert!(health.missing().is_empty());
    }

    #[test]
    fn a_main_loop_that_hangs_is_told() {
        let health = Health::new(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(health.live().unwrap_err().contains("the main loop"));
        let health = Health::new(Duration::from_mins(1));
        health.tick();
        assert_eq!(health.live(), Ok(()));
    }

    #[test]
    fn only_what_was_there_comes_back() {
        let mut seen = Seen::default();
        let heard = [false, true, true, false, false, true, false, true].map(|there| seen.comes_back(there));
        assert_eq!(heard, [false, false, false, false, false, true, false, true]);
    }
}
