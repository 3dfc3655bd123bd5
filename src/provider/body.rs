//! A request body in pieces: short JSON texts around media that are shared by every call that shows them.
//!
//! A clip's media are several megabytes and go out with every call of its loop, so composing a body must not copy them:
//! a body is a list of reference-counted chunks, and the base64 of a medium is one of them as it stands. JSON needs no
//! escape inside base64, which makes the splice safe; everything else passes through `serde_json`. Rejected: one big
//! `String` (copies every medium per attempt) and `reqwest`'s stream body (its length is unknown, so it would be sent
//! chunked, which some gateways refuse and which gives up the exact `Content-Length`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use serde_json::Value;

/// Longest frame handed to the connection at once, so that progress is seen while a large body leaves.
const FRAME: usize = 64 * 1024;

/// A body of known length. A clone starts at its beginning, however much of the original has been sent.
#[derive(Debug)]
pub struct Body {
    chunks: Arc<[Bytes]>,
    len: u64,
    next: usize,
    current: Bytes,
    left: u64,
}

impl Body {
    /// A body of these chunks, in order. Empty ones are dropped.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let chunks: Arc<[Bytes]> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks, len, next: 0, current: Bytes::new(), left: len }
    }

    /// Length in bytes, of the whole body.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunks as they were composed.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The whole body in one piece: a copy, for tests and for showing.
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

impl Clone for Body {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len, next: 0, current: Bytes::new(), left: self.len }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.current.has_remaining() {
            let Some(chunk) = self.chunks.get(self.next).cloned() else {
                return Poll::Ready(None);
            };
            self.next += 1;
            self.current = chunk;
        }
        let take = self.current.len().min(FRAME);
        self.left -= take as u64;
        Poll::Ready(Some(Ok(Frame::data(self.current.split_to(take)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Builds a [`Body`]: JSON written piece by piece, with media spliced in.
#[derive(Debug, Default)]
pub struct Composer {
    chunks: Vec<Bytes>,
    open: Vec<u8>,
}

impl Composer {
    /// JSON punctuation and keys, known when the program is written: never anything from outside.
    pub fn raw(&mut self, json: &'static str) -> &mut Self {
        self.open.extend_from_slice(json.as_bytes());
        self
    }

    /// Any text, as a JSON string with its quotes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.value(&Value::from(text))
    }

    /// Any JSON value.
    pub fn value(&mut self, value: &Value) -> &mut Self {
        self.open.extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// JSON already written by a serializer.
    pub fn json(&mut self, json: &str) -> &mut Self {
        self.open.extend_from_slice(json.as_bytes());
        self
    }

    /// Base64 inside a string that is open: the bytes are shared, not copied.
    pub fn base64(&mut self, base64: &Bytes) -> &mut Self {
        self.chunks.push(Bytes::from(std::mem::take(&mut self.open)));
        self.chunks.push(base64.clone());
        self
    }

    /// The body.
    pub fn finish(mut self) -> Body {
        self.chunks.push(Bytes::from(self.open));
        Body::new(self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn drain(body: &mut Body) -> Vec<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut frames = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut context) {
            frames.push(frame.into_data().unwrap());
        }
        frames
    }

    #[test]
    fn a_medium_is_shared_by_pointer_and_the_length_is_exact() {
        let medium = Bytes::from(vec![b'A'; 200_000]);
        let mut composer = Composer::default();
        composer.raw("{\"data\":\"").base64(&medium).raw("\",\"t\":").text("a\"b").raw("}");
        let mut body = composer.finish();
        assert_eq!(body.chunks()[1].as_ptr(), medium.as_ptr());
        assert_eq!(body.len(), body.to_vec().len() as u64);
        assert_eq!(body.size_hint().exact(), Some(body.len()));
        let frames = drain(&mut body);
        assert!(frames.iter().all(|frame| frame.len() <= FRAME));
        assert_eq!(frames[1].as_ptr(), medium.as_ptr());
        assert_eq!(frames.concat(), body.to_vec());
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }

    #[test]
    fn a_clone_of_a_half_sent_body_starts_at_the_beginning() {
        let mut body = Body::new(vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"two")]);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        assert_eq!(body.size_hint().exact(), Some(3));
        let mut again = body.clone();
        assert_eq!(again.size_hint().exact(), Some(6));
        assert_eq!(drain(&mut again).concat(), b"onetwo");
        assert_eq!(drain(&mut body).concat(), b"two");
    }

    #[test]
    fn an_empty_body_ends_at_once() {
        let mut body = Composer::default().finish();
        assert!(body.is_empty() && body.is_end_stream());
        assert!(drain(&mut body).is_empty());
    }
}
