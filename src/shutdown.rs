//! Signals: the first asks for a drain, the second for an end.
//!
//! A drain takes no new job and starts no new call; calls in flight end and are stored. Only then is nothing that was
//! paid for lost. Ending at once loses what is in flight, which is then booked at its worst case.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a process listens to.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// A signal came.
    pub signalled: CancellationToken,
    /// Nothing new is started: after a signal, or because the run cannot go on.
    pub drain: CancellationToken,
    /// Everything is dropped.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Waits for SIGINT or SIGTERM and passes them on; never returns. Cancel safe.
    pub async fn listen(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if self.signalled.is_cancelled() {
                self.abort.cancel();
            }
            self.signalled.cancel();
            self.drain.cancel();
        }
    }
}
