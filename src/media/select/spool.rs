//! Frames that may be chosen, kept on disk while a clip is decoded: a bounded number of them, whatever the clip holds.
//!
//! Time is cut into spans. Each keeps its first frame, for samples at even distances, and its strongest key frame. When time
//! goes beyond the last span, spans are joined in pairs and are twice as long from then on, so a clip of unknown or wrongly
//! stated length needs no other rule. Frames lie raw in slots of one file without a name, used again when a frame is
//! dropped; they are not held in memory, as one of 4K has 12 MB.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::media::MediaError;
use crate::media::frames::Candidate;

/// Most bytes of the file.
const MOST_BYTES: u64 = 1 << 30;
/// Spans for each frame that is wanted: twice the least, so that a clip may be twice as long as stated before any are joined.
const SPANS_PER_FRAME: u64 = 4;
/// The first spans of a clip that states no length, in seconds.
const SHORTEST: f64 = 0.125;

/// One frame that is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    candidate: Candidate,
    slot: u64,
}

/// The file and what lies in it.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    frame_bytes: u64,
    span: f64,
    /// By span: its first frame, its strongest key frame.
    kept: Vec<[Option<Kept>; 2]>,
    free: Vec<u64>,
}

const EVEN: usize = 0;
const FOUND: usize = 1;

impl Spool {
    /// A spool in `dir` for frames of `frame_bytes`, of which `wanted` are to be chosen. `duration` is the clip's in seconds,
    /// where it is known. Blocking.
    pub(crate) fn new(dir: &Path, frame_bytes: usize, wanted: u32, duration: Option<f64>) -> Result<Self, MediaError> {
        let file = tempfile::tempfile_in(dir).map_err(|error| failed(&error))?;
        let frame_bytes = frame_bytes as u64;
        let most = (MOST_BYTES / 2 / frame_bytes.max(1)).max(1);
        let spans = (u64::from(wanted) * SPANS_PER_FRAME).clamp(2, most.max(2));
        // Half of them would do for the stated length: then the middles of equal parts are where spans begin.
        let span = duration.filter(|d| *d > 0.0).map_or(SHORTEST, |d| d * 2.0 / count(spans));
        let kept = vec![[None; 2]; usize::try_from(spans).unwrap_or(usize::MAX)];
        Ok(Self { file, frame_bytes, span, kept, free: (0..2 * spans).rev().collect() })
    }

    /// Keeps the frame if it is the first or the strongest of its span. Blocking.
    pub(crate) fn offer(&mut self, candidate: Candidate, frame: &[u8]) -> Result<(), MediaError> {
        let span = loop {
            let span = whole(candidate.at / self.span);
            if span < self.kept.len() {
                break span;
            }
            self.join();
        };
        if self.kept[span][EVEN].is_none() {
            self.put(span, EVEN, Candidate { strength: None, ..candidate }, frame)?;
        }
        let best = self.kept[span][FOUND].and_then(|kept| kept.candidate.strength);
        if candidate.strength.is_some_and(|strength| best.is_none_or(|best| strength > best)) {
            self.put(span, FOUND, candidate, frame)?;
        }
        Ok(())
    }

    fn put(&mut self, span: usize, kind: usize, candidate: Candidate, frame: &[u8]) -> Result<(), MediaError> {
        let slot = match self.kept[span][kind] {
            Some(kept) => kept.slot,
            None => self.free.pop().ok_or_else(|| MediaError::worker("the spool has no slot left"))?,
        };
        self.file.write_all_at(frame, slot * self.frame_bytes).map_err(|error| failed(&error))?;
        self.kept[span][kind] = Some(Kept { candidate, slot });
        Ok(())
    }

    /// Spans become twice as long: of two, the earlier first frame and the stronger key frame stay.
    fn join(&mut self) {
        for span in 0..self.kept.len() {
            for kind in [EVEN, FOUND] {
                let pair = [2 * span, 2 * span + 1].map(|i| self.kept.get(i).and_then(|kept| kept[kind]));
                let (stays, goes) = match pair {
                    [Some(first), Some(second)] if second.candidate.strength > first.candidate.strength => {
                        (Some(second), Some(first))
                    }
                    [Some(first), second] => (Some(first), second),
                    [None, second] => (second, None),
                };
                self.free.extend(goes.map(|kept| kept.slot));
                self.kept[span][kind] = stays;
            }
        }
        self.span *= 2.0;
    }

    /// What is kept, in order of time; a frame that is kept twice comes once.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        self.sorted().into_iter().map(|kept| kept.candidate).collect()
    }

    fn sorted(&self) -> Vec<Kept> {
        let mut all: Vec<Kept> = self.kept.iter().flatten().flatten().copied().collect();
        // The key frame before the same frame as a first one.
        all.sort_by_key(|kept| (kept.candidate.frame, kept.candidate.strength.is_none()));
        all.dedup_by_key(|kept| kept.candidate.frame);
        all
    }

    /// A file with the chosen frames one after the other, `chosen` being places in [`Spool::candidates`]. Blocking.
    pub(crate) fn extract(&mut self, dir: &Path, chosen: &[usize]) -> Result<File, MediaError> {
        let sorted = self.sorted();
        let mut extract = || -> io::Result<File> {
            let mut target = tempfile::tempfile_in(dir)?;
            for kept in chosen.iter().filter_map(|&i| sorted.get(i)) {
                self.file.seek(SeekFrom::Start(kept.slot * self.frame_bytes))?;
                io::copy(&mut (&self.file).take(self.frame_bytes), &mut target)?;
            }
            target.flush()?;
            target.rewind()?;
            Ok(target)
        };
        extract().map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> MediaError {
    MediaError::worker(format!("cannot spool frames: {error}"))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand spans")]
fn count(spans: u64) -> f64 {
    spans as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(spans: f64) -> usize {
    spans as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clip of `frames` frames of 4 bytes, a tenth of a second each, kept for two chosen ones.
    fn spool(frames: u64, duration: Option<f64>, found: &[u64]) -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), 4, 2, duration).unwrap();
        for frame in 0..frames {
            let at = f64::from(u32::try_from(frame).unwrap()) / 10.0;
            let strength = found.contains(&frame).then(|| 0.5 + at / 1e6);
            let bytes = u32::try_from(frame).unwrap().to_le_bytes();
            spool.offer(Candidate { at, frame, strength }, &bytes).unwrap();
        }
        (dir, spool)
    }

    #[test]
    fn middles_of_equal_parts_and_the_strongest_are_kept() {
        let (dir, mut spool) = spool(40, Some(4.0), &[12, 13, 14, 30]);
        let kept = spool.candidates();
        let frames: Vec<u64> = kept.iter().map(|candidate| candidate.frame).collect();
        assert_eq!(frames, [0, 10, 14, 20, 30]);
        assert_eq!(kept.iter().filter(|candidate| candidate.strength.is_some()).count(), 2);
        let mut bytes = Vec::new();
        spool.extract(dir.path(), &[1, 2, 4]).unwrap().read_to_end(&mut bytes).unwrap();
        let frames: Vec<u8> = bytes.chunks(4).map(|frame| frame[0]).collect();
        assert_eq!(frames, [10, 14, 30], "slots give back what was put there");
    }

    #[test]
    fn an_unknown_or_wrong_length_keeps_a_bounded_number_spread_over_time() {
        for duration in [None, Some(0.001), Some(3.0)] {
            let every: Vec<u64> = (0..5000).collect();
            let (dir, mut spool) = spool(5000, duration, &every);
            let kept = spool.candidates();
            assert!((4..=16).contains(&kept.len()), "{duration:?}: {kept:?}");
            assert!(spool.file.metadata().unwrap().len() <= 16 * 4, "slots are used again");
            let last = kept.last().unwrap();
            assert!(last.at > 250.0, "{duration:?}: {kept:?}");
            let all: Vec<usize> = (0..kept.len()).collect();
            let mut bytes = Vec::new();
            spool.extract(dir.path(), &all).unwrap().read_to_end(&mut bytes).unwrap();
            let frames = bytes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            assert!(frames.eq(kept.iter().map(|candidate| candidate.frame)), "{duration:?}");
        }
    }

    #[test]
    fn times_beyond_all_measure_end_the_joining() {
        let (_dir, mut spool) = spool(3, None, &[]);
        spool.offer(Candidate { at: 1e300, frame: 3, strength: None }, &[1, 2, 3, 4]).unwrap();
        assert_eq!(spool.candidates().len(), 2);
    }
}
