//! What a daemon says of itself, against servers that go away and come back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aurelia::config::{Config, load};
use aurelia::fleet::Fleet;
use aurelia::health::{self, Health};
use aurelia::metrics::Metrics;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::support::redis::RedisServer;
use super::support::{Broker, Cable};

/// A configuration of a fleet at these servers.
fn config(broker: &str, redis: &str, prefix: &str) -> Config {
    let set = |name: &str, value: &str| (format!("AURELIA__{name}"), value.to_owned());
    let environment = [
        set("QUEUE__URL", broker),
        set("QUEUE__PREFIX", prefix),
        set("SHARED__URL", redis),
        set("SHARED__PREFIX", prefix),
    ];
    load(&[], &environment).unwrap().config
}

/// The program that all tests look at.
struct Daemon {
    fleet: Fleet,
    health: Health,
    address: SocketAddr,
}

impl Daemon {
    async fn start(config: Config, patience: Duration) -> Self {
        let listen = config.telemetry.listen;
        let fleet = Fleet::open(config, "health").unwrap();
        let (metrics, health) = (Metrics::new().unwrap(), Health::new(patience));
        health::watch(&fleet, &health, &metrics);
        let served = health::serve(listen, metrics, health.clone(), fleet.tasks(), fleet.closing()).await;
        let address = served.unwrap().expect("the default is an address of this machine");
        assert!(address.ip().is_loopback(), "{address}");
        Self { fleet, health, address }
    }

    /// Status and body of a page.
    async fn get(&self, page: &str) -> (u16, String) {
        let asked = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {page} HTTP/1.1\r\nhost: daemon\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(PATIENCE, asked).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until it is ready or not, and gives what is missing.
    async fn until_ready(&self, ready: bool) -> Value {
        let began = Instant::now();
        loop {
            let (status, body) = self.get("/readyz").await;
            if (status == 200) == ready {
                assert_eq!(status, if ready { 200 } else { 503 });
                return serde_json::from_str(&body).unwrap();
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for ready: {ready}: {body}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "the broker that may be killed is for one test at a time")]
async fn a_daemon_cut_from_its_broker_is_not_ready_within_15_s_and_ready_again_when_it_is_back() {
    let broker = Broker::own();
    let cable = Cable::to(broker.port()).await;
    let url = format!("amqp://guest:guest@127.0.0.1:{}", cable.port());
    let daemon = Daemon::start(config(&url, &RedisServer::shared(), "health-cut"), PATIENCE).await;
    assert_eq!(daemon.until_ready(true).await["missing"], serde_json::json!({}));
    let cut = Instant::now();
    cable.darken();
    let told = daemon.until_ready(false).await;
    assert!(cut.elapsed() < Duration::from_secs(15), "{:?}", cut.elapsed());
    let missing = told["missing"].as_object().unwrap();
    assert!(missing.keys().all(|check| check.starts_with("broker ")), "{told}");
    // A process whose broker is away is left alone.
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".to_owned()));
    assert!(daemon.get("/metrics").await.1.contains("\naurelia_ready 0\n"));
    cable.mend();
    daemon.until_ready(true).await;
    let metrics = daemon.get("/metrics").await.1;
    assert!(metrics.contains("aurelia_ready 1"), "{metrics}");
    assert!(metrics.contains("aurelia_reconnects_total{link="), "{metrics}");
    daemon.fleet.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_redis_is_not_ready_and_its_password_is_not_told() {
    let mut server = RedisServer::own("everysec");
    let daemon = Daemon::start(config(&Broker::shared(), &server.url(), "health-redis"), PATIENCE).await;
    daemon.until_ready(true).await;
    server.kill();
    let told = daemon.until_ready(false).await;
    assert_eq!(told["missing"].as_object().unwrap().keys().collect::<Vec<_>>(), ["redis"], "{told}");
    assert!(!told.to_string().contains("guest:guest"), "{told}");
    server.start();
    daemon.until_ready(true).await;
    let metrics = daemon.get("/metrics").await.1;
    assert!(metrics.contains("aurelia_reconnects_total{link=\"redis\"} 1"), "{metrics}");
    daemon.fleet.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_loop_that_hangs_fails_its_liveness_until_it_comes_round() {
    let daemon = Daemon::start(config(&Broker::shared(), &RedisServer::shared(), "health-hang"), Duration::ZERO).await;
    let (status, words) = daemon.get("/healthz").await;
    assert_eq!(status, 503);
    assert!(words.contains("the main loop has not come round"), "{words}");
    daemon.fleet.close().await;
    let daemon = Daemon::start(config(&Broker::shared(), &RedisServer::shared(), "health-hang"), PATIENCE).await;
    daemon.health.tick();
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.get("/nothing").await.0, 404);
    daemon.fleet.close().await;
}
