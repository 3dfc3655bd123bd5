//! One ffmpeg or ffprobe as a child process, with its limits in place before it reads a byte of the source.
//!
//! The limits are set by `/bin/sh` with `ulimit`, which then becomes the program by `exec`: same process, no window in
//! which hostile bytes are parsed without limits, and no quoting, since every word is a positional parameter. Rejected:
//! `prlimit(2)` from here after the spawn (the child runs unlimited until then), a `pre_exec` hook (unsafe code), and
//! the `prlimit` program (absent from small images, while whatever has ffmpeg has a shell).
//!
//! The source is the child's standard input and is named `file:/dev/stdin`: opening that gives a seekable handle on the
//! very file that was checked and hashed, so no name, however odd, and no later swap of the path, ever reaches ffmpeg.
//! Output is read with caps; a child that exceeds one, or its wall time, is killed with its whole process group and reaped
//! before the error returns, and so it is when the future is dropped. If this process is killed, the child ends when it next
//! writes to the pipe, at the latest at its processor limit: a death signal takes unsafe code or `setpriv`, and comes when the
//! starting thread ends. Stronger fences (namespaces, bubblewrap) need rights that not every machine gives; `media.ffmpeg` may
//! be a script that goes through one. Linux only, as `/dev/stdin` reopens and `ulimit -v` binds only there.

mod verdict;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout, Command};

pub(crate) use self::verdict::{reason, too_large};
use super::MediaError;

/// Containers that may be opened. No playlist, script, image sequence, device or network format is among them.
pub(crate) const FORMATS: &str = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,wav,w64,aiff,caf,mp3,\
                                  aac,flac,ac3,eac3,amr";

/// Decoders that may be used, of the about 450 that ffmpeg brings: what recordings and archives are made of. Not among
/// them are games' formats, text rendered to pictures and vector graphics: rarely needed, rarely tested. Subtitles are,
/// as ffprobe gives up on a file with a stream that it cannot open; nobody is shown them.
pub(crate) const CODECS: &str = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg1video,mpeg2video,\
    mpegvideo,h261,h263,h263i,h263p,flv,flv1,vp3,vp4,vp5,vp6,vp6a,vp6f,vp7,theora,wmv1,wmv2,wmv3,vc1,msmpeg4v1,msmpeg4v2,\
    msmpeg4v3,msmpeg4,rv30,rv40,svq1,svq3,cinepak,indeo3,indeo4,indeo5,mjpeg,mjpegb,jpeg2000,png,apng,gif,bmp,webp,tiff,\
    prores,dnxhd,cfhd,dvvideo,dirac,rawvideo,v210,ffv1,ffvhuff,huffyuv,utvideo,magicyuv,qtrle,rpza,msrle,msvideo1,zmbv,\
    flashsv,flashsv2,aac,aac_latm,ac3,eac3,dca,dts,mp1,mp2,mp3,mp1float,mp2float,mp3float,mp3adu,mp3adufloat,opus,libopus,\
    vorbis,libvorbis,flac,alac,ape,tta,wavpack,tak,truehd,mlp,speex,libspeex,wmav1,wmav2,wmapro,wmalossless,wmavoice,\
    amrnb,amr_nb,amrwb,amr_wb,gsm,libgsm,gsm_ms,libgsm_ms,nellymoser,qdm2,cook,qcelp,g722,adpcm_g722,g726,adpcm_g726,\
    adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,\
    pcm_f64le,pcm_s8,pcm_u8,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_u16be,pcm_u16le,pcm_u24be,\
    pcm_u24le,pcm_u32be,pcm_u32le,s302m,ass,ssa,subrip,srt,mov_text,webvtt,text,dvdsub,dvd_subtitle,dvbsub,dvb_subtitle,\
    pgssub,hdmv_pgs_subtitle,libzvbi_teletextdec,dvb_teletext,cc_dec,eia_608,xsub";

/// What a source is called inside a child.
pub(crate) const INPUT: &str = "file:/dev/stdin";

const SCRIPT: &str = r#"ulimit -c 0 && ulimit -n 64 && ulimit -f "$1" && ulimit -t "$2" && ulimit -v "$3" && shift 3 && exec "$@"; exit 125"#;
const LOG_BYTES: usize = 16 * 1024;
const LINE_BYTES: usize = 4096;
/// A child that complains more than this is ended: a broken packet makes a line, and a file can be made of those.
const FLOOD_BYTES: u64 = 16 << 20;

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

/// What became of a line of the error output; `true` and `false` stand for the first two.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It was meant for the one who reads.
    Yes,
    /// It belongs in the log.
    No,
    /// It is one too many: the child is killed, and this is why.
    Stop(MediaError),
}

impl From<bool> for Taken {
    fn from(taken: bool) -> Self {
        if taken { Self::Yes } else { Self::No }
    }
}

/// A child that takes whatever it has started with it, if it is dropped before it was waited for.
struct Group(Child);

impl Group {
    /// The child leads its own process group. As long as nobody has waited for it, no other group can have its number.
    fn kill(&self) {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, Signal::KILL)) {
            tracing::debug!(%error, "a process group is gone already");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `program` on `input` in `dir` until it ends. `take` sees each line of the error output and says whether it was
/// meant for it. Cancel safe: dropping the future kills the child.
pub(crate) async fn run<T: Into<Taken>>(
    program: &Path,
    args: &[OsString],
    input: File,
    dir: &Path,
    caps: &Caps,
    take: impl FnMut(&str) -> T + Send,
) -> Result<Output, MediaError> {
    let read = |stdout| read_capped(stdout, caps.stdout_bytes);
    let (stdout, log) = run_reading(program, args, input, dir, caps, take, read).await?;
    Ok(Output { stdout, log })
}

/// As [`run`], but `read` takes the output as it comes; it must end when the output does. What it gives, and the log.
pub(crate) async fn run_reading<T: Into<Taken>, O, R: Future<Output = Result<O, MediaError>>>(
    program: &Path,
    args: &[OsString],
    input: File,
    dir: &Path,
    caps: &Caps,
    take: impl FnMut(&str) -> T + Send,
    read: impl FnOnce(ChildStdout) -> R,
) -> Result<(O, String), MediaError> {
    let started = Instant::now();
    let child = command(program, args, dir, caps)
        .stdin(input)
        .spawn()
        .map_err(|error| MediaError::worker(format!("cannot start /bin/sh: {error}")))?;
    let mut group = Group(child);
    let ended = tokio::time::timeout(caps.wall, follow(&mut group.0, take, read)).await;
    let failure = match ended {
        Ok(Ok((status, output, log))) if status.success() => return Ok((output, log)),
        Ok(Ok((status, _, log))) => {
            return Err(verdict::of(program, status, &log, caps, started.elapsed(), dir));
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            let seconds = caps.wall.as_secs();
            MediaError::invalid(format!("takes longer than {seconds} s to read ({})", caps.wall_name))
        }
    };
    group.kill();
    group.0.kill().await.map_err(|error| MediaError::worker(format!("cannot end a child process: {error}")))?;
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

async fn follow<T: Into<Taken>, O, R: Future<Output = Result<O, MediaError>>>(
    child: &mut Child,
    take: impl FnMut(&str) -> T + Send,
    read: impl FnOnce(ChildStdout) -> R,
) -> Result<(ExitStatus, O, String), MediaError> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(MediaError::worker("a child process has no output pipes"));
    };
    let (stdout, log) = tokio::try_join!(read(stdout), read_lines(stderr, take))?;
    let status = child.wait().await.map_err(|error| lost(&error))?;
    Ok((status, stdout, log))
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

async fn read_lines<T: Into<Taken>>(
    mut pipe: impl AsyncRead + Unpin,
    mut take: impl FnMut(&str) -> T,
) -> Result<String, MediaError> {
    let (mut log, mut line, mut chunk) = (Log::default(), Vec::new(), vec![0; 16 * 1024]);
    loop {
        let read = pipe.read(&mut chunk).await.map_err(|error| lost(&error))?;
        if read == 0 {
            log.end_line(&mut line, &mut take)?;
            return Ok(log.text);
        }
        let mut rest = &chunk[..read];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            log.more(&mut line, &rest[..end]);
            log.end_line(&mut line, &mut take)?;
            rest = &rest[end + 1..];
        }
        log.more(&mut line, rest);
        log.check()?;
    }
}

/// What is kept of the lines that nobody took, and how much there was.
#[derive(Debug, Default)]
struct Log {
    text: String,
    bytes: u64,
}

impl Log {
    /// Adds to an unfinished line, as far as lines go.
    fn more(&mut self, line: &mut Vec<u8>, bytes: &[u8]) {
        let kept = bytes.len().min(LINE_BYTES.saturating_sub(line.len()));
        line.extend_from_slice(&bytes[..kept]);
        self.bytes += (bytes.len() - kept) as u64;
    }

    fn check(&self) -> Result<(), MediaError> {
        if self.bytes > FLOOD_BYTES {
            let reason = reason(&self.text);
            return Err(MediaError::invalid(format!("makes its reader complain without end: {reason}")));
        }
        Ok(())
    }

    fn end_line<T: Into<Taken>>(
        &mut self,
        line: &mut Vec<u8>,
        take: &mut impl FnMut(&str) -> T,
    ) -> Result<(), MediaError> {
        let text = String::from_utf8_lossy(line);
        let taken = if text.is_empty() { Taken::Yes } else { take(&text).into() };
        match taken {
            Taken::Yes => {}
            Taken::No => {
                self.bytes += text.len() as u64;
                if self.text.len() + text.len() < LOG_BYTES {
                    self.text.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
                    self.text.push('\n');
                }
            }
            Taken::Stop(error) => return Err(error),
        }
        line.clear();
        self.check()
    }
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
    async fn a_child_killed_from_outside_is_known_as_such() {
        // Not INT: whatever a shell starts in the background ignores it.
        for signal in ["KILL", "TERM"] {
            let error = sh(&format!("kill -{signal} $$"), &caps()).await.unwrap_err();
            assert_eq!(error.kind, MediaErrorKind::Killed, "{error}");
        }
    }

    #[tokio::test]
    async fn one_line_too_many_ends_the_child() {
        let args = ["-c".into(), "while :; do echo line >&2; done".into()];
        let input = File::open("/dev/null").unwrap();
        let mut lines = 0;
        let take = |_: &str| {
            lines += 1;
            if lines > 100 { Taken::Stop(MediaError::invalid("enough")) } else { Taken::Yes }
        };
        let error = run(Path::new("/bin/sh"), &args, input, &std::env::temp_dir(), &caps(), take).await.unwrap_err();
        assert_eq!((error.message.as_str(), lines), ("enough", 101));
    }

    #[tokio::test]
    async fn a_child_that_complains_without_end_is_ended() {
        for script in ["yes a complaint about a packet >&2", "cat /dev/zero >&2"] {
            let error = sh(script, &caps()).await.unwrap_err();
            assert!(error.message.starts_with("makes its reader complain without end"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_a_child_has_started_ends_with_it() {
        // A program may be a script: then the decoder is a child of the child.
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".into(), "sleep 600 & echo $! $$ >&2; wait".into()];
        let (mut process, mut started) = (None, tokio::sync::mpsc::unbounded_channel());
        let take = |line: &str| started.0.send(line.trim().to_owned()).is_ok();
        let caps = caps();
        let null = File::open("/dev/null").unwrap();
        let mut running = Box::pin(run(Path::new("/bin/sh"), &args, null, dir.path(), &caps, take));
        while process.is_none() {
            assert!(tokio::time::timeout(Duration::from_millis(2), &mut running).await.is_err());
            process = started.1.try_recv().ok();
        }
        let processes = process.unwrap();
        let (grandchild, child) = processes.split_once(' ').unwrap();
        let grandchild = PathBuf::from(format!("/proc/{grandchild}/cwd"));
        let child = PathBuf::from(format!("/proc/{child}"));
        assert!(std::fs::read_link(&grandchild).is_ok() && child.exists());
        drop(running);
        let began = Instant::now();
        // A child that is dead and not waited for is still there; whether the grandchild is, is for others to see to.
        while std::fs::read_link(&grandchild).is_ok() || child.exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "it lives on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_file_over_its_limit_blames_the_source() {
        let error = sh("exec head -c 3000000 /dev/zero > over-the-limit.tmp", &caps()).await.unwrap_err();
        let _ = std::fs::remove_file(std::env::temp_dir().join("over-the-limit.tmp"));
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_is_believed_only_if_it_takes_nothing() {
        let script = "echo 'x: No space left on device' >&2; echo 'ulimit: no' >&2; exit 1";
        assert_eq!(sh(script, &caps()).await.unwrap_err().kind, MediaErrorKind::Invalid);
        // A directory in which nobody can make a file.
        let args = ["-c".into(), script.into()];
        let input = File::open("/dev/null").unwrap();
        let ended = run(Path::new("/bin/sh"), &args, input, Path::new("/proc"), &caps(), |_| false).await;
        assert_eq!(ended.unwrap_err().kind, MediaErrorKind::Worker);
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
}
