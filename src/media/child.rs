//! One ffmpeg or ffprobe as a child process, with its limits in place before it reads a byte of the source.
//!
//! The limits are set by `/bin/sh` with `ulimit`, which then becomes the program by `exec`: same process, no window in
//! which hostile bytes are parsed without limits, and no quoting, since every word is a positional parameter. Rejected:
//! `prlimit(2)` from here after the spawn (the child runs unlimited until then), a `pre_exec` hook (unsafe code), and
//! the `prlimit` program (absent from small images, while whatever has ffmpeg has a shell).
//!
//! The source is the child's standard input and is named `file:/dev/stdin`: opening that gives a seekable handle on the
//! very file that was checked and hashed, so no name, however odd, and no later swap of the path, ever reaches ffmpeg.
//! Output is read with caps; a child that exceeds one, or its wall time, is killed and reaped before the error returns.
//! Dropping the future kills the child too. Linux only, as `/dev/stdin` reopens and `ulimit -v` binds only there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::MediaError;

/// Containers that may be opened. No playlist, script, image sequence, device or network format is among them.
pub(crate) const FORMATS: &str = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,wav,w64,aiff,caf,mp3,\
                                  aac,flac,ac3,eac3,amr";

/// What a source is called inside a child.
pub(crate) const INPUT: &str = "file:/dev/stdin";

const SCRIPT: &str = r#"ulimit -c 0 && ulimit -n 64 && ulimit -f "$1" && ulimit -t "$2" && ulimit -v "$3" && shift 3 && exec "$@"; exit 125"#;
const LOG_BYTES: usize = 16 * 1024;
const LINE_BYTES: usize = 4096;

/// What one child may use.
#[derive(Debug, Clone)]
pub(crate) struct Caps {
    pub(crate) wall: Duration,
    pub(crate) wall_name: &'static str,
    pub(crate) cpu_seconds: u64,
    pub(crate) memory_mib: u64,
    /// Largest file it may write.
    pub(crate) file_bytes: u64,
    pub(crate) stdout_bytes: u64,
}

/// What a child that ended well has left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    /// Lines of the error output that nobody took, the first 16 KiB.
    pub(crate) log: String,
}

/// Runs `program` on `input` in `dir` until it ends. `take` sees each line of the error output and says whether it was
/// meant for it. Cancel safe: dropping the future kills the child.
pub(crate) async fn run(
    program: &Path,
    args: &[OsString],
    input: File,
    dir: &Path,
    caps: &Caps,
    take: impl FnMut(&str) -> bool + Send,
) -> Result<Output, MediaError> {
    let started = Instant::now();
    let mut child = command(program, args, dir, caps)
        .stdin(input)
        .spawn()
        .map_err(|error| MediaError::worker(format!("cannot start /bin/sh: {error}")))?;
    let ended = tokio::time::timeout(caps.wall, follow(&mut child, caps, take)).await;
    let failure = match ended {
        Ok(Ok((status, output))) if status.success() => return Ok(output),
        Ok(Ok((status, output))) => {
            return Err(verdict(program, status, &output.log, caps, started.elapsed()));
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            let seconds = caps.wall.as_secs();
            MediaError::invalid(format!("takes longer than {seconds} s to read ({})", caps.wall_name))
        }
    };
    child.kill().await.map_err(|error| MediaError::worker(format!("cannot end a child process: {error}")))?;
    Err(failure)
}

fn command(program: &Path, args: &[OsString], dir: &Path, caps: &Caps) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "sh"])
        .arg(at_most(caps.file_bytes.div_ceil(512), Resource::Fsize, 512))
        .arg(at_most(caps.cpu_seconds, Resource::Cpu, 1))
        .arg(at_most(caps.memory_mib.saturating_mul(1024), Resource::As, 1024))
        .arg(absolute(program))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("LC_ALL", "C")
        .env("AV_LOG_FORCE_NOCOLOR", "1")
        // Each arena of glibc's malloc reserves 64 MiB of the address space that is limited.
        .env("MALLOC_ARENA_MAX", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A bare name is looked up in `PATH`; a path means the same as here, although the child works elsewhere.
fn absolute(program: &Path) -> PathBuf {
    let bare = program.components().count() < 2;
    if bare { program.to_owned() } else { std::path::absolute(program).unwrap_or_else(|_| program.to_owned()) }
}

/// A limit in units of `unit` bytes or seconds, lowered to what this process may still grant: raising a hard limit fails.
fn at_most(wanted: u64, resource: Resource, unit: u64) -> String {
    let granted = getrlimit(resource).maximum.map_or(u64::MAX, |maximum| maximum / unit);
    wanted.min(granted).to_string()
}

async fn follow(
    child: &mut Child,
    caps: &Caps,
    take: impl FnMut(&str) -> bool + Send,
) -> Result<(ExitStatus, Output), MediaError> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(MediaError::worker("a child process has no output pipes"));
    };
    let (stdout, log) = tokio::try_join!(read_capped(stdout, caps.stdout_bytes), read_lines(stderr, take))?;
    let status = child.wait().await.map_err(|error| lost(&error))?;
    Ok((status, Output { stdout, log }))
}

fn lost(error: &std::io::Error) -> MediaError {
    MediaError::worker(format!("lost a child process: {error}"))
}

async fn read_capped(pipe: impl AsyncRead + Unpin, cap: u64) -> Result<Vec<u8>, MediaError> {
    let mut bytes = Vec::new();
    pipe.take(cap.saturating_add(1)).read_to_end(&mut bytes).await.map_err(|error| lost(&error))?;
    if bytes.len() as u64 > cap {
        return Err(MediaError::invalid(format!("gives more than {} MiB of output (max_output_mib)", cap >> 20)));
    }
    Ok(bytes)
}

async fn read_lines(
    mut pipe: impl AsyncRead + Unpin,
    mut take: impl FnMut(&str) -> bool,
) -> Result<String, MediaError> {
    let (mut log, mut line, mut chunk) = (String::new(), Vec::new(), vec![0; 16 * 1024]);
    loop {
        let read = pipe.read(&mut chunk).await.map_err(|error| lost(&error))?;
        if read == 0 {
            end_line(&mut line, &mut log, &mut take);
            return Ok(log);
        }
        for &byte in &chunk[..read] {
            if byte == b'\n' {
                end_line(&mut line, &mut log, &mut take);
            } else if line.len() < LINE_BYTES {
                line.push(byte);
            }
        }
    }
}

fn end_line(line: &mut Vec<u8>, log: &mut String, take: &mut impl FnMut(&str) -> bool) {
    let text = String::from_utf8_lossy(line);
    if !text.is_empty() && !take(&text) && log.len() + text.len() < LOG_BYTES {
        log.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        log.push('\n');
    }
    line.clear();
}

/// Whose fault an unhappy end is. A limit met is the source's; a program that is not there or a full disk is ours.
fn verdict(program: &Path, status: ExitStatus, log: &str, caps: &Caps, took: Duration) -> MediaError {
    let name = program.file_name().unwrap_or(OsStr::new("the program")).to_string_lossy();
    let reason = reason(log);
    if matches!(status.code(), Some(125..=127)) || log.contains("ulimit:") {
        return MediaError::worker(format!("{name} does not start: {reason}"));
    }
    if ["No space left on device", "Too many open files", "Disk quota exceeded"].iter().any(|e| log.contains(e)) {
        return MediaError::worker(format!("{name} fails: {reason}"));
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
        return MediaError::worker(format!("{name} was stopped from outside ({status})"));
    }
    match status.signal() {
        Some(SIGXFSZ) => MediaError::invalid("gives more output than its limit"),
        Some(_) => MediaError::invalid(format!("{name} crashes on it ({status})")),
        None if reason.is_empty() => MediaError::invalid(format!("cannot be read ({name}: {status})")),
        None => MediaError::invalid(format!("cannot be read: {reason}")),
    }
}

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// The most telling line of a log, without ffmpeg's own addresses, cut to a readable length.
pub(crate) fn reason(log: &str) -> String {
    let line = log.lines().find(|line| !line.starts_with("Conversion failed")).unwrap_or_default();
    let line = if line.starts_with('[') { line.split_once("] ").map_or(line, |(_, rest)| rest) } else { line };
    line.replace(INPUT, "the file").trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaErrorKind;

    fn caps() -> Caps {
        Caps {
            wall: Duration::from_secs(30),
            wall_name: "prepare_timeout_seconds",
            cpu_seconds: 20,
            memory_mib: 1024,
            file_bytes: 1 << 20,
            stdout_bytes: 1 << 20,
        }
    }

    async fn sh(script: &str, caps: &Caps) -> Result<Output, MediaError> {
        let args = ["-c".into(), script.into()];
        let input = File::open("/dev/null").unwrap();
        run(Path::new("/bin/sh"), &args, input, &std::env::temp_dir(), caps, |_| false).await
    }

    #[tokio::test]
    async fn the_limits_stand_before_the_program_runs() {
        let out = sh("ulimit -v; ulimit -t; ulimit -f; ulimit -n; ulimit -c", &caps()).await.unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "1048576\n20\n2048\n64\n0\n");
    }

    #[tokio::test]
    async fn the_environment_holds_nothing_of_ours() {
        let out = sh("env | grep -c CARGO_ || true; echo \"$LC_ALL\"", &caps()).await.unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "0\nC\n");
    }

    #[tokio::test]
    async fn too_much_output_kills_the_child_and_blames_the_source() {
        let error = sh("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", &caps()).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Invalid);
        assert!(error.message.contains("max_output_mib"), "{error}");
    }

    #[tokio::test]
    async fn the_processor_limit_ends_a_busy_child_and_blames_the_source() {
        let error = sh("while :; do :; done", &Caps { cpu_seconds: 1, ..caps() }).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Invalid);
        assert!(error.message.contains("cpu_seconds"), "{error}");
    }

    #[tokio::test]
    async fn a_child_killed_from_outside_is_not_the_items_fault() {
        let error = sh("kill -9 $$", &caps()).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Worker, "{error}");
    }

    #[tokio::test]
    async fn a_file_over_its_limit_blames_the_source() {
        let error = sh("exec head -c 3000000 /dev/zero > over-the-limit.tmp", &caps()).await.unwrap_err();
        let _ = std::fs::remove_file(std::env::temp_dir().join("over-the-limit.tmp"));
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_this_machines_fault() {
        let input = File::open("/dev/null").unwrap();
        let program = Path::new("/nowhere/ffmpeg");
        let error = run(program, &[], input, Path::new("/"), &caps(), |_| false).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Worker);
        assert!(error.message.starts_with("ffmpeg does not start"), "{error}");
    }

    #[tokio::test]
    async fn endless_and_binary_log_lines_stay_bounded_and_printable() {
        let script = "head -c 1000000 /dev/zero >&2; echo >&2; i=0; while [ $i -lt 999 ]; do printf 'a\\033b\\n' >&2; i=$((i+1)); done";
        let log = sh(script, &caps()).await.unwrap().log;
        assert!(log.len() <= LOG_BYTES && log.contains("a b\n"), "{}", log.len());
    }

    #[test]
    fn a_reason_is_one_line_without_addresses() {
        assert_eq!(reason("[mov,mp4 @ 0x5652] moov atom not found\nfile:/dev/stdin: bad\n"), "moov atom not found");
        assert_eq!(reason("file:/dev/stdin: Invalid data found\n"), "the file: Invalid data found");
        assert_eq!(reason(""), "");
    }
}
