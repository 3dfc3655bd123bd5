//! The supervisor of a link: connects, watches, and connects again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connect as _, Connection, ConnectionProperties, Event, ExchangeKind};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::greet::Silence;
use super::{Session, Shared, State, is_blocked};
use crate::queue::address::Address;
use crate::queue::error::QueueError;
use crate::retry::jitter;

/// From dialling until the broker has let us in. The library has no deadline of its own here.
const CONNECT: Duration = Duration::from_secs(10);
/// Saying good-bye.
const CLOSE: Duration = Duration::from_secs(2);
/// Between two probes, and for the answer to one.
const PROBE: Duration = Duration::from_secs(5);
/// The first and the longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// An exchange that every broker has; asking for it needs no rights.
const PROBED: &str = "amq.direct";

/// Connects again and again until told to stop.
pub(super) async fn run(shared: Arc<Shared>, address: Address) {
    let stop = shared.stop.clone();
    let (mut number, mut failures) = (0, 0);
    let mut silence = Silence::default();
    loop {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            connected = connect(&address, &shared.name, &mut silence) => connected,
        };
        match connected {
            Ok(connection) => {
                (number, failures) = (number + 1, 0);
                keep(&shared, &address, connection, number).await;
            }
            Err(error) => shared.not_connected(&address, &error.message),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(backoff(failures, jitter())) => failures += 1,
        }
    }
}

/// The wait before another attempt: all of it is random, so that a fleet does not come back at one moment.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let ceiling = BACKOFF.0.saturating_mul(1 << failures.min(10)).min(BACKOFF.1);
    ceiling.mul_f64(jitter)
}

/// One attempt. Cancel safe: dropped half-way, it is given up.
async fn connect(address: &Address, name: &str, silence: &mut Silence) -> Result<Connection, QueueError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let doing = format!("connecting to {address}");
    silence.may_try(address).await.map_err(|why| QueueError::unavailable(format!("{doing}: {why}")))?;
    if let Ok(connected) = timeout(CONNECT, address.uri().connect(properties)).await {
        silence.broken();
        return connected.map_err(|error| QueueError::of(&doing, &error));
    }
    silence.noticed();
    Err(QueueError::unavailable(format!("{doing}: no answer within {} s", CONNECT.as_secs())))
}

/// Hands the connection out as a session until it is lost or told to stop.
async fn keep(shared: &Shared, address: &Address, connection: Connection, number: u64) {
    let connection = Arc::new(connection);
    // Before anything is published: what is said while nobody listens is not said again.
    let events = connection.events_listener();
    let session = Session {
        number,
        connection: Arc::clone(&connection),
        over: CancellationToken::new(),
        state: shared.state.subscribe(),
    };
    tracing::info!(link = shared.name, broker = %address, "connected");
    shared.state.send_replace(State::Connected);
    shared.session.send_replace(Some(session.clone()));
    let lost = tokio::select! {
        biased;
        () = shared.stop.cancelled() => None,
        lost = watch_over(shared, &connection, events) => Some(lost),
    };
    shared.session.send_replace(None);
    session.over.cancel();
    match lost {
        Some(lost) => shared.not_connected(address, &lost),
        None => {
            shared.state.send_replace(State::Connecting("stopped".to_owned()));
        }
    }
    // A lost connection is closed in vain; its socket goes with its last user.
    drop(timeout(CLOSE, connection.close(200, "bye".into())).await);
}

impl Shared {
    /// Notes why there is no connection, and says it once, not at every attempt.
    fn not_connected(&self, address: &Address, why: &str) {
        let next = State::Connecting(why.to_owned());
        if *self.state.borrow() != next {
            tracing::warn!(link = self.name, broker = %address, why, "not connected; trying again");
        }
        self.state.send_replace(next);
    }

    /// Takes note of an event; returns why the connection is lost, if it is.
    fn heard(&self, event: Event, connection: &Connection) -> Option<String> {
        match event {
            // Also said of a single channel, whose user has been told.
            Event::Error(_) if connection.status().connected() => {}
            Event::Error(error) => return Some(error.to_string()),
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(link = self.name, reason, "the broker takes no messages");
                self.state.send_replace(State::Blocked(reason));
            }
            Event::ConnectionUnblocked => {
                tracing::info!(link = self.name, "the broker takes messages again");
                self.state.send_replace(State::Connected);
            }
            _ => {}
        }
        None
    }
}

/// Returns why the connection is of no more use. Cancel safe: it holds nothing but its own channel.
async fn watch_over(shared: &Shared, connection: &Connection, events: impl Stream<Item = Event>) -> String {
    let mut events = pin!(events);
    let mut channel = None;
    loop {
        let blocked = is_blocked(&shared.state.borrow());
        tokio::select! {
            biased;
            event = events.next() => match event.map(|event| shared.heard(event, connection)) {
                Some(None) => {}
                Some(Some(lost)) => return lost,
                None => return "the connection ended".to_owned(),
            },
            // A blocked connection answers nothing; the broker's own end of it is noticed by its heartbeats.
            probed = probe(connection, &mut channel), if !blocked => if let Err(silent) = probed
                && !connection.status().blocked()
            {
                return silent;
            },
        }
    }
}

/// After a while, asks for something that is always there. Any answer will do. Dropped half-way, it is begun again.
async fn probe(connection: &Connection, channel: &mut Option<Channel>) -> Result<(), String> {
    sleep(PROBE).await;
    let asked = async {
        let open = match channel.take() {
            Some(open) => open,
            None => connection.create_channel().await?,
        };
        let options = ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
        open.exchange_declare(PROBED.into(), ExchangeKind::Direct, options, FieldTable::default()).await?;
        *channel = Some(open);
        Ok::<(), lapin::Error>(())
    };
    match timeout(PROBE, asked).await {
        Ok(Err(error)) if !error.is_amqp_soft_error() => Err(error.to_string()),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("no answer to a probe within {} s", PROBE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_maximum_and_is_all_random() {
        let most: Vec<u128> = (0..7).map(|failures| backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(most, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX, 0.5), Duration::from_millis(2500));
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }
}
