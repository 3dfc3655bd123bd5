//! How far a request has got: a body that tells when its pieces are handed to the connection.
//!
//! The connection asks for the body's first piece when it stands and the head is written, which is when a call's wait for the
//! first byte begins ([`Progress::overdue`]); a request whose last piece was never asked for has not left whole, so it cannot
//! be billed. An upload is watched by the same body and judged otherwise ([`Progress::stalled`]): two gigabytes on a slow line
//! take longer than any reply may, so a body that moves is never late.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::provider::Billed;
use crate::provider::body::Body;

/// Shared between a request and its body on the connection.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Progress(Arc<State>);

#[derive(Debug)]
struct State {
    made: Instant,
    begun: OnceLock<Instant>,
    /// When a piece was last asked for, in milliseconds from when this was made.
    moved_ms: AtomicU64,
    whole: AtomicBool,
}

impl Progress {
    pub(in crate::provider) fn new() -> Self {
        let state = State {
            made: Instant::now(),
            begun: OnceLock::new(),
            moved_ms: AtomicU64::new(0),
            whole: AtomicBool::new(false),
        };
        Self(Arc::new(state))
    }

    /// When the body's first piece was asked for.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.0.begun.get().copied()
    }

    /// Whether the last piece was handed over.
    pub(in crate::provider) fn is_whole(&self) -> bool {
        self.0.whole.load(Ordering::Acquire)
    }

    /// What a failure without an answer may have cost.
    pub(super) fn billed(&self) -> Billed {
        if self.is_whole() { Billed::Unknown } else { Billed::No }
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

    /// Ends once nothing moved for `idle`, or for `answer` since the last piece left. Cancel safe.
    pub(in crate::provider) async fn stalled(&self, idle: Duration, answer: Duration) {
        loop {
            let limit = if self.is_whole() { answer } else { idle };
            let at = self.0.made + Duration::from_millis(self.0.moved_ms.load(Ordering::Acquire)) + limit;
            if at <= Instant::now() {
                return;
            }
            // A body that became whole meanwhile has another limit, so it is looked at anew.
            tokio::time::sleep_until(at).await;
        }
    }

    fn step(&self, whole: bool) {
        let now = Instant::now();
        let _begun = self.0.begun.get_or_init(|| now);
        let ms = u64::try_from(now.duration_since(self.0.made).as_millis()).unwrap_or(u64::MAX);
        self.0.moved_ms.store(ms, Ordering::Release);
        if whole {
            self.0.whole.store(true, Ordering::Release);
        }
    }
}

/// A body that reports to a [`Progress`].
#[derive(Debug)]
pub(in crate::provider) struct Watched {
    body: Body,
    progress: Progress,
    /// Bytes handed over, of this and other bodies.
    sent: Option<Arc<AtomicU64>>,
}

impl Watched {
    pub(in crate::provider) fn new(body: Body, progress: Progress) -> Self {
        // Nobody asks for the pieces of an empty body.
        if body.is_empty() {
            progress.0.whole.store(true, Ordering::Release);
        }
        Self { body, progress, sent: None }
    }

    /// The same, its bytes counted as they are handed over.
    pub(in crate::provider) fn counted(self, sent: Arc<AtomicU64>) -> Self {
        Self { sent: Some(sent), ..self }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(sent), Poll::Ready(Some(Ok(frame)))) = (&self.sent, &frame) {
            sent.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
        }
        self.progress.step(self.body.is_end_stream());
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

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_is_never_late_and_one_that_stops_is() {
        let (second, progress) = (Duration::from_secs(1), Progress::new());
        let begun = Instant::now();
        let moving = async {
            for step in 0..100 {
                tokio::time::sleep(second).await;
                progress.step(step == 99);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = moving => {}
            () = progress.stalled(second * 2, second * 30) => {}
        }
        assert!(progress.is_whole());
        assert_eq!(begun.elapsed(), second * 130);
    }

    #[test]
    fn bytes_are_counted_as_they_are_handed_over_and_an_empty_body_is_whole_at_once() {
        let (sent, progress) = (Arc::new(AtomicU64::new(0)), Progress::new());
        let pieces = vec![Bytes::from_static(b"one"), Bytes::from_static(b"three")];
        let mut body = Watched::new(Body::new(pieces), progress.clone()).counted(Arc::clone(&sent));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!((sent.load(Ordering::Relaxed), progress.is_whole()), (3, false));
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!((sent.load(Ordering::Relaxed), progress.is_whole()), (8, true));
        let empty = Progress::new();
        drop(Watched::new(Body::new(Vec::new()), empty.clone()));
        assert!(empty.is_whole());
    }
}
