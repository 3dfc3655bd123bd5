//! How often each way to a prepared source was taken: for summaries, and for tests of what must not happen twice.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often each way to a prepared source was taken, since the library was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files hashed.
    pub hashed: u64,
    /// ffprobe runs.
    pub probes: u64,
    /// ffmpeg runs.
    pub decodes: u64,
    /// Clips looked at, and made where the source itself would not do.
    pub clips: u64,
    /// Sources found in memory.
    pub memory_hits: u64,
    /// Sources found in the cache directory.
    pub disk_hits: u64,
    /// Sources fetched from servers.
    pub downloads: u64,
    /// Sources that their servers said are those known.
    pub unchanged: u64,
    /// Bytes that servers sent of sources.
    pub downloaded_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) hashed: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) decodes: AtomicU64,
    pub(crate) clips: AtomicU64,
    pub(crate) memory_hits: AtomicU64,
    pub(crate) disk_hits: AtomicU64,
}

impl Counts {
    /// The counts so far, beside those of what was fetched.
    pub(crate) fn stats(&self, fetched: Stats) -> Stats {
        Stats {
            hashed: self.hashed.load(Ordering::Relaxed),
            probes: self.probes.load(Ordering::Relaxed),
            decodes: self.decodes.load(Ordering::Relaxed),
            clips: self.clips.load(Ordering::Relaxed),
            memory_hits: self.memory_hits.load(Ordering::Relaxed),
            disk_hits: self.disk_hits.load(Ordering::Relaxed),
            ..fetched
        }
    }
}
