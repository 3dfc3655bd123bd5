//! Whose fault it is that a child did not end well.
//!
//! A limit that was met is the source's fault, and so is what the decoder complains about; a program that does not start or
//! a disk that is full is this machine's, and ends the run. What a log says may be the source's own words, so for that it
//! takes more: an exit code of the shell, or a disk that takes no other file either.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::{Caps, INPUT};
use crate::media::{MediaError, MediaErrorKind};

/// What became of a child that ended with `status` after `took`; `dir` is where it stood.
pub(super) fn of(program: &Path, status: ExitStatus, log: &str, caps: &Caps, took: Duration, dir: &Path) -> MediaError {
    let name = program.file_name().unwrap_or(OsStr::new("the program")).to_string_lossy();
    let reason = reason(log);
    if matches!(status.code(), Some(125..=127)) {
        return MediaError::worker(format!("{name} does not start: {reason}"));
    }
    let full = ["No space left on device", "Disk quota exceeded"].iter().any(|words| log.contains(words));
    if let Some(error) = writable(dir).err().filter(|_| full) {
        return MediaError::worker(format!("{name} cannot write: {error}"));
    }
    if let Some(refused) = refused(log) {
        return refused;
    }
    if log.contains("Cannot allocate memory") || log.contains("bad_alloc") {
        return MediaError::invalid(format!("needs more than {} MiB of memory (memory_mib)", caps.memory_mib));
    }
    // Both ends (a killed child, and 255: ffmpeg's answer to a signal) come from the processor limit as well as from
    // outside. One thread works, so a child that has lived for less than half the limit did not meet it.
    let stopped = status.code() == Some(255) || matches!(status.signal(), Some(SIGKILL | SIGXCPU | SIGTERM | SIGINT));
    if stopped && took.as_secs().saturating_mul(2) >= caps.cpu_seconds {
        return MediaError::invalid(format!("needs more than {} s of processor time (cpu_seconds)", caps.cpu_seconds));
    }
    if stopped {
        let message = format!("{name} was killed while it read it ({status}), perhaps for want of memory");
        return MediaError::new(MediaErrorKind::Killed, message);
    }
    match status.signal() {
        Some(SIGXFSZ) => MediaError::invalid("gives more output than its limit (max_output_mib)"),
        Some(_) => MediaError::invalid(format!("{name} crashes on it ({status})")),
        None if reason.is_empty() => MediaError::invalid(format!("cannot be read ({name}: {status})")),
        None => MediaError::invalid(format!("cannot be read: {reason}")),
    }
}

/// Whether `dir` takes another file; what a child has written to a full disk still fills it.
fn writable(dir: &Path) -> std::io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(&[0x55; 16 * 1024])?;
    file.sync_all()
}

/// What becomes of a source whose decoder was told to take no such picture.
pub(crate) fn too_large(log: &str) -> Option<MediaError> {
    let line = log.lines().find(|line| line.contains("exceeds specified max pixel count"))?;
    Some(MediaError::invalid(format!("is too large: {} (max_pixels)", reason(line))))
}

/// What ffmpeg says when it meets one of the lists and counts it was given.
fn refused(log: &str) -> Option<MediaError> {
    if log.contains("max_streams parameter") {
        return Some(MediaError::invalid("has too many streams (max_streams)"));
    }
    if let Some(refused) = too_large(log) {
        return Some(refused);
    }
    if log.contains("Format not on whitelist") {
        return Some(MediaError::invalid("is a playlist or of another format that is not read"));
    }
    let (_, codec) = log.split_once("Codec (").filter(|(_, rest)| rest.contains("not on whitelist"))?;
    let codec: String = codec.chars().take_while(|c| *c != ')').take(40).collect();
    Some(MediaError::invalid(format!("holds {codec}, which is none of the codecs that are decoded")))
}

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// The most telling line of a log, cut to a readable length and without the names and addresses of ffmpeg's parts before
/// it: addresses are others each time, and the same file is to end with the same words.
pub(crate) fn reason(log: &str) -> String {
    let mut line = log.lines().find(|line| !line.starts_with("Conversion failed")).unwrap_or_default();
    while let Some((_, rest)) = line.split_once("] ").filter(|_| line.starts_with('[')) {
        line = rest;
    }
    line.replace(INPUT, "the file").trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_said_in_our_words() {
        for (log, words) in [
            (
                "[x @ 0x1] Number of streams exceeds max_streams parameter (9), see\nx: Cannot allocate memory",
                "max_streams",
            ),
            ("[h264 @ 0x55] Codec (ansi) not on whitelist 'h264,hevc'", "holds ansi, which"),
            ("[hls @ 0x55] Format not on whitelist 'mov'", "is a playlist"),
        ] {
            assert!(refused(log).unwrap().message.contains(words), "{log}");
        }
        assert_eq!(refused("moov atom not found"), None);
    }

    #[test]
    fn a_reason_is_one_line_without_addresses() {
        assert_eq!(reason("[mov,mp4 @ 0x5652] moov atom not found\nfile:/dev/stdin: bad\n"), "moov atom not found");
        assert_eq!(reason("file:/dev/stdin: Invalid data found\n"), "the file: Invalid data found");
        assert_eq!(reason("[auto_aresample_0 @ 0x55] [SWR @ 0x56] Failed to set option\n"), "Failed to set option");
        assert_eq!(reason(""), "");
    }
}
