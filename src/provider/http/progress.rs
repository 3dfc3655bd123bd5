//! How far a request has got: a body that tells when its first and its last piece are handed to the connection.
//!
//! The connection asks for the body's first piece when it stands and the head is written, which is when the wait for the first byte
//! begins; and a request whose last piece was never asked for has not left whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::provider::Billed;
use crate::provider::body::Body;

/// Shared between a call and its body on the connection.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    begun: OnceLock<Instant>,
    whole: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// When the body's first piece was asked for.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.0.begun.get().copied()
    }

    /// What a failure without an answer may have cost.
    pub(super) fn billed(&self) -> Billed {
        if self.0.whole.load(Ordering::Acquire) { Billed::Unknown } else { Billed::No }
    }

    /// Ends `limit` after the body's first piece was asked for; never before. Cancel safe.
    pub(super) async fn overdue(&self, limit: Duration) {
        loop {
            match self.begun() {
                // It begins after now, so nothing can be overdue before a whole limit from now.
                None => tokio::time::sleep(limit).await,
                Some(begun) => return tokio::time::sleep_until(begun + limit).await,
            }
        }
    }
}

/// A body that reports to a [`Progress`].
#[derive(Debug)]
pub(super) struct Watched {
    body: Body,
    progress: Progress,
}

impl Watched {
    pub(super) fn new(body: Body, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let _begun = self.progress.0.begun.get_or_init(Instant::now);
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream() {
            self.progress.0.whole.store(true, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_is_waited_for_from_when_sending_begins() {
        let progress = Progress::new();
        let start = Instant::now();
        let mut body = Watched::new(Body::new(vec![Bytes::from_static(b"x")]), progress.clone());
        let connecting = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        };
        let ((), frame) = tokio::join!(progress.overdue(Duration::from_secs(1)), connecting);
        assert!(frame.is_some());
        assert_eq!(start.elapsed(), Duration::from_millis(1700));
    }

    #[test]
    fn a_body_that_has_not_left_whole_cannot_be_billed() {
        let progress = Progress::new();
        let mut body =
            Watched::new(Body::new(vec![Bytes::from_static(b"x"), Bytes::from_static(b"y")]), progress.clone());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!(progress.billed(), Billed::No);
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!(progress.billed(), Billed::Unknown);
    }
}
