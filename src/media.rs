//! From a path to what a model is shown: key frames and sound, made once per content.
//!
//! A [`Library`] turns a path or a `file://` URI into a [`Prepared`]. The key is the content's SHA-256, never the name,
//! so that copies share one decode and a renamed file is not paid for again. The way down: `source` opens and hashes
//! the file, `probe` says what is in it, `decode` runs ffmpeg once for frames and sound together, `frames` chooses
//! among the candidates, `cache` keeps the result on disk, `library` makes sure it all happens once.
//!
//! ffmpeg runs as a child process (`child`) under limits that stand before it reads the first byte. Linking libav was
//! rejected: a decoder that crashes, hangs or takes all memory on a hostile file must not take the worker with it.
//! The frames are picked by ffmpeg's scene score, with samples at even distances where there are too few cuts.

mod cache;
mod child;
mod decode;
mod frames;
mod jpeg;
mod library;
mod limits;
mod memory;
mod once;
mod probe;
mod source;
mod wav;
mod whole;

use std::fmt;

pub use self::library::{Library, Stats};
pub use self::limits::Limits;
use crate::provider::Blob;

/// As what an item names a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Frames are wanted, and the sound if there is any. Cover art is not video.
    Video,
    /// Only the sound is wanted; a video file will do.
    Audio,
}

impl Kind {
    /// The kind's name in records, file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
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
    /// This machine failed (no ffmpeg, disk full, out of file handles); says nothing about the item.
    Worker,
}

impl MediaErrorKind {
    /// The error kind of a `failed` record; none for a fault of this machine, which never ends an item.
    pub fn record_kind(self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("not_found"),
            Self::Invalid => Some("invalid_media"),
            Self::Denied => Some("denied"),
            Self::Worker => None,
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

/// How media are prepared; part of every journal key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// At most this many key frames per video.
    pub max_frames: u32,
    /// Longest side of a frame in pixels; smaller clips are not enlarged.
    pub frame_size: u32,
    /// Sample rate of the mono sound, in Hz.
    pub audio_rate: u32,
    /// Sound beyond this many seconds is left out.
    pub audio_seconds: u32,
}

/// Changes whenever the same settings would give other bytes; part of every journal key.
pub const PREPARATION_VERSION: u32 = 1;

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
    /// Mono WAV.
    pub wav: Blob,
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
}
