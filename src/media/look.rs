//! The look at the frames of a clip: the raw stream asked of ffmpeg, and the thread that measures it.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc;

use tokio::process::ChildStdout;

use super::child::{self, Caps};
use super::decode::{bounded, caps, input_arguments, lost, milliseconds, words};
use super::frames::{self, Candidate, Seen, Wanted};
use super::library::blocking;
use super::probe::{self, Stream};
use super::select::spool::Spool;
use super::select::stream::{self, Source, Watched};
use super::select::{Layout, Picture};
use super::{Kind, Limits, MediaError, Selection, Settings};

/// What the pipe of frames holds: all that a user without privileges may ask for. With the usual 64 KiB both sides sleep and
/// wake twenty times for each frame, which costs a sixth of the processor time of a whole preparation.
const PIPE_BYTES: usize = 1 << 20;

/// A frame with an SSIM below 0.6 against the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyFrame {
    /// Its place in the clip, from 0.
    pub frame: u64,
    /// Presentation time in milliseconds.
    pub at_ms: u64,
    /// Structural similarity with the frame before it, -1 to 1: of the whole picture, or of the sample that was looked at.
    pub ssim: f64,
}

/// All key frames of the video at `path`, none chosen or encoded: what a selection sees, for looking into a clip and for tests.
///
/// Decodes the whole clip under `limits`; the list has no bound but theirs. Errors: as for [`Library::prepare`].
/// Cancel safe.
///
/// [`Library::prepare`]: super::Library::prepare
pub async fn key_frames(path: &Path, selection: Selection, limits: &Limits) -> Result<Vec<KeyFrame>, MediaError> {
    let open = || File::open(path).map_err(|error| MediaError::worker(format!("cannot open a clip: {error}")));
    let dir = tempfile::tempdir().map_err(|error| lost(&error))?;
    let plan = probe::run(open()?, dir.path(), Kind::Video, limits).await?;
    let settings = Settings { selection, ..Settings::default() };
    let Some((stream, picture)) = plan.video.zip(plan.picture.as_ref()) else {
        return Err(MediaError::invalid("has no moving picture"));
    };
    let shot = Shot::new(stream, picture, &settings);
    let mut args = input_arguments(limits);
    args.push(raw_arguments(&shot, None));
    let mut seen = Seen::default();
    let run = Run { args: &words(&args), caps: &caps(&settings, limits, false), dir: dir.path(), limits };
    let (watched, _) = watch(run, open()?, &shot, Source::Listed, &mut seen).await?;
    if !watched.matched {
        return Err(MediaError::invalid("gives frames that cannot be told apart"));
    }
    let key_frame = |found: &Candidate| {
        found.strength.map(|strength| KeyFrame {
            frame: found.frame,
            at_ms: milliseconds(found.at),
            ssim: 1.0 - strength,
        })
    };
    Ok(watched.candidates.iter().filter_map(key_frame).collect())
}

/// One run of ffmpeg.
pub(crate) struct Run<'a> {
    pub(crate) args: &'a [OsString],
    pub(crate) caps: &'a Caps,
    pub(crate) dir: &'a Path,
    pub(crate) limits: &'a Limits,
}

/// Runs ffmpeg and looks at the frames it gives, on a thread of its own. What was seen, and ffmpeg's complaints.
pub(crate) async fn watch(
    run: Run<'_>,
    input: File,
    shot: &Shot<'_>,
    source: Source,
    seen: &mut Seen,
) -> Result<(Watched, String), MediaError> {
    let (told, reports) = mpsc::channel();
    let take = move |line: &str| {
        let taken = seen.take(line, |report| {
            // A watch that ended early says so itself.
            let _ = told.send(report);
        });
        bounded(taken, seen, run.limits)
    };
    let layout = shot.layout.clone();
    let read = |stdout: ChildStdout| async {
        let pipe = File::from(stdout.into_owned_fd().map_err(|error| lost(&error))?);
        // Refused where a user's pipes are many already: it is only slower then.
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES) {
            tracing::debug!(%error, "a pipe of frames stays small");
        }
        blocking(move || stream::watch(pipe, &layout, &reports, source)).await
    };
    child::run_reading(&run.limits.ffmpeg, run.args, input, run.dir, run.caps, take, read).await
}

/// What is done with the picture.
pub(crate) struct Shot<'a> {
    pub(crate) stream: Stream,
    pub(crate) picture: &'a Picture,
    pub(crate) layout: Layout,
    pub(crate) selection: Selection,
}

impl<'a> Shot<'a> {
    pub(crate) fn new(stream: Stream, picture: &'a Picture, settings: &Settings) -> Self {
        let layout = match settings.selection {
            Selection::Fast => Layout::sample(picture),
            Selection::Faithful => Layout::whole(picture),
        };
        Self { stream, picture, layout, selection: settings.selection }
    }

    pub(crate) async fn source(
        &self,
        dir: &Path,
        settings: &Settings,
        duration: Option<f64>,
    ) -> Result<Source, MediaError> {
        if self.selection == Selection::Fast {
            return Ok(Source::Picked);
        }
        let (dir, bytes, wanted) = (dir.to_owned(), self.layout.bytes(), settings.max_frames);
        blocking(move || Spool::new(&dir, bytes, wanted, duration)).await.map(Source::Spooled)
    }
}

pub(crate) fn raw_arguments(shot: &Shot<'_>, wanted: Option<Wanted>) -> String {
    let filter = frames::filter(shot.stream.index, shot.picture, &shot.layout, wanted);
    format!("-filter_complex {filter} -map [raw] -fps_mode passthrough -c:v rawvideo -threads 1 -f rawvideo -y pipe:1")
}
