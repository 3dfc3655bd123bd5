//! What preparing one source may cost. None of it changes the bytes of a result, so none of it is part of a journal key.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::MediaError;

/// Operational bounds of the media stage: the `[media]` section of the configuration.
///
/// A source over one of them is [`Invalid`](super::MediaErrorKind::Invalid), named with the limit it met.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest source file, in MiB.
    pub max_source_mib: u64,
    /// Wall time of one ffprobe, in seconds.
    pub probe_timeout_seconds: u64,
    /// Wall time of one ffmpeg, in seconds. Above `cpu_seconds`, so that a clip is blamed for its own cost first.
    pub prepare_timeout_seconds: u64,
    /// Processor time of one child process, in seconds.
    pub cpu_seconds: u64,
    /// Address space of one child process, in MiB. ffmpeg's libraries alone map about 300.
    pub memory_mib: u64,
    /// Most pixels in a frame of the source.
    pub max_pixels: u64,
    /// Longest source, in seconds.
    pub max_duration_seconds: u64,
    /// Most streams in a source: sounds, pictures, subtitles and attachments (fonts) count alike.
    pub max_streams: u32,
    /// Most frames that are decoded of one source: one second can hold a million.
    pub max_frames_decoded: u64,
    /// Most bytes one child process may put out, in MiB.
    pub max_output_mib: u64,
    /// Child processes at the same time; 0 = as many as there are cores.
    pub decoders: usize,
    /// Most bytes that the cache directory may keep; 0 = no cap. A preparation under way comes on top of it.
    pub cache_bytes: u64,
    /// Bytes of the disk that the cache leaves to others.
    pub keep_free_bytes: u64,
    /// Name or path of ffmpeg, version 5.1 or later.
    pub ffmpeg: PathBuf,
    /// Name or path of ffprobe.
    pub ffprobe: PathBuf,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_source_mib: 4096,
            probe_timeout_seconds: 30,
            prepare_timeout_seconds: 900,
            cpu_seconds: 600,
            memory_mib: 2048,
            max_pixels: 8192 * 4320,
            max_duration_seconds: 4 * 3600,
            max_streams: 256,
            max_frames_decoded: 2_000_000,
            max_output_mib: 256,
            decoders: 0,
            cache_bytes: 20 << 30,
            keep_free_bytes: 1 << 30,
            ffmpeg: PathBuf::from("ffmpeg"),
            ffprobe: PathBuf::from("ffprobe"),
        }
    }
}

impl Limits {
    pub(crate) fn max_source_bytes(&self) -> u64 {
        self.max_source_mib.saturating_mul(1 << 20)
    }

    pub(crate) fn max_output_bytes(&self) -> u64 {
        self.max_output_mib.saturating_mul(1 << 20)
    }

    /// What becomes of a source with more frames than that.
    pub(crate) fn too_many_frames(&self) -> MediaError {
        MediaError::invalid(format!("has more than {} frames (max_frames_decoded)", self.max_frames_decoded))
    }

    /// `max_pixels` as ffmpeg takes it: its type is int.
    pub(crate) fn max_pixels_option(&self) -> u64 {
        self.max_pixels.min(i32::MAX.unsigned_abs().into())
    }

    pub(crate) fn probe_timeout(&self) -> Duration {
        Duration::from_secs(self.probe_timeout_seconds)
    }

    pub(crate) fn prepare_timeout(&self) -> Duration {
        Duration::from_secs(self.prepare_timeout_seconds)
    }

    /// Child processes at the same time, at least 1.
    pub(crate) fn slots(&self) -> usize {
        match self.decoders {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            n => n.min(1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_refused_and_an_absent_one_has_its_default() {
        let limits: Limits = toml::from_str("memory_mib = 512").unwrap();
        assert_eq!(limits, Limits { memory_mib: 512, ..Limits::default() });
        assert!(toml::from_str::<Limits>("memory = 512").unwrap_err().to_string().contains("memory"));
        assert!(toml::from_str::<Limits>("cpu_seconds = -1").is_err());
    }
}
