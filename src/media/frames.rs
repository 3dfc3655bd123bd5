//! The filter graph, what its report lines tell, and the choice among the frames that were found.
//!
//! One decode gives all: raw frames for the measure, a line for each of them with its time, and, when frames cannot be kept
//! whole (`fast`), candidates that are scaled and encoded on the way. A frame is a candidate when a grid of even steps comes
//! due, or when ffmpeg's scene score says that it may begin a shot; a strong score has a register of its own, so that motion
//! does not use up the place of a cut. All have a least distance, a fraction of the stated length or of the time so far,
//! whichever is greater: a clip of unknown or wrongly stated length gives a number of candidates that grows only with the
//! logarithm of its length. The score only proposes; which frames are key frames says SSIM alone.
//!
//! Rejected: a second pass that seeks to the chosen times (decodes twice, and seeking is wrong in broken indexes), and
//! keeping all cuts (an hour of music video has thousands).

use super::select::{Layout, Picture};

/// A score above this may be a cut, one above the other is worth a place of its own.
const WEAK: f64 = 0.08;
const STRONG: f64 = 0.3;
/// Steps of the grid for each frame wanted: two, since then the middles of equal parts are on it.
const GRID_PER_FRAME: u32 = 2;
const CUTS_PER_FRAME: u32 = 4;
/// Assumed for the least distances when the container tells no length.
const UNKNOWN_SECONDS: f64 = 10.0;
const KEY: &str = "aurelia";
const MARK: &str = "aurelia=picked";

/// How many candidates are wanted, and how large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) frames: u32,
    /// Longest side in pixels.
    pub(crate) size: u32,
    pub(crate) duration: Option<f64>,
}

/// The graph for video stream `index`: raw frames of `layout` come out at `[raw]`, each with its line on the error output;
/// with `wanted`, candidates come out at `[picked]`. Whatever the stream holds is made to fit `picture`, so that the raw frames
/// can be told apart.
pub(crate) fn filter(index: u32, picture: &Picture, layout: &Layout, wanted: Option<Wanted>) -> String {
    let print = "metadata=mode=print:file=pipe\\\\:2:direct=1";
    let fit = format!("scale={}:{}", picture.width, picture.height);
    let raw = layout.filter();
    let Some(wanted) = wanted else {
        return format!("[0:{index}]{fit},metadata=mode=add:key={KEY}:value=seen,{print}[frames];{raw}");
    };
    let select = select(wanted);
    let scale = scale(wanted.size);
    format!(
        "[0:{index}]{fit},split[look][frames];{raw};\
         [look]select=outputs=2:e='if({select},1,2)'[pass][rest];[rest]{print},nullsink;\
         [pass]metadata=mode=add:key={KEY}:value=picked,{print},{scale}[picked]"
    )
}

/// Fits a picture into `size` by `size` with square pixels, never enlarged, for JPEG.
pub(crate) fn scale(size: u32) -> String {
    let fit = format!("min(1,{size}/max(iw*sar,ih))");
    format!("scale=w='max(1,round(iw*sar*{fit}))':h='max(1,round(ih*{fit}))':out_range=pc,setsar=1,format=yuvj420p")
}

/// Whether a frame passes. Registers: 0 = when the next step of the grid is due, 1 and 2 = the times of the latest weak and
/// strong cut; all of them + 1, so that 0 means none.
fn select(wanted: Wanted) -> String {
    let span = format!("max({:.6},t)", wanted.duration.filter(|d| *d > 0.0).unwrap_or(UNKNOWN_SECONDS));
    let grid = wanted.frames.saturating_mul(GRID_PER_FRAME).max(1);
    let cuts = wanted.frames.saturating_mul(CUTS_PER_FRAME).max(1);
    let cut = |score: f64, register: u32| {
        format!("if(gt(scene,{score})*gte(t+1-ld({register}),{span}/{cuts}),st({register},t+1),0)")
    };
    // Half a millisecond early, as times of frames are rounded.
    let grid = format!("if(gte(t+1.0005,ld(0)),st(0,1+(floor((t+0.0005)*{grid}/{span})+1)*{span}/{grid}),0)");
    format!("max({grid},max({},{}))", cut(WEAK, 1), cut(STRONG, 2))
}

/// A frame that may be shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Presentation time in seconds.
    pub(crate) at: f64,
    /// Its place in the clip.
    pub(crate) frame: u64,
    /// Of a key frame: how much it differs from the one before it, as 1 - SSIM.
    pub(crate) strength: Option<f64>,
}

/// What one line tells of the frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Report {
    /// The next frame, at this time in seconds.
    Frame(f64),
    /// The frame told of last is a candidate.
    Picked,
}

/// How far the decode came, by the lines about its frames.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Frames decoded.
    pub(crate) frames: u64,
    /// Time of the latest frame in seconds.
    pub(crate) last: f64,
    /// Greatest distance between two frames in a row, in seconds.
    pub(crate) gap: f64,
}

impl Seen {
    /// Takes a line if it is one of the filter's, and passes on what it tells.
    pub(crate) fn take(&mut self, line: &str, mut tell: impl FnMut(Report)) -> bool {
        if line == MARK {
            tell(Report::Picked);
            return true;
        }
        let Some((_, time)) = line.split_once(" pts_time:").filter(|_| line.starts_with("frame:")) else {
            // Scores, and other metadata of the frame, as decoders and containers attach it.
            return line.starts_with("lavfi.") || line.starts_with("aurelia=");
        };
        let at = time.trim().parse().ok().filter(|at: &f64| at.is_finite()).unwrap_or(self.last).max(0.0);
        if self.frames > 0 {
            self.gap = self.gap.max(at - self.last);
        }
        self.last = self.last.max(at);
        self.frames += 1;
        tell(Report::Frame(at));
        true
    }

    /// Where the picture ends: the last frame stays as long as the longest before it.
    pub(crate) fn end(&self) -> f64 {
        self.last + self.gap
    }
}

/// Indices of at most `max` candidates in order of time: from each of `max` equal parts of the clip its strongest key frame,
/// then key frames that lie farthest from those chosen, then whatever does. Without any key frame, which is the normal case on real
/// clips, those nearest to the middles of the parts. A single cut thus does not leave a model with a single picture.
pub(crate) fn choose(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    if candidates.len() <= max {
        return (0..candidates.len()).collect();
    }
    if max == 0 {
        return Vec::new();
    }
    let mut chosen = strongest(candidates, end, max);
    if chosen.is_empty() {
        chosen = nearest_to_middles(candidates, end, max);
    }
    for only_found in [true, false] {
        spread(candidates, &mut chosen, max, |i| !only_found || candidates[i].strength.is_some());
    }
    chosen.sort_unstable();
    chosen
}

/// Adds what lies farthest from those chosen, the earlier of two as far, until there are `max`.
fn spread(candidates: &[Candidate], chosen: &mut Vec<usize>, max: usize, may: impl Fn(usize) -> bool) {
    let away = |i: usize, from: usize| (candidates[from].at - candidates[i].at).abs();
    let mut distance: Vec<f64> =
        (0..candidates.len()).map(|i| chosen.iter().map(|&c| away(i, c)).fold(f64::INFINITY, f64::min)).collect();
    let mut free: Vec<usize> = (0..candidates.len()).filter(|i| may(*i) && !chosen.contains(i)).collect();
    while chosen.len() < max {
        let farthest = (0..free.len()).rev().max_by(|&a, &b| distance[free[a]].total_cmp(&distance[free[b]]));
        let Some(farthest) = farthest else {
            return;
        };
        let new = free.remove(farthest);
        for (i, distance) in distance.iter_mut().enumerate() {
            *distance = distance.min(away(i, new));
        }
        chosen.push(new);
    }
}

fn strongest(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    let mut best: Vec<Option<usize>> = vec![None; max];
    for (i, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.strength.is_some()) {
        let part = part(candidate.at, end, max);
        if best[part].is_none_or(|b| candidate.strength > candidates[b].strength) {
            best[part] = Some(i);
        }
    }
    best.into_iter().flatten().collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small whole number, kept within 0..max; a cast saturates"
)]
fn part(at: f64, end: f64, max: usize) -> usize {
    let part = if end > 0.0 { at / end * max as f64 } else { 0.0 };
    (part as usize).min(max.saturating_sub(1))
}

#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
fn nearest_to_middles(candidates: &[Candidate], end: f64, max: usize) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(max);
    for i in 0..max {
        let middle = (i as f64 + 0.5) / max as f64 * end;
        let away = |c: usize| (candidates[c].at - middle).abs();
        let free = (0..candidates.len()).filter(|c| !chosen.contains(c));
        chosen.extend(free.min_by(|&a, &b| away(a).total_cmp(&away(b))));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(times: impl IntoIterator<Item = f64>, found: &[(usize, f64)]) -> Vec<Candidate> {
        let mut all: Vec<_> = (0..).zip(times).map(|(frame, at)| Candidate { at, frame, strength: None }).collect();
        for &(i, strength) in found {
            all[i].strength = Some(strength);
        }
        all
    }

    #[test]
    fn the_choice_is_key_frames_spread_over_time_then_even_samples() {
        let each_second = || (0..20).map(f64::from);
        let cases: [(&str, Vec<Candidate>, &[usize]); 7] = [
            ("none found: the middles of five parts", grid(each_second(), &[]), &[2, 6, 10, 14, 18]),
            (
                "one found in each part",
                grid(each_second(), &[(1, 0.5), (5, 0.5), (9, 0.5), (13, 0.5), (17, 0.5)]),
                &[1, 5, 9, 13, 17],
            ),
            ("a single one does not stand alone", grid(each_second(), &[(1, 0.9)]), &[1, 5, 10, 14, 19]),
            (
                "the strongest of a part, the first on ties, then the others found",
                grid(each_second(), &[(8, 0.5), (9, 0.9), (10, 0.9)]),
                &[0, 8, 9, 10, 19],
            ),
            (
                "more found than wanted: the strongest of each part, then those farthest away",
                grid(each_second(), &[(0, 0.5), (1, 0.9), (2, 0.5), (9, 0.5), (10, 0.6), (12, 0.7), (19, 0.5)]),
                &[0, 1, 10, 12, 19],
            ),
            ("fewer than five: all", grid([0.0, 0.04], &[]), &[0, 1]),
            ("none: none", Vec::new(), &[]),
        ];
        for (name, candidates, expected) in cases {
            assert_eq!(choose(&candidates, 20.0, 5), expected, "{name}");
        }
    }

    #[test]
    fn equal_times_and_an_unknown_end_still_give_distinct_frames() {
        let chosen = choose(&grid([0.0; 9], &[(3, 0.9)]), 0.0, 5);
        let mut distinct = chosen.clone();
        distinct.dedup();
        assert_eq!((chosen.len(), distinct.len()), (5, 5));
        assert!(choose(&grid([0.0; 9], &[]), 0.0, 0).is_empty());
    }

    #[test]
    fn report_lines_are_read_and_other_lines_left() {
        let (mut seen, mut told) = (Seen::default(), Vec::new());
        let lines = [
            "frame:0    pts:0       pts_time:0",
            "lavfi.scene_score=0.000000",
            "aurelia=picked",
            "frame:0    pts:10      pts_time:0.04",
            "lavfi.scene_score=0.100000",
            "frame:1    pts:125     pts_time:0.5",
            "aurelia=seen",
        ];
        assert!(lines.iter().all(|line| seen.take(line, |report| told.push(report))));
        assert!(!seen.take("[h264 @ 0x5] error while decoding MB 58 14", |_| {}));
        assert_eq!(told, [Report::Frame(0.0), Report::Picked, Report::Frame(0.04), Report::Frame(0.5)]);
        assert_eq!((seen.frames, seen.last, seen.gap), (3, 0.5, 0.46));
    }

    #[test]
    fn a_frame_without_a_time_counts_at_the_last_known_one() {
        let mut seen = Seen::default();
        for time in ["1.5", "NOPTS", "nan", "-3"] {
            assert!(seen.take(&format!("frame:0    pts:x       pts_time:{time}"), |_| {}));
        }
        assert_eq!((seen.frames, seen.last), (4, 1.5));
    }

    proptest::proptest! {
        #[test]
        fn a_choice_is_sorted_distinct_and_never_too_long(
            found in proptest::collection::vec((0.0..100.0_f64, proptest::option::of(0.4..2.0_f64)), 0..60), end in 0.0..120.0_f64, max in 0..9_usize,
        ) {
            let mut found: Vec<_> =
                (0..).zip(found).map(|(frame, (at, strength))| Candidate { at, frame, strength }).collect();
            found.sort_by(|a, b| a.at.total_cmp(&b.at));
            let key = |i: &usize| found[*i].strength.is_some();
            let chosen = choose(&found, end, max);
            proptest::prop_assert_eq!(chosen.len(), max.min(found.len()));
            proptest::prop_assert!(chosen.is_sorted_by(|a, b| a < b));
            let (all, shown) = ((0..found.len()).filter(key).count(), chosen.iter().copied().filter(key).count());
            proptest::prop_assert_eq!(shown, all.min(max), "key frames come first");
        }
    }
}
