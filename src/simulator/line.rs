//! The wire itself: connections that can be cut from within, and bodies that drip, stop short or lie about their length.
//!
//! Cutting a connection needs a hand on the socket, which no HTTP framework gives to a handler; so each accepted stream
//! carries a token, and once it is cancelled every read and write on it fails. A panic in the handler would cut it too, but
//! would look like a bug of the simulator.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::books::CallGuard;

/// Accepts connections that end when `stop` does.
pub(crate) struct Lines {
    pub(crate) listener: TcpListener,
    pub(crate) stop: CancellationToken,
}

/// One connection.
pub(crate) struct Line {
    stream: TcpStream,
    cut: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What a handler knows of its connection: how to cut it.
#[derive(Debug, Clone)]
pub(crate) struct Cutter(pub(crate) CancellationToken);

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        // Without it small answers wait for the client's delayed ACK; a socket that refuses is only slower.
        let _ = stream.set_nodelay(true);
        let cut = self.stop.child_token();
        let waiting = Box::pin(cut.clone().cancelled_owned());
        (Line { stream, cut, waiting }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Lines>> for Cutter {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        Self(stream.io().cut.clone())
    }
}

impl Line {
    /// An error once the line is cut; registers the task to be woken by the cut.
    fn alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_cut = self.cut.is_cancelled() || self.waiting.as_mut().poll(cx).is_ready();
        if is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// One thing a body does.
pub(crate) enum Step {
    Send(Bytes),
    Wait(Duration),
    /// Breaks off.
    Fail,
}

/// A response body that does its steps, and tells the call's guard when the last byte was handed over.
pub(crate) struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    guard: CallGuard,
}

impl Script {
    /// A body of these steps.
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>, guard: CallGuard) -> Self {
        Self { steps: steps.into_iter().collect(), sleep: None, guard }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                None => {
                    self.guard.delivered();
                    None
                }
                Some(Step::Wait(time)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Some(Step::Fail) => Some(Err(io::ErrorKind::ConnectionAborted.into())),
                Some(Step::Send(bytes)) => {
                    if self.steps.is_empty() {
                        self.guard.delivered();
                    }
                    Some(Ok(Frame::data(bytes)))
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let lens = self.steps.iter().map(|step| match step {
            Step::Send(bytes) => bytes.len() as u64,
            Step::Wait(_) | Step::Fail => 0,
        });
        if self.steps.iter().any(|step| matches!(step, Step::Fail)) {
            SizeHint::default()
        } else {
            SizeHint::with_exact(lens.sum())
        }
    }
}
