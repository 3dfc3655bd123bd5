//! Whether this machine can work: jobs in a row that fail because of it, and panics.

use std::sync::Mutex;

use tokio_util::sync::CancellationToken;

use crate::cli::Failure;
use crate::fault::Halt;
use crate::lock::lock;

/// Counts faults that are the worker's.
#[derive(Debug)]
pub(super) struct Faults {
    most: u32,
    inner: Mutex<Inner>,
    enough: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    in_a_row: u32,
    last: Option<Halt>,
}

impl Faults {
    pub(super) fn new(most: u32) -> Self {
        Self { most, inner: Mutex::default(), enough: CancellationToken::new() }
    }

    /// A job got somewhere.
    pub(super) fn none(&self) {
        lock(&self.inner).in_a_row = 0;
    }

    /// A job failed because of this machine or its configuration.
    pub(super) fn one(&self, halt: Halt) {
        let mut inner = lock(&self.inner);
        tracing::warn!(reason = %halt, "a job could not be worked on here");
        inner.in_a_row += 1;
        inner.last = Some(halt);
        if inner.in_a_row >= self.most {
            self.enough.cancel();
        }
    }

    /// Returns once there are too many. Cancel safe.
    pub(super) async fn too_many(&self) {
        self.enough.cancelled().await;
    }

    /// How the worker ends.
    pub(super) fn verdict(&self) -> Result<u8, Failure> {
        if !self.enough.is_cancelled() {
            return Ok(0);
        }
        let inner = lock(&self.inner);
        let why = inner.last.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = format!("{} jobs in a row could not be worked on here: {why}", inner.in_a_row);
        Err(match inner.last {
            Some(Halt::Setup(_)) => Failure::setup(message),
            _ => Failure::failed(message),
        })
    }
}

/// Takes note of a delivery's task that ended; jobs catch their own panics, so this one is ours.
pub(super) fn joined(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a delivery panicked, which is a defect; its job goes back to its queue");
    }
}
