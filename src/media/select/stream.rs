//! The thread that takes frames out of the pipe, and the lines about them out of the error output.
//!
//! ffmpeg writes the line about a frame before its pixels, in the order of frames, and both come in that order; so the
//! n-th line belongs to the n-th frame and nothing has to be matched by time. The channel between them is not bounded, and
//! need not be: ffmpeg cannot be ahead by more than the two pipes hold.

use std::io::{self, Read};
use std::sync::mpsc::Receiver;

use super::spool::Spool;
use super::{Judge, Layout};
use crate::media::MediaError;
use crate::media::frames::{Candidate, Report};

/// Where the pictures of candidates come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// ffmpeg picks frames and encodes them: one picture for each [`Report::Picked`].
    Picked,
    /// Any frame may be chosen; what may be is spooled.
    Spooled(Spool),
    /// No pictures: all key frames are listed, to be looked at.
    Listed,
}

/// What was seen of a clip.
#[derive(Debug)]
pub(crate) struct Watched {
    /// In order of time; with [`Source::Picked`] one for each picture, with [`Source::Listed`] the key frames.
    pub(crate) candidates: Vec<Candidate>,
    /// The frames of the candidates, if they were spooled.
    pub(crate) spool: Option<Spool>,
    /// Whether each frame had its line and each line its frame.
    pub(crate) matched: bool,
    /// Key frames found, and those of them no picture stands for.
    pub(crate) found: u64,
    pub(crate) dropped: u64,
}

/// Reads frames until the pipe ends. Blocking: it belongs on a thread of its own.
pub(crate) fn watch(
    mut pipe: impl Read,
    layout: &Layout,
    reports: &Receiver<Report>,
    source: Source,
) -> Result<Watched, MediaError> {
    let mut judge = Judge::new(layout);
    let mut watch = Watch { source, candidates: Vec::new(), frames: 0, open: None, found: 0, dropped: 0 };
    let mut latest = None;
    let mut matched = true;
    loop {
        match read_frame(&mut pipe, judge.room()).map_err(|error| lost(&error))? {
            Taken::Frame => {}
            Taken::End => break,
            Taken::Part => {
                matched = false;
                break;
            }
        }
        let strength = judge.look().map(|ssim| 1.0 - ssim);
        let at = loop {
            match reports.recv() {
                Ok(Report::Frame(at)) => break Some(at),
                Ok(Report::Picked) => watch.pick(latest),
                Err(_) => break None,
            }
        };
        let Some(at) = at else {
            matched = false;
            break;
        };
        let candidate = Candidate { at, frame: watch.frames, strength };
        watch.see(candidate, judge.frame())?;
        latest = Some(candidate);
    }
    for report in reports {
        match report {
            Report::Picked => watch.pick(latest),
            Report::Frame(_) => matched = false,
        }
    }
    Ok(watch.end(matched))
}

fn lost(error: &io::Error) -> MediaError {
    MediaError::worker(format!("lost the frames of a child process: {error}"))
}

enum Taken {
    Frame,
    Part,
    End,
}

fn read_frame(pipe: &mut impl Read, room: &mut [u8]) -> io::Result<Taken> {
    let mut filled = 0;
    while filled < room.len() {
        match pipe.read(&mut room[filled..]) {
            Ok(0) => return Ok(if filled == 0 { Taken::End } else { Taken::Part }),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Taken::Frame)
}

struct Watch {
    source: Source,
    candidates: Vec<Candidate>,
    frames: u64,
    /// The strength of the latest key frame that no picture stands for yet.
    open: Option<f64>,
    found: u64,
    dropped: u64,
}

impl Watch {
    fn see(&mut self, candidate: Candidate, frame: &[u8]) -> Result<(), MediaError> {
        self.frames += 1;
        self.found += u64::from(candidate.strength.is_some());
        match &mut self.source {
            Source::Spooled(spool) => spool.offer(candidate, frame)?,
            Source::Listed => self.candidates.extend(candidate.strength.map(|_| candidate)),
            Source::Picked => {
                if candidate.strength.is_some() {
                    self.dropped += u64::from(self.open.is_some());
                    self.open = candidate.strength;
                }
            }
        }
        Ok(())
    }

    /// The next picture stands for the key frame its shot began with, if that has none of its own.
    fn pick(&mut self, latest: Option<Candidate>) {
        if let Some(latest) = latest {
            self.candidates.push(Candidate { strength: self.open.take(), ..latest });
        }
    }

    fn end(self, matched: bool) -> Watched {
        let (found, dropped) = (self.found, self.dropped + u64::from(self.open.is_some()));
        match self.source {
            Source::Picked | Source::Listed => {
                Watched { candidates: self.candidates, spool: None, matched, found, dropped }
            }
            Source::Spooled(spool) => {
                Watched { candidates: spool.candidates(), spool: Some(spool), matched, found, dropped }
            }
        }
    }
}
