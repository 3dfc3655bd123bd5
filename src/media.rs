//! From a URI to what a model is shown: key frames, sound or the clip itself, made once per content.
//!
//! A [`Library`] turns a path, a `file://`, an `https://` or an `s3://` URI into a [`Prepared`]. The key is the content's SHA-256, never
//! the name, so that copies share one decode and a renamed file is not paid for again. The way down: `source` opens or
//! fetches and hashes, `probe` says what is in it, `decode` runs ffmpeg once for frames and sound together, `look` and
//! `select` find key frames in what it gives, `frames` chooses among them, `sound` encodes, `clip` makes what is handed over
//! whole, `cache` keeps the results on disk, `library` makes sure it all happens once.
//!
//! ffmpeg runs as a child process (`child`) under limits that stand before it reads the first byte. Linking libav was
//! rejected: a decoder that crashes, hangs or takes all memory on a hostile file must not take the worker with it.
//! Key frames are those of the paper's release, by SSIM, with samples at even distances where there are too few.

mod cache;
mod child;
mod clip;
mod decode;
mod frames;
mod jpeg;
mod library;
mod limits;
mod look;
mod memory;
pub(crate) mod once;
mod probe;
mod select;
mod settings;
mod sound;
mod source;
mod stats;
mod wav;
mod whole;

use std::fmt;
use std::sync::Arc;

pub use self::library::Library;
pub(crate) use self::library::blocking;
pub use self::limits::Limits;
pub use self::look::{KeyFrame, key_frames};
pub use self::settings::{AudioFormat, Selection, Settings, Wants};
#[cfg(feature = "fleet")]
pub use self::source::Listing;
pub use self::source::{Allowed, Lookup, Store, without_secrets};
pub use self::stats::Stats;
use crate::provider::Blob;

/// As what an item names a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Frames are wanted, and the sound if there is any. Cover art is not video.
    Video,
    /// The same, but a clip that is shown as a whole goes without its sound: the item names another.
    Silent,
    /// Only the sound is wanted; a video file will do.
    Audio,
}

impl Kind {
    /// The kind's name in records, file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video | Self::Silent => "video",
            Self::Audio => "audio",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose fault a failed preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaErrorKind {
    /// There is no such file.
    NotFound,
    /// The file is there and cannot be used: broken, cut off, not media, without the stream wanted, over a limit.
    Invalid,
    /// The source may not be read: permissions, a scheme that is not allowed, a pipe, socket or device.
    Denied,
    /// The child process that read it was killed from outside, and so was the next one: most likely by the kernel, for want
    /// of memory. The item's fault, or one clip would stop its run for ever.
    Killed,
    /// The source could not be had for now: its server does not answer or fails, its disk gives errors. Asking again may
    /// help, and other sources are not concerned.
    Unavailable,
    /// This machine is set up wrongly: the directory of the media cache cannot be written to, or has no locks. The message
    /// names the directory and the setting.
    Setup,
    /// This machine failed (no ffmpeg, disk full, out of file handles); says nothing about the item.
    Worker,
}

impl MediaErrorKind {
    /// The error kind of a `failed` record; none for a fault of this machine or its setup, which never ends an item.
    pub fn record_kind(self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("not_found"),
            Self::Invalid | Self::Killed => Some("invalid_media"),
            Self::Denied => Some("denied"),
            Self::Unavailable => Some("unavailable"),
            Self::Setup | Self::Worker => None,
        }
    }
}

/// A source that could not be made ready. The message names the file without its directories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MediaError {
    /// Whose fault it is.
    pub kind: MediaErrorKind,
    /// What is wrong, in one sentence.
    pub message: String,
}

impl MediaError {
    pub(crate) fn new(kind: MediaErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(MediaErrorKind::Invalid, message)
    }

    pub(crate) fn worker(message: impl Into<String>) -> Self {
        Self::new(MediaErrorKind::Worker, message)
    }

    /// The same error with the name of the file in front: failures are shared by all names of one content.
    pub(crate) fn about(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }
}

/// Changes whenever the same settings would give other bytes; part of every journal key.
pub const PREPARATION_VERSION: u32 = 3;

/// One key frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Presentation time in milliseconds.
    pub at_ms: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The JPEG.
    pub jpeg: Blob,
}

/// The sound of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Mono, in the format of the settings.
    pub blob: Blob,
    /// Length of what is kept, in milliseconds.
    pub duration_ms: u64,
    /// Whether the source was longer than what is kept.
    pub trimmed: bool,
}

/// A source made ready once, shared by every call, try and item.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// SHA-256 of the source file, in hex.
    pub sha256: String,
    /// Size of the source file.
    pub bytes: u64,
    /// Length of the source in milliseconds, where the container tells.
    pub duration_ms: Option<u64>,
    /// Key frames in order of time; empty for a source without video.
    pub frames: Vec<Frame>,
    /// The sound, if the source has any.
    pub sound: Option<Sound>,
    /// The whole clip, if a role is shown it.
    pub clip: Option<Arc<Clip>>,
}

/// Where a provider could fetch the bytes of a clip itself. An address may hold a credential: there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// Nowhere: it is a file of this machine, or was made from the source.
    None,
    /// At the source's https address, which is public.
    Public(Arc<str>),
    /// At a server of one's own (`[store] private_hosts`): its address is told to nobody.
    Private,
}

/// A clip as a whole: a file that is handed to a provider. It is held open, so that what was hashed is what is read,
/// whatever happens to its name.
#[derive(Clone)]
pub struct Clip {
    /// SHA-256 of what is handed over, in hex: the source itself, or what was made of it.
    pub sha256: Arc<str>,
    /// Its size.
    pub bytes: u64,
    /// For example `video/mp4`.
    pub mime: &'static str,
    /// Its length in milliseconds.
    pub duration_ms: u64,
    /// Whether the source was longer than what is kept.
    pub trimmed: bool,
    /// Whether it has less detail than the source, to fit a size.
    pub smaller: bool,
    /// Whether there is sound in it.
    pub sound: bool,
    pub(crate) address: Address,
    pub(crate) file: Arc<std::fs::File>,
    pub(crate) identity: source::Identity,
    /// Keeps a file of the cache there for as long as anybody has this.
    pub(crate) _lease: Option<Arc<cache::Lease>>,
}

impl Clip {
    /// The file, at its beginning, with a position of its own. Blocking.
    ///
    /// # Errors
    /// It is no longer what was hashed, or this machine has no file handle left.
    pub fn open(&self) -> Result<std::fs::File, MediaError> {
        use std::os::fd::AsRawFd as _;
        self.unchanged()?;
        // A handle of its own on the very file, also where that has no name any more.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        std::fs::File::open(path).map_err(|error| MediaError::worker(format!("cannot open a clip: {error}")))
    }

    /// Whether the file is still what was hashed: to be asked once more when it has been read. Blocking.
    ///
    /// # Errors
    /// It was written to.
    pub fn unchanged(&self) -> Result<(), MediaError> {
        source::unchanged(&self.file, &self.identity)
    }
}

impl PartialEq for Clip {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 && self.duration_ms == other.duration_ms
    }
}

impl Eq for Clip {}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clip({}, {} bytes, {} ms)", self.sha256, self.bytes, self.duration_ms)
    }
}

/// A clip of this file as it is, for tests.
#[cfg(test)]
pub(crate) fn clip_of_file(path: &std::path::Path) -> Clip {
    let (file, identity) = source::open(path, &source::Roots::All, u64::MAX).unwrap();
    let (sha256, bytes) = (source::hash(&file, &identity).unwrap().into(), identity.bytes);
    Clip {
        sha256,
        bytes,
        mime: "video/mp4",
        duration_ms: 1000,
        trimmed: false,
        smaller: false,
        sound: true,
        address: Address::None,
        file: Arc::new(file),
        identity,
        _lease: None,
    }
}
