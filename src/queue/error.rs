//! What can go wrong, by whose fault it is; the client library's errors are translated here and nowhere else.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// Why the queue did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueueError {
    /// Whose fault it is, and so what to do.
    pub kind: QueueErrorKind,
    /// What happened, with the broker's own words where it had any.
    pub message: String,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueErrorKind {
    /// The broker is away, silent or was lost on the way: later.
    Unavailable,
    /// A queue or exchange is missing or is other than described: an operator has to act.
    Topology,
    /// The broker did not take the message (a full queue, a fault inside it): later.
    Refused,
    /// The user may not do this.
    Denied,
    /// What was asked cannot be sent to any broker.
    Invalid,
    /// The process ends.
    Stopped,
}

impl QueueError {
    pub(super) fn new(kind: QueueErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn stopped() -> Self {
        Self::new(QueueErrorKind::Stopped, "the queue was told to stop")
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(QueueErrorKind::Unavailable, message)
    }

    /// Translates an error of the client library; `doing` says what was asked, for example "declaring queue x".
    pub(super) fn of(doing: &str, error: &lapin::Error) -> Self {
        let message = format!("{doing}: {error}");
        Self { kind: kind(error), message }
    }
}

fn kind(error: &lapin::Error) -> QueueErrorKind {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return QueueErrorKind::Unavailable;
    };
    match error.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
            QueueErrorKind::Denied
        }
        AMQPErrorKind::Soft(_) => QueueErrorKind::Topology,
        AMQPErrorKind::Hard(_) => QueueErrorKind::Unavailable,
    }
}
