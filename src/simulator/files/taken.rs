//! What is kept of an upload's bytes: digests, a measure, and never the bytes.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::super::draw;
use super::super::measure::Meter;
use super::held::Shown;
use super::wish::Wish;

/// How an upload stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    Active,
    Final,
    Cancelled,
}

/// What is kept of an upload's bytes.
pub(crate) struct Taken {
    pub(super) kept: u64,
    /// Arrived, but not kept yet: lost if the chunk breaks off.
    pub(super) open: Vec<u8>,
    content: blake3::Hasher,
    sha256: Sha256,
    meter: Meter,
    pub(super) standing: Standing,
}

impl Taken {
    pub(super) fn new(size: u64) -> Self {
        let (content, sha256) = (draw::begin(size), Sha256::new());
        Self { kept: 0, open: Vec::new(), content, sha256, meter: Meter::default(), standing: Standing::Active }
    }

    /// The next bytes, of which whole multiples of `multiple` are kept at once.
    pub(super) fn arrive(&mut self, bytes: &[u8], multiple: u64) {
        self.open.extend_from_slice(bytes);
        let open = self.open.len() as u64;
        // What is kept must be a multiple of it, counted from the file's beginning.
        let whole = (self.kept + open) / multiple * multiple;
        self.keep(usize::try_from(whole.saturating_sub(self.kept).min(open)).unwrap_or(0));
    }

    /// Forgets what is not kept yet: how many bytes that is.
    pub(super) fn lose_open(&mut self) -> u64 {
        std::mem::take(&mut self.open).len() as u64
    }

    /// Keeps the first `count` bytes that are open.
    pub(super) fn keep(&mut self, count: usize) {
        let bytes = &self.open[..count];
        self.content.update(bytes);
        self.sha256.update(bytes);
        self.meter.push(bytes);
        self.kept += count as u64;
        self.open.drain(..count);
    }

    /// As a call will see it.
    pub(super) fn shown(&self, wish: &Wish) -> Shown {
        let digest = draw::finish(&self.content);
        Shown { kind: wish.kind, bytes: self.meter.total(), digest, measured: self.meter.measured() }
    }

    /// In hexadecimal.
    pub(super) fn sha256(&self) -> String {
        self.sha256.clone().finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
