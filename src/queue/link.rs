//! One connection that comes back by itself.
//!
//! A supervisor connects, watches and connects again, for ever, with full jitter between 0.2 and 5 s. What uses the link takes a
//! session, which is over for good once anything is wrong with it: channels, confirms and acknowledgements of an old session
//! mean nothing in the next. Nobody waits for the client library alone: each step has a deadline, and the end of the session
//! ends it at once.
//!
//! A connection is lost when the library says so, or when it does not answer: every 5 s something is asked on a channel of its
//! own. Heartbeats notice a silent peer too, but only after 20 s.
//!
//! A blocked connection is not lost: the broker lacks memory or disk and reads nothing from those who publish. What was sent stays
//! pending and deadlines stand still, since sending it again would double it.

mod greet;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::error::{QueueError, QueueErrorKind};

/// One answer of the broker: a declaration, a confirm, a message.
const ANSWER: Duration = Duration::from_secs(10);
/// Errors of earlier channels that may stand in the way of a new one.
const OLD_ERRORS: usize = 64;

/// What a link is in, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not connected, and trying; why, once that is known.
    Connecting(String),
    /// Ready.
    Connected,
    /// Connected, but the broker takes no messages; its reason.
    Blocked(String),
}

/// One connection that comes back by itself. Clones share it.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What the connection is for, in logs and at the broker.
    name: String,
    state: watch::Sender<State>,
    session: watch::Sender<Option<Session>>,
    stop: CancellationToken,
}

/// One connection, from its first answer to its end.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Counts from 1; what belongs to another number is void.
    pub(super) number: u64,
    connection: Arc<Connection>,
    over: CancellationToken,
    state: watch::Receiver<State>,
}

impl Link {
    /// A link that connects as soon as there is a broker. `name` is shown by the broker beside the connection.
    ///
    /// `stop` closes it and fails what waits for it: it comes after the drain of what uses the link.
    pub fn open(address: Address, name: impl Into<String>, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            name: name.into(),
            state: watch::Sender::new(State::Connecting("not yet connected".to_owned())),
            session: watch::Sender::new(None),
            stop,
        });
        tasks.spawn(supervise::run(Arc::clone(&shared), address));
        Self { shared }
    }

    /// The state now, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The stop signal the link was opened with.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// The session that stands, or the next one; waits for it as long as it takes. Fails only when told to stop. Cancel safe.
    pub(super) async fn session(&self) -> Result<Session, QueueError> {
        let mut sessions = self.shared.session.subscribe();
        let next = async {
            loop {
                let standing = sessions.borrow_and_update().clone().filter(|session| !session.over.is_cancelled());
                if let Some(session) = standing {
                    return Some(session);
                }
                sessions.changed().await.ok()?;
            }
        };
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Err(QueueError::stopped()),
            session = next => session.ok_or_else(QueueError::stopped),
        }
    }
}

impl Session {
    /// A new channel. Cancel safe: one that nobody took is closed.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        for _ in 0..OLD_ERRORS {
            match self.answer("opening a channel", self.connection.create_channel()).await {
                // What closed an earlier channel of this number, a queue that was missing then: the library hands it out once
                // more, to whoever opens the number again. Opening names nothing that could be missing.
                Err(error) if error.kind == QueueErrorKind::Topology => {
                    tracing::debug!(%error, "an error of an earlier channel");
                }
                opened => return opened,
            }
        }
        Err(QueueError::unavailable("opening a channel: only errors of earlier ones came back"))
    }

    /// Waits for the broker's answer: until it is there, its deadline passes (which stands still while the broker blocks us), or
    /// the session ends. As cancel safe as `asked`.
    pub(super) async fn answer<T>(
        &self,
        doing: &str,
        asked: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        tokio::select! {
            biased;
            answer = asked => answer.map_err(|error| QueueError::of(doing, &error)),
            () = self.over.cancelled() => Err(QueueError::unavailable(format!("{doing}: the connection was lost"))),
            () = self.patience() => {
                Err(QueueError::unavailable(format!("{doing}: no answer within {} s", ANSWER.as_secs())))
            }
        }
    }

    /// Returns after the session's end. Cancel safe.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// The time an answer may take, counted while the broker listens. Cancel safe.
    async fn patience(&self) {
        let mut state = self.state.clone();
        loop {
            sleep(ANSWER).await;
            if !self.connection.status().blocked() && !is_blocked(&state.borrow()) {
                return;
            }
            if state.wait_for(|state| !is_blocked(state)).await.is_err() {
                return;
            }
        }
    }
}

fn is_blocked(state: &State) -> bool {
    matches!(state, State::Blocked(_))
}
